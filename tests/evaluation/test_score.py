import csv
import json
import time

import pandas as pd
import pytest
from chat_server import KEY

from cuadft import cli
from cuadft.core.errors import InputError
from cuadft.evaluation import metrics, score
from cuadft.evaluation.verdicts import has_failed, verdict_row, verdict_table

FAST = {"n_resamples": 200, "log": lambda line: None}
FILES = {"rows.csv", "scoreboard.csv", "deltas.csv", "benchmark.png", "report.txt"}
AGREEMENT = {"agreement.csv"}
PUBLISHED = {"published.csv", "published_deltas.csv", "published.png"}


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(right, n=12, **changes):
    return [
        {
            "question": f"Question {i}?",
            "ref_answer": f"The fee is {i + 100} dollars.",
            "response": f"The fee is {i + 100} dollars." if i < right else "Nothing of the kind.",
        }
        | changes
        for i in range(n)
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(project, name="rows.csv", out="scores"):
    return pd.read_csv(project / out / name, keep_default_na=False, na_values=[""])


def test_a_call_writes_every_result_and_nothing_else(project):
    write(project / "a.csv", rows(12))
    write(project / "b.csv", rows(3))
    done = score.score_files(["a.csv", "b.csv"], **FAST)
    assert {p.name for p in (project / "scores").iterdir()} == FILES
    board = read(project, "scoreboard.csv").set_index(["system", "metric"])
    assert board.loc[("a", "em"), "value"] == 1 and board.loc[("b", "em"), "value"] == 0.25
    assert board.loc[("a", "em"), "n_questions"] == 12  # what was resampled
    deltas = read(project, "deltas.csv").set_index("metric")
    values = done.scoreboard[done.scoreboard["metric"] == "quote_f1"].set_index("system")["value"]
    assert deltas.loc["quote_f1", "value"] == pytest.approx(values["b"] - values["a"])
    assert set(deltas.index) == {"quote_f1", "reference_score"} and deltas["p_holm"].notna().all()
    report = (project / "scores" / "report.txt").read_text()
    assert done.summary in report and "column question taken as the question" in report
    assert "nothing about other contracts" in report and "agreement" not in report


def test_rows_keep_the_order_of_the_input_with_failed_answers_counted(project):
    answers = ["The fee is 7 dollars.", "", 'He said "no",\nthen\rleft; =1+1', "7", "nan", "There is no such clause."]
    given = [{"question": f"Q{i}", "reference": "The fee is 7 dollars.", "answer": a} for i, a in enumerate(answers)]
    given = [row | {"error": "" if row["answer"] else "no answer"} for row in given]
    write(project / "z.csv", given)
    score.score_files(["z.csv"], **FAST)
    found = read(project)
    assert list(found.columns[:6]) == [
        "system",
        "question",
        "reference",
        "answer",
        "reference_score",
        "judge_verdict",
    ]
    assert set(metrics.METRICS) - {"judge_score"} <= set(found.columns)
    assert list(found["question"]) == [r["question"] for r in given]
    assert list(found["answer"].fillna("").astype(str)) == [*answers[:4], "", answers[5]]
    assert list(found["judge_verdict"].eq("failed")) == [False, True, False, False, True, False]
    assert list(found["error"].eq("no answer")) == list(found["failed"])
    assert found["reference_score"].between(0, 1).all() and found["reference_score"][0] > 0.9
    assert (found.loc[found["failed"], ["reference_score", "f1"]] == 0).all(axis=None)


CLAUSE = {"text": "Cap is $5.", "start": 40}
AGAIN = {
    "several spans": [
        {"question": "Cap?", "reference": ["Limited to $5.", "Cap is $5."], "answer": "Cap is $5."},
        {"question": "Law?", "reference": ["['Ohio'"], "answer": '["Ohio", "law"]'},
        {"question": "Term?", "reference": "-", "answer": ""},
        {"question": "Fee?", "reference": "(a) $5 (b)", "answer": None},
    ],
    "a run's predictions": [
        {
            "question": "Cap?",
            "answers": answers,
            "answer": "Cap is $5.",
            "weight": weight,
            "seconds": 0.5,
            "spans": [[40, 50]],
        }
        | {"contract": contract, "category": "Cap", "split": "test", "passages": [{"start": 30, "end": 60}]}
        for contract, answers, weight in [("C", [CLAUSE], 1.0), ("D", [], 2.5), ("E", [CLAUSE | {"start": 90}], 1.0)]
    ],
}


@pytest.mark.parametrize("given", AGAIN.values(), ids=AGAIN)
def test_its_own_rows_give_the_same_figures_again(project, given):
    (project / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    first = score.score_files(["a.jsonl"], out="first", **FAST)
    again = score.score_files([project / "first" / "rows.csv"], out="again", **FAST)
    pd.testing.assert_frame_equal(again.scoreboard, first.scoreboard)
    for name in ("rows.csv", "scoreboard.csv"):
        assert (project / "again" / name).read_text() == (project / "first" / name).read_text()
    assert ("hit" in set(first.scoreboard.dropna(subset="value")["metric"])) == ("passages" in given[0])


def test_one_reading_of_refusals_holds_for_every_metric_and_the_others_are_counted(project):
    said = [
        "There is no such clause.",
        "The contract does not specify a cap.",
        "No, the cap is $5.",
        "",
        "The cap is $5.",
    ]
    write(project / "a.csv", [{"question": f"Q{n}", "reference": "-", "answer": text} for n, text in enumerate(said)])
    for reading, refused in (("whole", 3), ("sentence", 2), ("judge", 4)):
        done = score.score_files(["a.csv"], refusals=reading, **FAST)
        assert done.frame["refused"].sum() == done.frame["f1"].sum() == done.frame["reference_score"].sum() == refused
        assert done.frame["false_answer"].sum() == 5 - refused
    report = (project / "scores" / "report.txt").read_text()
    assert "Refusals: 4 of 5 answers, by the reading judge" in report
    assert "3 by whole (other on 1), 2 by sentence (other on 2)" in report
    with pytest.raises(InputError, match="reading of refusals 'words': choose one of whole, sentence, judge"):
        score.score_files(["a.csv"], refusals="words", **FAST)


def test_a_file_of_failed_answers_only_is_scored_zero(project):
    write(project / "a.csv", [r | {"response": "nan"} for r in rows(3)])
    board = score.score_files(["a.csv"], **FAST).scoreboard
    board = board[board["system"] == "a"].set_index("metric")
    assert board.loc["f1", "value"] == 0 and board.loc["f1", "failed"] == 12
    assert board.loc["reference_score", "value"] == 0


def test_always_refusing_stands_beside_the_systems_of_the_files(project):
    given = [
        {"question": f"Q{i}", "reference": "7" if i % 3 else "There is no such clause.", "answer": "7"}
        for i in range(12)
    ]
    write(project / "a.csv", given)
    board = score.score_files(["a.csv"], **FAST).scoreboard.set_index(["system", "metric"])["value"]
    assert board["always_refuses", "quote_f1"] == 0 and board["a", "quote_f1"] > 0
    assert board["always_refuses", "f1"] == pytest.approx(4 / 12)
    assert "always_refuses" in (project / "scores" / "report.txt").read_text()
    assert set(read(project)["system"]) == {"a"}  # rows.csv holds the answers of the files alone


def test_metrics_that_need_more_than_an_answer_are_not_shown(project, capsys):
    write(project / "a.csv", rows(5))
    assert cli.main(["score", "a.csv", "--n-resamples", "100"]) == 0
    out = capsys.readouterr().out
    assert (
        "Quote F1" in out
        and "always_refuses" in out
        and "Retrieval" not in out
        and "Seconds" not in out
        and "where the clause" not in out
    )
    assert "a.csv (12 rows): column question taken as the question, ref_answer taken as the reference, response" in out
    assert "so each of the 12 questions counts as one draw" in out
    assert "start with report.txt" in out


def test_several_contracts_are_resampled_as_such(project):
    write(project / "a.csv", [r | {"contract": f"C{i % 4}"} for i, r in enumerate(rows(5))])
    done = score.score_files(["a.csv"], **FAST)
    assert done.unit == "contract" and set(read(project, "scoreboard.csv")["n_contracts"].dropna()) == {0, 4}
    assert list(read(project)["contract"][:3]) == ["C0", "C1", "C2"]


def test_verdicts_in_the_files_give_a_table_of_agreement(project):
    write(project / "a.csv", [r | {"human": float(i < 6)} for i, r in enumerate(rows(6))])
    score.score_files(["a.csv"], verdict="human", **FAST)
    assert {p.name for p in (project / "scores").iterdir()} == FILES | AGREEMENT
    found = read(project, "agreement.csv").iloc[0]
    assert (found["system"], found["n"], found["kappa"]) == ("all systems", 12, 1)
    score.score_files(["a.csv"], **FAST)  # tables that don't belong to this call would be read as if they did
    assert {p.name for p in (project / "scores").iterdir()} == FILES


def test_published_systems_join_the_others(project):
    write(project / "mine.csv", rows(9))
    write(project / "there" / "good.csv", [r | {"judge_bool": 1, "judge_score": 0.9} for r in rows(12)])
    write(
        project / "there" / "poor.csv",
        [r | {"judge_bool": int(i < 2), "judge_score": 0.1} for i, r in enumerate(rows(2))],
    )
    (project / "there" / "README.md").write_text("| system | judge_score |\n|---|---|\n| good | 0.9 / 0.8 |\n")
    done = score.score_files(["mine.csv"], published="there", **FAST)
    assert list(done.frame["system"].unique()) == ["mine", "good", "poor"] and len(read(project)) == 36
    assert {p.name for p in (project / "scores").iterdir()} == FILES | AGREEMENT | PUBLISHED
    deltas = done.published.deltas.set_index(["metric", "baseline", "system"])
    assert deltas.loc[("published_score", "good", "poor"), "value"] == pytest.approx(-0.8)
    assert list(read(project)["published_score"].fillna(-1))[11:13] == [-1, 0.9]
    write(project / "good.csv", rows(1))
    with pytest.raises(InputError, match="another file holds an answer of 'good'"):
        score.score_files(["good.csv"], published="there", **FAST)


class Stub:
    """A judge with an LM that reads some answers, and fails on the rest."""

    name, lm = "openai/stub", None

    def __init__(self, readable):
        self.readable = readable

    def rate(self, rows):
        return verdict_table(
            [
                verdict_row(0.0, "failed")
                if has_failed(r)
                else verdict_row(1.0, "correct")
                if i < self.readable
                else verdict_row(float("nan"), None, error="AuthenticationError: no key")
                for i, r in enumerate(rows)
            ]
        )


def test_an_llm_judge_stands_beside_the_offline_one(project, monkeypatch):
    monkeypatch.setattr(score, "_language_model", lambda name, votes, folder: Stub(10))
    write(project / "a.csv", rows(6))
    said = []
    done = score.score_files(["a.csv"], judge="openai/stub", **FAST | {"log": said.append})
    found = read(project)
    assert found["judge_score"].notna().sum() == 10
    assert found["reference_score"].notna().all() and "reference_score" in set(done.scoreboard["metric"])
    assert "2 of 12 judgements failed (first error: AuthenticationError: no key)" in "\n".join(said)
    assert set(read(project, "scoreboard.csv").query("metric == 'judge_score' and system == 'a'")["n"]) == {10}


def test_an_api_is_asked_once_per_vote(project, chat, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # LiteLLM would try to fetch prices
    chat.replies = ["Verdict: partly", "no idea", "Verdict: partly"]
    write(project / "a.csv", rows(1, n=1))
    for _ in range(2):
        score.score_files(["a.csv"], judge="openai/judge", votes=3, **FAST)
        assert len(chat.seen) == 3 and read(project)["judge_verdict"][0] == "partly"
    assert not any(KEY.encode() in path.read_bytes() for path in (project / "scores").iterdir())


def test_a_judge_that_rates_nothing_is_an_error_and_the_old_results_stay(project, monkeypatch):
    monkeypatch.setattr(score, "_language_model", lambda name, votes, folder: Stub(0))
    write(project / "a.csv", rows(6))
    score.score_files(["a.csv"], **FAST)
    before = {p.name: p.read_bytes() for p in (project / "scores").iterdir()}
    write(project / "a.csv", [r | {"response": "" if i else "x"} for i, r in enumerate(rows(6))])
    with pytest.raises(InputError, match="Judge 'openai/stub' rated no answer .*AuthenticationError"):
        score.score_files(["a.csv"], judge="openai/stub", **FAST)
    assert {p.name: p.read_bytes() for p in (project / "scores").iterdir()} == before


def test_many_systems_are_compared_with_the_first(project):
    for n in range(14):
        write(project / f"s{n:02}.csv", rows(n % 5, n=4))
    assert set(score.score_files(sorted(project.glob("*.csv")), **FAST).deltas["baseline"]) == {"s00"}


def test_one_long_answer_costs_little(project):
    long = [{"question": "q", "reference": "word " * 300, "answer": "word other " * 100_000}]  # 1.1 million characters
    write(project / "a.csv", long)
    started = time.monotonic()
    score.score_files(["a.csv"], **FAST)
    assert time.monotonic() - started < 10
    csv.field_size_limit(10_000_000)
    with open(project / "scores" / "rows.csv", newline="") as file:
        assert next(csv.DictReader(file))["answer"] == long[0]["answer"]
