"""`cuadft evaluate` asks a system of a run what it has not learned from, and prints what it writes."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import tiny_embedder
from tiny_project import BODIES, OPEN, RUN_DIR, make_project, run_in_process, write_notebook

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract
from cuadft.data.passages import cut_passages
from cuadft.evaluation.official import MEASURES
from cuadft.loop import gate, runner, unseen, verify
from cuadft.rag import inference
from cuadft.rag.calibration import Calibration
from cuadft.rag.confidence import Confidence, save_confidence
from cuadft.rag.settle import SystemConfidence
from cuadft.retrieval import saved
from cuadft.retrieval.retriever import Retriever

SIZE = 120
LAW = "Governing Law: Which law governs?"
AUDIT = "Audit Rights: May a party audit the books?"
LINE = re.compile(r"[\w.]+ (nan|\d+\.\d{3}) \[(nan|\d+\.\d{3}), (nan|\d+\.\d{3})\] \d+")

ROWS_OF_RUN = """
if not it.previous:
    files.write_jsonl(it.run / "contracts.jsonl", files.read_jsonl("given.jsonl"))
for name, title in [("train", "Train"), ("dev", "Dev"), ("test", "Test"), ("synthetic", "Train")]:
    rows = [{"id": f"{name}-{i}", "contract": title} for i in range(questions)]
    files.write_jsonl(it.path("data", name + ".jsonl"), rows)
"""
PROGRAMS_OF_RUN = f"""
from cuadft.data.passages import cut_passages
from cuadft.rag.program import ContractQA, save_program
from cuadft.retrieval.retriever import Retriever
held = [p for r in files.read_jsonl(it.run / "contracts.jsonl")
        for p in cut_passages(r["text"], contract=r["title"], size={SIZE})]
Retriever(held, None, mode="bm25", cutting=({SIZE}, 0.0)).save(it.path("retriever"))
for name in ("rag", "rag_compiled"):
    save_program(ContractQA(None, 2), it.path("program", name + ".json"))
"""
MODELS = (
    'model: str = "tiny"  # model\nembedder: str = "embedder"  # embedding model\nrag_lm: str = ""  # LiteLLM id\n'
    "batch_size: int = 2  # calls at once [1..256]\nmax_new_tokens: int = 64  # longest answer [8..1024]\n"
    'tuned_program: str = "rag"  # program of tuned models [rag|rag_compiled]\n'
)
ADAPTER_OF_RUN = 'import shutil\nshutil.copytree("adapter", it.path("adapters", "sft"), dirs_exist_ok=True)'


def text_of(name: str, law: str = "") -> str:
    words = " ".join(f"{name.lower()}{n}" for n in range(40))
    return f"{words}.\n\nThis Agreement is governed by the law of {law or name}.\n\nAll fees of {name} are due monthly."


def document(title: str, text: str = "", *, questions: bool = True) -> dict:
    """Return a contract with one answerable and one unanswerable question, as CUAD's file has them."""
    text = text or text_of(title)
    clause = re.search(r"This Agreement .*\.", text)
    asked = [
        {"question": LAW, "answers": [{"text": clause[0], "answer_start": clause.start()}], "is_impossible": False},
        {"question": AUDIT, "answers": [], "is_impossible": True},
    ]
    named = [{"id": f"{title}__{qa['question'].split(':')[0]}"} | qa for qa in asked if questions]
    return {"title": title, "paragraphs": [{"context": text, "qas": named}]}


def write(path: Path, *documents: dict) -> str:
    path.write_text(json.dumps({"version": "test", "data": list(documents)}))
    return str(path)


def record(title: str, split: str, text: str = "") -> dict:
    return {
        "title": title,
        "contract_type": "",
        "filer": "",
        "group": 0,
        "split": split,
        "text": text or text_of(title),
    }


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Path:
    """Return a project with a finished run of a real retriever, program and adapter; tests work on copies."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from cuadft.models import weights

    folder = make_project(tmp_path_factory.mktemp("project"))
    own = {
        "01_data_prep": ("questions: int = 4  # questions per contract [1..64]\n", ROWS_OF_RUN),
        "02_rag_compile": ("", PROGRAMS_OF_RUN),
        "03_batch_inference": (BODIES["03_batch_inference"][0] + MODELS, BODIES["03_batch_inference"][1]),
        "04_fine_tune": ("", ADAPTER_OF_RUN),
    }
    for name, (parameters, body) in own.items():
        write_notebook(folder / "notebooks" / f"{name}.ipynb", RUN_DIR + parameters, OPEN, body)
    files.write_jsonl(folder / "given.jsonl", [record(s.title(), s) for s in ("train", "dev", "test")])
    tiny_embedder.make(folder / "made", [LAW, AUDIT]).rename(folder / "embedder")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(folder / "adapter")
    base = {"model": "tiny", "sha256": weights.weights_hash(tiny)}
    (folder / "adapter" / "base.json").write_text(json.dumps(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runner, "execute_notebook", run_in_process)
        runner.run("tiny", log=lambda line: None)
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    project = shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return project / "runs/tiny"


@pytest.fixture
def new(run) -> str:
    """Return a file with three contracts that the run has learned from, its test contract and two new ones."""
    copy = document("Copy", text_of("Train"))
    return write(Path("new.json"), *map(document, ("Train", "Dev")), copy, *map(document, ("Test", "New A", "New B")))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Return the list to which the ids of all questions that a model is asked are added."""
    ids, answer = [], inference.answer_batch

    def counted(program, lm, rows, threads):
        ids.extend(row["id"] for row in rows)
        return answer(program, lm, rows, threads)

    monkeypatch.setattr(inference, "answer_batch", counted)
    return ids


def evaluate(run, file, **options):
    lines = []
    done = unseen.evaluate_file(run, file, n_resamples=50, log=lines.append, **options)
    return done, "\n".join(lines)


def without_times(predictions):
    return [{key: value for key, value in p.items() if key != "seconds"} for p in predictions]


def are_close(one, other):
    """Compare JSON values, of which the numbers may differ by 0.001."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_close, one, other))
    return one == pytest.approx(other, abs=1e-3) if isinstance(one, float) else one == other


def test_the_champion_is_asked_what_the_run_has_not_learned_from(run, new, asked):
    done, told = evaluate(run, new)
    assert done.left_out == {
        "Train": "trained on",
        "Dev": "settings chosen on",
        "Copy": "shares half its wording with 'Train', trained on",
    }
    assert told.splitlines() == [
        "6 contracts, 3 of them left out:",
        *(f"  {title}: {why}" for title, why in done.left_out.items()),
    ]
    assert done.system == "sft of iteration 1" and done.out == run / "evaluations" / "new-champion"
    kept = [f"{title}__{name}" for title in ("Test", "New A", "New B") for name in ("Governing Law", "Audit Rights")]
    assert [p["id"] for p in done.predictions] == kept == asked
    assert files.read_jsonl(done.out / "predictions.jsonl") == done.predictions
    assert {p["fingerprint"] for p in done.predictions} != {""} and all(p["passages"] for p in done.predictions)


def test_what_is_printed_is_what_is_written(run, new, capsys):
    assert cli.main(["evaluate", str(run), new, "--system", "rag", "--n-resamples", "50", "--confidence", "0.9"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "rag of iteration 1: 6 questions of 3 contracts, 0 failed; 90% intervals over contracts." in printed
    figures = [line for line in printed if re.match(r"[\w.]+ (nan|\d)", line)]
    assert all(LINE.fullmatch(line) for line in figures)
    out = run / "evaluations" / "new-rag"
    noted = files.read_json(out / "measures.json")
    with open(out / "measures.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["measure"] for row in table] == [*MEASURES] * 3

    def line(row):
        name = row["measure"] if row["system"] == "rag of iteration 1" else f"{row['system']}.{row['measure']}"
        value, low, high = (
            f"{math.nan if row[key] in (None, '') else float(row[key]):.3f}" for key in ("value", "low", "high")
        )
        return f"{name} {value} [{low}, {high}] {row['n']}"

    shown = [row for row in table if not row["system"].startswith(("always", "top")) or row["measure"] in unseen.BESIDE]
    assert figures == list(map(line, shown)) and len(figures) == len(MEASURES) + 6
    assert list(map(line, noted["measures"])) == list(map(line, table))
    assert (noted["file"], noted["sha256"]) == ("new.json", files.file_hash(new))
    assert (noted["run"], noted["system"], noted["contracts"], noted["confidence"]) == (
        "tiny",
        "rag of iteration 1",
        3,
        0.9,
    )
    assert list(noted["left_out"]) == ["Train", "Dev", "Copy"]
    for name in ("measures.json", "measures.csv", "predictions.jsonl"):
        assert str(run) not in (out / name).read_text() and "/" not in noted["file"]


def test_after_a_kill_only_the_rest_is_asked(run, new, asked):
    whole, _ = evaluate(run, new, system="rag")
    path = whole.out / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:40])  # killed while the fourth line was written
    (whole.out / "measures.csv").unlink()
    asked.clear()
    again, _ = evaluate(run, new, system="rag")
    assert asked == [p["id"] for p in whole.predictions[3:]]
    # fewer rows in a batch: on some processors the last digits of log-probabilities differ
    assert are_close(without_times(again.predictions), without_times(whole.predictions))
    assert again.table.equals(whole.table) and (whole.out / "measures.csv").is_file()
    asked.clear()
    evaluate(run, write(Path("new.json"), document("New A", text_of("New A", "Ohio")), document("New B")), system="rag")
    assert len(asked) == 4  # other passages stand behind every search


def test_the_champions_own_confidence_and_calibration_count(run, new, asked):
    """Without a classifier every question is unknown, and these calibrations give every one the same probability."""

    def says(p):
        return Calibration((), (), (), (), math.log(p / (1 - p)), 0)

    champion = runs.outgoing_champion(runs.Iteration(run, 1))
    save_confidence(
        Confidence(says(0.2), says(0.2), None, None, says(0.2), says(0.4), 1.0), run / champion["retriever"]
    )
    done, _ = evaluate(run, new)
    assert [p["p_search"] for p in done.predictions] == pytest.approx([0.2] * 6)
    assert {p["p_exists"] for p in done.predictions} == {0.2}
    quotes = [quote for p in done.predictions for quote in p["quotes"]]
    assert quotes and {quote["p"] for quote in quotes} == {0.4}
    SystemConfidence(says(0.7), says(0.6)).save(run / runs.calibration_file(champion))
    asked.clear()
    again, _ = evaluate(run, new)
    assert not asked  # a calibration needs no model
    assert [p["p_exists"] for p in again.predictions] == [0.7 if p["quotes"] else 0.2 for p in again.predictions]
    assert {quote["p"] for p in again.predictions for quote in p["quotes"]} == {0.6}
    assert files.read_json(again.out / "measures.json")["calibration"] == "iter-01/predictions/sft.confidence.json"
    gate.promote(run, "rag", reason="simpler")
    other, _ = evaluate(run, new)
    assert {p["p_exists"] for p in other.predictions} == {0.2}  # nothing is calibrated on the answers of rag
    assert {quote["p"] for p in other.predictions for quote in p["quotes"]} <= {0.4}


def test_the_systems_without_a_model_stand_beside_it(run, new):
    done, _ = evaluate(run, new, system="rag")
    assert list(done.table["system"].unique()) == ["rag of iteration 1", "always_refuses", "top_passage"]
    board = done.table[done.table["system"] == "always_refuses"].set_index("measure")
    assert board.at["laziness", "value"] == 1 and math.isnan(board.at["verbatim", "value"])


def test_another_text_under_a_title_of_the_run_is_the_one_that_is_read(run):
    text = text_of("Elsewhere", "Zanzibar")
    before = files.file_hash(run / "iter-01/retriever")
    done, _ = evaluate(run, write(Path("other.json"), document("Test", text), document("New A")), system="rag")
    law = next(p for p in done.predictions if p["id"] == "Test__Governing Law")
    assert any("Zanzibar" in text[p["start"] : p["end"]] for p in law["passages"])
    assert all(text[slice(*quote["span"])] == quote["text"] for quote in law["quotes"])
    assert files.file_hash(run / "iter-01/retriever") == before


def test_a_retriever_gets_exactly_the_texts_of_the_file():
    def contract(title, text):
        return Contract(title, text)

    def texts(retriever):
        return {p.contract: p.text for p in retriever.passages}

    held = Retriever(
        [p for t in "ab" for p in cut_passages(t * 50, contract=t, size=SIZE)], None, mode="bm25", cutting=(SIZE, 0.0)
    )
    assert saved.with_texts(held, [contract("a", "a" * 50)]) is held and set(texts(held)) == {"a", "b"}
    more = saved.with_texts(held, [contract("c", "c" * 50)])
    assert texts(more) == texts(held) | {"c": "c" * 50} and "c" not in texts(held)
    other = saved.with_texts(more, [contract("a", "another"), contract("d", "d" * 50)])
    assert texts(other) == {"a": "another", "b": "b" * 50, "c": "c" * 50, "d": "d" * 50}
    assert texts(held)["a"] == "a" * 50 and other.settings == held.settings and other.cutting == held.cutting
    held.cutting = None
    with pytest.raises(InputError, match="lacks 'e' and does not say how its passages were cut"):
        saved.with_texts(held, [contract("e", "e")])


def test_the_run_is_well_afterwards_and_nothing_of_it_runs_again(run, new):
    evaluate(run, new)
    verdict = verify.verify_run(run)
    assert not verdict.findings and (run / "evaluations").is_dir()
    steps = runner.run("tiny", log=lambda line: None)["steps"]
    assert {step["state"] for step in steps} == {"skipped"}
    assert (run / "evaluations/new-champion/measures.csv").is_file() and not verify.verify_run(run).findings


def test_a_run_that_has_not_decided_needs_a_system(run, new):
    (run / "iter-01/decision.json").unlink()
    with pytest.raises(InputError, match="not decided on a champion yet: name a system with --system"):
        evaluate(run, new)
    done, _ = evaluate(run, new, system="sft", out="results")
    assert done.system == "sft of iteration 1" and done.out == Path("results")
    assert sorted(path.name for path in done.out.iterdir()) == ["measures.csv", "measures.json", "predictions.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"system": "stf"},
            "'stf' is no system of .*did you mean 'sft'.*choose one of rag, rag_compiled, sft, champion",
        ),
        ({"system": "dpo"}, "'dpo' is no system of"),  # its folder holds no weights
        ({"system": "incumbent"}, "'incumbent' is no system of"),  # of a first iteration
        ({"iteration": 2}, "No iteration 2 in .*choose one of 1"),
        ({"confidence": 1.5}, "confidence"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_asked(run, new, asked, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(run, new, **options)
    assert not asked and not (run / "evaluations").exists()


def test_a_file_of_known_contracts_or_without_questions_is_refused(run):
    with pytest.raises(InputError, match="known.json has no question on contracts that the run has not learned from"):
        evaluate(run, write(Path("known.json"), document("Train"), document("Dev")))
    with pytest.raises(InputError, match="bare.json has no question on contracts"):
        evaluate(run, write(Path("bare.json"), document("Train"), document("New A", questions=False)))
    broken = document("New A")
    broken["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    with pytest.raises(InputError, match="New A__Governing Law.*correct .answer_start"):
        evaluate(run, write(Path("broken.json"), broken))


def test_parameters_that_no_manifest_records_are_named(run, new):
    manifest = run / "iter-01/manifest.json"
    content = files.read_json(manifest)
    for stage in content["stages"].values():
        stage["parameters"].pop("max_new_tokens", None)
    files.write_json(manifest, content)
    with pytest.raises(InputError, match="records no max_new_tokens, so that rag can't be built"):
        evaluate(run, new, system="rag")


def test_many_left_out_contracts_are_counted_on_the_screen_and_all_in_the_files(run):
    copies = [document(f"Copy {n}", text_of("Train")) for n in range(25)]
    done, told = evaluate(run, write(Path("many.json"), *copies, document("New A")), system="rag")
    assert len(told.splitlines()) == 22 and told.endswith("\n  and 5 more")
    assert len(files.read_json(done.out / "measures.json")["left_out"]) == 25


def test_every_way_in_which_a_contract_was_learned_from_is_known(tmp_path):
    iteration = runs.Iteration(tmp_path, 1)
    records = [record(s.title(), s) for s in ("train", "dev", "all", "plain", "test", "slice")]
    related = record("Related", "test", text_of("Train") + " And one more.")  # as CUAD's own split has it
    files.write_jsonl(tmp_path / "contracts.jsonl", [*records, related])
    files.write_jsonl(iteration.path("data", "synthetic.jsonl"), [{"contract": "Gone"}])
    titles = ("Train", "Dev", "All", "Plain", "Gone", "Test", "Slice", "New")
    wanted = [Contract(title, text_of(title)) for title in titles] + [Contract("Related", related["text"])]
    left_out, kept = unseen._learned_from(iteration, wanted)
    trained = dict.fromkeys(("Train", "All", "Plain", "Gone"), "trained on")
    assert left_out == trained | {"Dev": "settings chosen on"}
    assert kept == {"Related": "shares half its wording with 'Train', trained on"}
    changed = [Contract("Related", text_of("Train") + " And another.")]  # no longer the run's own test contract
    assert unseen._learned_from(iteration, changed) == (kept, {})
