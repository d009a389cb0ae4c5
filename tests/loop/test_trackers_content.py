"""Properties of what trackers are shown: the run's own numbers, nothing secret, nobody's paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked import BASE, board, decide, place

from cuadft.core import files, runs
from cuadft.loop import trackers

NAMES = st.text("abcdefgh_.-0123456789", min_size=1, max_size=8).filter(lambda name: set(name) - {"."})


@given(st.lists(NAMES, min_size=2, max_size=5), st.sampled_from(["", "see ", "['", "a=", "local/"]))
def test_of_an_absolute_path_only_the_last_name_is_shown(parts, before):
    shown = trackers.clean_text(f"{before}/{'/'.join(parts)}")
    assert shown.endswith(f".../{parts[-1]}") and f"/{parts[0]}/" not in shown.removeprefix(before)
    assert trackers.clean_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "openai/gpt-4o",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "runs/quickstart",
        "1/2 and/or 3",
        "iter-01/adapters/sft",
        "http://127.0.0.1:8000/v1/chat",
        "",
        "[+0.1, +0.2]",
    ],
)
def test_names_addresses_and_relative_paths_stay(text):
    assert trackers.clean_text(text) == text


def test_paths_in_the_project_become_relative():
    assert trackers.clean_text(str(runs.project_root() / "params" / "smoke.yaml")) == "params/smoke.yaml"


def test_no_secret_is_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-123456")
    told = {"judge": ["x sk-planted-123456"], "base": "https://me:planted-pass@host/v1?api_key=planted-99999"}
    shown = trackers.value_text(told)
    assert "planted" not in shown and '"judge": ["x ***"]' in shown


def test_all_stages_parameters_are_shown_but_not_what_the_loop_sets(tmp_path):
    one = decide(
        tmp_path / "run", 1, {"rag": 0.2}, parameters={"systems": ["rag"], "cuad": "/home/someone/CUAD_v1.zip"}
    )
    shown = trackers.content_of(one)
    assert shown["parameters"] == {"seed": "7", "align_methods": '["dpo"]', "cuad": ".../CUAD_v1.zip"}


def test_scores_are_the_boards_without_what_is_unknown(tmp_path):
    one = decide(tmp_path / "run", 1, {"rag": 0.2}, promoted=place(1))
    rows = board(rag=0.2, sft=0.5)
    rows.loc[1, ["low", "high"]] = float("nan")
    rows.to_csv(one.path("scoreboard.csv"), index=False)
    scores = trackers.content_of(one)["scores"]
    assert {name: value for name, value in scores.items() if "sft" in name} == {
        "test/f1/sft": 0.5,
        "test/f1/sft.n": 50,
    }
    assert scores["test/f1/rag.low"] == pytest.approx(0.1)


def test_a_choice_by_hand_comes_before_the_gates(tmp_path):
    one = decide(tmp_path / "run", 1, {"rag": 0.2}, promoted=place(1))
    before = trackers.content_of(one)
    assert (before["champion"], before["decision"]) == ("sft of iteration 1", "promoted: a clear gain")
    files.write_json(one.path("by_hand.json"), {"promoted": BASE, "reason": "worse in use"})
    assert trackers.content_of(one)["champion"] == "rag of iteration 1 (chosen by hand)"


def digest_of(iteration):
    return trackers.digest_of(trackers.content_of(iteration))


def test_the_digest_follows_content_and_nothing_else(tmp_path):
    one = decide(tmp_path / "run", 1, {"rag": 0.2, "sft": 0.5})
    digest = digest_of(one)
    decide(tmp_path / "run", 1, {"sft": 0.5, "rag": 0.2})  # another order of rows
    assert digest_of(one) == digest
    decide(tmp_path / "run", 1, {"sft": 0.5, "rag": 0.3})
    assert digest_of(one) != digest


def test_run_folders_of_one_name_are_told_apart(tmp_path):
    one, other = (decide(tmp_path / side / "run", 1, {"rag": 0.2}) for side in "ab")
    files.write_json(other.run / "run.json", {"name": "run", "created": "2026-01-02T00:00:00+00:00"})
    assert trackers._identity(one.run) != trackers._identity(other.run)


def test_an_iteration_without_decision_or_scoreboard_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    monkeypatch.setattr(trackers, "send_mlflow", lambda run, shown: f"{shown}")
    decide(tmp_path, 1, {"rag": 0.2}).path("scoreboard.csv").unlink()
    runs.Iteration(tmp_path, 2).dir.mkdir()
    assert trackers._send("mlflow", tmp_path) == {"tracker": "mlflow", "store": "[]", "iterations": 0, "error": ""}
