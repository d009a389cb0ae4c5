"""A finished run reviews a contract, and the next iteration trains on what a person corrected in it."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from commands import cuadft

from cuadft import review
from cuadft.core import files
from cuadft.data.contracts import read_contracts, sample_path

TEXT = """SUPPLY AGREEMENT

This Agreement is made on March 3, 2019 between Norrland Timber AB and Tidewater Joinery LLC.

1. Law. This Agreement is governed by the laws of the State of Oregon, without its rules on conflicts of law.

2. Audit. Tidewater may inspect the books of Norrland once in each year upon ten days' notice.
"""
LAW = "This Agreement is governed by the laws of the State of Oregon"


def test_a_corrected_review_comes_back_as_rows_of_the_next_iteration(smoke: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(smoke, tmp_path / "smoke"))
    (tmp_path / "timber.txt").write_text(TEXT)
    done = cuadft("review", run, tmp_path / "timber.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = run.glob("reviews/*/review.csv")
    table = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    assert len({row["question"] for row in table}) == 41
    next(row for row in table if row["category"] == "Governing Law")["correction"] = LAW
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(table)
    assert "1 question to learn from" in cuadft("feedback", "import", run, path, "--annotator", "anna").stdout
    assert cuadft("verify", run).returncode == 0, "reviews and corrections are known files of a run"
    done = cuadft("run", "params/smoke.yaml", "--iterations", 3, "--until", "data_prep", "--run-dir", run)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [r for r in files.read_jsonl(run / "iter-03/data/train.jsonl") if r["source"] == "feedback"]
    assert row["answers"] == [{"text": LAW, "start": TEXT.index(LAW)}] and row["contract"] == "timber"
    chain = cuadft("verify", run, "iter-03/data/train.jsonl").stdout
    assert "human feedback (iter-03/corrected.jsonl): 1 question on 1 contract: timber__Governing Law" in chain


def test_a_notebook_shows_the_page_of_a_contract_and_a_trained_one_says_so(smoke: Path, tmp_path: Path) -> None:
    records = {record["title"]: record["split"] for record in files.read_jsonl(smoke / "contracts.jsonl")}
    trained = next(c for c in read_contracts(sample_path()) if records[c.title] == "train")
    (tmp_path / "under another name.txt").write_text(trained.text)
    found = review.contract(smoke, tmp_path / "under another name.txt")
    assert trained.title in found.known and "trained on" in found.known
    assert found._repr_html_().startswith("<iframe") and "Not new to this run" in found._repr_html_()
    again = review.contract(smoke, review.Document("new", TEXT))
    assert again.known == "" and len(again.findings) == 41
