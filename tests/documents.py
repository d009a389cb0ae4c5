"""The pages that people read, and what stands in them: links, anchors, blocks of code, words of code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
ROOMS = [path.parent for path in sorted((ROOT / "cuadft").glob("*/__init__.py")) if path.parent.name != "sample"]
TEMPLATES = {"card.md"}  # of pages that the package writes
PLACES = ("*.md", ".github/*.md", "notebooks/**/*.md", "params/*.md", "tests/*.md", "cuadft/**/*.md")
PAGES = sorted(path for place in PLACES for path in ROOT.glob(place) if path.name not in TEMPLATES)


@dataclass(frozen=True)
class Page:
    """A parsed page: links as they are written, GitHub's anchors of its headings, (language, code) of its blocks."""

    links: list[str]
    anchors: set[str]
    blocks: list[tuple[str, str]]
    words: list[str]


def read_page(text: str) -> Page:
    """Parse a page of GitHub's Markdown, with tables."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inside = list(_inside(tokens))
    links = [str(t.attrs[name]) for t in inside for name in ("href", "src") if name in t.attrs]
    blocks = [(t.info.strip(), t.content) for t in tokens if t.type == "fence"]
    words = [" ".join(t.content.split()) for t in inside if t.type == "code_inline"]
    return Page(links, _anchors(tokens), blocks, words)


def _inside(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def _anchors(tokens: list[Token]) -> set[str]:
    """Return GitHub's anchors: lower case, hyphens for blanks, no signs but - and _; -1 after the second of equals."""
    found, seen = set(), Counter()
    for before, token in zip(tokens, tokens[1:]):
        if before.type == "heading_open":
            text = "".join(t.content for t in token.children or () if t.type in ("text", "code_inline"))
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found
