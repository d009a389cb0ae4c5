"""Properties of starting one's own: the example is whole, nothing is written over, any list of questions does."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, cuadft

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts
from cuadft.data.schema import read_schema
from cuadft.loop import start

QUESTIONS = "Rent: How much is the rent?\n\nMay pets be kept in the flat?\n"


@pytest.fixture
def pdfs(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("Elm 1", "Oak 2"):
        (tmp_path / "docs" / f"{name}.txt").write_text(f"House rules of {name}.\n\nThe rent is 500 a month.\n")
    return tmp_path / "docs"


def begin(tmp_path, pdfs, questions=QUESTIONS, name="questions.txt"):
    (tmp_path / name).write_text(questions)
    return start.start_folder(tmp_path / "mine", documents=pdfs, questions=tmp_path / name, log=[].append)


def test_the_example_is_a_preset_with_documents_that_its_schema_knows(tmp_path):
    written = start.start_folder(tmp_path / "library")
    assert [path.name for path in written] == ["schema.yaml", "documents.json", "preset.yaml"]
    values = params.load_preset(tmp_path / "library" / "preset.yaml", (), ROOT / "notebooks")
    schema = read_schema(values["schema"])
    found = contracts.read_contracts(values["cuad"], schema, unknown="refuse")
    assert len(found) == 3 and all(1400 < len(each.text) < 1700 and len(each.rows) == 5 for each in found)
    assert {row["category"] for each in found for row in each.rows} == set(schema.categories)
    assert values["run_dir"] == "runs/library" and (tmp_path / "library" / "arrivals").is_dir()
    assert values["arrivals_folder"] == str(tmp_path / "library" / "arrivals")


@pytest.mark.parametrize("name", ["schema.yaml", "preset.yaml", "documents.json"])
def test_nothing_is_written_where_a_file_exists(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} exists already, and nothing was written"):
        start.start_folder(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_name_that_a_run_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "project_root", lambda: tmp_path)
    (tmp_path / "runs" / "library").mkdir(parents=True)
    with pytest.raises(InputError, match="choose another name"):
        start.start_folder(tmp_path / "library")
    assert not (tmp_path / "library").exists()


def test_documents_and_questions_become_a_schema_a_preset_and_a_table_to_fill_in(tmp_path, pdfs):
    begin(tmp_path, pdfs)
    schema = read_schema(tmp_path / "mine" / "schema.yaml")
    asked = {each.name: each.question for each in schema.categories.values()}
    assert asked == {
        "Rent": "How much is the rent?",
        "May pets be kept in the flat": "May pets be kept in the flat?",
    }
    rows = [row.values for row in files.read_table(tmp_path / "mine" / "labels.csv")]
    assert [(row["document"], row["category"], row["answer"]) for row in rows] == [
        (document, category, "") for document in ("Elm 1", "Oak 2") for category in asked
    ]
    values = params.load_preset(tmp_path / "mine" / "preset.yaml", (), ROOT / "notebooks")
    assert values["contracts_folder"] == str(pdfs) and values["cuad"] == str(tmp_path / "mine/arrivals/labels.json")


@pytest.mark.parametrize(
    "name, text",
    [
        ("q.csv", "question;category\nHow much is the rent?;Rent\n"),
        ("q.csv", "Question\nHow much is the rent?\n"),
        ("q.yaml", "categories: {Rent: How much is the rent?}  # kept\n"),
    ],
)
def test_tables_and_schemas_of_questions_are_taken(tmp_path, pdfs, name, text):
    begin(tmp_path, pdfs, text, name)
    schema = read_schema(tmp_path / "mine" / "schema.yaml")
    assert [each.question for each in schema.categories.values()] == ["How much is the rent?"]
    assert name != "q.yaml" or (tmp_path / "mine" / "schema.yaml").read_text() == text


@pytest.mark.parametrize("text", ["", "a?\na?\n"])
def test_questions_that_make_no_schema_are_refused_before_anything_is_written(tmp_path, pdfs, text):
    with pytest.raises(InputError, match="questions.txt is no schema"):
        begin(tmp_path, pdfs, text)
    assert not (tmp_path / "mine").exists()


def test_a_file_that_cannot_be_read_is_told_and_kept_from_the_notebooks(tmp_path, pdfs):
    (pdfs / "scan.pdf").write_bytes(b"%PDF-1.4 broken")
    told = []
    (tmp_path / "q.txt").write_text(QUESTIONS)
    start.start_folder(tmp_path / "mine", documents=pdfs, questions=tmp_path / "q.txt", log=told.append)
    assert len(told) == 1 and "scan.pdf" in told[0]
    assert '\n# contracts_folder: "../docs"' in (tmp_path / "mine" / "preset.yaml").read_text()


def test_a_formula_in_a_name_is_no_formula_in_the_table():
    document = start.Document("=1+1", "text")
    table = start.labels_table([document], read_schema(ROOT / "cuadft/loop/example/schema.yaml"))
    assert next(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))["document"] == "'=1+1"


OPEN = "Books are lent for ten days."
SMALLEST = """model=tiny rephrase_seeds=1 embedder_steps=0 retrieval_modes=[bm25] max_new_tokens=16 sft_rows=4
    n_resamples=100 compile_rows=2 lora_layers=0"""


@pytest.mark.slow
def test_every_command_of_the_course_runs_in_its_order(tmp_path):
    """From a folder of documents to a second iteration, on the tiny model and the smallest sizes."""
    for name in ("notebooks", "params"):
        (tmp_path / name).symlink_to(ROOT / name)
    answers = write_documents(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "notebooks" / "COURSE.md").read_text(), re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)[1:]
        if words[0] == "label":
            change(
                tmp_path / "mine" / "labels.csv",
                lambda row: {"answer": answers.get((row["document"], row["question"]))},
            )
        if words[0] == "feedback":
            change(tmp_path / words[-1], lambda row: {"correction": OPEN if is_first_of_new(row) else ""})
        words += ["--set", *SMALLEST.split()] if words[0] == "run" else []
        done = cuadft(*words, cwd=tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert words[0] != "feedback" or "1 question to learn from on 1 document" in done.stdout.replace(
            "contract", "document"
        )
    assert (tmp_path / "runs" / "mine" / "iter-02" / "decision.json").is_file()


def write_documents(folder: Path) -> dict[tuple[str, str], str]:
    """Write the example's documents, one without labels, and the questions; return the answers of each document."""
    source, answers = ROOT / "cuadft" / "loop" / "example", {}
    (folder / "documents").mkdir()
    for entry in files.read_json(source / "documents.json")["data"]:
        (paragraph,) = entry["paragraphs"]
        (folder / "documents" / f"{entry['title']}.txt").write_text(paragraph["context"])
        for qa in paragraph["qas"]:
            answers[entry["title"], qa["question"]] = qa["answers"][0]["text"] if qa["answers"] else "none"
    (folder / "documents" / "New.txt").write_text(f"Rules of the town's new library. {OPEN} Shoes are taken off.")
    asked = read_schema(source / "schema.yaml").categories.values()
    (folder / "questions.txt").write_text("".join(f"{each.name}: {each.question}\n" for each in asked))
    return answers


def change(path: Path, new: Callable[[dict[str, str]], dict[str, str | None]]) -> None:
    """Change cells of a CSV file, row by row, and save it as a spreadsheet would."""
    rows = [row.values for row in files.read_table(path)]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(row | new(row) for row in rows)


def is_first_of_new(row: dict[str, str]) -> bool:
    return row["contract"] == "New" and row["id"].endswith(":0:0")
