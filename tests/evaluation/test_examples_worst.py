"""Properties of the worst examples: spread over faults and categories, the same each time, with their true evidence."""

import json
import random

import pytest

from cuadft.core.errors import InputError
from cuadft.evaluation import examples, metrics, text_scores

NO = text_scores.NO_CLAUSE
CLAUSE = "This Agreement is governed by the laws of the State of Ohio."
FILL = "The Distributor shall pay every invoice of the Company within thirty days of its date. "
TEXT = FILL * 10 + CLAUSE + " " + FILL * 20 + "<b>Fees</b> are $5 & up. " + FILL * 5
AT = TEXT.index(CLAUSE)
GOLD = [{"text": CLAUSE, "start": AT}]
SENT = [{"index": 0, "start": 0, "end": 700, "score": 0.5}, {"index": 1, "start": 700, "end": 1200, "score": 0.9}]
MISSED = [{"index": 3, "start": 1500, "end": 2200, "score": 0.5}]
KINDS = {  # enough of each kind of fault
    "refused": {"answer": NO},
    "wrong": {
        "answer": "within thirty days",
        "spans": [[TEXT.index("within thirty", 700), TEXT.index("days", 700) + 4]],
    },
    "missed": {"answer": NO, "passages": MISSED},
    "invented": {"answer": "Ohio", "answers": []},
    "failed": {"answer": None, "error": "TimeoutError: no <reply>", "passages": []},
    "fine": {"answer": CLAUSE},
}


def prediction(number, kind, **changes):
    row = {
        "id": f"q{number}",
        "contract": f"Contract {number % 4}",
        "contract_type": "Supply",
        "category": f"Category {number % 3}",
        "question": f"Question {number}?",
        "answers": GOLD,
        "source": "cuad",
        "system": "sft",
        "split": "test",
        "spans": [],
        "passages": SENT,
        "error": None,
        "seconds": 0.1,
    }
    row |= KINDS[kind] | changes
    return row | {"is_impossible": not row["answers"]}


def several(**numbers):
    kinds = [kind for kind, count in numbers.items() for _ in range(count)]
    return [prediction(n, kind) for n, kind in enumerate(kinds)]


def pick(predictions, **settings):
    return examples.pick_worst(metrics.score_predictions(predictions), predictions, **{"system": "sft"} | settings)


def shown(predictions):
    return examples.show_worst(pick(predictions), {f"Contract {n}": TEXT for n in range(4)})


def test_examples_are_spread_over_the_kinds_of_fault():
    rows = several(refused=9, wrong=5, missed=3, invented=2, failed=1, fine=9)
    assert [e["fault"] for e in pick(rows, n=5)] == ["refused", "wrong", "missed", "invented", "failed"]
    assert [e["fault"] for e in pick(rows, n=2)] == ["refused", "wrong"]  # the commonest


def test_examples_of_one_kind_are_spread_over_categories():
    chosen = pick(several(refused=12), n=3)
    assert len({e["category"] for e in chosen}) == 3 and len({e["contract"] for e in chosen}) == 3


def test_same_examples_whatever_the_order_of_the_rows():
    rows = several(refused=9, wrong=9, missed=3, invented=12)
    wanted = [e["id"] for e in pick(rows, n=6)]
    for seed in range(5):
        mixed = random.Random(seed).sample(rows, len(rows))
        assert [e["id"] for e in pick(mixed, n=6)] == wanted


def test_lowest_value_comes_first():
    # F1 with the 10 tokens of the clause less its article: 2 shared of 2 given are more than 1 shared of 4 given
    rows = [prediction(0, "wrong", answer="laws of"), prediction(3, "wrong", answer="no laws in Iowa")]
    assert [e["id"] for e in pick(rows, n=1)] == ["q3"]


def test_question_is_shown_once_whatever_the_seeds():
    rows = [prediction(0, "refused", seed=s) for s in range(3)]
    assert len(pick(rows, n=3)) == 1


def test_right_answers_are_no_examples():
    assert pick(several(fine=3)) == [] and "No such answers" in str(shown(several(fine=3)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"system": "dpo"}, "No rows of system 'dpo' on split 'test': choose from sft on test"),
        ({"split": "dev"}, "No rows of system 'sft' on split 'dev'"),
    ],
)
def test_what_is_not_there_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        pick(several(refused=1), **settings)


@pytest.mark.parametrize(
    "kind, words",
    [
        ("missed", "Retrieval missed the clause"),
        ("refused", "Retrieved but refused"),
        ("wrong", "Retrieved but wrong words"),
        ("invented", "Answered where there is no clause"),
        ("failed", "Failed generation"),
    ],
)
def test_fault_is_named_on_both_pages(kind, words):
    page = shown(several(**{kind: 1}))
    assert f"1 of 1. {words} (Category 0)" in str(page) and words in page._repr_html_()


def test_marks_stand_on_the_gold_span_and_on_the_cited_words():
    page = str(shown(several(wrong=1)))
    flat = " ".join(page.split())
    assert f"⟦{CLAUSE}⟧" in flat.split("Passage 2")[1] and "«within thirty days»" in flat


def test_clause_that_was_not_sent_is_shown_where_it_stands():
    flat = " ".join(str(shown(several(missed=1))).split())
    assert f"Not sent, characters {AT}–{AT + len(CLAUSE)}" in flat
    assert f"⟦{CLAUSE}⟧" in flat.split("Not sent")[1]


def test_error_of_a_failed_generation_is_shown():
    page = shown(several(failed=1))
    assert "Error: TimeoutError: no <reply>" in str(page) and "no &lt;reply&gt;" in page._repr_html_()


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("failed", {}, "Answer: (none)"),
        ("wrong", {"answer": " \n"}, "Answer: (blank)"),
    ],
)
def test_answer_that_is_not_there_is_named(kind, changes, words):
    assert words in str(shown([prediction(0, kind, **changes)]))


def test_verdict_and_reason_stand_beside_the_answer():
    rows = several(refused=1)
    frame = metrics.score_predictions(rows).assign(judge_verdict="incorrect", judge_reason="It <misses> the clause.")
    page = examples.show_worst(examples.pick_worst(frame, rows, system="sft"), {})
    assert "Verdict: incorrect" in str(page) and "Reason: It <misses> the clause." in str(page)


def test_markup_in_contract_and_answer_stays_text(monkeypatch):
    monkeypatch.setattr(examples, "AROUND", 5000)
    rows = [
        prediction(
            0,
            "wrong",
            answer="<script>alert(1)</script>",
            question="<img src=x>",
            passages=[{"index": 0, "start": AT, "end": len(TEXT), "score": 1.0}],
        )
    ]
    page = shown(rows)._repr_html_()
    assert "<script" not in page and "<img" not in page and "<b>Fees" not in page and "&lt;b&gt;Fees" in page


def test_without_the_contract_the_evidence_is_left_out():
    page = str(examples.show_worst(pick(several(wrong=1)), {}))
    assert "not at hand" in page and "Question 0?" in page


def test_answers_of_a_file_without_passages_are_shown():
    rows = [{k: v for k, v in prediction(0, "refused").items() if k not in ("passages", "spans")}]
    page = str(shown(rows))
    assert "Refused although there is a clause" in page and "Passages: not recorded" in page


def test_huge_answer_does_not_make_a_huge_page():
    page = shown([prediction(0, "wrong", answer="word " * 200_000)])
    assert len(str(page)) < 10_000 and len(page._repr_html_()) < 20_000


def test_passages_with_a_mark_are_shown_before_others(monkeypatch):
    monkeypatch.setattr(examples, "PASSAGES_SHOWN", 2)
    sent = [{"index": i, "start": 1500 + i, "end": 1600 + i, "score": 1.0} for i in range(5)] + SENT[1:]
    page = str(shown([prediction(0, "wrong", passages=sent)]))
    assert "Passage 6 of 6" in page and "Passage 1 of 6" in page and "4 more, not shown" in page


def test_texts_are_read_for_the_examples_alone(tmp_path):
    records = [{"title": f"Contract {n}", "text": TEXT} for n in range(4)]
    (tmp_path / "contracts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert examples.worst_texts(tmp_path, pick(several(refused=1))) == {"Contract 0": TEXT}


def test_without_examples_no_contract_is_needed(tmp_path):
    assert examples.worst_texts(tmp_path, []) == {}
