"""Properties of a user's own questions: placed exactly, refused with a reason, held-out contracts never used."""

import json

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM
from small import QUESTIONS, ROWS, TEXTS

from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.data.passages import cut_passages
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.selfinstruct.filters import filter_questions
from cuadft.selfinstruct.own import OwnQuestions, read_own_questions

TITLES = list(TEXTS)
TRAIN, HELD_OUT = TITLES[:3], TITLES[3]  # contract n lacks the n-th clause: Governing Law, Audit Rights, Cap, Renewal
TRAIN_ROWS = [row for row in ROWS if row["contract"] in TRAIN]
PASSAGES = {title: cut_passages(TEXTS[title], contract=title, size=120) for title in TRAIN}


class Encoder:
    """Texts are alike as far as they share a topic word; those without one are like nothing else."""

    topics = ("law", "audit", "liability", "renewal")

    def encode(self, texts):
        found = [[float(word in text.lower()) for word in self.topics] for text in texts]
        made = np.array([[*v, float(not any(v)) * 1e-3] for v in found], np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def own(**values):
    asker = OwnQuestions(TRAIN_ROWS, PASSAGES, held_out={HELD_OUT}, embedder=Encoder(), seed=7)
    given = {"question": "", "contract": "", "category": "", "answer": ""} | values
    return asker.candidates([TableRow("own.csv, row 1", given)])


def run(candidates, *answers):
    replies = DummyLM([{"answer": answer} for answer in answers])
    with dspy.context(lm=replies, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return filter_questions(candidates, TRAIN_ROWS, embedder=Encoder(), held_out_texts={HELD_OUT: TEXTS[HELD_OUT]})


@pytest.mark.filterwarnings("ignore:.*columns left out")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", "Question,Contract title,other\nWho may audit?,Acme,x\nWhen?,,\n"),
        ("own.csv", "\ufeffQUESTION;title\nWho may audit?;Acme\nWhen?;\n"),
        ("own.jsonl", '{"question": "Who may audit?", "contract": "Acme"}\n{"question": "When?", "answer": null}\n'),
        ("own.json", json.dumps([{"question": "Who  may\n audit?", "contract": "Acme"}, {"question": "When?"}])),
    ],
)
def test_files_of_every_kind_give_the_same_records(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    values = [record.values for record in read_own_questions(tmp_path / name)]
    assert values == [
        {"question": "Who may audit?", "contract": "Acme", "category": "", "answer": ""},
        {"question": "When?", "contract": "", "category": "", "answer": ""},
    ]


def test_of_two_columns_for_one_thing_the_filled_one_counts_and_unknown_ones_are_named(tmp_path):
    (tmp_path / "own.csv").write_text(
        "contract,title,question,Answers\nAcme,,Who may audit?,x\n,Acme,Who may audit?,y\n"
    )
    with pytest.warns(UserWarning, match="columns left out: Answers .those read: question"):
        records = read_own_questions(tmp_path / "own.csv")
    assert [record.values["contract"] for record in records] == ["Acme", "Acme"]


def test_a_file_without_questions_is_refused(tmp_path):
    (tmp_path / "own.csv").write_text("text,contract\nWho may audit?,Acme\n")
    with pytest.raises(InputError, match="no column 'question'.*question, contract, category, answer"):
        read_own_questions(tmp_path / "own.csv")


def test_an_answer_is_found_in_the_contract_with_exact_offsets_and_needs_no_language_model():
    for contract in ("", TITLES[1]):
        made = own(
            question="How large may liability get?", contract=contract, answer="shall not   exceed 25,000 DOLLARS"
        )
        ((row,), rejected) = run(made)
        (answer,) = row["answers"]
        assert rejected == [] and row["contract"] == TITLES[1] and row["source"] == "own" and not row["is_impossible"]
        assert answer["text"] == "shall not exceed 25,000 dollars"
        assert TEXTS[TITLES[1]][answer["start"] :].startswith(answer["text"])


def test_titles_and_categories_match_whatever_case_and_punctuation():
    (made,) = own(question="May they audit us?", contract=TITLES[0].upper() + ".", category="audit-rights")
    assert (made["contract"], made["category"]) == (TITLES[0], "Audit Rights")


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"contract": HELD_OUT}, "held out (dev, test or slice)"),
        ({"contract": HELD_OUT.lower(), "answer": "four years"}, "held out (dev, test or slice)"),
        ({"contract": "Acme Distribution Agremeent"}, f"nearest: '{TITLES[0]}'"),
        ({"category": "Audit Right"}, "nearest: Audit Rights"),
        ({"contract": TITLES[0], "answer": "four score dollars"}, "does not stand in"),
        ({"answer": "four score dollars"}, "stands in no training contract"),
        ({"answer": "the renewal term is"}, "stands in 2 training contracts"),
        ({"answer": "Maine"}, "stands in no training contract"),  # of the held-out contract
        ({"answer": NO_CLAUSE}, "needs its contract"),
        (
            {"contract": TITLES[0], "category": "Audit Rights", "answer": NO_CLAUSE},
            "Audit Rights is annotated: Acme may audit",
        ),
    ],
)
def test_what_can_not_be_placed_is_rejected_with_the_reason(values, detail):
    if "the renewal" in values.get("answer", ""):
        detail = "stands in 3 training contracts"  # contract 3, held out, is the one that lacks it
    accepted, rejected = run(own(question="Is there an audit of the books?", **values))
    assert accepted == [] and [c["reason"] for c in rejected] == ["reference"]
    assert detail in rejected[0]["detail"] and rejected[0]["where"] == "own.csv, row 1"


def test_a_category_takes_its_annotated_clauses_and_an_absent_one():
    made = own(question="Is one side allowed to audit the other?", category="Audit Rights")
    assert {c["contract"]: c["expect"] for c in made} == dict.fromkeys(TRAIN, "")  # the label is annotated
    accepted, rejected = run(made)
    # "Acme may audit ..." and "Copper may audit ...", else word for word: asked once
    assert [c["reason"] for c in rejected] == ["duplicate"] and {row["is_impossible"] for row in accepted} == {
        True,
        False,
    }
    golds = {row["contract"]: row["answers"] for row in TRAIN_ROWS if row["category"] == "Audit Rights"}
    assert all(row["answers"] == golds[row["contract"]] for row in accepted)


def test_a_bare_question_is_taken_for_the_nearest_category_and_then_the_lm_must_confirm_it():
    made = own(question="Does liability have a limit of some kind?")
    assert {c["category"] for c in made} == {"Cap On Liability"} and {c["expect"] for c in made} == {"gold", "refusal"}
    answers = [c["clause"] if c["expect"] == "gold" else NO_CLAUSE for c in made]
    accepted, _ = run(made, *answers)
    assert len(accepted) == 3
    accepted, rejected = run(made, *["something else entirely"] * 3)
    assert accepted == [] and {c["reason"] for c in rejected} == {"unanswerable", "answerable"}


def test_a_question_like_no_category_is_answered_by_a_quotation():
    (made,) = own(question="When must the Distributor pay invoices?", contract=TITLES[2])
    assert made["expect"] == "quotation" and made["category"] == "Other"
    ((row,), _) = run([made], "within thirty days")
    (answer,) = row["answers"]
    assert TEXTS[TITLES[2]][answer["start"] :].startswith("within thirty days")
    _, rejected = run([made], "in ninety days or so")
    assert [c["reason"] for c in rejected] == ["unanswerable"]


def test_a_row_without_a_question_that_names_a_held_out_contract_is_only_rejected():
    accepted, rejected = run(own(contract=HELD_OUT))
    assert accepted == [] and [c["reason"] for c in rejected] == ["reference"]


def test_a_title_in_the_question_names_the_contract():
    (made,) = own(question=f"Under the {TITLES[0]}, is one side allowed to audit the other?", category="Audit Rights")
    assert made["contract"] == TITLES[0] and made["answers"]
    accepted, rejected = run(own(question=f"Under the {HELD_OUT.lower()}, who may audit?", category="Audit Rights"))
    assert accepted == [] and "held out (dev, test or slice)" in rejected[0]["detail"]
    both = own(question=f"Do the {TITLES[0]} and the {TITLES[1]} allow audits?", category="Audit Rights")
    assert len(both) == 3  # as if none were named


def test_a_question_whose_answer_is_a_refusal_is_compared_with_its_category_not_with_a_passage():
    made = own(question="Is there a right to audit?", contract=TITLES[1], category="Audit Rights", answer=NO_CLAUSE)
    ((row,), rejected) = run(made)
    assert rejected == [] and row["is_impossible"] and row["source"] == "own"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "format"),
        ("Tell me about the audit.", "format"),
        (QUESTIONS["Audit Rights"], "duplicate"),
        ("Who pays for the picnic?", "drift"),
    ],
)
def test_own_questions_pass_the_same_filters(question, reason):
    values = {"category": "Audit Rights", "contract": TITLES[0]} if question else {}
    accepted, rejected = run(own(question=question, **values))
    assert accepted == [] and [c["reason"] for c in rejected] == [reason]


def test_the_same_question_twice_is_kept_once():
    made = own(question="Is one side allowed to audit the other?", category="Audit Rights", contract=TITLES[0])
    accepted, rejected = run([*made, *(c | {"id": "again"} for c in made)])
    assert len(accepted) == 1 and [c["reason"] for c in rejected] == ["duplicate"]


def test_held_out_passages_are_refused():
    with pytest.raises(InputError, match=HELD_OUT):
        OwnQuestions(TRAIN_ROWS, PASSAGES | {HELD_OUT: []}, held_out={HELD_OUT})


def test_no_contract_at_all_is_a_reason_not_a_crash():
    asker = OwnQuestions([], {}, held_out={HELD_OUT})
    (made,) = asker.candidates(
        [TableRow("row 1", {"question": "When is it?", "contract": "", "category": "", "answer": ""})]
    )
    assert "no text of a training contract" in made["fault"]
