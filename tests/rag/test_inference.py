"""Properties of batch inference: every row is answered once, whatever fails or is killed on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.data.passages import cut_passages
from cuadft.evaluation import metrics, results
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models.local import LocalEngine
from cuadft.rag import inference
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
lm = engine.lm(max_tokens=8)
inference.answer_rows(small.program(), lm, small.ROWS, Path({out!r}), system="s", split="dev", batch_size=4)
"""


def run(path: Path, lm, rows=small.ROWS, program=None, batch_size=4):
    return inference.answer_rows(
        program or small.program(), lm, rows, path, system="s", split="dev", batch_size=batch_size
    )


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def asked(script: small.Script) -> list[str]:
    """Return the ids of the rows that a script was asked for; a contract's name and the question tell them apart."""
    return [
        row["id"]
        for call in script.calls
        for row in small.ROWS
        if row["question"] in call[-1]["content"] and row["contract"].split()[0] in call[-1]["content"]
    ]


def named(messages) -> str:
    """Fail for two rows, and else answer with the question's first word."""
    question = messages[-1]["content"].split("Question: ")[1]
    if question.startswith("Audit") and ("Acme" in messages[-1]["content"] or "Copper" in messages[-1]["content"]):
        raise OSError("the line is down")
    return question.split()[0]


FAILING = [f"{name} Distribution Agreement__Audit Rights" for name in ("Acme", "Copper")]


def test_results_follow_the_rows_and_carry_their_evidence(tmp_path):
    rows = small.ROWS[::-1]
    made = run(tmp_path / "p.jsonl", small.Script(small.first_clause).lm(), rows)
    assert [p["id"] for p in made] == IDS[::-1] and results.read_predictions(tmp_path / "p.jsonl") == made
    for p, row in zip(made, rows):
        text, last = small.TEXTS[row["contract"]], p["passages"][-1]
        assert {key: p[key] for key in row} == row and p["error"] is None and p["system"] == "s" and p["split"] == "dev"
        assert " ".join(text[last["start"] : last["end"]].split()) == p["answer"] and len(p["passages"]) == 2
        assert " ".join(text[slice(*p["spans"][-1])].split()) == p["answer"]


def test_the_tokens_of_the_prompt_are_counted_as_the_model_counts_them(tiny, tmp_path):
    engine, program = LocalEngine(tiny, dtype="float32"), small.program()
    made = run(tmp_path / "p.jsonl", engine.lm(max_tokens=2), small.ROWS[:3], program)
    for p in made:
        hits = program.retriever.search(p["question"], contract=p["contract"], k=program.k)
        assert p["prompt_tokens"] == len(engine.tokenize(program.messages(p["question"], hits, "x")[:-1]))
    scored = metrics.score_predictions(results.read_predictions(tmp_path / "p.jsonl"))
    assert list(scored["prompt_tokens"]) == [p["prompt_tokens"] for p in made]


def test_unknown_tokens_are_none_and_older_predictions_can_still_be_read(tmp_path):
    silent = small.Script(lambda m: "")  # a reply that fails: there is no answer to count for
    assert {p["prompt_tokens"] for p in run(tmp_path / "p.jsonl", silent.lm(), small.ROWS[:2])} == {None}
    old = [{k: v for k, v in p.items() if k != "prompt_tokens"} for p in results.read_predictions(tmp_path / "p.jsonl")]
    files.write_jsonl(tmp_path / "p.jsonl", old)
    assert metrics.score_predictions(results.read_predictions(tmp_path / "p.jsonl"))["prompt_tokens"].isna().all()
    working = small.Script(small.first_clause)
    made = run(tmp_path / "q.jsonl", working.lm(), small.ROWS[:2])
    files.write_jsonl(tmp_path / "q.jsonl", [{k: v for k, v in p.items() if k != "prompt_tokens"} for p in made])
    run(tmp_path / "q.jsonl", working.lm(), small.ROWS[:2])
    assert len(working.calls) == 2  # nothing is asked again for its tokens


def test_a_run_that_was_killed_goes_on_to_equal_results(tiny, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parents[1]), tiny=str(tiny), out=str(tmp_path / "killed.jsonl"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    torn = (tmp_path / "killed.jsonl").read_bytes()[:-40]  # the kill cut the eighth row's line short
    (tmp_path / "killed.jsonl").write_bytes(torn)
    assert [p["id"] for p in results.read_predictions(tmp_path / "killed.jsonl")] == IDS[:7]

    engine = LocalEngine(tiny, dtype="float32")
    whole = run(tmp_path / "whole.jsonl", engine.lm(max_tokens=8))
    assert engine.calls == 16
    resumed = run(tmp_path / "killed.jsonl", engine.lm(max_tokens=8))
    assert engine.calls == 16 + 9
    assert without_times(resumed) == without_times(whole)
    assert without_times(results.read_predictions(tmp_path / "killed.jsonl")) == without_times(whole)
    assert run(tmp_path / "killed.jsonl", engine.lm(max_tokens=8)) == resumed and engine.calls == 16 + 9


def test_other_weights_are_recomputed(tiny, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    save_file({k: v * 1.5 for k, v in weights.items()}, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    first, second = (LocalEngine(folder, dtype="float32") for folder in (tiny, tmp_path / "other"))
    run(tmp_path / "p.jsonl", first.lm(max_tokens=2), small.ROWS[:4])
    run(tmp_path / "p.jsonl", second.lm(max_tokens=2), small.ROWS[:4])
    assert second.calls == 4 and len({p["fingerprint"] for p in results.read_predictions(tmp_path / "p.jsonl")}) == 1


def test_failed_rows_are_kept_counted_and_tried_again_alone(tmp_path):
    failing, working = small.Script(named), small.Script(lambda m: "Audit")
    made = run(tmp_path / "p.jsonl", failing.lm())
    assert [p["id"] for p in made if p["error"]] == FAILING and len(made) == len(failing.calls) == 16
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


def test_a_row_that_cannot_be_retrieved_for_fails_alone(tmp_path):
    rows = [small.ROWS[0], small.ROWS[1] | {"contract": "Unknown"}, small.ROWS[2] | {"question": "  "}]
    made = run(tmp_path / "p.jsonl", small.Script(small.first_clause).lm(), rows)
    assert [p["error"] and p["error"].split(":")[0] for p in made] == [None, "InputError", "InputError"]


def other_demos():
    program = small.program()
    program.predict.demos = [{"passages": "a", "question": "b", "answer": "c"}]
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
    assert len(new.calls) == 4 and {p["answer"] for p in made} == {"new"}
    assert results.read_predictions(tmp_path / "p.jsonl") == made


def test_the_same_prompt_from_a_saved_program_is_not_recomputed(tmp_path):
    from cuadft.rag.program import dspy_examples, load_program, save_program

    program = small.program()
    program.predict.demos = dspy_examples(small.ROWS[:8], program.retriever, 2)[:2]
    save_program(program, tmp_path / "p.json")
    script = small.Script(small.first_clause)
    run(tmp_path / "p.jsonl", script.lm(), program=program)
    run(tmp_path / "p.jsonl", script.lm(), program=load_program(tmp_path / "p.json", program.retriever))
    assert len(script.calls) == 16


def test_a_row_that_changed_under_its_id_is_asked_again(tmp_path):
    script, changed = small.Script(small.first_clause), small.ROWS[1] | {"question": "Audit Rights: Who may audit?"}
    run(tmp_path / "p.jsonl", script.lm(), small.ROWS[:2])
    made = run(tmp_path / "p.jsonl", script.lm(), [small.ROWS[0], changed])
    assert len(script.calls) == 3 and made[1]["question"] == changed["question"]


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
    assert len(script.calls) == 16 and copied == [p | {"system": "rag_compiled"} for p in made]
    assert results.read_predictions(tmp_path / "rag_compiled.dev.jsonl") == copied
    assert results.read_predictions(tmp_path / "rag.dev.jsonl") == made
    assert beside(tmp_path / "p", script.lm(), name="rag_compiled") == copied and len(script.calls) == 16


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
    assert len(second.calls) == 16


def test_what_failed_or_cannot_be_read_elsewhere_is_asked_here(tmp_path):
    failing, working = small.Script(named), small.Script(lambda m: "Audit")
    beside(tmp_path / "p", failing.lm(), name="rag")
    (tmp_path / "broken.dev.jsonl").write_text("{torn\n{}\n")
    (tmp_path / "foreign.dev.jsonl").write_text('{"question": "Q?"}\n')
    made = beside(tmp_path / "p", working.lm(), name="rag_compiled")
    assert sorted(asked(working)) == sorted(FAILING) and [p["id"] for p in made] == IDS
    changed = [small.ROWS[0] | {"question": "Governing Law: Whose law?"}]
    beside(tmp_path / "p", working.lm(), name="third", rows=changed)
    assert len(working.calls) == len(FAILING) + 1


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
