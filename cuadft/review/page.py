"""Show reviews as web pages that hold all that they need: one contract with its clauses, or two side by side.

A page has no script and loads nothing. The contract's text is data: it is escaped, and the page forbids the browser to
run or fetch anything. For example:

    files.write_text("supply.html", review_page(review))
    files.write_text("side-by-side.html", two_page(review, other))
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cuadft.core.pages import page_template
from cuadft.core.text import fold_words, shorten
from cuadft.review.reviewer import Review
from cuadft.review.side_by_side import compared_reviews

FRAME_HEIGHT = 760  # pixels, in a notebook
LONGEST_TAG = 40  # characters of a category that stand before its quote in the text
HEADINGS = {  # with places for the words of a schema
    "sure": "{Clauses} found",
    "unsure": "To be checked",
    "failed": "Not answered",
    "absent": "No such {clause}",
}
LANGUAGE_FROM = 20_000  # characters of a text that tell its language: by its letters, else by its commonest words
SCRIPTS = {"ja": "ぁ-ヿ", "zh": "一-鿿", "ko": "가-힣", "th": "ก-๎", "ar": "ء-ي", "hi": "ऀ-ॿ"}
COMMON_WORDS = {
    "en": "the of and to in or any",
    "de": "der die das und den nicht mit",
    "es": "el la los las y del que",
    "fr": "le les des et du une est",
    "it": "il di che della e per con",
    "pt": "o os do da e não em",
}


def review_page(review: Review) -> str:
    """Return the page of one review: findings by state with links into the text, in which the quotes are marked."""
    groups = [
        {"state": state, "heading": heading.format(**review.naming), "findings": found}
        for state, heading in HEADINGS.items()
        if (found := [(n, each) for n, each in enumerate(review.findings) if each.state == state])
    ]
    shown = {"groups": groups, "pieces": list(text_pieces(review)), "language": language_of(review.document.text)}
    return page_template("cuadft.review", "review.html").render(review=review, words=review.naming, **shown)


def two_page(one: Review, other: Review) -> str:
    """Return the page of two reviews: which clauses one contract has and the other lacks."""
    shown = {"groups": compared_reviews(one, other)}
    shown["languages"] = [language_of(each.document.text) for each in (one, other)]
    return page_template("cuadft.review", "two.html").render(one=one, other=other, words=one.naming, **shown)


def framed_page(review: Review) -> str:
    """Return the page in a frame of its own, for the output of a notebook's cell."""
    name, page = html.escape(shorten(review.document.name, 80)), html.escape(review_page(review))
    style = f"width: 100%; height: {FRAME_HEIGHT}px; border: 1px solid #bbb"
    return f'<iframe title="Review of {name}" sandbox="" style="{style}" srcdoc="{page}"></iframe>'


def text_pieces(review: Review) -> Iterator[dict[str, Any]]:
    """Yield the contract's text in pieces that together are all of it, cut where a quote or a page begins or ends.

    A piece has its text, "page" (the number of a page that begins with it, else None), "tags" (of the quotes that begin
    with it) and "state" (of the surest finding that quotes it, "possible" for what no system answers with, or "").
    """
    text, pages = review.document.text, review.document.page_starts
    quotes = [
        {"id": f"q{n}-{m}", "back": f"f{n}", "name": shorten(found.category, LONGEST_TAG), "start": quote.start}
        | {"end": quote.end, "p": quote.p, "state": found.state if quote.answer else "possible"}
        for n, found in enumerate(review.findings)
        for m, quote in enumerate(found.quotes)
        if quote.start is not None
    ]
    numbers = {start: number for number, start in enumerate(pages, 1)}
    cuts = sorted({0, len(text), *numbers, *(quote[edge] for quote in quotes for edge in ("start", "end"))})
    for start, end in zip(cuts, cuts[1:]):
        over = [quote["state"] for quote in quotes if quote["start"] <= start < quote["end"]]
        state = next((state for state in (*HEADINGS, "possible") if state in over), "")
        tags = [quote for quote in quotes if quote["start"] == start]
        yield {"text": text[start:end], "page": numbers.get(start), "tags": tags, "state": state}


def language_of(text: str) -> str:
    """Return the code of a text's language for a browser and a screen reader; "" if it is none of a few."""
    start = text[:LANGUAGE_FROM]
    for code, letters in SCRIPTS.items():
        if len(re.findall(f"[{letters}]", start)) > 0.1 * len(start):
            return code
    words = Counter(fold_words(start))
    shares = {code: sum(words[word] for word in common.split()) for code, common in COMMON_WORDS.items()}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] > 0.05 * words.total() else ""
