"""Human feedback in and out of a run's store: what an import took, refused and found twice, and exports for others.

    done = exchange.import_file("pairs.csv", "runs/quickstart", annotator="anna")
    print(done.text())
    exchange.export_file("out.jsonl", "runs/quickstart")
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuadft import exports, foreign_votes, runs
from cuadft.cells import Refused
from cuadft.errors import InputError
from cuadft.feedback import Store
from cuadft.foreign_votes import LeftOut, Vote
from cuadft.judgements import FIELDS, checked
from cuadft.training_rows import TrainingRows

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
        lines = [f"{self.file} ({self.format}): {self.rows} rows, {self.stored} stored, {len(self.duplicates)} duplicates, "
                 f"{len(refused)} refused (held out), {len(others)} left out, {len(self.contradictions)} contradictions"]
        for heading, found in (("Refused", refused), ("Left out", others)):
            by_reason: dict[str, list[str]] = defaultdict(list)
            for one in found:
                by_reason[one.reason].append(one.where)
            lines += [f"{heading}, {len(at)}: {reason} ({_listed(at)})" for reason, at in by_reason.items()]
        lines += [f"Duplicates, not stored again: {_listed(self.duplicates)}"] if self.duplicates else []
        lines += [f"Contradiction: {one}" for one in self.contradictions[:SHOWN]]
        lines += [f"… and {len(self.contradictions) - SHOWN} more contradictions"] if len(self.contradictions) > SHOWN else []
        return "\n".join(lines)


def import_file(path: str | Path, run: str | Path, *, file_format: str = "auto", annotator: str = "",
                contract: str = "") -> Imported:
    """Store a file's verdicts on training questions in the run's feedback.sqlite, all of them or, on an error, none.

    `annotator` and `contract` are those of rows that name none; without `annotator` these are by the file's name, and
    the AWS sample's references by "expert". A verdict that the annotator has given already on these two answers is not
    stored again. Contradictory ones are stored and reported; of an annotator's own the latest counts. Raises InputError
    for a file or run that can't be read and for an unknown format or contract.
    """
    path, run = Path(path), runs.resolve(run)
    found_format, votes = foreign_votes.read(path, file_format)
    training = TrainingRows(run)
    title = training.known_title(contract) if contract else ""
    done = Imported(path.name, found_format, len(votes))
    judged = [_judgement(vote, training, title, annotator, path) for vote in votes]
    done.left_out = [one for one in judged if isinstance(one, LeftOut)]
    store = Store(run / STORE)
    seen = _Seen(store.judgements(current=False), store.judgements())
    new = [one.values for one in judged if isinstance(one, Vote) and seen.is_new(one, done)]
    store.add_many(new)
    done.stored = len(new)
    return done


def export_file(path: str | Path, run: str | Path, *, file_format: str = "auto") -> Counter[str]:
    """Write what holds of the run's feedback to a file; returns counts: judgements, rows, without a preference.

    All verdicts are written; a fourth count says on how many pairs of answers, if on any, they contradict each other.
    Formats as in `exports.rows`; "auto" is "trl". Raises InputError where there is no feedback, or for a name that
    does not end in .csv, .jsonl or .json (Label Studio's tasks: .json only).
    """
    if file_format not in exports.FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(exports.FORMATS)}.")
    path, store = Path(path), Store(runs.resolve(run) / STORE)
    judgements = store.judgements()
    if not judgements:
        raise InputError(f"There is no feedback in {store.path}: import some, or judge answers in notebook 06.")
    file_format = "trl" if file_format == "auto" else file_format
    made = [exports.rows([judgement], file_format) for judgement in judgements]
    rows = exports.rows(judgements, file_format)
    exports.write(path, rows, file_format)
    winners: dict[Any, set[str]] = defaultdict(set)
    for judgement in judgements:
        winners[_pair(judgement)].add(_winner(judgement))
    opposed = sum(len(preferred - {""}) > 1 for preferred in winners.values())
    counts = Counter({"judgements": len(judgements), "rows": len(rows), "without a preference": made.count([])})
    if opposed:
        counts["pairs with contradictory verdicts"] = opposed
    return counts


def _judgement(vote: Vote | LeftOut, training: TrainingRows, contract: str, annotator: str, path: Path) -> Vote | LeftOut:
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
        return Vote(vote.where, checked(said | about | {"source": f"import:{path.name}"}))
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

    def is_new(self, vote: Vote, done: Imported) -> bool:
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
                done.contradictions.append(f"{vote.where} ({judgement['annotator']}) prefers the other answer than {where} "
                                           f"({who}) on {judgement['id']!r}{own}")  # fmt: skip
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
    return not more and all(name == others[answer] or not name or not others[answer] for answer, name in systems.items())


def _fold(text: str) -> str:
    return " ".join(text.split())


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return "; ".join(places[:SHOWN]) + more
