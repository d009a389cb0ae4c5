import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files


def one(tmp_path, *rows, name="sys.jsonl", **columns):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return answer_files.read_answer_files([tmp_path / name], **columns)[0]


def row(**changes):
    return {"question": "What term?", "reference": "Five years.", "answer": "Five years."} | changes


@pytest.mark.parametrize(
    "reference", ["reference", "ref_answer", "gold", "ground_truth", "Expected", "Reference Answer"]
)
@pytest.mark.parametrize("answer", ["answer", "response", "prediction", "output"])
def test_usual_column_names_are_found(tmp_path, reference, answer):
    file = one(tmp_path, {"Question": "q", reference: "r", answer: "a"})
    assert file.columns == {"question": "Question", "reference": reference, "answer": answer}
    assert (file.rows[0]["question"], file.rows[0]["answers"], file.rows[0]["answer"]) == (
        "q",
        [{"text": "r", "start": 0}],
        "a",
    )


def test_columns_can_be_named(tmp_path):
    file = one(
        tmp_path,
        {"frage": "q", "soll": "r", "ist": "a", "answer": "not this one", "wer": "x", "doc": "c"},
        question="frage",
        reference="soll",
        answer="ist",
        system="wer",
        contract="doc",
    )
    assert [file.rows[0][key] for key in ("question", "answer", "system", "contract")] == ["q", "a", "x", "c"]


def test_a_column_that_is_named_and_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no column for the answer .looked for respnse.*'response'"):
        one(tmp_path, row(response="x"), answer="respnse")


def test_a_column_that_is_not_there_is_named_with_the_option_and_what_is_there(tmp_path):
    with pytest.raises(
        InputError, match="no column for the reference .*Its columns: 'question', 'answer'.*--reference COLUMN"
    ):
        one(tmp_path, {"question": "q", "answer": "a"})


@pytest.mark.parametrize("answer", [None, math.nan, "nan", "NaN"])
def test_a_missing_answer_is_a_failed_generation(tmp_path, answer):
    found = one(tmp_path, row(answer=answer)).rows[0]
    assert (found["answer"], found["error"]) == (None, "no answer")


def test_a_file_without_header_is_not_printed_whole_by_its_error(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(f"text {n} " * 999 for n in range(99)) + "\n" + "x," * 98 + "x\n")
    with pytest.raises(InputError, match="no column for the question .*'text 0 .*…") as caught:
        answer_files.read_answer_files([tmp_path / "a.csv"])
    assert len(str(caught.value)) < 2000


def test_a_missing_answer_keeps_the_error_that_the_file_gives(tmp_path):
    assert one(tmp_path, row(answer=None, error="TimeoutError: 60 s")).rows[0]["error"] == "TimeoutError: 60 s"
    assert one(tmp_path, row(error="seen, then repaired")).rows[0]["error"] is None
    lost = one(tmp_path, row(answer="", error="TimeoutError")).rows[0]
    assert (lost["answer"], lost["error"]) == (None, "TimeoutError")


@pytest.mark.parametrize("answer", ["", "  ", [], "[]"])
def test_an_empty_answer_is_a_refusal_that_is_told_of(tmp_path, answer):
    file = one(tmp_path, row(answer=answer, error="None"), row())
    assert (file.rows[0]["answer"], file.rows[0]["error"]) == ("", None)
    assert "Empty answers: 1 row, read as refusals." in str(file)


def test_a_systems_name_is_one_line_without_control_characters(tmp_path):
    assert one(tmp_path, row(system="sft\n v2\x1b[1m\u202e")).rows[0]["system"] == "sft v2[1m"


def test_a_key_missing_in_one_row_is_a_missing_answer(tmp_path):
    short = {"question": "q2", "reference": "r"}
    assert [r["answer"] for r in one(tmp_path, row(), short).rows] == ["Five years.", None]


@pytest.mark.parametrize(
    "answer, text",
    [(7, "7"), (7.5, "7.5"), (["a", "b"], "a\nb"), ("\ud800!", "?!"), ("a\0b", "a b"), ("None", "None")],
)
def test_answers_become_text(tmp_path, answer, text):
    assert one(tmp_path, row(answer=answer)).rows[0]["answer"] == text


@pytest.mark.parametrize(
    "reference, golds",
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([{"text": "a", "start": 9}, {"text": "b", "start": 5}], ["a", "b"]),
        ({"text": ["a"], "answer_start": [3]}, ["a"]),
        ("There is no such clause.", []),
        (7, ["7"]),
        (["there is NO such clause"], []),
        ([], []),
        ({"text": [], "answer_start": []}, []),
        ({"text": ["a", "b"], "answer_start": [5, 9]}, ["a", "b"]),
        (["a", "a", " a "], ["a"]),
        ([["a"], ["b", ""]], ["a", "b"]),
        ("[***]", ["[***]"]),
        ('["Fee"] means the fee.', ['["Fee"] means the fee.']),
        ("(a) the fee (b)", ["(a) the fee (b)"]),
    ],
)
def test_references_become_gold_spans(tmp_path, reference, golds):
    found = one(tmp_path, row(reference=reference)).rows[0]
    assert [gold["text"] for gold in found["answers"]] == golds and found["is_impossible"] == (not golds)
    assert all(isinstance(gold["start"], int) for gold in found["answers"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reference": "['a' 'b' ... 'z']"}, "the reference begins as a list .*'a' 'b' ... 'z'"),
        ({"reference": '["a", "cut sho'}, "the reference begins as a list .*cut sho"),
        ({"reference": {"spans": ["a"]}}, "holds no 'text'"),
        ({"seconds": "fast"}, "the column .seconds. is .fast."),
        ({"seconds": "1,500"}, "the column .seconds. is .1,500."),
        ({"weight": -1}, "the column .weight. is .-1."),
        ({"reference": ["There is no such clause.", "a"]}, "both names a clause"),
        ({"question": " "}, "question .* emp"),
        ({"answer": {"text": "a"}}, "the answer is"),
        ({"question": ["a", {}]}, "the question is"),
        ({"contract": ""}, "contract .* empty"),
        ({"system": None}, "system .* empty"),
        ({"system": "You are " * 99}, "no system's"),
        ({"system": "\x1b"}, "0 characters"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        one(tmp_path, row(contract="C", system="s"), row(contract="C", system="s") | changes)
    assert "sys.jsonl, line 2: " in str(caught.value)


def test_the_projects_own_predictions_keep_their_places(tmp_path):
    own = {
        "id": "C__Term",
        "contract": "C",
        "contract_type": "Lease",
        "category": "Term",
        "question": "q",
        "split": "test",
        "answers": [{"text": "five years", "start": 40}],
        "is_impossible": False,
        "system": "sft",
        "answer": "five years",
        "passages": [{"index": 0, "start": 30, "end": 60, "score": 1.0}],
        "spans": [[40, 50]],
        "error": None,
        "seconds": 0.5,
    }
    found = one(tmp_path, own, own | {"answers": [], "is_impossible": True}).rows
    kept = (
        "contract",
        "contract_type",
        "category",
        "split",
        "system",
        "answers",
        "passages",
        "spans",
        "seconds",
        "error",
    )
    assert {key: found[0][key] for key in kept} == {key: own[key] for key in kept}
    assert found[1]["answers"] == [] and found[1]["is_impossible"]


def test_the_system_is_the_files_name_unless_a_column_names_it(tmp_path):
    assert one(tmp_path, row(), name="my.model-7.jsonl").rows[0]["system"] == "my.model-7"
    assert one(tmp_path, row(system="dpo"), name="x.jsonl").rows[0]["system"] == "dpo"


@pytest.mark.parametrize(
    "given, number",
    [(1, 1.0), ("0.3", 0.3), (True, 1.0), ("no", 0.0), ("Partly", 0.5), ("", math.nan), (None, math.nan)],
)
def test_verdicts_become_numbers(tmp_path, given, number):
    found = one(tmp_path, row(human=given), verdicts=["human", "absent"]).rows[0]["verdicts"]
    assert found == {"human": pytest.approx(number, nan_ok=True)}


@pytest.mark.parametrize("given", [2, -0.1, "good", "inf", 10])
def test_a_verdict_out_of_range_is_named(tmp_path, given):
    with pytest.raises(InputError, match="line 1: verdict .* in column 'human'"):
        one(tmp_path, row(human=given), verdicts=["human"])


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from([*answer_files.ANSWER_ALIASES, "passages", "spans", "answers"]), VALUE),
        min_size=1,
        max_size=3,
    )
)
def test_any_json_gives_rows_or_one_clear_error(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = answer_files.read_answer_files([path])[0].rows
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert len(found) == len(rows) and all(bool(r["answers"]) != r["is_impossible"] for r in found)
        assert all((r["answer"] is None) == (r["error"] is not None) for r in found)
