"""Preference pairs from gold spans and AI feedback, and alignment of the SFT adapter by DPO or ORPO (TRL)."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspy

from cuadft.errors import InputError
from cuadft.finetune import Tuning, common_settings, load_trainable, run_training, tokenizer
from cuadft.inference import predict
from cuadft.models import weights_hash
from cuadft.program import ContractQA, target
from cuadft.ratings import Judge

METHODS = ("dpo", "orpo")


def draw_rows(rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int) -> list[dict[str, Any]]:
    """Draw the training rows to sample candidates for, `impossible_share` of them unanswerable."""
    mixed = random.Random(seed).sample(list(rows), len(rows))
    impossible = [r for r in mixed if r["is_impossible"]]
    answerable = [r for r in mixed if not r["is_impossible"]]
    take = min(len(impossible), round(size * impossible_share))
    return impossible[:take] + answerable[:size - take]


def sample_candidates(program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], folder: Path, *, n: int,
                      temperature: float, batch_size: int = 16) -> list[dict[str, Any]]:
    """Return n + 1 predictions a row: the greedy answer and n sampled ones, each kept on disk as it is made."""
    settings = [(0.0, 0)] + [(temperature, seed) for seed in range(1, n + 1)]
    return [p for heat, seed in settings
            for p in predict(program, lm.copy(temperature=heat, seed=seed), rows, folder / f"candidates.{seed}.jsonl",
                             system=f"candidate {seed}", split="train", batch_size=batch_size)]


def preference_pairs(program: ContractQA, candidates: Sequence[dict[str, Any]], judge: Judge, *,
                     margin: float = 0.3) -> list[dict[str, Any]]:
    """Return pairs {"id", "contract", "prompt", "chosen", "rejected", "source", "chosen_score", "rejected_score"}.

    Source "gold": the gold words against the worst candidate, if the judge puts it below 1 - margin.
    Source "ai": the best against the worst candidate, if the judge's scores differ by `margin`. Candidates whose
    generation or judgement failed make no pair.
    """
    ratings = judge.rate(candidates)
    by_row: dict[str, list[tuple[float, str, dict[str, Any]]]] = {}
    for row, score, error in zip(candidates, ratings["judge_score"], ratings["judge_error"], strict=True):
        if row["error"] is None and not error and score == score:
            by_row.setdefault(row["id"], []).append((float(score), row["answer"], row))
    pairs = []
    for scored in by_row.values():
        best, worst = max(scored, key=lambda s: s[0]), min(scored, key=lambda s: s[0])
        row = worst[2]
        hits = program.retriever.search(row["question"], contract=row["contract"], k=program.k)
        gold = target(row, hits)
        if gold is not None and worst[0] < 1 - margin and gold != worst[1]:
            pairs.append(_pair(program, row, hits, (1.0, gold), worst, "gold"))
        if best[0] - worst[0] >= margin and best[1] not in (worst[1], gold):
            pairs.append(_pair(program, row, hits, best, worst, "ai"))
    return pairs


def _pair(program: ContractQA, row: dict[str, Any], hits: Sequence[Any], chosen: Sequence[Any], rejected: Sequence[Any],
          source: str) -> dict[str, Any]:
    *prompt, better = program.messages(row["question"], hits, chosen[1])
    *_, worse = program.messages(row["question"], hits, rejected[1])
    return {"id": row["id"], "contract": row["contract"], "prompt": prompt, "chosen": [better], "rejected": [worse],
            "source": source, "chosen_score": chosen[0], "rejected_score": rejected[0]}


def train_preference(method: str, base: Path, base_id: str, pairs: Sequence[dict[str, Any]], out: Path, *, tuning: Tuning,
                     sft: Path, beta: float = 0.1) -> list[dict[str, Any]]:
    """Align the SFT adapter on preference pairs and write the new adapter to `out`; returns TRL's log history.

    "dpo": Rafailov et al. 2023, with the SFT model as reference. "orpo": Hong et al. 2024, without a reference.
    Resumes as train_sft does.
    """
    if method not in METHODS:
        raise InputError(f"Unknown align method '{method}': choose among {', '.join(METHODS)}.")
    if not pairs:
        raise InputError("There are no preference pairs: sample more rows (preference_rows) or lower preference_margin.")
    if not sft.is_dir():
        raise InputError(f"The SFT adapter is missing: {sft} does not exist. Run 04_fine_tune of this iteration first.")

    def build(work: Path) -> Any:
        return _trainer(method, load_trainable(base, sft, tuning), base, pairs, common_settings(work, tuning), beta)

    return run_training(build, out, base=base, base_id=base_id,
                        identity=[method, list(pairs), repr(tuning), beta, weights_hash(sft)])


def keep_sft(sft: Path, outs: Sequence[Path]) -> None:
    """Put a copy of the SFT weights in each folder of `outs`: what alignment yields when there are no pairs."""
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(sft, out.with_name(f".{out.name}-new"), dirs_exist_ok=True)
        os.replace(out.with_name(f".{out.name}-new"), out)


def _trainer(method: str, model: Any, base: Path, pairs: Sequence[dict[str, Any]], settings: dict[str, Any],
             beta: float) -> Any:
    from datasets import Dataset

    data = Dataset.from_list([{key: p[key] for key in ("prompt", "chosen", "rejected")} for p in pairs])
    words = tokenizer(base)
    if method == "dpo":
        from trl import DPOConfig, DPOTrainer

        # No reference model is given: TRL then freezes a copy of the adapter as it is now, which is the SFT model.
        config = DPOConfig(**settings, beta=beta, max_length=None, precompute_ref_log_probs=True)
        trainer = DPOTrainer(model=model, args=config, train_dataset=data, processing_class=words)
        if len(trainer.train_dataset) != len(pairs):
            raise InputError(f"TRL kept {len(trainer.train_dataset)} of {len(pairs)} preference pairs.")
        return trainer
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    longest = max(len(words.apply_chat_template(p["prompt"] + p[side], return_dict=False))
                  for p in pairs for side in ("chosen", "rejected"))
    config = ORPOConfig(**settings, beta=beta, max_length=longest + 8, remove_unused_columns=False)
    return ORPOTrainer(model=model, args=config, train_dataset=data, processing_class=words)
