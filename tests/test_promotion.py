"""Properties of promotion: only a clear gain on dev contracts replaces the incumbent."""

import json

import pandas as pd
import pytest

from cuadft import runs
from cuadft.errors import InputError
from cuadft.promotion import comparisons, decide

KEPT = {"system": "sft", "program": "iter-01/program/rag.json", "weights": "iter-01/adapters/sft"}


def scored(system, scores, split="dev"):
    """Return one scored row per contract."""
    rows = [{"id": f"{split}{i}", "contract": f"{split}-c{i}", "system": system, "split": split, "f1": score}
            for i, score in enumerate(scores)]
    return pd.DataFrame(rows)


def frame(*parts):
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def first(tmp_path):
    return runs.Iteration(tmp_path, 1)


@pytest.fixture
def second(first):
    runs.write_json(first.path("decision.json"), {"promoted": KEPT})
    return runs.Iteration(first.run, 2)


# ten contracts, each 0.3 better: every resample's difference is 0.3, so the interval is [0.3, 0.3]
LOW, HIGH = [0.2] * 10, [0.5] * 10
# seven contracts 0.1 better, three 0.2 worse: the mean is +0.01 and resamples fall on both sides of zero
UNCLEAR = [0.3] * 7 + [0.0] * 3


def test_a_clear_gain_is_promoted_with_its_program_and_weights(first):
    made = decide(frame(scored("rag", LOW), scored("sft", HIGH)), first, tuned_program="rag_compiled")
    assert made["promoted"] == KEPT | {"program": "iter-01/program/rag_compiled.json"}
    assert (made["incumbent"], made["candidate"]) == ("rag", "sft")
    assert made["delta"]["low"] == pytest.approx(0.3) and made["delta"]["n_contracts"] == 10
    assert made["reason"].startswith("promoted: sft against rag on dev: +0.300 f1, 95% interval [+0.300, +0.300]")


def test_a_gain_that_could_be_chance_is_not_promoted(first):
    made = decide(frame(scored("rag", LOW), scored("sft", UNCLEAR)), first)
    assert made["delta"]["value"] == pytest.approx(0.01) and made["delta"]["low"] < 0 < made["delta"]["high"]
    assert made["promoted"] == {"system": "rag", "program": "iter-01/program/rag.json", "weights": None}
    assert made["reason"].startswith("kept: sft against rag")


@pytest.mark.parametrize("scores", [LOW, [0.1] * 10])
def test_an_equal_or_worse_system_is_not_promoted(first, scores):
    assert decide(frame(scored("rag", LOW), scored("sft", scores)), first)["promoted"]["system"] == "rag"


def test_one_contract_is_never_enough(first):
    made = decide(frame(scored("rag", [0.0]), scored("sft", [1.0])), first)
    assert made["promoted"]["system"] == "rag"
    runs.write_json(first.path("decision.json"), made)  # its bounds are unknown: NaN, which JSON lacks
    assert runs.read_json(first.path("decision.json"))["delta"]["low"] is None


def test_the_best_rival_is_the_candidate(first):
    made = decide(frame(scored("rag", LOW), scored("sft", [0.4] * 10), scored("dpo", HIGH), scored("rag_compiled", LOW)), first)
    assert made["candidate"] == made["promoted"]["system"] == "dpo"
    assert made["promoted"]["weights"] == "iter-01/adapters/dpo"


def test_a_compiled_prompt_can_be_promoted_without_weights(first):
    made = decide(frame(scored("rag", LOW), scored("rag_compiled", HIGH)), first)
    assert made["promoted"] == {"system": "rag_compiled", "program": "iter-01/program/rag_compiled.json", "weights": None}


def test_without_a_rival_the_incumbent_is_kept(first):
    made = decide(scored("rag", LOW), first)
    assert made["promoted"]["system"] == "rag" and made["candidate"] is None and "no other system" in made["reason"]
    json.dumps(made)


def test_only_dev_rows_decide(first):
    dev = frame(scored("rag", LOW), scored("sft", UNCLEAR))
    test = frame(scored("rag", [0.0] * 10, "test"), scored("sft", [1.0] * 10, "test"), scored("dpo", [1.0] * 10, "test"))
    assert decide(frame(test, dev), first) == decide(dev, first)
    with pytest.raises(InputError, match="no dev predictions of 'rag'"):
        decide(test, first)


def test_the_metric_can_be_another(first):
    scores = frame(scored("rag", LOW).assign(em=1.0), scored("sft", HIGH).assign(em=0.0))
    assert decide(scores, first, metric="em")["promoted"]["system"] == "rag"


def test_a_metric_that_applies_to_no_rival_promotes_none(first):
    scores = frame(scored("rag", LOW), scored("sft", [float("nan")] * 10))
    made = decide(scores, first)
    assert made["promoted"]["system"] == "rag" and made["reason"].startswith("kept")


def test_a_missing_incumbent_is_named(first, second):
    with pytest.raises(InputError, match="no dev predictions of 'rag'.*03_batch_inference"):
        decide(scored("sft", HIGH), first)
    with pytest.raises(InputError, match="no dev predictions of 'incumbent'"):
        decide(frame(scored("rag", LOW), scored("sft", HIGH)), second)


def test_an_incumbent_that_is_kept_still_points_to_its_own_iteration(second):
    made = decide(frame(scored("incumbent", HIGH), scored("rag", LOW), scored("sft", LOW)), second)
    assert made["promoted"] == KEPT and made["incumbent"] == "incumbent"
    assert decide(scored("incumbent", HIGH), second)["promoted"] == KEPT
    # and through a third iteration
    runs.write_json(second.path("decision.json"), made)
    third = runs.Iteration(second.run, 3)
    assert decide(frame(scored("incumbent", HIGH), scored("sft", LOW)), third)["promoted"] == KEPT


def test_in_a_later_iteration_the_incumbent_must_be_beaten_not_rag(second):
    scores = frame(scored("incumbent", HIGH), scored("rag", LOW), scored("sft", [0.4] * 10))
    assert decide(scores, second)["promoted"] == KEPT
    better = decide(frame(scores, scored("dpo", [0.9] * 10)), second)
    assert better["promoted"] == {"system": "dpo", "program": "iter-02/program/rag.json", "weights": "iter-02/adapters/dpo"}


def test_a_system_that_answered_other_rows_is_refused(first):
    with pytest.raises(InputError, match="answered different rows"):
        decide(frame(scored("rag", LOW), scored("sft", HIGH[:-1])), first)


def test_comparisons_pair_each_with_rag_and_aligned_ones_with_sft():
    assert comparisons(["rag", "rag_compiled", "sft", "dpo"]) == [
        ("rag", "rag_compiled"), ("rag", "sft"), ("rag", "dpo"), ("sft", "dpo")]
    assert comparisons(["rag", "incumbent", "sft"]) == [("rag", "incumbent"), ("rag", "sft")]
    assert comparisons(["rag"]) == [] == comparisons([])
    assert comparisons(["sft", "dpo", "kto"]) == [("sft", "dpo"), ("sft", "kto")]  # each once: Holm counts them


def test_the_best_by_a_metric_of_counts_is_the_best_ratio_of_sums(first):
    def spans(system, hits, misses):  # precision by contract: hits of hits + misses
        n = range(len(hits))
        part = scored(system, [0.5] * len(hits)).assign(span_tp=hits, span_fp=misses, span_fn=0)
        return part.assign(span_precision=[hits[i] / (hits[i] + misses[i]) for i in n])

    rag = spans("rag", [1] * 8, [9] * 8)
    few = spans("sft", [1] * 7 + [0], [0] * 7 + [93])  # mean of the rows' shares 7/8, but 7 of 100 spans
    many = spans("dpo", [8] * 8, [2] * 8)  # 64 of 80
    made = decide(frame(rag, few, many), first, metric="span_precision")
    assert made["candidate"] == made["promoted"]["system"] == "dpo"


def test_seeds_of_a_system_are_averaged(first):
    tuned = frame(*(scored("sft", [x] * 10).assign(seed=seed) for seed, x in enumerate((0.4, 0.6))))
    made = decide(frame(scored("rag", LOW).assign(seed=0), tuned), first)
    assert made["promoted"]["system"] == "sft" and made["delta"]["value"] == pytest.approx(0.3)
