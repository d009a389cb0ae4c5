"""Properties of question generation and its filters: nothing lost or leaked, every fault with its reason."""

import time
import zlib

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import rouge_score

from cuadft.core.errors import InputError
from cuadft.data.passages import Passage
from cuadft.data.schema import NO_CATEGORY, Schema, packaged_schema
from cuadft.evaluation.text_scores import NO_CLAUSE, KnownTexts, rouge_l, rouge_tokens
from cuadft.rag.program import PlainAdapter
from cuadft.selfinstruct.filters import REASONS, filter_questions, outcomes, steps_table
from cuadft.selfinstruct.generate import TASKS, tidy_question, write_questions
from cuadft.selfinstruct.prompts import ASK, ROUND_TRIP, call_generator, styles, task_signature, worked_examples

LAW = "This Agreement shall be governed by the laws of the State of Ohio."
FILLER = "The parties meet every quarter in Columbus to review the progress of the joint marketing work. " * 3
TEXT = f"{FILLER}\n{LAW}\n"
PASSAGES = {
    "T": [
        Passage("T", 0, 0, len(FILLER) + 1, TEXT[: len(FILLER) + 1]),
        Passage("T", 1, len(FILLER) + 1, len(TEXT), TEXT[len(FILLER) + 1 :]),
    ]
}
SEED = {
    "id": "T__Governing Law",
    "contract": "T",
    "contract_type": "Marketing",
    "category": "Governing Law",
    "question": "Governing Law: Which state's law governs the contract?",
    "answers": [{"text": LAW, "start": TEXT.index(LAW)}],
    "is_impossible": False,
    "source": "cuad",
}
HELD_OUT = SEED | {
    "id": "X__Audit Rights",
    "contract": "X",
    "question": "Does a party have the right to audit books?",
}
GOOD = "Under which jurisdiction do courts read the agreement?"


class Encoder:
    """Everything is alike, except texts about the weather."""

    def encode(self, texts):
        return np.array([[0.0, 1.0] if "weather" in text else [1.0, 0.0] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def dspy_settings_untouched():
    before = (dspy.settings.lm, dspy.settings.adapter)
    yield
    assert (dspy.settings.lm, dspy.settings.adapter) == before


def scripted(*answers):
    return dspy.context(lm=DummyLM(list(answers)), adapter=dspy.ChatAdapter(use_json_adapter_fallback=False))


def candidate(question, **other):
    return {
        "id": "T__Governing Law~s1",
        "seed": SEED["id"],
        "kind": "rephrase",
        "contract": "T",
        "contract_type": "Marketing",
        "category": "Governing Law",
        "seed_question": SEED["question"],
        "clause": LAW,
        "answers": SEED["answers"],
        "passage": PASSAGES["T"][1].text,
        "start": PASSAGES["T"][1].start,
        "raw": question,
        "question": question,
        "error": None,
        "style": "lawyer",
        "expect": "gold",
    } | other


def ask_candidate(question):
    return candidate(
        question,
        kind="ask",
        seed="T__passage 0",
        id="T__passage 0~s1",
        seed_question="",
        category=NO_CATEGORY,
        answers=[],
        expect="quotation",
        clause=FILLER,
        passage=PASSAGES["T"][0].text,
        start=0,
    )


def run_filter(candidates, *answers, **options):
    options = {"embedder": Encoder(), "held_out_rows": [HELD_OUT]} | options
    with scripted(*[{"answer": answer} for answer in answers]):
        return filter_questions(candidates, [SEED], **options)


# Generation


def test_candidates_keep_their_seed_and_the_raw_text():
    with scripted(
        {"questions": '["1. Which law applies?", "\'Whose law rules?\'"]'},
        {"questions": '["Where do they meet?"]'},
    ):
        made = write_questions([SEED], PASSAGES, rephrase=1, ask=1, seed=7)
    assert [(c["kind"], c["id"], c["raw"], c["question"]) for c in made] == [
        ("rephrase", "T__Governing Law~s1", "1. Which law applies?", "Which law applies?"),
        ("rephrase", "T__Governing Law~s2", "'Whose law rules?'", "Whose law rules?"),
        ("ask", "T__passage 0~s1", "Where do they meet?", "Where do they meet?"),
    ]
    assert all(c["error"] is None and c["contract"] == "T" for c in made)


def test_questions_come_from_one_item_a_line_of_plain_text():
    class Engine:
        def complete(self, request):
            from dspy.lm15 import Message, Response, Usage

            message = Message.assistant("1. Which law applies?\n2. Whose courts decide?")
            return Response(
                id=None,
                model=request.model,
                message=message,
                finish_reason="stop",
                usage=Usage(input_tokens=1, output_tokens=1),
            )

    with dspy.context(lm=dspy.LM("local/test", engine=Engine(), cache=False), adapter=PlainAdapter()):
        made = write_questions([SEED], PASSAGES, rephrase=1, ask=0, seed=7)
    assert [c["question"] for c in made] == ["Which law applies?", "Whose courts decide?"]


@pytest.mark.parametrize(
    "marked",
    ["1. {}", "(2) {}", "3) {}", "Q1: {}", "Question 2. {}", "- {}", "* {}", "**{}**", "**4. {}**", '"{}"', "`{}`"],
)
def test_marks_around_a_question_are_dropped(marked):
    assert tidy_question(marked.format("Which law applies?")) == "Which law applies?"
    assert tidy_question("2.5% of what?") == "2.5% of what?"


def test_a_failed_call_is_a_counted_candidate():
    with scripted({"nonsense": "x"}, {"questions": '["Where do the parties meet?"]'}):
        made = write_questions([SEED], PASSAGES, rephrase=1, ask=1, seed=7)
    assert made[0]["error"].startswith("AdapterParseError") and made[1]["error"] is None
    accepted, rejected = run_filter(made[:1])
    assert accepted == [] and rejected[0]["reason"] == "generation_failed"


def test_ask_seeds_are_passages_without_a_gold_span_and_seeds_are_answerable_cuad_rows():
    rows = [
        SEED,
        SEED | {"id": "n", "answers": [], "is_impossible": True},
        SEED | {"id": "s", "source": "synthetic"},
    ]
    with scripted(*[{"questions": '["Which law applies?"]'}], *[{"questions": '["Where do they meet?"]'}]):
        made = write_questions(rows, PASSAGES, rephrase=9, ask=9, seed=7)
    assert [(c["kind"], c["seed"]) for c in made] == [("rephrase", SEED["id"]), ("ask", "T__passage 0")]


def test_styles_take_turns():
    rows = [SEED | {"id": f"T__{c}", "category": c} for c in "ab"]
    with scripted({"questions": '["whose laws govern Ohio"]'}, {"questions": '["Who meets to review the marketing?"]'}):
        made = write_questions(rows, PASSAGES, rephrase=2, ask=0, seed=7)
    assert [c["style"] for c in made] == ["user", "keyword"]


def test_over_the_rounds_a_category_is_asked_for_in_every_style():
    rows = [SEED | {"id": f"{c}{n}", "category": c} for c in "abc" for n in range(3)]
    with scripted(*[{"questions": '["Which law applies?"]'}] * 9):
        made = write_questions(rows, PASSAGES, rephrase=9, ask=0, seed=7)
    assert {(c["category"], c["style"]) for c in made} == {(c, s) for c in "abc" for s in ("user", "keyword", "lawyer")}


def test_passages_of_a_held_out_contract_are_refused():
    with pytest.raises(InputError, match="'X': pass rows and passages of the train split only"):
        write_questions([SEED], PASSAGES | {"X": []}, rephrase=1, ask=0, seed=7, held_out={"X"})


def test_a_passage_with_a_gold_span_is_never_asked_about():
    with scripted():
        assert write_questions([SEED], {"T": [Passage("T", 0, 0, len(TEXT), TEXT)]}, rephrase=0, ask=9, seed=7) == []


def test_the_same_seed_draws_the_same_rows_evenly_over_categories():
    rows = [SEED | {"id": f"{c}{n}", "category": c} for c in "abc" for n in range(9)]
    drawn = []
    for seed in (7, 7, 8):
        with scripted(*[{"questions": '["Which law applies?"]'}] * 6):
            drawn.append([c["seed"] for c in write_questions(rows, PASSAGES, rephrase=6, ask=0, seed=seed)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(name[0] for name in drawn[0]) == list("aabbcc")


def test_a_contract_of_dev_or_test_is_refused_everywhere():
    with pytest.raises(InputError, match="'T'.*train split only"):
        write_questions([SEED], PASSAGES, rephrase=1, ask=0, seed=7, held_out={"T"})
    with pytest.raises(InputError, match="'T'"):
        run_filter([], held_out_texts={"T": TEXT})
    with pytest.raises(InputError, match="'X'"):
        run_filter([candidate(GOOD, contract="X")])


def test_missing_lm_and_missing_passages_are_named():
    with pytest.raises(InputError, match="No language model"), dspy.context(lm=None):
        write_questions([SEED], PASSAGES, rephrase=1, ask=0, seed=7)
    with pytest.raises(InputError, match="No passages of contract 'T'"):
        write_questions([SEED], {}, rephrase=1, ask=0, seed=7)


@pytest.mark.parametrize("schema", [packaged_schema(), Schema("own"), Schema("own", "lease", "clause")])
@pytest.mark.parametrize("task", [*TASKS.values(), ROUND_TRIP])
def test_each_task_has_worked_examples_of_all_its_fields(task, schema):
    demos, fields = worked_examples(task, schema), set(task_signature(task, schema).fields)
    assert len(demos) >= 2 and all(set(demo) == fields for demo in demos)
    assert all(demo["style"] in styles(schema).values() for demo in demos if "style" in demo)
    if task == ROUND_TRIP:
        assert schema.refusal in [demo["answer"] for demo in demos]
        assert all(demo["answer"] in demo["passage"] for demo in demos if demo["answer"] != schema.refusal)


def test_replies_keep_the_order_of_the_inputs_under_threads():
    lm = DummyLM({f"clause number {n}x": {"questions": f'["Question {n}?"]'} for n in range(20)})
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        replies = call_generator(
            ASK, [{"clause": f"clause number {n}x"} for n in range(20)], packaged_schema(), threads=4
        )
    assert replies == [([f"Question {n}?"], None) for n in range(20)]


# Filters


@pytest.mark.parametrize(
    ("question", "reason", "detail"),
    [
        ("", "format", "empty"),
        ("Tell me the governing law.", "format", "question mark"),
        ("Which law?", "format", "2 words"),
        ("Why " + "very " * 60 + "long?", "format", "62 words"),
        ("Which law applies in [STATE] here?", "format", "[STATE]"),
        ("Assistant: which law applies in this contract?", "format", "Assistant:"),
        ("Which law <|im_end|> applies to this?", "format", "<|im_end|>"),
        ("Is it that the agreement shall be governed by the laws of the State?", "format", "copies 8 words"),
        (SEED["question"], "duplicate", "ROUGE-L 1.00"),
        ("Governing Law: Which law governs the whole contract?", "duplicate", SEED["question"]),
        ("What weather clause protects the festival?", "drift", "cosine 0.00"),
        ("Does a party have the right to audit the books?", "overlap", "held-out question"),
    ],
)
def test_each_fault_is_rejected_with_its_reason(question, reason, detail):
    accepted, rejected = run_filter([candidate(question)])  # no scripted answer: none of these reaches the LM
    assert accepted == [] and rejected[0]["reason"] == reason and detail in rejected[0]["detail"]


def test_words_of_a_held_out_contract_are_an_overlap():
    text = {"X": "Licensee shall keep for seven years true and complete books at its head office."}
    copied = "Shall anyone keep for seven years true and complete books somewhere?"
    _, rejected = run_filter([candidate(copied)], held_out_texts=text)
    # the first of the runs in alphabetical order
    assert rejected[0]["reason"] == "overlap"
    assert rejected[0]["detail"] == "words of a held-out contract: keep for seven years true and complete books"


def test_a_rephrasing_of_an_earlier_candidate_is_a_duplicate_but_of_a_rejected_one_is_not():
    weather = "What weather clause protects the festival?"
    accepted, rejected = run_filter([candidate(q) for q in (weather, weather, GOOD, GOOD)], LAW)
    assert [row["question"] for row in accepted] == [GOOD]
    assert [c["reason"] for c in rejected] == ["drift", "drift", "duplicate"]


def test_the_same_question_on_another_contract_is_a_duplicate_only_about_the_same_clause():
    texas = "The courts of Texas apply the law of Texas to this deal and to all that follows from it."
    other = candidate(GOOD, contract="U", id="U~s1", answers=[{"text": texas, "start": 0}], passage=texas)
    copy = candidate(GOOD, contract="V", id="V~s1")
    accepted, rejected = run_filter([candidate(GOOD), other, copy], LAW, texas)
    assert [row["contract"] for row in accepted] == ["T", "U"]
    assert (rejected[0]["reason"], rejected[0]["step"]) == ("duplicate", "duplicate")
    assert "on the same clause of T" in rejected[0]["detail"]


def test_a_question_accepted_in_an_earlier_iteration_is_a_duplicate():
    earlier = [SEED | {"id": "T__Governing Law~s9", "question": GOOD, "source": "synthetic"}]
    accepted, rejected = run_filter([candidate(GOOD)], earlier=earlier)
    assert accepted == [] and rejected[0]["reason"] == "duplicate"


def test_an_id_that_an_earlier_iteration_took_is_numbered_on():
    earlier = [SEED | {"id": f"T__Governing Law~s{n}", "question": f"Is there a {n}th law?"} for n in (1, 2)]
    accepted, _ = run_filter(
        [candidate(GOOD), candidate("Whose courts decide, and by what rules?")], LAW, LAW, earlier=earlier
    )
    assert [row["id"] for row in accepted] == ["T__Governing Law~s3", "T__Governing Law~s4"]


def test_earlier_rows_of_a_held_out_contract_are_refused():
    with pytest.raises(InputError, match="'X'"):
        run_filter([], earlier=[SEED | {"contract": "X"}])


def test_official_questions_of_dev_and_test_are_no_overlap_where_train_rows_ask_the_same():
    official = "Governing Law: Which state's law governs the contract?"  # on T: a duplicate; on a new contract: fine
    held_out = [HELD_OUT | {"question": official}]
    new = ask_candidate(official) | {"contract": "new"}
    accepted, _ = run_filter([new], "every quarter in Columbus", held_out_rows=held_out)
    assert [row["contract"] for row in accepted] == ["new"]


def test_templates_pass_without_a_language_model_and_keep_their_rows():
    marks = {"kind": "template", "style": "any", "expect": ""}
    ids = [f"{SEED['id']}~t{n}" for n in (1, 2)]
    made = [candidate("governing law state", id=ids[0], **marks), candidate("weather in", id=ids[1], **marks)]
    with dspy.context(lm=None):
        accepted, rejected = filter_questions(made, [SEED], embedder=Encoder())
    assert accepted == [SEED | {"id": ids[0], "question": "governing law state", "source": "template"}]
    assert [c["reason"] for c in rejected] == ["drift"]


@pytest.mark.parametrize(
    ("question", "detail"),
    [
        ("governing law", None),
        ("Yes, the law of Ohio governs", "a sentence"),
        ("the contract is governed by Ohio law", "a sentence"),
        ("one two three four five six seven eight nine ten eleven twelve thirteen", "13 keywords"),
        ("governing law.", "question mark"),
    ],
)
def test_keywords_are_a_format_of_their_own(question, detail):
    _, rejected = run_filter([candidate(question, style="keyword")], LAW)
    assert [c["reason"] for c in rejected] == (["format"] if detail else [])
    assert all(detail in c["detail"] for c in rejected)
    _, rejected = run_filter([candidate(question)], LAW)  # another style was wanted
    assert [c["reason"] for c in rejected] == ["format"]


def test_a_contracts_name_does_not_make_keywords_too_many():
    asked = "governing law state, the 2010 maintenance agreement between Magellan Terminals Holdings and Omega Refining"
    accepted, _ = run_filter([candidate(asked, style="any")], LAW)
    assert [row["question"] for row in accepted] == [asked]
    _, rejected = run_filter([candidate(f"{asked} {asked}", style="any")])
    assert "1 to 25 wanted" in rejected[0]["detail"]


@pytest.mark.parametrize("answer", [NO_CLAUSE, "The fee is due within thirty days of the invoice."])
def test_a_question_that_the_lm_cannot_answer_from_its_clause_is_unanswerable(answer):
    _, rejected = run_filter([candidate(GOOD)], answer)
    assert rejected[0]["reason"] == "unanswerable"


def test_a_failed_round_trip_is_a_failed_generation():
    with scripted({"nonsense": "x"}):
        _, rejected = filter_questions([candidate(GOOD)], [SEED], embedder=Encoder())
    assert rejected[0]["reason"] == "generation_failed" and rejected[0]["detail"].startswith("round trip: Adapter")


def test_an_accepted_rephrasing_is_a_full_row_with_the_seeds_gold():
    accepted, rejected = run_filter([candidate(GOOD)], LAW)
    assert rejected == []
    assert accepted == [SEED | {"id": "T__Governing Law~s1", "question": GOOD, "source": "synthetic"}]


@pytest.mark.parametrize("answer", ["every   quarter in COLUMBUS", "“every quarter in Columbus.”"])
def test_an_accepted_new_question_has_a_quotation_with_exact_offsets(answer):
    accepted, _ = run_filter([ask_candidate("How often do both sides get together?")], answer)
    (row,) = accepted
    (answer,) = row["answers"]
    assert answer["text"] == "every quarter in Columbus"
    assert TEXT[answer["start"] : answer["start"] + len(answer["text"])] == answer["text"]
    assert (row["category"], row["is_impossible"], row["source"]) == (NO_CATEGORY, False, "synthetic")


@pytest.mark.parametrize("answer", ["quarter", '"in Columbus ."', "they meet monthly in Cleveland", NO_CLAUSE])
def test_an_answer_that_is_no_quotation_makes_a_new_question_unanswerable(answer):
    _, rejected = run_filter([ask_candidate("How often do both sides get together?")], answer)
    assert [c["reason"] for c in rejected] == ["unanswerable"]


def test_every_candidate_is_counted_once():
    accepted, rejected = run_filter([candidate(q) for q in ("", SEED["question"], GOOD, "Which law?")], LAW)
    counts = outcomes(accepted, rejected).sum()
    assert list(counts.index) == ["accepted", *REASONS]
    assert counts[counts > 0].to_dict() == {"accepted": 1, "format": 2, "duplicate": 1}
    assert steps_table(accepted, rejected)["rejected"].sum() == 3


# ROUGE-L

SENTENCES = st.lists(st.sampled_from("a b c d law".split()), max_size=12).map(" ".join)


@given(SENTENCES, SENTENCES)
def test_rouge_l_equals_the_reference_implementation(a, b):
    expected = rouge_score(a, b, rouge_keys="rougeL")["rougeL_fmeasure"].item()
    assert rouge_l(rouge_tokens(a), rouge_tokens(b)) == pytest.approx(expected, abs=1e-6)  # it counts in float32


@given(st.lists(SENTENCES, max_size=8), SENTENCES, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_find_misses_no_near_text(texts, query, limit):
    exists = any(rouge_l(rouge_tokens(text), rouge_tokens(query)) >= limit for text in texts)
    found = KnownTexts(texts).find(query, limit)
    assert (found is not None) == exists
    assert found is None or found[1] >= limit


def test_a_hundred_questions_against_five_thousand_alike_take_under_three_seconds():
    names = [f"{zlib.crc32(str(n).encode()):x}" for n in range(5000)]
    known = KnownTexts(
        f"What does the contract say about the {a} of {b} after {c}?" for a, b, c in zip(names, names[1:], names[2:])
    )
    started = time.perf_counter()
    for n in range(100):
        known.find(f"What does the supplier {n} owe for the {n} of {names[n]} after the end?", 0.7)
    assert time.perf_counter() - started < 3
