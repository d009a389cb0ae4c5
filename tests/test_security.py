"""What comes from elsewhere runs no code, fills no memory, gives no orders, and no key is left behind."""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import faulty_server
import injected
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import make_project

from cuadft.core.errors import InputError, brief, redact
from cuadft.core.text import MARK, UNSEEN, quote_safely
from cuadft.data import contracts, download
from cuadft.data.schema import naming
from cuadft.evaluation.judge import VARIANTS, LMJudge, VerdictAdapter, fenced, judge_signature
from cuadft.evaluation.offline_judge import OfflineJudge
from cuadft.loop import kernel
from cuadft.models.api import remote
from cuadft.models.local import LocalEngine
from cuadft.models.weights import find_weights, weights_hash
from cuadft.retrieval.retriever import Hit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def engine():
    return LocalEngine(find_weights("tiny"), dtype="float32")


# --- no pickle, no remote code, no shell

BARRED = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "code", "pty"}
BARRED_CALLS = {
    "eval",
    "exec",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "torch.save",
    "pickle.load",
    "torch.hub.load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}
SWITCHES = ("shell", "allow_pickle", "trust_remote_code", "allow_unsafe_lm_state", "allow_dangerous_deserialization")
LOADERS = ("SentenceTransformer", "CrossEncoder", "load_dataset", "pipeline")


def dotted(node: ast.AST) -> str:
    """Return "a.b.c" of a name or attribute, with "?" for what is neither."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def is_off(call: ast.Call, name: str) -> bool | None:
    """Say whether a keyword is the constant False; None if it is not given."""
    given = [word.value for word in call.keywords if word.arg == name]
    return given[0].value is False if given and isinstance(given[0], ast.Constant) else None if not given else False


def faults(source: str, *, in_notebook: bool = False) -> list[str]:
    """Return what a module or cell must not hold."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"imports {name}" for name in names if name.split(".")[0] in BARRED]
        if not isinstance(node, ast.Call):
            continue
        name, last = dotted(node.func), dotted(node.func).rsplit(".", 1)[-1]
        found += [f"calls {name}"] if name in BARRED_CALLS else []
        found += [f"{name} with {word}" for word in SWITCHES if is_off(node, word) is False]
        if name in ("np.load", "numpy.load", "np.save", "numpy.save") and is_off(node, "allow_pickle") is None:
            found.append(f"{name} without allow_pickle=False")
        checked = in_notebook and "models.find_weights(" in ast.unparse(
            node
        )  # it refuses models with code of their own
        loads = last == "from_pretrained" and "Peft" not in name or last in LOADERS
        if loads and not checked and is_off(node, "trust_remote_code") is None:
            found.append(f"{name} without trust_remote_code=False")
    return found


def cells(path: Path) -> list[str]:
    notebook = json.loads(path.read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for line in source.splitlines() if not line.startswith(("%", "!"))) for source in sources]


def test_no_module_and_no_notebook_unpickles_evaluates_or_loads_remote_code():
    found = {str(path.relative_to(ROOT)): faults(path.read_text()) for path in sorted((ROOT / "cuadft").rglob("*.py"))}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found[path.name] = [fault for cell in cells(path) for fault in faults(cell, in_notebook=True)]
        assert not any(
            line.startswith("!") for cell in json.loads(path.read_text())["cells"] for line in cell["source"]
        )
    assert len(found) > 100 and {name: fault for name, fault in found.items() if fault} == {}


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from joblib import load",
        "import os, dill",
        "torch.load('x')",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "yaml.load(text)",
        "eval('1')",
        "exec(code)",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(p)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=flag)",
        "SentenceTransformer(p)",
        "os.system('ls')",
        "program.load(p, allow_unsafe_lm_state=True)",
        "load_dataset('x')",
    ],
)
def test_the_check_sees_each_of_them(bad):
    assert faults(bad)


@pytest.mark.parametrize(
    "good",
    [
        "model.to(x).eval()",
        "np.load('x', allow_pickle=False)",
        "yaml.safe_load(text)",
        "AutoModel.from_pretrained(p, trust_remote_code=False)",
        "subprocess.run(['ls'])",
    ],
)
def test_the_check_leaves_the_rest_alone(good):
    assert faults(good) == []


def test_no_language_model_uses_dspys_cache_of_pickles(engine):
    assert not remote("openai/some-model").cache and not engine.lm().cache


def test_the_trainers_checkpoints_are_read_as_tensors_only():
    import torch

    assert inspect.signature(torch.load).parameters["weights_only"].default in (
        None,
        True,
    )  # None: True since torch 2.6
    assert tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) >= (2, 6)


# --- model folders


def folder_with(folder: Path, **files: bytes | str | dict | list) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        data = content if isinstance(content, bytes | str) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


LLAMA = {"model_type": "llama"}
EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.mark.parametrize(
    "weights", ["pytorch_model_dot_bin", "pytorch_model-00001-of-00002_dot_bin", "adapter_model_dot_bin"]
)
def test_weights_that_are_only_a_pickle_are_refused_wherever_a_folder_is_taken(tmp_path, weights):
    folder = folder_with(
        tmp_path / "model", config_dot_json=LLAMA, adapter_config_dot_json={}, **{weights: b"\x80\x04."}
    )
    for load in (lambda: find_weights(str(folder)), lambda: weights_hash(folder), lambda: LocalEngine(folder)):
        with pytest.raises(InputError, match="a pickle.*safetensors"):
            load()
    (folder / "model.safetensors").write_bytes(b"x")
    assert find_weights(str(folder)) == folder.resolve()


def test_an_adapter_that_is_only_a_pickle_is_refused(tiny, tmp_path):
    engine = LocalEngine(tiny)
    folder = folder_with(
        tmp_path / "sft",
        adapter_config_dot_json={},
        adapter_model_dot_bin=b"\x80\x04.",
        base_dot_json={"model": "tiny", "sha256": weights_hash(tiny)},
    )
    with pytest.raises(InputError, match="adapter_model.bin, a pickle"):
        engine.add_adapter("sft", folder)
    assert engine.adapters == {}


@pytest.mark.parametrize(
    "settings_files, told",
    [
        ({"config_dot_json": {"model_type": "own", "auto_map": {"AutoModel": "evil.Model"}}}, "evil.Model"),
        (
            {"config_dot_json": LLAMA, "modules_dot_json": [{"type": "evil.Model", "path": ""}]},
            "the class 'evil.Model'",
        ),
        ({"config_dot_json": LLAMA, "modules_dot_json": [{"type": "os.system", "path": ""}]}, "the class 'os.system'"),
        (
            {
                "config_dot_json": LLAMA,
                "modules_dot_json": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}],
                "2_Dense__pytorch_model_dot_bin": b"\x80",
            },
            "2_Dense holds its weights only as",
        ),
    ],
)
def test_a_model_that_brings_code_is_refused_and_its_code_never_runs(tmp_path, settings_files, told):
    folder = folder_with(tmp_path / "model", model_dot_safetensors=b"x", evil_dot_py=EVIL, **settings_files)
    with pytest.raises(InputError, match=told):
        find_weights(str(folder))
    assert not (folder / "ran").exists()


def test_remote_code_of_a_known_model_is_left_lying(tmp_path, tiny):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    folder_with(folder, config_dot_json=config, evil_dot_py=EVIL)
    assert LocalEngine(find_weights(str(folder))).generator.use().config.model_type == "llama"
    assert not (folder / "ran").exists()


# --- zip archives


def archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


SAMPLE = contracts.sample_path().read_bytes()


def refused(path: Path, *words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError) as caught:
        contracts.read_contracts(path)
    assert all(word in str(caught.value) for word in (*words, path.name)), caught.value
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    "name",
    [
        "../CUAD_v1.json",
        "/etc/CUAD_v1.json",
        "a/../../CUAD_v1.json",
        "..\\CUAD_v1.json",
        "C:\\CUAD_v1.json",
        "\\\\host\\CUAD_v1.json",
    ],
)
def test_a_name_that_leads_out_of_the_archive_is_refused_and_nothing_is_written(tmp_path, name):
    refused(archive(tmp_path / "in.zip", (name, SAMPLE)), "unsafe name")
    refused(archive(tmp_path / "in.zip", ("CUAD_v1.json", SAMPLE), (name, b"x")), "unsafe name")
    assert [path.name for path in tmp_path.rglob("*")] == ["in.zip"]


def test_a_good_archive_is_read(tmp_path):
    path = archive(
        tmp_path / "in.zip", ("CUAD_v1/CUAD_v1.json", SAMPLE), ("CUAD_v1/..hidden", b""), ("notes..txt", b"")
    )
    assert len(contracts.read_contracts(path)) == len(contracts.read_contracts(contracts.sample_path()))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = archive(tmp_path / "in.zip", ("CUAD_v1.json", b" " * (download.LARGEST_RATIO * 20_000)))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("unpacked"))
    refused(path, "as only a bomb does")


def test_a_bomb_that_understates_its_size_is_cut_off_at_what_it_states(tmp_path):
    path = archive(tmp_path / "in.zip", ("CUAD_v1.json", b"[" + b"1," * 5_000_000))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, at + 24, 100)  # the size in the directory, which is what zipfile unpacks at most
    path.write_bytes(raw)
    refused(path, "not a complete zip")


def test_sizes_and_numbers_of_entries_are_bounded(tmp_path, monkeypatch):
    path = archive(tmp_path / "in.zip", ("CUAD_v1.json", SAMPLE))
    monkeypatch.setattr(download, "LARGEST_TOTAL", len(SAMPLE) - 1)
    refused(path, "more than")
    monkeypatch.undo()
    monkeypatch.setattr(download.zip_member, "__kwdefaults__", {"largest": len(SAMPLE) - 1})
    refused(path, f"{len(SAMPLE):,} bytes unpacked, more than the")
    monkeypatch.undo()
    monkeypatch.setattr(download, "LARGEST_FILE", 1000)
    refused(path, "1,000 bytes")
    refused(contracts.sample_path(), "1,000 bytes")


def test_a_million_entries_are_counted_and_not_listed(tmp_path):
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    listing = entry * 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(listing), 0, 0)  # says that there is one
    (tmp_path / "in.zip").write_bytes(listing + end)
    refused(tmp_path / "in.zip", "1,000,000 entries")


def test_links_encrypted_repeated_and_oddly_packed_members_are_refused(tmp_path):
    link = zipfile.ZipInfo("CUAD_v1.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    refused(tmp_path / "in.zip", "is a link")
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(tmp_path / "in.zip", ("CUAD_v1.json", SAMPLE), ("CUAD_v1.json", b"{}"))
    refused(tmp_path / "in.zip", "more than once")
    refused(archive(tmp_path / "in.zip", ("CUAD_v1.json", SAMPLE), method=zipfile.ZIP_LZMA), "unusual way")
    raw = bytearray(archive(tmp_path / "in.zip", ("CUAD_v1.json", SAMPLE)).read_bytes())
    for mark, shift in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.rindex(mark) + shift] |= 1
    (tmp_path / "in.zip").write_bytes(raw)
    refused(tmp_path / "in.zip", "is encrypted")


def test_an_archive_inside_an_archive_is_not_opened(tmp_path):
    inner = archive(tmp_path / "inner.zip", ("CUAD_v1.json", SAMPLE)).read_bytes()
    refused(archive(tmp_path / "in.zip", ("inner.zip", inner)), "holds no file of contracts", "inner.zip")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_an_archive_raises_anything_but_one_message(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("CUAD_v1.json", b'{"data": []}')
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        with download.opened_zip(bytes(raw), "in.zip") as opened:
            for name in opened.namelist():
                assert len(download.zip_member(opened, name, "in.zip")) <= download.LARGEST_MEMBER
    except InputError as error:
        assert "in.zip" in str(error)


# --- instructions inside contracts and answers

ROW = next(row for row in small.ROWS if row["answers"])
WRONG = "Each party shall keep the other's trade secrets for five years."


def rendered(fields: dict[str, str], variant=VARIANTS[0]) -> list[dict[str, str]]:
    return VerdictAdapter().format(judge_signature(variant, naming("contract", "clause")), [], fenced(fields))


def fields(text: str, where: str) -> dict[str, str]:
    found = {
        "question": ROW["question"],
        "reference": ROW["answers"][0]["text"],
        "answer": WRONG,
    }
    return found | {where: f"{found[where]}\n{text}"}


def shown(text: str) -> list[dict[str, str]]:
    (passage,) = small.passages_of({"A": [f"Clause 1. {text}"]})
    return small.program().messages(ROW["question"], Hit(passage, 1.0), WRONG)


def specials(engine: LocalEngine, messages: list[dict[str, str]]) -> int:
    marks = set(engine.tokenizer.all_special_ids)
    return sum(token in marks for token in engine.tokenizer.apply_chat_template(messages, return_dict=False))


def test_the_suite_has_thirty_cases_of_many_styles():
    assert len(injected.CASES) == 30 == len({case["text"] for case in injected.CASES})
    assert len({case["style"] for case in injected.CASES}) >= 8
    for case in injected.CASES:
        for demand in injected.ORDERS:
            made = injected.text(case, demand)
            assert "{" not in made.replace('{"verdict', "") and len(injected.control(case, demand)) == len(made)


@pytest.mark.parametrize("where", ["answer", "reference", "question"])
@pytest.mark.parametrize("case", injected.CASES, ids=lambda case: case["id"])
def test_no_case_leaves_a_judges_fences_or_its_chat_turn(engine, case, where):
    text = injected.text(case, "correct")
    made, plain = rendered(fields(text, where)), rendered(fields("", where))
    assert injected.outside(made, "judge") == injected.outside(plain, "judge")
    assert specials(engine, made) == specials(engine, plain) and not MARK.search(quote_safely(text))
    assert not UNSEEN.search(made[-1]["content"])
    assert made[-1]["content"].count("[[ ## ") == plain[-1]["content"].count("[[ ## ")


@pytest.mark.parametrize("demand", ["refuse", "assert"])
@pytest.mark.parametrize("case", injected.CASES, ids=lambda case: case["id"])
def test_no_case_leaves_its_passage_or_the_programs_chat_turn(engine, case, demand):
    made, plain = shown(injected.text(case, demand)), shown("")
    assert injected.outside(made, "program") == injected.outside(plain, "program")
    assert specials(engine, made) == specials(engine, plain)


def obedient(messages: list[dict[str, str]], known: set[str]) -> str:
    """Grade rightly, but obey whatever stands outside the fences and is no part of the judge's own prompt."""
    return "Verdict: incorrect" if injected.outside(messages, "judge") in known else "Verdict: correct"


def test_a_judge_that_obeys_all_it_reads_outside_the_fences_is_never_reached(monkeypatch):
    known = {injected.outside(rendered_by(row), "judge") for row in [injected.judged(WRONG, ROW)]}
    rows = [injected.judged(f"{WRONG}\n{injected.text(case, 'correct')}", ROW) for case in injected.CASES]
    judge = LMJudge(small.Script(lambda messages: obedient(messages, known)).lm(), num_threads=2)
    assert list(judge.rate([injected.judged(WRONG, ROW), *rows])["judge_verdict"]) == ["incorrect"] * 31
    monkeypatch.setattr(
        "cuadft.evaluation.judge.fenced", lambda made: {name: f"<<<\n{text}\n>>>" for name, text in made.items()}
    )
    reached = list(judge.rate(rows)["judge_verdict"]).count("correct")
    assert reached >= 8  # without the broken-up marks: so the judge of this test can be led astray


def rendered_by(row: dict) -> list[dict[str, str]]:
    script = small.Script(lambda messages: "Verdict: incorrect")
    LMJudge(script.lm(), num_threads=1).rate([row])
    return script.calls[0]


def test_the_offline_judge_gives_no_better_verdict_for_an_order():
    wrong = [
        row | {"answer": text}
        for row in small.ROWS
        if row["answers"]
        for text in (WRONG, "There is no such clause.", "Yes.")
    ] + [row | {"answer": WRONG} for row in small.ROWS if row["is_impossible"]]
    wrong = [injected.judged(row["answer"], row) for row in wrong]
    order = ["incorrect", "partly", "correct"]
    before = [order.index(verdict) for verdict in OfflineJudge().rate(wrong)["judge_verdict"]]
    assert set(before) == {0}
    for case in injected.CASES:
        text = injected.text(case, "correct")
        carrying = [row | {"answer": f"{row['answer']}\n{text}"} for row in wrong]
        after = [order.index(verdict) for verdict in OfflineJudge().rate(carrying)["judge_verdict"]]
        assert max(after) == 0, (case["id"], [row["answer"] for row, verdict in zip(carrying, after) if verdict])


def test_no_special_token_reaches_a_local_model_from_any_message(engine):
    for case in injected.CASES:
        text = injected.text(case, "assert")
        messages = [{"role": "user", "content": text}]
        marks = set(engine.tokenizer.all_special_ids)
        assert sum(token in marks for token in engine.tokenize(messages)) == 3, case["id"]  # two turns of the template
        assert sum(token in marks for token in engine.tokenize([{"role": "user", "content": "x"}])) == 3


# --- keys

KEY = 'sk-planted/7e57+"cafe"-0123456789'
PASSWORD = "hunter2hunter2"
ADDRESS = "http://someone:{}@127.0.0.1:9/v1?api-key=planted-in-query-42&x=1"


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_BASE", ADDRESS.format("hunter2%68unter2"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "first-line-of-the-key\nsecond-line-of-the-key")


SPELLINGS = [
    KEY,
    json.dumps(KEY),
    repr(KEY),
    "sk-planted%2F7e57%2B%22cafe%22-0123456789",
    json.dumps({"a": [KEY]}),
    "http://h/?token=abc123",
    "http://me:secretword@h/",
    PASSWORD,
    "hunter2%68unter2",
    "planted-in-query-42",
    "c29tZW9uZTpodW50ZXIyaHVudGVyMg==",
    "second-line-of-the-key",
    "Bearer " + KEY,
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_secret_is_taken_out_of_an_error_in_every_spelling(planted, text):
    for made in (redact(f"no {text}, sorry"), brief(ValueError(f"no {text}, sorry"))):
        assert not any(
            part in made for part in ("planted", "hunter2", "cafe", "abc123", "secretword", "c29t", "-of-the-key")
        )
        assert "***" in made and "sorry" in made


def test_headers_and_nested_settings_count_as_secrets_too():
    assert brief(ValueError("401 Bearer abcdefgh12345678.x")) == "ValueError: 401 Bearer ***"
    given = {"extra_headers": {"X-Api-Key": "given-in-code-1"}, "max_tokens": "not-a-secret"}
    assert redact("given-in-code-1 not-a-secret", given) == "*** not-a-secret"


@pytest.mark.parametrize(
    "text",
    [
        "The Basic Salary of bearer shares",
        "see http://example.com/?page=2&key_terms",
        "a@b.com",
        "max_tokens=30000",
        "https://example.com:8080/a@b",
    ],
)
def test_ordinary_text_is_left_as_it_is(planted, text):
    assert redact(text) == text


def test_an_executed_notebook_is_cleaned_in_outputs_tracebacks_and_split_lines(planted):
    cell = {
        "cell_type": "code",
        "source": ["x\n", "y"],
        "outputs": [
            {"output_type": "stream", "text": ["first-line-of-the-key\n", "second-line-of-the-key\n"]},
            {"output_type": "error", "traceback": [f"\x1b[31mno {KEY}"], "evalue": KEY},
        ],
    }
    made = kernel.without_secrets(json.dumps({"cells": [cell], "metadata": {"papermill": {"parameters": {"a": KEY}}}}))
    assert "planted" not in made and "of-the-key" not in made and json.loads(made)["cells"][0]["source"] == ["x\n", "y"]
    clean = json.dumps({"cells": []}, indent=3)
    assert kernel.without_secrets(clean) == clean


FAULTY = """
import os, warnings
from cuadft.core import files
from cuadft.evaluation.judge import LMJudge
from cuadft.loop.lineage import open_iteration
from cuadft.models.api import remote
run = open_iteration(run_dir, iteration)
key, base = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_API_BASE"]
row = {"question": "Q?", "answers": [{"text": "ten days", "start": 0}], "answer": "ten", "error": None}
replies = run.path("metrics", "judge_replies.jsonl")
judge = LMJudge(remote("openai/judge", cache=False, num_retries=0, timeout=1, replies=replies), num_threads=1)
found = judge.rate([row | {"answer": text} for text in ("ten", "x", "y")])
assert found["judge_error"].notna().sum() == 2, found
found.to_csv(run.path("metrics", "ratings.csv"))
files.write_json(run.path("metrics", "errors.json"), list(found["judge_error"]))
print("stdout", key, base); warnings.warn(f"warned {key}")
raise RuntimeError(f"no {key} at {base}")
"""


@pytest.mark.slow
def test_no_file_of_a_run_and_no_message_holds_a_planted_key_after_a_faulty_run(tmp_path):
    project = make_project(tmp_path / "project")
    (project / "trap_01.py").write_text(FAULTY)
    command = [sys.executable, "-m", "cuadft.cli", "run", "params/tiny.yaml", "--run-dir", "runs/r", "--debug"]
    with faulty_server.serve([faulty_server.status(401), "Verdict: correct", faulty_server.status(400)]) as server:
        address = server.url.replace("//", f"//someone:{PASSWORD}@") + "/?api-key=planted-in-query-42"
        env = {"OPENAI_API_KEY": "sk-planted-7e57cafe0123456789", "OPENAI_API_BASE": address, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=os.environ | env)
    files = [path for path in (project / "runs").rglob("*") if path.is_file()]
    assert done.returncode == 1 and "RuntimeError" in done.stderr, done.stderr
    assert any(path.suffix == ".ipynb" and b"stdout" in path.read_bytes() for path in files) and len(files) >= 5
    for secret in ("sk-planted-7e57cafe0123456789", PASSWORD, "planted-in-query-42"):
        assert secret not in done.stdout + done.stderr
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_an_infinite_parameter_leaves_an_executed_copy_that_other_programs_can_read():
    notebook = '{"metadata": {"papermill": {"parameters": {"length_tolerance": Infinity, "seed": 7}}}}'
    read = json.loads(kernel.without_secrets(notebook), parse_constant=pytest.fail)
    assert read["metadata"]["papermill"]["parameters"] == {"length_tolerance": "Infinity", "seed": 7}
