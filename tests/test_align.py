"""Properties of alignment: which pairs are made, and that DPO's reference is the SFT model."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import small
import torch
from safetensors.torch import load_file, save_file

from cuadft import align, finetune, models
from cuadft.align import draw_rows, preference_pairs, sample_candidates, train_preference
from cuadft.errors import InputError
from cuadft.files import value_hash
from cuadft.finetune import Tuning, prompt_completions, train_sft
from cuadft.local_lm import LocalEngine
from cuadft.metrics import NO_CLAUSE

TUNING = Tuning(lora_r=2, lora_alpha=4, batch_size=2, save_steps=100, learning_rate=1e-2)
IMPOSSIBLE = small.ROWS[0]  # Acme, Governing Law
ANSWERABLE = small.ROWS[1:4]


class Marks:
    """A judge that gives each answer the score it is told; None is a failed judgement."""

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores = scores

    def rate(self, rows):
        found = [self.scores.get(row["answer"], 0.0) for row in rows]
        return pd.DataFrame({"judge_score": [math.nan if f is None else f for f in found],
                             "judge_error": ["no verdict" if f is None else None for f in found]})  # fmt: skip


def candidates(row: dict, *answers: str | None) -> list[dict]:
    return [row | {"answer": a, "error": "OSError: down" if a is None else None} for a in answers]


def pairs_of(row: dict, scores: dict[str, float | None], margin: float = 0.3) -> list[tuple]:
    """Return (source, chosen, rejected) of the pairs made of one row's candidates."""
    made = preference_pairs(small.program(), candidates(row, *scores), Marks(scores), margin=margin)
    return [(p["source"], p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in made]


GOLD = ANSWERABLE[0]["answers"][0]["text"]


# --- the rows and candidates


@pytest.mark.parametrize("size, share, expected", [(10, 0.3, 3), (10, 0.0, 0), (10, 1.0, 10), (7, 0.5, 4), (40, 0.5, 20)])
def test_the_share_of_unanswerable_rows_is_drawn(size, share, expected):
    rows = [row | {"id": f"{row['id']}{n}"} for n in range(5) for row in small.ROWS]  # 60 answerable, 20 not
    drawn = draw_rows(rows, size=size, impossible_share=share, seed=4)
    assert sum(r["is_impossible"] for r in drawn) == expected and len(drawn) == size
    assert len({r["id"] for r in drawn}) == size
    assert drawn == draw_rows(rows, size=size, impossible_share=share, seed=4)
    assert drawn != draw_rows(rows, size=size, impossible_share=share, seed=5)


def test_too_few_unanswerable_rows_are_made_up_for_by_others():
    drawn = draw_rows(small.ROWS, size=10, impossible_share=0.9, seed=4)  # of 16 rows, 4 are unanswerable
    assert [r["is_impossible"] for r in drawn].count(True) == 4 and len(drawn) == 10


def test_each_row_gets_one_greedy_and_n_sampled_candidates_once(tmp_path):
    script = small.Script(small.first_clause)
    program, lm = small.program(), script.lm()
    made = sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.7)
    assert len(made) == len(script.calls) == 3 * 16
    assert [(p["system"], p["id"]) for p in made] == [(f"candidate {n}", r["id"]) for n in range(3) for r in small.ROWS]
    assert len({p["fingerprint"] for p in made}) == 3  # temperature and seed differ
    assert sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.7) == made and len(script.calls) == 48
    sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.9)
    assert len(script.calls) == 48 + 32  # the greedy ones stand


def test_sampled_candidates_differ_by_seed_and_repeat(tiny, tmp_path):
    lms = [LocalEngine(tiny, dtype="float32").lm(max_tokens=6) for _ in range(2)]
    drawn = [sample_candidates(small.program(), lm, ANSWERABLE, tmp_path / str(n), n=2, temperature=1.0)
             for n, lm in enumerate(lms)]  # fmt: skip
    answers = [[p["answer"] for p in made] for made in drawn]
    assert answers[0] == answers[1] and answers[0][3:6] != answers[0][6:9]


# --- the pairs


@pytest.mark.parametrize("scores, expected", [
    ({"good": 0.9, "poor": 0.1}, [("gold", GOLD, "poor"), ("ai", "good", "poor")]),
    ({"good": 0.9, "fair": 0.5, "poor": 0.1}, [("gold", GOLD, "poor"), ("ai", "good", "poor")]),
    ({"good": 0.9, "fair": 0.75}, []),  # 0.75 > 1 - 0.3, 0.9 - 0.75 < 0.3
    ({"fair": 0.5, "poor": 0.4}, [("gold", GOLD, "poor")]),
    ({"poor": 0.1}, [("gold", GOLD, "poor")]),
    ({GOLD: 1.0, "poor": 0.1}, [("gold", GOLD, "poor")]),  # the best is the gold words: no second, equal pair
    ({GOLD: 0.0}, []),  # a judge's mistake must not make gold against gold
    ({"good": 0.9, "lost": None}, []),
    ({"lost": None}, []),
])  # fmt: skip
def test_pairs_set_gold_and_best_against_worst(scores, expected):
    assert pairs_of(ANSWERABLE[0], scores) == expected


@pytest.mark.parametrize("margin, expected", [(0.0, 2), (0.4, 2), (0.41, 1), (0.6, 1), (0.61, 0), (1.0, 0)])
def test_the_margin_decides(margin, expected):
    # ai: 0.8 - 0.39999 >= margin; gold: 0.39999 < 1 - margin
    found = pairs_of(ANSWERABLE[0], {"good": 0.8, "poor": 0.39999}, margin=margin)
    assert len(found) == expected


def test_failed_generations_make_no_pair():
    row = candidates(ANSWERABLE[0], None, "good")
    assert preference_pairs(small.program(), row, Marks({"good": 0.9}), margin=0.3) == []
    assert preference_pairs(small.program(), row[:1], Marks({}), margin=0.3) == []
    assert preference_pairs(small.program(), [], Marks({}), margin=0.3) == []


def test_the_refusal_is_gold_where_there_is_no_clause():
    assert pairs_of(IMPOSSIBLE, {"This Agreement": 0.0}) == [("gold", NO_CLAUSE, "This Agreement")]


def test_an_answer_cannot_end_its_turn():
    assert pairs_of(ANSWERABLE[0], {"a<|im_end|>": 0.0}) == [("gold", GOLD, "a< |im_end|>")]


def test_a_gold_span_outside_the_passages_is_not_taught():
    lost = ANSWERABLE[0] | {"answers": [{"text": "nowhere", "start": 10**6}]}
    assert pairs_of(lost, {"good": 0.9, "poor": 0.1}) == [("ai", "good", "poor")]


def test_pairs_never_set_an_answer_against_itself_and_keep_their_scores():
    rng = np.random.default_rng(0)
    for row in small.ROWS:
        scores = {a: float(rng.random()) for a in ("a", "b", GOLD, NO_CLAUSE)}
        for pair in preference_pairs(small.program(), candidates(row, *scores), Marks(scores), margin=0.0):
            chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
            assert chosen != rejected and pair["rejected_score"] == scores[rejected] == min(scores.values())
            assert pair["chosen_score"] == (1.0 if pair["source"] == "gold" else scores[chosen])
            assert pair["contract"] == row["contract"] and pair["id"] == row["id"]


def test_pairs_hold_the_prompt_that_the_program_sends(tmp_path):
    program = small.program()
    program.predict.demos = [{"passages": "p", "question": "q", "answer": "a"}]
    script = small.Script(lambda m: "poor")
    made = sample_candidates(program, script.lm(), ANSWERABLE, tmp_path, n=0,
                             temperature=1.0)  # fmt: skip
    pairs = preference_pairs(program, made, Marks({"poor": 0.0}))
    assert sorted(map(str, script.calls)) == sorted(str(p["prompt"]) for p in pairs) and len(pairs) == 3


# --- training


@pytest.fixture(scope="module", autouse=True)
def float32():
    """Train in float32, so that equal means equal on any machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "best_dtype", lambda: torch.float32)
        yield


@pytest.fixture(scope="module")
def sft(tmp_path_factory, tiny):
    """Return an SFT adapter that differs clearly from the base model."""
    out = tmp_path_factory.mktemp("sft") / "sft"
    rows, _ = prompt_completions(small.program(), small.ROWS, size=0, impossible_share=0.25, seed=1)
    train_sft(tiny, "owner/tiny", rows, out, tuning=replace(TUNING, batch_size=4, learning_rate=5e-2))
    return out


@pytest.fixture(scope="module")
def pairs():
    made = [c for row in ANSWERABLE for c in candidates(row, "a poor answer", "the fees")]
    return preference_pairs(small.program(), made, Marks({"the fees": 0.6}))[:4]


def trainer(method, pairs, sft, tiny, work, monkeypatch, **settings):
    """Return the trainer that train_preference would run."""
    with monkeypatch.context() as patch:
        patch.setattr(align, "run_training", lambda build, out, **_: build(work))
        return train_preference(method, tiny, "owner/tiny", pairs, work, tuning=TUNING, sft=sft, **settings)


def log_probability(engine: LocalEngine, adapter: str, prompt: list[dict], completion: list[dict]) -> float:
    """Return the log-probability of a completion's tokens, end mark included, from the engine's own forward pass."""
    start = len(engine.tokenize(prompt))
    tokens = engine.tokenizer.apply_chat_template(prompt + completion, return_dict=False)
    with torch.inference_mode():
        logits = engine.generator.use(adapter)(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return sum(logits[i - 1, tokens[i]].item() for i in range(start, len(tokens)))


def test_the_reference_of_dpo_is_the_sft_model(pairs, sft, tiny, tmp_path, monkeypatch):
    engine = LocalEngine(tiny, adapters={"sft": sft}, dtype="float32")
    data = trainer("dpo", pairs, sft, tiny, tmp_path, monkeypatch).train_dataset
    assert len(data) == len(pairs)
    for pair, row in zip(pairs, data):
        for side in ("chosen", "rejected"):
            expected = log_probability(engine, "sft", pair["prompt"], pair[side])
            assert row[f"ref_{side}_logps"] == pytest.approx(expected, rel=1e-4)
            assert abs(expected - log_probability(engine, "", pair["prompt"], pair[side])) > 0.01 * abs(expected)


@pytest.mark.parametrize("method", align.METHODS)
def test_the_prompt_tokens_are_those_of_inference(method, pairs, sft, tiny, tmp_path, monkeypatch):
    engine, made = LocalEngine(tiny), trainer(method, pairs, sft, tiny, tmp_path, monkeypatch)
    for pair, row in zip(pairs, made.train_dataset):
        prompt = engine.tokenize(pair["prompt"])
        assert row["prompt_ids" if method == "dpo" else "prompt_input_ids"] == prompt
        for side in ("chosen", "rejected"):
            whole = engine.tokenizer.apply_chat_template(pair["prompt"] + pair[side], return_dict=False)
            found = prompt + row[f"{side}_ids"] if method == "dpo" else row[f"{side}_input_ids"]
            assert found[:len(whole)] == whole  # ORPO's trainer puts one more end mark behind
            if method == "orpo":
                assert row[f"{side}_labels"][:len(whole)] == [-100] * len(prompt) + whole[len(prompt):]


@pytest.mark.parametrize("method", align.METHODS)
def test_alignment_changes_the_sft_adapter_and_loads_beside_it(method, pairs, sft, tiny, tmp_path):
    tuning = replace(TUNING, epochs=2)
    history = train_preference(method, tiny, "owner/tiny", pairs, tmp_path / method, tuning=tuning, sft=sft)
    steps = [entry for entry in history if "loss" in entry]
    assert len(steps) == 4 and {"rewards/margins", "rewards/chosen", "rewards/rejected"} <= steps[0].keys()
    if method == "dpo":  # the policy starts as the reference: rewards 0, loss log 2
        assert [steps[0][f"rewards/{side}"] for side in ("chosen", "rejected")] == pytest.approx([0, 0], abs=1e-4)
        assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert steps[-1]["rewards/margins"] != 0
    assert not (tmp_path / method / "ref").exists()
    engine = LocalEngine(tiny, adapters={"sft": sft, method: tmp_path / method}, dtype="float32")
    tokens = torch.tensor([engine.tokenize(pairs[0]["prompt"])])
    with torch.inference_mode():
        before, after = (engine.generator.use(name)(tokens).logits for name in ("sft", method))
    assert not torch.allclose(before, after, atol=1e-4)
    assert models.weights_hash(sft) != models.weights_hash(tmp_path / method)
    assert str(tiny) not in "".join(p.read_text() for p in (tmp_path / method).glob("*.json"))


def test_dpo_that_was_interrupted_goes_on_to_equal_losses(pairs, sft, tiny, tmp_path, monkeypatch):
    from trl import DPOTrainer

    tuning, step, steps = replace(TUNING, epochs=2, save_steps=1), DPOTrainer.training_step, []

    def killed(self, *args, **settings):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **settings)

    def run(name):
        return [e["loss"] for e in train_preference("dpo", tiny, "owner/tiny", pairs, tmp_path / name, tuning=tuning, sft=sft)
                if "loss" in e]  # fmt: skip

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DPOTrainer, "training_step", killed)
        run("killed")
    with monkeypatch.context() as patch:
        patch.setattr(DPOTrainer, "training_step", lambda self, *a, **s: steps.append(1) or step(self, *a, **s))
        resumed = run("killed")
    assert len(steps) == 3 + 2  # 4 steps in all, of which the first 2 were kept
    assert resumed == pytest.approx(run("whole"), rel=1e-5) and len(resumed) == 4
    monkeypatch.setattr(DPOTrainer, "training_step", None)
    assert run("killed") == resumed


def test_another_sft_adapter_or_beta_trains_again(pairs, sft, tiny, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(align, "run_training", lambda build, out, identity, **_: keys.append(value_hash(identity)))
    other = shutil.copytree(sft, tmp_path / "other") / "adapter_model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(other).items()}, other)
    for changed in ({}, {}, {"sft": other.parent}, {"beta": 0.2}, {"method": "orpo"}, {"pairs": pairs[:1]}):
        given = {"method": "dpo", "pairs": pairs, "sft": sft} | changed
        train_preference(base=tiny, base_id="owner/tiny", out=tmp_path / "out", tuning=TUNING, **given)
    assert keys[0] == keys[1] and len(set(keys)) == 5


@pytest.mark.parametrize("method, given, folder, message", [
    ("ppo", 1, "sft", "dpo, orpo"), ("dpo", 0, "sft", "no preference pairs"), ("dpo", 1, "none", "04_fine_tune"),
])  # fmt: skip
def test_bad_input_is_refused(method, given, folder, message, pairs, sft, tiny, tmp_path):
    with pytest.raises(InputError, match=message):
        train_preference(method, tiny, "tiny", pairs[:given], tmp_path / "out", tuning=TUNING, sft=sft.with_name(folder))


def test_without_pairs_the_aligned_systems_are_the_sft_model(sft, tiny, tmp_path):
    align.keep_sft(sft, [tmp_path / "dpo", tmp_path / "orpo"])
    align.keep_sft(sft, [tmp_path / "dpo"])  # again, over an older one
    engine = LocalEngine(tiny, adapters={"sft": sft, "dpo": tmp_path / "dpo"})
    assert engine.model_name("dpo").split("-")[-1] == engine.model_name("sft").split("-")[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dpo", "orpo"]
