"""The layouts that CUAD is published in, and its files: each gives the same contracts, and nothing counts twice."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data import layouts
from cuadft.data.contracts import locate_contracts, parse_contracts, read_contracts

TEXT = "Acme Inc. buys from Bolt LLC. Ohio law governs. Acme Inc. insures the goods."
ASKED = (
    'Highlight the parts (if any) of this contract related to "{}" that should be reviewed by a lawyer. Details: Who?'
)
CATEGORIES = ("Parties", "Governing Law", "Insurance", "Audit Rights")
WORDS = ("Acme Inc.", "Bolt LLC", "Ohio law", "Acme Inc. insures")


def span(words: str) -> dict:
    return {"text": words, "answer_start": TEXT.index(words)}


def documents(found: dict[str, list[dict]]) -> list[dict]:
    """Return two contracts in CUAD's own layout, with the spans of each category."""
    return [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f"{TEXT} {title}",
                    "qas": [
                        {
                            "id": f"{title}__{name}",
                            "question": ASKED.format(name),
                            "answers": spans,
                            "is_impossible": not spans,
                        }
                        for name, spans in found.items()
                    ],
                }
            ],
        }
        for title in ("A - SUPPLY AGREEMENT", "B - SUPPLY AGREEMENT")
    ]


def separate(whole: list[dict]) -> list[dict]:
    """Return the documents with one question a span, as in train_separate_questions.json."""
    made = []
    for one in whole:
        (paragraph,) = one["paragraphs"]
        parts = [(qa, [[each] for each in qa["answers"]] or [[]]) for qa in paragraph["qas"]]
        qas = [qa | {"id": f"{qa['id']}_{n}", "answers": own} for qa, each in parts for n, own in enumerate(each)]
        made.append(one | {"paragraphs": [paragraph | {"qas": qas}]})
    return made


def rows(whole: list[dict]) -> list[dict]:
    """Return the questions as the hub's rows, with answers as a mapping of lists."""
    return [
        {"id": qa["id"], "title": one["title"], "context": paragraph["context"], "question": qa["question"],
         "answers": {key: [each[key] for each in qa["answers"]] for key in ("text", "answer_start")}}
        for one in whole for paragraph in one["paragraphs"] for qa in paragraph["qas"]
    ]  # fmt: skip


def lines(items: list[dict], **options: int) -> bytes:
    return "\n".join(json.dumps(item, **options) for item in items).encode()


def parquet(items: list[dict]) -> bytes:
    import io

    import pyarrow
    import pyarrow.parquet

    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), made)
    return made.getvalue()


def without(items: list[dict], *names: str) -> list[dict]:
    return [{key: value for key, value in item.items() if key not in names} for item in items]


WRITERS: dict[str, Callable[[list[dict]], bytes]] = {
    "documents": lambda whole: json.dumps({"version": "v1", "data": whole}).encode(),
    "a question a span": lambda whole: json.dumps({"data": separate(whole)}).encode(),
    "bare list": lambda whole: json.dumps(whole).encode(),
    "a document a line": lines,
    "rows": lambda whole: lines(rows(whole)),
    "a row a span": lambda whole: lines(rows(separate(whole))),
    "rows over several lines": lambda whole: lines(rows(whole), indent=2),
    "array of rows": lambda whole: json.dumps(rows(separate(whole)), indent=1).encode("utf-16"),
    "parquet": lambda whole: parquet(rows(separate(whole))),
    "rows without titles": lambda whole: lines(without(rows(whole), "title")),
    "spans as a list": lambda whole: lines([row | {"answers": qa["answers"]} for row, qa in zip(rows(whole), (
        qa for one in whole for qa in one["paragraphs"][0]["qas"]))]),
    "each twice": lambda whole: lines(rows(whole) + rows(separate(whole))[::-1]),
    "blank spans": lambda whole: lines([
        row if row["answers"]["text"] else row | {"answers": {"text": [""], "answer_start": [0]}} for row in rows(whole)
    ]),
}  # fmt: skip


def summary(contracts: list) -> list:
    """Return what must not depend on the layout; the order of spans and questions may."""
    return sorted(
        (c.title, c.text, c.contract_type, sorted(
            (row["id"], row["category"], row["question"], row["is_impossible"], sorted(map(str, row["answers"])))
            for row in c.rows
        )) for c in contracts
    )  # fmt: skip


@given(st.fixed_dictionaries({name: st.lists(st.sampled_from(WORDS), unique=True) for name in CATEGORIES}))
def test_every_layout_gives_the_same_contracts(found: dict[str, list[str]]) -> None:
    whole = documents({name: [span(words) for words in own] for name, own in found.items()})
    expected = summary(parse_contracts(WRITERS["documents"](whole), "d"))
    assert [len(contract[3]) for contract in expected] == [4, 4]
    for name, write in WRITERS.items():
        assert summary(parse_contracts(write(whole), name)) == expected, name


WHOLE = documents({"Parties": [span("Acme Inc."), span("Bolt LLC")], "Insurance": []})
FILES = {
    "CUADv1.json": WRITERS["documents"](WHOLE),
    "test.json": WRITERS["documents"](WHOLE[:1]),
    "train_separate_questions.json": WRITERS["a question a span"](WHOLE),
}


@pytest.mark.parametrize("names", [list(FILES), list(FILES)[1:], ["CUADv1.json"], ["train_separate_questions.json"]])
@pytest.mark.parametrize("inside", ["", "data/", "./"])
def test_the_archive_of_cuads_repository_and_its_folder_are_read_once(
    tmp_path: Path, names: list[str], inside: str
) -> None:
    (tmp_path / "folder" / inside).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in names:
            archive.writestr(inside + name, FILES[name])
            (tmp_path / "folder" / inside / name).write_bytes(FILES[name])
        archive.writestr("__MACOSX/._test.json", b"\0")
    expected = summary(parse_contracts(FILES["CUADv1.json"], "d"))
    for place in (tmp_path / "data.zip", tmp_path / "folder", tmp_path):  # the last one holds the archive
        assert summary(read_contracts(locate_contracts(str(place), tmp_path))) == expected


def test_a_folder_of_datasets_is_read_without_what_lies_beside_the_rows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(WRITERS["parquet"](WHOLE))
    (tmp_path / "data" / "test.jsonl").write_bytes(WRITERS["rows"](WHOLE))
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert summary(read_contracts(tmp_path)) == summary(parse_contracts(FILES["CUADv1.json"], "d"))


def test_questions_in_other_words_stay_apart() -> None:
    own = rows(WHOLE[:1])[:1]
    own += [
        own[0] | {"id": "2__Parties", "question": "who signs?"},
        own[0] | {"id": "3__Parties", "question": "Who  signs?"},
    ]
    (contract,) = parse_contracts(lines(own), "d")
    assert [row["id"] for row in contract.rows] == ["A - SUPPLY AGREEMENT__Parties", "2__Parties"]
    assert all(len(row["answers"]) == 2 for row in contract.rows)


def test_a_row_without_an_id_is_known_by_its_category() -> None:
    own = [row | {"category": "Parties", "question": "Who signs?"} for row in without(rows(WHOLE[:1])[:1], "id")]
    assert parse_contracts(lines(own), "d")[0].rows[0]["id"] == "A - SUPPLY AGREEMENT__Parties"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (
            lines([{"a__Law": "Ohio", "a__Cap": ""}], indent=1),
            "holds no contracts but {'a__Law': 'Ohio', 'a__Cap': ''}",
        ),
        (lines([{"question": "q", "answer": "a"}] * 2), "holds no contracts but {'question': 'q', 'answer': 'a'}"),
        (parquet([{"q": 1, "a": 2}]), "holds no contracts but columns q, a"),
        (parquet(rows(WHOLE))[:-9], "is not a whole parquet file"),
        (lines(rows(WHOLE))[:-9], "is not whole UTF-8 JSON (Unterminated string"),
        (lines([rows(WHOLE)[0], rows(WHOLE)[1] | {"question": 5}]), "line 2.question: Input should be a valid string"),
        (
            lines([rows(WHOLE)[0] | {"answers": {"text": ["a"], "answer_start": []}}]),
            "line 1.answers: Input should be a valid list; found {'text'",
        ),
    ],
)
def test_what_is_no_contract_is_named_and_valid_json_is_never_called_damaged(raw: bytes, told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_contracts(raw, "own.file")
    assert told in str(caught.value)
    assert ("whole" in told) == ("whole" in str(caught.value))


def test_an_archive_in_an_archive_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cuad-main.zip", "w") as archive:
        archive.writestr("cuad-main/data.zip", b"")
    with pytest.raises(InputError, match=r"found: cuad-main/data\.zip.*unpack"):
        read_contracts(tmp_path / "cuad-main.zip")


def test_the_outermost_copy_of_the_whole_data_is_taken() -> None:
    assert layouts.contract_files(["a/CUAD_v1.json", "CUADv1.json", "test.json"]) == ["CUADv1.json"]
    assert layouts.contract_files(["b.parquet", "a.jsonl", ".x.json", "notes.txt"]) == ["a.jsonl", "b.parquet"]
