"""Corrections of reviews: a review.csv that a person has edited becomes feedback and rows to learn from.

    if is_review(path):
        print(import_corrections(path, "runs/quickstart", annotator="anna").text())

A row counts as checked if its `verdict` is right or wrong, if its `correction` holds words of the contract (or says
that there is no such clause), or if its `quote` was changed. A question counts as checked if one of its rows does; the
quotes of its other rows stand if the review was sure of them (LIKELY). A row without an id that names contract and
category adds a quote. A question on a contract that is new to the run becomes a row of the run's corrections.jsonl,
see `data.corrections`. Where the person's answer differs from the system's, both are stored as a judgement in the
run's feedback.sqlite.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.core.text import fold, fold_letters, fold_name, of_cell
from cuadft.data import rows
from cuadft.data.contracts import titled
from cuadft.data.corrections import CORRECTIONS, corrections_of
from cuadft.data.passages import locate_words, merge_spans
from cuadft.data.schema import NO_CATEGORY, naming, newest_schema
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.text_scores import NO_CLAUSE, is_refusal
from cuadft.feedback.exchange import STORE_FILE
from cuadft.feedback.records import checked_judgement
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import HELD_OUT, RowRefused, TrainingQuestions

NEEDED = {"id", "quote", "verdict", "correction"}  # columns that tell a review.csv from other tables
RIGHT, WRONG = {"right", "ok", "yes", "true", "correct", "1"}, {"wrong", "no", "false", "incorrect", "0"}
LIKELY = 0.5  # probability of a sure finding's quote; from it on a quote stands that nobody touched
NEAR = 3000  # characters around a quote in which its correction is looked for first
ROWS_LISTED = 20  # under each heading of a report
_ID = re.compile(r"([0-9a-f]{16}):(\d+):(\d+)")
_Asked = tuple[str, int]  # the key of a review and the number of a question


@dataclass
class CorrectionReport:
    """What an import did: numbers of rows learned from and of judgements stored, and rows that gave nothing, and why.

    left_out: reason -> places. duplicates: places of questions that were imported before. contracts: titles.
    """

    file: str
    rows: int = 0
    judgements: int = 0
    refused: int = 0
    contracts: set[str] = field(default_factory=set)
    duplicates: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def text(self) -> str:
        """Return what the command prints."""
        counts = (
            f"{self.file} (review): {count_of(self.rows, 'question')} to learn from on "
            f"{count_of(len(self.contracts), 'contract')}, {count_of(self.judgements, 'judgement')} stored, "
            f"{len(self.duplicates)} duplicates, {self.refused} refused (held out), "
            f"{sum(map(len, self.left_out.values())) - self.refused} left out"
        )
        headings = self.left_out | {"Imported before": self.duplicates}
        lines = [f"{why} ({len(found)}): {'; '.join(found[:ROWS_LISTED])}" for why, found in headings.items() if found]
        learned = ["The next iteration learns from them (source feedback)."] if self.rows else []
        return "\n".join([counts, *lines, *learned])


def is_review(path: str | Path) -> bool:
    """Tell whether a file is a table with the columns of a review.csv."""
    with suppress(InputError):
        if Path(path).suffix.lower() in (".csv", ".tsv", ".txt"):
            return set(map(fold_name, files.read_table(path)[0].values)) >= NEEDED
    return False


def import_corrections(path: str | Path, run: str | Path, *, annotator: str = "") -> CorrectionReport:
    """Take the corrections of a review.csv into a run; on an error nothing is stored.

    The reviews themselves are looked for beside the file (review.jsonl, finished/) and in the run's reviews/. Nothing
    is stored twice. Raises InputError for a file or run that can't be read, and if no row's review is found.
    """
    path, run, who = Path(path), runs.resolve_path(run), annotator or "reviewer"
    if not (run / "contracts.jsonl").is_file():
        raise InputError(f"No run in {run} (no contracts.jsonl): name a run folder, as runs/quickstart.")
    table = [TableRow(f"row {n}", cells) for n, row in enumerate(files.read_table(path), 1) if (cells := _cells(row))]
    report, reviews = CorrectionReport(path.name), _reviews_of(table, path, run)
    records = rows.contract_records(run)
    lines: dict[str, dict[str, Any]] = {}
    said = []
    for (key, number), own in _by_question(table, reviews, report).items():
        review, place = reviews[key], ", ".join(row.where for row in own)
        finding = review["findings"][number]
        try:
            spans = _checked_spans(finding, own, review)
            if spans is None:
                continue
            line = lines.get(key) or _contract_line(review["document"], run, records)
            row = _row(line, finding, spans, run)
        except RowRefused as error:
            report.left_out[str(error)].append(place)
            report.refused += error.held_out
            continue
        if row["source"] == rows.FEEDBACK:
            lines[key] = line
            line["rows"].append(row | {"where": place})
        said += _judgement(row, finding, review, who, path.name, own)
    _store(run, lines, said, report)
    return report


def _cells(row: TableRow) -> dict[str, str]:
    """Return the cells of a row by their folded names; {} for an empty row."""
    cells = {fold_name(name): of_cell(str(value or "")) for name, value in row.values.items()}
    return cells if any(cells.values()) else {}


# Find the reviews.


def _reviews_of(table: Sequence[TableRow], path: Path, run: Path) -> dict[str, dict[str, Any]]:
    """Return the reviews that the rows name, by key; raises InputError if none of them is found."""
    keys = {found[1] for row in table if (found := _ID.fullmatch(row.values["id"]))}
    beside = path.parent / "review.jsonl"
    known = {each.get("key"): each for each in (files.read_jsonl(beside, torn_ok=True) if beside.is_file() else ())}
    for key in keys - known.keys():
        places = [path.parent / "finished" / f"{key}.json", *sorted(run.glob(f"reviews/*/finished/{key}.json"))]
        if there := [place for place in places if place.is_file()]:
            known[key] = files.read_json(there[0])
    found = {key: known[key] for key in keys & known.keys()}
    if not found:
        raise InputError(
            f"{path} names no review that is known: put it beside its review.jsonl, where `cuadft review` wrote both."
        )
    return found


def _by_question(
    table: Sequence[TableRow], reviews: Mapping[str, Mapping[str, Any]], report: CorrectionReport
) -> dict[_Asked, list[TableRow]]:
    """Return the rows of each question; rows whose question is not found are left out."""
    asked: dict[_Asked, list[TableRow]] = defaultdict(list)
    for row in table:
        found = _ID.fullmatch(row.values["id"])
        if found and found[1] in reviews and int(found[2]) < len(reviews[found[1]]["findings"]):
            asked[found[1], int(found[2])].append(row)
            continue
        title, names = fold(row.values.get("contract", "")), {fold(row.values.get("category", "")), ""}
        names.add(fold(row.values.get("question", "")))
        fits = [
            (key, n)
            for key, review in reviews.items()
            for n, each in enumerate(review["findings"])
            if fold(review["document"]["name"]) == title and {fold(each["category"]), fold(each["question"])} & names
        ]
        if found or len(fits) != 1:
            why = "Its review is not known" if found else "Without an id, it needs contract and category as they stand"
            report.left_out[why].append(row.where)
        else:
            asked[fits[0]].append(row)
    return asked


# What a person said.


def _naming(review: Mapping[str, Any]) -> dict[str, str]:
    """Return the words of a review's record; one from before there were others has a contract's."""
    return naming(review.get("document_name", "contract"), review.get("clause_name", "clause"))


def _checked_spans(
    finding: Mapping[str, Any], own: Sequence[TableRow], review: Mapping[str, Any]
) -> list[tuple[int, int]] | None:
    """Return the spans that answer a question as the person says, [] if nothing does, None if nobody checked it.

    Raises RowRefused for words that the contract does not hold, and for a verdict that can't be understood.
    """
    checked, left, text, words_of = False, [], review["document"]["text"], _naming(review)
    spans: list[tuple[int, int]] = []
    for row in own:
        found = _ID.fullmatch(row.values["id"])
        quote = dict(enumerate(finding["quotes"])).get(int(found[3])) if found else None
        place = [(quote["start"], quote["end"])] if quote and quote["start"] is not None else []
        words, verdict = _words_instead(row, quote), fold(row.values["verdict"])
        if verdict and verdict not in RIGHT | WRONG:
            raise RowRefused(f"Verdict {verdict[:20]!r} is neither right nor wrong")
        if verdict in WRONG and not words and quote is None:
            raise RowRefused("Where {a_clause} was missed, the correction must hold its words".format(**words_of))
        checked = checked or bool(words or verdict)
        if words:
            none = is_refusal(words) or fold_letters(words) == fold_letters(f"no such {words_of['clause']}")
            spans += [] if none else _located(words, text, place)
        elif verdict in RIGHT:
            spans += place
        elif not verdict and quote and finding["state"] == "sure" and (quote["p"] or 0) >= LIKELY:
            left += place
    return merge_spans(spans + left) if checked else None


def _words_instead(row: TableRow, quote: Mapping[str, Any] | None) -> str:
    """Return the words that a person put in a quote's place, "" if the quote stands."""
    if row.values["correction"]:
        return row.values["correction"]
    now, before = row.values["quote"], quote["text"] if quote else ""
    if fold(now) == fold(of_cell(before)) or (quote is None and is_refusal(now)):
        return ""
    return now or NO_CLAUSE


def _located(words: str, text: str, near: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where words stand in a contract, near a place if they do; lines that stand apart are several spans."""
    windows = [(max(0, start - NEAR), end + NEAR) for start, end in near] + [(0, len(text))]
    for parts in ([words], [line for line in words.splitlines() if line.strip()]):
        places = [next(filter(None, (locate_words(part, text, *window) for window in windows)), []) for part in parts]
        if all(places):
            return [(start, end) for start, end in places]
    raise RowRefused("Its words do not stand in the contract (a spreadsheet may have changed a date or a number)")


# What follows from it.


def _contract_line(document: Mapping[str, Any], run: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a document as a contract's line, "rows" empty; that of the run's own contract has its split.

    Raises RowRefused for a held-out contract, and for one that shares text or filer with one.
    """
    name, text = document["name"], document["text"]
    same = next((r for r in records if r["text"] == text), None)
    if same:
        if same["split"] in rows.HELD_OUT:
            raise RowRefused(f"Refused: {HELD_OUT}", held_out=True)
        return {**same, "rows": []}
    lines = corrections_of(run)
    titles = {fold(each["title"]) for each in [*records, *lines] if each["text"] != text}
    before = [each["title"] for each in lines if each["text"] == text]
    title = [*before, f"{name} ({files.value_hash(text)[:8]})" if fold(name) in titles else name][0]
    contract = replace(titled(name, text, newest_schema(run)), title=title)
    if rows.held_out_relatives([contract], records):
        raise RowRefused("Refused: it shares text or filer with a held-out contract", held_out=True)
    return contract.record(group=-1, split=rows.PLAIN) | {"rows": []}


def _row(line: Mapping[str, Any], finding: Mapping[str, Any], spans: Sequence[tuple[int, int]], run: Path) -> dict:
    """Return the row of a corrected question; of an annotated training contract, the row that the run has already."""
    question, category = finding["question"], newest_schema(run).match(finding["category"]) or NO_CATEGORY
    if line["split"] != rows.PLAIN and "corrected" not in line:
        known = TrainingQuestions(run).find({"contract": line["title"], "question": question})
        return known | {"answers": [{"text": line["text"][s:e], "start": s} for s, e in spans]}
    name = category if category != NO_CATEGORY else f"question {files.value_hash(question)[:8]}"
    answers = [{"text": line["text"][start:end], "start": start} for start, end in spans]
    about = {"id": f"{line['title']}__{name}", "contract": line["title"], "contract_type": line["contract_type"]}
    about |= {"category": category, "question": question, "answers": answers, "is_impossible": not answers}
    return about | {"source": rows.FEEDBACK}


def _judgement(
    row: Mapping[str, Any],
    finding: Mapping[str, Any],
    review: Mapping[str, Any],
    who: str,
    file: str,
    own: Sequence[TableRow],
) -> list[dict[str, Any]]:
    """Return the judgement that prefers the person's answer to the system's, none where both are the same."""
    answers = [quote["text"] for quote in finding["quotes"] if quote["answer"]]
    refusal = _naming(review)["refusal"]
    theirs = answers[0] if answers else refusal
    spans = [(span["start"], span["start"] + len(span["text"])) for span in row["answers"]]
    ours = " ".join(row["answers"][0]["text"].split()) if spans else refusal
    if fold(theirs) in {fold(span["text"]) for span in row["answers"]} | {fold(ours)}:
        return []
    said = {name: row[name] for name in ("id", "contract", "question")} | {"answer_a": theirs, "answer_b": ours}
    said |= {"annotator": who, "verdict": "b", "system_a": review["system"], "source": f"import:{file}"}
    said["comment"] = " ".join(filter(None, (each.values.get("comment", "") for each in own)))
    return [checked_judgement(said | {"span": list(spans[0]) if spans else None})]


def _store(
    run: Path, lines: Mapping[str, Mapping[str, Any]], said: Sequence[Mapping[str, Any]], report: CorrectionReport
) -> None:
    """Add what is new to the run's corrections and judgements."""
    before = {(each["text"], row["question"]): row for each in corrections_of(run) for row in each["rows"]}
    added = []
    for line in lines.values():
        new = []
        for row in line["rows"]:
            kept = {name: value for name, value in row.items() if name != "where"}
            if before.get((line["text"], row["question"])) == kept:
                report.duplicates.append(row["where"])
            else:
                new.append(kept)
        if new:
            added.append({name: value for name, value in line.items() if name != "corrected"} | {"rows": new})
            report.rows += len(new)
            report.contracts.add(line["title"])
    store = Store(run / STORE_FILE)
    known = {_saying(judgement) for judgement in store.judgements()}
    judgements = [judgement for judgement in said if _saying(judgement) not in known]
    if added:
        files.append_jsonl(run / CORRECTIONS, added)
    store.add_many(judgements)
    report.judgements = len(judgements)


def _saying(judgement: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(fold(judgement[name]) for name in ("annotator", "id", "answer_a", "answer_b", "verdict"))
