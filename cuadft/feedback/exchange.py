"""Human feedback in and out of a run's store: what an import took and refused, and exports for other programs.

    report = import_file("pairs.csv", "runs/quickstart", annotator="anna")
    print(report.text())
    counts = export_file("out.jsonl", "runs/quickstart")

An import finds the training question of every vote in a file (see `formats`) and stores the vote as a judgement. It
refuses held-out contracts and stores nothing twice. An export writes TRL's preference pairs as JSON lines; all that was
said stands in the store itself, which another run can import.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.files import write_jsonl
from cuadft.core.text import fold
from cuadft.feedback import formats
from cuadft.feedback.agreement import annotator_disagreements
from cuadft.feedback.formats import Vote
from cuadft.feedback.records import FIELDS, checked_judgement, pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused, TrainingQuestions

STORE_FILE = "feedback.sqlite"  # in a run folder
ROWS_LISTED = 20  # rows listed under each heading of a report
ABOUT = ("id", "contract", "question")  # fields of the judgement with which an exported pair begins
KEPT = ("annotator", "time", "seconds", "comment")  # and with which it ends


@dataclass(frozen=True)
class ImportReport:
    """Say what an import did.

    stored: number of votes stored. left_out: rows that make no judgement. duplicates: places of votes that were stored
    before. contradictions: the questions of pairs in this file on which annotators differ; notebook 06 shows how.
    guesses: how words and columns of another tool were taken.
    """

    file: str
    format: str
    stored: int
    left_out: list[Vote]
    duplicates: list[str]
    contradictions: list[str]
    guesses: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the report that the command prints: every count, and up to 20 rows under each heading."""
        refused = sum(vote.held_out for vote in self.left_out)
        rows = self.stored + len(self.left_out) + len(self.duplicates)
        counts = (
            f"{self.file} ({self.format}): {rows} rows, {self.stored} stored, {len(self.duplicates)} duplicates, "
            f"{refused} refused (held out), {len(self.left_out) - refused} left out, "
            f"{len(self.contradictions)} contradictions"
        )
        taken = [f"Taken as said: {'; '.join(self.guesses[:ROWS_LISTED])}"] if self.guesses else []
        headings: dict[str, list[str]] = defaultdict(list)
        for vote in self.left_out:
            headings[f"{'Refused' if vote.held_out else 'Left out'}: {vote.reason}"].append(vote.where)
        headings |= {"Duplicates, not stored again": self.duplicates, "Contradictions": self.contradictions}
        named = {name: "; ".join(found[:ROWS_LISTED]) for name, found in headings.items() if found}
        listed = [f"{name} ({len(headings[name])}): {places}" for name, places in named.items()]
        return "\n".join([counts, *taken, *listed])


def import_file(
    path: str | Path,
    run: str | Path,
    *,
    annotator: str = "",
    contract: str = "",
    verdict: str = "",
    means: Sequence[str] = (),
) -> ImportReport:
    """Store a file's votes on training questions in the run's feedback.sqlite; on an error nothing is stored.

    annotator, contract: of rows that name none; without an annotator the file's name stands there, and "expert" in the
    AWS sample's files. verdict: the column or control that says which answer is better. means: what its words mean, as
    in "Antwort 1=a", with a verdict of `records.VERDICTS`. A vote that the annotator has given already on these two
    answers is not stored again. Contradictory votes are stored and reported; an annotator's latest vote counts. Raises
    InputError for a file or run that can't be read.
    """
    path, run = Path(path), runs.resolve_path(run)
    found_format, votes = formats.read_votes(path, verdict=verdict, means=means)
    training = TrainingQuestions(run)
    votes = [vote if vote.reason else _with_question(vote, training, contract, annotator, path) for vote in votes]
    store = Store(run / STORE_FILE)
    stored = store.judgements(current=False)
    known = {key for judgement in stored for key in (*_sayings(judgement), *map(_saying_of_pair, pair_rows(judgement)))}
    new, duplicates = [], []
    for vote in [vote for vote in votes if not vote.reason]:
        if _sayings(vote.values)[0] in known:
            duplicates.append(vote.where)
        else:
            new.append(vote.values)
            known |= set(_sayings(vote.values))
    store.add_many(new)
    left_out = [vote for vote in votes if vote.reason]
    guesses = list(dict.fromkeys(guess for vote in votes for guess in vote.guesses))
    differ = annotator_disagreements(store.judgements())
    contradictions = differ.loc[differ["pair"].isin(set(map(pair_key, new))), "id"].tolist()
    return ImportReport(path.name, found_format, len(new), left_out, duplicates, contradictions, guesses)


def _with_question(vote: Vote, training: TrainingQuestions, contract: str, annotator: str, path: Path) -> Vote:
    """Return a vote with the values of a judgement on its training question, or with the reason why it makes none."""
    try:
        row = training.find(vote.values, contract)
        if fold(vote.values["answer_a"]) == fold(vote.values["answer_b"]):
            raise RowRefused("both answers are the same")
        who = vote.values["annotator"] or annotator or path.stem
        said = {name: value for name, value in vote.values.items() if name in FIELDS}
        said |= {name: row[name] for name in ABOUT} | {"annotator": who, "source": f"import:{path.name}"}
        return Vote(vote.where, checked_judgement(said), guesses=vote.guesses)
    except RowRefused as error:
        return Vote(vote.where, {}, str(error), error.held_out)
    except InputError as error:
        return Vote(vote.where, {}, f"no valid judgement: {error}")


def _sayings(judgement: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return what a judgement says, and the same without its correction and span, which many files do not keep."""
    verdict = judgement["verdict"]  # as the preferred answer, for the order of the two answers does not matter
    preferred = f"= {fold(judgement[f'answer_{verdict}'])}" if verdict in ("a", "b") else verdict
    said = (judgement["annotator"], pair_key(judgement), preferred)
    return [(*said, judgement["edited"], str(judgement["span"])), (*said, None, "None")]


def _saying_of_pair(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what an exported pair says when it comes back, such as a correction before the answer that was wrong."""
    answers = {f"answer_{side}": row[name][0]["content"] for side, name in (("a", "chosen"), ("b", "rejected"))}
    return _sayings({**row, **answers, "verdict": "a", "edited": None, "span": None})[0]


def export_file(path: str | Path, run: str | Path) -> Counter[str]:
    """Write the judgements of a run that count now as TRL's preference pairs, to a file of JSON lines; return counts.

    The counts are "judgements", "rows" and "without a preference"; contradictory judgements are written, too. Raises
    InputError where there is no feedback and for a name that does not end in .jsonl.
    """
    path, store = Path(path), Store(runs.resolve_path(run) / STORE_FILE)
    if path.suffix.lower() != ".jsonl":
        raise InputError(f"Can't write JSON lines to {path.name!r}: end the file's name in .jsonl.")
    made = [list(pair_rows(judgement)) for judgement in store.judgements()]
    if not made:
        raise InputError(f"There is no feedback in {store.path}: import some, or judge answers in notebook 06.")
    rows = [row for pairs in made for row in pairs]
    write_jsonl(path, rows)
    return Counter({"judgements": len(made), "rows": len(rows), "without a preference": made.count([])})


def pair_rows(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of TRL's format for each answer that another answer was preferred to.

    A corrected answer takes the winner's place and is preferred to each wrong answer. The prompt is the messages that
    were sent, where they are known, else the question.
    """
    sides = {side: (judgement[f"answer_{side}"], judgement[f"system_{side}"]) for side in "ab"}
    wrong = {"a": "b", "b": "a", "both_wrong": "ab"}.get(judgement["verdict"], "")
    better = (judgement["edited"], "corrected") if wrong and judgement["edited"] else sides.get(judgement["verdict"])
    for answer, system in [sides[side] for side in wrong] if better else []:
        if answer.strip() and answer != better[0]:  # a single thumb has no second answer
            prompt = judgement["prompt"] or [{"role": "user", "content": judgement["question"]}]
            yield {name: judgement[name] for name in ABOUT} | {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": better[0]}],
                "rejected": [{"role": "assistant", "content": answer}],
                "reason": f"annotator {judgement['annotator']} preferred it",
                "system_chosen": better[1],
                "system_rejected": system,
                "source": "human",
                **{name: judgement[name] for name in KEPT},
            }
