"""Properties of answers shown: spread over faults, every change counted, the same each time, and nothing is markup."""

import random
from html.parser import HTMLParser

import pandas as pd
import pytest

from cuadft.evaluation import examples, excerpts, metrics, text_scores

NO = text_scores.NO_CLAUSE
CLAUSE = "This Agreement is governed by the laws of the State of Ohio."
FILL = "The Distributor shall pay every invoice of the Company within thirty days of its date. "
TEXT = FILL * 10 + CLAUSE + " " + FILL * 20
AT = TEXT.index(CLAUSE)
TEXTS = {f"Contract {n}": TEXT for n in range(4)}
GOLD = [{"text": CLAUSE, "start": AT}]
SENT = [{"index": 1, "start": 700, "end": 1200, "score": 0.9}, {"index": 0, "start": 0, "end": 700, "score": 0.5}]
MISSED = [{"index": 3, "start": 1500, "end": 2200, "score": 0.5}]
KINDS = {  # enough of each kind of fault
    "refused": {"answer": NO},
    "wrong": {"answer": "within thirty days"},
    "missed": {"answer": NO, "passages": MISSED},
    "invented": {"answer": "Ohio", "answers": []},
    "failed": {"answer": None, "error": "TimeoutError: no <reply>", "passages": []},
    "fine": {"answer": CLAUSE},
}


def prediction(number, kind="fine", **changes):
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
    return examples.pick_worst(metrics.score_predictions(predictions), predictions, TEXTS, system="sft", **settings)


# --- the worst answers


def test_examples_are_spread_over_the_kinds_of_fault():
    rows = several(refused=9, wrong=5, missed=3, invented=2, failed=1, fine=9)
    names = [
        "Retrieved but refused",
        "Retrieved but wrong words",
        "Retrieval missed the clause",
        "Answered where there is no clause",
        "Failed generation",
    ]
    assert list(pick(rows, n=5)["fault"]) == names
    assert list(pick(rows, n=2)["fault"]) == names[:2]  # the commonest


def test_examples_of_one_kind_are_spread_over_categories():
    chosen = pick(several(refused=12), n=3)
    assert chosen["category"].nunique() == 3 and chosen["contract"].nunique() == 3


def test_same_examples_whatever_the_order_of_the_rows():
    rows = several(refused=9, wrong=9, missed=3, invented=12)
    wanted = pick(rows, n=6)
    for seed in range(5):
        pd.testing.assert_frame_equal(pick(random.Random(seed).sample(rows, len(rows)), n=6), wanted)


def test_lowest_value_comes_first():
    # F1 with the 10 tokens of the clause less its article: 2 shared of 2 given are more than 1 shared of 4 given
    rows = [prediction(0, "wrong", answer="laws of"), prediction(3, "wrong", answer="no laws in Iowa")]
    assert list(pick(rows, n=1)["question"]) == ["Question 3?"]


def test_question_is_shown_once_whatever_the_seeds():
    assert len(pick([prediction(0, "refused", seed=s) for s in range(3)], n=3)) == 1


def test_right_answers_are_no_examples():
    found = pick(several(fine=3))
    assert list(found) == examples.WORST_COLUMNS and not len(found)


def marked(line, name="gold"):
    return [piece.text for piece in line if getattr(piece, name)]


def test_gold_passage_score_verdict_and_error_stand_beside_the_answer():
    rows = several(refused=2, failed=1)
    frame = metrics.score_predictions(rows).assign(judge_verdict="incorrect", judge_reason="It misses the clause.")
    refused, failed = examples.pick_worst(frame, rows, TEXTS, system="sft", n=2).to_dict("records")
    assert refused["answer"] == NO and refused["gold"] == CLAUSE
    assert [line[0].text for line in refused["evidence"]] == ["Passage 1 of 2: ", "Passage 2 of 2: "]
    assert marked(refused["evidence"][0]) == [CLAUSE] and marked(refused["evidence"][1]) == []
    assert (refused["score"], refused["verdict"], refused["reason"]) == (0, "incorrect", "It misses the clause.")
    assert "was sent" in refused["passages"]
    assert failed["answer"] == "(none)" and failed["error"] == "TimeoutError: no <reply>"


def test_answers_of_a_file_without_passages_are_shown():
    rows = [{k: v for k, v in prediction(0, "refused").items() if k not in ("passages", "spans")}]
    (found,) = pick(rows).to_dict("records")
    assert found["fault"] == "Refused although there is a clause" and "not recorded" in found["passages"]
    assert [line[0].text for line in found["evidence"]] == ["Not sent: "]


def test_clause_that_was_not_sent_is_shown_where_it_stands():
    (found,) = pick(several(missed=1)).to_dict("records")
    assert [line[0].text for line in found["evidence"]] == ["Passage 1 of 1: ", "Not sent: "]
    assert marked(found["evidence"][1]) == [CLAUSE] and found["evidence"][1][2].text in TEXT


def test_words_of_the_answer_are_marked_where_it_cites_them():
    start = TEXT.index("within thirty", 700)
    cited = prediction(0, "wrong", spans=[[start, start + len("within thirty days")], [AT, AT + 14]])
    (found,) = pick([cited]).to_dict("records")
    assert marked(found["evidence"][0], "cited") == ["within thirty days", CLAUSE[:14]]
    assert "".join(marked(found["evidence"][0])) == CLAUSE


def test_passages_with_a_mark_are_shown_before_others():
    sent = [{"index": i, "start": 1500 + i, "end": 1600 + i, "score": 1.0} for i in range(5)] + SENT[:1]
    (found,) = pick([prediction(0, "wrong", passages=sent)]).to_dict("records")
    assert [line[0].text for line in found["evidence"]] == [f"Passage {n} of 6: " for n in (1, 2, 6)]


def test_without_the_contract_the_evidence_is_left_out():
    rows = several(refused=1)
    found = examples.pick_worst(metrics.score_predictions(rows), rows, {}, system="sft")
    assert list(found["evidence"]) == [[]] and examples.show_answers(found).to_html()


# --- the best answers


def best(predictions, **settings):
    return examples.pick_best(metrics.score_predictions(predictions), predictions, system="sft", **settings)


def test_best_answers_are_right_and_quotes_come_before_refusals():
    refusals = [prediction(n, answer=NO, answers=[]) for n in range(20, 23)]
    rows = [*several(wrong=3, missed=2, failed=2, invented=2, fine=4), *refusals]
    random.Random(1).shuffle(rows)
    found = best(rows, n=6)
    assert list(found["answer"]) == [CLAUSE] * 4 + [NO] * 2 and list(found["gold"]) == [CLAUSE] * 4 + [""] * 2
    assert (found["score"] == 1).all() and found[:4]["contract"].nunique() == 4
    assert found.equals(best(rows[::-1], n=6))


def test_best_answers_are_spread_over_categories_and_the_higher_score_comes_first():
    rows = [prediction(n, category="Law", answer=CLAUSE) for n in range(4)]
    rows += [prediction(4, category="Term", answer=f"{CLAUSE} It lasts."), prediction(8, category="Term")]
    found = best(rows, n=2)
    assert list(found["category"]) == ["Law", "Term"] and list(found["score"]) == [1, 1]


def test_a_system_that_is_never_right_has_no_best_answer():
    assert len(best(several(wrong=2, missed=1))) == 0 == len(best(several(fine=2)[:0]))


# --- what alignment changed


def changes(*pairs, metric="f1", **more):
    """Return the changes from (answer, answer) pairs of "sft" and "dpo", a question each."""
    rows = [
        prediction(n, system=system, answer=answer, error=None if answer else "timeout", **more)
        for n, pair in enumerate(pairs)
        for system, answer in zip(("sft", "dpo"), pair, strict=True)
    ]
    return examples.changed_answers(metrics.score_predictions(rows), rows, metric=metric)


def test_every_question_is_counted_once():
    found = changes(
        (NO, CLAUSE), (CLAUSE, NO), (NO, NO), (CLAUSE, f" {CLAUSE}\n"), ("of Ohio", "the of Ohio"), (None, None)
    )
    line = examples.change_counts(found).loc["dpo"]
    assert list(line[[*examples.CHANGE_KINDS]]) == [3, 1, 1, 1, 0]
    assert (line["questions"], line["contracts"], line["failed_before"], line["failed_after"]) == (6, 4, 1, 1)


def test_means_are_those_of_both_systems():
    # before: refusal 0, clause 1, refusal 0; after: clause 1, clause 1, refusal 0; mean 1/3 and 2/3
    line = examples.change_counts(changes((NO, CLAUSE), (CLAUSE, CLAUSE), (NO, NO))).loc["dpo"]
    assert list(line[["score_before", "score_after", "gain"]]) == pytest.approx([1 / 3, 2 / 3, 1 / 3])


def test_lower_is_better_where_the_metric_says_so():
    # false_answer: 1 for an answer where there is no clause, so that a new refusal is a gain
    found = changes(("Ohio", NO), (NO, "Ohio"), answers=[], metric="false_answer")
    assert list(found["kind"]) == ["better", "worse"] and list(found["gain"]) == [1.0, -1.0]


def test_as_many_worse_answers_as_better_ones_are_shown():
    found = changes(*[(NO, CLAUSE)] * 5, *[(CLAUSE, NO)] * 2)
    assert examples.pick_changes(found, 4)["kind"].value_counts().to_dict() == {"better": 2, "worse": 2}
    assert examples.pick_changes(found, 1)["kind"].value_counts().to_dict() == {"better": 1, "worse": 1}
    assert list(examples.pick_changes(changes(*[(CLAUSE, NO)] * 3), 2)["kind"]) == ["worse", "worse"]


def test_largest_change_comes_first_whatever_the_order_of_the_rows():
    # 2 of the clause's tokens are a smaller gain than all of them
    found = changes((NO, "laws of"), (NO, CLAUSE), (NO, "governed by laws of Ohio"))
    for table in (found, found[::-1]):
        assert list(examples.pick_changes(table, 3)["question"]) == ["Question 1?", "Question 2?", "Question 0?"]


def test_systems_and_seeds_are_paired_with_the_same_answers_before():
    rows = [prediction(0, system="sft", answer=NO, seed=1), prediction(0, system="sft", seed=2)]
    rows += [prediction(0, system=name, seed=seed) for name in ("dpo", "orpo") for seed in (2, 1)]
    counts = examples.change_counts(examples.changed_answers(metrics.score_predictions(rows), rows))
    assert list(counts.index) == ["dpo", "orpo"]
    assert list(counts["better"]) == [1, 1] and list(counts["unchanged"]) == [1, 1]


def test_judge_of_the_frame_decides_what_is_better_and_a_failed_judgement_is_counted():
    rows = [prediction(n, system=s, answer=a) for n in (0, 1) for s, a in (("sft", NO), ("dpo", CLAUSE))]
    frame = metrics.score_predictions(rows).assign(judge_score=[0.9, 0.2, 0.1, float("nan")])
    found = examples.changed_answers(frame, rows, metric="judge_score")
    line = examples.change_counts(found).loc["dpo"]
    assert list(found["kind"]) == ["worse", "unscored"] and line["score_before"] == 0.9 and line["unscored"] == 1


def test_failure_is_a_change_and_is_named():
    (found,) = examples.pick_changes(changes((CLAUSE, None))).to_dict("records")
    assert (found["kind"], found["before"], found["after"]) == ("worse", CLAUSE, "(failed)")


def test_nothing_to_compare_gives_empty_tables():
    found = changes()
    assert not len(examples.change_counts(found)) and not len(examples.pick_changes(found))


# --- how they are shown


def test_markup_and_dollar_signs_stay_text():
    table = pick([prediction(0, "wrong", answer="<script>alert(1)</script> $a$", question="<img src=x>")])
    page = examples.show_answers(table).to_html()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "tex2jax_ignore" in page.split("<thead")[0]


class Reader(HTMLParser):
    """Read a page as a browser would: its text, and its elements with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.names = "", set(), set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


EVIL = (
    "</td><script>alert(1)</script><img src=x onerror=alert(1)> &lt;b&gt; \" ' $x$ {{ 1 }} </mark><u onclick=x>\u202e"
)


@pytest.mark.parametrize("place", ["gold", "cited", "beside", "title"])
def test_markup_of_a_contract_stays_text_inside_and_outside_marks(place):
    text = f"Before. {EVIL} After."
    span = [8, 8 + len(EVIL)]
    gold = [{"text": EVIL, "start": 8}] if place == "gold" else [{"text": "After.", "start": span[1] + 1}]
    title = EVIL if place == "title" else "Contract 0"
    row = prediction(0, "wrong", answers=gold, contract=title, category=title, question=title, answer="Before.")
    row |= {"spans": [span] if place == "cited" else [], "passages": [{"index": 0, "start": 0, "end": len(text)}]}
    worst = examples.pick_worst(metrics.score_predictions([row]), [row], {title: text}, system="sft")
    plain = examples.show_answers(pick(several(wrong=1))).to_html()
    read, usual = Reader(examples.show_answers(worst).to_html()), Reader(plain)
    assert read.tags <= usual.tags | {"mark", "u", "br"} and read.names <= usual.names | {"style"}
    assert excerpts.clean_text(EVIL).strip() in read.text and "\u202e" not in read.text.split("Passage 1")[1]


def test_legend_says_what_the_marks_mean_where_there_are_some():
    page = examples.show_answers(pick(several(wrong=1))).to_html()
    assert f'<mark style="{excerpts.GOLD_STYLE}">gold span</mark>' in page.split("<thead")[0]
    assert f'<u style="{excerpts.CITED_STYLE}">words of the answer</u>' in page.split("<thead")[0]
    assert f'<mark style="{excerpts.GOLD_STYLE}">{CLAUSE}</mark>' in page.split("<thead")[1]
    assert "<mark" not in examples.show_answers(examples.pick_changes(changes((NO, CLAUSE)))).to_html()


def test_huge_answers_do_not_make_a_huge_page():
    worst = pick([prediction(0, "wrong", answer="word " * 200_000)])
    changed = examples.pick_changes(changes((NO, f"{CLAUSE} " * 400)))
    assert all(len(examples.show_answers(table).to_html()) < 10_000 for table in (worst, changed))
