"""Worked examples (demos) for the generator of self-instruct: a small model writes questions only after some."""

from __future__ import annotations

from typing import Any

from cuadft.metrics import NO_CLAUSE

STYLES = {
    "user": "a plain question of a business person",
    "keyword": "keywords typed into a search box",
    "lawyer": "a precise question of a lawyer",
}
_LAW = ("This Agreement is governed by the laws of the State of Oregon, without regard to its rules on conflicts of "
        "laws.")
_AUDIT = ("Once in each calendar year, and on ten days' notice, Licensor may inspect the books of Licensee that "
          "concern royalties.")
_NOTICE = ("Either party may end this Agreement for any reason or for none by sixty (60) days' written notice to the "
           "other party.")
_DELIVERY = ("The Carrier shall hand over the goods at the Buyer's warehouse on working days between eight and noon "
             "and shall unload them at its own cost.")
_WHICH_LAW = "Governing Law: Which state/country's law governs the interpretation of the contract?"
_AUDITS = "Audit Rights: Does a party have the right to audit the books of the counterparty?"

DEMOS: dict[str, list[dict[str, Any]]] = {
    "RephraseQuestion": [
        {"category": "Termination For Convenience", "clause": _NOTICE,
         "question": "Termination For Convenience: Can a party terminate this contract without cause?",
         "style": STYLES["keyword"],
         "questions": ["termination without cause notice", "right to end agreement at will",
                       "early exit for any reason"]},
        {"category": "Governing Law", "clause": _LAW, "question": _WHICH_LAW, "style": STYLES["user"],
         "questions": ["If we disagree on what the deal means, whose law decides?",
                       "What state's rules do we have to follow here?",
                       "Where was it agreed that legal questions get settled?"]},
        {"category": "Audit Rights", "clause": _AUDIT,
         "question": _AUDITS, "style": STYLES["lawyer"],
         "questions": ["May either party inspect the accounts of the other, and how often?",
                       "Who is entitled to examine royalty records?",
                       "What prior notice must be given of an inspection of the books?"]},
    ],
    "RephraseAbsent": [
        {"category": "Governing Law", "question": _WHICH_LAW, "style": STYLES["keyword"],
         "questions": ["governing law state", "applicable law clause", "choice of law jurisdiction"]},
        {"category": "Audit Rights", "question": _AUDITS, "style": STYLES["user"],
         "questions": ["Can one side look into the other's accounts?", "Are we allowed to check their records?",
                       "May somebody come and inspect our bookkeeping?"]},
    ],
    "AskAboutClause": [
        {"clause": _DELIVERY,
         "questions": ["At what times must goods be delivered?", "Who pays for unloading the goods?"]},
        {"clause": _NOTICE, "questions": ["How many days of notice does a party need to end the agreement?",
                                          "Is a reason needed to end the agreement early?"]},
    ],
    "RoundTrip": [
        {"passage": f"{_LAW} {_NOTICE}", "question": "How can a party get out of the contract early?",
         "answer": _NOTICE},
        {"passage": _DELIVERY, "question": "Is there a limit on liability?", "answer": NO_CLAUSE},
        {"passage": f"{_DELIVERY} {_AUDIT}", "question": "Who is allowed to inspect royalty records?",
         "answer": _AUDIT},
    ],
}
