"""Properties of the systems that a run compares: each runs on its own weights and program, or says what is missing."""

import json
import shutil
from dataclasses import replace

import dspy
import pytest
import small

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data.passages import cut_passages
from cuadft.models import weights
from cuadft.models.api import Endpoint
from cuadft.models.local import LocalEngine
from cuadft.rag import program, systems
from cuadft.rag.confidence import CONFIDENCE_FILE, Confidence, save_confidence
from cuadft.rag.inference import answer_batch, answers_fingerprint
from cuadft.rag.program import ContractQA, PlainAdapter
from cuadft.rag.settle import SystemConfidence
from cuadft.retrieval import saved
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.retriever import Retriever

TEXT = (
    "The fee is ten dollars a month. This Agreement is governed by the laws of Ohio. Either party may audit the other."
)


@pytest.fixture(scope="module")
def embedder(tiny, tmp_path_factory):
    """A folder that passes for an embedding model; BM25 never loads it."""
    folder = tmp_path_factory.mktemp("embedder") / "model"
    shutil.copytree(tiny, folder)
    (folder / "modules.json").write_text("[]")
    return folder


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "sft"
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(folder)
    (folder / "base.json").write_text(json.dumps({"model": "tiny", "sha256": weights.weights_hash(tiny)}))
    return folder


@pytest.fixture
def build(tiny, embedder, tmp_path, monkeypatch):
    """Return build_systems with the tiny model, and a run whose first iteration holds a retriever and two programs."""
    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))

    def call(iteration, names, **settings):
        return systems.build_systems(iteration, names, **({"model": str(tiny), "embedder": str(embedder)} | settings))

    return call


@pytest.fixture
def run(embedder, tmp_path):
    return prepare(runs.Iteration(tmp_path / "run", 1), embedder, k=1)


def prepare(iteration, embedder, k):
    retriever = Retriever(
        cut_passages(TEXT, contract="c", size=40), Embedder(embedder, cache_dir=iteration.run), mode="bm25"
    )
    retriever.save(iteration.path("retriever"))
    program.save_program(ContractQA(retriever, k), iteration.path("program", "rag.json"))
    program.save_program(ContractQA(retriever, k + 1), iteration.path("program", "rag_compiled.json"))
    return iteration


def decide(iteration, **promoted):
    files.write_json(
        iteration.path("decision.json"), {"promoted": {"system": "x", "program": None, "weights": None} | promoted}
    )
    return runs.Iteration(iteration.run, iteration.number + 1)


def test_what_has_not_been_made_names_the_notebook_that_makes_it(run, build, tmp_path):
    with pytest.raises(InputError, match="retriever is missing.*02_rag_compile"):
        build(runs.Iteration(tmp_path / "empty", 1), ["rag"])
    for name in ("sft", "dpo"):
        with pytest.raises(InputError, match=f"'{name}' has no weights.*04_fine_tune.*06_align"):
            build(run, ["rag", name])
    run.path("program", "rag_compiled.json").unlink()
    with pytest.raises(InputError, match="rag_compiled.json' is missing.*02_rag_compile"):
        build(run, ["rag_compiled"])


def test_rag_runs_on_the_base_and_sft_on_its_adapter_with_one_base_in_memory(run, build, tiny, adapter):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    rag, compiled, sft = build(run, ["rag", "rag_compiled", "sft"], max_tokens=9)
    base = LocalEngine(tiny).model_name()
    assert rag.lm.model == compiled.lm.model == base
    assert sft.lm.model == f"{base}+sft-{weights.weights_hash(adapter)[:12]}"
    assert rag.lm.engine is compiled.lm.engine is sft.lm.engine
    assert [s.lm.kwargs["max_tokens"] for s in (rag, compiled, sft)] == [9, 9, 9]
    assert [s.name for s in (rag, compiled, sft)] == ["rag", "rag_compiled", "sft"]


@pytest.mark.parametrize(("tuned", "k"), [("rag", 1), ("rag_compiled", 2)])
def test_a_tuned_model_runs_the_program_it_was_tuned_for(run, build, adapter, tuned, k):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    assert [s.program.k for s in build(run, ["rag", "rag_compiled", "sft"], tuned_program=tuned)] == [1, 2, k]


def test_the_best_of_5_samples_with_the_weights_of_sft_also_as_a_champion(run, build, adapter):
    for name in ("sft", "best_of_5"):
        shutil.copytree(adapter, run.path("adapters", name))
    sft, best = build(run, ["sft", "best_of_5"])
    assert (sft.program.draws, best.program.draws) == (0, 5)
    assert sft.lm.model.split("-")[-1] == best.lm.model.split("-")[-1]
    row = {"id": "q", "contract": "c", "question": "Which law governs?", "answers": [], "is_impossible": True}
    (made,), calls = answer_batch(best.program, best.lm, [row], 8), best.lm.engine.calls
    assert calls == 5 * sum(passage["read"] for passage in made["passages"]) and made["error"] is None
    assert all(0 < quote["evidence"]["votes"] <= 1 for quote in made["quotes"])
    assert answers_fingerprint(best.program, best.lm) != answers_fingerprint(sft.program, best.lm)
    later = decide(run, **runs.system_record(run, "best_of_5"))
    assert build(later, ["incumbent"])[0].program.draws == 5


def test_a_system_answers_from_its_contract(run, build):
    (system,) = build(run, ["rag"], max_tokens=4)
    with dspy.context(lm=system.lm, adapter=PlainAdapter()):
        found = system.program(question="Governing Law: which laws govern?", contract="c")
    assert "Ohio" in found.hits[0].passage.text and found.answer


def test_an_adapter_of_another_base_is_refused(run, build, adapter, tmp_path):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    weights._make_tiny(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on other base weights"):
        build(run, ["sft"], model=str(tmp_path / "other"))


def test_a_fully_tuned_model_runs_on_its_own_weights(run, build, tmp_path):
    weights._make_tiny(run.path("adapters", "sft"), seed=1)
    (sft,) = build(run, ["sft"], model=str(tmp_path / "absent"))  # the base is not needed
    assert sft.lm.model == LocalEngine(run.path("adapters", "sft")).model_name()


def test_a_remote_model_runs_rag_and_no_local_weights_are_loaded(run, build, adapter, tmp_path):
    absent = str(tmp_path / "absent")
    rag, compiled = build(run, ["rag", "rag_compiled"], model=absent, rag_lm="openai/some-model", max_tokens=9)
    assert rag.lm.model == compiled.lm.model == "openai/some-model"
    assert isinstance(rag.lm.engine, Endpoint)
    assert rag.lm.kwargs["temperature"] == 0.0 and rag.lm.kwargs["max_tokens"] == 9
    shutil.copytree(adapter, run.path("adapters", "sft"))
    rag, sft = build(run, ["rag", "sft"], rag_lm="openai/some-model")
    assert rag.lm.model == "openai/some-model" and isinstance(sft.lm.engine, LocalEngine)
    with pytest.raises(InputError):
        build(run, ["rag", "sft"], model=absent, rag_lm="openai/some-model")


# --- what is calibrated


@pytest.fixture(scope="module")
def confidence():
    rows, _ = small.clause_corpus(range(30))
    return Confidence.fit(small.clause_retriever(range(30)), rows, k=2, false_answer_cost=1.0)


def test_a_system_has_its_retrievers_confidence_and_its_own_calibration(run, build, adapter, confidence):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    plain = build(run, ["rag", "sft"])
    assert [(s.program.confidence, s.program.system, s.own) for s in plain] == [(None, None, True)] * 2
    save_confidence(confidence, run.path("retriever"))
    SystemConfidence(None, None, {"of": "sft"}).save(run.path("predictions", "sft.confidence.json"))
    rag, sft = build(run, ["rag", "sft"])
    assert rag.program.confidence.key == sft.program.confidence.key == confidence.key
    assert rag.program.system is None and sft.program.system.about == {"of": "sft"}
    assert [s.calibration for s in (rag, sft)] == [
        run.path("predictions", f"{n}.confidence.json") for n in ("rag", "sft")
    ]
    (alias,) = build(run, ["incumbent"])
    assert alias.calibration == rag.calibration and alias.own, "the first incumbent is plain rag"


def test_the_incumbent_keeps_its_confidence_and_calibration_and_the_retriever_is_calibrated_anew(
    run, build, embedder, adapter, confidence
):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    save_confidence(confidence, run.path("retriever"))
    SystemConfidence(None, None, {"of": "sft"}).save(run.path("predictions", "sft.confidence.json"))
    second = with_other_retriever(run, embedder, system="sft", weights="iter-01/adapters/sft")
    shutil.copytree(adapter, second.path("adapters", "sft"))
    save_confidence(replace(confidence, false_answer_cost=3.0), second.path("retriever"))
    found = {s.name: s for s in build(second, ["incumbent", "retriever", "sft"])}
    assert {name: s.program.threshold for name, s in found.items()} == {
        "incumbent": 0.5,
        "retriever": 0.75,
        "sft": 0.75,
    }
    assert {name: s.own for name, s in found.items()} == {"incumbent": False, "retriever": True, "sft": True}
    assert found["incumbent"].calibration == run.path("predictions", "sft.confidence.json")
    assert found["incumbent"].program.system.about == {"of": "sft"}
    assert found["retriever"].calibration == second.path("predictions", "retriever.confidence.json")
    assert found["retriever"].program.system is found["sft"].program.system is None


def test_a_damaged_confidence_or_calibration_is_named(run, build, confidence):
    files.write_text(run.path("predictions", "rag.confidence.json"), "{}")
    with pytest.raises(InputError, match="rag.confidence.json.*03_batch_inference"):
        build(run, ["rag"])
    files.write_text(run.path("retriever", CONFIDENCE_FILE), "{}")
    with pytest.raises(InputError, match=f"retriever/{CONFIDENCE_FILE}.*02_rag_compile"):
        build(run, ["rag"])


# --- the incumbent


def test_the_first_incumbent_is_plain_rag_on_the_base(run, build, tiny):
    assert systems.start_weights(run) is None
    (incumbent,) = build(run, ["incumbent"])
    assert incumbent.lm.model == LocalEngine(tiny).model_name() and incumbent.program.k == 1


def test_a_promoted_adapter_comes_back_with_the_program_of_its_iteration(run, build, embedder, adapter):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    second = decide(
        run,
        system="sft",
        program="iter-01/program/rag_compiled.json",
        weights="iter-01/adapters/sft",
        retriever="iter-01/retriever",
    )
    prepare(second, embedder, k=5)
    shutil.copytree(adapter, second.path("adapters", "sft"))
    incumbent, rag, sft = build(second, ["incumbent", "rag", "sft"])
    assert incumbent.lm.engine.adapters == {
        "incumbent": run.path("adapters", "sft"),
        "sft": second.path("adapters", "sft"),
    }
    assert weights.weights_hash(adapter)[:12] in incumbent.lm.model and incumbent.lm.model != rag.lm.model
    assert [s.program.k for s in (incumbent, rag, sft)] == [2, 5, 5]
    assert systems.start_weights(second) == run.path("adapters", "sft")


OTHER = "Each party pays its own taxes."


def with_other_retriever(run, embedder, **promoted):
    """Return iteration 2, whose retriever cuts larger passages and whose data ask about a contract d that it holds."""
    second = decide(run, retriever="iter-01/retriever", **promoted)
    prepare(second, embedder, k=5)
    passages = [p for title, text in (("c", TEXT), ("d", OTHER)) for p in cut_passages(text, contract=title, size=400)]
    Retriever(passages, Embedder(embedder, cache_dir=run.run), mode="bm25").save(second.path("retriever"))
    files.write_jsonl(
        run.run / "contracts.jsonl",
        [{"title": "c", "text": TEXT}, {"title": "d", "text": OTHER}, {"title": "e", "text": OTHER}],
    )
    files.write_jsonl(second.path("data", "dev.jsonl"), [{"contract": "c"}, {"contract": "d"}])
    settings = files.read_json(run.path("retriever", "settings.json")) | {"cutting": [40, 0.0]}
    files.write_json(run.path("retriever", "settings.json"), settings)
    return second


def test_the_champion_searches_with_its_own_retriever_which_takes_in_what_is_asked(run, build, embedder, adapter):
    shutil.copytree(adapter, run.path("adapters", "sft"))
    second = with_other_retriever(
        run, embedder, system="sft", program="iter-01/program/rag_compiled.json", weights="iter-01/adapters/sft"
    )
    found = {s.name: s for s in build(second, ["incumbent", "retriever", "rag"], asked={"c", "d"})}
    sizes = {name: max(len(p.text) for p in s.program.retriever.passages) for name, s in found.items()}
    assert sizes["incumbent"] < 60 < sizes["retriever"] == sizes["rag"]
    assert {p.contract for p in found["incumbent"].program.retriever.passages} == {"c", "d"}
    # the new retriever is tried with all else as the champion has it
    assert [found[name].program.k for name in ("incumbent", "retriever", "rag")] == [2, 2, 5]
    hashes = {name: weights.weights_hash(adapter)[:12] in s.lm.model for name, s in found.items()}
    assert hashes == {"incumbent": True, "retriever": True, "rag": False}
    assert found["retriever"].program.retriever is found["rag"].program.retriever  # once in memory
    assert found["incumbent"].lm.model != found["rag"].lm.model
    (asked,) = build(second, ["incumbent"], asked={"c"})
    assert {p.contract for p in asked.program.retriever.passages} == {"c"}


def test_a_later_iteration_starts_from_the_champions_retriever(run, embedder, monkeypatch, tmp_path):
    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))
    assert saved.champion_retriever(run, str(embedder)) is None
    second = with_other_retriever(run, embedder)
    third = decide(second, retriever="iter-01/retriever")  # what iteration 2 found was not promoted
    kept = saved.champion_retriever(third, str(embedder))
    assert kept.cutting == (40, 0.0)
    older = saved.champion_retriever(decide(second), str(embedder))  # a decision that names no retriever
    assert older.key == saved.load_retriever(second, str(embedder)).key != kept.key
    shutil.rmtree(run.path("retriever"))
    with pytest.raises(InputError, match="retriever is missing in .*iter-01/retriever"):
        saved.champion_retriever(decide(second, retriever="iter-01/retriever"), str(embedder))


def test_a_promoted_program_comes_back_on_the_base(run, build, embedder):
    second = prepare(decide(run, system="rag_compiled", program="iter-01/program/rag_compiled.json"), embedder, k=5)
    incumbent, rag = build(second, ["incumbent", "rag"])
    assert incumbent.lm.model == rag.lm.model and (incumbent.program.k, rag.program.k) == (2, 5)
    assert systems.start_weights(second) is None


def test_an_iteration_before_without_a_decision_is_named(run, build, embedder):
    second = prepare(runs.Iteration(run.run, 2), embedder, k=1)
    with pytest.raises(InputError, match="decision.json is missing: finish iteration 1 .05_evaluate."):
        build(second, ["incumbent"])
    assert build(second, ["rag"])  # which needs no decision


def test_promoted_weights_that_are_gone_are_named(run, build, embedder):
    second = prepare(decide(run, system="sft", weights="iter-01/adapters/sft"), embedder, k=1)
    with pytest.raises(InputError, match="'incumbent' has no weights in .*iter-01/adapters/sft"):
        build(second, ["incumbent"])


def searched(retriever):
    return [[hit.passage for hit in retriever.search("audit the other party", contract="c", k=2)]]


def test_a_fine_tuned_embedder_travels_with_its_retriever_and_through_iterations_that_keep_it(
    embedder, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))
    first = runs.Iteration(tmp_path / "run", 1)
    second, third = runs.Iteration(first.run, 2), runs.Iteration(first.run, 4)
    own = shutil.copytree(embedder, first.path("retriever", "embedder"))
    (own / "config.json").write_text('{"another": "model"}')
    retriever = Retriever(
        cut_passages(TEXT, contract="c", size=40), Embedder(own, cache_dir=tmp_path), mode="bm25", cutting=(40, 0.0)
    )
    saved.save_retriever(retriever, first)
    kept = saved.load_retriever(first, "no-such-model")
    assert kept.embedder.path == own and searched(kept) == searched(retriever)
    saved.save_retriever(kept, second)  # the gate kept it: the weights are copied, not referred to
    shutil.rmtree(own)
    again = saved.load_retriever(second, "no-such-model")
    assert again.embedder.key == retriever.embedder.key and searched(again) == searched(retriever)
    assert saved.own_embedder(second.path("retriever")) == second.path("retriever", "embedder")
    # also from two iterations before, where the champion's retriever lies if none since was better
    saved.save_retriever(again, third)
    assert saved.load_retriever(third, "no-such-model").embedder.path == third.path("retriever", "embedder")
    # an iteration that searches with the base model keeps no weights of an earlier attempt
    saved.save_retriever(Retriever(retriever.passages, Embedder(embedder, cache_dir=tmp_path), mode="bm25"), third)
    assert saved.own_embedder(third.path("retriever")) is None
    assert saved.load_retriever(third, str(embedder)).embedder.path == embedder.resolve()


def test_the_number_format_of_the_vectors_is_kept(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))
    iteration = runs.Iteration(tmp_path / "run", 1)
    embed = Embedder(embedder, cache_dir=tmp_path, dtype="bfloat16")
    saved.save_retriever(Retriever(cut_passages(TEXT, contract="c", size=40), embed, mode="bm25"), iteration)
    assert saved.load_retriever(iteration, str(embedder)).embedder.dtype == "bfloat16"


def test_new_contracts_are_taken_in_as_the_others_were_cut(embedder, tmp_path):
    records = [{"title": title, "text": TEXT, "split": "train"} for title in "cde"]
    files.write_jsonl(tmp_path / "contracts.jsonl", records)
    retriever = Retriever(cut_passages(TEXT, contract="c", size=40, overlap=0.5), None, mode="bm25", cutting=(40, 0.5))
    retriever = saved.with_run_contracts(retriever, tmp_path, {"c", "e"})
    held = {title: [p.text for p in retriever.passages if p.contract == title] for title in "cde"}
    assert held["c"] == held["e"] and held["d"] == []
    assert saved.with_run_contracts(retriever, tmp_path, {"c", "e"}) is retriever  # nothing new: nothing changes
    assert len(retriever.passages) == 2 * len(held["c"])
    retriever.cutting = None
    with pytest.raises(InputError, match="lacks 'd' and does not say how its passages were cut"):
        saved.with_run_contracts(retriever, tmp_path, {"c", "d"})


def test_a_save_that_is_killed_leaves_no_mixture_of_two_retrievers(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))
    iteration = runs.Iteration(tmp_path / "run", 1)
    own = shutil.copytree(embedder, iteration.path("retriever", "embedder"))
    passages = cut_passages(TEXT, contract="c", size=40)
    saved.save_retriever(Retriever(passages, Embedder(own, cache_dir=tmp_path), mode="bm25"), iteration)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        saved.save_retriever(Retriever(passages, Embedder(embedder, cache_dir=tmp_path), mode="bm25"), iteration)
    with pytest.raises(InputError, match="retriever is missing"):
        saved.load_retriever(iteration, str(embedder))
