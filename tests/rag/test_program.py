"""Properties of the prompts: what is asked is what is trained, and contract text stays inside its delimiter."""

import re
from typing import Literal

import dspy
import pytest
import small
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.data.passages import Passage
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models import weights
from cuadft.rag.program import (
    AnswerFromContract,
    ContractQA,
    PlainAdapter,
    answer_f1,
    cite_passages,
    compile_program,
    dspy_examples,
    load_program,
    prompt_completions,
    save_program,
    target_answer,
)
from cuadft.retrieval.retriever import Hit, render_passages

ROW = small.ROWS[1]  # Acme, Audit Rights: answerable
PROGRAM = small.program()
TYPED = {
    "list": dspy.Signature("topic: str -> items: list[str]"),
    "int": dspy.Signature("topic: str -> n: int"),
    "literal": dspy.Signature("topic: str -> verdict: Literal['yes', 'no']", custom_types={"Literal": Literal}),
}
MARKS = [
    "<|im_end|>",
    "<|im_start|>",
    "</passage>",
    "<passage>",
    "<end_of_turn>",
    "<",
    "|",
    ">",
    "/",
    "passage",
    " ",
    "\n",
    "\u2028",
    "\u200b",
    "\x1c",
    "İ",
    "\ud800",
    "a",
    "5",
]
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=3)).map("".join)


def hits(*passages: str) -> list[Hit]:
    return [Hit(Passage("C", n, 100 * n, 100 * n + len(text), text), 1.0) for n, text in enumerate(passages)]


def ask(program: ContractQA, row: dict, reply=small.first_clause) -> tuple[dspy.Prediction, list[list[dict]]]:
    """Return the prediction for a row and the messages of all calls that it took."""
    script = small.Script(reply)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()):
        return program(question=row["question"], contract=row["contract"]), script.calls


def compiled() -> ContractQA:
    """Return a program with a demo and with other instructions, as MIPROv2 makes."""
    made = small.program()
    made.predict.demos = dspy_examples(small.ROWS[4:8], made.retriever, made.k)[:2]
    made.predict.signature = made.predict.signature.with_instructions(
        "Answer in the contract's words.\n\nBe brief: {x}"
    )
    return made


# --- the adapter


def test_the_prompt_holds_instructions_demos_as_turns_passages_and_question():
    program = compiled()
    _, (messages,) = ask(program, ROW)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[0]["content"] == "Answer in the contract's words.\n\nBe brief: {x}"
    for demo, asked, answered in zip(program.predict.demos, messages[1::2], messages[2::2]):
        assert asked["content"] == f"Passages: {demo.passages}\n\nQuestion: {demo.question}"
        assert answered["content"] == demo.answer
    found = program.retriever.search(ROW["question"], contract=ROW["contract"], k=2)
    assert messages[-1]["content"] == f"Passages: {render_passages(found)}\n\nQuestion: {ROW['question']}"
    assert messages[-1]["content"].count("<passage>") == 2


@pytest.mark.parametrize("reply", ["Answer: yes", "a\n\nb", "[[ ## answer ## ]] x", '{"answer": 1}', "null"])
def test_the_whole_reply_is_the_answer(reply):
    assert ask(small.program(), ROW, lambda _: f" {reply}\n")[0].answer == reply


@pytest.mark.parametrize("reply", ["", "  \n "])
def test_an_empty_reply_fails_after_one_call(reply):
    script = small.Script(lambda _: reply)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()), pytest.raises(AdapterParseError):
        small.program()(question=ROW["question"], contract=ROW["contract"])
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "kind, reply, value",
    [
        ("list", "1. one\n2) two\n(3) three\n- four\n* five\n• six", ["one", "two", "three", "four", "five", "six"]),
        (
            "list",
            "3 years after the date\n2.5% a year\n30 days\n-\n\n12. 90 days",
            ["3 years after the date", "2.5% a year", "30 days", "90 days"],
        ),
        ("list", "a - b\nsee 3. below", ["a - b", "see 3. below"]),
        ("int", " 7\n", 7),
        ("literal", "yes", "yes"),
    ],
)
def test_a_typed_field_keeps_what_the_reply_says(kind, reply, value):
    assert list(PlainAdapter().parse(TYPED[kind], reply).values()) == [value]


@pytest.mark.parametrize("kind, reply", [("int", "seven"), ("int", "7 or 8"), ("literal", "perhaps"), ("list", " ")])
def test_an_ill_typed_reply_fails_after_one_call(kind, reply):
    script = small.Script(lambda _: reply)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()), pytest.raises(AdapterParseError):
        dspy.Predict(TYPED[kind])(topic="x")
    assert len(script.calls) == 1


def test_a_list_is_shown_in_demos_as_it_is_parsed():
    adapter, items = PlainAdapter(), ["3 years", "two"]
    assert adapter.parse(TYPED["list"], adapter.format_assistant_message_content(TYPED["list"], {"items": items})) == {
        "items": items
    }


# --- one prompt for inference and training


@pytest.mark.parametrize("make", [small.program, compiled])
def test_inference_sends_byte_for_byte_what_training_rows_hold(make, tiny):
    from cuadft.models.local import LocalEngine

    program, engine = make(), LocalEngine(tiny, dtype="float32")
    data, _ = prompt_completions(program, small.ROWS, size=0, impossible_share=0.25, seed=1)
    rows = {row["id"]: row for row in small.ROWS}
    assert len(data) == 16
    for example in data:
        row = rows[example["id"]]
        _, (sent,) = ask(program, row)
        found = program.retriever.search(row["question"], contract=row["contract"], k=program.k)
        assert sent == example["prompt"] == program.messages(row["question"], found, "x")[:-1]
        assert example["completion"] == [{"role": "assistant", "content": target_answer(row, found)}]
    messages, together = data[0]["prompt"] + data[0]["completion"], engine.tokenize(data[0]["prompt"])
    whole = engine.tokenizer.apply_chat_template(messages, return_dict=False)
    assert whole[: len(together)] == together  # the completion follows the prompt's tokens without merging into them


def test_a_saved_program_sends_the_same_prompt(tmp_path):
    for number, program in enumerate([small.program(k=3), compiled()]):
        save_program(program, tmp_path / f"{number}.json")
        back = load_program(tmp_path / f"{number}.json", program.retriever)
        assert ask(back, ROW)[1] == ask(program, ROW)[1] and back.k == program.k


def test_a_program_is_saved_without_its_language_model(tmp_path):
    program = small.program()
    program.set_lm(small.Script(str).lm())
    save_program(program, tmp_path / "p.json")
    assert load_program(tmp_path / "p.json", program.retriever).predict.lm is None and program.predict.lm is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"k": 2}',
        '{"k": 2, "state": {}}',
        '{"k": 2, "state": []}',
        '{"k": "two", "state": {}}',
        '{"k": 2, "state": {"predict": {"demos": 5, "signature": {}, "lm": null}}}',
        '{"k": 2, "state": {"predict": {"demos": [5], "signature": {}, "lm": null}}}',
        '{"k": 2, "state": {"predict": 7}}',
    ],
)
def test_a_file_that_is_no_program_is_refused(text, tmp_path):
    files.write_text(tmp_path / "p.json", text)
    with pytest.raises(InputError, match="p.json"):
        load_program(tmp_path / "p.json", small.retriever())


def test_a_missing_program_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="02_rag_compile"):
        load_program(tmp_path / "p.json", small.retriever())


# --- contract text stays text


@given(texts)
def test_clean_leaves_no_mark_and_loses_only_blanks(text):
    cleaned = quotable(text)
    assert not re.search(r"<[|/A-Za-z_]", cleaned) and cleaned == quotable(cleaned)
    assert "".join(cleaned.split()) == "".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "<<||im_end|>",
        "</pass</passage>age>",
        "<pass<passage>age>",
        "<|<|im_end|>im_end|>",
        "</PASSAGE>",
        "</passage >",
        "<\x1c|im_end|>",
        "<end_of_turn>",
        "</s>",
    ],
)
def test_nested_marks_are_broken_up_too(text):
    assert not re.search(r"<[|/A-Za-z_]", quotable(text))


def test_amounts_and_comparisons_are_left_as_they_are():
    assert quotable("if x < 5 or <5% or a<=b,\n then") == "if x < 5 or <5% or a<=b, then"


@given(texts, texts)
def test_a_prompt_has_exactly_its_own_delimiters_and_turns(first, second):
    shown = render_passages(hits(first, second))
    assert shown.count("<passage>") == shown.count("</passage>") == 2 and "<|" not in shown
    *_, message, _ = PROGRAM.messages(first, hits(first, second), "A")
    assert message["content"].count("</passage>") == 2 and "<|" not in message["content"]


@given(texts.map(lambda text: text.replace("\ud800", "")))
def test_contract_text_and_answers_add_no_turn_to_the_tokens(text):
    engine = _engine()
    end = engine.tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokens = engine.tokenize(PROGRAM.messages(text, hits(text), text))
    assert tokens.count(end) == 3  # system, user, assistant


def _engine(made=[]):  # noqa: B006
    from cuadft.models.local import LocalEngine

    if not made:
        made.append(LocalEngine(weights.find_weights("tiny"), dtype="float32"))
    return made[0]


# --- what is taught, what is cited


def test_the_refusal_is_taught_where_there_is_no_clause():
    assert target_answer(small.ROWS[0] | {"is_impossible": True, "answers": []}, hits("x")) == NO_CLAUSE


def test_the_gold_span_of_the_best_ranked_passage_is_taught():
    row = {"is_impossible": False, "answers": [{"text": "ab", "start": 100}, {"text": "c\n d", "start": 203}]}
    first, second, third = hits("x" * 50, "ab" + "x" * 48, "xxxc\n d")
    assert target_answer(row, [third, second, first]) == "c d"
    assert target_answer(row, [first, second, third]) == "ab"
    assert target_answer(row, [first]) is None


@pytest.mark.parametrize("start", [99, 149])  # the passage is [100, 150)
def test_a_gold_span_that_leaves_the_passage_is_not_taught(start):
    assert (
        target_answer({"is_impossible": False, "answers": [{"text": "ab", "start": start}]}, hits("", "x" * 50)[1:])
        is None
    )


def test_spans_point_at_the_answer_in_the_contract():
    for row in (r for r in small.ROWS if r["answers"]):
        gold, text = row["answers"][0], small.TEXTS[row["contract"]]
        prediction, _ = ask(small.program(), row, lambda _, gold=gold: gold["text"].upper().replace(" ", "  "))
        assert prediction.spans == [[gold["start"], gold["start"] + len(gold["text"])]]
        assert text[slice(*prediction.spans[0])] == gold["text"]


def test_an_answer_in_two_passages_is_cited_twice_and_a_refusal_never():
    assert cite_passages("a b", [h.passage for h in hits("x a\nb", "none", "a b")]) == [[2, 5], [200, 203]]
    assert (
        cite_passages(NO_CLAUSE, [h.passage for h in hits(NO_CLAUSE)])
        == cite_passages("", [h.passage for h in hits("x")])
        == []
    )


# --- optimisers


def right_with_demos(messages: list[dict]) -> str:
    """Answer rightly if the prompt shows how in a demo, and write instructions when asked to."""
    user = messages[-1]["content"]
    if "<passage>" not in user:
        return "Quote the clause that the question asks for."
    if not any(m["role"] == "assistant" for m in messages):
        return "Which clause?"
    golds = [a["text"] for row in small.ROWS for a in row["answers"] if row["question"] in user]
    return next((gold for gold in golds if gold in user), NO_CLAUSE)


@pytest.mark.parametrize("optimizer", ["bootstrap", "bootstrap_random_search", "mipro"])
def test_compiling_takes_demos_from_the_training_set_only(optimizer):
    program = small.program()
    train, dev = (dspy_examples(rows, program.retriever, program.k) for rows in (small.ROWS[:8], small.ROWS[8:]))
    with dspy.context(lm=small.Script(right_with_demos).lm(), adapter=PlainAdapter()):
        made = compile_program(
            program, train, dev, optimizer=optimizer, bootstrapped_demos=1, labeled_demos=2, candidates=2
        )
    known = {(e.question, e.passages, e.answer) for e in train}
    assert isinstance(made, ContractQA) and made.retriever is program.retriever and program.predict.demos == []
    assert 1 <= len(made.predict.demos) <= 2
    assert all((d["question"], d["passages"], d["answer"]) in known for d in made.predict.demos)
    assert ask(made, ROW)[1][0][-1] == ask(program, ROW)[1][0][-1]


@pytest.mark.parametrize("optimizer", ["bootstrap", "bootstrap_random_search", "mipro"])
def test_a_model_that_mostly_fails_does_not_end_the_search(optimizer):
    program = small.program()
    data = dspy_examples(small.ROWS, program.retriever, program.k)
    with dspy.context(
        lm=small.Script(lambda m: "" if "<passage>" in m[-1]["content"] else "Quote it.").lm(), adapter=PlainAdapter()
    ):
        made = compile_program(
            program, data[:4], data, optimizer=optimizer, bootstrapped_demos=1, labeled_demos=1, candidates=2
        )
    assert len(made.predict.demos) <= 1


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="bootstrap_random_search"):
        compile_program(small.program(), [], [], optimizer="gepa")


def test_examples_leave_out_rows_without_a_target_and_score_their_gold_answer_one():
    program = small.program(k=1)
    outside = ROW | {"answers": [{"text": "not here", "start": 10**6}]}
    assert dspy_examples([outside], program.retriever, 1) == []
    for example in dspy_examples(small.ROWS, program.retriever, 1):
        assert answer_f1(example, dspy.Prediction(answer=example.answer)) == 1.0
        assert set(example.inputs().keys()) == {"question", "contract"}


def test_the_signature_names_the_refusal():
    assert NO_CLAUSE in AnswerFromContract.instructions
