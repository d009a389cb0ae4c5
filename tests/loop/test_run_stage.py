"""One stage a command: the same work, checks and skips as the whole loop, in whatever process each stage runs."""

import pytest
from tiny_project import make_project, run_in_process

from cuadft import cli
from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.loop import runner
from cuadft.loop.kernel import lock
from cuadft.loop.stages import STAGE_NAMES

RUN = "runs/tiny"
MADE = ("data/*", "retriever/*", "program/*", "predictions/*", "adapters/**/*", "scoreboard.csv", "decision.json")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def made(run):
    """Return the hash of every file that a run's stages made, their records and executed copies apart."""
    found = [path for glob in MADE for path in run.glob(f"iter-*/{glob}") if path.is_file()]
    return {path.relative_to(run).as_posix(): files.file_hash(path) for path in found}


def stage(number, name, log=None, **options):
    (step,) = runner.run_stage(RUN, number, name, log=(log if log is not None else []).append, **options)["steps"]
    return step["state"]


def test_stage_by_stage_gives_what_a_whole_run_gives_and_each_is_skipped_when_it_is_done(project):
    settings = {"preset": "tiny", "overrides": ["top_k=2", "align_methods=[dpo]"]}
    assert stage(1, "data_prep", **settings) == "done"
    later = [(number, name) for number in (1, 2) for name in STAGE_NAMES]
    assert [stage(*each) for each in later] == ["skipped"] + ["done"] * (len(later) - 1)
    assert [stage(*each) for each in later] == ["skipped"] * len(later)
    runner.run("tiny", iterations=2, run_dir="runs/whole", overrides=settings["overrides"], log=lambda line: None)
    assert made(project / RUN) == made(project / "runs/whole") != {}
    done = runner.run("tiny", iterations=2, overrides=settings["overrides"], log=lambda line: None)
    assert {step["state"] for step in done["steps"]} == {"skipped"}


def test_a_stage_whose_predecessors_are_missing_or_stale_says_which(project, capsys):
    with pytest.raises(InputError, match="name one with --preset"):
        stage(1, "data_prep")
    with pytest.raises(InputError, match="01 data_prep of iteration 1 is not done yet: `cuadft stage .* 1 data_prep`"):
        stage(1, "fine_tune", preset="tiny")
    for name in STAGE_NAMES[:3]:
        stage(1, name)
    with pytest.raises(InputError, match="04 fine_tune of iteration 1 is not done yet"):
        stage(2, "data_prep")
    with pytest.raises(InputError, match="01 data_prep of iteration 1 is not done with this code, these parameters"):
        stage(1, "fine_tune", overrides=["seed=8"])
    assert cli.main(["stage", RUN, "1", "finetune"]) == 2 and "did you mean 'fine_tune'" in capsys.readouterr().err
    assert cli.main(["stage", RUN, "0", "data_prep"]) == 2 and "whole number from 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="notebook that 3 stages run"):
        stage(1, "03")


def test_an_empty_list_of_methods_holds_no_later_stage_up(project):
    runner.run("tiny", overrides=["align_methods=[]"], until="evaluate_sft", log=lambda line: None)
    assert stage(1, "evaluate") == "done"
    lines = []
    assert stage(1, "06 align", log=lines) == "skipped" and "align_methods is empty" in lines[-1]


def test_a_failed_stage_goes_on_with_the_same_command_and_one_process_works_at_a_time(project, capsys):
    (project / "trap_01.py").write_text("raise ValueError('a disk went away')")
    command = ["stage", RUN, "1", "data_prep"]
    assert cli.main([*command, "--preset", "tiny", "--set", "seed=9"]) == 1
    assert "a disk went away" in capsys.readouterr().err
    (project / "trap_01.py").unlink()
    with lock(project / RUN):
        assert cli.main(command) == 2 and "Another `cuadft run`" in capsys.readouterr().err
    assert cli.main(command) == 0 and "[iter 1] 01 data_prep ... done in" in capsys.readouterr().out
    assert files.read_jsonl(project / RUN / "contracts.jsonl") == [{"seed": 9}], "the settings of the call before"
