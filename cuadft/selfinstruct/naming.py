"""Name a contract in a question, so that the question can be asked of all contracts at once.

A name is made of the contract's type and its first two parties, as annotated; without them it is the title. For
example:

    contract_names(contracts)["X"]  # "the Supply agreement between Acme Inc and Bolt Ltd"
    insert_name("Which law governs the contract?", "the Supply agreement between Acme Inc and Bolt Ltd")
    # "Which law governs the Supply agreement between Acme Inc and Bolt Ltd?"
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from cuadft.core.text import fold_letters
from cuadft.data.contracts import Contract

TOLD_BY_NAME = ("Document Name", "Parties", "Agreement Date", "Effective Date")  # categories that a name gives away
_PARTY = re.compile(
    r"[^\W_a-z][\w.,&'’/-]*(?: [\w.,&'’()/-]+){1,7}"
)  # words of a name; one alone may be a role ("Buyer")
_CONTRACT_ITSELF = re.compile(  # the words for the contract, but not in "the contract's term" or "the contract term"
    r"\b(?:the|this) (?:contract|agreement|deal)\b(?!['’-]| (?:terms?|dates?|periods?|prices?|years?)\b)", re.IGNORECASE
)


def contract_names(contracts: Iterable[Contract]) -> dict[str, str]:
    """Return a name for each contract, by title; each name fits one contract only."""
    named = {contract.title: _name(contract) for contract in contracts}
    times = Counter(named.values())
    return {title: name if times[name] == 1 else f"the contract “{title}”" for title, name in named.items()}


def insert_name(question: str, name: str) -> str:
    """Return a question, or search words, with the contract's name in it."""
    if _CONTRACT_ITSELF.search(question):
        return _CONTRACT_ITSELF.sub(lambda _: name, question, count=1)
    return f"Regarding {name}: {question}" if "?" in question else f"{question}, {name}"


def _name(contract: Contract) -> str:
    parties: list[str] = []
    for span in (span for row in contract.rows if row["category"] == "Parties" for span in row["answers"]):
        text = " ".join(span["text"].split()).strip(" ,.")  # a final point would end search words
        if _PARTY.fullmatch(text) and not any(fold_letters(text) in fold_letters(known) for known in parties):
            parties.append(text)
    kind = f"{contract.contract_type} agreement".strip()
    return f"the {kind} between {' and '.join(parties[:2])}" if len(parties) > 1 else f"the contract “{contract.title}”"
