"""The gate and the systems without a model: refusing always, or quoting whole passages, is never promoted."""

import numpy as np
import pandas as pd
import pytest

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import CONSTANTS
from cuadft.evaluation.metrics import score_predictions
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.loop import criteria, gate
from cuadft.loop.criteria import GateRule

CLAUSE = "the governing law is that of the state of Delaware"
PASSAGE = " ".join(f"other{i}" for i in range(40))
SHARES = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]  # of questions without clause
CONTRACTS, QUESTIONS = 8, 10


def questions(share, *, contracts=CONTRACTS, seed=0):
    """Return contracts' questions, of which this share has no clause, in an order that the seed sets."""
    n = contracts * QUESTIONS
    absent = np.random.default_rng(seed).permutation(np.arange(n) < round(share * n))
    return [
        {
            "id": f"q{i}",
            "contract": f"c{i % contracts}",
            "category": "Law",
            "split": "dev",
            "is_impossible": bool(gone),
            "answers": [] if gone else [{"text": CLAUSE, "start": 5}],
            "error": None,
            "prompt_tokens": 100,
        }
        for i, gone in enumerate(absent)
    ]


def answered(name, asked, answer):
    return [row | {"system": name, "answer": answer(row)} for row in asked]


def refuse(_):
    return NO_CLAUSE


def quote_passage(row):
    return PASSAGE if row["is_impossible"] else f"{PASSAGE} {CLAUSE}"


def answer_badly(row):
    return "the agreement" if row["is_impossible"] else "the agreement of the parties"


def system(quality, seed):
    """Return the answers of a system that errs in this share of its questions, by refusing or by inventing."""
    rng = np.random.default_rng(seed)

    def answer(row):
        right = rng.random() < quality
        return (CLAUSE if right else NO_CLAUSE) if not row["is_impossible"] else (NO_CLAUSE if right else "the law")

    return answer


MODELLESS = dict(zip(CONSTANTS, (refuse, quote_passage), strict=True))
CHAMPIONS = {"bad": lambda seed: answer_badly, "good": lambda seed: system(0.9, seed + 50)}


def scored(asked, **answers):
    return score_predictions([row for name, answer in answers.items() for row in answered(name, asked, answer)])


@pytest.fixture
def first(tmp_path):
    return runs.Iteration(tmp_path, 1)


def decide(rows, iteration, **rule):
    return gate.decide_champion(rows, iteration, GateRule(**rule), n_resamples=200)


def found(decision, name, system="sft"):
    clauses = next(one["clauses"] for one in decision["candidates"] if one["system"] == system)
    return next(one for one in clauses if one["clause"] == name)


# --- neither is promoted, whatever the data


@pytest.mark.parametrize("champion", CHAMPIONS)
@pytest.mark.parametrize("share", SHARES)
def test_neither_is_promoted_at_any_share_of_questions_without_clause(first, share, champion):
    for seed in range(2):
        asked = questions(share, seed=seed)
        rows = scored(asked, rag=CHAMPIONS[champion](seed), **MODELLESS)
        named = decide(rows, first)
        assert named["promoted"]["system"] == "rag" and named["candidates"] == []
        for name in CONSTANTS:
            smuggled = rows[rows["system"] == name].assign(system="sft")
            made = decide(pd.concat([rows, smuggled], ignore_index=True), first)
            assert made["promoted"]["system"] == "rag" and [one["system"] for one in made["candidates"]] == ["sft"]
            assert found(made, "constants")["passed"] is False


@pytest.mark.parametrize("share", [0, 0.3, 0.7])
def test_the_floor_holds_where_no_ceiling_does(first, share):
    loose = {"false_answers": 1, "false_refusals": 1, "failures": 1}
    rows = scored(questions(share), rag=lambda row: "nothing", sft=quote_passage, **MODELLESS)
    made = decide(rows, first, **loose)
    assert found(made, "improvement")["passed"] and made["promoted"]["system"] == "rag"
    assert made["decided_by"] == "constants" and "top_passage: +0.000" in made["reason"]
    assert "decided by constants" in gate.decision_paragraph(made)
    without = rows[~rows["system"].isin(CONSTANTS)]
    assert decide(without, first, **loose)["promoted"]["system"] == "sft"  # so it is the floor that stops it


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_good_system_is_promoted(first, share):
    for seed in range(3):
        asked = questions(share, seed=seed)
        made = decide(scored(asked, rag=answer_badly, sft=system(0.9, seed), **MODELLESS), first)
        assert made["promoted"]["system"] == "sft", made["reason"]
        assert {part["name"]: part["passed"] for part in found(made, "constants")["parts"]} == dict.fromkeys(
            CONSTANTS, True
        )


@pytest.mark.parametrize("metric", ["quote_f1", "f1"])
def test_refusing_more_raises_only_the_score_over_all_rows_and_is_not_promoted(first, metric):
    asked = questions(0.8)

    def shy(row):  # as good as the champion where it answers, but it refuses most of what it is asked
        return CLAUSE if row["id"].endswith("7") and not row["is_impossible"] else NO_CLAUSE

    def eager(row):
        return CLAUSE if not row["is_impossible"] else "the law"

    rows = scored(asked, rag=eager, sft=shy, **MODELLESS)
    means = rows.groupby("system")["f1"].mean()
    assert means["sft"] > means["rag"] + 0.2
    made = decide(rows, first, metric=metric)
    assert made["promoted"]["system"] == "rag" and not found(made, "false_refusals")["passed"]
    assert found(made, "improvement")["passed"] is (metric == "f1")


# --- the criterion


def test_the_record_holds_the_worst_of_the_two_and_both_as_parts(first):
    made = decide(scored(questions(0.5), rag=answer_badly, sft=system(0.9, 1), **MODELLESS), first)
    record = found(made, "constants")
    by_name = {part["name"]: part for part in record["parts"]}
    assert set(by_name) == set(CONSTANTS) and record["passed"] and record["limit"] == 0
    assert record["low"] == min(part["low"] for part in by_name.values()) > 0
    scores = {one["system"]: one["score"] for one in made["candidates"]}
    assert by_name["always_refuses"]["value"] == pytest.approx(scores["sft"])  # it scores 0
    table = gate.decision_table(made)
    assert list(table["criterion"]) == list(criteria.CRITERIA) and criteria.CRITERIA[1] == "constants"


def test_without_their_rows_the_criterion_says_so_and_tests_nothing(first):
    rows = scored(questions(0.5), rag=answer_badly, sft=system(0.9, 1), **MODELLESS)
    none = decide(rows[~rows["system"].isin(CONSTANTS)], first)
    assert none["promoted"]["system"] == "sft" and found(none, "constants")["passed"] is None
    assert "always_refuses: its rows are missing; top_passage: its rows are missing" in gate.decision_paragraph(none)
    one = found(decide(rows[rows["system"] != "top_passage"], first), "constants")
    assert one["passed"] and "top_passage: its rows are missing" in one["detail"]


def test_without_any_clause_nothing_is_promoted_on_quotes(first):
    made = decide(scored(questions(1), rag=answer_badly, sft=system(0.9, 1), **MODELLESS), first)
    assert made["promoted"]["system"] == "rag" and not found(made, "constants")["passed"]
    assert "it has no quote_f1 on these questions" in found(made, "constants")["detail"]


def test_a_precision_that_a_system_without_answers_lacks_is_left_untested(first):
    rows = scored(questions(0.5), rag=answer_badly, sft=system(0.95, 1), **MODELLESS)
    made = decide(rows, first, metric="detection_precision")
    parts = {part["name"]: part["passed"] for part in found(made, "constants")["parts"]}
    assert parts == {"always_refuses": None, "top_passage": True} and found(made, "constants")["passed"]


def test_constants_that_no_judge_was_paid_for_are_left_untested(first):
    rows = scored(questions(0.5), rag=answer_badly, sft=system(0.9, 1), **MODELLESS)
    score = rows["f1"].where(~rows["system"].isin(CONSTANTS))
    made = decide(rows.assign(judge_score=score), first, metric="judge_score")
    assert found(made, "constants")["passed"] is None and "it has no judge_score" in found(made, "constants")["detail"]


def test_questions_that_only_another_system_answered_do_not_stop_a_candidate(first):
    rows = scored(questions(0.5), rag=answer_badly, sft=system(0.9, 1))
    more = scored(questions(0.5, contracts=CONTRACTS + 1), **MODELLESS)
    extra = more[~more["id"].isin(rows["id"])]
    floor = scored(questions(0.5), **MODELLESS)
    made = decide(pd.concat([rows, floor, extra], ignore_index=True), first)
    assert len(extra) and made["promoted"]["system"] == "sft"
    half = floor[floor["id"] != "q3"]
    lacking = found(decide(pd.concat([rows, half], ignore_index=True), first), "constants")
    assert not lacking["passed"] and "answered different rows" in lacking["detail"]


def test_neither_is_ever_a_champion(first):
    files.write_json(first.path("decision.json"), {"promoted": {"system": "always_refuses"}})
    second = runs.Iteration(first.run, 2)
    rows = scored(questions(0.5), incumbent=refuse, sft=system(0.9, 1), **MODELLESS)
    with pytest.raises(InputError, match="champion of iteration 2 is always_refuses"):
        decide(rows, second)
    files.write_json(first.run / "run.json", {})
    files.write_json(first.path("adapters", "top_passage", "adapter_config.json"), {})
    files.write_text(first.path("adapters", "top_passage", "adapter_model.safetensors"), "w")
    with pytest.raises(InputError, match="'top_passage' is no system"):
        gate.promote(first.run, "top_passage", reason="x")


def test_a_decision_of_an_older_version_is_still_shown(first):
    made = decide(scored(questions(0.5), rag=answer_badly, sft=system(0.9, 1), **MODELLESS), first)
    for one in made["candidates"]:
        kept = [record for record in one["clauses"] if record["clause"] not in ("constants", "false_refusals")]
        one["clauses"] = [{key: value for key, value in record.items() if key != "by"} for record in kept]
    assert len(gate.decision_table(made)) == len(criteria.CRITERIA) - 2
    assert "**Promoted**: sft against rag" in gate.decision_paragraph(made)


# --- ceilings by the upper end of the interval


def with_faults(absent, every=6):
    """Return a system that errs in every sixth question, of those without clause or of those with one."""

    def answer(row):
        wrong = int(row["id"][1:]) % every == 0 and row["is_impossible"] is absent
        return CLAUSE if row["is_impossible"] is wrong else NO_CLAUSE

    return answer


@pytest.mark.parametrize(("name", "where_absent"), [("false_answers", True), ("false_refusals", False)])
def test_the_upper_end_not_the_mean_must_keep_the_ceiling(first, name, where_absent):
    asked = questions(0.5)
    rows = scored(asked, rag=answer_badly, sft=with_faults(where_absent), **MODELLESS)
    record = found(decide(rows, first), name)
    assert record["passed"] and 0 < record["value"] < record["high"] and record["by"] == "high"
    between = (record["value"] + record["high"]) / 2
    made = decide(rows, first, **{name: between})
    assert made["promoted"]["system"] == "rag" and made["decided_by"] == name
    label, end = name.replace("_", " "), f"{record['high']:.3f}"
    said = f"decided by {label}, limit {between:g}: upper end of the interval {end}"
    assert said in made["reason"]
    assert said in gate.decision_paragraph(made) and found(made, name)["high"] == record["high"]
    assert decide(rows, first, **{name: record["high"]})["promoted"]["system"] == "sft"


@pytest.mark.parametrize(("contracts", "promoted"), [(4, "rag"), (5, "sft"), (8, "sft")])
def test_a_system_without_fault_passes_the_default_ceilings_from_five_contracts_on(first, contracts, promoted):
    asked = questions(0.5, contracts=contracts)

    def wordy(row):  # never wrong, but its quotes are longer in some contracts than in others
        return NO_CLAUSE if row["is_impossible"] else f"{CLAUSE} {'word ' * (int(row['id'][1:]) % 3)}"

    made = decide(scored(asked, rag=answer_badly, sft=wordy, **MODELLESS), first)
    assert made["promoted"]["system"] == promoted and found(made, "failures")["passed"]
    answers = found(made, "false_answers")
    assert answers["value"] == 0 and answers["high"] == pytest.approx(1 - 0.05 ** (1 / contracts))
    if promoted == "rag":
        assert "limit 0.5: upper end of the interval 0.527, 4 contracts" in made["reason"]


def test_most_good_systems_pass_the_default_ceilings_with_few_contracts(first):
    passed = 0
    for seed in range(8):
        asked = questions(0.5, contracts=5, seed=seed)
        made = decide(scored(asked, rag=answer_badly, sft=system(0.95, seed), **MODELLESS), first)
        passed += all(found(made, name)["passed"] for name in criteria.BY_INTERVAL)
    assert passed >= 4  # both hold in about 7 of 10 cases


def test_one_contract_shows_no_ceiling_to_hold(first):
    made = decide(scored(questions(0.5, contracts=1), rag=answer_badly, sft=system(1, 0)), first)
    for name in criteria.BY_INTERVAL:
        record = found(made, name)
        assert record["passed"] is False and record["high"] is None
        assert record["detail"] == "no interval, 1 contract"


@pytest.mark.parametrize(("share", "name"), [(0, "false_answers"), (1, "false_refusals")])
def test_a_ceiling_on_questions_that_nobody_asked_is_not_tested(first, share, name):
    rows = scored(questions(share), rag=answer_badly, sft=system(0.9, 1), **MODELLESS)
    record = found(decide(rows, first), name)
    assert record["passed"] is None and "no such question on dev or an earlier slice" in record["detail"]
    if share == 0:
        assert "false_answers (no such question" in gate.decision_paragraph(decide(rows, first))
    missing = found(decide(rows.drop(columns=criteria.BY_INTERVAL[name][0]), first), name)
    assert missing["passed"] is False and missing["detail"] == "not measured"


def test_questions_of_a_kind_that_all_failed_are_not_measured_rather_than_not_asked(first):
    asked = questions(0.5)
    good = answered("sft", asked, system(1, 0))
    failed = [row | ({"answer": None, "error": "x"} if row["is_impossible"] else {}) for row in good]
    record = found(decide(score_predictions([*answered("rag", asked, answer_badly), *failed]), first), "false_answers")
    assert record["passed"] is False and record["detail"] == "not measured"


def test_failures_are_counted_and_no_rate(first):
    asked = questions(0.5)
    good = answered("sft", asked, system(1, 0))
    good[0] |= {"answer": None, "error": "x"}
    rows = score_predictions([*answered("rag", asked, answer_badly), *good])
    record = found(decide(rows, first), "failures")
    assert record["passed"] and record["n"] == len(asked)
    assert record["value"] == pytest.approx(1 / 80) and record["high"] > 0.05


def test_the_rows_weights_count_in_scores_and_ceilings(first):
    asked = questions(0.5)
    rows = scored(asked, rag=answer_badly, sft=with_faults(True), **MODELLESS)
    faulty = rows["id"].str[1:].astype(int) % 6 == 0
    light = rows.assign(weight=np.where(faulty, 0.25, 1.0))
    plain, weighted = (found(decide(part, first), "false_answers") for part in (rows, light))
    wrong = int((rows["is_impossible"] & faulty & (rows["system"] == "sft")).sum())
    absent = len(asked) // 2
    assert plain["value"] == pytest.approx(wrong / absent)
    assert weighted["value"] == pytest.approx(wrong / 4 / (absent - wrong * 3 / 4))
    doubled = decide(rows.assign(weight=2.0), first)  # equal weights change nothing
    assert found(doubled, "false_answers")["high"] == pytest.approx(plain["high"])
    assert found(doubled, "constants")["low"] == pytest.approx(found(decide(rows, first), "constants")["low"])
