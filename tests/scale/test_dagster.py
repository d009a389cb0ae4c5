"""Dagster runs the loop stage by stage, tries a failed one again, and ends where an undisturbed run ends."""

import importlib.util
from pathlib import Path

import pytest
from tiny_project import make_project, run_in_process

from cuadft.core import files
from cuadft.loop import runner

dagster = pytest.importorskip("dagster", reason="an extra: pip install -e '.[orchestration]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OVERRIDES = ["align_methods=[dpo]"]


@pytest.fixture
def definition(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(make_project(tmp_path))
    spec = importlib.util.spec_from_file_location("orchestrated", ROOT / "params" / "orchestration.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def execute(definition, run, **settings):
    config = {"run_dir": str(run), "preset": "tiny", "overrides": OVERRIDES} | settings
    given = {"resources": {"loop": {"config": config}}}
    return definition.two_iterations.execute_in_process(given, raise_on_error=False)


def made(run):
    globs = ("data/*", "predictions/*", "adapters/**/*", "scoreboard.csv", "decision.json")
    found = [path for glob in globs for path in run.glob(f"iter-*/{glob}") if path.is_file()]
    return {path.relative_to(run).as_posix(): files.file_hash(path) for path in found}


def test_a_stage_that_fails_once_is_tried_again_and_the_run_equals_an_undisturbed_one(
    definition, tmp_path, monkeypatch
):
    trap = "Path('trap_04.py').unlink()\nimport os\nos.kill(os.getpid(), 9)"
    (tmp_path / "trap_04.py").write_text(trap)  # the kernel of the first attempt dies
    result = execute(definition, tmp_path / "runs/orchestrated")
    assert result.success and not (tmp_path / "trap_04.py").exists()
    retried = [e.node_name for e in result.all_events if e.event_type == dagster.DagsterEventType.STEP_RESTARTED]
    assert retried == ["iter_01_fine_tune"]
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    runner.run("tiny", iterations=2, run_dir="runs/alone", overrides=OVERRIDES, log=lambda line: None)
    assert made(tmp_path / "runs/orchestrated") == made(tmp_path / "runs/alone") != {}


def test_bad_input_fails_the_job_at_once_with_the_message_of_the_command(definition, tmp_path):
    result = execute(definition, tmp_path / "runs/bad", preset="none")
    events = result.all_events
    assert not result.success and not [e for e in events if e.event_type == dagster.DagsterEventType.STEP_UP_FOR_RETRY]
    (failed,) = [e for e in events if e.is_step_failure]
    assert failed.node_name == "iter_01_data_prep" and "No preset none" in str(failed.event_specific_data)
