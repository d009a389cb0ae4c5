"""Properties of the prompts: what is asked is what is trained, and contract text stays inside its delimiter."""

import json
import re
from collections import Counter

import dspy
import hypothesis
import pytest
import small
from dspy.utils.exceptions import AdapterParseError
from hypothesis import assume, given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.data.passages import Passage, cut_passages
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import QuoteSource, cut_to_words, read_quote_format
from cuadft.rag.compiling import answer_f1, answer_feedback, compile_program, dspy_examples
from cuadft.rag.confidence import HELD_FROM, Confidence, length_off
from cuadft.rag.program import ContractQA, PlainAdapter, load_program, save_program
from cuadft.rag.training_rows import online_prompts, prompt_completions, target_answer
from cuadft.retrieval.retriever import Hit, render_passages

ROW = small.ROWS[1]  # Acme, Audit Rights: answerable
PROGRAM = small.program()
TYPED = {
    "list": dspy.Signature("topic: str -> items: list[str]"),
    "text": dspy.Signature("topic: str -> words: str"),
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


def hit(text: str, start: int = 0) -> Hit:
    return Hit(Passage("C", 0, start, start + len(text), text), 1.0)


def ask(program: ContractQA, row: dict, reply=small.first_clause) -> tuple[dspy.Prediction, list[list[dict]]]:
    """Return the prediction for a row and the messages of all calls that it took."""
    script = small.Script(reply)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()):
        return program(question=row["question"], contract=row["contract"]), script.calls


def own_clause(row: dict):
    """Return a reply that quotes a row's first gold span from the passage that holds it, and else refuses."""
    gold = row["answers"][0]["text"] if row["answers"] else "\n"
    return lambda messages: gold if gold in messages[-1]["content"] else NO_CLAUSE


def compiled() -> ContractQA:
    """Return a program with a demo and with other instructions, as MIPROv2 makes."""
    made = small.program()
    made.predict.demos = dspy_examples(small.ROWS[4:8], made)[:2]
    made.predict.signature = made.predict.signature.with_instructions(
        "Answer in the contract's words.\n\nBe brief: {x}"
    )
    return made


# --- the adapter


def test_each_passage_has_a_prompt_with_instructions_demos_as_turns_the_passage_and_the_question():
    program = compiled()
    _, calls = ask(program, ROW)
    found = program.retriever.search(ROW["question"], contract=ROW["contract"], k=2)
    assert len(calls) == len(found) == 2
    for messages, one in zip(calls, found):
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert messages[0]["content"] == "Answer in the contract's words.\n\nBe brief: {x}"
        for demo, asked, answered in zip(program.predict.demos, messages[1::2], messages[2::2]):
            assert asked["content"] == f"Passage: {demo.passage}\n\nQuestion: {demo.question}"
            assert answered["content"] == demo.answer
        assert messages[-1]["content"] == f"Passage: {render_passages([one])}\n\nQuestion: {ROW['question']}"
        assert messages[-1]["content"].count("<passage>") == 1


@pytest.mark.parametrize("reply", ["Answer: yes", "a\n\nb", "[[ ## answer ## ]] x", '{"answer": 1}', "null"])
def test_the_whole_reply_is_the_answer(reply):
    assert PlainAdapter().parse(small.program().predict.signature, f" {reply}\n") == {"answer": reply}


@pytest.mark.parametrize("reply", ["", "  \n "])
def test_an_empty_reply_fails_after_one_call(reply):
    script = small.Script(lambda _: reply)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()), pytest.raises(AdapterParseError):
        small.program(k=1)(question=ROW["question"], contract=ROW["contract"])
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
        ("text", " 1. one\n2. two\n", "1. one\n2. two"),
    ],
)
def test_a_typed_field_keeps_what_the_reply_says(kind, reply, value):
    assert list(PlainAdapter().parse(TYPED[kind], reply).values()) == [value]


@pytest.mark.parametrize("kind", TYPED)
def test_an_empty_typed_reply_fails_after_one_call(kind):
    script = small.Script(lambda _: " ")
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
    program, engine = make(), LocalEngine(tiny, dtype="float32")
    data, _ = prompt_completions(program, small.ROWS, size=0, impossible_share=0.25, seed=1)
    rows = {row["id"]: row for row in small.ROWS}
    assert len(data) == 16
    for one in data:
        row = rows[one["id"]]
        _, sent = ask(program, row)
        found = program.retriever.search(row["question"], contract=row["contract"], k=program.k)
        targets = [target_answer(row, each) for each in found]
        best = next(n for n, target in enumerate(targets) if target is not None)
        assert sent[best] == one["prompt"] == program.messages(row["question"], found[best], "x")[:-1]
        assert one["completion"] == [{"role": "assistant", "content": targets[best]}]
        source = QuoteSource(quotable(found[best].passage.text), NO_CLAUSE)
        assert cut_to_words(targets[best], source) == targets[best]  # what is taught can be said
    messages, together = data[0]["prompt"] + data[0]["completion"], engine.tokenize(data[0]["prompt"])
    whole = engine.tokenizer.apply_chat_template(messages, return_dict=False)
    assert whole[: len(together)] == together  # the completion follows the prompt's tokens without merging into them
    (online,) = online_prompts(program, [ROW])
    assert online["prompt"] == ask(program, ROW)[1][0] and online["answers"] == ROW["answers"]


def test_the_reader_sends_the_programs_prompt_about_the_best_passage_and_decides_by_the_reply(confident):
    program = ContractQA(confident.retriever, 3, confident.confidence)
    program.predict = compiled().predict
    row = small.clause_corpus([110])[0][0]
    made, sent = ask(program.reader(), row, lambda _: "No party\nEach party")
    (best,) = program.retriever.search(row["question"], contract=row["contract"], k=1)
    assert sent == [program.messages(row["question"], best, "x")[:-1]]
    assert made.p_exists == 1 and ask(program.reader(), row, lambda _: NO_CLAUSE)[0].answer == NO_CLAUSE


def test_of_questions_without_a_clause_those_near_the_decision_are_taught(confident):
    rows = small.clause_corpus(range(100, 140))[0]
    looks = confident.look([(row["question"], row["contract"]) for row in rows])
    far = {row["id"]: abs(look.p_exists - 0.5) for row, look in zip(rows, looks) if row["is_impossible"]}
    data, counts = prompt_completions(confident, rows, size=40, impossible_share=0.25, seed=3)
    taught = {one["id"] for one in data} & far.keys()
    assert len(data) == 40 and len(taught) == counts["unanswerable"] == 10
    assert max(far[id_] for id_ in taught) <= min(far[id_] for id_ in far.keys() - taught)
    plain, _ = prompt_completions(ContractQA(confident.retriever, 3), rows, size=40, impossible_share=0.25, seed=3)
    assert {one["id"] for one in plain} & far.keys() != taught and len(plain) == 40


def test_further_passages_of_a_question_are_taught_only_where_rows_are_too_few(confident):
    rows = [row for row in small.clause_corpus(range(100, 140))[0] if row["answers"]]
    one, _ = prompt_completions(confident, rows, size=0, impossible_share=0.0, seed=3)
    few, _ = prompt_completions(confident, rows, size=len(one), impossible_share=0.0, seed=3)
    more, counts = prompt_completions(confident, rows, size=1000, impossible_share=0.0, seed=3)
    assert few == one and len({example["id"] for example in one}) == len(one)
    prompts = {(example["id"], example["prompt"][-1]["content"]) for example in more}
    assert len(one) < len(more) == len(prompts) == counts["answerable"] and all(each in more for each in one)
    twice = Counter(example["id"] for example in more)
    assert {row["id"] for row in rows if twice[row["id"]] > 1} <= {r["id"] for r in rows if len(r["answers"]) > 1}


@pytest.fixture(scope="module")
def confident() -> ContractQA:
    """A program with a confidence, which has learned from contracts 0 to 59 and holds 100 to 139, too."""
    retriever = small.clause_retriever(range(60), range(100, 140))
    rows, _ = small.clause_corpus(range(60))
    return ContractQA(retriever, 3, Confidence.fit(retriever, rows, k=3, false_answer_cost=1.0))


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
    shown = render_passages([hit(first), hit(second)])
    assert shown.count("<passage>") == shown.count("</passage>") == 2 and "<|" not in shown
    *_, message, _ = PROGRAM.messages(first, hit(second), "A")
    assert message["content"].count("</passage>") == 1 and "<|" not in message["content"]


@given(texts.map(lambda text: text.replace("\ud800", "")))
def test_contract_text_and_answers_add_no_turn_to_the_tokens(text):
    engine = _engine()
    end = engine.tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokens = engine.tokenize(PROGRAM.messages(text, hit(text), text))
    assert tokens.count(end) == 3  # system, user, assistant


def _engine(made=[]):  # noqa: B006
    if not made:
        made.append(LocalEngine(weights.find_weights("tiny"), dtype="float32"))
    return made[0]


# --- what is taught


def taught(hit: Hit, *spans: tuple[int, str]) -> str | None:
    """Return the target of a row with gold spans (start, text), the refusal without any."""
    return target_answer({"is_impossible": not spans, "answers": [{"text": t, "start": s} for s, t in spans]}, hit)


def test_the_refusal_is_taught_where_there_is_no_clause_and_nothing_where_it_stands_elsewhere():
    assert taught(hit("x")) == NO_CLAUSE
    assert taught(hit("x" * 50, 100), (150, "ab")) is taught(hit("x" * 50, 100), (98, "ab")) is None


def test_all_gold_spans_of_a_passage_are_taught_one_a_line_in_its_order():
    passage = hit("The fee\n is due. The term is <b> two years. Notices go by post.", 7)
    assert taught(passage, (36, "<b> two years"), (11, "fee\n is due")) == "fee is due\n< b> two years"
    assert taught(passage, (11, "fee\n is"), (15, "is due")) == "fee is due"  # of two that overlap, one line
    assert taught(passage, (11, "fee"), (500, "elsewhere")) == "fee"
    assert taught(hit("fee \n due"), (0, "fee"), (3, " \n ")) == "fee"


def test_a_span_that_the_passages_edge_cuts_is_taught_if_enough_of_it_lies_inside():
    span, cut = "the term is two years", int(21 * HELD_FROM)  # 21 characters
    for inside in range(1, 22):
        passage = hit(span[:inside], 100)
        before = hit("x" * 80 + " " + span[:inside], 19)
        assert taught(passage, (100, span)) is not None  # a passage that lies in the span holds the clause
        assert (taught(before, (100, span)) is None) == (inside <= cut)
    assert taught(hit("x " * 40 + "the term is two"), (80, span)) == "the term is two"


LETTERS = "ab _<>[\u0301\u093fé\n.-"


@given(
    st.text(LETTERS, min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 39), st.integers(1, 20)), min_size=1)
)
@hypothesis.example("Date: ____ day of ____", [(6, 2), (12, 8)])
@hypothesis.example("say [INST] ab", [(4, 5)])
@hypothesis.example("cafe\u0301 ab", [(0, 4)])
def test_what_is_taught_of_a_passage_is_what_a_model_may_quote_of_it(text, spans):
    found = {(start, text[start : start + length]) for start, length in spans if text[start : start + length].strip()}
    assume(found)
    for passage in cut_passages(text, size=max(1, len(text) // 2)):
        target = taught(Hit(passage, 1.0), *sorted(found))
        if target is not None:
            assert cut_to_words(target, QuoteSource(quotable(passage.text))) == target != ""


# --- what is quoted


def test_spans_point_at_the_answer_in_the_contract():
    for row in (r for r in small.ROWS if r["answers"]):
        gold, text = row["answers"][0], small.TEXTS[row["contract"]]
        reply = own_clause(row)
        for say in (reply, lambda m, reply=reply: reply(m).upper().replace(" ", "  ")):
            prediction, _ = ask(small.program(), row, say)
            assert prediction.spans == [[gold["start"], gold["start"] + len(gold["text"])]]
            assert text[slice(*prediction.spans[0])] == gold["text"] == prediction.answer


def test_quotes_of_all_passages_are_kept_and_invented_ones_have_no_place():
    first, second = small.program().retriever.search(ROW["question"], contract=ROW["contract"], k=2)
    own = {quotable(hit.passage.text): hit.passage for hit in (first, second)}
    made, _ = ask(small.program(), ROW, lambda m: f"invented words\n{small.first_clause(m)[:9]}")
    assert {quote["text"] for quote in made.quotes} == {"invented words", *(text[:9].strip() for text in own)}
    assert {quote["evidence"]["rank"] for quote in made.quotes} == {0.0, 1.0} and made.answer == "invented words"
    assert made.spans == [] and made.p_exists is None


def test_the_local_engine_is_held_to_the_passage_and_may_refuse_only_what_is_not_decided(confident, tiny, monkeypatch):
    engine, asked, complete = LocalEngine(tiny, dtype="float32"), [], LocalEngine.complete

    def noted(self, request):
        asked.append(read_quote_format(request.config.response_format))
        return complete(self, request)

    monkeypatch.setattr(LocalEngine, "complete", noted)
    rows = small.clause_corpus(range(100, 140))[0]
    looks = confident.look([(row["question"], row["contract"]) for row in rows])
    read = [(r, look) for r, look in zip(rows, looks) if look.read]
    chosen = [pair for kind in (True, False) for pair in [p for p in read if p[1].may_refuse is kind][:6]]
    assert {look.may_refuse for _, look in chosen} == {True, False}
    texts = {row["contract"]: "" for row in rows}
    for passage in confident.retriever.passages:
        texts[passage.contract] = texts.get(passage.contract, "") + passage.text
    with dspy.context(lm=engine.lm(max_tokens=48), adapter=PlainAdapter()):
        for row, look in chosen:
            asked.clear()
            replies = [confident.read(row["question"], look, n) for n in look.read]
            own = [quotable(look.hits[n].passage.text) for n in look.read]
            assert asked == [QuoteSource(text, NO_CLAUSE if look.may_refuse else None) for text in own]
            assert look.may_refuse or all(replies)
            for quote in (quote for quotes in replies for quote in quotes):
                assert quote.text == " ".join(texts[row["contract"]][slice(*quote.span)].split())
                assert {"first", "mean", "sum", "end", "line", "rank", "passage_p"} == set(quote.evidence)
                assert all(quote.evidence[name] <= 0 for name in ("first", "mean", "sum", "end"))
                assert quote.evidence["sum"] < 0
            told = confident.conclude(look, replies).quotes
            assert all(q["evidence"]["length"] == round(length_off(q["text"], look.usual), 5) for q in told)


def test_other_engines_are_asked_for_text_alone():
    script = small.Script(small.first_clause)
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()):
        small.program()(question=ROW["question"], contract=ROW["contract"])
    assert [(s.response_format, s.logprobs) for s in script.settings] == [(None, None)] * 2


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
    train, dev = (dspy_examples(rows, program) for rows in (small.ROWS[:8], small.ROWS[8:]))
    with dspy.context(lm=small.Script(right_with_demos).lm(), adapter=PlainAdapter()):
        made = compile_program(program, train, dev, optimizer=optimizer, bootstrapped_demos=1, labeled_demos=2)
    known = {(e.question, e.passage, e.answer) for e in train}
    assert isinstance(made, ContractQA) and made.retriever is program.retriever and program.predict.demos == []
    assert 1 <= len(made.predict.demos) <= 2
    assert all((d["question"], d["passage"], d["answer"]) in known for d in made.predict.demos)
    assert ask(made, ROW)[1][0][-1] == ask(program, ROW)[1][0][-1]


@pytest.mark.parametrize("optimizer", ["bootstrap", "bootstrap_random_search", "mipro"])
def test_a_model_that_mostly_fails_does_not_end_the_search(optimizer):
    program = small.program()
    data = dspy_examples(small.ROWS, program)
    with dspy.context(
        lm=small.Script(lambda m: "" if "<passage>" in m[-1]["content"] else "Quote it.").lm(), adapter=PlainAdapter()
    ):
        made = compile_program(program, data[:4], data, optimizer=optimizer, bootstrapped_demos=1, labeled_demos=1)
    assert len(made.predict.demos) <= 1


def test_a_bootstrapped_demo_holds_what_the_model_said_and_not_how_sure_it_was(tiny, confident):
    lm = LocalEngine(tiny, dtype="float32").lm(max_tokens=24)
    rows = [row for row in small.clause_corpus(range(100, 106))[0] if row["answers"]]
    data = dspy_examples(rows, confident)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        made = compile_program(confident, data, [], bootstrapped_demos=1, labeled_demos=1, threshold=0.0)
    (demo,) = made.predict.demos
    assert set(demo.keys()) == {"augmented", "passage", "question", "answer"}
    assert made.confidence.key == confident.confidence.key and made.retriever is confident.retriever


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="bootstrap_random_search"):
        compile_program(small.program(), [], [], optimizer="gepo")


BETTER = "Quote the whole sentence that answers, and nothing else."


def reflecting(proposal: str) -> small.Script:
    """Return an LM that quotes three words until it is told better, and proposes instructions when it reflects."""

    def reply(messages: list[dict[str, str]]) -> str:
        text = "\n".join(message["content"] for message in messages)
        if "<passage>" not in messages[-1]["content"] or "feedback" in text.lower():
            return proposal
        words = small.first_clause(messages).split()
        return " ".join(words if BETTER in text else words[:3])

    return small.Script(reply)


@pytest.mark.parametrize(
    "proposal, better", [(json.dumps({"new_instruction": BETTER}), True), ("I do not know.", False)]
)
def test_gepa_takes_instructions_that_answer_better_on_dev_and_says_so_if_there_are_none(proposal, better, capsys):
    program, script = small.program(k=1), reflecting(proposal)
    examples = dspy_examples([row for row in small.ROWS if row["answers"]], program)
    train, dev = examples[:6], examples[6:]
    with dspy.context(lm=script.lm(), adapter=PlainAdapter()):
        made = compile_program(program, train, dev, optimizer="gepa")
    assert (made.predict.signature.instructions == BETTER) == better and made.predict.demos == []
    assert ("no better instructions" in capsys.readouterr().out) == (not better)


def test_the_feedback_says_which_words_are_wrong():
    example = dspy.Example(golds=["the law of Ohio", "Texas law"])

    def told(answer, of=example):
        return answer_feedback(of, dspy.Prediction(answer=answer))

    assert (
        told("the law of Ohio").score == 1 and "lacks: none. It has besides: none" in told("the law of Ohio").feedback
    )
    wrong = told("of Ohio shall")
    assert 0 < wrong.score < 1 and "lacks: the law. It has besides: shall" in wrong.feedback
    assert "the law of Ohio | Texas law" in wrong.feedback
    assert "refuses" in told(NO_CLAUSE).feedback and told(NO_CLAUSE).score == 0
    none = dspy.Example(golds=[])
    assert told(NO_CLAUSE, none).score == 1 and "no such clause" in told("Ohio", none).feedback


def test_examples_leave_out_rows_without_a_target_and_score_their_gold_answer_one():
    program = small.program(k=1)
    outside = ROW | {"answers": [{"text": "not here", "start": 10**6}]}
    assert dspy_examples([outside], program) == []
    for example in dspy_examples(small.ROWS, program):
        assert answer_f1(example, dspy.Prediction(answer=example.answer)) == 1.0
        assert set(example.inputs().keys()) == {"question", "contract"}


def test_the_signature_names_the_refusal():
    assert NO_CLAUSE in small.program().predict.signature.instructions
