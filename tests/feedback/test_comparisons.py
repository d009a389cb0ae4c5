import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from votes import LAW, TRAIN, annotation, imported, make_run, preferred, stored, task

from cuadft.core.errors import InputError
from cuadft.feedback.comparisons import plain_verdict
from cuadft.feedback.records import VERDICTS

ASKED = {"contract": TRAIN, "question": LAW}
FLAT = ASKED | {"annotation_id": 7, "annotator": 4, "lead_time": 6.7, "response_a": "Ohio", "response_b": "Texas"}


@pytest.fixture
def run(tmp_path):
    """Return a run folder with two training contracts and no feedback."""
    return make_run(tmp_path)


def said(*controls, **data):
    """Return a task with one annotation, made of (control, what it shows, kind, value)."""
    names = ("from_name", "to_name", "type", "value")
    return task(annotation(result=[dict(zip(names, one, strict=True)) for one in controls]), **data)


def chosen(word, n=0, control="which"):
    return said((control, "text1", "choices", {"choices": [word]}), text2=f"Texas {n}")


def table(*words, **more):
    return [ASKED | more | {"answer_a": "Ohio", "answer_b": f"Texas {n}", "verdict": w} for n, w in enumerate(words)]


def verdicts(run):
    return [judgement["verdict"] for judgement in stored(run)]


def reasons(done):
    return [one.reason for one in done.left_out]


PLAIN = {
    "a": ["A", "Response A", "responseA", "Answer 1 is better", "Left is a bit better", "A >> B", "[[A]]", "model_a"],
    "b": ["The second one", "I prefer response B", "Model A is worse", "B is much better than A", "Right", "text2"],
    "tie": ["Tie", "It's a tie", "A=B", "They are equally good", "about the same", "Both good", "No preference"],
    "both_wrong": ["tie (bothbad)", "Both are wrong", "Neither is correct", "equally bad", "Both wrong"],
    "skip": ["Can't decide", "Not sure", "skip", "I don't know"],
    None: ["Neither", "Both", "Antwort 1 besser", "A is right", "A or B", "not A", "fluent", "1 to 2", "", "👍"],
}


@pytest.mark.parametrize("verdict, words", [(verdict, words) for verdict, all_ in PLAIN.items() for words in all_])
def test_words_mean_what_they_plainly_say_and_nothing_else(verdict, words):
    assert plain_verdict(words) == verdict


@given(st.text(max_size=30))
def test_any_words_have_a_verdict_or_none(words):
    assert plain_verdict(words) in (*VERDICTS, None)


def test_choices_with_names_of_the_projects_own_are_read_and_the_guess_is_said(run):
    done = imported(run, [chosen("Response 1"), chosen("Response 2", 1), chosen("Same", 2)], "p.json")
    assert verdicts(run) == ["a", "b", "tie"] and "which 'Response 1' = a" in done.text()


def test_words_that_are_not_understood_are_named_with_their_control(run):
    (reason,) = reasons(imported(run, [chosen("Antwort 1")], "p.json"))
    assert (
        reason.startswith("its which says 'Antwort 1', which is not understood") and "--means 'Antwort 1=a'" in reason
    )


def test_ties_do_not_survive_where_the_other_votes_of_their_control_are_dropped(run):
    other = said(("pw", "text1,text2", "pairwise", {"selected": "left"}))
    done = imported(run, [chosen("Antwort 1"), chosen("tie", 1), chosen("Both bad", 2), other], "p.json")
    assert verdicts(run) == ["a"] and len(done.left_out) == 3  # the vote is that of the other control
    assert reasons(done)[1].startswith("its which says 'tie', beside 'Antwort 1', which is not understood")


def test_votes_for_both_sides_survive_a_word_that_is_not_understood(run):
    imported(run, [chosen("left"), chosen("right", 1), chosen("hm", 2), chosen("tie", 3)], "p.json")
    assert verdicts(run) == ["a", "b"]


def test_meanings_that_the_user_gives_are_taken(run):
    rows = [chosen("Antwort 1"), chosen("Antwort 2 = gut", 1), chosen("beide falsch", 2)]
    means = ["antwort 1=a", "Antwort 2 = gut=b", "Beide falsch = both_wrong"]
    assert imported(run, rows, "p.json", means=means).left_out == [] and verdicts(run) == ["a", "b", "both_wrong"]
    with pytest.raises(InputError, match="Invalid meaning x=left: give WORDS=V with V of a, b, tie"):
        imported(run, rows, "p.json", means=["x=left"])


@pytest.mark.parametrize("words", [["0", "1"], ["1", "2", "3"], ["1", "1"], ["A", "B", "C"], ["[1]", "[4]"]])
def test_numbers_and_grades_are_not_taken_for_sides(run, words):
    assert imported(run, table(*words), "t.csv").stored == 0


def test_one_and_two_are_the_first_and_the_second_answer(run):
    imported(run, table(1, 2), "t.json")
    assert verdicts(run) == ["a", "b"]


def test_ratings_of_both_answers_are_compared(run):
    rates = [("q1", "text1", "rating", {"rating": 2}), ("q2", "text2", "rating", {"rating": 4})]
    alone = said(("overall", "prompt", "rating", {"rating": 1}), text2="Iowa")
    done = imported(run, [said(*rates), alone], "p.json")
    assert verdicts(run) == ["b"] and reasons(done)[0].startswith("its overall says '1', which is not understood")


@pytest.mark.parametrize("name", ["r.csv", "r.json"])
def test_ratings_of_a_table_are_compared(run, name):
    rows = [ASKED | {"answer_a": "Ohio", "answer_b": f"T{n}", "score_a": n, "score_b": 1} for n in range(3)]
    imported(run, rows, name)
    assert verdicts(run) == ["b", "tie", "a"]


def test_a_ranking_prefers_each_answer_to_those_after_it(run):
    items = [{"id": "x", "title": "1", "body": "Ohio"}, {"id": "y", "body": "Texas"}, {"id": "z", "body": "Maine"}]
    ranks = ("rank", "answers", "ranker", {"ranker": {"rank": ["y", "x", "z"]}})
    assert imported(run, [said(ranks, items=items)], "p.json").left_out == []
    assert {pair[2:] for pair in preferred(run)} == {("Texas", "Ohio"), ("Texas", "Maine"), ("Ohio", "Maine")}


@pytest.mark.parametrize(
    "ranks, told", [({"best": ["y"], "worst": ["x"]}, "'best'"), ({"rank": ["q", "x"]}, "ranks 'q'")]
)
def test_buckets_and_names_of_no_answer_are_named(run, ranks, told):
    done = imported(
        run, [said(("rank", "answers", "ranker", {"ranker": ranks}), items=[{"id": "x", "body": "I"}])], "p.json"
    )
    assert told in reasons(done)[0]


def test_the_answers_on_the_left_are_those_that_the_tag_shows_first(run):
    turned = said(("pw", "txt-2,txt-1", "pairwise", {"selected": "left"}))
    imported(run, [turned], "p.json")
    assert {pair[2:] for pair in preferred(run)} == {("Texas", "Ohio")}


def test_several_answers_are_not_guessed(run):
    row = said(("q", "prompt", "choices", {"choices": ["A"]}), response_a="Ohio", response_b="Maine")
    assert "no two answers are found in it" in reasons(imported(run, [row], "p.json"))[0]


def test_a_comparison_goes_before_other_controls_beside_it(run):
    beside = [("pw", "text1,text2", "pairwise", {"selected": "left"}), ("sure", "text1", "choices", {"choices": ["2"]})]
    imported(run, [said(*beside), chosen("1", 1, "sure")], "p.json")
    assert verdicts(run)[0] == "a"


def test_two_controls_that_differ_need_the_name_of_one(run):
    row = FLAT | {"style": "Response A", "law": "Response B"}
    assert "at once (style 'Response A', law 'Response B')" in reasons(imported(run, [row], "f.csv"))[0]
    imported(run, [row], "f.csv", verdict="Law")
    assert verdicts(run) == ["b"]
    with pytest.raises(InputError, match="'laws' says anything: choose one of annotation_id|law, style"):
        imported(run, [row], "f.csv", verdict="laws")


@pytest.mark.parametrize("name", ["min.json", "min.csv"])
@pytest.mark.parametrize(
    "control, verdict",
    [
        ("right", "b"),
        ([{"selected": "left"}], "a"),
        ("Response B", "b"),
        ({"choices": ["Response A", "A"]}, "a"),
        ([{"ranker": {"rank": ["response_b", "response_a"]}}], "a"),
    ],
)
def test_flat_exports_of_label_studio_are_read(run, name, control, verdict):
    value = json.dumps(control) if name.endswith("csv") and not isinstance(control, str) else control
    done = imported(run, [FLAT | {"pw": value, "comment": "see 4.2"}], name)
    (judgement,) = stored(run)
    assert done.format == "labelstudio" and (judgement["verdict"], judgement["seconds"]) == (verdict, 6.7)
    assert judgement["annotator"] == "4" and judgement["comment"] == "see 4.2"


TURNS = [{"role": "user", "content": LAW}, {"role": "assistant", "content": "Ohio"}]
OTHER_TURNS = [TURNS[0], {"role": "assistant", "content": "Texas"}]


@pytest.mark.parametrize(
    "winner, verdict", [("model_a", "a"), ("gpt", "b"), ("tie", "tie"), ("tie (bothbad)", "both_wrong")]
)
def test_an_arena_names_the_winner_by_its_side_or_model(run, winner, verdict):
    row = {"contract": TRAIN, "judge": "eve", "model_a": "rag", "model_b": "gpt", "winner": winner}
    imported(run, [row | {"conversation_a": TURNS, "conversation_b": OTHER_TURNS}])
    (one,) = stored(run)
    assert [one[k] for k in ("verdict", "answer_a", "system_b", "annotator", "prompt")] == [
        verdict,
        "Ohio",
        "gpt",
        "eve",
        None,
    ]


def test_flags_of_the_winner_are_compared(run):
    flags = {"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}
    row = {"contract": TRAIN, "prompt": json.dumps([LAW]), "response_a": '["Ohio"]', "response_b": '["Texas"]'}
    imported(run, [row | flags], "arena.csv")
    assert {pair[2:] for pair in preferred(run)} == {("Texas", "Ohio")}
