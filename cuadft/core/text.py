"""Marks that a prompt or a tokenizer takes as structure, broken up in text that a prompt only quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable

# the start of a tag or of a chat model's special token ("<|im_start|>", "</s>"), and Mistral's in square brackets
MARK = re.compile(r"[<＜﹤](?=[^\s\d<=])|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])")
# runs that fence what a judge reads, and DSPy's field headers; a wide or small form of the sign is no better
RUNS = re.compile(r"[<＜﹤]{2,}|[>＞﹥]{2,}|[\[［]{2,}|[\]］]{2,}")
# characters without width and marks of direction: they hide text from a reader, or split a mark to hide it from us
UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")


def break_marks(text: str) -> str:
    """Return a text with a blank inside every mark, so that it neither opens nor ends a tag or a chat turn."""
    return MARK.sub(lambda mark: f"{mark[0]} ", text)


def quote_safely(text: str) -> str:
    """Return a text to stand between fences: without unseen characters, no run of brackets, no mark left whole."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate (some PDFs yield them) can't be sent
    return break_marks(RUNS.sub(lambda run: " ".join(run[0]), UNSEEN.sub("", text)))


def without_marks(text: str, tokens: Iterable[str]) -> str:
    """Return a text in which none of a tokenizer's special tokens stands; each that did has a blank after its start."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def quotable(text: str) -> str:
    """Fold white space and break up marks that a tokenizer or a prompt would take as structure."""
    return break_marks(" ".join(text.split()))


def fold(text: str) -> str:
    """Return the text as answers are told apart: by their characters, whatever the case and the white space."""
    return " ".join(text.split()).casefold()
