"""Human feedback in and out of a run's store: what an import took and refused, and exports for other programs.

    report = import_file("pairs.csv", "runs/quickstart", annotator="anna")
    print(report.text())
    counts = export_file("out.jsonl", "runs/quickstart")

An import finds the training question of every vote in a file (see `formats`) and stores the vote as a judgement. It
refuses held-out contracts and stores nothing twice. An export writes judgements as TRL's preference pairs, as single
answers with a thumb for KTO, as Label Studio's tasks, or with all their fields.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.files import write_json, write_jsonl, write_text
from cuadft.core.text import fold
from cuadft.feedback import formats
from cuadft.feedback.formats import Vote
from cuadft.feedback.labelstudio import labelstudio_tasks
from cuadft.feedback.records import FIELDS, Rows, checked_judgement, pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused, TrainingQuestions

STORE_FILE = "feedback.sqlite"  # in a run folder
ROWS_LISTED = 20  # rows listed under each heading of a report
EXPORT_FORMATS = ("trl", "kto", "labelstudio", "raw")
EXPORT_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
ABOUT = ("id", "contract", "question")  # fields of the judgement with which a row begins
KEPT = ("annotator", "time", "seconds", "comment")  # and with which it ends


@dataclass
class ImportReport:
    """Say what an import did: how many votes it stored, and which rows it did not."""

    file: str
    format: str
    stored: int = 0
    left_out: list[Vote] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # places of votes that were stored before
    contradictions: list[str] = field(default_factory=list)  # questions on which annotators prefer different answers

    @property
    def rows(self) -> int:
        """Return the number of votes in the file and of rows left out; an annotator's verdict counts as one row."""
        return self.stored + len(self.left_out) + len(self.duplicates)

    def text(self) -> str:
        """Return the report that the command prints: every count, and up to 20 rows under each heading."""
        refused = sum(vote.held_out for vote in self.left_out)
        counts = (
            f"{self.file} ({self.format}): {self.rows} rows, {self.stored} stored, {len(self.duplicates)} duplicates, "
            f"{refused} refused (held out), {len(self.left_out) - refused} left out, "
            f"{len(self.contradictions)} contradictions"
        )
        headings: dict[str, list[str]] = defaultdict(list)
        for vote in sorted(self.left_out, key=lambda vote: not vote.held_out):
            headings[f"{'Refused' if vote.held_out else 'Left out'}: {vote.reason}"].append(vote.where)
        headings |= {"Duplicates, not stored again": self.duplicates, "Contradictions": self.contradictions}
        lists = [
            f"{name} ({len(found)}): {'; '.join(found[:ROWS_LISTED])}" for name, found in headings.items() if found
        ]
        return "\n".join([counts, *lists])


def import_file(path: str | Path, run: str | Path, *, annotator: str = "", contract: str = "") -> ImportReport:
    """Store a file's votes on training questions in the run's feedback.sqlite; on an error nothing is stored.

    annotator, contract: of rows that name no annotator or no contract. Without `annotator` the file's name stands for
    the annotator, and "expert" in the AWS sample's files. A vote that the annotator has given already on these two
    answers is not stored again. Contradictory votes are stored and reported; an annotator's latest vote counts. Raises
    InputError for a file or run that can't be read and for an unknown contract.
    """
    path, run = Path(path), runs.resolve_path(run)
    found_format, votes = formats.read_votes(path)
    training = TrainingQuestions(run)
    title = training.known_title(contract) if contract else ""
    votes = [vote if vote.reason else _with_question(vote, training, title, annotator, path) for vote in votes]
    report = ImportReport(path.name, found_format, left_out=[vote for vote in votes if vote.reason])
    store = Store(run / STORE_FILE)
    new = _new_judgements([vote for vote in votes if not vote.reason], store, report)
    store.add_many(new)
    report.stored = len(new)
    added = set(map(pair_key, new))
    report.contradictions += _contradictions([row for row in store.judgements() if pair_key(row) in added])
    return report


def _with_question(vote: Vote, training: TrainingQuestions, contract: str, annotator: str, path: Path) -> Vote:
    """Return a vote with the values of a judgement on its training question, or with the reason why it makes none."""
    try:
        row = training.find(vote.values, contract)
        if fold(vote.values["answer_a"]) == fold(vote.values["answer_b"]):
            raise RowRefused("both answers are the same")
        who = vote.values["annotator"] or annotator or vote.values.get("named") or path.stem
        said = {name: value for name, value in vote.values.items() if name in FIELDS}
        said |= {name: row[name] for name in ABOUT} | {"annotator": who, "source": f"import:{path.name}"}
        return Vote(vote.where, checked_judgement(said))
    except RowRefused as error:
        return Vote(vote.where, {}, str(error), error.held_out)
    except InputError as error:
        return Vote(vote.where, {}, f"no valid judgement: {error}")


def _new_judgements(votes: Sequence[Vote], store: Store, report: ImportReport) -> list[dict[str, Any]]:
    """Return the judgements that were not given before; note duplicates in the report."""
    uids, said, new = set(), set(), []
    for judgement in store.judgements(current=False):
        uids.add(judgement["uid"])
        said |= _sayings(judgement)
    for vote in votes:
        judgement = vote.values
        if judgement["uid"] in uids or _saying(judgement) in said:
            report.duplicates.append(vote.where)
            continue
        new.append(judgement)
        uids.add(judgement["uid"])
        said |= _sayings(judgement)
    return new


def _contradictions(judgements: Rows) -> Iterator[str]:
    """Yield the question of each pair of which annotators prefer different answers, and who prefers what."""
    by_pair: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for judgement in judgements:
        if _preferred(judgement):
            by_pair[pair_key(judgement)].append(judgement)
    for rows in by_pair.values():
        if len(set(map(_preferred, rows))) > 1:
            preferred = [f"{row['annotator']} prefers {_preferred(row)[2:]!r}" for row in rows]
            yield f"{rows[0]['id']}: {', '.join(preferred)}"


def _preferred(judgement: Mapping[str, Any]) -> str:
    """Return "= " and the preferred answer, "" without a preference; the order of the two answers does not matter.

    A single thumb has a blank second answer. If it is down, the blank answer counts as preferred, so that thumbs up and
    thumbs down contradict each other.
    """
    thumb_down = judgement["verdict"] == "both_wrong" and not judgement["answer_b"].strip()
    side = "b" if thumb_down else judgement["verdict"]
    return f"= {fold(judgement[f'answer_{side}'])}" if side in ("a", "b") else ""


def _saying(judgement: Mapping[str, Any]) -> tuple[Any, ...]:
    said = _preferred(judgement) or judgement["verdict"]
    span = judgement["span"] and tuple(judgement["span"])
    return judgement["annotator"], pair_key(judgement), said, judgement["edited"], span


def _sayings(judgement: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """Return what a judgement says, and the same without its correction and span, which many files do not keep."""
    *said, edited, span = _saying(judgement)
    return {(*said, *more) for more in product({None, edited}, {None, span})}


def export_file(path: str | Path, run: str | Path, *, file_format: str = "trl") -> Counter[str]:
    """Write the judgements of a run that count now to a file; return counts of judgements, rows and so on.

    The counts are "judgements", "rows" and "without a preference"; contradictory judgements are written, too. The
    formats are those of `export_rows`. Raises InputError where there is no feedback, and for a name
    that does not end in .csv, .jsonl, .ndjson or .json (Label Studio's tasks: .json only).
    """
    if file_format not in EXPORT_FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(EXPORT_FORMATS)}.")
    path, store = Path(path), Store(runs.resolve_path(run) / STORE_FILE)
    judgements = store.judgements()
    if not judgements:
        raise InputError(f"There is no feedback in {store.path}: import some, or judge answers in notebook 06.")
    rows = export_rows(judgements, file_format)
    _write(path, rows, file_format)
    without = sum(not export_rows([judgement], file_format) for judgement in judgements)
    return Counter({"judgements": len(judgements), "rows": len(rows), "without a preference": without})


def export_rows(judgements: Rows, file_format: str) -> list[dict[str, Any]]:
    """Return judgements in a format: "raw" and "labelstudio" take all, "trl" and "kto" those with a preference.

    A corrected answer takes the winner's place and is preferred to each wrong answer. A prompt is the messages that
    were sent, where they are known, else the question.
    """
    if file_format == "labelstudio":
        return labelstudio_tasks(judgements)
    if file_format == "raw":
        return [{name: judgement[name] for name in FIELDS} for judgement in judgements]
    make = _pair_rows if file_format == "trl" else _thumb_rows
    rows = []
    for judgement in judgements:
        prompt = judgement["prompt"] or [{"role": "user", "content": judgement["question"]}]
        about = {name: judgement[name] for name in ABOUT} | {"prompt": prompt}
        kept = {name: judgement[name] for name in KEPT}
        rows += [about | made | {"source": "human"} | kept for made in make(judgement)]
    return rows


Answer = tuple[str, str]  # text, system


def _better_and_worse(judgement: Mapping[str, Any]) -> tuple[Answer | None, list[Answer]]:
    """Return the better answer, if there is one, and the worse ones."""
    sides = {side: (judgement[f"answer_{side}"], judgement[f"system_{side}"]) for side in "ab"}
    wrong = {"a": "b", "b": "a", "both_wrong": "ab"}.get(judgement["verdict"], "")
    better = (judgement["edited"], "corrected") if wrong and judgement["edited"] else sides.get(judgement["verdict"])
    worse = [sides[side] for side in wrong if sides[side][0].strip()]  # a single thumb has no second answer
    return better, [answer for answer in worse if better is None or answer[0] != better[0]]


def _pair_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of TRL's format for each answer that another answer was preferred to."""
    better, worse = _better_and_worse(judgement)
    for answer, system in worse if better else []:
        yield {
            "chosen": _as_messages(better[0]),
            "rejected": _as_messages(answer),
            "reason": f"annotator {judgement['annotator']} preferred it",
            "system_chosen": better[1],
            "system_rejected": system,
        }


def _thumb_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each answer that was called better or wrong; rows of one judgement have the same `pair`."""
    better, worse = _better_and_worse(judgement)
    thumbs = [(better, True)] * (better is not None) + [(answer, False) for answer in worse]
    for (text, system), label in thumbs:
        reason = f"annotator {judgement['annotator']} {'preferred it' if label else 'found it worse or wrong'}"
        made = {"completion": _as_messages(text), "label": label, "reason": reason, "system": system}
        yield made | {"pair": pair_key(judgement) if len(thumbs) > 1 else None}


def _as_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _write(path: Path, rows: Rows, file_format: str) -> None:
    """Write rows by the path's suffix: CSV (prompt and answers as text, messages as JSON), JSON lines or JSON."""
    suffix, allowed = path.suffix.lower(), (".json",) if file_format == "labelstudio" else EXPORT_SUFFIXES
    if suffix not in allowed:
        raise InputError(f"Can't write {file_format} to {path.name!r}: end the file's name in {', '.join(allowed)}.")
    if suffix == ".csv":
        import pandas as pd

        cells = [{name: _csv_cell(value) for name, value in _flat_row(row).items()} for row in rows]
        table = pd.DataFrame(cells, columns=list(cells[0] if cells else ABOUT), dtype=object)
        write_text(path, table.to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\r\n"))
    elif suffix == ".json":
        write_json(path, rows)
    else:
        write_jsonl(path, rows)


def _flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its messages as text; the column "messages" keeps a prompt that is more than the question."""
    answers = {name: row[name][0]["content"] for name in ("chosen", "rejected", "completion") if name in row}
    if not answers:  # of our own format
        return dict(row)
    prompt = "\n\n".join(message["content"] for message in row["prompt"])
    only_asks = len(row["prompt"]) == 1 and prompt == row["question"]
    return dict(row) | answers | {"prompt": prompt, "messages": None if only_asks else row["prompt"]}


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return formats.quote_formula(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else value
