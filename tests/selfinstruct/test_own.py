"""Properties of a user's own questions: placed exactly, refused with a reason, held-out contracts never used."""

import json

import dspy
import numpy as np
import pytest
from small import QUESTIONS, ROWS, TEXTS

from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.data.passages import cut_passages
from cuadft.data.schema import packaged_schema
from cuadft.selfinstruct.filters import filter_questions
from cuadft.selfinstruct.own import place_own_questions, read_own_questions

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
    given = {"question": "", "contract": "", "category": "", "answer": ""} | values
    records = [TableRow("own.csv, row 1", given)]
    return place_own_questions(records, TRAIN_ROWS, PASSAGES, packaged_schema(), held_out={HELD_OUT}, seed=7)


def run(candidates):
    with dspy.context(lm=None):  # no language model is asked
        return filter_questions(candidates, TRAIN_ROWS, embedder=Encoder(), held_out_texts={HELD_OUT: TEXTS[HELD_OUT]})


@pytest.mark.filterwarnings("ignore:.*columns left out")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", "Question,Contract,other\nWho may audit?,Acme,x\nWhen?,,\n"),
        ("own.csv", "\ufeffQUESTION;contract\nWho may audit?;Acme\nWhen?;\n"),
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


def test_columns_of_other_names_are_left_out_with_a_warning(tmp_path):
    (tmp_path / "own.csv").write_text("contract,question,Answers\nAcme,Who may audit?,x\n")
    with pytest.warns(UserWarning, match="columns left out: answers .those read: question"):
        (record,) = read_own_questions(tmp_path / "own.csv")
    assert record.values == {"question": "Who may audit?", "contract": "Acme", "category": "", "answer": ""}


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
        ({"contract": "Acme Distribution Agremeent"}, f"did you mean '{TITLES[0]}'?"),
        ({"category": "Audit Right"}, "(nearest: Audit Rights)"),
        ({"contract": TITLES[0], "answer": "four score dollars"}, "does not stand in"),
        ({"answer": "four score dollars"}, "does not stand in the 3 training contracts"),
        ({"answer": "the renewal term is"}, "stands in 2 training contracts"),
        ({"answer": "Maine"}, "does not stand in the 3 training contracts"),  # of the held-out contract
        ({}, "neither a category nor an answer"),
        ({"category": "Insurance"}, "no training contract is annotated for Insurance"),
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


def test_a_row_without_a_question_that_names_a_held_out_contract_is_only_rejected():
    accepted, rejected = run(own(contract=HELD_OUT))
    assert accepted == [] and [c["reason"] for c in rejected] == ["reference"]


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
    accepted, rejected = run(own(question=question, category="Audit Rights", contract=TITLES[0]))
    assert accepted == [] and [c["reason"] for c in rejected] == [reason]


def test_the_same_question_twice_is_kept_once():
    made = own(question="Is one side allowed to audit the other?", category="Audit Rights", contract=TITLES[0])
    accepted, rejected = run([*made, *(c | {"id": "again"} for c in made)])
    assert len(accepted) == 1 and [c["reason"] for c in rejected] == ["duplicate"]


def test_held_out_passages_are_refused():
    with pytest.raises(InputError, match=HELD_OUT):
        place_own_questions([], TRAIN_ROWS, PASSAGES | {HELD_OUT: []}, packaged_schema(), held_out={HELD_OUT})
