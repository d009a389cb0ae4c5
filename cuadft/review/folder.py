"""Review files and folders into one folder: what `cuadft review` does and prints.

    done = review_files("runs/quickstart", ["contracts/"], log=print)
    done.out, [review.document.name for review in done.reviews], done.broken

Each finished contract is kept in finished/, keyed by its text, the questions and the system, so that the same call goes
on after a kill and asks nothing twice. A review.csv that somebody has changed is never written over.
"""

from __future__ import annotations

import itertools
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuadft.core import files, runs
from cuadft.core.errors import InputError, brief
from cuadft.core.progress import LINE_START
from cuadft.core.text import MARKS
from cuadft.data.documents import Document, files_of, read_documents
from cuadft.evaluation.answer_files import count_of
from cuadft.review import tables
from cuadft.review.page import review_page, two_page
from cuadft.review.reviewer import Question, Review, Reviewer, read_questions, renamed
from cuadft.review.side_by_side import compared_text

FOLDER, FINISHED = "reviews", "finished"  # in the run folder; in the folder of the results
CSV, JSONL, XLSX, TWO = "review.csv", "review.jsonl", "review.xlsx", "side-by-side.html"
LONGEST_NAME = 120  # bytes of a contract's name in the name of its page
_NOT_IN_NAMES = re.compile(rf"[^\w{MARKS} .,&()'-]+")


@dataclass(frozen=True)
class ReviewedFiles:
    """What was reviewed and written to `out`; broken: files and contracts that were not, each with the reason."""

    out: Path
    reviews: list[Review]
    broken: dict[str, str]
    pages: list[Path]

    @property
    def complete(self) -> bool:
        """Tell whether every file was read and every question answered."""
        return not self.broken and not any(review.counts()["failed"] for review in self.reviews)


def review_files(
    run_dir: str | Path,
    paths: Sequence[str | Path],
    *,
    questions: str | Path = "",
    out: str | Path = "",
    system: str = "",
    iteration: int | None = None,
    log: Callable[[str], object] = print,
) -> ReviewedFiles:
    """Review every contract of the files and folders with a system of a run, and write tables and pages.

    questions: a file of one's own, see `reviewer.read_questions`. out: by default reviews/<first name>-<system> in the
    run folder. A file that can't be read is kept in `broken`, and the others go on. Raises InputError for an unknown
    path, run or system, for unreadable questions, and if no file can be read.
    """
    asked = read_questions(questions) if questions else []
    found, others = files_of(paths)
    if others:
        log(f"Left out, no contracts by their endings: {_listed([path.name for path in others])}")
    documents, broken = _read_all(found, log)
    if not documents:
        told = "\n  - ".join(broken.values()) or "there is none with an ending of a contract"
        raise InputError(f"No file could be read:\n  - {told}")
    name = system or "champion"
    run = runs.resolve_path(run_dir)
    folder = Path(out).expanduser() if out else run / FOLDER / f"{_plain_name(Path(paths[0]).stem)}-{name}"
    (folder / FINISHED).mkdir(parents=True, exist_ok=True)
    reviewer = Reviewer.load(run, system=system, iteration=iteration)
    named = reviewer.schema.naming["document" if len(documents) == 1 else "documents"]
    log(f"{reviewer.label} of {run.name} reviews {len(documents):,} {named} into {folder}")
    reviews = _review_all(reviewer, documents, asked, folder / FINISHED, broken, log)
    return ReviewedFiles(folder, reviews, broken, _write(folder, reviews, log))


def reviewed_text(done: ReviewedFiles) -> str:
    """Return what the command prints at its end: each contract's counts, the comparison of two, and what is broken."""
    lines = [f"{review.document.name}: {_counted(review)}" for review in done.reviews]
    if len(done.reviews) == 2:
        lines += ["", compared_text(*done.reviews)]
    lines += [f"Not reviewed: {reason}" for reason in done.broken.values()]
    failed = sum(review.counts()["failed"] for review in done.reviews)
    lines += [f"{count_of(failed, 'question')} failed; the same command asks them again."] if failed else []
    pages = f"{count_of(len(done.pages), 'page')} (.html)"
    return "\n".join([*lines, f"Written to {done.out}: {CSV}, {JSONL}, {XLSX} and {pages}"])


def _counted(review: Review) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in review.counts().items() if count or state != "failed")
    notes = ([f"the {review.document_name} {review.known}"] if review.known else []) + list(review.document.unread)
    return "; ".join([counts, *notes])


def _read_all(found: Sequence[Path], log: Callable[[str], object]) -> tuple[list[Document], dict[str, str]]:
    """Return the contracts of all files, and for each broken file what is wrong with it."""
    documents, broken = [], {}
    for path in found:
        try:
            documents += read_documents(path)
        except InputError as error:
            broken[str(path)] = str(error)
            log(f"Not read, the others go on: {error}")
    return documents, broken


def _review_all(
    reviewer: Reviewer,
    documents: Sequence[Document],
    asked: Sequence[Question],
    finished: Path,
    broken: dict[str, str],
    log: Callable[[str], object],
) -> list[Review]:
    """Return the reviews of the documents; one that is finished already is taken as it is."""
    kept = [(document, _finished(finished, reviewer.key(document, asked), document)) for document in documents]
    left = sum(len(document.text) for document, review in kept if review is None)
    reviews, seconds, characters = [], 0.0, 0
    for number, (document, review) in enumerate(kept, 1):
        done = f"{LINE_START}{number}/{len(kept)} {document.name}"
        if review is None and (review := _finished(finished, reviewer.key(document, asked), document)) is None:
            started = time.monotonic()
            try:
                review = reviewer.review(document, asked)
            except Exception as error:  # one contract must not end the others
                broken[document.name] = f"{document.name}: {brief(error)}"
                log(f"{done}: not reviewed, the others go on: {brief(error)}")
                continue
            if not review.counts()["failed"]:
                files.write_json(finished / f"{review.key}.json", review.record())
            seconds, characters = seconds + time.monotonic() - started, characters + len(document.text)
            rest = (left - characters) * seconds / characters
            done += f": {review.seconds:.0f} s, {characters / seconds:,.0f} characters a second, {_duration(rest)} left"
        else:
            done += ": finished before"
        reviews.append(review)
        log(f"{done} ({_counted(review)})")
    return reviews


def _finished(folder: Path, key: str, document: Document) -> Review | None:
    """Return a finished review, None if there is none that can be read."""
    with suppress(InputError):
        return renamed(Review.from_record(files.read_json(folder / f"{key}.json")), document)
    return None


def _write(folder: Path, reviews: Sequence[Review], log: Callable[[str], object]) -> list[Path]:
    """Write the tables and the pages of all reviews, and return the pages."""
    before, content = folder / CSV, tables.csv_bytes(reviews)
    if before.is_file() and (there := before.read_bytes()) != content and there != _csv_before(folder):
        kept = folder / f"review.changed-{files.value_hash(there.hex())[:8]}.csv"
        before.replace(kept)
        log(f"{CSV} was changed since it was written: it is kept as {kept.name}.")
    files.write_jsonl(folder / JSONL, [review.record() for review in reviews])
    files.write_bytes(folder / CSV, content)
    tables.write_workbook(folder / XLSX, reviews)
    pages = {TWO: two_page(*reviews)} if len(reviews) == 2 else {}
    for review in reviews:
        name = _plain_name(review.document.name)
        numbered = (f"{name}-{n}.html" if n > 1 else f"{name}.html" for n in itertools.count(1))
        pages[next(each for each in numbered if each not in pages)] = review_page(review)
    for name, page in pages.items():
        files.write_text(folder / name, page)
    return [folder / name for name in pages]


def _csv_before(folder: Path) -> bytes | None:
    """Return review.csv as it was written beside the review.jsonl that lies there, None if that can't be read."""
    with suppress(InputError):
        return tables.csv_bytes([Review.from_record(each) for each in files.read_jsonl(folder / JSONL)])
    return None


def _plain_name(name: str) -> str:
    """Return a name that any file system takes."""
    short = _NOT_IN_NAMES.sub("_", unicodedata.normalize("NFC", name)).encode()[:LONGEST_NAME].decode(errors="ignore")
    return short.strip(" .") or "contract"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join([*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
