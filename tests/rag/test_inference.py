"""Properties of batch inference: every row is answered once, whatever fails or is killed on the way."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.data.passages import cut_passages
from cuadft.evaluation import metrics, results
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models.local import LocalEngine
from cuadft.rag import inference
from cuadft.rag.confidence import Confidence
from cuadft.rag.program import ContractQA
from cuadft.rag.settle import SystemConfidence, quotes_right, settle, settle_left_out
from cuadft.rag.systems import System
from cuadft.retrieval.retriever import Retriever

IDS = [row["id"] for row in small.ROWS]
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import small
from cuadft.core import files
from cuadft.models.local import LocalEngine
from cuadft.rag import inference
append, done = files.append_jsonl, []
def killed(path, rows):
    append(path, rows)
    done.append(path)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
files.append_jsonl = killed
engine = LocalEngine(Path({tiny!r}), dtype="float32")
lm = engine.lm(max_tokens=24)
inference.answer_rows(small.program(), lm, small.ROWS, Path({out!r}), system="s", split="dev", batch_size=1)
"""


def run(path: Path, lm, rows=small.ROWS, program=None, batch_size=4):
    return inference.answer_rows(
        program or small.program(), lm, rows, path, system="s", split="dev", batch_size=batch_size
    )


def comparable(rows, torn: str):
    """Return predictions without times, and of the torn row what the model wrote: read alone it is padded otherwise."""
    made = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return [p | {"quotes": [(q["text"], q["span"]) for q in p["quotes"]]} if p["id"] == torn else p for p in made]


def asked(script: small.Script) -> list[str]:
    """Return the ids of the rows that a script was asked for; the question and the passage tell them apart."""
    found = [call[-1]["content"].split("<passage>")[1].split("</passage>\n\nQuestion: ") for call in script.calls]
    texts = {title: quotable(text) for title, text in small.TEXTS.items()}
    return [r["id"] for r in small.ROWS if any(q == r["question"] and p in texts[r["contract"]] for p, q in found)]


def named(messages) -> str:
    """Fail for two rows, and else answer with the question's first word."""
    question = messages[-1]["content"].split("Question: ")[1]
    if question.startswith("Audit") and ("Acme" in messages[-1]["content"] or "Copper" in messages[-1]["content"]):
        raise OSError("the line is down")
    return question.split()[0]


FAILING = [f"{name} Distribution Agreement__Audit Rights" for name in ("Acme", "Copper")]


def test_results_follow_the_rows_and_carry_their_evidence(tmp_path):
    rows, script = small.ROWS[::-1], small.Script(lambda m: small.first_clause(m)[:20].strip())
    made = run(tmp_path / "p.jsonl", script.lm(), rows)
    assert [p["id"] for p in made] == IDS[::-1] and results.read_predictions(tmp_path / "p.jsonl") == made
    assert len(script.calls) == 2 * len(rows), "one for each passage"
    for p, row in zip(made, rows):
        text = small.TEXTS[row["contract"]]
        assert {key: p[key] for key in row} == row and p["error"] is None and p["system"] == "s" and p["split"] == "dev"
        own = [text[one["start"] : one["end"]] for one in p["passages"]]
        assert {quote["text"] for quote in p["quotes"]} == {quotable(passage)[:20].strip() for passage in own}
        assert p["answer"] == quotable(own[0])[:20].strip() == " ".join(text[slice(*p["spans"][0])].split())
        assert p["p_exists"] is p["p_search"] is None and not p["calibrated"]


def test_the_tokens_of_all_prompts_are_counted_as_the_model_counts_them(tiny, tmp_path):
    engine, program = LocalEngine(tiny, dtype="float32"), small.program()
    made = run(tmp_path / "p.jsonl", engine.lm(max_tokens=24), small.ROWS[:3], program)
    for p in made:
        hits = program.retriever.search(p["question"], contract=p["contract"], k=program.k)
        prompts = [program.messages(p["question"], hit, "x")[:-1] for hit in hits]
        assert p["prompt_tokens"] == sum(len(engine.tokenize(prompt)) for prompt in prompts)
    scored = metrics.score_predictions(results.read_predictions(tmp_path / "p.jsonl"))
    assert list(scored["prompt_tokens"]) == [p["prompt_tokens"] for p in made]


def test_unknown_tokens_are_none_and_predictions_without_them_can_still_be_read(tmp_path):
    silent = small.Script(lambda m: "")  # a reply that fails: there is no answer to count for
    assert {p["prompt_tokens"] for p in run(tmp_path / "p.jsonl", silent.lm(), small.ROWS[:2])} == {None}
    old = [{k: v for k, v in p.items() if k != "prompt_tokens"} for p in results.read_predictions(tmp_path / "p.jsonl")]
    files.write_jsonl(tmp_path / "p.jsonl", old)
    assert metrics.score_predictions(results.read_predictions(tmp_path / "p.jsonl"))["prompt_tokens"].isna().all()
    working = small.Script(small.first_clause)
    made = run(tmp_path / "q.jsonl", working.lm(), small.ROWS[:2])
    files.write_jsonl(tmp_path / "q.jsonl", [{k: v for k, v in p.items() if k != "prompt_tokens"} for p in made])
    run(tmp_path / "q.jsonl", working.lm(), small.ROWS[:2])
    assert len(working.calls) == 4  # nothing is asked again for its tokens


def test_a_run_that_was_killed_goes_on_to_equal_results(tiny, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parents[1]), tiny=str(tiny), out=str(tmp_path / "killed.jsonl"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    torn = (tmp_path / "killed.jsonl").read_bytes()[:-40]  # the kill cut the eighth row's line short
    (tmp_path / "killed.jsonl").write_bytes(torn)
    assert [p["id"] for p in results.read_predictions(tmp_path / "killed.jsonl")] == IDS[:7]

    engine = LocalEngine(tiny, dtype="float32")
    whole = run(tmp_path / "whole.jsonl", engine.lm(max_tokens=24), batch_size=1)
    assert engine.calls == 2 * 16
    resumed = run(tmp_path / "killed.jsonl", engine.lm(max_tokens=24), batch_size=1)
    assert engine.calls == 2 * (16 + 9)
    assert comparable(resumed, IDS[7]) == comparable(whole, IDS[7])
    assert results.read_predictions(tmp_path / "killed.jsonl") == resumed
    again = run(tmp_path / "killed.jsonl", engine.lm(max_tokens=24), batch_size=1)
    assert again == resumed and engine.calls == 2 * (16 + 9)


def test_other_weights_are_recomputed(tiny, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    save_file({k: v * 1.5 for k, v in weights.items()}, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    first, second = (LocalEngine(folder, dtype="float32") for folder in (tiny, tmp_path / "other"))
    run(tmp_path / "p.jsonl", first.lm(max_tokens=16), small.ROWS[:4])
    run(tmp_path / "p.jsonl", second.lm(max_tokens=16), small.ROWS[:4])
    assert second.calls == 8 and len({p["fingerprint"] for p in results.read_predictions(tmp_path / "p.jsonl")}) == 1


def test_failed_rows_are_kept_counted_and_tried_again_alone(tmp_path):
    failing, working = small.Script(named), small.Script(lambda m: "Audit")
    made = run(tmp_path / "p.jsonl", failing.lm())
    assert [p["id"] for p in made if p["error"]] == FAILING and len(made) == 16
    assert len(failing.calls) == 32, "one failed passage must not keep others from being read"
    assert all(
        p["answer"] is None and p["spans"] == [] and "the line is down" in p["error"] for p in made if p["error"]
    )
    assert results.read_predictions(tmp_path / "p.jsonl") == made
    again = run(tmp_path / "p.jsonl", working.lm())
    assert sorted(asked(working)) == sorted(FAILING) and [p["id"] for p in again] == IDS
    assert all(p["error"] is None for p in again) and len(results.read_predictions(tmp_path / "p.jsonl")) == 16
    assert [p for p in again if p["id"] not in FAILING] == [p for p in made if p["id"] not in FAILING]


def test_a_batch_that_fails_as_a_whole_does_not_end_the_run(tmp_path):
    made = run(tmp_path / "p.jsonl", small.Script(lambda m: "").lm(), batch_size=16)
    assert len(made) == 16 and all("AdapterParseError" in p["error"] for p in made)


def other_demos():
    program = small.program()
    program.predict.demos = [{"passage": "a", "question": "b", "answer": "c"}]
    return program


def other_instructions():
    program = small.program()
    program.predict.signature = program.predict.signature.with_instructions("Quote.")
    return program


def other_passages():
    """Return a program whose passages are as many as before, but of other contract texts."""
    program = small.program()
    passages = [
        p for t, text in small.TEXTS.items() for p in cut_passages(text.replace("shall", "must "), contract=t, size=120)
    ]
    assert len(passages) == len(program.retriever.passages)
    program.retriever = Retriever(passages, None, mode="bm25")
    return program


@pytest.mark.parametrize(
    "program, settings",
    [
        (small.program, {"name": "other"}),
        (small.program, {"temperature": 0.5}),
        (small.program, {"max_tokens": 31}),
        (small.program, {"temperature": 0.5, "seed": 2}),
        (lambda: small.program(k=1), {}),
        (other_demos, {}),
        (other_instructions, {}),
        (other_passages, {}),
    ],
    ids=["model", "temperature", "max_tokens", "seed", "k", "demos", "instructions", "passages"],
)
def test_predictions_made_otherwise_are_dropped_and_recomputed(program, settings, tmp_path):
    old, new = small.Script(lambda m: "old"), small.Script(lambda m: "new")
    run(tmp_path / "p.jsonl", old.lm(), small.ROWS[:4])
    made = run(tmp_path / "p.jsonl", new.lm(**settings), small.ROWS[:4], program())
    assert len(new.calls) == 4 * program().k and {p["answer"] for p in made} == {"new"}
    assert results.read_predictions(tmp_path / "p.jsonl") == made


def test_the_same_prompt_from_a_saved_program_is_not_recomputed(tmp_path):
    from cuadft.rag.compiling import dspy_examples
    from cuadft.rag.program import load_program, save_program

    program = small.program()
    program.predict.demos = dspy_examples(small.ROWS[:8], program)[:2]
    save_program(program, tmp_path / "p.json")
    script = small.Script(small.first_clause)
    run(tmp_path / "p.jsonl", script.lm(), program=program)
    run(tmp_path / "p.jsonl", script.lm(), program=load_program(tmp_path / "p.json", program.retriever))
    assert len(script.calls) == 2 * 16


def test_a_row_that_changed_under_its_id_is_asked_again(tmp_path):
    script, changed = small.Script(small.first_clause), small.ROWS[1] | {"question": "Audit Rights: Who may audit?"}
    run(tmp_path / "p.jsonl", script.lm(), small.ROWS[:2])
    made = run(tmp_path / "p.jsonl", script.lm(), [small.ROWS[0], changed])
    assert len(script.calls) == 2 * 3 and made[1]["question"] == changed["question"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    run(tmp_path / "p.jsonl", small.Script(small.first_clause).lm(), small.ROWS[:2])
    lines = (tmp_path / "p.jsonl").read_text().splitlines(keepends=True)
    files.write_text(tmp_path / "p.jsonl", "{torn\n" + lines[1])
    with pytest.raises(InputError, match="line 1"):
        results.read_predictions(tmp_path / "p.jsonl")


def test_read_all_takes_the_wanted_systems_only(tmp_path):
    for name in ("rag.dev", "rag.test", "rag_compiled.dev", "sft.dev"):
        files.write_jsonl(tmp_path / f"{name}.jsonl", [{"id": name}])
    assert [p["id"] for p in results.read_all_predictions(tmp_path)] == [
        "rag.dev",
        "rag.test",
        "rag_compiled.dev",
        "sft.dev",
    ]
    assert [p["id"] for p in results.read_all_predictions(tmp_path, ["rag"])] == ["rag.dev", "rag.test"]
    assert results.read_all_predictions(tmp_path / "none") == results.read_predictions(tmp_path / "none.jsonl") == []


def test_no_rows_need_no_model(tmp_path):
    assert run(tmp_path / "p.jsonl", small.Script(small.first_clause).lm(), []) == []


def beside(path: Path, lm, *, name: str, split: str = "dev", program=None, rows=small.ROWS):
    """Answer as a system of this name, in a file of its own beside `path`."""
    file = path.with_name(f"{name}.{split}.jsonl")
    return inference.answer_rows(program or small.program(), lm, rows, file, system=name, split=split, batch_size=4)


def test_answers_of_the_same_program_and_model_under_another_name_are_copied(tmp_path):
    script = small.Script(small.first_clause)
    made = beside(tmp_path / "p", script.lm(), name="rag")
    copied = beside(tmp_path / "p", script.lm(), name="rag_compiled")
    assert len(script.calls) == 2 * 16 and copied == [p | {"system": "rag_compiled"} for p in made]
    assert results.read_predictions(tmp_path / "rag_compiled.dev.jsonl") == copied
    assert results.read_predictions(tmp_path / "rag.dev.jsonl") == made
    assert beside(tmp_path / "p", script.lm(), name="rag_compiled") == copied and len(script.calls) == 2 * 16


@pytest.mark.parametrize(
    "settings, options",
    [
        ({"temperature": 0.7, "seed": 1}, {}),  # sampled answers differ from one another
        ({"temperature": None}, {}),
        ({"name": "other"}, {}),
        ({}, {"split": "test"}),
        ({}, {"program": other_demos()}),
    ],
    ids=["sampled", "unknown temperature", "model", "split", "demos"],
)
def test_no_other_answers_are_copied(settings, options, tmp_path):
    first, second = small.Script(small.first_clause), small.Script(small.first_clause)
    beside(tmp_path / "p", first.lm(**({} if options or "name" in settings else settings)), name="rag")
    beside(tmp_path / "p", second.lm(**settings), name="rag_compiled", **options)
    assert len(second.calls) == 2 * 16


def test_what_failed_or_cannot_be_read_elsewhere_is_asked_here(tmp_path):
    failing, working = small.Script(named), small.Script(lambda m: "Audit")
    beside(tmp_path / "p", failing.lm(), name="rag")
    (tmp_path / "broken.dev.jsonl").write_text("{torn\n{}\n")
    (tmp_path / "foreign.dev.jsonl").write_text('{"question": "Q?"}\n')
    made = beside(tmp_path / "p", working.lm(), name="rag_compiled")
    assert sorted(asked(working)) == sorted(FAILING) and [p["id"] for p in made] == IDS
    changed = [small.ROWS[0] | {"question": "Governing Law: Whose law?"}]
    beside(tmp_path / "p", working.lm(), name="third", rows=changed)
    assert len(working.calls) == 2 * (len(FAILING) + 1)


def test_answers_are_compared_row_by_row_with_failures_shown_in_their_place():
    def broken(prompt):
        raise RuntimeError("no answer today")

    systems = [
        System("plain", small.program(), small.Script(lambda prompt: "ten days").lm()),
        System("broken", small.program(), small.Script(broken).lm()),
    ]
    rows = [small.ROWS[1], next(row for row in small.ROWS if row["is_impossible"])]
    found = inference.compare_answers(systems, rows)
    assert [list(record) for record in found] == [["question", "gold", "plain", "broken"]] * 2
    assert found[0]["gold"] == rows[0]["answers"][0]["text"] and found[1]["gold"] == NO_CLAUSE
    assert all(record["plain"] == "ten days" and "no answer today" in record["broken"] for record in found)


def test_no_question_to_compare_gives_no_record():
    assert inference.compare_answers([System("plain", small.program(), small.Script(str).lm())], []) == []


# --- with a confidence

CLAUSE_ROWS = small.clause_corpus(range(100, 140))[0]


@pytest.fixture(scope="module")
def program() -> ContractQA:
    """A program with a confidence, which has learned from contracts 0 to 59 and holds those of CLAUSE_ROWS, too."""
    retriever = small.clause_retriever(range(60), range(100, 140))
    rows, _ = small.clause_corpus(range(60))
    return ContractQA(retriever, 3, Confidence.fit(retriever, rows, k=3, false_answer_cost=1.0))


def priced(program: ContractQA, cost: float) -> ContractQA:
    """Return the program with another cost of a false answer."""
    return ContractQA(program.retriever, program.k, replace(program.confidence, false_answer_cost=cost))


def copied_clause(messages) -> str:
    """Copy a passage that begins as clauses do, and refuse any other."""
    passage = small.first_clause(messages)
    return passage if "party:" in passage else NO_CLAUSE


def test_no_model_is_asked_for_what_is_surely_absent_and_one_call_a_passage_that_is_read(program, tmp_path):
    script = small.Script(copied_clause)
    made = run(tmp_path / "p.jsonl", script.lm(), CLAUSE_ROWS, program)
    looks = program.look([(row["question"], row["contract"]) for row in CLAUSE_ROWS])
    assert {0, 1, 2} <= {len(look.read) for look in looks}
    prompts = [program.messages(r["question"], l.hits[n], "x")[:-1] for r, l in zip(CLAUSE_ROWS, looks) for n in l.read]
    assert sorted(map(str, script.calls)) == sorted(map(str, prompts))
    for p, look in zip(made, looks):
        assert p["p_search"] == look.p_exists and p["p_exists"] == round(look.p_exists, 5) and p["calibrated"]
        assert [record["p"] for record in p["passages"]] == [round(share, 5) for share in look.passage_p]
        assert [record["read"] for record in p["passages"]] == [n in look.read for n in range(len(look.hits))]
        assert (p["prompt_tokens"] == 0) == look.absent
        if look.absent or look.may_refuse:
            assert p["answer"] == NO_CLAUSE and p["spans"] == [] and not any(quote["quoted"] for quote in p["quotes"])
        else:
            assert p["answer"].split()[1] == "party:" and p["quotes"][0]["quoted"]
    unsure = [p for p, look in zip(made, looks) if look.may_refuse and look.read]
    assert any(p["quotes"] for p in unsure), "what the model quotes below the threshold is kept, though not shown"


def test_other_costs_change_the_fingerprint_and_decide_anew_from_what_is_kept(program, tmp_path):
    script, path = small.Script(copied_clause), tmp_path / "p.jsonl"
    made = run(path, script.lm(), CLAUSE_ROWS, program)
    others = [ContractQA(program.retriever, 3), *(priced(program, cost) for cost in (1.0, 2.0, 4.0))]
    assert len({inference.answers_fingerprint(other, script.lm()) for other in others}) == 4
    assert made[0]["fingerprint"] == inference.answers_fingerprint(priced(program, 1.0), script.lm())
    calls = len(script.calls)
    settled = inference.settle_file(path, made, priced(program, 4.0))
    assert results.read_predictions(path) == settled
    answered = [sum(p["answer"] != NO_CLAUSE for p in some) for some in (made, settled)]
    assert 0 < answered[1] < answered[0]
    assert all(p["answer"] == NO_CLAUSE or p["p_exists"] >= 0.8 for p in settled)
    assert inference.settle_file(path, settled, program) == made == results.read_predictions(path)
    assert len(script.calls) == calls
    run(path, script.lm(), CLAUSE_ROWS[:9], priced(program, 0.25))
    assert len(script.calls) > calls, "what was read and what might be refused was another thing"


def calibrated_system(program: ContractQA, folder: Path, script: small.Script, own: bool = True) -> System:
    """Return a system as `build_systems` makes it: with the calibration that its file holds."""
    known = SystemConfidence.load(folder / "s.confidence.json")
    asked = ContractQA(program.retriever, program.k, program.confidence, known)
    return System("s", asked, script.lm(), folder / "s.confidence.json", own)


def test_a_system_is_calibrated_on_its_dev_answers_and_these_are_settled_without_their_own_contract(program, tmp_path):
    script = small.Script(copied_clause)
    system, path = calibrated_system(program, tmp_path, script), tmp_path / "s.dev.jsonl"
    made = run(path, system.lm, CLAUSE_ROWS, system.program)
    settled = inference.calibrate(system, made, path)
    right = [quotes_right(p) for p in made]
    assert settled == settle_left_out(made, right, 0.5) == results.read_predictions(path) != made
    assert system.program.system == SystemConfidence.load(system.calibration) == SystemConfidence.fit(made, right)
    assert system.program.system.quote is not None
    (later, *_) = run(tmp_path / "s.test.jsonl", system.lm, CLAUSE_ROWS, system.program)
    assert later["quotes"] == settle(made[0], 0.5, system.program.system)["quotes"]

    calls, files_then = len(script.calls), [f.read_bytes() for f in (path, system.calibration)]
    again = calibrated_system(program, tmp_path, script)
    assert inference.calibrate(again, run(path, again.lm, CLAUSE_ROWS, again.program), path) == settled
    assert len(script.calls) == calls and [f.read_bytes() for f in (path, again.calibration)] == files_then


def test_an_earlier_iterations_system_keeps_its_calibration_and_its_dev_answers_are_settled_as_others(
    program, tmp_path
):
    script, path = small.Script(copied_clause), tmp_path / "p.jsonl"
    SystemConfidence(None, None, {"of": "iteration 1"}).save(tmp_path / "s.confidence.json")
    system = calibrated_system(program, tmp_path, script, own=False)
    made = run(path, system.lm, CLAUSE_ROWS, system.program)
    before = (tmp_path / "s.confidence.json").read_bytes()
    settled = inference.calibrate(system, made, path)
    assert (
        settled == settle_left_out(made, [quotes_right(p) for p in made], 0.5) == results.read_predictions(path) != made
    )
    assert system.program.system.about == {"of": "iteration 1"}
    assert (tmp_path / "s.confidence.json").read_bytes() == before


def test_a_random_local_model_quotes_what_stands_in_the_contract(program, tiny, tmp_path):
    engine = LocalEngine(tiny, dtype="float32")
    made = run(tmp_path / "p.jsonl", engine.lm(max_tokens=48), CLAUSE_ROWS[:24], program)
    texts: dict[str, str] = {}
    for passage in program.retriever.passages:
        texts[passage.contract] = texts.get(passage.contract, "") + passage.text
    assert not any(p["error"] for p in made)
    quotes = [(texts[p["contract"]], quote) for p in made for quote in p["quotes"]]
    assert len(quotes) > 10
    assert all(quote["text"] == " ".join(text[slice(*quote["span"])].split()) for text, quote in quotes)
    looks = program.look([(p["question"], p["contract"]) for p in made])
    assert all(p["quotes"] for p, look in zip(made, looks) if not look.may_refuse), "none of these may be refused"
