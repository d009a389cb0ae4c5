"""How a person refers to one contract, "the 2016 alliance with Energous": for questions that search all contracts.

The names come from the contract's title, its opening lines and its filer. The words are those of a reader: the year,
the kind of contract, and the parties without their legal forms. What can't be read off reliably is left out; where
the parties can't, there is no name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from cuadft import dates, titles
from cuadft.contracts import Contract, Row
from cuadft.parties import Party, parties
from cuadft.phrasings import SOURCE

TOLD = ("Document Name", "Parties", "Agreement Date", "Effective Date")
_OPENING = 6000  # characters; a cover page and a table of contents may stand before the parties
_BESIDE = 300  # characters around the parties within which the contract's own date stands
_OTHER_KINDS = {
    "Co-Branding": "co-branding agreement", "Collaboration/Cooperation": "collaboration agreement",
    "Distributor": "distribution agreement", "IP": "intellectual property agreement", "Service": "services agreement",
    "Non-Compete/No-Solicit/Non-Disparagement": "restrictive covenant agreement",
}  # fmt: skip
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
    elif contract_type in titles.CONTRACT_TYPES:
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
    found = [match for form in dates.FORMS for match in form.finditer(beside)]
    found = [match for match in found if _CUE.search(beside[: match.start()][-60:])]
    filed = _FILED.search(title)
    last = int(filed[1] or filed[2]) if filed else 2100
    first = last - 20 if filed else 1900
    years = {match["y"] for match in found if first <= int(match["y"]) <= last}
    if len(years) != 1:
        return "", ""
    (year,) = years
    months = {dates.SHORT.get(match["m"].lower(), "") for match in found if match["y"] == year}
    month = months.pop() if len(months) == 1 else ""
    return year, dates.NAMES[int(month) - 1].capitalize() if month else ""


def _filed_by(party: Party, filer: str) -> bool:
    own = titles.filer(party.name)
    shared = min(6, len(own), len(filer))
    return shared > 2 and own[:shared] == filer[:shared]


def _joined(year: str, kind: str) -> str:
    return f"{year} {kind}".strip()


def _of(name: str) -> str:
    if name.endswith(("'s", "’s")):
        return name  # Reed's is a name and its own genitive
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def names(contracts: Iterable[Contract]) -> dict[str, list[str]]:
    """Return each contract's names by title, less those that would do for two; contracts without one are left out.

    A name without a year also does for a contract that has the same name with one.
    """
    found = {c.title: name_contract(c.title, c.text, c.contract_type, c.filer) for c in contracts}
    times = Counter(form for own in found.values() for form in {*own, *map(_dateless, own)})
    single = {title: [name for name in own if times[name] == 1] for title, own in found.items()}
    return {title: own for title, own in single.items() if own}


def _dateless(name: str) -> str:
    return re.sub(r" of [A-Z]\w+ \d{4}$", "", re.sub(r"\b\d{4} (?=[a-z])", "", name))


def specific(question: str, name: str) -> str:
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


def named(rows: Iterable[Row], names: Mapping[str, list[str]]) -> list[Row]:
    """Return each row once for each name of its contract, the name in its question; contracts without one give none.

    Ids are "<row id>~c<n>" (n from 1), the source is "template", and the answers stay. Rows of `TOLD` are left out:
    the name says what they ask for.
    """
    return [
        Row(**{**row, "id": f"{row['id']}~c{n}", "question": specific(row["question"], name), "source": SOURCE})
        for row in rows
        if row["category"] not in TOLD
        for n, name in enumerate(names.get(row["contract"], []), start=1)
    ]
