"""Reviewing a folder goes on where it stopped, names what is broken, and loses nothing that a person wrote."""

from __future__ import annotations

import csv
import json

import pytest
import reviewing
import small

from cuadft import cli
from cuadft.core.errors import InputError
from cuadft.data.documents import Document
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.review import folder
from cuadft.review.folder import review_files, reviewed_text
from cuadft.review.reviewer import Reviewer


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a run whose champion follows a script; `run.asked` counts its questions."""
    script = small.Script(lambda messages: NO_CLAUSE)
    made = reviewing.reviewer(tmp_path / "run", script)
    monkeypatch.setattr(Reviewer, "load", lambda run, **_: made)
    for name, text in list(small.TEXTS.items())[:2]:
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "questions.txt").write_text("\n".join(small.QUESTIONS.values()))
    return script


def reviewed(tmp_path, *paths, log=None, out="out"):
    asked = {"questions": tmp_path / "questions.txt", "out": tmp_path / out}
    return review_files(tmp_path / "run", paths, log=(log if log is not None else []).append, **asked)


def contracts(tmp_path):
    return sorted(tmp_path.glob("*Agreement.txt"))


def test_a_finished_contract_is_not_asked_again_whatever_its_name(run, tmp_path):
    one, other = contracts(tmp_path)
    before = reviewed(tmp_path, one)
    calls = len(run.calls)
    one.rename(tmp_path / "renamed.txt")
    after = reviewed(tmp_path, tmp_path / "renamed.txt", other)
    assert calls < len(run.calls) <= 2 * calls and after.reviews[0].findings == before.reviews[0].findings
    assert [review.document.name for review in after.reviews] == ["renamed", other.stem]
    calls = len(run.calls)
    reviewed(tmp_path, tmp_path / "renamed.txt", other)
    assert len(run.calls) == calls


def test_a_killed_call_goes_on_after_the_contracts_that_it_had_finished(run, tmp_path, monkeypatch):
    review, done = Reviewer.review, []

    def killed(self, document, asked=()):
        if done:
            raise KeyboardInterrupt
        done.append(document.name)
        return review(self, document, asked)

    monkeypatch.setattr(Reviewer, "review", killed)
    with pytest.raises(KeyboardInterrupt):
        reviewed(tmp_path, *contracts(tmp_path))
    monkeypatch.setattr(Reviewer, "review", review)
    log = []
    reviewed(tmp_path, *contracts(tmp_path), log=log)
    assert [line for line in log if done[0] in line and "finished before" in line]


def test_every_contract_has_its_page_also_if_two_have_one_name(run, tmp_path):
    (tmp_path / "more").mkdir()
    one, other = contracts(tmp_path)
    (tmp_path / "more" / one.name).write_text(small.TEXTS[other.stem] + " And more.")
    done = reviewed(tmp_path, one, tmp_path / "more")
    pages = [page for page in done.pages if page.name != folder.TWO]
    assert len(set(pages)) == 2 and all(page.read_text().startswith("<!DOCTYPE html>") for page in done.pages)
    assert (tmp_path / "out" / folder.TWO).is_file()
    lines = (tmp_path / "out" / "review.jsonl").read_text().splitlines()
    assert [json.loads(line)["document"]["text"] for line in lines] == [r.document.text for r in done.reviews]


def test_a_changed_table_is_kept_beside_the_new_one(run, tmp_path):
    one, other = contracts(tmp_path)
    table = reviewed(tmp_path, one).out / "review.csv"
    reviewed(tmp_path, one, other)
    assert not list(table.parent.glob("review.changed-*")), "nobody had changed it"
    changed = table.read_text() + "a correction\n"
    table.write_text(changed)
    log = []
    reviewed(tmp_path, one, other, log=log)
    (kept,) = table.parent.glob("review.changed-*.csv")
    assert kept.read_text() == changed and any(kept.name in line for line in log)


def test_a_broken_file_is_named_and_the_others_go_on_with_exit_code_3(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 cut")
    arguments = ["review", tmp_path / "run", tmp_path / "broken.pdf", contracts(tmp_path)[0]]
    code = cli.main(
        [*map(str, arguments), "--questions", str(tmp_path / "questions.txt"), "--out", str(tmp_path / "o")]
    )
    told = capsys.readouterr().out
    assert code == 3 and told.count("broken.pdf can't be read") == 2 and (tmp_path / "o" / "review.xlsx").is_file()
    arguments = ["review", str(tmp_path / "run"), str(contracts(tmp_path)[0]), "--out", str(tmp_path / "o")]
    assert cli.main(arguments) == 0
    assert cli.main(["review", str(tmp_path / "run"), str(tmp_path / "broken.pdf")]) == 2


def test_a_contract_that_breaks_the_reviewer_does_not_end_the_others(run, tmp_path, monkeypatch):
    review = Reviewer.review

    def breaking(self, document: Document, asked=()):
        if document.name.startswith("Acme"):
            raise ZeroDivisionError("no passages")
        return review(self, document, asked)

    monkeypatch.setattr(Reviewer, "review", breaking)
    done = reviewed(tmp_path, *contracts(tmp_path))
    assert [r.document.name[:6] for r in done.reviews] == ["Binder"] and not done.complete
    assert "ZeroDivisionError" in reviewed_text(done)


def test_nothing_readable_is_bad_input(run, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="empty.txt is empty"):
        reviewed(tmp_path, tmp_path / "empty.txt")


def test_the_table_says_for_each_question_that_there_is_no_clause_and_how_likely(run, tmp_path):
    done = reviewed(tmp_path, contracts(tmp_path)[0])
    table = list(csv.DictReader((done.out / "review.csv").open(encoding="utf-8-sig", newline="")))
    assert [row["question"] for row in table] == list(small.QUESTIONS.values())
    assert {row["quote"] for row in table} == {NO_CLAUSE} and {row["answer"] for row in table} == {"none"}
