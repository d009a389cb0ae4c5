"""Runs of several seeds in one scoreboard: same questions, different seeds, each answer under its own seed."""

import pytest

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.evaluation import results
from cuadft.evaluation.metrics import score_predictions
from cuadft.evaluation.scoreboard import make_scoreboard


def make(folder, seed, answers, *, contract="c"):
    iteration = runs.Iteration(folder, 1)
    asked = {
        "contract": contract,
        "contract_type": "",
        "category": "Parties",
        "question": "Who?",
        "source": "cuad",
        "answers": [{"text": "Acme", "start": 0}],
        "is_impossible": False,
        "system": "sft",
        "split": "test",
        "spans": [],
        "passages": [],
        "error": None,
        "seconds": 0.1,
    }
    rows = [asked | {"id": f"q{n}", "answer": answer} for n, answer in enumerate(answers)]
    files.write_jsonl(iteration.path("predictions", "sft.test.jsonl"), rows)
    files.write_json(iteration.path("manifest.json"), {"stages": {"fine_tune": {"parameters": {"seed": seed}}}})
    return iteration


def test_each_seed_counts_and_the_spread_is_shown(tmp_path):
    own = make(tmp_path / "a", 7, ["Acme", "no"])
    make(tmp_path / "b", 8, ["Acme", "Acme"])
    rows, left_out = results.read_with_seeds(own, seed=7, others=[str(tmp_path / "b")])
    assert left_out == []
    board = make_scoreboard(score_predictions(rows), n_resamples=50).set_index("metric").loc["em"]
    # seed 7: 1 of 2, seed 8: 2 of 2
    assert (board["value"], board["seeds"], board["seed_low"], board["seed_high"]) == (0.75, 2, 0.5, 1.0)


def test_other_questions_the_same_seed_and_an_unknown_seed_are_refused(tmp_path):
    own = make(tmp_path / "a", 7, ["Acme"])
    make(tmp_path / "same", 7, ["Acme"])
    make(tmp_path / "other", 8, ["Acme"], contract="d")
    make(tmp_path / "bare", 9, ["Acme"]).path("manifest.json").unlink()
    for name, message in (
        ("same", "Seed 7 is that of"),
        ("other", "asked other questions"),
        ("bare", "its seed is not known"),
    ):
        with pytest.raises(InputError, match=message):
            results.read_with_seeds(own, seed=7, others=[str(tmp_path / name)])


def test_answers_to_rows_that_are_no_longer_asked_are_left_out_and_named(tmp_path):
    own = make(tmp_path / "a", 7, ["Acme", "Acme"])
    rows = files.read_jsonl(own.path("predictions", "sft.test.jsonl"))
    files.write_jsonl(own.path("data", "test.jsonl"), rows)
    files.write_jsonl(
        own.path("predictions", "dpo.test.jsonl"), [r | {"system": "dpo", "question": "When?"} for r in rows]
    )
    files.write_jsonl(own.path("predictions", "orpo.test.jsonl"), [rows[0] | {"system": "orpo"}])
    kept, left_out = results.read_with_seeds(own, seed=7)
    assert [row["system"] for row in kept] == ["sft", "sft"]
    assert [line.split(" is left out")[0] for line in left_out] == ["dpo on test", "orpo on test"]
    assert "1 of the 2 rows" in left_out[1] and "systems including 'orpo'" in left_out[1]
    assert results.read_with_seeds(own, seed=7, systems=["orpo"])[0] == []
