"""Read a PDF's text page by page: a page is judged by itself, since a scan with a stamp is no contract to read.

    texts, bare, damaged = pdf_pages(file)   # bare: [1, 3], the numbers of pages without text of their own

Text recognition (OCR) is left to other programs.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from cuadft.core.errors import InputError
from cuadft.core.text import LETTER, fold

if TYPE_CHECKING:
    from pypdf import PageObject

# letters and digits of a page or text file that count as text; a blank scan often has a page number
FEWEST_LETTERS = 20
FEWEST_ON_IMAGE = 100  # of a page with an image; a scan may have a stamp
MOST_IN_MARGINS = 200  # of a page's header, footer and stamps together


def pdf_pages(source: BinaryIO) -> tuple[list[str], list[int], list[int]]:
    """Return the text of each page of a PDF, and the numbers (from 1) of pages without text and of damaged pages.

    A header, footer or stamp that stands on most pages is no text of a page. Raises InputError, a sentence without its
    subject, if a password protects the file, if a package is missing that decrypts it, if it has no text, or if over
    half of its pages have none; pypdf raises other errors on a damaged file.
    """
    import pypdf

    try:
        pages = list(pypdf.PdfReader(source).pages)
        read = [_page_text(page) for page in pages]
    except pypdf.errors.FileNotDecryptedError:
        raise InputError("is protected by a password: save a copy without one, or remove the file") from None
    except pypdf.errors.DependencyError:
        raise InputError("is encrypted with AES: run `pip install cryptography`, then the same command") from None
    texts, damaged = [text or "" for text in read], [n for n, text in enumerate(read, 1) if text is None]
    bare = [n for n in _bare_pages(pages, texts) if n not in damaged]
    if not pages or 2 * len(bare + damaged) > len(pages):
        without = page_ranges(sorted(bare + damaged))
        told = f"has no text on {len(bare + damaged)} of {len(pages)} pages ({without}) but headers or stamps at most"
        raise InputError(f"{told}; run text recognition (OCR) on it, which cuadft does not do, or remove it")
    return texts, bare, damaged


def _page_text(page: PageObject) -> str | None:
    """Return a page's text, None if the page is damaged."""
    import pypdf

    try:
        return page.extract_text()
    except (pypdf.errors.FileNotDecryptedError, pypdf.errors.DependencyError):
        raise
    except Exception:  # a damaged page can make pypdf raise nearly anything
        return None


def page_ranges(numbers: list[int]) -> str:
    """Return sorted numbers as people write pages: "2, 4-6"."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{start}-{end}" if end > start else str(start) for start, end in zip(starts, ends))


def count_letters(text: str) -> int:
    """Return the number of letters and digits in a text; one of a script without blanks says as much as two."""
    return sum(char.isalnum() for char in text) + len(LETTER.findall(text))


def _bare_pages(pages: list[PageObject], texts: list[str]) -> list[int]:
    lines = [{re.sub(r"\d+", "0", fold(line)) for line in text.splitlines()} for text in texts]
    counts = Counter(line for own in lines for line in own)
    repeated = {line for line, count in counts.items() if count > max(2, len(pages) / 2)}
    bare = []
    for number, (page, text, own) in enumerate(zip(pages, texts, lines), 1):
        letters, its_own = count_letters(text), sum(count_letters(line) for line in own - repeated)
        if its_own < FEWEST_LETTERS and letters < MOST_IN_MARGINS or letters < FEWEST_ON_IMAGE and _has_image(page):
            bare.append(number)
    return bare


def _has_image(page: PageObject) -> bool:
    with suppress(Exception):  # of a damaged list of images
        return len(page.images) > 0
    return False
