"""Properties of first labels: words of any table are found at exact offsets, or the row is named with the reason."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import of_cell
from cuadft.data import contracts
from cuadft.data.documents import Document
from cuadft.data.schema import Category, Schema
from cuadft.loop import labels, start

SCHEMA = Schema("houses", categories={"Rent": Category("Rent", "What is the rent?"), "Pets": Category("Pets", "Pets?")})
TEXT = "The rent is 5 euros.\nThe rent is due\non Monday. A cat is 5 euros more; a dog is not allowed."
DOCUMENT = Document("Elm 1", TEXT, file="Elm 1.pdf")


def table(*rows, columns=("document", "category", "answer")):
    return [files.TableRow(f"row {n}", dict(zip(columns, row))) for n, row in enumerate(rows, 1)]


def quotes(*answers, category="Rent"):
    """Return the spans of one question whose rows hold the answers."""
    ((entry),) = labels.annotate(table(*(("Elm 1", category, each) for each in answers)), [DOCUMENT], SCHEMA)
    return [(a["text"], a["answer_start"]) for a in entry["paragraphs"][0]["qas"][0]["answers"]]


def test_words_are_quoted_as_the_document_has_them():
    assert quotes("the RENT is  due on\nmonday") == [("The rent is due\non Monday", 21)]


def test_lines_that_stand_apart_are_several_quotes():
    assert quotes("a dog is not allowed\nThe rent is 5 euros") == [
        ("The rent is 5 euros", 0),
        ("a dog is not allowed", TEXT.index("a dog")),
    ]


def test_words_that_are_given_twice_are_the_first_two_places():
    first, second = TEXT.index("5 euros"), TEXT.rindex("5 euros")
    assert quotes("5 euros") == [("5 euros", first)]
    assert quotes("5 euros", "5 euros") == quotes("5 euros\n5 euros") == [("5 euros", first), ("5 euros", second)]
    assert quotes("5 euros", "5 euros", "5 euros") == quotes("5 euros", "5 euros")


def test_an_empty_answer_is_not_asked_and_none_is_impossible():
    rows = table(("Elm 1", "Rent", " "), ("Elm 1.pdf", "pets", "None."), ("Oak", "Rent", ""))
    ((entry),) = labels.annotate(rows, [DOCUMENT, Document("Oak", "Nothing.")], SCHEMA)
    (asked,) = entry["paragraphs"][0]["qas"]
    assert asked == {"id": "Elm 1__Pets", "question": "Pets?", "answers": [], "is_impossible": True}


def test_a_row_may_name_its_question_instead_of_the_category():
    rows = table(("elm 1", "what is the rent?", "5 euros"), columns=("Document", "Question", "Answer"))
    assert labels.annotate(rows, [DOCUMENT], SCHEMA)[0]["paragraphs"][0]["qas"][0]["id"] == "Elm 1__Rent"


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("Elm 1", "Rent", "6 euros")], r"row 1: the words '6 euros' do not stand in Elm 1"),
        ([("Elm 1", "Rent", "5 euros\n6 euros")], "do not stand"),
        ([("Elm 2", "Rent", "5 euros")], "row 1: no document is called 'Elm 2'"),
        ([("scan", "Rent", "5 euros")], "row 1: scan.pdf has no text"),
        ([("Elm 1", "Rents", "5 euros")], r"no category 'Rents' \(nearest: Rent\)"),
        ([("Elm 1", "Rent", "none"), ("Elm 1", "Rent", "5 euros")], "row 2: one row says none"),
        ([("Elm 1", "Rent", "5 euros"), ("Elm 1", "Rent", "none")], "row 2: one row says none"),
    ],
)
def test_rows_that_cannot_be_placed_are_named_with_the_reason(rows, message):
    with pytest.raises(InputError, match=message):
        labels.annotate(table(*rows), [DOCUMENT], SCHEMA, {"scan.pdf": "scan.pdf has no text in it."})


def test_a_table_without_answers_names_its_columns():
    with pytest.raises(InputError, match="no column answer but document, category"):
        labels.annotate(table(("Elm 1", "Rent"), columns=("document", "category")), [DOCUMENT], SCHEMA)


words = st.text("abc xyz,;\t\"'\n", min_size=1, max_size=30).filter(lambda text: any(map(str.isalpha, text)))


@given(
    parts=st.lists(words, min_size=1, max_size=4),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    every=st.booleans(),
)
def test_any_dialect_gives_the_offsets_of_the_words_that_were_copied(
    tmp_path_factory, parts, delimiter, end, mark, every
):
    text = " | ".join(parts)
    made = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(made, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([["document", "category", "answer"], *(["Elm 1", "Rent", part] for part in parts)])
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_bytes(made.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    answers = [part for part in parts if part.strip("'").strip()]
    ((entry),) = labels.annotate(files.read_table(path), [Document("Elm 1", text)], SCHEMA)
    found = entry["paragraphs"][0]["qas"][0]["answers"]
    assert 1 <= len(found) <= len(answers)
    assert all(text.startswith(each["text"], each["answer_start"]) for each in found)
    assert {" ".join(each["text"].split()) for each in found} <= {" ".join(of_cell(part).split()) for part in parts}


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("Elm", "Oak"):
        (tmp_path / "docs" / f"{name}.txt").write_text(
            f"Rules of {name}, which all tenants keep.\nThe rent is 5 euros."
        )
    (tmp_path / "q.txt").write_text("Rent: What is the rent?\nPets: Are pets allowed?\n")
    start.start_folder(tmp_path / "mine", documents=tmp_path / "docs", questions=tmp_path / "q.txt")
    preset = tmp_path / "mine" / "preset.yaml"
    preset.write_text(preset.read_text().replace('"runs/mine"', f'"{tmp_path}/run"'))
    return tmp_path / "mine"


def fill(mine, *rows):
    (mine / "labels.csv").write_text("\n".join(["document;category;answer", *(";".join(row) for row in rows)]))
    return labels.label_documents(mine, [mine.parent / "docs"])


def test_labels_are_what_the_first_run_begins_with_until_it_has_begun(mine):
    with pytest.raises(InputError, match="holds no answer yet"):
        labels.label_documents(mine, [mine.parent / "docs"])
    fill(mine, ("Elm", "Pets", "none"))
    done = fill(mine, ("Elm", "Rent", "5 euros"))
    assert done.file == mine / "arrivals" / "labels.json" and "none to learn from. Label 2 more" in done.text()
    (read,) = contracts.read_contracts(done.file, start.read_schema(mine / "schema.yaml"), unknown="refuse")
    assert [(row["category"], row["answers"][0]["text"]) for row in read.rows] == [("Rent", "5 euros")]
    files.write_jsonl(mine.parent / "run" / "contracts.jsonl", [])
    before = done.file.read_bytes()
    done = fill(mine, ("Elm", "Pets", "none"), ("Oak", "Rent", "5 euros"))
    assert (done.file.name, done.kept) == ("labels-2.json", ["Elm"]) and "next iteration" in done.text()
    assert [each["title"] for each in files.read_json(done.file)["data"]] == ["Oak"]
    done = labels.label_documents(mine, [mine.parent / "docs"])
    assert done.file is None and done.kept == ["Elm", "Oak"] and "Nothing is new" in done.text()
    assert (mine / "arrivals" / "labels.json").read_bytes() == before


@pytest.mark.parametrize("n, told", [(2, "Label 1 more"), (6, "learns from 4"), (6, "Too few documents for prob")])
def test_what_few_documents_cannot_give_is_said_plainly(n, told):
    assert any(told in note for note in labels._few(n, {"dev_contracts": 1, "test_contracts": 1}))


def test_with_documents_enough_nothing_is_lacking():
    assert len(labels._few(12, {"dev_contracts": 2, "test_contracts": 2})) == 1
