import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cuadft.core import files
from cuadft.core.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def values(path):
    return [record.values for record in files.read_table(path)]


@given(
    rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    delimiter=st.sampled_from(",;\t"),
    bom=st.booleans(),
)
def test_csv_comes_back_as_it_was_written(tmp_path_factory, rows, quoting, delimiter, bom):
    path, text = tmp_path_factory.mktemp("t") / "a.csv", io.StringIO()
    # a lone carriage return is quoted only if it is part of the line end
    csv.writer(text, quoting=quoting, delimiter=delimiter, lineterminator="\r\n").writerows([("q", "a"), *rows])
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    assert [tuple(row.values()) for row in values(path)] == rows


@given(
    rows=st.lists(
        st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.none(), st.lists(TEXT))), min_size=1, max_size=4
    ),
    shape=st.sampled_from(["lines", "array"]),
)
def test_json_comes_back_as_it_was_written(tmp_path_factory, rows, shape):
    path = tmp_path_factory.mktemp("t") / "a.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) if shape == "lines" else f"[{','.join(lines)}]", encoding="utf-8", newline="")
    assert values(path) == rows


def test_a_field_of_millions_of_characters_is_read_and_the_limit_put_back(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text('q,a\nx,"' + "long, " * 500_000 + '"\n')
    assert len(values(tmp_path / "a.csv")[0]["a"]) == 3_000_000
    assert csv.field_size_limit() == before


def test_json_is_known_by_its_content_too(tmp_path):
    (tmp_path / "a.txt").write_text('\ufeff{"q": 1}\n\n{"q": 2}\n', encoding="utf-8")
    assert values(tmp_path / "a.txt") == [{"q": 1}, {"q": 2}]


ROWS = [{"q": "x", "a": ["1", "2"]}, {"q": "y", "a": None}]


@pytest.mark.parametrize(
    "content",
    [
        {"q": ["x", "y"], "a": [["1", "2"], None]},
        {"q": {"0": "x", "1": "y"}, "a": {"0": ["1", "2"], "1": None}},
        {"0": ROWS[0], "1": ROWS[1]},
        {"version": "1", "data": ROWS},
    ],
)
def test_one_json_object_may_hold_columns_or_rows(tmp_path, content):
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(content, indent=indent))
        assert values(tmp_path / "a.json") == ROWS


@pytest.mark.parametrize(
    "row", [{"id": "answer"}, {"q": "x", "a": ["1"]}, {"prompt": [{"role": "user"}], "chosen": [{"role": "assistant"}]}]
)
def test_another_json_object_is_one_row(tmp_path, row):
    for name, indent in (("a.json", 1), ("a.json", None), ("a.jsonl", None)):
        (tmp_path / name).write_text(json.dumps(row, indent=indent))
        assert values(tmp_path / name) == [row]


def test_parquet_comes_back_as_it_was_written(tmp_path):
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == ROWS
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="b.parquet can't be read as parquet"):
        files.read_table(tmp_path / "b.parquet")


def test_a_row_is_named_by_its_place(tmp_path):
    (tmp_path / "a.csv").write_text("q\nx\n\ny\n")
    (tmp_path / "a.jsonl").write_text('\n{"q": 1}\n')
    assert files.read_table(tmp_path / "a.csv")[1].where == f"{tmp_path / 'a.csv'}, row 2"
    assert files.read_table(tmp_path / "a.jsonl")[0].where == f"{tmp_path / 'a.jsonl'}, line 2"


BROKEN = {
    "empty": ("a.csv", b"", "is empty"),
    "bom only": ("a.csv", b"\xef\xbb\xbf\n", "is empty"),
    "header only": ("a.csv", b"question,answer\n", "no rows"),
    "blank array": ("a.json", b"[]", "no rows"),
    "latin-1": ("a.csv", "q,a\nx,caf\xe9\n".encode("latin-1"), "not UTF-8"),
    "utf-16": ("a.csv", "q,a\nx,y\n".encode("utf-16"), "not UTF-8"),
    "binary": ("a.csv", b"\x89PNG\r\n\0\0", "binary"),
    "too few fields": ("a.csv", b"q,r,a\nx,y\n", "row 1: not as many fields as the header has .3."),
    "too many fields": ("a.csv", b"q,a\nx,y,z\n", "row 1: not as many fields as the header has .2."),
    "open quote": ("a.csv", b'q,a\nx,"y\n', "not valid CSV"),
    "column twice": ("a.csv", b"q,a,a\nx,y,z\n", "'a' is there twice"),
    "torn line": ("a.jsonl", b'{"q": 1}\n{"q": 2', "line 2: not valid JSON"),
    "array of texts": ("a.json", b'["x"]', "row 1: expected a JSON object"),
    "number": ("a.jsonl", b"7\n", "line 1: expected a JSON object"),
    "nested too deeply": ("a.jsonl", b'{"q": ' + b"[" * 100_000, "line 1: not valid JSON"),
    "torn array": ("a.json", b'[{"q": 1},', "not valid JSON"),
}


@pytest.mark.parametrize("name, content, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_clear_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        files.read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="No file .*none.csv"):
        files.read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        files.read_table(tmp_path)


@pytest.mark.parametrize("delimiter", files.DELIMITERS)
def test_blank_lines_before_the_header_are_passed_over(tmp_path, delimiter):
    (tmp_path / "a.csv").write_text(f"\n\nq{delimiter}a\n\nx{delimiter}y\n")
    assert [r.values for r in files.read_table(tmp_path / "a.csv")] == [{"q": "x", "a": "y"}]
