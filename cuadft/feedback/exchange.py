"""Human feedback in and out of a run's store: what an import took and refused, and exports for other programs.

    report = import_file("pairs.csv", "runs/quickstart", annotator="anna")
    print(report.text())
    counts = export_file("out.jsonl", "runs/quickstart")

An import finds the training question of every vote in a file (see `formats`) and stores the vote as a judgement. It
refuses held-out contracts and stores nothing twice. An export writes judgements as TRL's preference pairs, as single
answers with a thumb for KTO, as Label Studio's tasks, or with all their fields.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.files import write_json, write_jsonl
from cuadft.feedback import formats, labelstudio, records
from cuadft.feedback.formats import ForeignVote, LeftOut
from cuadft.feedback.records import FIELDS, RowRefused, checked_judgement, pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import TrainingQuestions

STORE_FILE = "feedback.sqlite"  # in a run folder
ROWS_LISTED = 20  # rows listed under each heading of a report
EXPORT_FORMATS = ("auto", "trl", "kto", "labelstudio", "raw")
EXPORT_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
ANSWER_COLUMNS = ("chosen", "rejected", "completion")
_ABOUT = ("id", "contract", "question", "prompt")
_KEPT = ("annotator", "time", "seconds", "comment")  # fields of the judgement that a row keeps
EXPORT_COLUMNS = {
    "trl": (*_ABOUT, "chosen", "rejected", "source", "reason", "system_chosen", "system_rejected", *_KEPT, "messages"),
    "kto": (*_ABOUT, "completion", "label", "source", "reason", "system", "pair", *_KEPT, "messages"),
    "raw": FIELDS,
}


@dataclass
class ImportReport:
    """Say what an import did: how many votes it stored, and which rows it did not."""

    file: str
    format: str
    rows: int  # votes in the file and rows left out; an annotator's verdict counts as one row
    stored: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
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
        for heading, found in (("Refused", refused), ("Left out", others)):
            by_reason: dict[str, list[str]] = defaultdict(list)
            for row in found:
                by_reason[row.reason].append(row.where)
            lines += [f"{heading}, {len(at)}: {reason} ({_listed_places(at)})" for reason, at in by_reason.items()]
        if self.duplicates:
            lines.append(f"Duplicates, not stored again: {_listed_places(self.duplicates)}")
        lines += [f"Contradiction: {sentence}" for sentence in self.contradictions[:ROWS_LISTED]]
        if (more := len(self.contradictions) - ROWS_LISTED) > 0:
            lines.append(f"… and {more} more contradictions")
        return "\n".join(lines)


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
    report = ImportReport(path.name, found_format, len(votes))
    judged = [_judgement_of_vote(vote, training, title, annotator, path) for vote in votes]
    report.left_out = [row for row in judged if isinstance(row, LeftOut)]
    store = Store(run / STORE_FILE)
    known = _KnownJudgements(store.judgements(current=False), store.judgements())
    new = [vote.values for vote in judged if isinstance(vote, ForeignVote) and known.is_new(vote, report)]
    store.add_many(new)
    report.stored = len(new)
    return report


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
    made = [export_rows([judgement], file_format) for judgement in judgements]
    rows = export_rows(judgements, file_format)
    write_export(path, rows, file_format)
    winners: dict[Any, set[str]] = defaultdict(set)
    for judgement in judgements:
        winners[_answers_key(judgement)].add(_preferred_answer(judgement))
    opposed = sum(len(preferred - {""}) > 1 for preferred in winners.values())
    counts = Counter({"judgements": len(judgements), "rows": len(rows), "without a preference": made.count([])})
    if opposed:
        counts["pairs with contradictory verdicts"] = opposed
    return counts


def export_rows(judgements: Sequence[Mapping[str, Any]], file_format: str) -> list[dict[str, Any]]:
    """Return judgements in a format: "raw" and "labelstudio" take all, "trl" and "kto" those with a preference.

    A corrected answer takes the winner's place and is preferred to each wrong answer. A prompt is the messages that
    were sent, where they are known, else the question.
    """
    if file_format == "labelstudio":
        return labelstudio.labelstudio_tasks(judgements)
    if file_format == "raw":
        return [{name: judgement[name] for name in FIELDS} for judgement in judgements]
    make = _pair_rows if file_format == "trl" else _thumb_rows
    return [row for judgement in judgements for row in make(judgement)]


def write_export(path: Path, made: Sequence[Mapping[str, Any]], file_format: str) -> None:
    """Write rows by the path's suffix: CSV (prompt and answers as text, messages as JSON), JSON lines or JSON."""
    suffix = path.suffix.lower()
    if suffix not in EXPORT_SUFFIXES or (file_format == "labelstudio" and suffix != ".json"):
        allowed = ".json" if file_format == "labelstudio" else ", ".join(EXPORT_SUFFIXES)
        raise InputError(f"Can't write {file_format} to {path.name!r}: end the file's name in {allowed}.")
    if suffix == ".csv":
        flat = made if file_format == "raw" else [_flat_row(row) for row in made]
        records.write_csv(path, flat, EXPORT_COLUMNS[file_format])
    elif suffix == ".json":
        write_json(path, made)
    else:
        write_jsonl(path, made)


def _judgement_of_vote(
    vote: ForeignVote | LeftOut, training: TrainingQuestions, contract: str, annotator: str, path: Path
) -> ForeignVote | LeftOut:
    """Return a vote with the values of a judgement on its training question, or why it makes no judgement."""
    if isinstance(vote, LeftOut):
        return vote
    try:
        row = training.find(vote.values, contract)
        if _single_blanks(str(vote.values["answer_a"])) == _single_blanks(str(vote.values["answer_b"])):
            raise RowRefused("both answers are the same")
        who = vote.values["annotator"] or annotator or vote.values.get("named") or path.stem
        about = {"id": row["id"], "contract": row["contract"], "question": row["question"], "annotator": who}
        said = {name: value for name, value in vote.values.items() if name in FIELDS}
        return ForeignVote(vote.where, checked_judgement(said | about | {"source": f"import:{path.name}"}))
    except RowRefused as error:
        return LeftOut(vote.where, str(error), error.held_out)
    except InputError as error:
        return LeftOut(vote.where, f"no valid judgement: {error}")


_AnswersKey = tuple[str, frozenset[str]]


class _KnownJudgements:
    """Hold the judgements known so far: those in the store and those of earlier rows of the file."""

    def __init__(self, stored: Iterable[Mapping[str, Any]], current: Iterable[Mapping[str, Any]]) -> None:
        self._uids: set[str] = set()
        self._by_statement: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
        self._winners: dict[_AnswersKey, list[tuple[str, str, str]]] = defaultdict(list)  # (annotator, answer, place)
        self._named_systems: dict[_AnswersKey, list[dict[str, str]]] = defaultdict(list)  # of judgements in the store
        for judgement in stored:
            self._remember(judgement)
            named = _systems_by_answer(judgement)
            if any(named.values()) and named not in self._named_systems[_answers_key(judgement)]:
                self._named_systems[_answers_key(judgement)].append(named)
        for judgement in current:
            self._remember_winner(judgement, "the store")

    def is_new(self, vote: ForeignVote, report: ImportReport) -> bool:
        """Tell whether a vote has not been given before; note duplicates and contradictions in the report.

        A new vote that names no systems gets the systems that the store knows for these answers. Else annotators of the
        same two answers would seem to have judged different pairs.
        """
        judgement = vote.values
        same = self._by_statement[_statement(judgement)]
        if judgement["uid"] in self._uids or any(_adds_nothing(judgement, known) for known in same):
            report.duplicates.append(vote.where)
            return False
        pair, winner = _answers_key(judgement), _preferred_answer(judgement)
        for who, theirs, where in self._winners[pair] if winner else []:
            if theirs != winner:
                own = "; the later verdict counts" if who == judgement["annotator"] else ""
                report.contradictions.append(
                    f"{vote.where} ({judgement['annotator']}) prefers the other answer than {where} "
                    f"({who}) on {judgement['id']!r}{own}"
                )
        known = self._named_systems[pair]
        if len(known) == 1 and not any(_systems_by_answer(judgement).values()):
            judgement |= {f"system_{side}": known[0][_single_blanks(judgement[f"answer_{side}"])] for side in "ab"}
        self._remember(judgement)
        self._remember_winner(judgement, vote.where)
        return True

    def _remember(self, judgement: Mapping[str, Any]) -> None:
        self._uids.add(judgement["uid"])
        if judgement["revokes"] is None:
            self._by_statement[_statement(judgement)].append(judgement)

    def _remember_winner(self, judgement: Mapping[str, Any], where: str) -> None:
        if winner := _preferred_answer(judgement):
            self._winners[_answers_key(judgement)].append((judgement["annotator"], winner, where))


def _statement(judgement: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two equal judgements share: the annotator, the question, the answers and the verdict."""
    return judgement["annotator"], *_answers_key(judgement), _preferred_answer(judgement) or judgement["verdict"]


def _answers_key(judgement: Mapping[str, Any]) -> _AnswersKey:
    """Return the question's id and the two answers; unlike `records.pair_key` it leaves their systems aside."""
    return judgement["id"], frozenset(_single_blanks(judgement[f"answer_{side}"]) for side in "ab")


def _preferred_answer(judgement: Mapping[str, Any]) -> str:
    """Return "= " and the preferred answer, "" without a preference; the order of the two answers does not matter.

    A single thumb has a blank second answer. If it is down, the blank answer counts as preferred, so that thumbs up and
    thumbs down contradict each other.
    """
    thumb_down = judgement["verdict"] == "both_wrong" and not judgement["answer_b"].strip()
    side = "b" if thumb_down else judgement["verdict"]
    return f"= {_single_blanks(judgement[f'answer_{side}'])}" if side in ("a", "b") else ""


def _systems_by_answer(judgement: Mapping[str, Any]) -> dict[str, str]:
    return {_single_blanks(judgement[f"answer_{side}"]): judgement[f"system_{side}"] for side in "ab"}


def _adds_nothing(judgement: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Tell whether a judgement says no more than a known one with an equal `_statement`.

    It says more if it has another correction or span, or names another system. Many files name no systems and keep
    neither corrections nor spans: what is missing in one of the two judgements is no difference.
    """
    if any(judgement[name] not in (None, known[name]) for name in ("edited", "span")):
        return False
    systems, others = _systems_by_answer(judgement), _systems_by_answer(known)
    return all(name == others[answer] or not name or not others[answer] for answer, name in systems.items())


def _single_blanks(text: str) -> str:
    # Case counts here, unlike in `core.text.fold`: a correction may change nothing but the case.
    return " ".join(text.split())


def _listed_places(places: Sequence[str]) -> str:
    more = f" and {len(places) - ROWS_LISTED} more" if len(places) > ROWS_LISTED else ""
    return "; ".join(places[:ROWS_LISTED]) + more


def better_and_worse(judgement: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield (better, worse), each {"text", "system"}; without a preference nothing is yielded."""
    a, b = ({"text": judgement[f"answer_{side}"], "system": judgement[f"system_{side}"]} for side in "ab")
    edited = judgement["edited"] and {"text": judgement["edited"], "system": "corrected"}
    better, wrong = {"a": (a, [b]), "b": (b, [a]), "both_wrong": (None, [a, b])}.get(judgement["verdict"], (None, []))
    better = edited or better
    for worse in wrong if better else []:
        if worse["text"].strip() and better["text"] != worse["text"]:
            yield better, worse


def _pair_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of TRL's format for each answer that another answer was preferred to."""
    for better, worse in better_and_worse(judgement):
        verb = "corrected the answer" if better["system"] == "corrected" else "preferred it"
        yield (
            _about_row(judgement)
            | {
                "chosen": _as_messages(better["text"]),
                "rejected": _as_messages(worse["text"]),
                "source": "human",
                "reason": f"annotator {judgement['annotator']} {verb}",
                "system_chosen": better["system"],
                "system_rejected": worse["system"],
            }
            | {name: judgement[name] for name in _KEPT}
        )


def _thumb_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each answer that was called better or wrong; rows of one judgement have the same `pair`."""
    up = {better["text"]: better["system"] for better, _ in better_and_worse(judgement)}
    wrong = {"a": "b", "b": "a", "both_wrong": "ab"}.get(judgement["verdict"], "")
    if not up and judgement["verdict"] in ("a", "b"):  # a single thumb has no second answer
        up = {judgement[f"answer_{judgement['verdict']}"]: judgement[f"system_{judgement['verdict']}"]}
    down = {
        judgement[f"answer_{side}"]: judgement[f"system_{side}"]
        for side in wrong
        if judgement[f"answer_{side}"].strip()
    }
    pair = pair_key(judgement) if len(up) + len(down) > 1 else None
    for answers, label, verb in ((up, True, "preferred it"), (down, False, "found it worse or wrong")):
        for text, system in answers.items():
            yield (
                _about_row(judgement)
                | {
                    "completion": _as_messages(text),
                    "label": label,
                    "source": "human",
                    "system": system,
                    "reason": f"annotator {judgement['annotator']} {verb}",
                    "pair": pair,
                }
                | {name: judgement[name] for name in _KEPT}
            )


def _about_row(judgement: Mapping[str, Any]) -> dict[str, Any]:
    prompt = judgement["prompt"] or [{"role": "user", "content": judgement["question"]}]
    return {name: judgement[name] for name in ("id", "contract", "question")} | {"prompt": prompt}


def _as_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its messages as text; the column "messages" keeps a prompt that is more than the question."""
    answers = {name: row[name][0]["content"] for name in ANSWER_COLUMNS if name in row}
    prompt = "\n\n".join(message["content"] for message in row["prompt"])
    only_asks = len(row["prompt"]) == 1 and prompt == row["question"]
    return dict(row) | answers | {"prompt": prompt, "messages": None if only_asks else row["prompt"]}
