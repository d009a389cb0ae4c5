"""Judgements as rows for others: TRL's preference pairs, unpaired thumbs for KTO, or all that was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft import labelstudio, spreadsheet
from cuadft.errors import InputError
from cuadft.files import write_json, write_jsonl
from cuadft.judgements import FIELDS, pair_key

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


def rows(judgements: Sequence[Mapping[str, Any]], file_format: str) -> list[dict[str, Any]]:
    """Return judgements in a format: "trl" and "kto" hold those with a preference, "raw" and "labelstudio" all.

    A corrected answer is preferred to each wrong one in place of the winner. Prompts are the messages that were sent,
    where they are known, else the question.
    """
    if file_format == "labelstudio":
        return labelstudio.tasks(judgements)
    if file_format == "raw":
        return [{name: judgement[name] for name in FIELDS} for judgement in judgements]
    make = _pairs if file_format == "trl" else _thumbs
    return [row for judgement in judgements for row in make(judgement)]


def write(path: Path, made: Sequence[Mapping[str, Any]], file_format: str) -> None:
    """Write rows by the path's suffix: CSV (prompt and answers as text, messages as JSON), JSON lines or a JSON list."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or (file_format == "labelstudio" and suffix != ".json"):
        allowed = ".json" if file_format == "labelstudio" else ", ".join(SUFFIXES)
        raise InputError(f"Can't write {file_format} to {path.name!r}: end the file's name in {allowed}.")
    if suffix == ".csv":
        spreadsheet.write(path, [_flat(row) for row in made] if file_format != "raw" else made, COLUMNS[file_format])
    else:
        (write_json if suffix == ".json" else write_jsonl)(path, made)


def sides(judgement: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield (better, worse), each {"text", "system"}; nothing for a tie, a skipped pair and both wrong without correction."""
    a, b = ({"text": judgement[f"answer_{side}"], "system": judgement[f"system_{side}"]} for side in "ab")
    edited = judgement["edited"] and {"text": judgement["edited"], "system": "corrected"}
    better, wrong = {"a": (a, [b]), "b": (b, [a]), "both_wrong": (None, [a, b])}.get(judgement["verdict"], (None, []))
    better = edited or better
    for worse in wrong if better else []:
        if worse["text"].strip() and better["text"] != worse["text"]:
            yield better, worse


def _pairs(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for better, worse in sides(judgement):
        verb = "corrected the answer" if better["system"] == "corrected" else "preferred it"
        yield _about(judgement) | {
            "chosen": _said(better["text"]), "rejected": _said(worse["text"]), "source": "human",
            "reason": f"annotator {judgement['annotator']} {verb}", "system_chosen": better["system"],
            "system_rejected": worse["system"]} | {name: judgement[name] for name in _SAID}  # fmt: skip


def _thumbs(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a thumb for each answer that was called better or wrong; `pair` joins the two of one verdict."""
    up = {better["text"]: better["system"] for better, _ in sides(judgement)}
    wrong = {"a": "b", "b": "a", "both_wrong": "ab"}.get(judgement["verdict"], "")
    if not up and judgement["verdict"] in ("a", "b"):  # a single thumb has no second answer
        up = {judgement[f"answer_{judgement['verdict']}"]: judgement[f"system_{judgement['verdict']}"]}
    down = {judgement[f"answer_{side}"]: judgement[f"system_{side}"] for side in wrong if judgement[f"answer_{side}"].strip()}
    for said, label in ((up, True), (down, False)):
        for text, system in said.items():
            yield _about(judgement) | {
                "completion": _said(text), "label": label, "source": "human", "system": system,
                "reason": f"annotator {judgement['annotator']} {'preferred it' if label else 'found it worse or wrong'}",
                "pair": pair_key(judgement) if len(up) + len(down) > 1 else None,
            } | {name: judgement[name] for name in _SAID}  # fmt: skip


def _about(judgement: Mapping[str, Any]) -> dict[str, Any]:
    prompt = judgement["prompt"] or [{"role": "user", "content": judgement["question"]}]
    return {name: judgement[name] for name in _ABOUT[:3]} | {"prompt": prompt}


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its messages as text; those of the prompt are kept beside it where they are more than a question."""
    answers = {name: row[name][0]["content"] for name in ANSWERS if name in row}
    known = len(row["prompt"]) > 1 or row["prompt"][0]["content"] != row["question"]
    return dict(row) | answers | {"prompt": "\n\n".join(m["content"] for m in row["prompt"]),
                                  "messages": row["prompt"] if known else None}  # fmt: skip
