"""Human feedback in and out of a run's store: what an import took, refused and found twice, and exports for others.

    done = exchange.import_file("pairs.csv", "runs/quickstart", annotator="anna")
    print(done.text())
    exchange.export_file("out.jsonl", "runs/quickstart")

Judgements as rows for others: TRL's preference pairs, unpaired thumbs for KTO, or all that was said.
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
from cuadft.feedback.records import FIELDS, Refused, checked_judgement, pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import TrainingRows

SHOWN = 20  # rows listed under each heading of a report
STORE = "feedback.sqlite"  # in a run folder


@dataclass
class Imported:
    """Say what an import did: counts, and sentences that name the rows."""

    file: str
    format: str
    rows: int  # rows of the file that say something, an annotator's verdict each
    stored: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the report that the command prints: every count, and up to 20 rows under each heading."""
        refused = [one for one in self.left_out if one.held_out]
        others = [one for one in self.left_out if not one.held_out]
        lines = [
            f"{self.file} ({self.format}): {self.rows} rows, {self.stored} stored, {len(self.duplicates)} duplicates, "
            f"{len(refused)} refused (held out), {len(others)} left out, {len(self.contradictions)} contradictions"
        ]
        for heading, found in (("Refused", refused), ("Left out", others)):
            by_reason: dict[str, list[str]] = defaultdict(list)
            for one in found:
                by_reason[one.reason].append(one.where)
            lines += [f"{heading}, {len(at)}: {reason} ({_listed(at)})" for reason, at in by_reason.items()]
        lines += [f"Duplicates, not stored again: {_listed(self.duplicates)}"] if self.duplicates else []
        lines += [f"Contradiction: {one}" for one in self.contradictions[:SHOWN]]
        lines += (
            [f"… and {len(self.contradictions) - SHOWN} more contradictions"]
            if len(self.contradictions) > SHOWN
            else []
        )
        return "\n".join(lines)


def import_file(
    path: str | Path, run: str | Path, *, file_format: str = "auto", annotator: str = "", contract: str = ""
) -> Imported:
    """Store a file's verdicts on training questions in the run's feedback.sqlite, all of them or, on an error, none.

    `annotator` and `contract` are those of rows that name none; without `annotator` these are by the file's name, and
    the AWS sample's references by "expert". A verdict that the annotator has given already on these two answers is not
    stored again. Contradictory ones are stored and reported; of an annotator's own the latest counts. Raises InputError
    for a file or run that can't be read and for an unknown format or contract.
    """
    path, run = Path(path), runs.resolve_path(run)
    found_format, votes = formats.read_votes(path, file_format)
    training = TrainingRows(run)
    title = training.known_title(contract) if contract else ""
    done = Imported(path.name, found_format, len(votes))
    judged = [_judgement(vote, training, title, annotator, path) for vote in votes]
    done.left_out = [one for one in judged if isinstance(one, LeftOut)]
    store = Store(run / STORE)
    seen = _Seen(store.judgements(current=False), store.judgements())
    new = [one.values for one in judged if isinstance(one, ForeignVote) and seen.is_new(one, done)]
    store.add_many(new)
    done.stored = len(new)
    return done


def export_file(path: str | Path, run: str | Path, *, file_format: str = "auto") -> Counter[str]:
    """Write what holds of the run's feedback to a file; returns counts: judgements, rows, without a preference.

    All verdicts are written; a fourth count says on how many pairs of answers, if on any, they contradict each other.
    Formats as in `exports.rows`; "auto" is "trl". Raises InputError where there is no feedback, or for a name that
    does not end in .csv, .jsonl or .json (Label Studio's tasks: .json only).
    """
    if file_format not in FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(FORMATS)}.")
    path, store = Path(path), Store(runs.resolve_path(run) / STORE)
    judgements = store.judgements()
    if not judgements:
        raise InputError(f"There is no feedback in {store.path}: import some, or judge answers in notebook 06.")
    file_format = "trl" if file_format == "auto" else file_format
    made = [export_rows([judgement], file_format) for judgement in judgements]
    rows = export_rows(judgements, file_format)
    write_export(path, rows, file_format)
    winners: dict[Any, set[str]] = defaultdict(set)
    for judgement in judgements:
        winners[_pair(judgement)].add(_winner(judgement))
    opposed = sum(len(preferred - {""}) > 1 for preferred in winners.values())
    counts = Counter({"judgements": len(judgements), "rows": len(rows), "without a preference": made.count([])})
    if opposed:
        counts["pairs with contradictory verdicts"] = opposed
    return counts


def _judgement(
    vote: ForeignVote | LeftOut, training: TrainingRows, contract: str, annotator: str, path: Path
) -> ForeignVote | LeftOut:
    """Return a vote as a judgement on its training question, or why it is none."""
    if isinstance(vote, LeftOut):
        return vote
    try:
        row = training.find(vote.values, contract)
        if _fold(str(vote.values["answer_a"])) == _fold(str(vote.values["answer_b"])):
            raise Refused("both answers are the same")
        who = vote.values["annotator"] or annotator or vote.values.get("named") or path.stem
        about = {"id": row["id"], "contract": row["contract"], "question": row["question"], "annotator": who}
        said = {name: value for name, value in vote.values.items() if name in FIELDS}
        return ForeignVote(vote.where, checked_judgement(said | about | {"source": f"import:{path.name}"}))
    except Refused as error:
        return LeftOut(vote.where, str(error), error.held_out)
    except InputError as error:
        return LeftOut(vote.where, f"no valid judgement: {error}")


class _Seen:
    """What has been said so far, in the store and above in the file."""

    def __init__(self, ever: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> None:
        self._uids: set[str] = set()
        self._said: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
        self._winners: dict[tuple[str, frozenset[str]], list[tuple[str, str, str]]] = defaultdict(list)
        self._systems: dict[tuple[str, frozenset[str]], list[dict[str, str]]] = defaultdict(list)  # in the store
        for judgement in ever:
            self._keep(judgement)
            named = _systems(judgement)
            if any(named.values()) and named not in self._systems[_pair(judgement)]:
                self._systems[_pair(judgement)].append(named)
        for judgement in now:
            self._win(judgement, "the store")

    def is_new(self, vote: ForeignVote, done: Imported) -> bool:
        """Tell whether a vote has not been given before; notes duplicates and contradictions in `done`.

        A new vote that names no systems gets those that the store knows, so that annotators are seen to judge one pair.
        """
        judgement = vote.values
        if judgement["uid"] in self._uids or any(_adds_nothing(judgement, to) for to in self._said[_said(judgement)]):
            done.duplicates.append(vote.where)
            return False
        pair, winner = _pair(judgement), _winner(judgement)
        for who, theirs, where in self._winners[pair] if winner else []:
            if theirs != winner:
                own = "; the later verdict counts" if who == judgement["annotator"] else ""
                done.contradictions.append(
                    f"{vote.where} ({judgement['annotator']}) prefers the other answer than {where} "
                    f"({who}) on {judgement['id']!r}{own}"
                )
        known = self._systems[pair]
        if len(known) == 1 and not any(_systems(judgement).values()):
            judgement |= {f"system_{side}": known[0][_fold(judgement[f"answer_{side}"])] for side in "ab"}
        self._keep(judgement)
        self._win(judgement, vote.where)
        return True

    def _keep(self, judgement: Mapping[str, Any]) -> None:
        self._uids.add(judgement["uid"])
        if judgement["revokes"] is None:
            self._said[_said(judgement)].append(judgement)

    def _win(self, judgement: Mapping[str, Any], where: str) -> None:
        if winner := _winner(judgement):
            self._winners[_pair(judgement)].append((judgement["annotator"], winner, where))


def _said(judgement: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes two judgements one: who, which answers, and the verdict on them."""
    return judgement["annotator"], *_pair(judgement), _winner(judgement) or judgement["verdict"]


def _pair(judgement: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    return judgement["id"], frozenset(_fold(judgement[f"answer_{side}"]) for side in "ab")


def _winner(judgement: Mapping[str, Any]) -> str:
    """Return the preferred answer, "" if none is; verdicts can be compared by it whatever the order of the answers.

    Against a single thumb down, which has a blank second answer, the blank one is preferred: the opposite of thumbs up.
    """
    single = judgement["verdict"] == "both_wrong" and not judgement["answer_b"].strip()
    side = "b" if single else judgement["verdict"]
    return f"= {_fold(judgement[f'answer_{side}'])}" if side in ("a", "b") else ""


def _systems(judgement: Mapping[str, Any]) -> dict[str, str]:
    return {_fold(judgement[f"answer_{side}"]): judgement[f"system_{side}"] for side in "ab"}


def _adds_nothing(judgement: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Tell whether a judgement of equal `_said` has no other correction and span, and can mean the same systems.

    Many files name no systems and keep neither corrections nor spans: these take nothing of what is known.
    """
    systems, others = _systems(judgement), _systems(known)
    more = any(judgement[name] not in (None, known[name]) for name in ("edited", "span"))
    return not more and all(
        name == others[answer] or not name or not others[answer] for answer, name in systems.items()
    )


def _fold(text: str) -> str:
    return " ".join(text.split())


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return "; ".join(places[:SHOWN]) + more


FORMATS = ("auto", "trl", "kto", "labelstudio", "raw")
SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
ANSWERS = ("chosen", "rejected", "completion")
_SAID = ("annotator", "time", "seconds", "comment")
_ABOUT = ("id", "contract", "question", "prompt")
COLUMNS = {
    "trl": (*_ABOUT, "chosen", "rejected", "source", "reason", "system_chosen", "system_rejected", *_SAID, "messages"),
    "kto": (*_ABOUT, "completion", "label", "source", "reason", "system", "pair", *_SAID, "messages"),
    "raw": FIELDS,
}


def export_rows(judgements: Sequence[Mapping[str, Any]], file_format: str) -> list[dict[str, Any]]:
    """Return judgements in a format: "trl" and "kto" hold those with a preference, "raw" and "labelstudio" all.

    A corrected answer is preferred to each wrong one in place of the winner. Prompts are the messages that were sent,
    where they are known, else the question.
    """
    if file_format == "labelstudio":
        return labelstudio.labelstudio_tasks(judgements)
    if file_format == "raw":
        return [{name: judgement[name] for name in FIELDS} for judgement in judgements]
    make = _pairs if file_format == "trl" else _thumbs
    return [row for judgement in judgements for row in make(judgement)]


def write_export(path: Path, made: Sequence[Mapping[str, Any]], file_format: str) -> None:
    """Write rows by the path's suffix: CSV (prompt and answers as text, messages as JSON), JSON lines or a JSON list."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or (file_format == "labelstudio" and suffix != ".json"):
        allowed = ".json" if file_format == "labelstudio" else ", ".join(SUFFIXES)
        raise InputError(f"Can't write {file_format} to {path.name!r}: end the file's name in {allowed}.")
    if suffix == ".csv":
        records.write_csv(path, [_flat(row) for row in made] if file_format != "raw" else made, COLUMNS[file_format])
    else:
        (write_json if suffix == ".json" else write_jsonl)(path, made)


def export_sides(judgement: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield (better, worse), each {"text", "system"}; nothing for a tie, a skipped pair and both wrong without correction."""
    a, b = ({"text": judgement[f"answer_{side}"], "system": judgement[f"system_{side}"]} for side in "ab")
    edited = judgement["edited"] and {"text": judgement["edited"], "system": "corrected"}
    better, wrong = {"a": (a, [b]), "b": (b, [a]), "both_wrong": (None, [a, b])}.get(judgement["verdict"], (None, []))
    better = edited or better
    for worse in wrong if better else []:
        if worse["text"].strip() and better["text"] != worse["text"]:
            yield better, worse


def _pairs(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for better, worse in export_sides(judgement):
        verb = "corrected the answer" if better["system"] == "corrected" else "preferred it"
        yield (
            _about(judgement)
            | {
                "chosen": _all_said(better["text"]),
                "rejected": _all_said(worse["text"]),
                "source": "human",
                "reason": f"annotator {judgement['annotator']} {verb}",
                "system_chosen": better["system"],
                "system_rejected": worse["system"],
            }
            | {name: judgement[name] for name in _SAID}
        )


def _thumbs(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a thumb for each answer that was called better or wrong; `pair` joins the two of one verdict."""
    up = {better["text"]: better["system"] for better, _ in export_sides(judgement)}
    wrong = {"a": "b", "b": "a", "both_wrong": "ab"}.get(judgement["verdict"], "")
    if not up and judgement["verdict"] in ("a", "b"):  # a single thumb has no second answer
        up = {judgement[f"answer_{judgement['verdict']}"]: judgement[f"system_{judgement['verdict']}"]}
    down = {
        judgement[f"answer_{side}"]: judgement[f"system_{side}"]
        for side in wrong
        if judgement[f"answer_{side}"].strip()
    }
    for said, label in ((up, True), (down, False)):
        for text, system in said.items():
            yield (
                _about(judgement)
                | {
                    "completion": _all_said(text),
                    "label": label,
                    "source": "human",
                    "system": system,
                    "reason": f"annotator {judgement['annotator']} {'preferred it' if label else 'found it worse or wrong'}",
                    "pair": pair_key(judgement) if len(up) + len(down) > 1 else None,
                }
                | {name: judgement[name] for name in _SAID}
            )


def _about(judgement: Mapping[str, Any]) -> dict[str, Any]:
    prompt = judgement["prompt"] or [{"role": "user", "content": judgement["question"]}]
    return {name: judgement[name] for name in _ABOUT[:3]} | {"prompt": prompt}


def _all_said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its messages as text; those of the prompt are kept beside it where they are more than a question."""
    answers = {name: row[name][0]["content"] for name in ANSWERS if name in row}
    known = len(row["prompt"]) > 1 or row["prompt"][0]["content"] != row["question"]
    return (
        dict(row)
        | answers
        | {"prompt": "\n\n".join(m["content"] for m in row["prompt"]), "messages": row["prompt"] if known else None}
    )
