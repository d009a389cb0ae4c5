"""Find full dates in a text, however they are written."""

from __future__ import annotations

import re

NAMES = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
         "december"]  # fmt: skip
MONTHS = {name: str(n) for n, name in enumerate(NAMES, start=1)}
SHORT = MONTHS | {name[:3]: number for name, number in MONTHS.items()} | {"sept": "9"}
MONTH = "(?P<m>" + "|".join(sorted(SHORT, key=len, reverse=True)) + r")\b\.?"
DAY, YEAR = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?", r"(?P<y>\d{4})"
FORMS = [
    re.compile(rf"\b{form}\b", re.IGNORECASE)
    for form in (
        rf"{MONTH}\s+{DAY}\s*,?\s*{YEAR}",  # November 6, 2016
        rf"{DAY}\s+(?:day\s+of\s+)?{MONTH}\s*,?\s*{YEAR}",  # 6 November 2016
        rf"{YEAR},?\s+{MONTH}\s+{DAY}",  # 2016, November 6
        r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",  # 2016-11-06
        r"(?P<m>\d{1,2})[/.-](?P<d>\d{1,2})[/.-](?P<y>\d{4})",  # 11/06/2016
    )
]


def dates(text: str) -> set[tuple[int, int, int]]:
    """Return the full dates in a text as (year, month, day); 11/06/2016 may be either of two and counts as both."""
    found = set()
    for form in FORMS:
        for match in form.finditer(text):
            year, month, day = (int(SHORT.get(match[part].lower(), match[part])) for part in "ymd")
            found.add((year, month, day))
            if form is FORMS[-1]:
                found.add((year, day, month))
    return found


def same_date(text: str, other: str) -> bool:
    """Say whether both texts are a date and nothing else, and the same one."""
    return _bare(text) and _bare(other) and bool(dates(text) & dates(other))


def _bare(text: str) -> bool:
    rest = text
    for form in FORMS:
        rest = form.sub(" ", rest)
    return rest != text and not re.search(r"\w", re.sub(r"\bthe\b", " ", rest, flags=re.IGNORECASE))
