"""Properties of alignment: what each method starts from and learns, the traps of the trainers, repeatability."""

import math
import random
import shutil
from dataclasses import replace

import pytest
import small
import torch
from safetensors.torch import load_file, save_file

from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.rag import training_rows
from cuadft.rag.training_rows import prompt_completions
from cuadft.training import align, constrained, online
from cuadft.training import sft as sft_
from cuadft.training.align import METHODS, PAIRED, AlignSettings, align_model
from cuadft.training.sft import Tuning, train_sft

TUNING = Tuning(lora_r=2, lora_alpha=4, batch_size=2, save_steps=100, learning_rate=1e-2)
ANSWERABLE = small.ROWS[1:4]
SAMPLING = online.Sampling(generations=2, max_tokens=6, kl=0.05)
SETTINGS = AlignSettings(online=SAMPLING)
TAUGHT = [method for method in METHODS if method != "best_of_5"]


def length(prompts, completions, **columns):
    """Reward the share of vowels: it differs between nearly any two answers of a random model."""
    words = [c[-1]["content"] for c in completions]
    return [sum(letter in "aeiou" for letter in word) / (len(word) or 1) for word in words]


@pytest.fixture(scope="module", autouse=True)
def float32():
    """Train in float32, so that equal means equal on any machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft_, "best_dtype", lambda: torch.float32)
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
    """Return four preference pairs of the program's prompts: the expert's words against poor ones."""
    made = []
    for row, poor in zip(
        [*ANSWERABLE, small.ROWS[0]], ("a poor answer", "the fees", "none of it at all", "This Agreement"), strict=True
    ):
        program = small.program()
        (hit,) = program.retriever.search(row["question"], contract=row["contract"], k=1)
        good = row["answers"][0]["text"] if row["answers"] else NO_CLAUSE
        *prompt, chosen = program.messages(row["question"], hit, good)
        rejected = program.messages(row["question"], hit, poor)[-1]
        made.append(
            {"id": row["id"], "contract": row["contract"], "prompt": prompt, "chosen": [chosen], "rejected": [rejected]}
        )
    return made


@pytest.fixture(scope="module")
def answers(pairs):
    """Return the pairs' answers one by one, with thumbs up and down."""
    return [
        {
            "id": p["id"],
            "contract": p["contract"],
            "prompt": p["prompt"],
            "completion": p[side],
            "label": side == "chosen",
        }
        for p in pairs
        for side in ("chosen", "rejected")
    ]


@pytest.fixture(scope="module")
def data(pairs, answers):
    """Return what each method learns from."""
    prompts = training_rows.online_prompts(small.program(), [*ANSWERABLE, small.ROWS[0]])
    kinds = {"pairs": pairs, "answers": answers, "prompts": prompts}
    return {method: kinds[align.learns_from(method)] for method in TAUGHT}


def run(method, tiny, data, sft, out, tuning=TUNING, **settings):
    given = {"settings": SETTINGS, "reward": length} | settings
    return align_model(method, tiny, "owner/tiny", data[method], out, tuning=tuning, sft=sft, **given)


def trainer(method, tiny, data, sft, work, monkeypatch, **settings):
    """Return the trainer that train would run."""
    with monkeypatch.context() as patch:
        patch.setattr(align, "train_language_model", lambda build, out, **_: build(work))
        return run(method, tiny, data, sft, work, **settings)


def in_order(method, data):
    """Return the data in the order in which the trainer holds them: mixed, since TRL does not shuffle KTO's."""
    mixed = random.Random(TUNING.seed).sample(data[method], len(data[method]))
    return mixed if method in ("sft_more", "dpo", "kto") else data[method]


def steps_of(history):
    return [entry for entry in history if "grad_norm" in entry or "policy_loss" in entry]


def log_probability(engine: LocalEngine, adapter: str, prompt: list[dict], completion: list[dict]) -> float:
    """Return the log-probability of a completion's tokens, end mark included, from the engine's own forward pass."""
    start = len(engine.tokenize(prompt))
    tokens = engine.tokenizer.apply_chat_template(prompt + completion, return_dict=False)
    with torch.inference_mode():
        logits = engine.generator.use(adapter)(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return sum(logits[i - 1, tokens[i]].item() for i in range(start, len(tokens)))


def test_every_method_says_what_it_learns_from():
    assert [align.learns_from(method) for method in METHODS] == ["pairs"] * 4 + ["answers"] + ["prompts"] * 3 + [""]


# --- the reference


@pytest.mark.parametrize(
    "method, columns",
    [("dpo", {"chosen": "ref_chosen_logps", "rejected": "ref_rejected_logps"}), ("kto", {"completion": "ref_logps"})],
)
def test_the_reference_is_the_sft_model_and_not_the_base(method, columns, data, sft, tiny, tmp_path, monkeypatch):
    engine = LocalEngine(tiny, adapters={"sft": sft}, dtype="float32")
    made = trainer(method, tiny, data, sft, tmp_path, monkeypatch).train_dataset
    for given, row in zip(in_order(method, data), made, strict=True):
        for side, column in columns.items():
            expected = log_probability(engine, "sft", given["prompt"], given[side])
            assert row[column] == pytest.approx(expected, rel=1e-4)
            assert abs(expected - log_probability(engine, "", given["prompt"], given[side])) > 0.01 * abs(expected)


@pytest.mark.parametrize("method", ["rloo", "grpo", "ppo"])
def test_online_methods_start_at_no_distance_from_the_sft_model_and_leave_it(method, data, sft, tiny, tmp_path):
    history = steps_of(run(method, tiny, data, sft, tmp_path / method, replace(TUNING, steps=3)))
    assert history[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert method == "ppo" or abs(history[-1]["kl"]) > 1e-5  # PPO's three updates are of one rollout


# --- what is learned


@pytest.mark.parametrize("method", TAUGHT)
def test_alignment_changes_the_adapter_and_loads_beside_sft(method, data, sft, tiny, tmp_path):
    history = steps_of(run(method, tiny, data, sft, tmp_path / method, replace(TUNING, steps=4)))
    assert len(history) == (1 if method == "ppo" else 4)  # PPO's 4 updates are of one rollout
    assert all(math.isfinite(entry.get("loss", 0.0)) for entry in history)
    assert any(entry.get("grad_norm", 1) > 0 for entry in history)  # not stuck: the adapter is trainable
    assert sorted(p.name for p in (tmp_path / method).iterdir()) == sorted(
        p.name for p in sft.iterdir()
    )  # no `ref` beside it
    engine = LocalEngine(tiny, adapters={"sft": sft, method: tmp_path / method}, dtype="float32")
    tokens = torch.tensor([engine.tokenize(data["dpo"][0]["prompt"])])
    with torch.inference_mode():
        before, after = (engine.generator.use(name)(tokens).logits for name in ("sft", method))
    assert not torch.allclose(before, after, atol=1e-4)
    assert weights.weights_hash(sft) != weights.weights_hash(tmp_path / method)
    assert str(tiny) not in "".join(p.read_text() for p in (tmp_path / method).glob("*.json"))


def test_dpo_starts_from_its_reference_with_margin_zero_and_widens_it(data, sft, tiny, tmp_path):
    history = steps_of(run("dpo", tiny, data, sft, tmp_path / "dpo", replace(TUNING, steps=8)))
    assert [history[0][f"rewards/{side}"] for side in ("chosen", "rejected")] == pytest.approx([0, 0], abs=1e-4)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history[-1]["rewards/margins"] > 0.01 and history[-1]["loss"] < history[0]["loss"]


def test_kto_starts_from_its_reference_with_reward_zero_and_parts_good_from_bad(data, sft, tiny, tmp_path):
    history = steps_of(run("kto", tiny, data, sft, tmp_path / "kto", replace(TUNING, steps=8)))
    first, last = history[0], [h for h in history if {"rewards/chosen", "rewards/rejected"} <= h.keys()][-1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-3)  # 1 - sigmoid(0) for every answer, weights 1
    assert last["rewards/chosen"] - last["rewards/rejected"] > 0.01


def test_the_likelihood_term_keeps_the_chosen_answers_likely(data, sft, tiny, tmp_path):
    tuning = replace(TUNING, steps=10)
    plain = steps_of(run("dpo", tiny, data, sft, tmp_path / "plain", tuning))
    kept = steps_of(run("dpo", tiny, data, sft, tmp_path / "kept", tuning, settings=replace(SETTINGS, nll_weight=1.0)))
    assert kept[-1]["logps/chosen"] > plain[-1]["logps/chosen"] + 0.1
    # step 1: log 2 for the preference and the mean negative log-probability of the chosen tokens for the likelihood
    assert kept[0]["loss"] > plain[0]["loss"] + 0.5


def test_orpo_from_the_base_model_does_not_read_the_sft_adapter(data, sft, tiny, tmp_path, monkeypatch):
    made = trainer("orpo_base", tiny, data, sft, tmp_path, monkeypatch)
    new = {name: weight for name, weight in made.model.named_parameters() if "lora_B" in name}
    assert new and all(bool((weight == 0).all()) for weight in new.values())  # a fresh adapter changes nothing yet
    old = trainer("orpo", tiny, data, sft, tmp_path, monkeypatch).model
    assert any(bool((weight != 0).any()) for name, weight in old.named_parameters() if "lora_B" in name)


def test_a_fresh_adapter_begins_as_the_seed_says(data, sft, tiny, tmp_path, monkeypatch):
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(found))  # whatever was drawn before
        made = trainer("orpo_base", tiny, data, sft, tmp_path, monkeypatch, tuning=replace(TUNING, seed=seed))
        found.append(next(w.detach().clone() for name, w in made.model.named_parameters() if "lora_A" in name))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("loss", ["hinge", "ipo", "exo_pair", "robust", "apo_zero", "sigmoid_norm"])
def test_dpo_takes_the_loss_variants_of_trl(loss, data, sft, tiny, tmp_path):
    settings = replace(SETTINGS, dpo_loss=(loss,))
    history = steps_of(run("dpo", tiny, data, sft, tmp_path / loss, replace(TUNING, steps=2), settings=settings))
    assert len(history) == 2 and all(math.isfinite(entry["loss"]) for entry in history)


@pytest.mark.parametrize("method", ["rloo", "grpo", "ppo"])
def test_the_logged_reward_is_the_mean_that_the_function_gave(method, data, sft, tiny, tmp_path):
    given, asked = [], []

    def noted(prompts, completions, **columns):
        given.append(length(prompts, completions))
        asked.extend(zip(prompts, columns["question"], columns["answers"], strict=True))
        return given[-1]

    history = steps_of(run(method, tiny, data, sft, tmp_path / method, replace(TUNING, steps=2), reward=noted))
    cut = [entry["cut" if method == "ppo" else "completions/clipped_ratio"] for entry in history]
    expected = [sum(g) / len(g) - online.CUT * share for g, share in zip(given, cut, strict=True)]
    assert [entry["reward"] for entry in history] == pytest.approx(expected, abs=1e-6) and any(cut)
    assert sum(map(len, given)) == 2 * 2 * TUNING.batch_size  # answers of two steps, as many as a paired method sees
    assert all(question in prompt[-1]["content"] and isinstance(spans, list) for prompt, question, spans in asked)


# --- faults that were mended


def test_orpos_likelihood_is_of_the_chosen_answer_and_not_of_its_prompt(data, sft, tiny, tmp_path, monkeypatch):
    """TRL takes it over prompt and answer: hundreds of tokens of a contract beside the few that are preferred."""
    made = trainer("orpo", tiny, data, sft, tmp_path, monkeypatch)
    batch = made.data_collator([made.train_dataset[n] for n in range(3)])
    with torch.no_grad():
        found = made.concatenated_forward(made.model, batch)[4]
        tokens, labels = batch["chosen_input_ids"], batch["chosen_labels"]
        logits = made.model(tokens, attention_mask=batch["chosen_attention_mask"]).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("steps, batch, accumulation", [(1, 2, 1), (4, 2, 1), (100, 4, 2), (7, 8, 1), (102, 1, 1)])
def test_ppo_makes_as_many_updates_of_as_many_answers_as_the_other_methods_take_steps(steps, batch, accumulation):
    tuning = replace(TUNING, steps=steps, batch_size=batch, accumulation=accumulation)
    sizes = align.ppo_sizes(sft_.common_settings("work", tuning))
    rollouts, answers = sizes["common"]["max_steps"], 2 * batch * accumulation
    assert sizes["minibatch"] == answers and sizes["rollout"] % answers == 0
    assert rollouts * sizes["rollout"] // sizes["minibatch"] == steps
    assert rollouts * sizes["rollout"] == steps * answers


@pytest.mark.parametrize("method", ["rloo", "grpo", "ppo"])
def test_online_methods_sample_what_inference_can_say_alone(method, data, sft, tiny, tmp_path):
    said = []

    def noted(prompts, completions, passage, **columns):
        said.extend((c[-1]["content"], text) for c, text in zip(completions, passage, strict=True))
        return length(prompts, completions)

    run(method, tiny, data, sft, tmp_path / method, replace(TUNING, steps=2), reward=noted)
    assert len(said) == 8 and len({answer for answer, _ in said}) > 4
    assert all(line in passage for answer, passage in said for line in answer.splitlines())


def test_a_sampled_quote_has_the_probabilities_with_which_inference_samples_it(data, sft, tiny, tmp_path):
    """Among the tokens that may follow: with those of the free model an update's ratios would be of another one."""
    from cuadft.models.verbatim import QuoteSource

    engine, rows = LocalEngine(tiny, adapters={"sft": sft}, dtype="float32"), data["rloo"][:3]
    generator, end = engine.generator, engine.tokenizer.eos_token_id
    prompts, sources = [engine.tokenize(row["prompt"]) for row in rows], [QuoteSource(row["passage"]) for row in rows]
    made = generator.generate(prompts, adapter="sft", max_tokens=9, temperature=1.0, sources=sources, logprobs=True)
    answers = [one.tokens + [end] * one.ended for one in made]
    width, longest = max(map(len, prompts)), max(map(len, answers))
    full = [[end] * (width - len(p)) + p + a + [end] * (longest - len(a)) for p, a in zip(prompts, answers)]
    tokens, seen = torch.tensor(full), torch.zeros(3, width + longest, dtype=torch.long)
    for row, prompt, answer in zip(seen, prompts, answers):
        row[width - len(prompt) : width + len(answer)] = 1
    places = (seen.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = generator.use("sft")(tokens, attention_mask=seen, position_ids=places).logits[:, -longest - 1 : -1]
    quotes = constrained.ConstrainedQuotes(engine.tokenizer, rows)
    found, entropy = quotes.log_probabilities(logits, tokens, seen)
    for own, one, answer in zip(found, made, answers, strict=True):
        assert own[: len(answer)].tolist() == pytest.approx(one.logprobs, abs=1e-3)
    free = logits.log_softmax(-1).gather(-1, tokens[:, -longest:, None])[..., 0]
    assert (found[:, 0] > free[:, 0] + 0.5).all() and bool((entropy >= -1e-6).all())


# --- the controls


def test_the_control_goes_on_with_sft_on_the_chosen_answers_of_the_pairs_alone(data, sft, tiny, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(align, "build_trainer", lambda kind, *args: given.append((kind, *args)))
    common, tuning = sft_.common_settings(tmp_path, replace(TUNING, steps=1)), replace(TUNING, steps=1)
    for build in (align._sft_more, align._dpo):
        build(None, None, data["dpo"], common, SETTINGS, tuning)
    (kind, *_, rows, _, column), (*_, pairs, _, _, _) = given
    assert kind.__name__ == "SFTTrainer" and column == "completion"
    assert [row["completion"] for row in rows] == [pair["chosen"] for pair in pairs]  # the very ones that DPO sees
    assert len(rows) == TUNING.batch_size


def test_several_rates_are_trained_beside_each_other_and_one_in_the_methods_place(sft, tiny, pairs, tmp_path):
    given = {"tuning": replace(TUNING, steps=1), "sft": sft, "settings": SETTINGS, "reward": None}
    where = ["sft_more"], tiny, "owner/tiny", {"pairs": pairs}
    one = align.align_at_rates([1e-3], *where, tmp_path / "one", **given)
    two = align.align_at_rates([1e-3, 1e-5], *where, tmp_path / "two", **given)
    assert list(one) == [1e-3] and list(two) == [1e-3, 1e-5] and steps_of(two[1e-5]["sft_more"])
    folders = [tmp_path / name for name in ("one/sft_more", "two/rates/0.001/sft_more", "two/rates/1e-05/sft_more")]
    first, same, other = map(weights.weights_hash, folders)
    assert first == same != other
    with pytest.raises(InputError, match="align_rates"):
        align.align_at_rates([], *where, tmp_path / "none", **given)


# --- the tokens


@pytest.fixture(scope="module")
def pad_is_eos(tiny, tmp_path_factory):
    """Return the tiny model with a tokenizer that pads with the end mark, as SmolLM2's and Llama's do."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("model") / "tiny")
    words = AutoTokenizer.from_pretrained(tiny)
    words.pad_token = words.eos_token
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", PAIRED)
def test_the_prompt_tokens_are_those_of_inference_and_carry_no_loss(method, data, sft, tiny, tmp_path, monkeypatch):
    engine, made = LocalEngine(tiny), trainer(method, tiny, data, sft, tmp_path, monkeypatch)
    for pair, row in zip(in_order(method, data), made.train_dataset):
        prompt = engine.tokenize(pair["prompt"])
        assert row["prompt_ids" if method == "dpo" else "prompt_input_ids"] == prompt
        for side in ("chosen", "rejected"):
            whole = engine.tokenizer.apply_chat_template(pair["prompt"] + pair[side], return_dict=False)
            found = prompt + row[f"{side}_ids"] if method == "dpo" else row[f"{side}_input_ids"]
            assert found[: len(whole)] == whole  # ORPO's trainer puts one more end mark behind
            if method != "dpo":
                assert row[f"{side}_labels"][: len(whole)] == [-100] * len(prompt) + whole[len(prompt) :]


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_only_the_answers_tokens_are_scored_also_where_padding_is_the_end_mark(
    method, data, sft, pad_is_eos, tmp_path, monkeypatch
):
    engine = LocalEngine(pad_is_eos)
    assert engine.tokenizer.pad_token_id == engine.tokenizer.eos_token_id
    made = trainer(method, pad_is_eos, data, sft, tmp_path, monkeypatch)
    batch = made.data_collator([made.train_dataset[i] for i in range(len(data[method]))])
    sides = ("chosen", "rejected") if method == "dpo" else ("completion",)
    wanted = [(row["prompt"], row[side]) for side in sides for row in in_order(method, data)]
    for tokens, mask, (prompt, answer) in zip(batch["input_ids"], batch["completion_mask"], wanted, strict=True):
        whole = engine.tokenizer.apply_chat_template(prompt + answer, return_dict=False)
        scored = [i for i, on in enumerate(mask.tolist()) if on]
        assert scored == list(range(len(engine.tokenize(prompt)), len(whole)))  # neither prompt nor padding
        assert tokens[: len(whole)].tolist() == whole
        assert engine.tokenizer.eos_token_id in whole[scored[0] :]  # the end mark itself is taught


@pytest.mark.parametrize("method", TAUGHT)
def test_every_method_trains_where_padding_is_the_end_mark(method, data, sft, tiny, pad_is_eos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(weights, "base_hash", lambda folder: weights.weights_hash(pad_is_eos))
        history = steps_of(run(method, pad_is_eos, data, sft, tmp_path / method, replace(TUNING, steps=2)))
    assert history and all(math.isfinite(entry.get("loss", 0.0)) for entry in history)


@pytest.mark.parametrize("method, a_step", [("dpo", 2), ("kto", 4)])
def test_no_more_rows_are_prepared_than_the_steps_see(method, a_step, data, sft, tiny, tmp_path, monkeypatch):
    made = trainer(method, tiny, data, sft, tmp_path, monkeypatch, tuning=replace(TUNING, steps=1))
    assert len(made.train_dataset) == a_step < len(data[method])


def test_kto_gets_good_and_bad_answers_however_few_the_steps_see(answers, sft, tiny, tmp_path, monkeypatch):
    rows = [row for row in answers if row["label"]] * 5 + [row for row in answers if not row["label"]][:1]  # 20 to 1
    for seed in range(3):
        tuning = replace(TUNING, steps=1, seed=seed)
        made = trainer("kto", tiny, {"kto": rows}, sft, tmp_path, monkeypatch, tuning=tuning)
        assert set(made.train_dataset["label"]) == {True, False} and len(made.train_dataset) == 4


# --- repeating and resuming


def losses(history):
    """Return what a step leaves in the log; of online methods, whose loss is 0 on fresh answers, the reward too."""
    names = ("loss", "policy_loss", "grad_norm", "reward")
    return [entry[name] for entry in steps_of(history) for name in names if name in entry]


@pytest.mark.parametrize("method", ["kto", "rloo", "grpo", "ppo"])
def test_the_same_seed_gives_the_same_weights(method, data, sft, tiny, tmp_path):
    tuning = replace(TUNING, steps=2)
    first, second = (losses(run(method, tiny, data, sft, tmp_path / name, tuning)) for name in "ab")
    assert first == second and weights.weights_hash(tmp_path / "a") == weights.weights_hash(tmp_path / "b")
    assert losses(run(method, tiny, data, sft, tmp_path / "c", replace(tuning, seed=8))) != first


@pytest.mark.parametrize("method", ["dpo", "kto", "rloo", "grpo"])
def test_a_training_that_was_interrupted_goes_on_to_equal_losses(method, data, sft, tiny, tmp_path, monkeypatch):
    from transformers import Trainer

    tuning, step, steps = replace(TUNING, steps=4, save_steps=1), Trainer.training_step, []

    def killed(self, *args, **settings):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "training_step", killed)
        run(method, tiny, data, sft, tmp_path / "killed", tuning)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", lambda self, *a, **s: steps.append(1) or step(self, *a, **s))
        resumed = losses(run(method, tiny, data, sft, tmp_path / "killed", tuning))
    assert len(steps) == 3 + 2  # 4 steps in all, of which the first 2 were kept
    whole = losses(run(method, tiny, data, sft, tmp_path / "whole", tuning))
    assert resumed == pytest.approx(whole, rel=1e-4, abs=1e-7) and len(resumed) >= 4
    monkeypatch.setattr(Trainer, "training_step", None)
    assert losses(run(method, tiny, data, sft, tmp_path / "killed", tuning)) == resumed


def test_other_weights_settings_data_or_rewards_train_again(data, sft, tiny, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(
        align, "train_language_model", lambda build, out, identity, **_: keys.append(value_hash(identity))
    )
    other = shutil.copytree(sft, tmp_path / "other") / "adapter_model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(other).items()}, other)
    for changed in (
        {},
        {},
        {"sft": other.parent},
        {"settings": replace(SETTINGS, beta=0.2)},
        {"method": "orpo"},
        {"data": data["dpo"][:1]},
    ):
        given = {"method": "dpo", "data": data["dpo"], "sft": sft, "settings": SETTINGS} | changed
        align_model(base=tiny, base_id="owner/tiny", out=tmp_path / "out", tuning=TUNING, **given)
    assert keys[0] == keys[1] and len(set(keys)) == 5
    for reward in (length, online.reward_function()):
        run("rloo", tiny, data, sft, tmp_path / "out", reward=reward)
    assert keys[-1] != keys[-2]


# --- bad input


@pytest.mark.parametrize("generations", [1, 3])
def test_a_batch_that_holds_no_whole_groups_is_refused(generations, data, sft, tiny, tmp_path):
    settings = replace(SETTINGS, online=replace(SAMPLING, generations=generations))
    with pytest.raises(InputError, match="whole groups"):
        run("rloo", tiny, data, sft, tmp_path / "out", replace(TUNING, steps=1), settings=settings)


@pytest.mark.parametrize(
    "methods, tuning, generations, message",
    [
        (["dpo", "ppp"], TUNING, 2, "'ppp': choose among"),
        (["dpo", "ppo"], replace(TUNING, mode="full"), 2, "LoRA adapter"),
        (["dpo", "grpo"], TUNING, 3, "compares 3 answers.*whole groups"),
    ],
)
def test_what_a_later_method_would_refuse_is_said_before_the_first_trains(methods, tuning, generations, message):
    with pytest.raises(InputError, match=message):
        align.check_alignment(methods, tuning, replace(SAMPLING, generations=generations))
    align.check_alignment(METHODS, TUNING, SAMPLING)


def test_without_data_the_aligned_systems_are_the_sft_model(sft, tiny, tmp_path):
    for name in ("dpo", "orpo", "dpo"):  # the last one over an older one
        align.copy_weights(sft, tmp_path / name)
    engine = LocalEngine(tiny, adapters={"sft": sft, "dpo": tmp_path / "dpo"})
    assert engine.model_name("dpo").split("-")[-1] == engine.model_name("sft").split("-")[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dpo", "orpo"]


@pytest.mark.parametrize(
    "rows, batch, accumulation, epochs, steps, expected",
    [
        (40, 8, 1, 1.0, 0, 5),
        (40, 8, 2, 2.0, 0, 5),
        (3, 8, 1, 1.0, 0, 1),
        (40, 8, 1, 1.0, 32, 32),
    ],
)
def test_all_methods_get_the_same_number_of_steps(rows, batch, accumulation, epochs, steps, expected):
    tuning = replace(TUNING, batch_size=batch, accumulation=accumulation, epochs=epochs)
    assert align.with_steps(tuning, rows, steps).steps == expected


def test_all_methods_train_in_one_call_and_one_without_data_is_the_sft_model(tiny, sft, pairs, tmp_path):
    tuning = replace(TUNING, steps=1)
    data = {"pairs": pairs, "answers": [], "prompts": []}
    histories = align.align_all(
        ["dpo", "kto"], tiny, "owner/tiny", data, tmp_path, tuning=tuning, sft=sft, settings=SETTINGS, reward=None
    )
    assert list(histories) == ["dpo"] and any("loss" in entry for entry in histories["dpo"])
    untaught, taught = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("kto", "dpo"))
    before = load_file(sft / "adapter_model.safetensors")
    assert all(torch.equal(untaught[name], before[name]) for name in before)
    assert any(not torch.equal(taught[name], before[name]) for name in before)
    with pytest.raises(InputError, match="generations"):  # said before dpo would train
        bad = replace(SETTINGS, online=replace(SAMPLING, generations=3))
        align.align_all(
            ["dpo", "rloo"],
            tiny,
            "owner/tiny",
            data,
            tmp_path / "no",
            tuning=tuning,
            sft=sft,
            settings=bad,
            reward=length,
        )
    assert not (tmp_path / "no").exists()
