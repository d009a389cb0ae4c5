"""What a contract's title, folder or type column tells about it: the contract type and the filer.

CUAD names a contract after its SEC filing, as "ACMECORP_05_12_2020-EX-10.1-SUPPLY AGREEMENT",
"AcmeCorp_20200512_8-K_EX-10.1_11830308_EX-10.1_Supply Agreement" or "Acme Corp. - SUPPLY AGREEMENT".
"""

from __future__ import annotations

import re

from cuadft.categories import key

# CUAD's 25 types, each with the words that announce it in a title.
_TYPES = {
    "Affiliate": r"affiliates?",
    "Agency": r"agency",
    "Co-Branding": r"co[ -]?brand(?:ing|ed)?",
    "Collaboration/Cooperation": r"collaborat(?:ion|ive)|cooperation",
    "Consulting": r"consulting|consultancy",
    "Development": r"development",
    "Distributor": r"distributors?|distributorship|distribution",
    "Endorsement": r"endorsement",
    "Franchise": r"franchise",
    "Hosting": r"hosting",
    "IP": r"intellectual property|ip",
    "Joint Venture": r"joint venture|joint filing",
    "License": r"licen[sc](?:e|ing)",
    "Maintenance": r"maintenance",
    "Manufacturing": r"manufactur(?:ing|e)",
    "Marketing": r"(?:re)?marketing",
    "Non-Compete/No-Solicit/Non-Disparagement": r"non ?compet(?:e|ition)|non? ?solicit(?:ation)?"
    r"|non ?disparagement",
    "Outsourcing": r"outsourcing",
    "Promotion": r"promotion(?:al)?",
    "Reseller": r"resellers?",
    "Service": r"services?|servicing",
    "Sponsorship": r"sponsorship",
    "Strategic Alliance": r"(?:strategic )?alliance",
    "Supply": r"supply",
    "Transportation": r"transport(?:ation)?",
}
CONTRACT_TYPES: tuple[str, ...] = tuple(_TYPES)
_BY_KEY = {key(name): name for name in CONTRACT_TYPES}
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _TYPES.items()}
_DATED = re.compile(r"(.+?)(?:_\d{1,2}_\d{1,2}_\d{4}|_\d{8}_)")
_DASHED = re.compile(r"(.+?) - (.+)")
_EXHIBIT = re.compile(r".*(?:_\d\d_\d\d_\d{4}|[_-]EX[^_-]*[_-])", re.DOTALL)
_AGREEMENT = re.compile(r"agreement|contract", re.IGNORECASE)
_ENDINGS = ["incorporated", "inc", "corporation", "corp", "limited", "ltd", "llc", "llp", "plc", "company"]
_ENDING_WORDS = frozenset((*_ENDINGS, "co", "lp", "sa", "ag", "nv", "bv", "the"))
_GLUED_ENDING = re.compile(rf"(.{{3,}}?)(?:{'|'.join(_ENDINGS)})")


def named_type(name: str) -> str:
    """Return the contract type that a type column or folder name means: "License_Agreements" means "License".

    A name outside CUAD's 25 types is kept, less a final "Agreement"; an empty name gives "".
    """
    words = " ".join(name.replace("_", " ").split())
    words = re.sub(r"\s*\b(?:agreements?|contracts?)$", "", words, flags=re.IGNORECASE)
    return _BY_KEY.get(key(words)) or _announced(words) or words


def titled_type(title: str) -> str:
    """Return the contract type that the words at a title's end announce, or "" when they announce none."""
    return _announced(_EXHIBIT.sub("", title))


def _announced(words: str) -> str:
    """Return the type announced last; Service only where nothing narrower stands beside it."""
    plain = re.sub(r"[\W_\d]+", " ", words.casefold())
    ends = {
        name: max((m.end() for m in pattern.finditer(plain)), default=0)
        for name, pattern in _PATTERNS.items()
    }
    narrower = {name: end for name, end in ends.items() if end and name != "Service"}
    if narrower:
        return max(narrower, key=lambda name: narrower[name])
    return "Service" if ends["Service"] else ""


def filer(title: str) -> str:
    """Return who filed the contract, comparable across titles: lower case, no punctuation, no Inc or Corp.

    It is what stands before a filing date, or before " - SOME AGREEMENT"; otherwise the whole title.
    """
    name = title
    if dated := _DATED.match(title):
        name = dated[1]
    elif (
        (dashed := _DASHED.match(title)) and _AGREEMENT.search(dashed[2]) and not _AGREEMENT.search(dashed[1])
    ):
        name = dashed[1]
    return _company(name) or key(title) or title


def _company(name: str) -> str:
    words = re.findall(r"[^\W_]+", name.casefold())
    while len(words) > 1 and words[-1] in _ENDING_WORDS:
        words.pop()
    joined = "".join(words)
    # "co" is no glued ending: it would turn "cisco" into "cis".
    while glued := _GLUED_ENDING.fullmatch(joined):
        joined = glued[1]
    return joined
