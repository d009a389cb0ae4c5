"""A run's page: every section has the run's own numbers, no text becomes markup, and a run in parts has a page, too."""

from __future__ import annotations

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import reported

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.evaluation.drift import drift_sentence
from cuadft.loop import gate
from cuadft.loop.report import PARTS, write_report
from cuadft.loop.status import run_status

VOID = {"meta", "br", "img"}


class Text(HTMLParser):
    """The words of each section, the cells of its tables, and the addresses that a page names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.addresses, self.ids = [], [], [], []
        self.words, self.rows, self.section = {"": ""}, {"": []}, ""
        self.feed(page)
        self.close()
        assert not self.open and len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.open += [tag] * (tag not in VOID)
        self.addresses += [given[name] for name in ("href", "src", "srcset", "data", "action") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "h2":
            self.section = given["id"]
            self.words[self.section], self.rows[self.section] = "", []
        if tag == "tr":
            self.rows[self.section].append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words[self.section] += data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def row(self, section: str, first: str) -> list[str]:
        return next(row for row in self.rows[section] if row[0].startswith(first))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return reported.make(tmp_path_factory.mktemp("made") / "twice")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "twice"))


def read(run: Path) -> Text:
    told: list[str] = []
    page = Text(write_report(run, log=told.append).read_text())
    assert told == [] and "can't be shown" not in str(page.words)
    return page


def test_scores_are_those_of_the_scoreboard_to_the_digit(run: Path) -> None:
    page, board = read(run), pd.read_csv(run / "iter-02/scoreboard.csv").query("split == 'test'")
    heads = page.rows["results"][0]
    assert [head.partition(" (")[0] for head in heads[1:5]] == [
        "Quote F1",
        "Detection F1",
        "False answers",
        "False refusals",
    ]
    for system in ("always_refuses", "top_passage", "rag", "incumbent", "sft"):
        for metric, cell in zip(("quote_f1", "detection_f1"), page.row("results", system)[1:3], strict=True):
            row = board[(board["system"] == system) & (board["metric"] == metric)].iloc[0]
            assert cell == f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] n={row['n']}"
    champion = page.row("results", "incumbent")
    assert "(champion)" in champion[0] and champion[1] in page.words[""]
    assert all(page.row("results", name)[1] in page.words[""] for name in runs.CONSTANTS)


def test_decisions_of_all_iterations_have_their_reason_and_figures(run: Path) -> None:
    page = read(run)
    for number in (1, 2):
        decision = files.read_json(run / f"iter-0{number}/decision.json")
        assert decision["reason"][1:] in page.words["decisions"]
        table = gate.decision_table(decision)
        gain = table[(table["system"] == decision["candidate"]) & (table["criterion"] == "improvement")].iloc[0]
        shown = [row for row in page.rows["decisions"] if row[0] == "improvement"][number - 1]
        assert shown[1] == ("passed" if gain["passed"] else "failed") and shown[2].startswith(f"{gain['value']:.3f} [")
        assert shown[5] == f"{gain['n']} / {gain['n_contracts']}"
    assert [row[3] for row in page.rows["decisions"] if row[2:3] == ["gate"]] == ["promoted", "kept"]
    assert "sft of iteration 1" in page.words[""]


def test_a_choice_by_hand_is_told_with_its_reason(run: Path) -> None:
    for place in ("program/rag.json", "retriever/settings.json"):
        files.write_text(run / "iter-02" / place, "{}")
    gate.promote(run, "rag", reason="<b>cheaper</b>")
    page = read(run)
    assert "(chosen by a person)" in page.words[""] and "because: <b>cheaper</b>" in page.words["decisions"]
    assert "b" not in page.tags
    assert "(champion)" in page.row("results", "rag")[0]


def test_what_was_asked_is_counted_from_the_rows(run: Path) -> None:
    page = read(run)
    rows = files.read_jsonl(run / "iter-02/data/test.jsonl")
    present = sum(bool(row["answers"]) for row in rows)
    assert page.row("asked", "test") == ["test", "all", "4", str(len(rows)), str(present), str(len(rows) - present)]
    assert (
        page.row("asked", "model") == ["model", "tiny"]
        and "16 contracts: 4 for training, 4 for dev, 4 for test" in page.words["asked"]
    )


def test_drift_and_forgetting_come_with_the_second_iteration(run: Path) -> None:
    page = read(run)
    drift = files.read_json(run / "iter-02/data/drift.json")
    assert f"Iteration 2: {drift_sentence(drift)}" in page.words["stream"]
    assert page.row("stream", "backward transfer")[1] == "0.000 [0.000, 0.000]"
    first, second = (row for row in page.rows["stream"] if row[0] in ("1", "2"))
    assert float(first[2]) > float(first[1]) and float(second[2]) < float(second[1])
    shutil.rmtree(run / "iter-02")
    assert "The run has one iteration" in read(run).words["stream"]


def test_training_tells_what_the_logs_hold(run: Path) -> None:
    page = read(run)
    assert page.row("training", "1") == ["1", "sft", "3", "8", "1m15s", "4,567", "", ""]
    assert [row for row in page.rows["training"] if row[1] == "dpo"][0][6:] == ["-7.50 per answer", "yes"]
    assert "dpo of iteration 1 has made the preferred answers improbable" in page.words["training"]


def test_cost_adds_up_stages_attempts_and_endpoints(run: Path) -> None:
    page = read(run)
    assert page.row("cost", "04 fine_tune") == ["04 fine_tune", "2m15s, 2.3 GB, failed", "–"]
    assert page.row("cost", "all stages") == ["all stages", "3m16s, 2.3 GB, failed", "1m01s, 1.5 GB"]
    assert "openai/judge: 3 calls" in page.words["cost"] and "$0.0421" in page.words["cost"]
    assert page.row("cost", "sft")[2] == "321" and page.row("cost", "sft")[1].startswith("0.250 [0.250, 0.250] n=12")


def test_the_champion_is_followed_back_to_the_contracts(run: Path) -> None:
    page = read(run)
    assert page.row("lineage", "weights") == ["weights", "iter-01/adapters/sft"]
    assert page.row("lineage", "x.json")[1] == "abababababab" and page.row("lineage", "tiny")[1] == "cdcdcdcdcdcd"
    stages = [row[0] for row in page.rows["lineage"] if row[0].startswith("[iter")]
    assert stages == ["[iter 1] 01 data_prep", "[iter 1] 04 fine_tune"]


def test_only_parameters_that_differ_from_the_defaults_are_listed(run: Path) -> None:
    page = read(run)
    assert [row[0] for row in page.rows["parameters"]][1:] == [
        "align_methods",
        "model",
        "n_resamples",
        "slice_contracts",
    ]
    assert page.row("parameters", "n_resamples")[1:3] == ["100", "2000"]


def test_answers_to_read_are_the_champions_with_its_probabilities(run: Path) -> None:
    words = read(run).words["examples"]
    rows = files.read_jsonl(run / "iter-02/predictions/incumbent.test.jsonl")
    best, worst = words.split("The worst")
    shown = re.findall("Answer: (.*)", best)
    assert len(shown) == 3 and set(shown) <= {row["answer"] for row in rows if row["quotes"]}
    sure = "Token F1 1.000. Probability that there is a clause: 93 %; that the best quote is right: 81 %."
    assert best.count(sure) == 3 and "No answer is of this kind." in worst


def test_no_text_of_a_contract_or_an_answer_becomes_markup_and_nothing_is_loaded(run: Path) -> None:
    shutil.rmtree(run / "iter-02")  # the hostile answer is sft's, champion of iteration 1
    path = run / "iter-01/predictions/sft.test.jsonl"
    rows = files.read_jsonl(path)
    files.write_jsonl(path, [{**row, "question": f"{row['question']} {reported.HOSTILE}"} for row in rows])
    files.write_jsonl(
        run / "iter-01/data/test.jsonl",
        [
            {**row, "question": f"{row['question']} {reported.HOSTILE}"}
            for row in files.read_jsonl(run / "iter-01/data/test.jsonl")
        ],
    )
    page, text = read(run), (run / "report.html").read_text()
    assert reported.HOSTILE in page.words["examples"] and html.escape(reported.HOSTILE, quote=False)[:20] in text
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)
    assert all(re.match(r"#\w|data:image/png;base64,", address) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(page.ids)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert page.tags.count("img") == 2 and "@media print" in text


def test_a_secret_that_an_answer_or_a_parameter_repeats_is_not_shown(run: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a<very>&secret-key")
    path = run / "iter-02/predictions/incumbent.test.jsonl"
    files.write_jsonl(path, [{**row, "answer": "sk-a<very>&secret-key"} for row in files.read_jsonl(path)])
    manifest = files.read_json(run / "iter-02/manifest.json")
    manifest["stages"]["data_prep"]["parameters"] |= {
        "judge_lm": "openai/x?api_key=abcdefgh",
        "cuad": "/home/me/in/x.json",
    }
    files.write_json(run / "iter-02/manifest.json", manifest)
    read(run)
    text = html.unescape((run / "report.html").read_text())
    assert "secret-key" not in text and "abcdefgh" not in text and "***" in text
    assert "/home/me" not in text and ".../x.json" in text and str(run) not in text


def test_a_run_that_has_only_prepared_data_says_what_is_missing(tmp_path: Path) -> None:
    reported.prepare(tmp_path, 1)
    page = read(tmp_path)
    assert "This run has not been evaluated yet. Start the" in page.words["results"]
    assert "(preset params/tiny.yaml) again: it goes on" in page.words["results"]
    for name in ("decisions", "training", "examples", "lineage"):
        assert "yet" in page.words[name] and not page.rows[name]
    assert page.row("asked", "train")[3] == "12" and page.row("cost", "01 data_prep")[1] == "1m01s, 1.5 GB"


def test_an_empty_iteration_and_a_first_evaluation_have_pages(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/iter-01").mkdir(parents=True)
    assert "There are no questions yet" in read(tmp_path / "empty").words["asked"]
    (run / "iter-02/decision.json").unlink()
    (run / "iter-02/scoreboard.csv").unlink()
    (run / "iter-01/scoreboard.csv").rename(run / "iter-01/metrics/scoreboard_so_far.csv")
    page = read(run)
    assert "Before alignment" in page.words["results"] and "Iteration 2 is not finished" in page.words[""]


@pytest.mark.parametrize("missing", ["figures", "metrics", "adapters", "predictions", "data", "manifest.json"])
def test_a_page_is_made_whatever_part_is_missing(run: Path, missing: str) -> None:
    for path in run.glob(f"iter-*/{missing}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    read(run)


def test_a_board_of_other_measures_and_a_decision_without_candidates_are_shown(run: Path) -> None:
    path = run / "iter-02/decision.json"
    files.write_json(path, {**files.read_json(path), "candidates": [], "candidate": None, "reason": "kept: no other"})
    board = pd.read_csv(run / "iter-02/scoreboard.csv").query("metric in ['em', 'rouge_l']")
    board.to_csv(run / "iter-02/scoreboard.csv", index=False)
    page = read(run)
    assert page.rows["results"][0][1:] == ["Exact match (higher is better)", "ROUGE-L (higher is better)"]
    assert "Kept: no other." in page.words["decisions"]


@pytest.mark.parametrize(
    "name, part",
    [
        ("scoreboard.csv", "results"),
        ("decision.json", "decisions"),
        ("manifest.json", "cost"),
        ("metrics/stream.csv", "stream"),
        ("predictions/incumbent.test.jsonl", "examples"),
    ],
)
def test_a_damaged_file_is_named_and_costs_its_own_part_alone(run: Path, name: str, part: str) -> None:
    (run / "iter-02" / name).write_text("{\n{\n")
    told: list[str] = []
    page = Text(write_report(run, log=told.append).read_text())
    assert "can't be shown" in page.words[part] and any(line.startswith(f"Not shown: {part}: ") for line in told)
    assert "can't be shown" not in page.words[{"decision.json": "training"}.get(name, "decisions")]
    assert len(told) < len(PARTS) and str(run) not in str(page.words)


def test_the_command_writes_where_it_is_told_and_status_and_verify_know_the_page(run: Path, capsys, tmp_path) -> None:
    assert "report.html" not in run_status(run)
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"Written: {run / 'report.html'}\n"
    assert run_status(run).endswith(f"report  {run / 'report.html'}")
    before = (run / "report.html").read_bytes()
    assert cli.main(["report", str(run), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").is_file() and (run / "report.html").read_bytes() == before
    capsys.readouterr()
    cli.main(["verify", str(run)])
    assert "report.html" not in capsys.readouterr().out
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize("out", ["decision.json", "folder"])
def test_a_page_replaces_no_other_file(run: Path, capsys, out: str) -> None:
    (run / "folder").mkdir()
    assert cli.main(["report", str(run), "--out", str(run / out)]) == 2
    assert "Invalid --out" in capsys.readouterr().err


def test_a_folder_without_a_run_has_the_error_of_status(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path, tmp_path / "none", tmp_path / "file"):
        errors = []
        for command in (write_report, run_status):
            with pytest.raises(InputError, match="No run in") as caught:
                command(wrong)
            errors.append(str(caught.value))
        assert errors[0] == errors[1] and not (tmp_path / "report.html").exists()
