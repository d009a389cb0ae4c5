"""Small made-up contracts, their questions, and a language model that follows a script."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dspy
from dspy.lm15 import Message, Response, Usage

from cuadft.data.passages import Passage, cut_passages
from cuadft.rag.program import ContractQA
from cuadft.retrieval.retriever import Retriever

QUESTIONS = {
    "Governing Law": "Governing Law: Which state's law governs the contract?",
    "Audit Rights": "Audit Rights: Does a party have the right to audit the books and records of the other?",
    "Cap On Liability": "Cap On Liability: Is there a cap on the liability of a party?",
    "Renewal Term": "Renewal Term: What is the renewal term after the initial term expires?",
}
CLAUSES = {
    "Governing Law": "This Agreement is governed by the law of {place}, and the law of no other state.",
    "Audit Rights": "{name} may audit the books and records of the Distributor once in each year.",
    "Cap On Liability": "The liability of either party under this Agreement shall not exceed {sum} dollars.",
    "Renewal Term": "After the initial term expires, the renewal term is {years} years unless notice is given.",
}
FACTS = [
    ("Ohio", "Acme", "10,000", "two"),
    ("Texas", "Binder", "25,000", "three"),
    ("Nevada", "Copper", "40,000", "five"),
    ("Maine", "Dynamo", "75,000", "four"),
]
FILLER = "The Distributor shall pay all invoices of {name} within thirty days of the end of each calendar month."


def passages_of(texts: dict[str, list[str]]) -> list[Passage]:
    """Return each contract's texts as its passages, one after another."""
    made = []
    for contract, parts in texts.items():
        start = 0
        for index, text in enumerate(parts):
            made.append(Passage(contract, index, start, start + len(text), text))
            start += len(text)
    return made


def _contract(number: int) -> tuple[str, str, list[dict[str, Any]]]:
    """Return title, text and rows of contract `number`, which lacks the clause of that place in CLAUSES."""
    place, name, amount, years = FACTS[number]
    title, facts = f"{name} Distribution Agreement", {"place": place, "name": name, "sum": amount, "years": years}
    clauses = {c: text.format(**facts) for n, (c, text) in enumerate(CLAUSES.items()) if n != number}
    text = f"{title.upper()}\n\n" + "\n\n".join(f"{FILLER.format(**facts)}\n\n{clause}" for clause in clauses.values())
    rows = []
    for category, question in QUESTIONS.items():
        answers = [{"text": clauses[category], "start": text.index(clauses[category])}] if category in clauses else []
        rows.append(
            {
                "id": f"{title}__{category}",
                "contract": title,
                "contract_type": "Distributor",
                "category": category,
                "question": question,
                "answers": answers,
                "is_impossible": not answers,
                "source": "cuad",
            }
        )
    return title, text, rows


TEXTS = {title: text for title, text, _ in map(_contract, range(4))}
ROWS = [row for number in range(4) for row in _contract(number)[2]]  # 16 rows, 4 of them unanswerable


def retriever(size: int = 120) -> Retriever:
    """Return a BM25 retriever over the contracts, without embeddings."""
    return Retriever(
        [p for title, text in TEXTS.items() for p in cut_passages(text, contract=title, size=size)], None, mode="bm25"
    )


def program(k: int = 2) -> ContractQA:
    """Return the uncompiled program."""
    return ContractQA(retriever(), k=k)


class Script:
    """An engine for dspy.LM that answers with `reply(messages)` and keeps the messages of every call."""

    def __init__(self, reply: Callable[[list[dict[str, str]]], str]) -> None:
        self.reply, self.calls, self._lock = reply, [], threading.Lock()

    def complete(self, request: Any) -> Response:
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": m.role, "content": m.text} for m in request.messages]
        with self._lock:
            self.calls.append(messages)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(self.reply(messages)),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )

    def lm(self, name: str = "script", **settings: Any) -> dspy.LM:
        """Return a dspy.LM that this script answers."""
        return dspy.LM(
            f"local/{name}", engine=self, **{"max_tokens": 32, "temperature": 0.0, "cache": False} | settings
        )


def first_clause(messages: list[dict[str, str]]) -> str:
    """Reply with the last passage of the prompt, as a model that always copies would."""
    return messages[-1]["content"].split("<passage>")[-1].split("</passage>")[0]
