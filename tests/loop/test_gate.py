"""Properties of the gate: only what is shown on dev and earlier slices, by every criterion, replaces the champion."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.loop import criteria, gate
from cuadft.loop.criteria import GateRule

KEPT = {
    "system": "sft",
    "program": "iter-01/program/rag.json",
    "weights": "iter-01/adapters/sft",
    "retriever": "iter-01/retriever",
}
RAG = {"system": "rag", "program": "iter-01/program/rag.json", "weights": None, "retriever": "iter-01/retriever"}
# ten contracts, each 0.3 better: every resample's difference is 0.3, so the interval is [0.3, 0.3]
LOW, HIGH = [0.2] * 10, [0.5] * 10
# seven contracts 0.1 better, three 0.2 worse: the mean is +0.01 and resamples fall on both sides of zero
UNCLEAR = [0.3] * 7 + [0.0] * 3


def scored(system, scores, split="dev", slice=float("nan"), **more):  # noqa: A002
    """Return one scored row per contract."""
    rows = [
        {
            "id": f"{split}{i}",
            "contract": f"{split}{slice}-c{i}",
            "system": system,
            "split": split,
            "slice": slice,
            "f1": score,
            "failed": False,
            "false_answer": 0.0,
            "false_refusal": 0.0,
            "prompt_tokens": 100.0,
            "seconds": 1.0,
            "category": "Law",
        }
        for i, score in enumerate(scores)
    ]
    return pd.DataFrame(rows).assign(**more)


def bare(system, scores):
    """Return rows that only the criterion of improvement can judge, which is quick."""
    return scored(system, np.clip(scores, 0, 1))[["id", "contract", "system", "split", "f1"]]


def frame(*parts):
    return pd.concat(parts, ignore_index=True)


def criterion(decision, system, name):
    found = next(one["clauses"] for one in decision["candidates"] if one["system"] == system)
    return next(one for one in found if one["clause"] == name)


@pytest.fixture
def first(tmp_path):
    return runs.Iteration(tmp_path, 1)


@pytest.fixture
def second(first):
    files.write_json(first.path("decision.json"), {"promoted": KEPT})
    return runs.Iteration(first.run, 2)


ONLY_IMPROVEMENT = {"failures": 1, "false_answers": 1, "false_refusals": 1}  # for rows that hold no more than a score


def decide(rows, iteration, *, n_resamples=200, metric="f1", **rule):
    return gate.decide_champion(rows, iteration, GateRule(metric=metric, **rule), n_resamples=n_resamples)


# --- improvement


def test_a_clear_gain_is_promoted_with_its_program_weights_and_retriever(first):
    rows = frame(scored("rag", LOW), scored("sft", HIGH))
    made = gate.decide_champion(rows, first, GateRule(metric="f1"), tuned_program="rag_compiled")
    assert made["promoted"] == KEPT | {"program": "iter-01/program/rag_compiled.json"}
    assert (made["incumbent"], made["candidate"], made["decided_by"]) == ("rag", "sft", "improvement")
    found = criterion(made, "sft", "improvement")
    assert found["low"] == pytest.approx(0.3) and found["n_contracts"] == 10
    assert made["reason"].startswith("promoted: sft against rag on dev: +0.300 f1, 95% interval [+0.300, +0.300]; ")
    assert [one["clause"] for one in made["candidates"][0]["clauses"]] == list(criteria.CRITERIA)
    assert made["rule"]["metric"] == "f1" and made["incumbent_score"] == pytest.approx(0.2)


@pytest.mark.parametrize("scores", [UNCLEAR, LOW, [0.1] * 10])
def test_no_clear_gain_is_no_promotion(first, scores):
    made = decide(frame(scored("rag", LOW), scored("sft", scores)), first)
    assert made["promoted"] == RAG and made["decided_by"] == "improvement"
    assert (
        made["reason"].startswith("kept: sft against rag on dev")
        and "decided by improvement, limit 0" in made["reason"]
    )


def test_one_contract_is_never_enough(first):
    made = decide(frame(scored("rag", [0.0]), scored("sft", [1.0])), first)
    assert made["promoted"] == RAG and "1 contract: too few for an interval" in made["reason"]
    files.write_json(first.path("decision.json"), made)
    assert files.read_json(first.path("decision.json")) == made  # NaN, which JSON lacks, is None


@pytest.mark.parametrize(("gain", "promoted"), [(0.0, "sft"), (0.1, "sft"), (0.29, "sft"), (0.31, "rag")])
def test_the_gain_asked_for_must_be_exceeded(first, gain, promoted):
    made = decide(frame(scored("rag", LOW), scored("sft", HIGH)), first, gain=gain)
    assert made["promoted"]["system"] == promoted
    found = criterion(made, "sft", "improvement")
    assert found["value"] == pytest.approx(0.3) and found["limit"] == gain


def test_an_interval_that_reaches_below_the_gain_is_not_enough(first):
    better = [0.2 + 0.3 + (0.05 if i % 2 else -0.05) for i in range(10)]  # +0.3 on average, standard error 0.0167
    rows = frame(scored("rag", LOW), scored("sft", better))
    assert decide(rows, first, gain=0.25)["promoted"]["system"] == "sft"  # 3 standard errors above
    assert decide(rows, first, gain=0.28)["promoted"]["system"] == "rag"  # 1.2 above


def test_the_p_values_are_corrected_over_the_candidates(first):
    gains = 0.05 + 0.0865 * np.linspace(-1, 1, 10)
    assert gains.mean() / (gains.std(ddof=1) / 10**0.5) == pytest.approx(
        2.72, abs=0.01
    )  # alone p = 0.024 by Student's t
    better = scored("sft", np.array(LOW) + gains)
    alone = decide(frame(scored("rag", LOW), better), first, n_resamples=2000)
    others = [scored(name, UNCLEAR) for name in ("dpo", "orpo", "kto", "rloo")]
    among = decide(frame(scored("rag", LOW), better, *others), first, n_resamples=2000)
    assert alone["promoted"]["system"] == "sft" and among["promoted"]["system"] == "rag"
    p = criterion(alone, "sft", "improvement")["p"]
    assert criterion(among, "sft", "improvement")["p"] == pytest.approx(5 * p)
    assert "Holm over 5 candidates" in among["reason"]


def test_without_a_true_difference_few_of_five_candidates_are_promoted(first):
    rng, promotions = np.random.default_rng(7), 0
    for _ in range(60):
        contract = rng.normal(0.5, 0.15, 10)
        parts = [bare(s, contract + rng.normal(0, 0.1, 10)) for s in ("rag", "sft", "dpo", "orpo", "kto", "ppo")]
        promotions += decide(frame(*parts), first, **ONLY_IMPROVEMENT)["promoted"]["system"] != "rag"
    assert promotions <= 6  # expected at most 60 * 0.05 / 2 = 1.5; more than 6 of 60 happens once in 900 at 0.025


def test_a_clear_true_gain_is_found(first):
    rng, promotions = np.random.default_rng(8), 0
    for _ in range(20):
        contract = rng.normal(0.4, 0.15, 12)
        parts = [
            bare(s, contract + gain + rng.normal(0, 0.05, 12)) for s, gain in (("rag", 0), ("sft", 0.15), ("dpo", 0))
        ]
        promotions += decide(frame(*parts), first, **ONLY_IMPROVEMENT)["promoted"]["system"] == "sft"
    assert promotions >= 18


# --- the choice


def test_the_best_that_passes_is_promoted(first):
    rows = frame(scored("rag", LOW), scored("sft", [0.4] * 10), scored("dpo", HIGH), scored("rag_compiled", LOW))
    assert decide(rows, first)["promoted"]["weights"] == "iter-01/adapters/dpo"
    rows.loc[rows["system"] == "dpo", "failed"] = [True] * 2 + [False] * 8
    made = decide(rows, first)
    assert made["promoted"]["system"] == made["candidate"] == "sft"
    assert criterion(made, "dpo", "failures")["passed"] is False


def test_of_equals_the_simpler_is_promoted(first):
    rows = [scored(name, HIGH) for name in ("orpo", "dpo", "sft", "rag_compiled")]
    made = decide(frame(scored("rag", LOW), *rows), first)
    assert made["promoted"] == {
        "system": "rag_compiled",
        "program": "iter-01/program/rag_compiled.json",
        "weights": None,
        "retriever": "iter-01/retriever",
    }
    assert [one["system"] for one in made["candidates"]] == ["rag_compiled", "sft", "dpo", "orpo"]


def test_the_one_that_came_closest_is_named_before_one_that_only_has_the_better_mean(first):
    # dpo: +0.3 for sure, but too many failures; orpo: +0.3 on average as well, a mean of 0.6, but from -0.3 to +0.7
    dpo = scored("dpo", HIGH, failed=[True] * 3 + [False] * 7)
    orpo = scored("orpo", [1.0] * 6 + [0.0] * 4)
    made = decide(frame(scored("rag", [0.3] * 10), dpo.assign(f1=0.5), orpo), first)
    assert made["promoted"]["system"] == "rag" and (made["candidate"], made["decided_by"]) == ("dpo", "failures")


def test_a_new_retriever_is_promoted_with_the_champions_program_and_weights(second):
    made = decide(frame(scored("incumbent", LOW), scored("retriever", HIGH)), second)
    assert made["promoted"] == KEPT | {"system": "retriever", "retriever": "iter-02/retriever"}


def test_the_champion_keeps_its_place_through_iterations(second):
    made = decide(frame(scored("incumbent", HIGH), scored("rag", LOW), scored("sft", LOW)), second)
    assert made["promoted"] == KEPT and made["incumbent"] == "incumbent"
    assert decide(scored("incumbent", HIGH), second)["promoted"] == KEPT
    files.write_json(second.path("decision.json"), made)
    third = runs.Iteration(second.run, 3)
    assert decide(frame(scored("incumbent", HIGH), scored("sft", LOW)), third)["promoted"] == KEPT


def test_in_a_later_iteration_the_champion_must_be_beaten_not_rag(second):
    rows = frame(scored("incumbent", HIGH), scored("rag", LOW), scored("sft", [0.4] * 10))
    assert decide(rows, second)["promoted"] == KEPT
    better = decide(frame(rows, scored("dpo", [0.9] * 10)), second)
    assert better["promoted"]["weights"] == "iter-02/adapters/dpo"


# --- what may not enter


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["rag", "sft", "dpo"]), st.floats(0, 1)), max_size=30), st.randoms())
def test_neither_test_rows_nor_the_order_of_rows_change_a_byte(tmp_path_factory, rows, random):
    iteration = runs.Iteration(tmp_path_factory.mktemp("run"), 1)
    dev = frame(scored("rag", LOW), scored("sft", UNCLEAR), scored("dpo", np.linspace(0.1, 0.9, 10)))
    made = json.dumps(decide(dev, iteration))
    test = [scored(system, [value], "test").assign(id=f"t{n}") for n, (system, value) in enumerate(rows)]
    order = list(range(len(dev) + len(test)))
    random.shuffle(order)
    assert json.dumps(decide(frame(dev, *test).iloc[order], iteration)) == made


def test_a_system_seen_on_test_only_is_no_candidate(first):
    rows = frame(scored("rag", LOW), scored("dpo", HIGH, "test"))
    assert decide(rows, first)["candidates"] == []
    with pytest.raises(InputError, match="no dev predictions of 'rag'"):
        decide(frame(scored("sft", LOW), scored("rag", HIGH, "test")), first)


# --- earlier slices


def on_slice(incumbent, sft, number=1):
    return [scored("incumbent", incumbent, "slices", number), scored("sft", sft, "slices", number)]


GAIN = (scored("incumbent", LOW), scored("sft", HIGH))


@pytest.mark.parametrize(
    ("scores", "passed"),
    [(HIGH, True), ([0.45] * 10, True), ([0.38] * 10, False), (LOW, False), ([0.9] * 6 + [0.1] * 4, False)],
)
def test_a_loss_on_an_earlier_slice_must_be_ruled_out(second, scores, passed):
    made = decide(frame(*GAIN, *on_slice(HIGH, scores)), second)
    assert criterion(made, "sft", "slices")["passed"] is passed
    assert made["promoted"]["system"] == "sft" and (made["promoted"]["weights"] == "iter-02/adapters/sft") is passed
    assert made["decided_by"] == ("improvement" if passed else "slices")


def test_every_earlier_slice_must_hold_and_this_iterations_own_does_not_count(second):
    third = runs.Iteration(second.run, 3)
    files.write_json(second.path("decision.json"), {"promoted": KEPT})
    own = on_slice(HIGH, [0.0] * 10, 3)
    both = frame(*GAIN, *on_slice(HIGH, HIGH, 1), *on_slice(HIGH, LOW, 2), *own)
    found = criterion(decide(both, third), "sft", "slices")
    assert not found["passed"] and found["name"] == "slice 2" and "slice 1: +0.000" in found["detail"]
    fine = frame(*GAIN, *on_slice(HIGH, HIGH, 1), *on_slice(HIGH, HIGH, 2), *own)
    assert decide(fine, third)["promoted"]["weights"] == "iter-03/adapters/sft"


def test_a_slice_too_small_to_rule_a_loss_out_is_no_pass(second):
    made = decide(frame(*GAIN, *on_slice([0.5], [0.5])), second)
    assert made["decided_by"] == "slices" and "too few for an interval" in made["reason"]


def test_answers_that_are_missing_on_a_slice_are_no_pass(second):
    only_champion = decide(frame(*GAIN, scored("incumbent", HIGH, "slices", 1)), second)
    assert "slice 1: the candidate has no answers on it" in only_champion["reason"]
    other_rows = decide(frame(*GAIN, *on_slice(HIGH, HIGH[:-1])), second)
    assert other_rows["decided_by"] == "slices" and "answered different rows" in other_rows["reason"]
    files.write_jsonl(second.path("data", "slices.jsonl"), [{"slice": 1, "id": "x"}, {"slice": 2, "id": "y"}])
    nobody = decide(frame(*GAIN), second)
    assert nobody["decided_by"] == "slices" and "the champion has no answers" in nobody["reason"]


def test_without_slices_the_criterion_says_that_it_tested_nothing(first, second):
    for rows, iteration in ((frame(scored("rag", LOW), scored("sft", HIGH)), first), (frame(*GAIN), second)):
        made = decide(rows.drop(columns="slice"), iteration)
        found = criterion(made, "sft", "slices")
        assert found["passed"] is None and found["n"] == 0 and "no earlier slice" in found["detail"]
        _, _, untested = gate.decision_paragraph(made).partition("Not tested: ")
        assert made["promoted"]["system"] == "sft" and "slices (no earlier slice" in untested


def test_slice_rows_without_a_number_count_as_an_earlier_slice(second):
    rows = [part.assign(slice=float("nan")) for part in on_slice(HIGH, LOW)]
    assert decide(frame(*GAIN, *rows), second)["decided_by"] == "slices"


# --- categories


def by_category(system, scores):
    return frame(
        *(
            scored(system, values, category=name).assign(id=[f"{name}{i}" for i in range(len(values))])
            for name, values in scores.items()
        )
    )


def test_a_category_shown_to_be_worse_stops_a_promotion(first):
    rag, sft = {"Law": [0.1] * 10, "Audit": [0.6] * 8}, {"Law": [0.9] * 10, "Audit": [0.4] * 8}
    rows = frame(by_category("rag", rag), by_category("sft", sft))
    made = decide(rows, first)
    found = criterion(made, "sft", "categories")
    assert made["decided_by"] == "categories" and found["name"] == "Audit" and found["value"] == pytest.approx(-0.2)
    assert found["p"] == pytest.approx(2 * 2.0**-8)  # sign test of 8 equal signs, one-sided, the smaller of two (Holm)
    assert "shown to lose: Audit" in made["reason"]
    assert decide(rows, first, category_margin=0.25)["promoted"]["system"] == "sft"


def test_a_category_of_few_contracts_is_listed_and_decides_nothing(first):
    rag, sft = {"Law": [0.1] * 10, "Audit": [0.5] * 4}, {"Law": [0.9] * 10, "Audit": [0.2] * 4}
    made = decide(frame(by_category("rag", rag), by_category("sft", sft)), first)
    found = criterion(made, "sft", "categories")
    assert found["passed"] and found["too_few"] == ["Audit"] and "too few to say" in found["detail"]
    assert made["promoted"]["system"] == "sft" and "fewer than 5 contracts: Audit" in found["detail"]


def test_categories_of_earlier_slices_count_with_those_of_dev(second):
    dev = [
        by_category(s, {"Law": [x] * 10, "Audit": [y] * 3}) for s, x, y in (("incumbent", 0.1, 1.0), ("sft", 0.9, 0.0))
    ]
    past = [
        by_category(s, {"Audit": [x] * 5}).assign(split="slices", slice=1.0, contract=[f"s{i}" for i in range(5)])
        for s, x in (("incumbent", 1.0), ("sft", 0.0))
    ]
    assert criterion(decide(frame(*dev), second), "sft", "categories")["too_few"] == ["Audit"]
    found = criterion(decide(frame(*dev, *past), second), "sft", "categories")
    assert not found["passed"] and found["name"] == "Audit" and found["n_contracts"] == 8


# --- ceilings


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("false_answer", [1.0, 1.0, 1.0] + [0.0] * 7, {"false_answers": 0.2}),
        ("false_answer", [1.0, 1.0, 1.0] + [0.0] * 7, {}),  # 0.3, but up to more than 0.5 in other contracts
        ("false_refusal", [1.0] * 6 + [0.0] * 4, {}),  # 0.6, but up to more than 0.75
        ("failed", [True] + [False] * 9, {}),
        ("prompt_tokens", [300.0] * 10, {"prompt_tokens": 250}),
        ("seconds", [3.0] * 10, {"seconds": 2.0}),
    ],
)
def test_a_ceiling_that_is_exceeded_stops_a_promotion(first, column, values, rule):
    name = {"failed": "failures", "false_answer": "false_answers", "false_refusal": "false_refusals"}.get(
        column, column
    )
    share = name not in ("prompt_tokens", "seconds")
    rows = frame(scored("rag", LOW), scored("sft", HIGH, **{column: values}))
    made = decide(rows, first, **rule)
    assert made["promoted"] == RAG and made["decided_by"] == name
    found = criterion(made, "sft", name)
    assert f", limit {found['limit']:g}" in gate.decision_paragraph(made) and not found["passed"]
    loose = decide(rows, first, **{name: 1.0 if share else 1000})
    assert loose["promoted"]["system"] == "sft"
    if name != "failures":
        unknown = decide(rows.drop(columns=column), first, **rule)  # a ceiling that cannot be checked does not hold
        assert unknown["decided_by"] == name and "not measured" in gate.decision_paragraph(unknown)
        without = decide(rows.drop(columns=column), first, **({name: 1.0} if share else {}))
        assert without["promoted"]["system"] == "sft"  # no ceiling, which is the default of tokens and seconds


def test_a_judges_failures_count_as_failures(first):
    score = [0.9] * 8 + [float("nan")] * 2
    rows = frame(scored("rag", LOW, judge_score=0.1), scored("sft", HIGH, judge_score=score))
    made = decide(rows, first, metric="judge_score")
    assert made["decided_by"] == "failures" and criterion(made, "sft", "failures")["value"] == pytest.approx(0.2)
    assert decide(rows, first, metric="judge_score", failures=0.3)["promoted"]["system"] == "sft"


def test_times_enter_a_decision_only_against_a_limit(first):
    rows = [frame(scored("rag", LOW), scored("sft", HIGH, seconds=seconds)) for seconds in (1.0, 2.0)]
    assert decide(rows[0], first) == decide(rows[1], first)


# --- data that are missing


def test_a_metric_that_nobody_has_promotes_nobody(first):
    for rows in (
        frame(scored("rag", LOW), scored("sft", HIGH)),
        frame(scored("rag", LOW), scored("sft", HIGH)).assign(judge_score=float("nan")),
    ):
        made = decide(rows, first, metric="judge_score")
        assert made["promoted"] == RAG and made["candidate"] is None and made["decided_by"] == "candidates"
        assert "no other system with judge_score" in made["reason"] and "judge_score" in gate.decision_paragraph(made)
        json.dumps(made)
    half = frame(scored("rag", LOW, judge_score=float("nan")), scored("sft", HIGH, judge_score=0.9))
    assert "no question has a judge_score of both" in decide(half, first, metric="judge_score")["reason"]


def test_other_rows_than_the_champions_are_no_pass(first):
    made = decide(frame(scored("rag", LOW), scored("sft", HIGH[:-1]), scored("dpo", [0.4] * 10)), first)
    assert made["promoted"]["system"] == "dpo"
    assert "answered different rows" in criterion(made, "sft", "improvement")["detail"]
    only = decide(frame(scored("rag", LOW), scored("sft", HIGH[:-1])), first)
    assert (
        only["promoted"] == RAG
        and "not comparable" in only["reason"]
        and "answered different rows" in gate.decision_paragraph(only)
    )


def test_a_missing_champion_is_named(first, second):
    with pytest.raises(InputError, match="no dev predictions of 'rag'.*03_batch_inference"):
        decide(scored("sft", HIGH), first)
    with pytest.raises(InputError, match="no dev predictions of 'incumbent'"):
        decide(frame(scored("rag", LOW), scored("sft", HIGH)), second)


def test_the_metric_can_be_another_also_one_of_counts(first):
    def spans(system, hits, misses):  # precision by contract: hits of hits + misses
        part = scored(system, [0.5] * len(hits)).assign(answered=[h + m for h, m in zip(hits, misses)])
        return part.assign(detection_precision=[h / (h + m) for h, m in zip(hits, misses)])

    few = spans("sft", [1] * 7 + [0], [0] * 7 + [93])  # mean of the rows' shares 7/8, but 7 of 100 spans
    many = spans("dpo", [8] * 8, [2] * 8)  # 64 of 80
    made = decide(frame(spans("rag", [1] * 8, [9] * 8), few, many), first, metric="detection_precision")
    assert made["candidate"] == made["promoted"]["system"] == "dpo"


def test_seeds_of_a_system_are_averaged(first):
    tuned = frame(*(scored("sft", [x] * 10).assign(seed=seed) for seed, x in enumerate((0.4, 0.6))))
    made = decide(frame(scored("rag", LOW).assign(seed=0), tuned), first)
    assert made["promoted"]["system"] == "sft" and criterion(made, "sft", "improvement")["value"] == pytest.approx(0.3)


# --- rule and text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "rouge"}, "gate_metric 'rouge' .did you mean 'rouge_l'"),
        ({"metric": "seconds"}, "gate_metric 'seconds'"),
        ({"gain": -0.1}, "gate_gain -0.1: give a number from 0 to 1"),
        ({"failures": 5}, "gate_failures 5"),
        ({"false_refusals": 1.5}, "gate_false_refusals 1.5: give a number from 0 to 1"),
        ({"seconds": float("nan")}, "gate_seconds nan: give a number from 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        GateRule(**values)


def test_a_rule_is_read_from_a_notebooks_parameters():
    found = GateRule.of({"gate_metric": "em", "gate_gain": 0.01, "gate_false_refusals": 0.9, "seed": 7, "gated": 1})
    assert found == GateRule(metric="em", gain=0.01, false_refusals=0.9)


def test_the_default_rule_improves_quotes_and_allows_neither_inventing_nor_refusing_everything():
    rule = GateRule()
    assert (rule.metric, rule.false_answers, rule.false_refusals, rule.failures) == ("quote_f1", 0.5, 0.75, 0.05)


@pytest.mark.parametrize(
    "rows",
    [
        GAIN,
        (scored("incumbent", LOW), scored("sft", UNCLEAR)),
        (*GAIN, *on_slice(HIGH, LOW)),
        (scored("incumbent", LOW),),
    ],
)
def test_the_paragraph_is_short_names_the_criterion_and_survives_the_file(second, rows):
    made = decide(frame(*rows, scored("dpo", LOW)) if len(rows) > 1 else frame(*rows), second)
    files.write_json(second.path("decision.json"), made)
    again = files.read_json(second.path("decision.json"))
    text = gate.decision_paragraph(again)
    assert text == gate.decision_paragraph(made) and text.count(". ") + 1 <= 3 and "nan" not in text.lower()
    assert {"candidates": "no other system"}.get(made["decided_by"], f"decided by {made['decided_by']}") in text
    table = gate.decision_table(again)
    assert len(table) == len(criteria.CRITERIA) * len(made["candidates"]) and list(table["criterion"].unique()) in (
        [],
        list(criteria.CRITERIA),
    )


@pytest.mark.parametrize(
    "metric, judge_lm, refused",
    [
        ("reference_score", "", True),
        ("reference_score", "openai/x", False),
        ("judge_score", "openai/x", True),
        ("f1", "", False),
    ],
)
def test_a_judge_that_rewarded_the_training_does_not_decide_alone(metric, judge_lm, refused):
    given = {"reward_source": "judge", "judge_lm": judge_lm, "align_methods": ["ppo"]}
    for parameters, raises in ((given, refused), (given | {"reward_source": "gold"}, False)):
        if raises:
            with pytest.raises(InputError, match="gave the reward.*gate_metric quote_f1"):
                gate._check_judge(GateRule(metric=metric), parameters)
        else:
            gate._check_judge(GateRule(metric=metric), parameters)
