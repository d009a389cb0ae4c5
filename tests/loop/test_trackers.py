"""Trackers: a view of the run folder that repeats nothing, repairs itself and never costs the run anything."""

import importlib.util
import shutil
import sqlite3
import sys

import pytest
from tracked import BASE, decide, place, report

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.loop import runner, tracker_folders, trackers

MLFLOW = {"report_to": ["mlflow"]}
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in trackers.TRACKERS}
needs_mlflow = pytest.mark.skipif(not INSTALLED["mlflow"], reason="MLflow is not installed: pip install -e '.[mlflow]'")
needs_trackio = pytest.mark.skipif(
    not INSTALLED["trackio"], reason="Trackio is not installed: pip install -e '.[trackio]'"
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "run"


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Return an empty database of MLflow's, which takes seconds to make."""
    from mlflow import MlflowClient

    made = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
    return made


@pytest.fixture
def mlflow_run(run, database):
    (run / "trackers").mkdir(parents=True)
    shutil.copy(database, run / "trackers")
    return run


def client(run):
    from mlflow import MlflowClient

    uri = f"sqlite:///{run / 'trackers' / 'mlflow.db'}".replace("%", "%25").replace("#", "%23")
    return MlflowClient(uri, uri)


def sent(run):
    """Return the run's MLflow runs by name."""
    known = client(run)
    found = known.search_runs([known.get_experiment_by_name(run.name).experiment_id])
    assert len({one.info.run_name for one in found}) == len(found)
    return {one.info.run_name: one for one in found}


def alias(run):
    """Return system and number of the version that the registry calls champion, None if there is none."""
    known = client(run)
    number = known.get_registered_model(run.name).aliases.get("champion")
    return number and (known.get_model_version(run.name, number).tags["system"].split()[0], int(number))


def points(run, system, tag="test/f1"):
    """Return TensorBoard's (step, value) pairs of a system."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "trackers" / "tensorboard" / system))
    events.Reload()
    return [(one.step, round(one.value, 4)) for one in events.Scalars(tag)]


@needs_mlflow
@pytest.mark.parametrize("name", ["50% x", "#1 ä", "a?b"])
def test_a_run_folder_of_any_name_leaves_no_second_one(mlflow_run, name):
    run = mlflow_run.rename(mlflow_run.with_name(name))
    (row,) = report(decide(run, 1, {"rag": 0.4}), "mlflow").to_dict("records")
    assert not row["error"] and row["iterations"] == 1 and row["store"].startswith("sqlite://")
    assert [path.name for path in run.parent.iterdir()] == [name]


def test_an_unknown_tracker_is_named_with_the_nearest():
    with pytest.raises(InputError, match="'mlfow'.*did you mean 'mlflow'.*tensorboard"):
        trackers.check_trackers(["mlfow"])


def test_a_missing_tracker_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'trackio'.*not installed.*\.\[trackio\]"):
        trackers.check_trackers(["trackio"])
    trackers.check_trackers([])


def test_the_loop_refuses_a_missing_tracker_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="'trackio' in report_to is not installed"):
        runner.run("smoke", overrides=["report_to=[trackio]"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_a_trackers_name_is_no_tracker(monkeypatch, tmp_path):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(InputError, match="not installed"):
        trackers.check_trackers(["mlflow"])


def test_tensorboard_shows_each_system_as_a_line_over_iterations(run):
    first = decide(run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    assert list(report(first, "tensorboard")["iterations"]) == [1]
    second = decide(run, 2, {"rag": 0.2, "incumbent": 0.5, "sft": 0.4}, kept=place(1))
    for _ in range(2):  # again: nothing is there twice
        shown = report(second, "tensorboard").iloc[0]
        assert (shown["iterations"], shown["error"]) == (2, "")
        assert points(run, "sft") == [(1, 0.5), (2, 0.4)] and points(run, "incumbent") == [(2, 0.5)]
        assert points(run, "rag", "test/f1.low") == [(1, 0.1), (2, 0.1)]
    assert sorted(path.name for path in (run / "trackers").iterdir()) == ["tensorboard"]


def test_a_tracker_that_fails_is_counted_and_the_next_call_repairs_the_view(run, monkeypatch):
    first = decide(run, 1, {"rag": 0.2, "sft": 0.5})
    with monkeypatch.context() as broken:
        broken.setattr(tracker_folders, "_write_events", lambda folder, contents: {}["disk"])
        shown = report(first, "tensorboard").iloc[0]
    assert (shown["error"], shown["iterations"]) == ("KeyError: 'disk'", 0)
    second = decide(run, 2, {"rag": 0.3})
    assert report(second, "tensorboard").iloc[0]["error"] == ""
    assert points(run, "rag") == [(1, 0.2), (2, 0.3)]


def test_an_error_shows_no_secret(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1")

    def refuse(folder, contents):
        raise OSError("no access with planted-key-1 to /home/someone/x/file")

    monkeypatch.setattr(tracker_folders, "_write_events", refuse)
    error = report(decide(run, 1, {"rag": 0.2}), "tensorboard").iloc[0]["error"]
    assert "planted" not in error and "someone" not in error and "no access" in error


def test_a_damaged_earlier_iteration_costs_the_view_only(run):
    decide(run, 1, {"rag": 0.2})
    second = decide(run, 2, {"rag": 0.3})
    (run / "iter-01" / "manifest.json").write_text("{")
    shown = report(second, "tensorboard").iloc[0]
    assert "manifest.json" in shown["error"]


def test_what_a_kill_left_behind_is_removed(run):
    one = decide(run, 1, {"rag": 0.2})
    (run / "trackers" / ".tensorboard.part" / "sft").mkdir(parents=True)
    report(one, "tensorboard")
    assert sorted(path.name for path in (run / "trackers").iterdir()) == ["tensorboard"]


def test_a_choice_by_hand_reaches_only_trackers_that_show_the_run(run):
    decide(run, 1, {"rag": 0.2}, promoted=place(1))
    assert trackers.follow_run(run) == []
    one = decide(run, 1, {"rag": 0.2}, promoted=place(1), parameters={"report_to": ["tensorboard"]})
    files.write_json(one.path("by_hand.json"), {"promoted": BASE})
    assert [shown["tracker"] for shown in trackers.follow_run(run)] == ["tensorboard"]


@needs_mlflow
def test_mlflow_gets_parameters_scores_figures_and_the_decision(mlflow_run):
    run = mlflow_run
    one = decide(run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    shown = report(one, "mlflow").iloc[0]
    assert (shown["iterations"], shown["error"]) == (1, "")
    found = sent(run)["run iter-01"]
    assert found.data.params == {"seed": "7", "align_methods": '["dpo"]'} and found.info.status == "FINISHED"
    assert found.data.metrics["test/f1/sft"] == 0.5
    assert found.data.metrics["test/f1/rag.low"] == pytest.approx(0.1) and found.data.metrics["test/f1/rag.n"] == 50
    assert (
        found.data.tags["decision"] == "promoted: a clear gain" and found.data.tags["champion"] == "sft of iteration 1"
    )
    known = client(run)
    assert [file.path for file in known.list_artifacts(found.info.run_id, "figures")] == ["figures/benchmark.png"]
    history = known.get_metric_history(found.info.run_id, "test/f1/sft")
    assert [(point.step, point.value) for point in history] == [(1, 0.5)]


@needs_mlflow
def test_mlflow_keeps_one_run_for_an_iteration_however_often_it_is_reported(mlflow_run):
    one = decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.5})
    report(one, "mlflow")
    before = sent(mlflow_run)["run iter-01"]
    report(one, "mlflow")
    again = sent(mlflow_run)["run iter-01"]
    assert again.info.run_id == before.info.run_id and again.info.end_time == before.info.end_time  # nothing was sent
    decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.6})
    report(one, "mlflow")
    (changed,) = sent(mlflow_run).values()
    assert changed.data.metrics["test/f1/sft"] == 0.6


@needs_mlflow
def test_mlflow_shows_no_old_parameter_and_no_system_that_is_gone(mlflow_run):
    one = decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    report(one, "mlflow")
    decide(mlflow_run, 1, {"rag": 0.2, "dpo": 0.5}, promoted=place(1, "dpo"), parameters={"seed": 8})
    report(one, "mlflow")
    (found,) = sent(mlflow_run).values()
    assert found.data.params["seed"] == "8" and not any("sft" in name for name in found.data.metrics)
    assert alias(mlflow_run) == ("dpo", 2)


@needs_mlflow
def test_the_alias_follows_gate_and_hand_with_one_version_for_each_champion(mlflow_run):
    first = decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    report(first, "mlflow")
    assert alias(mlflow_run) == ("sft", 1)
    second = decide(mlflow_run, 2, {"rag": 0.2, "incumbent": 0.5, "sft": 0.4}, kept=place(1))
    report(second, "mlflow")
    assert alias(mlflow_run) == ("sft", 1)
    scores = {"rag": 0.2, "incumbent": 0.5, "dpo": 0.7}
    third = decide(mlflow_run, 3, scores, promoted=place(3, "dpo"), parameters=MLFLOW)
    report(third, "mlflow")
    assert alias(mlflow_run) == ("dpo", 2)
    files.write_json(third.path("by_hand.json"), {"promoted": place(1)})  # rolled back
    assert [shown["error"] for shown in trackers.follow_run(mlflow_run)] == [""] and alias(mlflow_run) == ("sft", 1)
    files.write_json(third.path("by_hand.json"), {"promoted": BASE})  # and once more
    trackers.follow_run(mlflow_run)
    assert alias(mlflow_run) == ("rag", 3) and len(client(mlflow_run).search_model_versions()) == 3


@needs_mlflow
def test_a_version_names_the_weights_and_the_calibration_with_their_hashes(mlflow_run):
    one = decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    report(one, "mlflow")
    (version,) = client(mlflow_run).search_model_versions()
    assert version.tags["weights"] == "iter-01/adapters/sft"
    assert version.tags["weights_sha256"] == files.file_hash(mlflow_run / "iter-01/adapters/sft")
    assert version.run_id == sent(mlflow_run)["run iter-01"].info.run_id
    files.write_text(mlflow_run / "iter-01/adapters/sft/weights.txt", "trained again")
    report(one, "mlflow")
    assert alias(mlflow_run) == ("sft", 2)  # other weights are another version
    calibration = "iter-01/predictions/sft.confidence.json"
    files.write_text(mlflow_run / calibration, "{}")
    report(one, "mlflow")
    assert alias(mlflow_run) == ("sft", 3)  # and so is another calibration
    tags = client(mlflow_run).get_model_version(mlflow_run.name, "3").tags
    assert (tags["calibration"], tags["calibration_sha256"]) == (calibration, files.file_hash(mlflow_run / calibration))


@needs_mlflow
def test_where_nothing_was_promoted_the_alias_is_that_of_the_first_champion(mlflow_run):
    one = decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.1})
    report(one, "mlflow")
    assert alias(mlflow_run) == ("rag", 1)
    decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.5}, promoted=place(1))
    report(one, "mlflow")
    assert alias(mlflow_run) == ("sft", 2)
    decide(mlflow_run, 1, {"rag": 0.2, "sft": 0.1})  # evaluated again: not promoted after all
    report(one, "mlflow")
    assert alias(mlflow_run)[0] == "rag"


@needs_mlflow
def test_a_damaged_database_is_reported_at_once_and_made_again_when_it_is_deleted(mlflow_run):
    decide(mlflow_run, 1, {"rag": 0.2})
    database = mlflow_run / "trackers" / "mlflow.db"
    database.write_bytes(b"not a database" * 1000)
    second = decide(mlflow_run, 2, {"rag": 0.3})
    assert "not a database" in report(second, "mlflow").iloc[0]["error"]
    database.unlink()
    assert report(second, "mlflow").iloc[0]["error"] == ""
    assert set(sent(mlflow_run)) == {"run iter-01", "run iter-02"}


@needs_mlflow
def test_a_moved_folder_writes_nothing_where_it_was(mlflow_run, tmp_path):
    report(decide(mlflow_run, 1, {"rag": 0.2}), "mlflow")
    moved = tmp_path / "moved a%41 #ü'" / "run"  # signs that mean something in addresses
    moved.parent.mkdir()
    mlflow_run.rename(moved)
    second = decide(moved, 2, {"rag": 0.3})
    assert report(second, "mlflow").iloc[0]["error"] == "" and not mlflow_run.exists()
    assert set(sent(moved)) == {"run iter-01", "run iter-02"}


@needs_mlflow
def test_run_folders_meet_in_one_store_and_keep_their_runs_apart(tmp_path, database, monkeypatch):
    shared = tmp_path / "store" / "mlflow.db"
    shared.parent.mkdir()
    shutil.copy(database, shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    for side in ("a", "b"):
        one = decide(tmp_path / side / "run", 1, {"rag": 0.2, "sft": 0.6}, promoted=place(1))
        files.write_json(one.run / "run.json", {"created": side})
        assert report(one, "mlflow").iloc[0]["error"] == "" and not (one.run / "trackers/mlflow.db").exists()
    with sqlite3.connect(shared) as connection:
        assert connection.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)
        names = [name for (name,) in connection.execute("SELECT name FROM registered_models ORDER BY name")]
    assert len(set(names)) == 2 and all(name.startswith("run-") for name in names)  # each has a champion of its own
    assert (tmp_path / "store" / "mlflow-artifacts").is_dir()


@needs_mlflow
def test_a_store_that_cannot_be_opened_is_reported_at_once(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent / 'missing' / 'mlflow.db'}")
    assert "unable to open" in report(decide(run, 1, {"rag": 0.2}), "mlflow").iloc[0]["error"]


@needs_mlflow
def test_a_server_that_is_down_is_reported_and_not_waited_for(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:planted-pass@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    one = decide(run, 1, {"rag": 0.2}, parameters=MLFLOW)
    for shown in (report(one, "mlflow").to_dict("records"), trackers.follow_run(run)):
        assert shown[0]["error"] and "planted" not in str(shown)


@needs_mlflow
def test_no_key_and_no_home_reaches_a_store(mlflow_run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1")
    told = {"judge_lm": "openai/x?key=planted-key-1", "cuad": "/home/someone/c.zip"}
    one = decide(mlflow_run, 1, {"rag": 0.2}, parameters=told)
    report(one, "mlflow", "tensorboard")
    for path in (mlflow_run / "trackers").rglob("*"):
        assert path.is_dir() or (b"planted" not in path.read_bytes() and b"someone" not in path.read_bytes())


@needs_trackio
def test_trackio_shows_an_iteration_once(run):
    first = decide(run, 1, {"rag": 0.2, "sft": 0.5})
    report(first, "trackio")
    second = decide(run, 2, {"rag": 0.3})
    for _ in range(2):
        assert report(second, "trackio").iloc[0]["error"] == ""
    with sqlite3.connect(run / "trackers" / "trackio" / "run.db") as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert [row[:2] for row in rows] == [("iter-01", 1), ("iter-02", 2)]
    assert '"test/f1/sft":0.5' in str(rows[0][2])
