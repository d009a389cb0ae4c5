"""Broken inputs given to the command line: one clear message, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuadft import cli
from cuadft.data.contracts import sample_path

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cuadft.cli", "run", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error:") == 1
    assert all(word in done.stderr for word in words), done.stderr


def broken(tmp_path: Path, change) -> Path:
    data = json.loads(sample_path().read_text())
    change(data["data"][3]["paragraphs"][0])
    (tmp_path / "broken.json").write_text(json.dumps(data))
    return tmp_path / "broken.json"


def shift(paragraph: dict) -> None:
    next(q for q in paragraph["qas"] if q["answers"])["answers"][0]["answer_start"] += 3


@pytest.mark.slow
def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "CUAD_v1.zip").write_bytes(b"PK\x03\x04" + b"\0" * 5000)
    done = run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={tmp_path / 'CUAD_v1.zip'}")
    refused(done, "CUAD_v1.zip", "zip")


@pytest.mark.slow
def test_a_shifted_offset_is_shown_with_both_texts(tmp_path: Path) -> None:
    path = broken(tmp_path, shift)
    refused(
        run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={path}"),
        "answer_start",
        "contract",
        "set",
    )


@pytest.mark.slow
def test_an_empty_contract_is_named(tmp_path: Path) -> None:
    path = broken(tmp_path, lambda paragraph: paragraph.update(context=""))
    refused(run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={path}"), "context", "found ''")


def test_every_wrong_key_of_a_preset_is_listed_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("model: tiny\ntrain_contract: 3\ncompile_rows: many\noptimizer: mip\n")
    done = run(tmp_path / "wrong.yaml", "--run-dir", tmp_path / "run")
    refused(
        done, "did you mean 'train_contracts'?", "compile_rows: got 'many'", "bootstrap|bootstrap_random_search|mipro"
    )
    assert not (tmp_path / "run").exists()


def test_an_unwritable_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(run("params/smoke.yaml", "--run-dir", tmp_path / "file" / "run"), "Can't write", "file")


@pytest.mark.parametrize("flag", [[], ["--debug"]], ids=["plain", "debug"])
def test_a_traceback_is_shown_only_on_request(tmp_path: Path, flag: list[str]) -> None:
    done = run(tmp_path / "none.yaml", *flag)
    assert done.returncode == 2 and ("Traceback" in done.stderr) == bool(flag)


ANSWERS = "question,reference,response\nWho pays?,The Lessee pays.,The Lessee pays.\n"
BAD_ANSWERS = {
    "no file": (None, [], "No file"),
    "empty": (b"", [], "is empty"),
    "header only": (ANSWERS.split("\n")[0].encode(), [], "no rows"),
    "binary": (b"\x89PNG\r\n\0\0", [], "binary"),
    "not UTF-8": (ANSWERS.replace("Lessee", "Lessée").encode("latin-1"), [], "not UTF-8"),
    "no reference": (ANSWERS.replace("reference", "ref").encode(), [], "--reference COLUMN"),
    "wrong option": (ANSWERS.encode(), ["--answer", "respons"], "did you mean 'response'"),
    "only blank references": (b"question,reference,response\nWho else?,,No one.\n", [], "reference"),
    "torn": (ANSWERS[:-20].encode(), [], "cut short"),
    "open quote": ((ANSWERS + 'Who?,"The Les').encode(), [], "not valid CSV"),
    "no verdicts": (ANSWERS.encode(), ["--verdict", "human"], "No verdict column 'human'"),
    "judge": (ANSWERS.encode(), ["--judge", ""], "Invalid judge"),
    "votes": (ANSWERS.encode(), ["--judge", "openai/x", "--votes", "2"], "Invalid votes"),
    "votes of the offline judge": (ANSWERS.encode(), ["--votes", "3"], "Invalid votes"),
    "resamples": (ANSWERS.encode(), ["--n-resamples", "0"], "Invalid n_resamples"),
    "confidence": (ANSWERS.encode(), ["--confidence", "95"], "Invalid confidence"),
    "published": (ANSWERS.encode(), ["--published", "none"], "No folder none"),
}


@pytest.mark.parametrize("content, options, words", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_bad_answers_are_one_message_and_harm_no_results(
    tmp_path, monkeypatch, capsys, content, options, words
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("sft.csv").write_bytes(content)
    Path("scores").mkdir()
    Path("scores/rows.csv").write_text("of an earlier call")
    assert cli.main(["score", "sft.csv", *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1 and words in shown, shown
    assert [p.name for p in Path("scores").iterdir() if p.name != "judge_replies.jsonl"] == ["rows.csv"]
    assert Path("scores/rows.csv").read_text() == "of an earlier call"


def test_nothing_to_score_and_an_unwritable_results_folder_are_named(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sft.csv").write_text(ANSWERS)
    assert cli.main(["score"]) == 2 and "Nothing to score" in capsys.readouterr().err
    assert cli.main(["score", "."]) == 2 and "is a folder" in capsys.readouterr().err
    assert cli.main(["score", "sft.csv", "--out", "sft.csv/scores"]) == 2
    assert "Can't write to" in capsys.readouterr().err
