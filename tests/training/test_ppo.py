"""Properties of PPO: its formulas against numbers worked out by hand, its reference, its tokens, and that it learns."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files, progress
from cuadft.core.errors import InputError
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.training import sft as sft_
from cuadft.training.online import CUT, Sampling
from cuadft.training.ppo import (
    PPOTrainer,
    draw_rows,
    explained_variance,
    gae,
    kl_estimate,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from cuadft.training.resume import last_checkpoint, train_language_model
from cuadft.training.sft import Tuning, common_settings, load_tokenizer, load_trainable, lora_config

ROWS = [
    {"prompt": [{"role": "user", "content": text}], "wanted": text[0]}
    for text in ("one", "two words", "now three words", "four of them here")
]


def close(*numbers):
    return pytest.approx(numbers, abs=1e-6)


# --- the formulas


def test_gae_by_hand():
    # gamma 1, lambda 0.5, values 0.5 0.6 0.7, reward 1 at the end:
    #   delta 3 = 1 - 0.7 = 0.3          A 3 = 0.3
    #   delta 2 = 0.7 - 0.6 = 0.1        A 2 = 0.1 + 0.5 x 0.3  = 0.25
    #   delta 1 = 0.6 - 0.5 = 0.1        A 1 = 0.1 + 0.5 x 0.25 = 0.225
    # a second answer of two tokens; what stands behind its end must not count:
    #   delta 2 = 1 - 0.4 = 0.6          A 2 = 0.6
    #   delta 1 = 0.4 - 0.2 = 0.2        A 1 = 0.2 + 0.5 x 0.6 = 0.5
    rewards, values = torch.tensor([[0.0, 0, 1], [0, 1, 9]]), torch.tensor([[0.5, 0.6, 0.7], [0.2, 0.4, 7]])
    advantages, returns = gae(rewards, values, torch.tensor([[1.0, 1, 1], [1, 1, 0]]), 1.0, 0.5)
    assert advantages[0].tolist() == close(0.225, 0.25, 0.3) and advantages[1].tolist() == close(0.5, 0.6, 0)
    assert returns[0].tolist() == close(0.725, 0.85, 1.0) and returns[1].tolist() == close(0.7, 1.0, 0)


def test_gae_discounts_by_hand():
    # gamma 0.5, lambda 0.4, values 1 and 2, rewards 3 and 4: delta 2 = 4 - 2 = 2; delta 1 = 3 + 0.5 x 2 - 1 = 3
    # A 2 = 2; A 1 = 3 + 0.5 x 0.4 x 2 = 3.4
    advantages, returns = gae(torch.tensor([[3.0, 4]]), torch.tensor([[1.0, 2]]), torch.ones(1, 2), 0.5, 0.4)
    assert advantages[0].tolist() == close(3.4, 2) and returns[0].tolist() == close(4.4, 4)


@given(st.lists(st.tuples(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32)), min_size=1, max_size=8))
def test_with_lambda_1_the_returns_are_the_sums_of_rewards_to_come(steps):
    rewards, values = (torch.tensor([list(column)]) for column in zip(*steps))
    mask = torch.ones_like(rewards)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(rewards, values, mask, 1.0, 1.0)[1], to_come, atol=1e-4)
    following = torch.cat([values[:, 1:], torch.zeros(1, 1)], 1)
    assert torch.allclose(gae(rewards, values, mask, 1.0, 0.0)[0], rewards + following - values, atol=1e-4)


def test_the_clipped_policy_loss_by_hand():
    # clip 0.2.   ratio  advantage   free   clipped   loss = the larger
    #              1.5      +1       -1.5    -1.2     -1.2  clipped: no more gain from going further up
    #              0.5      +1       -0.5    -0.8     -0.5  free: a wrong move is taken back
    #              0.5      -1       +0.5    +0.8     +0.8  clipped
    #              1.5      -1       +1.5    +1.2     +1.5  free
    #              1.1      +1       -1.1    -1.1     -1.1  free: within the bounds both are the same
    #              9.0      +1       outside the mask
    # mean of the five: -0.5 / 5 = -0.1, and two of them are clipped
    logp = torch.tensor([[1.5, 0.5, 0.5, 1.5, 1.1, 9.0]]).log().requires_grad_()
    advantages, mask = torch.tensor([[1.0, 1, -1, -1, 1, 1]]), torch.tensor([[1.0, 1, 1, 1, 1, 0]])
    loss, clipped = policy_loss(logp, torch.zeros(1, 6), advantages, mask, 0.2)
    assert (loss.item(), clipped.item()) == close(-0.1, 0.4)
    loss.backward()
    assert logp.grad[0].tolist() == close(0, -0.1, 0, 0.3, -0.22, 0)  # -advantage x ratio / 5 where it is free


def test_the_clipped_value_loss_by_hand():
    # clip 0.2.  old 0.5, now 1.0, return 1.0: free error 0; clipped value 0.7, error 0.3 squared = 0.09, the larger
    #            old 0.5, now 0.6, return 0.5: both 0.1 squared = 0.01
    # half the mean: 0.5 x (0.09 + 0.01) / 2 = 0.025
    values, old = torch.tensor([[1.0, 0.6, 8]]), torch.tensor([[0.5, 0.5, 0]])
    loss = value_loss(values, old, torch.tensor([[1.0, 0.5, 0]]), torch.tensor([[1.0, 1, 0]]), 0.2)
    assert loss.item() == pytest.approx(0.025)


def test_a_long_answer_weighs_no_more_than_a_short_one():
    # ratio 1 throughout; an answer of one token with advantage +1 and one of nine tokens with advantage -1
    mask = torch.tensor([[1.0] + [0.0] * 8, [1.0] * 9])
    advantages = torch.tensor([[1.0] * 9, [-1.0] * 9])
    loss, _ = policy_loss(torch.zeros(2, 9), torch.zeros(2, 9), advantages, mask)
    assert loss.item() == pytest.approx(0)  # a mean over the tokens would be (9 - 1) / 10
    assert whiten(advantages, mask)[:, 0].tolist() == close(1, -1)  # and their mean would be -0.8


def test_the_explained_variance_by_hand():
    returns, mask = torch.tensor([[1.0, 3, 9]]), torch.tensor([[1.0, 1, 0]])
    assert explained_variance(returns, returns, mask) == 1 and explained_variance(returns * 0, returns, mask) == 0
    assert explained_variance(returns / 2, returns, mask) == pytest.approx(0.75)  # (0.5 / 1) squared is left
    assert explained_variance(returns, returns * 0 + 5, mask) == 0  # nothing to explain


def test_whitening_by_hand():
    # 1 and 3 have mean 2 and variance 1; 99 is outside the mask
    assert whiten(torch.tensor([[1.0, 3, 99]]), torch.tensor([[1.0, 1, 0]]))[0].tolist() == close(-1, 1, 0)
    assert whiten(torch.tensor([[5.0, 5]]), torch.ones(1, 2))[0].tolist() == close(0, 0)


def test_kl_and_token_rewards_by_hand():
    # reference twice as likely: 2 - 1 - ln 2 = 0.3069; half as likely: 0.5 - 1 + ln 2 = 0.1931; mean 0.25
    two, mask = math.log(2), torch.tensor([[1.0, 1, 0]])
    logp, ref = torch.zeros(1, 3), torch.tensor([[two, -two, 5]])
    assert kl_estimate(logp, ref, mask).item() == pytest.approx(0.25, abs=1e-6) and kl_estimate(ref, ref, mask) == 0
    # penalty 0.1 x log(policy / reference), and the score 0.7 on the last token, which is the second
    assert token_rewards(torch.tensor([0.7]), logp, ref, mask, 0.1)[0].tolist() == close(0.1 * two, 0.7 - 0.1 * two, 0)


@given(count=st.integers(1, 9), size=st.integers(1, 60), seed=st.integers(0, 99))
def test_every_row_is_drawn_before_any_is_drawn_again(count, size, seed):
    drawn = draw_rows(range(count), size, seed)
    assert len(drawn) == size and drawn == draw_rows(range(count), 99, seed)[:size]
    for start in range(0, len(drawn), count):
        assert len(set(drawn[start : start + count])) == len(drawn[start : start + count])


# --- the trainer


def peft_model(tiny, dtype=torch.float32):
    """Return the tiny model with a random adapter in place of SFT's, and a head sharp enough to have preferences."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    model.lm_head.weight.data *= 8
    config = lora_config(Tuning(lora_r=4, lora_alpha=8), model.config)
    config.init_lora_weights = False
    return get_peft_model(model, config)


def starts_with_t(prompts, completions, **_):
    """Return the share of words that begin with t, which a random model rarely writes."""
    words = [completion[0]["content"].split() for completion in completions]
    return [sum(word.startswith("t") for word in found) / max(1, len(found)) for found in words]


def trainer(
    tiny,
    folder,
    reward=starts_with_t,
    *,
    model=None,
    rows=ROWS,
    steps=4,
    rollout=4,
    minibatch=2,
    epochs=2,
    learning_rate=3e-3,
    seed=1,
    save_steps=0,
    checkpointing=False,
    **sampling,
):
    tuning = Tuning(learning_rate=learning_rate, seed=seed, save_steps=save_steps or steps, steps=steps)
    common = common_settings(folder, tuning) | {"gradient_checkpointing": checkpointing}
    sampling = Sampling(**{"max_tokens": 6} | sampling)
    sizes = {"rollout": rollout, "minibatch": minibatch, "epochs": epochs}
    return PPOTrainer(model or peft_model(tiny), load_tokenizer(tiny), rows, reward, common, sampling, **sizes)


def trained(made, resume=None):
    """Train to the end and return the log, one entry a step."""
    made.train(resume_from_checkpoint=resume)
    return made.state.log_history[:-1]  # the last entry has the Trainer's own figures of the whole training


def likely(model, token):
    """Make a token likely at every place, so that answers end after a few tokens."""
    head = model.get_base_model().lm_head
    head.weight.data[token] = 0.0
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features), requires_grad=False)
    head.bias.data[token] = 6.0


def adapter(model, name):
    return {n: p.detach().clone() for n, p in model.named_parameters() if f".{name}." in n}


def test_it_raises_a_reward_clearly(tiny, tmp_path):
    sizes = {"steps": 12, "rollout": 64, "minibatch": 16}
    log = trained(trainer(tiny, tmp_path, max_tokens=4, kl=0.01, learning_rate=6e-3, **sizes))
    rewards = [entry["reward"] + CUT * entry["cut"] for entry in log]
    assert sum(rewards[:3]) / 3 < 0.1 and sum(rewards[-3:]) / 3 > 0.3
    assert log[0]["kl"] == 0 and log[-1]["kl"] > 0.1
    assert log[-1].keys() == {
        "step",
        "epoch",
        "loss",
        "reward",
        "kl",
        "explained_variance",
        "cut",
        "policy_loss",
        "value_loss",
        "clip_fraction",
        "grad_norm",
        "completion_length",
        "unrewarded",
        "learning_rate",
    }
    assert all(math.isfinite(number) for entry in log for number in entry.values())


def test_a_critic_that_knows_nothing_does_not_set_an_answer_against_its_own_start(tiny, tmp_path):
    """With lambda 0.95 the first of 40 tokens would get 0.13 of a right answer's reward, and a short wrong one all."""
    made = trainer(tiny, tmp_path, kl=0.0)
    torch.manual_seed(3)
    batch, _ = made._sample(ROWS)
    batch.pop("ended")
    scores = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert made._assess(batch, scores)["explained_variance"] == 0  # the value head begins at zero
    for advantages, mask, score in zip(batch["advantages"], batch["mask"], scores, strict=True):
        own = advantages[mask > 0]
        assert torch.allclose(own, own[0]) and (own[0] > 0) == (score > 0)


def test_an_answer_without_its_end_mark_is_punished(tiny, tmp_path):
    model = peft_model(tiny)
    made = trainer(tiny, tmp_path, lambda prompts, **_: [1.0] * len(prompts), model=model, max_tokens=8)
    likely(model, made.tokenizer.eos_token_id)
    torch.manual_seed(3)
    batch, texts = made._sample(ROWS * 8)
    scores = made._rewards(ROWS * 8, texts, batch["ended"].tolist())
    end = made.tokenizer.eos_token_id
    answers = batch["tokens"][:, -batch["mask"].shape[1] :].tolist()
    assert scores == [1.0 if end in answer else 1.0 - CUT for answer in answers] and len(set(scores)) == 2


def test_a_kl_penalty_keeps_it_near_the_sft_model(tiny, tmp_path):
    settings = {"steps": 8, "rollout": 32, "minibatch": 16, "max_tokens": 4, "learning_rate": 6e-3}
    free, held = (trained(trainer(tiny, tmp_path / str(kl), kl=kl, **settings)) for kl in (0.0, 2.0))
    assert held[-1]["kl"] < free[-1]["kl"] / 2


def test_the_reference_is_the_sft_adapter_and_neither_it_nor_the_base_moves(tiny, tmp_path):
    model = peft_model(tiny)
    sft, base = adapter(model, "default"), model.get_base_model().lm_head.weight.detach().clone()
    made = trainer(tiny, tmp_path, model=model)
    tokens = torch.tensor([made.tokenizer.apply_chat_template(ROWS[2]["prompt"], return_dict=False)])
    with torch.no_grad():
        expected = model(tokens).logits
        model.set_adapter("ref")
        found = model(tokens).logits
        with model.disable_adapter():
            bare = model(tokens).logits
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, bare, atol=0.1)
    trained(made)
    for name, weight in adapter(model, "ref").items():
        assert torch.equal(weight, sft[name.replace(".ref.", ".default.")])
    moved = [not torch.equal(weight, sft[name]) for name, weight in adapter(model, "default").items()]
    assert all(moved) and torch.equal(model.get_base_model().lm_head.weight, base)
    assert made.value_head.weight.abs().sum() > 0
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(sft)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_probabilities_are_those_of_the_unpadded_answer_at_the_sampling_temperature(temperature, tiny, tmp_path):
    model = peft_model(tiny)
    made = trainer(tiny, tmp_path, max_tokens=8, temperature=temperature, model=model)
    likely(model, made.tokenizer.eos_token_id)
    torch.manual_seed(3)
    batch, _ = made._sample(ROWS)
    torch.nn.init.normal_(made.value_head.weight)
    with torch.no_grad():
        logp, values = made._forward(batch)
        for i, row in enumerate(ROWS):
            start = len(
                made.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
            )
            tokens = batch["tokens"][i][batch["seen"][i] > 0][None]
            length = tokens.shape[1] - start
            out = model(tokens, output_hidden_states=True)
            every = (out.logits[0, start - 1 : -1] / temperature).log_softmax(-1)
            assert length == batch["mask"][i].sum()
            assert torch.allclose(logp[i, :length], every[range(length), tokens[0, start:]], atol=1e-4)
            expected = made.value_head(out.hidden_states[-1][0, start - 1 : -1])[:, 0]  # before the token is known
            assert torch.allclose(values[i, :length], expected, atol=1e-4)


@pytest.mark.parametrize("pad", ["<|im_end|>", "<|endoftext|>", None])
def test_the_end_mark_is_learned_and_the_padding_is_not_even_if_they_are_equal(pad, tiny, tmp_path):
    model = peft_model(tiny)
    made = trainer(tiny, tmp_path, max_tokens=8, model=model)
    made.tokenizer.pad_token, end = pad, made.tokenizer.eos_token_id
    likely(model, end)
    torch.manual_seed(3)
    batch, texts = made._sample(ROWS * 8)
    answers = batch["tokens"][:, -batch["mask"].shape[1] :]
    lengths, ended = batch["mask"].sum(1).long().tolist(), [end in answer for answer in answers.tolist()]
    assert len(set(lengths)) > 2 and len(set(ended)) == 2
    for answer, mask, length, whole, text in zip(answers.tolist(), batch["mask"].tolist(), lengths, ended, texts):
        assert mask == [1.0] * length + [0.0] * (len(mask) - length)
        assert (answer[length - 1] == end) == whole and end not in answer[: length - 1]
        assert whole or length == len(mask)
        assert text == made.tokenizer.decode(answer[: length - whole], skip_special_tokens=True)


def test_the_prompt_tokens_are_those_of_inference(tiny, tmp_path):
    made, engine = trainer(tiny, tmp_path), LocalEngine(tiny)
    batch, _ = made._sample(ROWS)
    width = batch["mask"].shape[1]
    for row, tokens, seen in zip(ROWS, batch["tokens"], batch["seen"]):
        assert tokens[:-width][seen[:-width] > 0].tolist() == engine.tokenize(row["prompt"])


def test_the_reward_is_called_as_trl_calls_it(tiny, tmp_path):
    calls = []

    def reward(prompts, completions, **columns):
        calls.append((prompts, completions, columns))
        return [0.5] * len(prompts)

    log = trained(trainer(tiny, tmp_path, reward, steps=1, rollout=3, max_tokens=2))
    ((prompts, completions, columns),) = calls
    assert [p[0]["content"][0] for p in prompts] == columns["wanted"] and columns.keys() == {"wanted"}
    assert all(c[0].keys() == {"role", "content"} and c[0]["role"] == "assistant" for c in completions)
    assert log[0]["reward"] == 0.5 - CUT * log[0]["cut"]


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_answers_without_a_reward_are_left_out_and_counted(unknown, tiny, tmp_path):
    def reward(prompts, completions, wanted):
        return [unknown if w in "ot" else 1.0 for w in wanted]

    made = trainer(tiny, tmp_path / "some", reward, steps=1, minibatch=4, epochs=1, max_tokens=2)
    seen, forward = [], made._forward
    made._forward = lambda batch: seen.append(len(batch["mask"])) or forward(batch)
    log = trained(made)
    assert log[0]["unrewarded"] == 2 and log[0]["reward"] == 1 - CUT and set(seen) == {2}  # two tokens are no answer
    none = trainer(tiny, tmp_path / "none", lambda prompts, **_: [unknown] * len(prompts))
    before = adapter(none.model, "default")
    assert [(e["unrewarded"], "loss" in e, "reward" in e) for e in trained(none)] == [(4, False, False)] * 4
    assert all(torch.equal(weight, before[name]) for name, weight in adapter(none.model, "default").items())


def test_an_interrupted_training_ends_equal_to_an_unbroken_one(tiny, tmp_path):
    calls = []

    def dies(prompts, completions, **columns):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return starts_with_t(prompts, completions)

    whole = trainer(tiny, tmp_path / "whole", save_steps=2)
    log = trained(whole)
    with pytest.raises(KeyboardInterrupt):
        trained(trainer(tiny, tmp_path / "killed", dies, save_steps=2))
    resumed = trainer(tiny, tmp_path / "killed", dies, save_steps=2)
    torch.manual_seed(99)  # what else has drawn random numbers is all the same
    assert trained(resumed, last_checkpoint(tmp_path / "killed")) == log and len(calls) == 4 + 2
    for weight, other in zip(whole.trained, resumed.trained, strict=True):
        assert torch.equal(weight, other)


def test_the_seed_decides(tiny, tmp_path):
    logs = [
        trained(trainer(tiny, tmp_path / str(n), steps=2, max_tokens=4, rows=ROWS[:1], seed=s))
        for n, s in enumerate((1, 1, 2))
    ]
    assert logs[0] == logs[1] != logs[2]


def test_checkpointing_changes_nothing_but_memory(tiny, tmp_path):
    logs = [trained(trainer(tiny, tmp_path / str(c), steps=2, max_tokens=4, checkpointing=c)) for c in (False, True)]
    assert [e["grad_norm"] for e in logs[0]] == pytest.approx([e["grad_norm"] for e in logs[1]], rel=1e-4)
    assert logs[0][1]["grad_norm"] > 0


def test_a_bfloat16_model_learns_in_float32(tiny, tmp_path):
    model = peft_model(tiny, torch.bfloat16)
    made = trainer(tiny, tmp_path, model=model)
    assert {p.dtype for p in made.trained} == {torch.float32}
    batch, _ = made._sample(ROWS)
    assert {t.dtype for t in made._forward(batch)} == {torch.float32}
    log = trained(made)
    assert log[0]["kl"] == 0 and all(math.isfinite(e["loss"]) and e["grad_norm"] > 0 for e in log)


def test_a_gradient_that_is_no_number_ends_the_training(tiny, tmp_path):
    broken = trainer(tiny, tmp_path)
    broken.value_head.bias.data += math.nan
    with pytest.raises(InputError, match="lower learning rate"):
        broken.train()


def test_it_runs_as_the_other_methods_do_and_its_adapter_loads_beside_the_sft_one(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sft_, "best_dtype", lambda: torch.float32)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    sft, out, tuning = tmp_path / "sft", tmp_path / "ppo", Tuning(lora_r=4)
    peft_model(tiny).save_pretrained(sft)
    files.write_json(sft / "base.json", {"sha256": weights.weights_hash(tiny)})

    def train():
        return train_language_model(
            lambda work: trainer(tiny, work, model=load_trainable(tiny, sft, tuning)),
            out,
            base=tiny,
            base_id="owner/tiny",
            identity=["ppo"],
        )

    log = train()
    assert "ppo: 4/4 steps" in capsys.readouterr().out
    assert files.read_json(out / "training.json")["log_history"] == log and sum("loss" in entry for entry in log) == 4
    assert train() == log
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ppo", "sft"] and not (out / "ref").exists()
    assert weights.weights_hash(sft) != weights.weights_hash(out)
    engine = LocalEngine(tiny, adapters={"sft": sft, "ppo": out}, dtype="float32")
    tokens = torch.tensor([engine.tokenize(ROWS[0]["prompt"])])
    with torch.inference_mode():
        before, after = (engine.generator.use(name)(tokens).logits.clone() for name in ("sft", "ppo"))
    assert not torch.allclose(before, after, atol=1e-4)
