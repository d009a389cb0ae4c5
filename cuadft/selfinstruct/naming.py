"""Name a contract in a question as a person would, "the 2016 alliance with Energous", to ask it of all contracts.

A name is made of the year, the kind of contract and the parties without their legal forms, as the contract's title, its
opening lines and its filer tell them. What can't be read off reliably is left out; a contract whose parties can't be
read has no name. The parties are the names that follow "by and between" in the opening. For example:

    names = contract_names(contracts)  # {"ENERGOUS_2016_...": ["the 2016 alliance with Energous", ...]}
    insert_name("Which law governs the contract?", "the 2016 alliance with Energous")
    # "Which law governs the 2016 alliance with Energous?"
    found, start = read_parties('... by and between Acme Corp., a Delaware corporation, and Energous GmbH ("Energous")')
    found[0]  # Party(full="Acme Corp.", name="Acme")
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cuadft.core.text import fold_words
from cuadft.data import cuad
from cuadft.data.contracts import Contract, Row
from cuadft.evaluation import evidence
from cuadft.selfinstruct.sources import TEMPLATE_SOURCE

TOLD_BY_NAME = ("Document Name", "Parties", "Agreement Date", "Effective Date")  # categories that a name gives away
_OPENING_LENGTH = 6000  # characters to read; a cover page and a table of contents may stand before the parties
_DATE_REACH = 300  # characters around the parties within which the contract's own date stands
_KINDS_BY_TYPE = {  # where a contract's type and the word "agreement" do not make the kind
    "Co-Branding": "co-branding agreement",
    "Collaboration/Cooperation": "collaboration agreement",
    "Distributor": "distribution agreement",
    "IP": "intellectual property agreement",
    "Service": "services agreement",
    "Non-Compete/No-Solicit/Non-Disparagement": "restrictive covenant agreement",
}
# What a title may say that names the kind of contract more closely than its type does.
_KINDS_IN_TITLES = re.compile(
    r"joint filing (?:agreement|statement)|cooperation agreement|non-?competition agreement"
    r"|master services? agreement|transportation (?:services? )?agreement|remarketing agreement"
    r"|manufacturing and supply agreement|(?:web ?site|web) hosting agreement"
    r"|(?:trademark|content|software) license agreement",
    re.IGNORECASE,
)
_AMENDED = re.compile(r"\bamend", re.IGNORECASE)
_DATE_CUE = re.compile(  # what stands a few words before the contract's own date
    r"(?:dated|as of|made|entered|effective|executed|this|on|date:?)\W+(?:\w+\W+){0,4}$", re.IGNORECASE
)
_ORDINAL = re.compile(r"(\d)\s*(?:s\s*t|n\s*d|r\s*d|t\s*h)\b", re.IGNORECASE)  # PDF text holds "1s t day of May"
_FILING_DATE = re.compile(r"_(?:\d{1,2}_\d{1,2}_((?:19|20)\d\d)|((?:19|20)\d\d)\d{4}_)")
_CONTRACT_ITSELF = re.compile(  # the words for the contract, but not in "the contract's term" or "the contract term"
    r"\b(?:the|this) (?:contract|agreement|deal)\b(?!['’-]| (?:terms?|dates?|periods?|prices?|years?)\b)",
    re.IGNORECASE,
)
_KEEPS_CAPITAL = re.compile(r"(?:[A-Z]{2,}|I)\b")  # a first word that stays as it is inside a sentence


# --- names in questions


def contract_names(contracts: Iterable[Contract]) -> dict[str, list[str]]:
    """Return each contract's names by title, without a name that fits two contracts; a contract may have no name left.

    A name without a year also fits a contract that has the same name with a year.
    """
    found = {c.title: possible_names(c.title, c.text, c.contract_type, c.filer) for c in contracts}
    times = Counter(form for own in found.values() for form in {*own, *map(_dateless, own)})
    single = {title: [name for name in own if times[name] == 1] for title, own in found.items()}
    return {title: own for title, own in single.items() if own}


def rows_with_names(rows: Iterable[Row], names: Mapping[str, list[str]]) -> list[Row]:
    """Return each row once for each name of its contract, with the name in its question.

    Ids are "<row id>~c<n>" (n from 1), the source is "template", and the answers stay. Left out are rows whose contract
    has no name, and rows of a category in TOLD_BY_NAME: there the name itself would answer the question.
    """
    return [
        Row(
            **{
                **row,
                "id": f"{row['id']}~c{n}",
                "question": insert_name(row["question"], name),
                "source": TEMPLATE_SOURCE,
            }
        )
        for row in rows
        if row["category"] not in TOLD_BY_NAME
        for n, name in enumerate(names.get(row["contract"], []), start=1)
    ]


def insert_name(question: str, name: str) -> str:
    """Return a question, a "Category: question" or search words with the contract's name in it."""
    question = question.strip()
    if _CONTRACT_ITSELF.search(question):
        return _CONTRACT_ITSELF.sub(lambda _: name, question, count=1)
    if "?" not in question:
        return f"{question}, {name}"
    place = question.find(": ", 0, question.index("?")) + 2 if ": " in question[: question.index("?")] else 0
    asked = question[place:]
    first = asked if _KEEPS_CAPITAL.match(asked) else asked[:1].lower() + asked[1:]
    return f"{question[:place]}In {name}, {first}"


def _dateless(name: str) -> str:
    return re.sub(r" of [A-Z]\w+ \d{4}$", "", re.sub(r"\b\d{4} (?=[a-z])", "", name))


# --- the names of one contract


def possible_names(title: str, text: str, contract_type: str, filer: str) -> list[str]:
    """Return ways to refer to a contract, or [] if its parties can't be read off reliably.

    The first name is from the filer's side: "the 2016 alliance with" the other party. `filer` is comparable, as
    `cuad.filer` returns it. The names agree with each other and are distinct.
    """
    named, place = read_parties(text[:_OPENING_LENGTH])
    kind = _kind(title, contract_type)
    if not kind or len(named) < 2 or named[0].name == named[1].name:
        return []
    year, month = _date(title, text, place)
    one, two = named[:2]
    if _filed_by(two, filer) and not _filed_by(one, filer):
        one, two = two, one
    if len(named) > 2 or _filed_by(one, filer) == _filed_by(two, filer):
        others = " and ".join((one.name, two.name)) if len(named) == 2 else f"{one.name}, {two.name} and others"
        found = [f"the {_with_year(year, kind)} between {others}"]
    else:
        short = kind.replace("strategic alliance agreement", "alliance")
        found = [f"the {_with_year(year, short)} with {party.name}" for party in (two, one)]
        found.append(f"{_genitive(one.name)} {_with_year(year, kind)} with {two.name}")
    if month:
        found.append(f"{_genitive(one.name)} {kind} of {month} {year}")
    return list(dict.fromkeys(found))


def _kind(title: str, contract_type: str) -> str:
    """Return the kind of contract ("supply agreement") that its title, or else its type, names; "" if neither does."""
    if own := _KINDS_IN_TITLES.search(re.sub(r"[\s_]+", " ", title)):
        kind = own[0].casefold()
    elif contract_type in cuad.CONTRACT_TYPES:
        kind = _KINDS_BY_TYPE.get(contract_type, f"{contract_type.casefold()} agreement")
    else:
        return ""
    return f"amendment to the {kind}" if _AMENDED.search(title) else kind


def _date(title: str, text: str, place: int) -> tuple[str, str]:
    """Return (year, month) of the contract's date; "" for a part that the lines around its parties leave uncertain.

    A contract is not made after it was filed, and a filing holds no contract older than twenty years.
    """
    if place < 0 or _AMENDED.search(title):
        return "", ""  # beside an amendment's own date stands that of what it amends
    beside = _ORDINAL.sub(r"\1", text[max(0, place - _DATE_REACH) : place + 2 * _DATE_REACH])
    found = [match for form in evidence.DATE_FORMS for match in form.finditer(beside)]
    found = [match for match in found if _DATE_CUE.search(beside[: match.start()][-60:])]
    filed = _FILING_DATE.search(title)
    last = int(filed[1] or filed[2]) if filed else 2100
    first = last - 20 if filed else 1900
    years = {match["y"] for match in found if first <= int(match["y"]) <= last}
    if len(years) != 1:
        return "", ""
    (year,) = years
    months = {evidence.MONTH_NUMBERS.get(match["m"].lower(), "") for match in found if match["y"] == year}
    month = months.pop() if len(months) == 1 else ""
    return year, evidence.MONTH_NAMES[int(month) - 1].capitalize() if month else ""


def _filed_by(party: Party, filer: str) -> bool:
    own = cuad.filer(party.name)
    shared = min(6, len(own), len(filer))
    return shared > 2 and own[:shared] == filer[:shared]


def _with_year(year: str, kind: str) -> str:
    return f"{year} {kind}".strip()


def _genitive(name: str) -> str:
    if name.endswith(("'s", "’s")):
        return name  # Reed's is a name and its own genitive
    return f"{name}'" if name.endswith("s") else f"{name}'s"


# --- who a contract is between


_LONGEST_NAME = 9  # words
_PARTIES_REACH = 900  # characters from "between" within which the parties are named
_BETWEEN = re.compile(r"\b(?:by\s+and\s+between|by\s+and\s+among|between|among)\b[\s,:]*", re.IGNORECASE)
_LEGAL_FORM = (
    r"Inc|Incorporated|Corp|Corporation|Co|Company|LLC|L\.\s?L\.\s?C|LLP|Ltd|Limited|Private|LP|L\.\s?P|PLC|GmbH|AG"
    r"|Aktiengesellschaft|S\.?A(?:\.S)?|N\.?V|B\.?V|S\.?p\.?A|S\.?r\.?l|N\.?A|Pty|Pte|K\.?K|AB|A/S|KG|Bhd"
)
_FORM_AT_END = re.compile(rf"[\s,]+(?:{_LEGAL_FORM})\b\.?$", re.IGNORECASE)
_LAST_FORM = r"Inc|Incorporated|Corp|Corporation|LLC|LLP|Ltd|Limited|PLC|GmbH"  # these always end a name
_FORM_WITHIN = re.compile(  # legal forms or ".com" with which a name ends, though text follows
    rf"(?:(?<=[\s,])(?=[A-Z])(?:(?:{_LAST_FORM})\b\.?|(?:{_LEGAL_FORM})\b\.?(?=\s*(?:,|$)))|(?<=\w)\.com\b)"
    rf"(?:[\s,]+(?=[A-Z])(?:{_LEGAL_FORM})\b\.?)*",
    re.IGNORECASE,
)
_PLACE_IN_NAME = r"\s*[A-Za-z.\s]{2,20}\)"  # a bracket that belongs to a name: Dialog Semiconductor (UK) Ltd.
# What ends a name: a definition, a description, or the next party.
_NAME_STOP = re.compile(
    rf"[\[;:“\"_]|\((?!{_PLACE_IN_NAME}\s+(?i:{_LEGAL_FORM})\b)|,?\s+of(?=\s[\w\s]*\d)"
    r"|,?\s+(?:an?|as|with|whose|having|located|organi[sz]ed|hereinafter|hereafter|herein|its|is|at|dba"
    r"|d/b/a|f/k/a|doing|acting|through|on|for|who|which|together|collectively|dated|effective|regarding|each|both"
    r"|individually|in|under|formerly|residing)\b"
    r"|,?\s+(?:and|AND|And)\s+(?:between\s+)?(?=\W*(?:the\s+)?[\w(\"])|,\s+(?=\d|[a-z])|\.\s|\s{2,}(?=[A-Z]{2,}\s*:)",
)
_NEXT_PARTY = re.compile(r"(?:\band\b|\bAND\b|\bAnd\b|;|,|\(\s*(?:[2-9]|ii|iii|[b-f])\s*\)|\n)\s*")
# Signs that a text holds two names. "and" with one more word belongs to a name (Louisville Gas and Electric Company);
# before three or more words it stands between two names.
_SECOND_NAME = re.compile(r"\band\s+(?:\S+\s+\S+\s+\S+|.*,)|\bthe\b.*\bcompany$", re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^(?:[\s,:\-–—]|\(\s*(?:\d|[a-z]|i+)\s*\)|\d[.)]\s|(?:the|by|and|between|Messrs\.)\s)+", re.IGNORECASE
)
_DEFINITION = re.compile(
    r"^\s*,?\s*(?:an individual|\(?\s*(?:the\s+)?[“\"]|\(?\s*here(?:in|after)"
    r"|,?\s*an?\s+[\w\s]{0,40}?(?:corporation|company|partnership|limited))"
)
_ROLE_WORDS = frozenset(
    "affiliate agent agreement bank buyer client company consultant contractor corporation customer developer "
    "distributor employee employer endorser executive franchisee franchisor fund holder licensee licensor manager "
    "manufacturer owner parties partner partners partnership party provider purchaser recipient reseller seller "
    "shareholder shipper sponsor supplier talent transporter trust undersigned user vendor you us we me him her them "
    "this that these those such any all other subsidiary subsidiaries affiliates individual engagement click section "
    "article exhibit whereas witnesseth".split()
)
_SHORT_WORDS = frozenset("air gas new net oil one sea sun two web".split())  # in capitals no initials, as IBM is
_SMALL_WORDS = frozenset(("of", "and", "the", "for", "de", "in", "on", "at"))


@dataclass(frozen=True)
class Party:
    """One party: its full name as it stands in the contract, and its name as a reader says it."""

    full: str
    name: str


def read_parties(opening: str) -> tuple[list[Party], int]:
    """Return the first two or three parties, and where their naming starts in `opening`; ([], -1) if it names none.

    A name counts if it has a legal form ("Inc.", "GmbH") or if its definition follows ("... (the "Sponsor")"). A third
    party is returned so that a contract between two can be told from one between several.
    """
    for start in _BETWEEN.finditer(opening):
        found = _listed_parties(opening[start.end() : start.end() + _PARTIES_REACH])
        if len(found) > 1:
            return found, start.start()
    return [], -1


def _listed_parties(text: str) -> list[Party]:
    """Return the parties, at most three, that a text lists from its start on."""
    first, end = _first_party(text)
    if first is None:
        return []
    found = [first]
    for gap in _NEXT_PARTY.finditer(text):
        if gap.start() < end or len(found) == 3:
            continue
        party, length = _first_party(text[gap.end() :])
        if party and gap[0].startswith(",") and not _FORM_AT_END.search(party.full):
            continue  # after a comma stand places, titles and descriptions too
        if party and not any(known.name.casefold().endswith(party.name.casefold()) for known in found):
            if len(found) == 2 and not _goes_on(text[end : gap.end()]):
                break
            found.append(party)
            end = gap.end() + length
    return found


def _goes_on(between: str) -> bool:
    """Say whether the list of parties goes on after these words: no sentence has ended in them, no recital begun."""
    return not re.search(r"[.;]\s+[A-Z]|WHEREAS|RECITALS|WITNESS|BACKGROUND|\d{4}\)?\W+[A-Z]", between)


def _first_party(text: str) -> tuple[Party | None, int]:
    """Return the party that a text starts with and where its name ends, or (None, 0)."""
    mark = _LEAD_IN.match(text)
    skipped = mark.end() if mark else 0
    rest = text[skipped:]
    for stop in list(_NAME_STOP.finditer(rest, 0, 160))[:2]:
        raw = rest[: stop.start()]
        ended = next((match for match in _FORM_WITHIN.finditer(raw) if _is_capital(match[0])), None)
        full = " ".join(raw[: ended.end() if ended else None].split()).strip(" ,")
        if _is_name(full, formal=bool(ended), after=rest[len(raw) :]):
            return Party(full, spoken_name(full)), skipped + (ended.end() if ended else len(raw))
        if not re.match(r",?\s+and\b", stop[0], re.IGNORECASE):
            break  # only "and" may belong to a name
    return None, 0


def _is_name(full: str, *, formal: bool, after: str) -> bool:
    """Say whether a text is one party's name; formal: it has a legal form; after: the words that follow it."""
    words = full.split()
    own = [word for word in words if word.casefold() not in _SMALL_WORDS]
    if not own or len(words) > _LONGEST_NAME or not full[0].isalnum() or not all(map(_may_stand_in_name, own)):
        return False
    if set(fold_words(spoken_name(full))) <= _ROLE_WORDS | _SMALL_WORDS or _SECOND_NAME.search(full):
        return False
    if "," in spoken_name(full) or re.search(r"\d{5}|\bPh\.?D\b", full):
        return False  # an address, or two names
    if formal:
        return True
    said = {word.casefold().strip(",.") for word in own}
    plain = 1 < len(words) < 7 and not said & _ROLE_WORDS and not re.search(r"\d", full)
    return plain and bool(_DEFINITION.match(after))


def _is_capital(form: str) -> bool:
    """Say whether a legal form starts with a capital letter; ".com" counts as if it did."""
    return form.startswith(".") or form.strip(" ,")[:1].isupper()


def _may_stand_in_name(word: str) -> bool:
    """Say whether a word may stand in a name: it is "&" or has a capital, digit or inner dot (iBio, drkoop.com)."""
    return word == "&" or any(letter.isupper() or letter.isdigit() for letter in word) or "." in word.strip(".,")


def spoken_name(full: str) -> str:
    """Return a party's name without its legal form, and not in capitals: "ADAMS GOLF, LTD." becomes "Adams Golf"."""
    name = full.strip(" ,")
    while (ending := _FORM_AT_END.search(name)) and ending.start() > 1:
        name = name[: ending.start()].strip(" ,&")
    name = re.sub(rf"\s+\({_PLACE_IN_NAME}$", "", name)
    name = re.sub(r"^the\s+", "", name, flags=re.IGNORECASE)
    if name.upper() == name:
        formal = name != full.strip(" ,")
        name = " ".join(_cased(word, n, formal) for n, word in enumerate(name.split()))
    return name


def _cased(word: str, place: int, formal: bool) -> str:
    """Return a word in capitals as a reader writes it; place: its number in the name; formal: a legal form follows."""
    if place and word.casefold() in _SMALL_WORDS:
        return word.casefold()
    if re.search(r"\.(?:com|net|org)$", word, re.IGNORECASE):
        return word.capitalize()
    letters = re.sub(r"\W", "", word)
    initials = formal and len(letters) < 4 and letters.casefold() not in _SHORT_WORDS  # IBM Corp., but Tom Watson
    if initials or "." in word.strip(".") or not re.search(r"[AEIOUY]", letters):
        return word
    return re.sub(r"[^-/]+", lambda part: part[0][:1] + part[0][1:].casefold(), word)
