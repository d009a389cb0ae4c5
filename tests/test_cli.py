import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_project import make_project, run_in_process

import cuadft
from cuadft import cli
from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.data import download
from cuadft.loop import runner
from cuadft.models import weights

PACKAGE = str(Path(cuadft.__file__).parents[1])


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def python(*arguments, cwd):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={"PYTHONPATH": PACKAGE}, timeout=60)


def test_run_and_status(project, capsys):
    assert cli.main(["run", "params/tiny.yaml", "--set", "top_k=2", "--until", "fine_tune"]) == 0
    out = capsys.readouterr().out
    assert "[iter 1] 04 fine_tune ... done in" in out and "inference_sft" not in out
    assert cli.main(["status", "runs/tiny"]) == 0
    out = capsys.readouterr().out
    assert "iteration 1" in out and "not run" in out


def test_a_run_folder_counts_from_where_the_command_is_called(project, capsys, monkeypatch):
    (project / "cases").mkdir()
    monkeypatch.chdir(project / "cases")
    for given, folder in (("../runs/x y", "runs/x y"), ("./here", "cases/here"), ("runs/z", "runs/z")):
        assert cli.main(["run", "tiny", "--run-dir", given, "--until", "01"]) == 0
        made = project / folder / "iter-01"
        assert list((made / "data").iterdir()) and not list((made / "program").iterdir())
        assert f"`cuadft status {shlex.quote(str(project / folder))}`" in capsys.readouterr().out
    assert not (project.parent / "runs").exists()
    assert cli.main(["status", "../runs/x y"]) == 0


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cp1252", "utf-8"))]
)
def test_a_character_that_stdout_lacks_ends_no_command(tmp_path, encoding):
    make_project(tmp_path)
    (tmp_path / "trap_01.py").write_text("print('· ä → 猫 \\udcff')")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom tiny_project import run_in_process\n"
    code += "from cuadft import cli\nfrom cuadft.loop import runner\nrunner.execute_notebook = run_in_process\n"
    code += "sys.exit(cli.main(['run', 'tiny', '--run-dir', 'runs/猫']) or cli.main(['status', 'runs/猫']))"
    env = os.environ | {"PYTHONPATH": PACKAGE, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"\\udcff" in done.stdout and ("runs/猫" if encoding == "utf-8" else "runs/\\u732b").encode() in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "none.yaml"], "No preset none.yaml"),
        (["run", "tiny", "--set", "top=2"], "did you mean 'top_k'"),
        (["run", "tiny", "--set", "seed=x"], "expected int"),
        (["run", "tiny", "--iterations", "0"], "whole number"),
        (["run", "tiny", "--until", "align_"], "did you mean 'align'"),
        (["status", "runs/none"], "No run in"),
        (["params", "sed"], "did you mean 'seed'"),
    ],
)
def test_bad_input_is_one_message_and_code_2(project, capsys, arguments, message):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert "Traceback" not in captured.err
    assert cli.main([*arguments, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_input_found_by_a_notebook_is_code_2_without_traceback(tmp_path):
    make_project(tmp_path)
    trap = "from cuadft.core.errors import InputError\nraise InputError('contract A is empty: remove it')"
    (tmp_path / "trap_01.py").write_text(trap)
    done = python("-m", "cuadft.cli", "run", "tiny", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: contract A is empty: remove it\n" in done.stderr
    assert "executed/data_prep.ipynb" in done.stderr and "Traceback" not in done.stderr


def test_a_failed_notebook_is_code_1(project, capsys):
    (project / "trap_01.py").write_text("1 / 0")
    assert cli.main(["run", "tiny"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ZeroDivisionError: division by zero") and "Traceback" not in error


def test_file_errors_are_code_2_and_interruptions_130(project, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "runs")

    monkeypatch.setattr(runner, "run", refuse)
    assert cli.main(["run", "tiny"]) == 2
    assert "error: [Errno 13] Permission denied: 'runs'" in capsys.readouterr().err

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupt)
    assert cli.main(["run", "tiny"]) == 130
    assert "same command" in capsys.readouterr().err


def test_other_errors_are_not_hidden(project, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a fault of cuadft")

    monkeypatch.setattr(runner, "run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main(["run", "tiny"])


def test_params_lists_defaults_limits_and_notebooks(project, capsys):
    assert cli.main(["params"]) == 0
    out = capsys.readouterr().out
    assert "questions: int = 4 [1..64]\n    questions per contract  (notebooks 01)" in out
    assert "systems: list = ['rag'] (set by the loop)" in out
    assert cli.main(["params", "seed"]) == 0
    assert capsys.readouterr().out == "seed: int = 7 [0..]\n    seed of every random choice  (notebooks 01 04)\n"


def test_fetch_gets_what_is_asked_for(project, capsys, monkeypatch):
    monkeypatch.setattr(weights, "fetch_weights", lambda ids: [(name, f"/w/{name}") for name in ids or ["default"]])
    monkeypatch.setattr(download, "cuad_from_zenodo", lambda folder: folder / "CUAD.zip")
    cases = {
        (): f"CUAD: {project}/data/CUAD.zip\ndefault: /w/default\n",
        ("--cuad",): f"CUAD: {project}/data/CUAD.zip\n",
        ("--models",): "default: /w/default\n",
        ("--models", "a", "b"): "a: /w/a\nb: /w/b\n",
    }
    for arguments, expected in cases.items():
        assert cli.main(["fetch", *arguments]) == 0
        assert capsys.readouterr().out == expected


def test_score_passes_its_options_on(project, capsys, monkeypatch):
    from cuadft.evaluation import score as score_

    given = {}

    def score(paths, **options):
        given.update(options, paths=paths)
        raise InputError("far enough")

    monkeypatch.setattr(score_, "score_files", score)
    options = "--published p --judge openai/x --votes 3 --out o --answer a --contract c --verdict v --seed 3".split()
    assert cli.main(["score", "x.csv", "y.csv", *options]) == 2
    assert given["paths"] == ["x.csv", "y.csv"] and given["n_resamples"] == 2000
    expected = {"published": "p", "judge": "openai/x", "votes": 3, "out": "o", "verdict": "v", "seed": 3}
    assert expected.items() <= given.items()
    assert given["columns"] == {"question": "", "reference": "", "answer": "a", "system": "", "contract": "c"}


def test_evaluate_passes_its_options_on(project, capsys, monkeypatch):
    from cuadft.loop import unseen

    given = {}

    def evaluate_file(run_dir, file, **options):
        given.update(options, run=run_dir, file=file)
        raise InputError("far enough")

    monkeypatch.setattr(unseen, "evaluate_file", evaluate_file)
    options = "--system sft --iteration 2 --out o --n-resamples 9 --confidence 0.9".split()
    assert cli.main(["evaluate", "runs/r", "new.json", *options]) == 2
    expected = {"run": "runs/r", "file": "new.json", "system": "sft", "iteration": 2, "out": "o"}
    assert (expected | {"n_resamples": 9, "confidence": 0.9}).items() <= given.items()
    assert cli.main(["evaluate", "runs/r", "sample"]) == 2
    assert (given["system"], given["iteration"], given["out"], given["n_resamples"]) == ("", None, "", 2000)
    monkeypatch.undo()
    capsys.readouterr()
    assert cli.main(["evaluate", "runs/none", "sample"]) == 2
    assert "No run in" in capsys.readouterr().err


def feedback_run(folder):
    """Make a run with one training and one test contract, of one question each."""
    rows = {
        split: {"id": f"{split}__Law", "contract": split, "category": "Law", "question": "Law: Which law governs?"}
        for split in ("train", "test")
    }
    files.write_jsonl(folder / "contracts.jsonl", [{"title": s, "split": s, "text": s} for s in rows])
    for split, row in rows.items():
        files.write_jsonl(folder / "iter-01" / "data" / f"{split}.jsonl", [row])


def test_feedback_goes_in_and_out_and_a_second_import_adds_nothing(project, capsys):
    feedback_run(project / "runs" / "r")
    rows = [
        "contract,question,chosen,rejected",
        "Train,which law governs?,Ohio,Texas",
        "test,Which law governs?,Ohio,Maine",
    ]
    (project / "in.csv").write_text("\n".join(rows))
    assert cli.main(["feedback", "import", "in.csv", "--run", "runs/r", "--annotator", "anna"]) == 0
    out = capsys.readouterr().out
    assert "in.csv (trl): 2 rows, 1 stored, 0 duplicates, 1 refused (held out), 0 left out" in out and "row 2" in out
    assert cli.main(["feedback", "export", "out.jsonl", "--run", "runs/r"]) == 0
    assert capsys.readouterr().out == "out.jsonl: 1 judgements, 1 rows, 0 without a preference\n"
    assert cli.main(["feedback", "import", "out.jsonl", "--run", "runs/r"]) == 0
    assert "0 stored, 1 duplicates" in capsys.readouterr().out


def test_words_of_a_projects_own_are_named_and_taken_as_said(project, capsys):
    feedback_run(project / "runs" / "r")
    rows = ["contract,question,answer_a,answer_b,winner", "train,which law governs?,Ohio,Texas,Antwort 2"]
    (project / "in.csv").write_text("\n".join(rows))
    command = ["feedback", "import", "in.csv", "--run", "runs/r"]
    assert cli.main(command) == 0 and "its winner says 'Antwort 2'" in capsys.readouterr().out
    assert cli.main([*command, "--means", "Antwort 2=b", "--verdict", "winner"]) == 0
    assert "1 stored" in (out := capsys.readouterr().out) and "Taken as said: winner 'Antwort 2' = b" in out
    assert cli.main([*command, "--means", "Antwort 2"]) == 2
    assert "give WORDS=V" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["import", "none.csv", "--run", "runs/r"], "No file none.csv"),
        (["import", "in.csv", "--run", "runs/none"], "No run in"),
        (["export", "out.csv", "--run", "runs/r"], "end the file's name in .jsonl"),
        (["export", "out.jsonl", "--run", "runs/r"], "There is no feedback"),
        (["export", "out.csv", "--run", "runs/r", "--annotator", "a"], "belong to import"),
        (["export", "out.csv", "--run", "runs/r", "--contract", "Train"], "belong to import"),
    ],
)
def test_bad_feedback_commands_are_one_message_and_code_2(project, capsys, arguments, message):
    feedback_run(project / "runs" / "r")
    (project / "in.csv").write_text("id,chosen,rejected\ntrain__Law,Ohio,Texas\n")
    assert cli.main(["feedback", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.err.count("\n") == 1
    assert not (project / "out.csv").exists() and not (project / "runs" / "r" / "feedback.sqlite").exists()


def test_help_and_import_are_light(tmp_path):
    heavy = "{'torch', 'dspy', 'papermill', 'pandas', 'transformers', 'numpy', 'yaml', 'matplotlib'}"
    code = f"import sys, cuadft.cli, cuadft.loop; print(sorted({heavy} & set(sys.modules)))"
    assert python("-c", code, cwd=tmp_path).stdout == "[]\n"
    started = time.monotonic()
    done = python("-m", "cuadft.cli", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "run" in done.stdout
    # 0.05 s on an idle computer; the limit leaves room for a busy one
    assert time.monotonic() - started < 1


def test_version_and_missing_command(capsys):
    for arguments, code in ((["--version"], 0), ([], 2), (["nothing"], 2), (["run"], 2), (["run", "--help"], 0)):
        assert cli.main(arguments) == code
    assert f"cuadft {cuadft.__version__}" in capsys.readouterr().out
    cli.main(["promot"])
    assert "Did you mean 'promote'?" in capsys.readouterr().err


def test_the_help_names_every_option_and_shows_brackets_as_they_are(capsys):
    assert cli.main(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--system", "--iteration", "--out", "--n-resamples", "[low, high]"))
