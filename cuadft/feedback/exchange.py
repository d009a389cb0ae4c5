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
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.files import write_json, write_jsonl, write_text
from cuadft.feedback import formats
from cuadft.feedback.formats import ForeignVote
from cuadft.feedback.labelstudio import labelstudio_tasks
from cuadft.feedback.records import FIELDS, OTHER_SIDE, checked_judgement, pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused, TrainingQuestions

STORE_FILE = "feedback.sqlite"  # in a run folder
IN_STORE = "the store"  # the place of a judgement that is stored already
ROWS_LISTED = 20  # rows listed under each heading of a report
EXPORT_FORMATS = ("auto", "trl", "kto", "labelstudio", "raw")
EXPORT_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
ABOUT = ("id", "contract", "question")  # fields of the judgement with which a row begins
KEPT = ("annotator", "time", "seconds", "comment")  # and with which it ends


@dataclass
class ImportReport:
    """Say what an import did: how many votes it stored, and which rows it did not."""

    file: str
    format: str
    rows: int  # votes in the file and rows left out; an annotator's verdict counts as one row
    stored: int = 0
    left_out: list[ForeignVote] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # places of votes that were stored before
    contradictions: list[str] = field(default_factory=list)  # sentences

    def text(self) -> str:
        """Return the report that the command prints: every count, and up to 20 rows under each heading."""
        refused = [row for row in self.left_out if row.held_out]
        others = [row for row in self.left_out if not row.held_out]
        lines = [
            f"{self.file} ({self.format}): {self.rows} rows, {self.stored} stored, {len(self.duplicates)} duplicates, "
            f"{len(refused)} refused (held out), {len(others)} left out, {len(self.contradictions)} contradictions"
        ]
        by_reason: dict[str, list[str]] = defaultdict(list)
        for row in [*refused, *others]:
            by_reason[f"{'Refused' if row.held_out else 'Left out'}: {row.reason}"].append(row.where)
        if self.duplicates:
            by_reason["Duplicates, not stored again"] = self.duplicates
        lines += [f"{reason} ({len(places)}: {_first(places)})" for reason, places in by_reason.items()]
        if self.contradictions:
            lines.append(f"Contradictions: {_first(self.contradictions)}")
        return "\n".join(lines)


def _first(places: Sequence[str]) -> str:
    more = f" and {len(places) - ROWS_LISTED} more" if len(places) > ROWS_LISTED else ""
    return "; ".join(places[:ROWS_LISTED]) + more


def import_file(
    path: str | Path, run: str | Path, *, file_format: str = "auto", annotator: str = "", contract: str = ""
) -> ImportReport:
    """Store a file's votes on training questions in the run's feedback.sqlite; on an error nothing is stored.

    annotator, contract: of rows that name no annotator or no contract. Without `annotator` the file's name stands for
    the annotator, and "expert" in the AWS sample's files. A vote that the annotator has given already on these two
    answers is not stored again. Contradictory votes are stored and reported; an annotator's latest vote counts. Raises
    InputError for a file or run that can't be read and for an unknown format or contract.
    """
    path, run = Path(path), runs.resolve_path(run)
    found_format, votes = formats.read_votes(path, file_format)
    training = TrainingQuestions(run)
    title = training.known_title(contract) if contract else ""
    votes = [_with_question(vote, training, title, annotator, path) for vote in votes]
    report = ImportReport(path.name, found_format, len(votes), left_out=[vote for vote in votes if vote.reason])
    store = Store(run / STORE_FILE)
    new = _new_judgements([vote for vote in votes if not vote.reason], store, report)
    store.add_many(new)
    report.stored = len(new)
    return report


def _with_question(
    vote: ForeignVote, training: TrainingQuestions, contract: str, annotator: str, path: Path
) -> ForeignVote:
    """Return a vote with the values of a judgement on its training question, or with the reason why it makes none."""
    if vote.reason:
        return vote
    try:
        row = training.find(vote.values, contract)
        if _single_blanks(str(vote.values["answer_a"])) == _single_blanks(str(vote.values["answer_b"])):
            raise RowRefused("both answers are the same")
        who = vote.values["annotator"] or annotator or vote.values.get("named") or path.stem
        said = {name: value for name, value in vote.values.items() if name in FIELDS}
        said |= {name: row[name] for name in ABOUT} | {"annotator": who, "source": f"import:{path.name}"}
        return ForeignVote(vote.where, checked_judgement(said))
    except RowRefused as error:
        return ForeignVote(vote.where, {}, str(error), error.held_out)
    except InputError as error:
        return ForeignVote(vote.where, {}, f"no valid judgement: {error}")


def _new_judgements(votes: Iterable[ForeignVote], store: Store, report: ImportReport) -> list[dict[str, Any]]:
    """Return the judgements that were not given before; note duplicates and contradictions in the report."""
    counting, uids = {judgement["uid"] for judgement in store.judgements()}, set()
    known_on: dict[Any, list[tuple[Mapping[str, Any], str]]] = defaultdict(list)  # answers -> judgements, places

    def remember(judgement: Mapping[str, Any], where: str) -> None:
        uids.add(judgement["uid"])
        known_on[_answers_key(judgement)].append((judgement, where))

    for judgement in store.judgements(current=False):
        remember(judgement, IN_STORE)
    new = []
    for vote in votes:
        judgement, known = vote.values, known_on[_answers_key(vote.values)]
        if judgement["uid"] in uids or any(_adds_nothing(judgement, other) for other, _ in known):
            report.duplicates.append(vote.where)
            continue
        counted = [(other, where) for other, where in known if other["uid"] in counting]
        report.contradictions += _contradictions(vote, counted)
        new.append(judgement | _known_systems(judgement, [other for other, where in known if where == IN_STORE]))
        counting.add(judgement["uid"])
        remember(new[-1], vote.where)
    return new


def _contradictions(vote: ForeignVote, known: Iterable[tuple[Mapping[str, Any], str]]) -> Iterator[str]:
    """Yield a sentence for each judgement on the same two answers that prefers the other answer."""
    annotator, winner = vote.values["annotator"], _preferred_answer(vote.values)
    for other, where in known:
        if winner and _preferred_answer(other) not in ("", winner):
            yield (
                f"{vote.where} ({annotator}) prefers the other answer than {where} ({other['annotator']}) "
                f"on {vote.values['id']!r}{'; the later verdict counts' if other['annotator'] == annotator else ''}"
            )


def _known_systems(judgement: Mapping[str, Any], stored: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the systems that the store knows for the answers of a judgement that names none.

    Without them annotators of the same two answers would seem to have judged different pairs.
    """
    named = {tuple(sorted(_systems_by_answer(other).items())) for other in stored}
    named = [systems for systems in map(dict, named) if any(systems.values())]
    if len(named) != 1 or any(_systems_by_answer(judgement).values()):
        return {}
    return {f"system_{side}": named[0][_single_blanks(judgement[f"answer_{side}"])] for side in "ab"}


def _answers_key(judgement: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """Return the question's id and the two answers; unlike `records.pair_key` it leaves their systems aside."""
    return judgement["id"], frozenset(_single_blanks(judgement[f"answer_{side}"]) for side in "ab")


def _preferred_answer(judgement: Mapping[str, Any]) -> str:
    """Return "= " and the preferred answer, "" without a preference; the order of the two answers does not matter.

    A single thumb has a blank second answer. If it is down, the blank answer counts as preferred, so that thumbs up and
    thumbs down contradict each other.
    """
    thumb_down = judgement["verdict"] == "both_wrong" and not judgement["answer_b"].strip()
    side = "b" if thumb_down else judgement["verdict"]
    return f"= {_single_blanks(judgement[f'answer_{side}'])}" if side in OTHER_SIDE else ""


def _systems_by_answer(judgement: Mapping[str, Any]) -> dict[str, str]:
    return {_single_blanks(judgement[f"answer_{side}"]): judgement[f"system_{side}"] for side in "ab"}


def _adds_nothing(judgement: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Tell whether a judgement says no more than a known one on the same two answers.

    It says more if it is another annotator's, has another verdict, correction or span, or names another system. Many
    files name no systems and keep neither corrections nor spans: what is missing in one of the two is no difference.
    """
    said, before = ((j["annotator"], _preferred_answer(j) or j["verdict"]) for j in (judgement, known))
    if said != before or known["revokes"] is not None:
        return False
    if any(judgement[name] not in (None, known[name]) for name in ("edited", "span")):
        return False
    systems, others = _systems_by_answer(judgement), _systems_by_answer(known)
    return all(name == others[answer] or not name or not others[answer] for answer, name in systems.items())


def _single_blanks(text: str) -> str:
    # Case counts here, unlike in `core.text.fold`: a correction may change nothing but the case.
    return " ".join(text.split())


def export_file(path: str | Path, run: str | Path, *, file_format: str = "auto") -> Counter[str]:
    """Write the judgements of a run that count now to a file; return counts of judgements, rows and so on.

    The counts are "judgements", "rows" and "without a preference", and "pairs with contradictory verdicts" if there are
    any; contradictory judgements are written, too. The formats are those of `export_rows`; "auto" is "trl". Raises
    InputError where there is no feedback, and for a name that does not end in .csv, .jsonl, .ndjson or .json (Label
    Studio's tasks: .json only).
    """
    if file_format not in EXPORT_FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(EXPORT_FORMATS)}.")
    path, store = Path(path), Store(runs.resolve_path(run) / STORE_FILE)
    judgements = store.judgements()
    if not judgements:
        raise InputError(f"There is no feedback in {store.path}: import some, or judge answers in notebook 06.")
    file_format = "trl" if file_format == "auto" else file_format
    rows = export_rows(judgements, file_format)
    write_export(path, rows, file_format)
    without = sum(not export_rows([judgement], file_format) for judgement in judgements)
    counts = Counter({"judgements": len(judgements), "rows": len(rows), "without a preference": without})
    winners: dict[Any, set[str]] = defaultdict(set)
    for judgement in judgements:
        winners[_answers_key(judgement)].add(_preferred_answer(judgement))
    if opposed := sum(len(preferred - {""}) > 1 for preferred in winners.values()):
        counts["pairs with contradictory verdicts"] = opposed
    return counts


def export_rows(judgements: Sequence[Mapping[str, Any]], file_format: str) -> list[dict[str, Any]]:
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


def write_export(path: Path, made: Sequence[Mapping[str, Any]], file_format: str) -> None:
    """Write rows by the path's suffix: CSV (prompt and answers as text, messages as JSON), JSON lines or JSON."""
    suffix = path.suffix.lower()
    if suffix not in EXPORT_SUFFIXES or (file_format == "labelstudio" and suffix != ".json"):
        allowed = ".json" if file_format == "labelstudio" else ", ".join(EXPORT_SUFFIXES)
        raise InputError(f"Can't write {file_format} to {path.name!r}: end the file's name in {allowed}.")
    if suffix == ".csv":
        _write_csv(path, made if file_format == "raw" else [_flat_row(row) for row in made])
    elif suffix == ".json":
        write_json(path, made)
    else:
        write_jsonl(path, made)


def _better_and_worse(judgement: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield (better, worse), each (text, system); without a preference nothing is yielded."""
    sides = {side: (judgement[f"answer_{side}"], judgement[f"system_{side}"]) for side in "ab"}
    better = (judgement["edited"], "corrected") if judgement["edited"] else sides.get(judgement["verdict"])
    for side in _wrong_sides(judgement) if better else "":
        worse = sides[side]
        if worse[0].strip() and better[0] != worse[0]:
            yield better, worse


def _wrong_sides(judgement: Mapping[str, Any]) -> str:
    return OTHER_SIDE.get(judgement["verdict"], "ab" if judgement["verdict"] == "both_wrong" else "")


def _pair_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of TRL's format for each answer that another answer was preferred to."""
    for (chosen, system_chosen), (rejected, system_rejected) in _better_and_worse(judgement):
        verb = "corrected the answer" if system_chosen == "corrected" else "preferred it"
        yield {
            "chosen": _as_messages(chosen),
            "rejected": _as_messages(rejected),
            "reason": f"annotator {judgement['annotator']} {verb}",
            "system_chosen": system_chosen,
            "system_rejected": system_rejected,
        }


def _thumb_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each answer that was called better or wrong; rows of one judgement have the same `pair`."""
    sides = {side: (judgement[f"answer_{side}"], judgement[f"system_{side}"]) for side in "ab"}
    up = dict(better for better, _ in _better_and_worse(judgement))
    if not up and judgement["verdict"] in sides:  # a single thumb has no second answer
        up = dict([sides[judgement["verdict"]]])
    down = {text: system for text, system in map(sides.get, _wrong_sides(judgement)) if text.strip()}
    pair = pair_key(judgement) if len(up) + len(down) > 1 else None
    for answers, label, verb in ((up, True, "preferred it"), (down, False, "found it worse or wrong")):
        for text, system in answers.items():
            reason = f"annotator {judgement['annotator']} {verb}"
            yield {"completion": _as_messages(text), "label": label, "reason": reason, "system": system, "pair": pair}


def _as_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its messages as text; the column "messages" keeps a prompt that is more than the question."""
    answers = {name: row[name][0]["content"] for name in ("chosen", "rejected", "completion") if name in row}
    prompt = "\n\n".join(message["content"] for message in row["prompt"])
    only_asks = len(row["prompt"]) == 1 and prompt == row["question"]
    return dict(row) | answers | {"prompt": prompt, "messages": None if only_asks else row["prompt"]}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV (RFC 4180) in one step; None is an empty cell, a list, dict or truth value is JSON."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerow(rows[0] if rows else ABOUT)
    writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    write_text(path, out.getvalue())


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return formats.quote_formula(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else value
