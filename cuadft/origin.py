"""Which contracts a saved retriever has learned from, and which others only repeat those under another title."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cuadft import files
from cuadft.duplicates import near_duplicates
from cuadft.passages import Passage

if TYPE_CHECKING:
    from cuadft.retriever import Retriever

NOTE = "origin.json"
TRAINED, TUNED = "trained on", "settings chosen on"
DATA = {"dev": TUNED, "dev_clauses": TUNED, "synthetic": TRAINED, "train": TRAINED}  # an iteration's files of rows
SHINGLE, CONTAINMENT = 8, 0.5  # as those of the splits


def write(folder: Path, *, trained: Iterable[str], tuned: Iterable[str]) -> None:
    """Note in a retriever's folder the titles of the contracts that it was trained and tuned on."""
    files.write_json(folder / NOTE, {"trained": sorted(set(trained)), "tuned": sorted(set(tuned))})


def learned_from(folder: Path, retriever: Retriever) -> dict[str, str]:
    """Return the titles that a saved retriever was trained or tuned on, each with which of the two.

    They come from its note, its feedback and its classifier, and from the data of its run up to its iteration, as far
    as these are there: a folder that was moved away from its run still knows the first three.
    """
    note = files.read_json(folder / NOTE) if (folder / NOTE).is_file() else {}
    found = dict.fromkeys(note.get("tuned", []), TUNED)
    for name, how in DATA.items():
        for path in _up_to(folder.resolve().parent, name):
            found |= {row["contract"]: how for row in files.read_jsonl(path)}
    spans = retriever.feedback.spans if retriever.feedback else []
    folds = retriever.classifier.fold_of if retriever.classifier else {}
    return found | dict.fromkeys([*note.get("trained", []), *(span["contract"] for span in spans), *folds], TRAINED)


def _up_to(iteration: Path, name: str) -> list[Path]:
    """Return a file of rows in this iteration's folder and in those before; none if it is no iteration's folder."""
    if not re.fullmatch(r"iter-\d+", iteration.name):
        return []
    found = sorted(iteration.parent.glob(f"iter-*/data/{name}.jsonl"))
    return [path for path in found if path.parents[1].name <= iteration.name]


def copies(texts: Mapping[str, str], learned: Mapping[str, str]) -> dict[str, str]:
    """Return which of the texts share half their wording (see `duplicates`) with a learned one, and with which."""
    titles = [*texts, *learned]
    pairs = near_duplicates([*texts.values(), *learned.values()], SHINGLE, CONTAINMENT)
    return {titles[i]: titles[j] for i, j in reversed(pairs) if i < len(texts) <= j}


def text_of(passages: Iterable[Passage]) -> str:
    """Return the contract's text from its passages, which together are the whole of it and may overlap."""
    text = ""
    for passage in sorted(passages, key=lambda passage: passage.start):
        text += passage.text[len(text) - passage.start :]
    return text
