"""What the annotation widget shows of a task: question, stretches of contract with cited words, two nameless answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuadft.answer_scores import NO_CLAUSE
from cuadft.errors import InputError
from cuadft.judgements import plain

TEXTS = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")


def pair_screen(task: Mapping[str, Any], first: str) -> dict[str, Any]:
    """Return the pair as the browser gets it, answer `first` ("a" or "b") on the left; offsets are the contract's.

    stretches: {"start", "end", "pieces": [[text, start, tone]]}, tone "left", "right", "both" or "" by who cites it;
    cites: how many spans each answer cites, and how many of them lie outside all stretches.
    """
    order = [first, "b" if first == "a" else "a"]
    spans = [list(task.get(f"spans_{side}") or []) for side in order]
    stretches = [{"start": start, "end": start + len(text), "pieces": pieces(text, start, *spans)}
                 for start, text in joined(task["passages"])]
    return {"kind": "pair", "contract": plain(task["contract"]), "question": plain(task["question"]),
            "answers": [plain(task[f"answer_{side}"]) for side in order], "stretches": stretches, "refusal": NO_CLAUSE,
            "cites": [[len(cited), sum(not _inside(span, stretches) for span in cited)] for cited in spans]}


def joined(passages: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Return (start, text) of the passages in the contract's order, those that touch or overlap as one."""
    made: list[tuple[int, str]] = []
    for passage in sorted(passages, key=lambda p: (p["start"], p["end"])):
        start, text = made[-1] if made else (0, "")
        if made and passage["start"] <= start + len(text):
            made[-1] = (start, text + passage["text"][start + len(text) - passage["start"]:])
        else:
            made.append((passage["start"], passage["text"]))
    return made


def pieces(text: str, start: int, left: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> list[list[Any]]:
    """Cut `text`, which begins at offset `start` of the contract, where a cited span of either answer begins or ends."""
    end = start + len(text)
    edges = sorted({start, end} | {edge for span in [*left, *right] for edge in span[:2] if start < edge < end})
    tones = {(True, True): "both", (True, False): "left", (False, True): "right", (False, False): ""}
    return [[plain(text[a - start:b - start]), a, tones[_covers(left, a), _covers(right, a)]]
            for a, b in zip(edges, edges[1:], strict=False)]


def check(task: Mapping[str, Any], name: str) -> None:
    """Raise InputError, beginning with `name`, if the task lacks what the widget shows."""
    advice = "make the tasks with cuadft.backlog.tasks"
    wrong = [key for key in TEXTS if not isinstance(task.get(key), str)]
    if wrong:
        raise InputError(f"{name}: {wrong[0]!r} is {task.get(wrong[0])!r}, but must be text: {advice}")
    if task["answer_a"] == task["answer_b"]:
        raise InputError(f"{name} ({task['id']!r}): both answers are the same, so that there is nothing to choose: {advice}")
    passages = task.get("passages")
    if not isinstance(passages, Sequence) or not all(map(_is_passage, passages)):
        raise InputError(f"{name} ({task['id']!r}): each of its passages must have a text as long as start to end: {advice}")
    for side in "ab":
        spans = task.get(f"spans_{side}") or []
        if not isinstance(spans, Sequence) or not all(map(_is_span, spans)):
            raise InputError(f"{name} ({task['id']!r}): spans_{side} is {spans!r}, but must hold [start, end]: {advice}")


def _is_span(span: Any) -> bool:
    whole = isinstance(span, Sequence) and len(span) == 2 and all(isinstance(edge, int) for edge in span)
    return whole and 0 <= span[0] <= span[1]


def _is_passage(passage: Any) -> bool:
    if not isinstance(passage, Mapping) or not isinstance(passage.get("text"), str):
        return False
    start, end = passage.get("start"), passage.get("end")
    return isinstance(start, int) and isinstance(end, int) and 0 <= start and end - start == len(passage["text"])


def _covers(spans: Sequence[Sequence[int]], place: int) -> bool:
    return any(span[0] <= place < span[1] for span in spans)


def _inside(span: Sequence[int], stretches: Sequence[Mapping[str, Any]]) -> bool:
    return any(span[0] < s["end"] and span[1] > s["start"] for s in stretches)
