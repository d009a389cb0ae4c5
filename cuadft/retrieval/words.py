"""Tell the words by which passages are searched and classified, in scripts without blanks between words too.

Chinese, Japanese and Thai texts are searched by their letters and by each two neighbours, as is common practice (Nie et
al., 2000, "On the use of words and n-grams for Chinese information retrieval"). For example:

    search_words("Which law governs?")        # ["which", "law", "governs"]
    search_words(with_pairs("法律"))           # ["法", "法律", "律"]
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from cuadft.core.text import LETTER, fold_words, is_unspaced

_RUN = re.compile(f"(?:{LETTER.pattern})+")


def texts_in_words(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the texts of pairs (contract, text), each `with_pairs` if its contract is written without blanks.

    So a contract in English that names a company in Chinese stays as it is.
    """
    pairs, own = list(pairs), defaultdict(list)
    for contract, text in pairs:
        own[contract].append(text)
    foreign = {contract for contract, texts in own.items() if not all(map(str.isascii, texts))}
    parted = {contract for contract in foreign if is_unspaced("".join(own[contract]))}
    return [with_pairs(text) if contract in parted else text for contract, text in pairs]


def with_pairs(text: str) -> str:
    """Return a text in which letters of scripts without blanks are words, and each two neighbours one more.

    "争议解决" becomes "争 争议 议 议解 解 解决 决". Wide forms of Latin letters and digits become plain ones.
    """
    if text.isascii() or not LETTER.search(text):
        return text
    return _RUN.sub(_letters_and_pairs, unicodedata.normalize("NFKC", text))


def _letters_and_pairs(run: re.Match[str]) -> str:
    letters = LETTER.findall(run[0])
    return " ".join(["", *(f"{a} {a}{b}" for a, b in pairwise(letters)), letters[-1], ""])


def search_words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order, without English stop words; accents are parts of letters."""
    from bm25s.stopwords import STOPWORDS_EN

    return [word for word in fold_words(unicodedata.normalize("NFC", text)) if word not in STOPWORDS_EN]
