"""Prompts, training rows, judges and pages speak in the words of the schema, and in CUAD's as they always did."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import numpy as np
import openpyxl
import pytest
import reviewing
import small
from fastapi.testclient import TestClient

from cuadft.core import files, runs
from cuadft.data.documents import Document
from cuadft.data.passages import cut_passages
from cuadft.data.schema import Category, Schema, naming, save_schema
from cuadft.evaluation.constants import constant_answers
from cuadft.evaluation.judge import LMJudge
from cuadft.evaluation.offline_judge import OfflineJudge
from cuadft.evaluation.text_scores import is_plain_refusal
from cuadft.feedback.preferences import training_data
from cuadft.feedback.store import Store
from cuadft.feedback.widget import Annotate
from cuadft.rag import inference
from cuadft.rag.program import ContractQA, PlainAdapter, load_program, save_program
from cuadft.rag.systems import System
from cuadft.rag.training_rows import prompt_completions
from cuadft.retrieval.retriever import Retriever
from cuadft.review import export_card, serve
from cuadft.review.page import review_page, two_page
from cuadft.review.reviewer import Reviewer
from cuadft.review.tables import csv_bytes, write_workbook
from cuadft.selfinstruct.filters import filter_questions
from cuadft.selfinstruct.generate import write_questions

# beginning of the SHA-256 of what `written` returns for CUAD's schema, as the package was before schemas were data;
# the pages have told their language since, and shared a part of their style
AS_BEFORE = {
    "training rows": "a00acc1463297317",
    "DSPy's chat format": "c27eea20ea5bd8e4",
    "saved program": "11a299317fa65f64",
    "self-instruct, PlainAdapter": "6830cf21a6b67af0",
    "self-instruct, ChatAdapter": "0496d0cd79d5af52",
    "judge": "56131556639d89cd",
    "offline judge": "672d7cee57dca271",
    "page": "84c1b57b81840ba4",
    "two pages": "fbb5771d834ca34c",
    "table": "0f58294f97813f35",
    "workbook": "4f7c8d1abc9e8cbb",
    "front page": "c26dc19a12925e94",
    "card": "6e24bf0269704a4f",
}
CODE = re.compile(r"```.*?```", re.DOTALL)  # of the card: names of the package
COLUMNS = ("contract", "p_clause", "p_no_clause")  # of files, which keep their names
ASKED = {
    "Retention": "How long is personal data kept?",
    "Cookies": "Which cookies does the site set?",
    "Sharing": "With whom is personal data shared?",
}
SAID = {
    "Retention": "We keep your account data for {years} years after you close the account.",
    "Cookies": "The site sets a cookie named {name} that counts visits and nothing else.",
    "Sharing": "We share order data with {name} Parcels, which brings your parcels.",
}
PLAIN = "You can write to the office of {name} at any time, by letter or by mail, and we answer within four weeks. "
POLICIES = Schema("privacy", "policy", "statement", {name: Category(name, asked) for name, asked in ASKED.items()})
WRITERS = [("Acorn", "two"), ("Birch", "six"), ("Cedar", "ten")]


def policies() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return invented privacy policies, each of which lacks one statement, and their rows."""
    texts, rows = {}, []
    for number, (name, years) in enumerate(WRITERS):
        title = f"{name} Privacy Policy"
        held = {c: t.format(name=name, years=years) for n, (c, t) in enumerate(SAID.items()) if n != number}
        text = texts[title] = "\n\n".join([title.upper(), PLAIN.format(name=name) * 3, *held.values()])
        for category, question in ASKED.items():
            found = [{"text": held[category], "start": text.index(held[category])}] if category in held else []
            row = {"id": f"{title}__{category}", "contract": title, "contract_type": "", "category": category}
            row |= {"question": question, "answers": found, "is_impossible": not found, "source": "annotated"}
            rows.append(row)
    return texts, rows


def contracts() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the contracts of `small` with a stretch that nobody asks about, and their rows."""
    return {title: f"{text}\n\n{small.FILLER * 3}" for title, text in small.TEXTS.items()}, small.ROWS


def written(texts: dict[str, str], rows: list[dict[str, Any]], folder: Path, schema: Any = None) -> dict[str, str]:
    """Return all that the package sends to models, trains them on, or shows, by where it comes from."""
    given = {} if schema is None else {"schema": schema}
    passages = {title: cut_passages(text, contract=title, size=300) for title, text in texts.items()}
    search = Retriever([p for own in passages.values() for p in own], None, mode="bm25", cutting=(300, 0.0))
    program = ContractQA(search, 2, **given)
    made = of_program(program, rows, folder)
    made |= of_self_instruct(rows, passages, given)
    made |= of_judges(rows[:4], program, given)
    if schema is not None:
        save_schema(schema, runs.Iteration(folder, 1))
    return made | of_review(program, texts, folder)


def of_program(program: ContractQA, rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    trained, counts = prompt_completions(program, rows, size=0, impossible_share=0.3, seed=7)
    save_program(program, folder / "program.json")
    other = dspy.ChatAdapter().format(program.predict.signature, [], {"passage": "p", "question": "q"})
    saved = json.loads((folder / "program.json").read_text())["state"]["predict"]["signature"]
    return {
        "training rows": json.dumps([trained, counts]),
        "DSPy's chat format": json.dumps(other),
        "saved program": json.dumps(saved),
    }


def of_self_instruct(rows: list[dict[str, Any]], passages: dict[str, Any], given: dict[str, Any]) -> dict[str, str]:
    asked, meaning = ["Where does it say what happens next?", "How long does all of it take?"], SimpleNamespace()
    meaning.encode = lambda texts: np.ones((len(texts), 1))
    replies = {PlainAdapter: "\n".join(asked), dspy.ChatAdapter: f"[[ ## questions ## ]]\n{json.dumps(asked)}"}
    found = {}
    for adapter, reply in replies.items():
        script = small.Script(lambda messages, reply=reply: f"{reply}\n\n[[ ## answer ## ]]\nNone.")
        with dspy.context(lm=script.lm(), adapter=adapter()):
            made = write_questions(rows, passages, rephrase=3, ask=2, seed=7, **given)
            filter_questions(made, rows, embedder=meaning, **given)
        assert len(script.calls) > 5  # both kinds of questions, and round trips
        styles = [candidate["style"] for candidate in made if "style" in candidate]
        found[f"self-instruct, {adapter.__name__}"] = json.dumps([script.calls, styles])
    return found


def of_judges(rows: list[dict[str, Any]], program: ContractQA, given: dict[str, Any]) -> dict[str, str]:
    lm = small.Script(lambda messages: "There is nothing to quote here, as far as I can see").lm()
    answered = inference.answer_batch(program, lm, rows, 4)
    answered += [row | {"answer": program.refusal, "error": None, "quotes": []} for row in rows]
    script = small.Script(lambda messages: "[[ ## verdict ## ]]\ncorrect\n[[ ## reason ## ]]\nso it is")
    LMJudge(script.lm(), votes=9, num_threads=1, **given).rate(answered)
    reasons = OfflineJudge(**given).rate(answered)["judge_reason"]
    return {"judge": json.dumps(script.calls), "offline judge": json.dumps(list(reasons))}


def of_review(program: ContractQA, texts: dict[str, str], folder: Path) -> dict[str, str]:
    about = {"contract_type": "", "filer": "", "group": 0}
    records = [{"title": title, "split": "train", "text": text} | about for title, text in texts.items()]
    files.write_jsonl(folder / "contracts.jsonl", records)
    lm = small.Script(small.first_clause).lm()
    reviewer = Reviewer(runs.Iteration(folder, 1), "champion", System("sft", program, lm, record=reviewing.RECORD))
    one, other = (reviewer.review(Document(title, text)) for title, text in list(texts.items())[:2])
    one, other = (reviewing.settled(each) for each in (one, other))
    write_workbook(folder / "review.xlsx", [one, other])
    front = TestClient(serve.make_app(reviewer, serve.Limits()), base_url="http://127.0.0.1").get("/").text
    return {
        "page": review_page(one),
        "two pages": two_page(one, other),
        "table": csv_bytes([one, other]).decode(),
        "workbook": json.dumps(cells(folder / "review.xlsx")),
        "front page": front,
        "card": card(folder, records),
    }


def cells(path: Path) -> dict[str, Any]:
    return {sheet.title: [list(row) for row in sheet.values] for sheet in openpyxl.load_workbook(path)}


def card(folder: Path, records: list[dict[str, Any]]) -> str:
    it = runs.Iteration(folder, 1)
    source = export_card.Source(reviewing.RECORD, it, it, "tiny", "tiny", "CUAD v1", "group", 16, records)
    return export_card.card(source, [])


def test_prompts_rows_and_pages_of_cuad_are_byte_for_byte_what_they_were(tmp_path):
    made = written(*contracts(), tmp_path / "run")
    assert {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in made.items()} == AS_BEFORE


def test_no_prompt_row_or_page_of_policies_speaks_of_contracts(tmp_path):
    for name, text in written(*policies(), tmp_path / "run", POLICIES).items():
        shown = CODE.sub("", text) if name == "card" else text
        for column in COLUMNS if name in ("table", "workbook") else ():
            shown = shown.replace(column, "")
        assert not re.search("contract|clause|lawyer|legal", shown, re.IGNORECASE), (name, shown)
        assert name == "DSPy's chat format" or re.search("polic(y|ies)|statement", shown, re.IGNORECASE)


def test_a_model_is_trained_on_the_refusal_that_it_is_asked_for_and_answers_with(tmp_path):
    texts, rows = policies()
    passages = [passage for title, text in texts.items() for passage in cut_passages(text, contract=title, size=300)]
    save_program(ContractQA(Retriever(passages, None, mode="bm25"), 2, schema=POLICIES), tmp_path / "rag.json")
    program, refusal = load_program(tmp_path / "rag.json", Retriever(passages, None, mode="bm25")), POLICIES.refusal
    none = next(row for row in rows if row["is_impossible"])
    script = small.Script(lambda messages: refusal)
    (made,) = inference.answer_batch(program, script.lm(), [none], 4)
    trained, _ = prompt_completions(program, [none], size=0, impossible_share=1.0, seed=7)
    assert made["answer"] == trained[0]["completion"][0]["content"] == refusal
    assert refusal in trained[0]["prompt"][0]["content"] and trained[0]["prompt"] == script.calls[0]
    wrong = made | {"answer": "for two years after", "quotes": []}
    kinds = {"judge": None, "rows": rows, "asked": [], "contracts": [], "feedback": ()}
    learned, counts = training_data(program, [made, wrong], {}, **kinds)
    assert learned["answers"] == [] and counts["pairs"]["no quote"], "whether to refuse is not learned from preferences"
    assert {p["answer"] for p in constant_answers([made | {"system": "rag", "split": "dev"}], {}, refusal)} == {refusal}


def test_a_program_saved_before_schemas_were_data_refuses_as_cuads(tmp_path):
    save_program(small.program(), tmp_path / "rag.json")
    assert "refusal" not in json.loads((tmp_path / "rag.json").read_text())
    assert load_program(tmp_path / "rag.json", small.retriever()).refusal == "There is no such clause."


def test_the_widget_speaks_of_the_schemas_documents(tmp_path):
    shown = Annotate([], Store(tmp_path / "feedback.sqlite"), "anna", schema=POLICIES)
    assert shown.words["document"] == "policy" and shown.words["refusal"] == "There is no such statement."
    code = re.sub(r"//.*|/\*(?s:.*?)\*/", "", shown._esm)
    names = r'screen\.contract|class: "contract"|words\.clause'  # of the code itself
    assert not re.search("contract|clause", re.sub(names, "", code))


@pytest.mark.parametrize(
    ("word", "plural", "with_article"),
    [
        ("policy", "policies", "a policy"),
        ("thesis", "theses", "a thesis"),
        ("agreement", "agreements", "an agreement"),
        ("user guide", "user guides", "a user guide"),
        ("annex", "annexes", "an annex"),
        ("合同", "合同", "a 合同"),
    ],
)
def test_words_of_a_schema_have_plural_and_article(word, plural, with_article):
    words = naming(word, "clause")
    assert (words["documents"], words["a_document"]) == (plural, with_article)


@pytest.mark.parametrize("name", ["statement", "house rule", "term of use", "sub-clause"])
def test_the_refusal_of_any_schema_is_a_plain_refusal(name):
    assert is_plain_refusal(Schema("own", clause=name).refusal)


@pytest.mark.parametrize(
    "said", ["such", "such cap unless agreed", "such rule. Fees are due", "such rule of the house here"]
)
def test_an_answer_that_says_more_is_no_plain_refusal(said):
    assert not is_plain_refusal(f"There is no {said}.")
