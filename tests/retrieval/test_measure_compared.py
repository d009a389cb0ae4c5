"""Comparing retrievers: a record per question, intervals over contracts, and the gate of a new retriever."""

import pytest
from small import passages_of

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.retrieval import measure, saved
from cuadft.retrieval.retriever import Retriever

N = 12
CLAUSES = ["payments are due monthly", "law of Ohio governs", "notices by post", "books are open to audit"]
TEXTS = {f"c{n}": CLAUSES for n in range(N)}
PASSAGES = passages_of(TEXTS)


def rows(split="dev"):
    made = []
    for title, texts in TEXTS.items():
        for category, index in (("Law", 1), ("Audit", 3)):
            start = sum(map(len, texts[:index]))
            made.append(
                {
                    "id": f"{title}_{category}",
                    "contract": title,
                    "category": category,
                    "question": f"{texts[index]}?",
                    "answers": [{"text": texts[index], "start": start}],
                }
            )
    return made


class Blind(Retriever):
    """Finds the same wrong passage whatever is asked."""

    def search_many(self, queries, k=3):
        return super().search_many([("payments monthly due", contract) for _, contract in queries], k=k)


GOOD, BAD = Retriever(PASSAGES, None, mode="bm25"), Blind(PASSAGES, None, mode="bm25")


@pytest.fixture
def decide(tmp_path):
    """Let the gate decide between two retrievers; return what it wrote, which is also what it says and returns."""
    iteration = runs.Iteration(tmp_path / "run", 2)

    def decided(old, new, asked):
        settings = {"contracts": (), "n_resamples": 400, "seed": 7}
        chosen, k, reason = saved.promote_or_keep(iteration, (old, 1), (new, 1), asked, **settings)
        found = files.read_json(iteration.path("metrics", "retriever_decision.json"))
        assert found["reason"] == reason and (chosen, k) == ((new, 1) if found["promoted"] else (old, 1))
        return found

    return decided


def test_records_hold_each_retriever_question_and_k_once():
    found = measure.measure_retrievers({"good": GOOD, "bad": BAD}, rows(), [1, 2, 2], split="dev")
    assert len(found) == 2 * 2 * N * 2 and not found.duplicated(["retriever", "id", "k"]).any()
    means = found.groupby(["retriever", "k"])["hit"].mean()
    assert means["good", 1] == 1.0 and means["bad", 1] == 0.0


def test_intervals_count_questions_and_contracts():
    found = measure.measure_retrievers({"good": GOOD}, rows()[:-1], [1], split="dev")  # the last contract: one question
    (row,) = measure.retrieval_intervals(found, n_resamples=200, seed=7).to_dict("records")
    assert (row["n"], row["n_contracts"], row["hit"]) == (2 * N - 1, N, 1.0)
    assert row["hit_low"] <= row["hit"] and {"char_recall_low", "char_recall_high"} <= row.keys()


def test_without_an_answerable_question_there_is_no_record(decide):
    unanswerable = [row | {"answers": []} for row in rows()]
    assert measure.measure_retrievers({"good": GOOD}, unanswerable, [1], split="dev").empty
    with pytest.raises(InputError, match="No answerable row"):
        decide(BAD, GOOD, unanswerable)


def test_the_gate_promotes_what_finds_more_and_keeps_what_does_not(decide):
    up = decide(BAD, GOOD, rows())
    assert up["promoted"] and up["delta"]["low"] > 0 and up["reason"].startswith("promoted: ")
    assert not decide(GOOD, GOOD, rows())["promoted"]
    assert not decide(GOOD, BAD, rows())["promoted"]
    # two contracts are too few to tell, however large the difference
    assert not decide(BAD, GOOD, rows()[:4])["promoted"]
    one = decide(BAD, GOOD, rows()[:2])
    assert not one["promoted"] and "[nan, nan] (n=2, 1 contracts)" in one["reason"]
