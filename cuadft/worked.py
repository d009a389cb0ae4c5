"""Worked examples (demos) for the generator of self-instruct: a small model writes questions only when it has seen some."""

from __future__ import annotations

from typing import Any

from cuadft.metrics import NO_CLAUSE

_LAW = "This Agreement is governed by the laws of the State of Oregon, without regard to its rules on conflicts of laws."
_AUDIT = ("Once in each calendar year, and on ten days' notice, Licensor may inspect the books of Licensee that concern "
          "royalties.")
_NOTICE = ("Either party may end this Agreement for any reason or for none by sixty (60) days' written notice to the other "
           "party.")
_DELIVERY = ("The Carrier shall hand over the goods at the Buyer's warehouse on working days between eight and noon and "
             "shall unload them at its own cost.")

DEMOS: dict[str, list[dict[str, Any]]] = {
    "RephraseQuestion": [
        {"category": "Governing Law", "clause": _LAW,
         "question": "Governing Law: Which state/country's law governs the interpretation of the contract?",
         "questions": ["Under the laws of which state is the agreement to be read?",
                       "What jurisdiction's law did the parties choose?",
                       "If the parties disagree on what the contract means, whose law decides?"]},
        {"category": "Audit Rights", "clause": _AUDIT,
         "question": "Audit Rights: Does a party have the right to audit the books of the counterparty?",
         "questions": ["May one side look into the other's accounts, and how often?",
                       "Who is allowed to inspect royalty records?",
                       "How much warning must be given before the books are examined?"]},
    ],
    "AskAboutClause": [
        {"clause": _DELIVERY, "question": "At what times must goods be delivered, and who pays for unloading them?"},
        {"clause": _NOTICE, "question": "How many days of notice does a party need to end the agreement?"},
    ],
    "RoundTrip": [
        {"passage": f"{_LAW} {_NOTICE}", "question": "How can a party get out of the contract early?", "answer": _NOTICE},
        {"passage": _DELIVERY, "question": "Is there a limit on liability?", "answer": NO_CLAUSE},
        {"passage": f"{_DELIVERY} {_AUDIT}", "question": "Who is allowed to inspect royalty records?", "answer": _AUDIT},
    ],
}
