"""Who a contract is between, read from its opening: the names that follow "by and between"."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 9  # words of a name
_REACH = 900  # characters from "between" within which the parties are named
_BETWEEN = re.compile(r"\b(?:by\s+and\s+between|by\s+and\s+among|between|among)\b[\s,:]*", re.IGNORECASE)
_FORM = (
    r"Inc|Incorporated|Corp|Corporation|Co|Company|LLC|L\.\s?L\.\s?C|LLP|Ltd|Limited|Private|LP|L\.\s?P|PLC|GmbH|AG"
    r"|Aktiengesellschaft|S\.?A(?:\.S)?|N\.?V|B\.?V|S\.?p\.?A|S\.?r\.?l|N\.?A|Pty|Pte|K\.?K|AB|A/S|KG|Bhd"
)
_ENDING = re.compile(rf"[\s,]+(?:{_FORM})\b\.?$", re.IGNORECASE)
_STRONG = r"Inc|Incorporated|Corp|Corporation|LLC|LLP|Ltd|Limited|PLC|GmbH"  # no name goes on after these
_ENDED = re.compile(
    rf"(?:(?<=[\s,])(?=[A-Z])(?:(?:{_STRONG})\b\.?|(?:{_FORM})\b\.?(?=\s*(?:,|$)))|(?<=\w)\.com\b)"
    rf"(?:[\s,]+(?=[A-Z])(?:{_FORM})\b\.?)*",
    re.IGNORECASE,
)
_PLACE = r"\s*[A-Za-z.\s]{2,20}\)"  # Dialog Semiconductor (UK) Ltd.
# What ends a name: a definition, a description, or the next party.
_STOP = re.compile(
    rf"[\[;:“\"_]|\((?!{_PLACE}\s+(?i:{_FORM})\b)|,?\s+of(?=\s[\w\s]*\d)"
    r"|,?\s+(?:an?|as|with|whose|having|located|organi[sz]ed|hereinafter|hereafter|herein|its|is|at|dba"
    r"|d/b/a|f/k/a|doing|acting|through|on|for|who|which|together|collectively|dated|effective|regarding|each|both"
    r"|individually|in|under|formerly|residing)\b"
    r"|,?\s+(?:and|AND|And)\s+(?:between\s+)?(?=\W*(?:the\s+)?[\w(\"])|,\s+(?=\d|[a-z])|\.\s|\s{2,}(?=[A-Z]{2,}\s*:)",
)
_NEXT = re.compile(r"(?:\band\b|\bAND\b|\bAnd\b|;|,|\(\s*(?:[2-9]|ii|iii|[b-f])\s*\)|\n)\s*")
# "and" joins a name to its last word, as in Louisville Gas and Electric Company; otherwise it parts two names.
_ANOTHER = re.compile(r"\band\s+(?:\S+\s+\S+\s+\S+|.*,)|\bthe\b.*\bcompany$", re.IGNORECASE)
_MARK = re.compile(
    r"^(?:[\s,:\-–—]|\(\s*(?:\d|[a-z]|i+)\s*\)|\d[.)]\s|(?:the|by|and|between|Messrs\.)\s)+", re.IGNORECASE
)
_DEFINED = re.compile(
    r"^\s*,?\s*(?:an individual|\(?\s*(?:the\s+)?[“\"]|\(?\s*here(?:in|after)"
    r"|,?\s*an?\s+[\w\s]{0,40}?(?:corporation|company|partnership|limited))"
)
_ROLES = frozenset(
    "affiliate agent agreement bank buyer client company consultant contractor corporation customer developer "
    "distributor employee employer endorser executive franchisee franchisor fund holder licensee licensor manager "
    "manufacturer owner parties partner partners partnership party provider purchaser recipient reseller seller "
    "shareholder shipper sponsor supplier talent transporter trust undersigned user vendor you us we me him her them "
    "this that these those such any all other subsidiary subsidiaries affiliates individual engagement click section "
    "article exhibit whereas witnesseth".split()
)
_SHORT = frozenset("air gas new net oil one sea sun two web".split())  # other three capitals stand for initials
_SMALL = frozenset(("of", "and", "the", "for", "de", "in", "on", "at"))


@dataclass(frozen=True)
class Party:
    """One party: its name as it stands in the contract, and as a reader says it."""

    full: str
    name: str


def parties(opening: str) -> tuple[list[Party], int]:
    """Return the parties named first, in order, and where the naming starts in `opening`; ([], -1) if there are none.

    A name counts if it has a legal form ("Inc.", "GmbH") or is defined right after ("... (the "Sponsor")"). A third
    party is returned too, so that a contract of two can be told from one of several.
    """
    for start in _BETWEEN.finditer(opening):
        found = _list(opening[start.end() : start.end() + _REACH])
        if len(found) > 1:
            return found, start.start()
    return [], -1


def _list(text: str) -> list[Party]:
    first, end = _party(text)
    if first is None:
        return []
    found = [first]
    for gap in _NEXT.finditer(text):
        if gap.start() < end or len(found) == 3:
            continue
        party, length = _party(text[gap.end() :])
        if party and gap[0].startswith(",") and not _ENDING.search(party.full):
            continue  # after a comma stand places, titles and descriptions too
        if party and not any(known.name.casefold().endswith(party.name.casefold()) for known in found):
            if len(found) == 2 and not _listed(text[end : gap.end()]):
                break
            found.append(party)
            end = gap.end() + length
    return found


def _listed(between: str) -> bool:
    """Say whether the words between two names only describe the first: no sentence has ended, no recital begun."""
    return not re.search(r"[.;]\s+[A-Z]|WHEREAS|RECITALS|WITNESS|BACKGROUND|\d{4}\)?\W+[A-Z]", between)


def _party(text: str) -> tuple[Party | None, int]:
    """Return the party that a text starts with and where its name ends, or (None, 0)."""
    mark = _MARK.match(text)
    skipped = mark.end() if mark else 0
    rest = text[skipped:]
    for stop in list(_STOP.finditer(rest, 0, 160))[:2]:
        raw = rest[: stop.start()]
        ended = next((match for match in _ENDED.finditer(raw) if _upper(match[0])), None)
        full = " ".join(raw[: ended.end() if ended else None].split()).strip(" ,")
        if _sound(full, formal=bool(ended), after=rest[len(raw) :]):
            return Party(full, spoken(full)), skipped + (ended.end() if ended else len(raw))
        if not re.match(r",?\s+and\b", stop[0], re.IGNORECASE):
            break  # only "and" may belong to a name
    return None, 0


def _upper(form: str) -> bool:
    return form.startswith(".") or form.strip(" ,")[:1].isupper()


def _sound(full: str, *, formal: bool, after: str) -> bool:
    words = full.split()
    own = [word for word in words if word.casefold() not in _SMALL]
    if not own or len(words) > _LONGEST or not full[0].isalnum() or not all(map(_proper, own)):
        return False
    if {word.casefold() for word in re.findall(r"\w+", spoken(full))} <= _ROLES | _SMALL or _ANOTHER.search(full):
        return False
    if "," in spoken(full) or re.search(r"\d{5}|\bPh\.?D\b", full):
        return False  # an address, or two names
    if formal:
        return True
    said = {word.casefold().strip(",.") for word in own}
    return 1 < len(words) < 7 and not said & _ROLES and not re.search(r"\d", full) and bool(_DEFINED.match(after))


def _proper(word: str) -> bool:
    """Say whether a word may stand in a name: a capital, a digit or a dot somewhere (iBio, drkoop.com), or "&"."""
    return word == "&" or any(letter.isupper() or letter.isdigit() for letter in word) or "." in word.strip(".,")


def spoken(full: str) -> str:
    """Return a party's name without its legal form, and not in capitals: "ADAMS GOLF, LTD." becomes "Adams Golf"."""
    name = full.strip(" ,")
    while (ending := _ENDING.search(name)) and ending.start() > 1:
        name = name[: ending.start()].strip(" ,&")
    name = re.sub(rf"\s+\({_PLACE}$", "", name)
    name = re.sub(r"^the\s+", "", name, flags=re.IGNORECASE)
    if name.upper() == name:
        formal = name != full.strip(" ,")
        name = " ".join(_cased(word, n, formal) for n, word in enumerate(name.split()))
    return name


def _cased(word: str, place: int, formal: bool) -> str:
    if place and word.casefold() in _SMALL:
        return word.casefold()
    if re.search(r"\.(?:com|net|org)$", word, re.IGNORECASE):
        return word.capitalize()
    letters = re.sub(r"\W", "", word)
    initials = formal and len(letters) < 4 and letters.casefold() not in _SHORT  # IBM Corp., but Tom Watson
    if initials or "." in word.strip(".") or not re.search(r"[AEIOUY]", letters):
        return word
    return re.sub(r"[^-/]+", lambda part: part[0][:1] + part[0][1:].casefold(), word)
