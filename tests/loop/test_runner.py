import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.channels import HBChannel
from tiny_project import make_project, run_in_process, write_notebook

import cuadft
from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.loop import kernel, runner, stages, status
from cuadft.loop.kernel import is_locked, lock

NAMES = [stage.name for stage in stages.STAGES]
PACKAGE = str(Path(cuadft.__file__).parents[1])


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


@pytest.fixture
def real_project(tmp_path, monkeypatch):
    """The same, run by papermill in kernels: about two seconds a stage."""
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    return tmp_path


def go(*overrides, log=lambda line: None, **options):
    """Run the loop; return the names of the stages that ran, and those that were skipped."""
    steps = runner.run("tiny", overrides=overrides, log=log, **options)["steps"]
    ran = [step["stage"] for step in steps if step["state"] == "done"]
    return ran, [step["stage"] for step in steps if step["state"] == "skipped"]


def manifest(project, run="tiny", iteration=1):
    return json.loads((project / "runs" / run / f"iter-{iteration:02d}" / "manifest.json").read_text())["stages"]


def test_a_second_run_skips_everything(project):
    lines = []
    assert go(log=lines.append) == (NAMES, [])
    assert any(line.startswith("[iter 1] 04 fine_tune ... done in ") for line in lines)
    assert go(log=lines.append) == ([], NAMES)
    assert "[iter 1] 04 fine_tune ... skipped (unchanged)" in lines
    entry = manifest(project)["fine_tune"]
    assert entry["status"] == "done" and entry["error"] is None and entry["seconds"] >= 0
    assert entry["parameters"] == {"seed": 7, "learning_rate": 0.0001, "run_dir": "runs/tiny", "iteration": 1}
    assert "iter-01/data/train.jsonl" in entry["inputs"] and list(entry["outputs"]) == ["iter-01/adapters/sft/w.txt"]
    assert json.loads((project / "runs/tiny/run.json").read_text())["preset"] == "tiny"


def test_a_changed_parameter_runs_what_depends_on_it(project):
    go()
    ran, _ = go("learning_rate=0.01")
    # the aligned adapters of this project come out identical, so their answers stand
    assert ran == ["fine_tune", "inference_sft", "align"]
    assert go("learning_rate=0.01") == ([], NAMES)


def test_only_the_last_stage_of_a_call_may_do_without_the_shared_libraries(project, monkeypatch):
    last = []

    def noted(*given, kernels, **named):
        last.append(kernels.last)
        run_in_process(*given, **named)

    monkeypatch.setattr(runner, "execute_notebook", noted)
    go(until="data_prep")
    go(until="fine_tune")
    runner.run_stage("runs/tiny", 1, "inference_sft", log=print)
    assert last == [True, False, False, True, True]


def test_identical_outputs_leave_later_stages_skipped(project):
    go()
    cell = '\n# a remark\nassert run_dir == "runs/tiny"'
    path = project / "notebooks" / "02_rag_compile.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source += cell
    nbformat.write(notebook, path)
    assert go()[0] == ["rag_compile"]


def test_outputs_and_prose_of_a_notebook_do_not_count_as_changes(project):
    go()
    path = project / "notebooks" / "02_rag_compile.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "# Better title"
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="hello")]
    nbformat.write(notebook, path)
    assert go()[0] == []


def test_a_changed_input_file_runs_data_prep_again(project):
    (project / "my.json").write_text("[1]")
    assert go("cuad=my.json")[0] == NAMES
    assert manifest(project)["data_prep"]["parameters"]["cuad"] == str(project / "my.json")
    assert go("cuad=my.json")[0] == []
    (project / "my.json").write_text("[2]")
    assert go("cuad=my.json")[0] == ["data_prep"]


@pytest.mark.parametrize(
    "name", ["adapters/sft/w.txt", "predictions/sft.dev.jsonl", "scoreboard.csv", "figures/f1.svg"]
)
def test_a_lost_or_altered_output_is_made_again(project, name):
    go()
    path = project / "runs/tiny/iter-01" / name
    before = path.read_bytes()
    path.unlink()
    assert go()[0] in ([stage] for stage in NAMES)
    assert path.read_bytes() == before
    path.write_bytes(before + b" ")
    assert go()[0]
    assert path.read_bytes() == before and go()[0] == []


def test_answers_given_under_other_settings_are_not_resumed(project):
    go(until="inference_rag")
    assert go("top_k=5", until="inference_rag")[0] == ["inference_rag"]
    rows = files.read_jsonl(project / "runs/tiny/iter-01/predictions/rag.test.jsonl")
    assert [row["k"] for row in rows] == [5, 5]


def test_answers_given_before_a_kill_are_kept(project):
    (project / "trap_03.py").write_text(
        "files.append_jsonl(it.path('predictions', 'rag.dev.jsonl'), [{'id': 'dev-0', 'kept': 1}])\n1 / 0"
    )
    with pytest.raises(runner.StageFailed, match="ZeroDivisionError"):
        go(until="inference_rag")
    (project / "trap_03.py").unlink()
    assert go(until="inference_rag")[0] == ["inference_rag"]
    rows = files.read_jsonl(project / "runs/tiny/iter-01/predictions/rag.dev.jsonl")
    assert [row["id"] for row in rows] == ["dev-0", "dev-1"] and rows[0]["kept"] == 1


def test_a_failed_stage_is_recorded_and_the_next_call_goes_on_there(project):
    (project / "trap_04.py").write_text("raise ValueError('no such layer')")
    with pytest.raises(runner.StageFailed, match="ValueError: no such layer") as caught:
        go()
    executed = project / "runs/tiny/iter-01/executed/fine_tune.ipynb"
    assert str(executed) in str(caught.value) and "same command" in str(caught.value)
    assert executed.is_file()
    assert manifest(project)["fine_tune"]["status"] == "failed"
    assert "no such layer" in status.run_status("runs/tiny")
    (project / "trap_04.py").unlink()
    assert go() == (NAMES[3:], NAMES[:3])


def test_bad_input_found_by_a_notebook_stays_bad_input(project):
    (project / "trap_01.py").write_text(
        "from cuadft.core.errors import InputError\nraise InputError('empty contract A')"
    )
    with pytest.raises(InputError, match="empty contract A") as caught:
        go()
    assert "stage data_prep of iteration 1" in str(caught.value)


def test_a_second_iteration_reads_the_first_and_keeps_the_frozen_split(project):
    go()
    frozen = (project / "runs/tiny/contracts.jsonl").read_bytes()
    ran, skipped = go(iterations=2, until="inference_rag")
    assert (ran, skipped) == (NAMES[:3], NAMES)
    assert (project / "runs/tiny/contracts.jsonl").read_bytes() == frozen
    assert "contracts.jsonl" in manifest(project, iteration=2)["data_prep"]["inputs"]
    assert manifest(project, iteration=2)["inference_rag"]["parameters"]["systems"] == [
        "rag",
        "rag_compiled",
        "incumbent",
        "retriever",
    ]


def test_methods_left_out_leave_no_old_answers(project):
    go()
    go("align_methods=[dpo]")
    predictions = project / "runs/tiny/iter-01/predictions"
    assert not list(predictions.glob("orpo.*")) and list(predictions.glob("dpo.*"))
    assert "evaluate" in go("align_methods=[]")[0]
    assert not list(predictions.glob("dpo.*")) and not (predictions.parent / "preferences.jsonl").exists()


def test_nothing_starts_before_everything_is_checked(project):
    for options in ({"until": "fine_tun"}, {"iterations": 0}):
        with pytest.raises(InputError):
            go(**options)
    with pytest.raises(InputError, match="2 invalid parameters"):
        go("learning_rte=1", "top_k=99")
    (project / "notebooks" / "05_evaluate.ipynb").unlink()
    with pytest.raises(InputError, match="No notebook"):
        go()
    assert not (project / "runs").exists()


def test_a_stage_name_is_corrected(project):
    with pytest.raises(InputError, match="did you mean 'fine_tune'"):
        go(until="finetune")


def test_an_unwritable_run_folder_is_bad_input(project):
    (project / "taken").write_text("")
    for folder in ("taken", "taken/run", "/proc/run"):
        with pytest.raises(InputError, match="Can't write to run folder"):
            go(run_dir=folder)


def test_a_damaged_manifest_is_bad_input(project):
    go(until="rag_compile")
    (project / "runs/tiny/iter-01/manifest.json").write_text("{")
    with pytest.raises(InputError, match="manifest.json"):
        go(until="rag_compile")


def test_one_process_at_a_time_works_in_a_run_folder(project):
    folder = project / "runs/tiny"
    with lock(folder):
        assert is_locked(folder)
        with pytest.raises(InputError, match="Another `cuadft run`"):
            go()
    assert not is_locked(folder)
    assert go(until="data_prep")[0] == ["data_prep"]


def test_a_moved_run_folder_stays_finished(project):
    go()
    (project / "runs/tiny").rename(project / "runs/moved")
    assert go(run_dir="runs/moved") == ([], NAMES)


def test_status_shows_states_scores_and_decision(project):
    (project / "trap_06.py").write_text("1 / 0")
    with pytest.raises(runner.StageFailed):
        go()
    text = status.run_status("runs/tiny")
    assert "06 align" in text and "failed" in text and "not run" in text
    (project / "trap_06.py").unlink()
    go()
    text = status.run_status("runs/tiny")
    assert "0.400 [0.250, 0.500] n=2" in text and "0.500 n=2" in text
    assert text.endswith("champion now: sft of iteration 1")
    with pytest.raises(InputError, match="No run in"):
        status.run_status("runs/none")


def test_papermill_hands_values_over_unchanged(real_project):
    # the traps: false as text, a tuple as text, quotes and braces in paths
    check = "assert systems == ['rag', 'rag_compiled'] and top_k == 5 and run_dir.endswith('a {b} \"c\" é')"
    (real_project / "trap_03.py").write_text(check)
    run_dir = real_project / 'a {b} "c" é'
    assert go("top_k=5", until="inference_rag", run_dir=run_dir)[0] == NAMES[:3]
    executed = nbformat.read(run_dir / "iter-01/executed/inference_rag.ipynb", as_version=4)
    injected = [cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1 and "top_k = 5" in injected[0].source


def test_our_warnings_and_lines_of_progress_are_passed_on_and_nothing_else():
    lines = []
    told = "/a b/cuadft/data/rows.py:120: UserWarning: scan.pdf: no text on pages 2-4\n  plain = read(folder)\n"
    for text in ("· judging: 2/4\n", "noise\n", told, "/lib/torch/x.py:1: UserWarning: slow\n"):
        kernel._Relay(lines.append).write(text)
    assert lines == ["    · judging: 2/4", "    · scan.pdf: no text on pages 2-4"]


@pytest.mark.parametrize(
    "trap, message",
    [("import sys\nsys.exit(0)", "stopped early"), ("import os\nos.kill(os.getpid(), 9)", "out of memory")],
)
def test_a_notebook_that_ends_early_is_a_failure(real_project, trap, message):
    (real_project / "trap_01.py").write_text(trap)
    with pytest.raises(runner.StageFailed, match=message):
        go(until="data_prep")
    assert (real_project / "runs/tiny/iter-01/executed/data_prep.ipynb").is_file()
    assert manifest(real_project)["data_prep"]["status"] == "failed"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_loop_lets_go_and_resumes(project, stop):
    go(until="data_prep")
    (project / "trap_02.py").write_text("import time\nopen('reached', 'w').close()\ntime.sleep(60)")
    command = [sys.executable, "-m", "cuadft.cli", "run", "tiny", "--until", "rag_compile"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not (project / "reached").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_locked(project / "runs/tiny")
    os.kill(process.pid, stop)
    _, errors = process.communicate(timeout=30)
    if stop == signal.SIGINT:
        assert process.returncode == 130 and "same command" in errors and "Traceback" not in errors
        assert "interrupted" in status.run_status("runs/tiny")
    else:
        assert "interrupted" in status.run_status("runs/tiny")
    (project / "trap_02.py").unlink()
    assert go(until="rag_compile") == (["rag_compile"], ["data_prep"])


def test_a_preset_may_name_its_run_folder(project):
    (project / "params" / "tiny.yaml").write_text("run_dir: runs/elsewhere\n")
    go()
    assert (project / "runs" / "elsewhere" / "iter-01").is_dir()


def test_a_heartbeat_that_never_ends_does_not_hold_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever(self) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(HBChannel, "_async_run", forever)  # as one that waits for a kernel that is gone
    monkeypatch.setattr(kernel, "HEARTBEAT", 0.2)
    cell = nbformat.v4.new_code_cell("answer = 41 + 1\nanswer")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "in.ipynb")
    ended = threading.Event()

    def work() -> None:
        kernel.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {}, tmp_path)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(60) and '"42"' in (tmp_path / "out.ipynb").read_text()


def test_a_cell_that_an_interruption_abandoned_prints_no_traceback_but_other_errors_do(tmp_path, caplog):
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import DeadKernelError

    async def fails(error):
        raise error

    source = write_notebook(tmp_path / "in.ipynb", "seed = 7", "seed")
    kernel.execute_notebook(source, tmp_path / "out.ipynb", {}, tmp_path)
    loop = ensure_event_loop()
    for error in (DeadKernelError("Kernel died"), ValueError("something else")):
        task = loop.create_task(fails(error))
        loop.run_until_complete(asyncio.sleep(0.01))
        del task, error
    gc.collect()
    assert "Kernel died" not in caplog.text and "something else" in caplog.text
