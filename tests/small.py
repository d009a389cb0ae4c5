"""Small made-up contracts, their questions, and a language model that follows a script."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dspy
import numpy as np
from dspy.lm15 import Message, Response, Usage

from cuadft.data.passages import Passage, cut_passages
from cuadft.rag.program import ContractQA
from cuadft.retrieval.classifier import ClauseClassifier, QuestionMatcher
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


# Many contracts for the clause classifiers: each has a clause with some probability, mostly in words that others use.
KINDS = {
    "Audit": ["may audit the books and records", "may inspect the accounts and records", "has a right to audit"],
    "Law": ["governed by the laws of Ohio", "construed under the laws of Texas", "the law of Maine governs"],
    "Cap": ["liability shall not exceed the fees", "damages are limited to the fees", "aggregate liability is capped"],
}
ASKED = {kind: f"{kind}: is there such a clause in the contract?" for kind in KINDS}
PADDING = [
    "Goods are shipped in boxes",
    "Invoices are paid in May",
    "Notices are sent by post",
    "The fees are ten dollars",
]


def clause_corpus(numbers: Iterable[int]) -> tuple[list[dict[str, Any]], list[Passage]]:
    """Return rows and passages of contracts, each with about half of the clauses of KINDS; a number always gives one.

    One clause of six is in words that stand nowhere else, one of four is there twice, and some contracts without a
    clause use half of its words, so that neither the classifiers nor their calibration can be right everywhere.
    """
    rows, texts = [], {}
    for number in numbers:
        draw, title = random.Random(number), f"Contract {number}"
        clauses: dict[str, list[str]] = {kind: [] for kind in KINDS}
        parts = [f"{draw.choice(PADDING)}, Contract {number}{n}." for n in range(4)]
        for kind, wordings in KINDS.items():
            words, more = draw.sample(wordings, 2)
            if draw.random() < 0.5:
                odd = " ".join(f"{kind.lower()}{number}{letter}" for letter in "abcdef")
                clauses[kind].append(f"Each party: {odd if draw.random() < 1 / 6 else words}.")
                clauses[kind] += [f"No party: {more}."] * (draw.random() < 1 / 4)
            elif draw.random() < 0.3:
                parts.append(f"Each party: {' '.join(words.split()[:3])}.")
        parts += [text for texts in clauses.values() for text in texts]
        draw.shuffle(parts)
        texts[title] = [f"{part}\n\n" for part in parts]
        whole = "".join(texts[title])
        for kind, question in ASKED.items():
            found = [{"text": text, "start": whole.index(text)} for text in clauses[kind]]
            row = {"id": f"{title}__{kind}", "contract": title, "contract_type": "Supply", "category": kind}
            row |= {"question": question, "answers": found, "is_impossible": not found, "source": "cuad"}
            rows.append(row)
    return rows, passages_of(texts)


class Likeness:
    """Stand in for an embedder: a question is near those that name a kind of clause as it does, else near none."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(kind.casefold() in text.casefold()) for kind in KINDS] for text in texts], np.float32)


def clause_retriever(train: Iterable[int], others: Iterable[int] = ()) -> Retriever:
    """Return a retriever over `clause_corpus`, whose classifiers have learned from the contracts `train` alone."""
    rows, passages = clause_corpus(train)
    matcher = QuestionMatcher({question: kind for kind, question in ASKED.items()}, Likeness(), least=0.5)
    classifier = ClauseClassifier.fit(rows, passages, matcher, folds=3)
    passages = passages + clause_corpus(others)[1]
    return Retriever(passages, None, mode="bm25", classifier=classifier, classifier_weight=0.9)


class Script:
    """An engine for dspy.LM that answers with `reply(messages)` and keeps every call's messages and settings."""

    def __init__(self, reply: Callable[[list[dict[str, str]]], str]) -> None:
        self.reply, self.calls, self.settings, self._lock = reply, [], [], threading.Lock()

    def complete(self, request: Any) -> Response:
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": m.role, "content": m.text} for m in request.messages]
        with self._lock:
            self.calls.append(messages)
            self.settings.append(request.config)
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
