"""ROUGE-L between one short text and many, bounded so that thousands of comparisons take milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rouge_score.tokenize import tokenize


def tokens(text: str) -> list[str]:
    """Return the tokens that ROUGE counts: lower-case runs of ASCII letters and digits, not stemmed."""
    return tokenize(text, None)


def shingles(sequence: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return every run of `size` tokens."""
    return {tuple(sequence[n : n + size]) for n in range(len(sequence) - size + 1)}


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, in a step per token on integers of as many bits.

    The longer one gives the steps and the shorter one the bits, so that a clause is found in a million characters in
    well under a second. Source: Hyyrö (2004), "Bit-parallel LCS-length computation revisited", figure 4.
    """
    short, long = sorted((a, b), key=len)
    places: dict[str, int] = {}
    for n, token in enumerate(short):
        places[token] = places.get(token, 0) | 1 << n
    full = (1 << len(short)) - 1
    row = full
    for place in filter(None, map(places.get, long)):
        matches = row & place
        row = (row + matches | row - matches) & full
    return len(short) - row.bit_count()


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the ROUGE-L F-measure of two token lists (Lin, 2004, section 3.1, beta 1), 0 if one is empty."""
    if not a or not b:
        return 0.0
    return 2 * longest_common_subsequence(a, b) / (len(a) + len(b))


class Known:
    """Texts to be compared with; `near` and `find` tell which of them a new text is near."""

    def __init__(self, texts: Iterable[str] = ()):
        """Take the first texts; `add` takes more."""
        self._texts: list[str] = []
        self._tokens: list[list[str]] = []
        self._holders: dict[tuple[str, int], list[int]] = {}  # (token, its n-th occurrence) -> texts
        for text in dict.fromkeys(texts):
            self.add(text)

    def add(self, text: str) -> None:
        """Remember one more text."""
        found = tokens(text)
        for key in _numbered(found):
            self._holders.setdefault(key, []).append(len(self._texts))
        self._texts.append(text)
        self._tokens.append(found)

    def find(self, text: str, limit: float) -> tuple[str, float] | None:
        """Return a known text with ROUGE-L F >= limit and that value, or None if there is none."""
        return next(self.near(text, limit), None)

    def near(self, text: str, limit: float) -> Iterator[tuple[str, float]]:
        """Yield every known text with ROUGE-L F >= limit and that value.

        Texts that share most tokens come first, those that share too few for `limit` never: the number of
        shared tokens bounds the common subsequence from above.
        """
        found = tokens(text)
        shared: Counter[int] = Counter()
        for key in _numbered(found):
            shared.update(self._holders.get(key, ()))
        bounds = {n: 2 * count / (len(found) + len(self._tokens[n])) for n, count in shared.items()}
        for n in sorted((n for n, bound in bounds.items() if bound >= limit), key=lambda n: (-bounds[n], n)):
            if (score := rouge_l(self._tokens[n], found)) >= limit:
                yield self._texts[n], score


def _numbered(sequence: Sequence[str]) -> Iterable[tuple[str, int]]:
    seen: Counter[str] = Counter()
    for token in sequence:
        seen[token] += 1
        yield token, seen[token]
