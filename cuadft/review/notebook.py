"""Review one contract in a notebook: the page with its clauses stands below the cell.

found = contract("runs/quickstart", "supply.pdf")   # loads the run's champion once, for further contracts too
found.findings[0].quotes
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cuadft.core import runs
from cuadft.data.documents import Document, read_documents
from cuadft.review.page import framed_page
from cuadft.review.reviewer import Review, Reviewer, read_questions

_loaded = lru_cache(maxsize=1)(Reviewer.load)


class ShownReview(Review):
    """A review that a notebook shows as its page."""

    def _repr_html_(self) -> str:
        return framed_page(self)


def contract(
    run: str | Path, source: str | Path | Document, *, questions: str | Path = "", system: str = ""
) -> ShownReview:
    """Review a document, or the first contract of a file, with a system of a run; the review shows its page.

    system: "" for the run's champion. questions: a file of your own questions, see `reviewer.read_questions`; by
    default CUAD's are asked. Raises InputError as `Reviewer.load` and `read_documents` do.
    """
    asked = read_questions(questions) if questions else ()
    document = source if isinstance(source, Document) else read_documents(runs.resolve_path(source))[0]
    found = _loaded(str(runs.resolve_path(run)), system=system).review(document, asked)
    return ShownReview(**vars(found))
