"""Questions in other languages pass the filters, and are rejected for what they lack, never for their script."""

from __future__ import annotations

import numpy as np
import pytest
import tongues

from cuadft.data.passages import cut_passages
from cuadft.data.schema import packaged_schema
from cuadft.selfinstruct.filters import _answer_fault, filter_questions
from cuadft.selfinstruct.generate import tidy_question
from cuadft.selfinstruct.own import place_own_questions
from cuadft.selfinstruct.sources import seed_from_row

QUESTIONS = [
    (tongues.LEASE, "Welchem Recht unterliegt der Gewerbemietvertrag?"),
    (tongues.NOTICE, "¿Bajo qué legislación se interpreta el aviso?"),
    (tongues.SERVICES, "合同应当依照什么法律解释？"),
]


class Alike:
    """An embedder for which all texts are alike."""

    def encode(self, texts):
        return np.ones((len(texts), 1), np.float32)


def candidate(contract, question, number=1, **more):
    """Return a candidate on the document's governing law, as a language model would have rephrased it."""
    (row,) = [row for row in contract.rows if row["category"] == "Governing Law"]
    seed = seed_from_row(row, cut_passages(contract.text, contract=contract.title, size=200))
    made = {"id": f"{row['id']}~s{number}", "raw": question, "question": question, "error": None, "style": "user"}
    return seed | made | {"expect": ""} | more


def filtered(*candidates, rows=(), **more):
    accepted, rejected = filter_questions(candidates, list(rows), embedder=Alike(), **more)
    return [row["question"] for row in accepted], [(c["question"], c["reason"], c["detail"]) for c in rejected]


@pytest.mark.parametrize("contract, asked", QUESTIONS)
def test_a_question_in_another_language_is_accepted_and_its_copy_is_a_duplicate(contract, asked):
    again = candidate(
        contract, asked.replace("什么", "何种").replace("Recht", "Gesetz").replace("legislación", "ley"), 2
    )
    accepted, ((_, reason, _),) = filtered(candidate(contract, asked), again, rows=contract.rows)
    assert accepted == [asked] and reason == "duplicate"


@pytest.mark.parametrize(
    "question",
    [
        "أي قانون يحكم هذا العقد؟",
        "इस अनुबंध पर कौन सा कानून लागू होता है?",
        "Каким правом регулируется договор?",
        "準拠法はどこの国の法律ですか？",
    ],
)
def test_a_question_in_any_script_has_words_and_its_own_question_mark(question):
    assert filtered(candidate(tongues.SERVICES, question)) == ([question], [])


def test_what_is_wrong_with_a_chinese_question_is_told():
    def fault(question, **more):
        ((_, reason, detail),) = filtered(candidate(tongues.SERVICES, question, **more))[1]
        return f"{reason}: {detail}"

    assert fault("适用法律") == "format: does not end with a question mark"
    assert fault("谁？") == "format: 1 words, 4 to 50 wanted"
    assert fault("合同的订立、效力、解释、履行以及争议的解决依何法？").startswith("format: copies 16 words in a row")
    assert fault("合同" * 60 + "？").startswith("format: 120 words")
    assert filtered(candidate(tongues.SERVICES, "合同适用的法律", style="keyword")) == (["合同适用的法律"], [])


def test_a_common_name_is_no_copy_of_a_held_out_contract_but_a_clause_is():
    held_out = {"X": "本合同适用中华人民共和国法律，任何一方均可向甲方所在地的人民法院提起诉讼。"}
    ask = lambda question: filtered(candidate(tongues.SERVICES, question), held_out_texts=held_out)  # noqa: E731
    assert ask("是否适用中华人民共和国法律？")[1] == []
    ((_, reason, _),) = ask("任何一方均可向甲方所在地的人民法院提起诉讼吗，在什么情况下？")[1]
    assert reason == "overlap"


def test_a_chinese_quotation_counts_its_letters_as_words():
    asked = candidate(tongues.SERVICES, "服务费分几期支付？", expect="quotation")
    asked |= {"passage": tongues.SERVICES.text, "start": 0}
    words = "分四期支付"
    assert _answer_fault(asked, f"「{words}」。", None) is None
    assert asked["answers"] == [{"text": words, "start": tongues.SERVICES.text.index(words)}]
    assert _answer_fault(asked, "四期", None)[1].startswith("not a quotation of 3 words")


def test_an_own_question_is_placed_by_its_chinese_answer():
    from cuadft.core.files import TableRow

    values = {"question": "违约金怎么算？", "contract": "", "category": "", "answer": "万分之五向乙方支付违约金"}
    passages = {c.title: cut_passages(c.text, contract=c.title, size=200) for c in tongues.CONTRACTS}
    (placed,) = place_own_questions([TableRow("a", values)], [], passages, packaged_schema())
    assert "fault" not in placed and placed["contract"] == tongues.SERVICES.title
    (span,) = placed["answers"]
    assert tongues.SERVICES.text.startswith(span["text"], span["start"])


def test_list_marks_and_quotation_marks_of_other_languages_are_dropped():
    assert tidy_question("1、「适用哪国法律？」") == tidy_question("１．适用哪国法律？") == "适用哪国法律？"
    assert tidy_question("„Welches Recht gilt?“") == "Welches Recht gilt?"
    assert tidy_question("«¿Qué ley se aplica?»") == "¿Qué ley se aplica?"
