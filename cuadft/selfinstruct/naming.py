"""How a person refers to one contract, "the 2016 alliance with Energous": for questions that search all contracts.

The names come from the contract's title, its opening lines and its filer. The words are those of a reader: the year,
the kind of contract, and the parties without their legal forms. What can't be read off reliably is left out; where
the parties can't, there is no name.

Who a contract is between, read from its opening: the names that follow "by and between".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cuadft.data import cuad
from cuadft.data.contracts import Contract, Row
from cuadft.evaluation import evidence
from cuadft.selfinstruct.sources import SOURCE

TOLD = ("Document Name", "Parties", "Agreement Date", "Effective Date")
_OPENING = 6000  # characters; a cover page and a table of contents may stand before the parties
_BESIDE = 300  # characters around the parties within which the contract's own date stands
_OTHER_KINDS = {
    "Co-Branding": "co-branding agreement",
    "Collaboration/Cooperation": "collaboration agreement",
    "Distributor": "distribution agreement",
    "IP": "intellectual property agreement",
    "Service": "services agreement",
    "Non-Compete/No-Solicit/Non-Disparagement": "restrictive covenant agreement",
}
# Words of a title that name the kind of contract more closely than its type does.
_TITLED = re.compile(
    r"joint filing (?:agreement|statement)|cooperation agreement|non-?competition agreement"
    r"|master services? agreement|transportation (?:services? )?agreement|remarketing agreement"
    r"|manufacturing and supply agreement|(?:web ?site|web) hosting agreement"
    r"|(?:trademark|content|software) license agreement",
    re.IGNORECASE,
)
_AMENDED = re.compile(r"\bamend", re.IGNORECASE)
_CUE = re.compile(r"(?:dated|as of|made|entered|effective|executed|this|on|date:?)\W+(?:\w+\W+){0,4}$", re.IGNORECASE)
_ORDINAL = re.compile(r"(\d)\s*(?:s\s*t|n\s*d|r\s*d|t\s*h)\b", re.IGNORECASE)  # PDF text holds "1s t day of May"
_FILED = re.compile(r"_(?:\d{1,2}_\d{1,2}_((?:19|20)\d\d)|((?:19|20)\d\d)\d{4}_)")
_NAMED = re.compile(  # the contract itself, not "the contract's term" or "the contract term"
    r"\b(?:the|this) (?:contract|agreement|deal)\b(?!['’-]| (?:terms?|dates?|periods?|prices?|years?)\b)",
    re.IGNORECASE,
)
_KEPT = re.compile(r"(?:[A-Z]{2,}|I)\b")


def name_contract(title: str, text: str, contract_type: str, filer: str) -> list[str]:
    """Return ways to refer to a contract, or [] if its parties can't be read off reliably.

    The first is from the filer's side, "the 2016 alliance with" the other party. `filer` is comparable, as
    `titles.filer` returns it. The names agree with each other and are distinct.
    """
    named, place = parties(text[:_OPENING])
    kind = _kind(title, contract_type)
    if not kind or len(named) < 2 or named[0].name == named[1].name:
        return []
    year, month = _date(title, text, place)
    one, two = named[:2]
    if _filed_by(two, filer) and not _filed_by(one, filer):
        one, two = two, one
    if len(named) > 2 or _filed_by(one, filer) == _filed_by(two, filer):
        others = " and ".join((one.name, two.name)) if len(named) == 2 else f"{one.name}, {two.name} and others"
        found = [f"the {_joined(year, kind)} between {others}"]
    else:
        short = kind.replace("strategic alliance agreement", "alliance")
        found = [f"the {_joined(year, short)} with {party.name}" for party in (two, one)]
        found.append(f"{_of(one.name)} {_joined(year, kind)} with {two.name}")
    if month:
        found.append(f"{_of(one.name)} {kind} of {month} {year}")
    return list(dict.fromkeys(found))


def _kind(title: str, contract_type: str) -> str:
    """Return what the contract is, "supply agreement", as its title or else its type says; "" if neither does."""
    if own := _TITLED.search(re.sub(r"[\s_]+", " ", title)):
        kind = own[0].casefold()
    elif contract_type in cuad.CONTRACT_TYPES:
        kind = _OTHER_KINDS.get(contract_type, f"{contract_type.casefold()} agreement")
    else:
        return ""
    return f"amendment to the {kind}" if _AMENDED.search(title) else kind


def _date(title: str, text: str, place: int) -> tuple[str, str]:
    """Return (year, month) of the contract's date, "" for what the lines around its parties don't tell for certain.

    A contract isn't made after it was filed, nor does a filing hold one older than twenty years.
    """
    if place < 0 or _AMENDED.search(title):
        return "", ""  # beside an amendment's own date stands that of what it amends
    beside = _ORDINAL.sub(r"\1", text[max(0, place - _BESIDE) : place + 2 * _BESIDE])
    found = [match for form in evidence.FORMS for match in form.finditer(beside)]
    found = [match for match in found if _CUE.search(beside[: match.start()][-60:])]
    filed = _FILED.search(title)
    last = int(filed[1] or filed[2]) if filed else 2100
    first = last - 20 if filed else 1900
    years = {match["y"] for match in found if first <= int(match["y"]) <= last}
    if len(years) != 1:
        return "", ""
    (year,) = years
    months = {evidence.SHORT.get(match["m"].lower(), "") for match in found if match["y"] == year}
    month = months.pop() if len(months) == 1 else ""
    return year, evidence.NAMES[int(month) - 1].capitalize() if month else ""


def _filed_by(party: Party, filer: str) -> bool:
    own = cuad.filer(party.name)
    shared = min(6, len(own), len(filer))
    return shared > 2 and own[:shared] == filer[:shared]


def _joined(year: str, kind: str) -> str:
    return f"{year} {kind}".strip()


def _of(name: str) -> str:
    if name.endswith(("'s", "’s")):
        return name  # Reed's is a name and its own genitive
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def contract_names(contracts: Iterable[Contract]) -> dict[str, list[str]]:
    """Return each contract's names by title, less those that would do for two; contracts without one are left out.

    A name without a year also does for a contract that has the same name with one.
    """
    found = {c.title: name_contract(c.title, c.text, c.contract_type, c.filer) for c in contracts}
    times = Counter(form for own in found.values() for form in {*own, *map(_dateless, own)})
    single = {title: [name for name in own if times[name] == 1] for title, own in found.items()}
    return {title: own for title, own in single.items() if own}


def _dateless(name: str) -> str:
    return re.sub(r" of [A-Z]\w+ \d{4}$", "", re.sub(r"\b\d{4} (?=[a-z])", "", name))


def is_specific(question: str, name: str) -> str:
    """Return what is asked (a question, "Category: question" or search words) with the contract's name in it."""
    question = question.strip()
    if _NAMED.search(question):
        return _NAMED.sub(lambda _: name, question, count=1)
    if "?" not in question:
        return f"{question}, {name}"
    place = question.find(": ", 0, question.index("?")) + 2 if ": " in question[: question.index("?")] else 0
    asked = question[place:]
    first = asked if _KEPT.match(asked) else asked[:1].lower() + asked[1:]
    return f"{question[:place]}In {name}, {first}"


def name_in_question(rows: Iterable[Row], names: Mapping[str, list[str]]) -> list[Row]:
    """Return each row once for each name of its contract, the name in its question; contracts without one give none.

    Ids are "<row id>~c<n>" (n from 1), the source is "template", and the answers stay. Rows of `TOLD` are left out:
    the name says what they ask for.
    """
    return [
        Row(**{**row, "id": f"{row['id']}~c{n}", "question": is_specific(row["question"], name), "source": SOURCE})
        for row in rows
        if row["category"] not in TOLD
        for n, name in enumerate(names.get(row["contract"], []), start=1)
    ]


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
            return Party(full, spoken_name(full)), skipped + (ended.end() if ended else len(raw))
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
    if {word.casefold() for word in re.findall(r"\w+", spoken_name(full))} <= _ROLES | _SMALL or _ANOTHER.search(full):
        return False
    if "," in spoken_name(full) or re.search(r"\d{5}|\bPh\.?D\b", full):
        return False  # an address, or two names
    if formal:
        return True
    said = {word.casefold().strip(",.") for word in own}
    return 1 < len(words) < 7 and not said & _ROLES and not re.search(r"\d", full) and bool(_DEFINED.match(after))


def _proper(word: str) -> bool:
    """Say whether a word may stand in a name: a capital, a digit or a dot somewhere (iBio, drkoop.com), or "&"."""
    return word == "&" or any(letter.isupper() or letter.isdigit() for letter in word) or "." in word.strip(".,")


def spoken_name(full: str) -> str:
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
