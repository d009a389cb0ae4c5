"""The same answers in other clothes: CSV, JSON, JSON lines and parquet; one row a span; names that other tools give."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_cells, answer_files
from cuadft.evaluation.metrics import score_predictions

TABLE = [
    {"question": "Cap?", "reference": ["Limited to $5.", "Cap is $5."], "answer": "Cap is $5.", "seconds": 1.5},
    {
        "question": "Law?",
        "reference": {"text": ["the law of Ohio"], "answer_start": [7]},
        "answer": "Ohio",
        "seconds": 2,
    },
    {"question": "Term?", "reference": [], "answer": "", "seconds": 0.25},
    {"question": "Fee?", "reference": [{"text": "It's due, at once", "start": 3}], "answer": ["due", "at once"]},
    {"question": "Audit?", "reference": "[***]", "answer": "[***]", "seconds": None},
]
DROPPED = ("where", "system")


def arrays(value):
    """Return a value as `datasets` gives it to pandas: lists are arrays."""
    if isinstance(value, dict):
        return {name: arrays(item) for name, item in value.items()}
    return np.array(value, dtype=object) if isinstance(value, list) else value


def write(folder, kind):
    path = folder / f"a.{kind.split()[0]}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE))
    elif kind == "json":
        path.write_text(json.dumps(TABLE, indent=1))
    elif kind == "json columns":
        path.write_text(pd.DataFrame(TABLE).to_json())
    elif kind == "parquet":  # a column has one type there
        spans = [answer_cells.gold_spans(row["reference"], "") for row in TABLE]
        pd.DataFrame(TABLE).assign(reference=spans, answer=[str(row["answer"]) for row in TABLE]).to_parquet(path)
    elif kind == "csv of arrays":
        pd.DataFrame([{name: arrays(value) for name, value in row.items()} for row in TABLE]).to_csv(path)
    else:
        cells = json.dumps if kind == "csv of JSON" else str
        rows = [{n: cells(v) if isinstance(v, list | dict) else v for n, v in row.items()} for row in TABLE]
        pd.DataFrame(rows).to_csv(path, index=False, sep=";" if "semicolons" in kind else ",")
    return path


def plain(rows):
    kept = [{name: value for name, value in row.items() if name not in DROPPED} for row in rows]
    return pd.DataFrame(kept).to_json()


@pytest.mark.parametrize(
    "kind", ["json", "json columns", "parquet", "csv of JSON", "csv of Python", "csv of arrays", "csv with semicolons"]
)
def test_a_table_is_read_the_same_in_every_format(tmp_path, kind):
    expected, found = (answer_files.read_answer_files([write(tmp_path, k)])[0] for k in ("jsonl", kind))
    assert [len(row["answers"]) for row in expected.rows] == [2, 1, 0, 1, 1]
    assert plain(found.rows) == plain(expected.rows) and found.notes == expected.notes


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    [
        "[1]",
        '["a", "b"]',
        "['a' 'b",
        "N/A",
        "nan",
        "-",
        "—",
        "the",
        "{'text': 'a'}",
        "a\r\nb",
        " a",
        "There is no such clause.",
    ]
)


@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=4), answer=TEXT, places=st.booleans())
def test_what_is_written_into_a_cell_is_read_from_it_again(texts, answer, places):
    try:
        spans = answer_cells.gold_spans([{"text": t, "start": n} if places else t for n, t in enumerate(texts)], "")
    except InputError:
        return  # a clause, and that there is none
    row = {"answers": spans} | ({"passages": []} if places else {})
    assert answer_cells.gold_spans(answer_cells.reference_cell(row), "") == spans
    said = answer_cells.text_of(answer, "", "answer")
    assert answer_cells.text_of(answer_cells.answer_cell(said), "", "answer") == said


def one(tmp_path, *rows, **columns):
    (tmp_path / "sys.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return answer_files.read_answer_files([tmp_path / "sys.jsonl"], **columns)[0]


@pytest.mark.parametrize(
    "columns",
    [
        {"question": "q", "example_answer": "r", "reasoning": "x", "pred_answer": "a"},
        {"user_input": "q", "retrieved_contexts": ["x"], "reference": "r", "response": "a"},
        {"question": "q", "gt_answer": "r", "prediction": "a"},
        {"question": "q", "ground_truths": ["r"], "contexts": ["x"], "answer": "a"},
        {"input": "q", "expected_output": "r", "actual_output": "a"},
        {"question": "q", "answer": "r", "pred": "a"},
        {"question": "q", "answers": {"text": ["r"], "answer_start": [3]}, "prediction_text": "a"},
        {"question": "q", "answer": "", "gold": "r", "prediction": "a", "contract": ""},
    ],
)
def test_columns_are_found_by_the_names_that_other_tools_give(tmp_path, columns):
    file = one(tmp_path, columns)
    (found,) = file.rows
    assert (found["question"], [gold["text"] for gold in found["answers"]], found["answer"]) == ("q", ["r"], "a")
    assert f"{file.columns['answer']} taken as the answer" in str(file)


def test_a_second_column_for_the_answer_is_told_of(tmp_path):
    file = one(tmp_path, {"question": "q", "reference": "r", "answer": "a", "prediction": "b"})
    assert file.rows[0]["answer"] == "a" and "Also there: prediction (--answer COLUMN" in str(file)


def test_a_file_that_is_no_table_of_answers_is_called_by_its_name(tmp_path):
    (tmp_path / "preds.json").write_text(json.dumps({"deal__Law": "Oregon law", "deal__Cap": ""}, indent=4))
    with pytest.raises(InputError, match="holds one JSON object, which is no table of answers.*'deal__Law'") as caught:
        answer_files.read_answer_files([tmp_path / "preds.json"])
    assert "not valid" not in str(caught.value) and "cut short" not in str(caught.value)
    with pytest.raises(InputError, match="no row has a reference .column 'reference'"):
        one(tmp_path, {"question": "q", "reference": "", "answer": "a"})


SPANS = [{"contract": "C", "question": "Parties?", "reference": r, "answer": "Acme"} for r in ("Acme", "Beta", "Acme")]


def test_rows_of_one_question_are_one_question_with_all_its_spans(tmp_path):
    other = [row | {"contract": "D"} for row in SPANS[:1]]
    file = one(tmp_path, *SPANS, *other)
    assert [[gold["text"] for gold in row["answers"]] for row in file.rows] == [["Acme", "Beta"], ["Acme"]]
    assert "Joined: 2 rows" in str(file)
    whole = one(tmp_path, SPANS[0] | {"reference": ["Beta", "Acme"]}, *other)
    ids = [p["id"] for p in answer_files.join_files([file]).predictions]
    assert ids == [p["id"] for p in answer_files.join_files([whole]).predictions] == ["1", "2"]
    scored = [score_predictions(answer_files.join_files([f]).predictions)["f1"].tolist() for f in (file, whole)]
    assert scored == [[1, 1], [1, 1]]


def test_rows_of_the_hub_are_joined_by_their_title(tmp_path):
    hub = [
        {"id": str(n), "title": "C", "context": "x", "question": "Parties?", "prediction": "Acme"}
        | {"answers": {"text": [text], "answer_start": [n]}}
        for n, text in enumerate(["Acme", "Beta"])
    ]
    (row,) = one(tmp_path, *hub).rows
    assert row["contract"] == "C" and [span["text"] for span in row["answers"]] == ["Acme", "Beta"]
    assert (
        len(one(tmp_path, *hub, hub[0] | {"title": ""}).rows) == 3
    )  # a title that not all rows have names no contract


def test_different_answers_to_a_question_are_each_held_against_all_spans(tmp_path):
    given = [row | {"answer": row["reference"], "human": n} for n, row in enumerate(SPANS[:2])]
    rows = one(tmp_path, *given, verdicts=["human"]).rows
    assert [len(row["answers"]) for row in rows] == [2, 2] and [row["answer"] for row in rows] == ["Acme", "Beta"]
    (joined,) = one(tmp_path, *(row | {"answer": "Acme"} for row in given), verdicts=["human"]).rows
    assert joined["verdicts"] == {"human": 1.0}


def test_rows_that_no_contract_or_no_span_joins_stay_apart(tmp_path):
    assert len(one(tmp_path, *({**row, "contract": None} for row in SPANS)).rows) == 3
    assert len(one(tmp_path, *SPANS[:1], SPANS[0] | {"reference": "-"}).rows) == 2
    assert len(one(tmp_path, *SPANS[:1] * 3).rows) == 3  # one system's answers to one question


OTHER = {"question": "Law?", "reference": "Ohio", "answer": "Ohio"}


@pytest.mark.parametrize("reference", ["", "-", "—", "–", "--", " − ", "...", "…", None, "nan", ["-"], [], {}])
def test_a_blank_reference_is_one_case_for_every_metric(tmp_path, reference):
    file = one(tmp_path, {"question": "q", "reference": reference, "answer": "There is no such clause."}, OTHER)
    assert file.rows[0]["is_impossible"]
    scored = score_predictions(answer_files.join_files([file]).predictions).iloc[0]
    assert scored["f1"] == 1 and scored["false_answer"] == 0 and pd.isna(scored["false_refusal"])
    told = reference in ("", None) or isinstance(reference, str)
    assert ("Blank or a dash as the reference: 1 row" in str(file)) == told


@given(st.text("—-–.,the·§$ *[]_•a\n", max_size=6) | TEXT)
def test_no_refusal_is_at_once_right_and_a_false_refusal(reference):
    row = {"id": "1", "contract": "c", "category": "", "answer": "There is no such clause.", "error": None}
    spans = [{"text": reference, "start": 0}] if reference else []
    scored = score_predictions([row | {"answers": spans, "is_impossible": not spans}]).iloc[0]
    assert scored["f1"] == 1 - scored["has_clause"] and bool(scored["false_refusal"] == 1) == scored["has_clause"]


def test_a_cell_of_a_spreadsheet_keeps_its_quotes(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([("question", "reference", "answer"), ("q", "['a, \"b\"', 'c']", "a")])
    (row,) = answer_files.read_answer_files([tmp_path / "a.csv"])[0].rows
    assert [gold["text"] for gold in row["answers"]] == ['a, "b"', "c"]
