"""Properties of before and after: every change is counted, better and worse are shown alike, and nothing is markup."""

import random

import pytest

from cuadft.core.errors import InputError
from cuadft.evaluation import examples, metrics, text_scores

NO = text_scores.NO_CLAUSE
CLAUSE = "This Agreement is governed by the laws of Ohio."
GOLD = [{"text": CLAUSE, "start": 10}]


def prediction(number, answer, *, system="sft", answers=GOLD, **changes):
    return {
        "id": f"q{number}",
        "contract": f"Contract {number % 4}",
        "category": f"Category {number % 3}",
        "question": f"Question {number}?",
        "answers": answers,
        "is_impossible": not answers,
        "spans": [],
        "system": system,
        "split": "test",
        "answer": answer,
        "error": None,
        "passages": [],
    } | changes


def both(*pairs, **changes):
    """Return predictions before and after from (answer, answer) pairs, a question each."""
    before = [prediction(n, old, **changes) for n, (old, _) in enumerate(pairs)]
    return before, {"dpo": [prediction(n, new, system="dpo", **changes) for n, (_, new) in enumerate(pairs)]}


CHANGES = [
    (NO, CLAUSE),
    (CLAUSE, NO),
    (NO, NO),
    (CLAUSE, f" {CLAUSE}\n"),
    ("laws of Ohio", "the laws of Ohio"),
    (None, None),
]


def table(*pairs, **settings):
    return examples.changed_answers(*both(*pairs), **settings)


def counted(found):
    return examples.change_counts(found).iloc[0].to_dict()


def test_every_question_is_counted_once():
    found = counted(table(*CHANGES))
    assert {kind: found[kind] for kind in examples.CHANGE_KINDS} == {
        "unchanged": 3,
        "better": 1,
        "worse": 1,
        "same_score": 1,
        "unscored": 0,
        "unpaired": 0,
    }
    assert found["questions"] == 6 and found["contracts"] == 4
    assert found["failed_before"] == found["failed_after"] == 1


def test_means_are_those_of_both_systems():
    # before: refusal 0, clause 1, refusal 0; after: clause 1, clause 1, refusal 0; mean 1/3 and 2/3
    found = counted(table((NO, CLAUSE), (CLAUSE, CLAUSE), (NO, NO)))
    assert (found["before"], found["after"], found["gain"]) == pytest.approx((1 / 3, 2 / 3, 1 / 3))


def test_lower_is_better_where_the_metric_says_so():
    # false_answer: 1 for an answer where there is no clause, so that a new refusal is a gain
    found = examples.changed_answers(*both(("Ohio", NO), (NO, "Ohio"), answers=[]), metric="false_answer")
    assert list(found["kind"]) == ["better", "worse"] and list(found["gain"]) == [1.0, -1.0]


def test_as_many_worse_answers_as_better_ones_are_shown():
    found = table(*[(NO, CLAUSE)] * 5, *[(CLAUSE, NO)] * 2)
    assert examples.pick_changes(found, 4)["kind"].value_counts().to_dict() == {"better": 2, "worse": 2}
    assert examples.pick_changes(found, 1)["kind"].value_counts().to_dict() == {"better": 1, "worse": 1}
    page = str(examples.show_changes(found, n=4))
    assert "5 better, 2 worse" in page and page.count("dpo: better") == page.count("dpo: worse") == 2


def test_changes_of_one_kind_alone_are_shown():
    assert list(examples.pick_changes(table(*[(CLAUSE, NO)] * 3), 2)["kind"]) == ["worse", "worse"]


def test_largest_change_comes_first():
    # 2 of the clause's 8 tokens (less the articles) are a smaller gain than all of them
    found = table((NO, "laws of"), (NO, CLAUSE), (NO, "governed by laws of Ohio"))
    assert list(examples.pick_changes(found, 3)["id"]) == ["q1", "q2", "q0"]


def test_equal_changes_are_spread_over_contracts_and_do_not_depend_on_the_order_of_rows():
    before, after = both(*[(NO, CLAUSE)] * 12)
    first = examples.pick_changes(examples.changed_answers(before, after), 4)
    assert first["contract"].nunique() == 4
    random.Random(0).shuffle(before)
    after["dpo"].reverse()
    assert list(examples.pick_changes(examples.changed_answers(before, after), 4)["id"]) == list(first["id"])


def test_each_method_is_paired_with_the_same_answers_before():
    before, after = both((NO, CLAUSE), (CLAUSE, CLAUSE))
    after["orpo"] = [p | {"system": "orpo", "answer": NO} for p in after["dpo"]]
    found = examples.change_counts(examples.changed_answers(before, after)).set_index("method")
    assert list(found.index) == ["dpo", "orpo"]
    assert list(found["better"]) == [1, 0] and list(found["worse"]) == [0, 1]


def test_question_that_only_one_side_has_is_counted_and_not_compared():
    before, after = both((NO, CLAUSE), (NO, NO), (CLAUSE, NO))
    found = examples.changed_answers(before[:2], {"dpo": after["dpo"][1:]})
    line = counted(found)
    assert line["unpaired"] == 2 and line["questions"] == 1 and line["unchanged"] == 1
    assert line["before"] == line["after"] == 0.0 and "2 unpaired" in str(examples.show_changes(found))


def test_seeds_are_paired_with_themselves():
    before = [prediction(0, NO, seed=1), prediction(0, CLAUSE, seed=2)]
    after = [prediction(0, CLAUSE, seed=2, system="dpo"), prediction(0, CLAUSE, seed=1, system="dpo")]
    assert sorted(examples.changed_answers(before, {"dpo": after})["kind"]) == ["better", "unchanged"]


def test_judge_of_the_frame_decides_what_is_better():
    before, after = both((NO, CLAUSE), (NO, "Ohio"))
    frame = metrics.score_predictions([*before, *after["dpo"]]).assign(judge_score=[0.9, 0.1, 0.2, float("nan")])
    found = examples.changed_answers(before, after, scores=frame, metric="judge_score")
    assert list(found["kind"]) == ["worse", "unscored"] and counted(found)["before"] == 0.9
    assert "1 unscored" in str(examples.show_changes(found))


def test_failure_is_a_change_and_is_named():
    before, after = both((CLAUSE, CLAUSE))
    after["dpo"][0] |= {"answer": None, "error": "TimeoutError: no reply"}
    page = str(examples.show_changes(examples.changed_answers(before, after)))
    assert "1 worse" in page and "1 failed after" in page and "(failed)" in page


def test_an_unknown_metric_is_named():
    with pytest.raises(InputError, match="Unknown metric 'f2': choose from quote_f1"):
        table((NO, CLAUSE), metric="f2")


@pytest.mark.parametrize("change", [{"question": "Another?"}, {"answers": [], "is_impossible": True}])
def test_answers_to_another_question_are_counted_and_not_compared(change):
    before, after = both((NO, CLAUSE))
    after["dpo"][0] |= change
    found = counted(examples.changed_answers(before, after))
    assert found["unpaired"] == 2 and not found["questions"] > 0


def test_answer_that_the_scores_lack_counts_as_unscored():
    before, after = both((NO, CLAUSE))
    assert list(examples.changed_answers(before, after, scores=metrics.score_predictions(before))["kind"]) == [
        "unscored"
    ]


def test_rows_given_twice_are_named():
    before, after = both((NO, CLAUSE))
    with pytest.raises(InputError, match="'q0'.* twice"):
        examples.changed_answers(before * 2, after)


def test_nothing_to_compare_is_said():
    assert "Nothing to compare" in str(examples.show_changes(examples.changed_answers([], {})))
    assert "Nothing to compare" in examples.show_changes(examples.changed_answers([], {"dpo": []}))._repr_html_()
    assert "1 unchanged" in str(examples.show_changes(table((NO, NO))))


def test_question_gold_and_both_answers_stand_together():
    page = examples.show_changes(table(("It is governed by the laws of Ohio", NO)))
    cells = page._repr_html_().split("<td")[-4:]  # the first ones hold what changed in all
    assert len(cells) == 4 and "Question 0?" in cells[0] and "Contract 0" in cells[0] and CLAUSE in cells[1]
    assert '">is governed by the laws of Ohio</mark>' in cells[2] and "There is no such clause." in cells[3]
    assert "⟦is governed by the laws of Ohio⟧" in " ".join(str(page).split())
    assert all(name in page._repr_html_() for name in ("Before (sft)", "After (dpo)"))


def test_span_that_the_answer_was_scored_by_is_among_those_shown():
    golds = [{"text": f"Party number {n} of many", "start": 50 * n} for n in range(6)]
    page = str(examples.show_changes(examples.changed_answers(*both((NO, "Party number 5 of many"), answers=golds))))
    assert "Gold 1: ⟦Party number 5 of many⟧" in page and "3 more spans" in page


def test_markup_in_question_and_answer_stays_text():
    before, after = both((CLAUSE, "<script>alert(1)</script> $a$"), question="<img src=x>", contract="<b>C</b>")
    page = examples.show_changes(examples.changed_answers(before, after | {"<i>m</i>": after["dpo"]}))._repr_html_()
    assert not any(tag in page for tag in ("<script", "<img", "<b>C", "<i>m"))
    assert "&lt;script&gt;" in page and "&lt;i&gt;m" in page


def test_huge_answers_do_not_make_a_huge_page():
    page = examples.show_changes(table((NO, f"{CLAUSE} " * 400)))
    assert len(str(page)) < 3000 and len(page._repr_html_()) < 8000
