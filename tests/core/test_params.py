import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import make_project, write_notebook

from cuadft.core import params
from cuadft.core.errors import InputError

CELL = """run_dir: str = "runs/quickstart"  # run folder
# a remark between the lines
questions: int = 4  # questions per contract [1..64]
rate: float = 1  # step size (see [1]) [0..]
mode: str = "fusion"  # how to search [fusion|dense|bm25]
online: bool = False  # ask an endpoint
methods: list = [
    "dpo",
]  # preference methods [dpo|orpo]
model: str = ""  # weights: a path or an id
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", CELL)
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", "questions: int = 4  # the same [1..64]\n")
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder, preset="", *overrides):
    path = folder / "params" / "p.yaml"
    path.write_text(preset)
    return params.load_preset(path, overrides, folder / "notebooks")


def test_types_defaults_help_and_limits_are_read_from_the_cells(folder):
    known = params.declared_parameters(folder / "notebooks")
    assert list(known) == ["run_dir", "questions", "rate", "mode", "online", "methods", "model"]
    questions = known["questions"]
    assert (questions.default, questions.limits, questions.help) == (4, "[1..64]", "questions per contract")
    assert questions.notebooks == ("01_a.ipynb", "02_b.ipynb")
    assert known["rate"].default == 1.0 and known["rate"].limits == "[0..]" and "[1]" in known["rate"].help
    assert known["mode"].limits == "[fusion|dense|bm25]"
    assert known["methods"].default == ["dpo"] and known["methods"].limits == "[dpo|orpo]"


@pytest.mark.parametrize(
    "cell, message",
    [
        ("questions: int = 5  # other default [1..64]", "differs between"),
        ("questions: int = 4  # other limits [1..8]", "differs between"),
        ("other = 3", "write `name: type = default"),
        ("other: dict = {}", "write `name: type = default"),
        ("other: int = 2 + 3", "plain value"),
        ("other: int = '3'", "breaks its own declaration"),
        ("other: int = 9  # too high [1..8]", "breaks its own declaration"),
        ("other: str = 'a'  # a range of text [1..8]", "breaks its own declaration"),
        ("%matplotlib inline", "not plain Python"),
        ("other: int = 1\nother: int = 2", "differs between"),
    ],
)
def test_a_faulty_declaration_is_reported(folder, cell, message):
    write_notebook(folder / "notebooks" / "03_c.ipynb", cell)
    with pytest.raises(InputError, match=message):
        params.declared_parameters(folder / "notebooks")


def test_a_file_that_is_no_notebook_is_reported(folder):
    (folder / "notebooks" / "03_c.ipynb").write_text("<html>")
    with pytest.raises(InputError, match="03_c.ipynb is not a Jupyter notebook"):
        params.declared_parameters(folder / "notebooks")


def test_only_values_that_differ_are_returned_with_their_types(folder):
    preset = "questions: 4\nrate: 1e-4\nmode: dense\nonline: true\nmethods: [orpo]\n"
    # 1e-4 is text to YAML 1.1, and a number to everybody else
    expected = {"rate": 0.0001, "mode": "dense", "online": True, "methods": ["orpo"]}
    assert load(folder, preset) == expected
    assert load(folder, preset, "mode=fusion", "rate=2") == {"rate": 2.0, "online": True, "methods": ["orpo"]}
    assert load(folder, "# nothing but defaults\n") == {}


def test_all_problems_are_listed_at_once_with_the_nearest_names(folder):
    preset = "questons: 5\nrate: fast\nonline: 'yes'\nmethods: dpo\niteration: 2\n12: 1\n"
    with pytest.raises(InputError) as caught:
        load(folder, preset, "mode=cosine", "Questions=3", "rate")
    text = str(caught.value)
    for part in (
        "9 invalid parameters",
        "questons: no notebook declares it (did you mean 'questions'?)",
        "rate: got 'fast' (str), expected float [0..]",
        "online: got 'yes' (str), expected bool",
        "methods: got 'dpo' (str), expected list [dpo|orpo]",
        "iteration: not for presets",
        "12: no notebook",
        "mode: got 'cosine' (str), expected str [fusion|dense|bm25]",
        "Questions: no notebook declares it (did you mean 'questions'?)",
        "--set rate: write",
    ):
        assert part in text
    assert len(text.splitlines()) == 10


@pytest.mark.parametrize(
    "line",
    [
        "questions: true",
        "questions: 2.0",
        "questions: 0",
        "questions: 65",
        "questions: null",
        "rate: true",
        "rate: .nan",
        "rate: .inf",
        "rate: -1",
        "mode: no",
        "online: 1",
        "methods: [dpo, kto]",
        "methods: [[dpo]]",
        "model: 2024-01-01",
        "model: {a: 1}",
        "model: [a]",
    ],
)
def test_wrong_types_and_impossible_values_are_refused(folder, line):
    with pytest.raises(InputError, match=line.split(":")[0]):
        load(folder, line)


@pytest.mark.parametrize(
    "preset, message",
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2", "holds a list"),
        ("just text", "holds a str"),
        ("a: !!python/object:os.system {}", "YAML"),
    ],
)
def test_a_broken_preset_is_reported(folder, preset, message):
    with pytest.raises(InputError, match=message):
        load(folder, preset)


@pytest.mark.parametrize("text", ["inf", ".inf", "Inf", "+.INF", "Infinity"])
def test_infinity_is_taken_where_the_limits_end_with_it(folder, text):
    write_notebook(folder / "notebooks" / "03_c.ipynb", "tolerance: float = 0.2  # inf for any [0..inf]")
    assert load(folder, f"tolerance: {text}\n") == load(folder, "", f"tolerance={text}") == {"tolerance": math.inf}
    for wrong in ("tolerance: -.inf", "tolerance: .nan", f"rate: {text}"):
        with pytest.raises(InputError, match=wrong.split(":")[0]):
            load(folder, wrong)


def test_none_or_nothing_is_an_empty_list(folder):
    assert (
        load(folder, "methods: none\n")
        == load(folder, "", "methods=")
        == load(folder, "methods: []")
        == {"methods": []}
    )


def test_a_presets_path_that_is_written_as_seen_from_it_counts_from_its_folder(folder, tmp_path, monkeypatch):
    (folder / "params" / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "params" / "elsewhere")
    for written, seen in (("./m", "params/m"), ("../m", "m"), ("m", None), ("owner/m", None)):
        values = load(folder, f"model: {written}\nmode: dense\n")
        assert values == {"model": str(folder / seen) if seen else written, "mode": "dense"}


def test_a_missing_preset_names_those_that_exist(folder):
    load(folder)
    with pytest.raises(InputError, match=r"choose one of p\.yaml"):
        params.load_preset("nope", (), folder / "notebooks")
    assert params.preset_file("p") == folder / "params" / "p.yaml"
    (folder / "params" / "p.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="not valid YAML"):
        params.load_preset("p", (), folder / "notebooks")


def test_text_parameters_take_any_text_from_the_command_line(folder):
    for text in ("2024", "a: b", "[x", "no", "", "a=b"):
        assert load(folder, "", f"model={text}").get("model", "") == text


@settings(max_examples=60, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )
)
def test_accepted_values_are_plain_and_reach_papermill_as_they_are(value):
    for kind in ("str", "int", "float", "bool", "list"):
        parameter = params.Parameter("p", kind, None)
        accepted = parameter.accept(value)
        if parameter.problem(accepted) is None:
            assert type(accepted).__name__ == kind
            assert json.loads(json.dumps(accepted, allow_nan=False)) == accepted


def test_paths_that_exist_here_become_absolute(folder, monkeypatch):
    (folder / "sub" / "sample").mkdir(parents=True)
    (folder / "sub" / "my.json").touch()
    monkeypatch.chdir(folder / "sub")
    values = {
        "cuad": "my.json",
        "contracts_folder": "none",
        "model": "",
        "embedder": "sample",
        "mode": "my.json",
    }
    assert params.absolute_paths(values) == values | {"cuad": str(folder / "sub" / "my.json")}
    values = {"cuad": "../new.json", "seed_runs": ["runs/a", "../runs/b"]}
    expected = {"cuad": f"{folder}/new.json", "seed_runs": ["runs/a", f"{folder}/runs/b"]}
    assert params.absolute_paths(values) == expected


def test_check_reports_bad_values_and_unknown_names_in_a_notebook(folder):
    good = {"questions": 3, "rate": 0.5, "_": [], "_i1": "x", "open": "x", "exit": 1, "json": json, "f": load}
    params.check_parameters(good)
    params.check_parameters(good | {"In": ["", "x = 1"], "rows": [1, 2]})
    with pytest.raises(InputError) as caught:
        wrong = {"questons": 5, "online": "false", "methods": ("dpo",), "rate": "1e-4"}
        injected = "".join(f"{name} = {value!r}\n" for name, value in wrong.items())
        params.check_parameters(good | wrong | {"In": [CELL, f"# Parameters\n{injected}"]})
    text = str(caught.value)
    assert "4 invalid parameters" in text
    assert "questons: no notebook declares it (did you mean 'questions'?)" in text
    assert "online: got 'false' (str), expected bool" in text
    assert "methods: got ('dpo',) (tuple), expected list" in text
    assert "rate: got '1e-4' (str), expected float [0..]" in text


def test_check_finds_names_injected_by_papermill(folder):
    history = ["", "questions: int = 4", '# Parameters\nquestons = 5\nmethods = ["dpo"]\n']
    namespace = {"In": history, "questons": 5, "rows": [1], "methods": ["dpo"]}
    with pytest.raises(InputError, match="'questions'") as caught:
        params.check_parameters(namespace)
    assert "rows" not in str(caught.value)


@pytest.mark.slow
def test_check_stops_a_misspelt_parameter_that_papermill_only_warns_about(tmp_path, monkeypatch):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(params.__file__).parents[2]))
    source, target = "notebooks/04_fine_tune.ipynb", "out.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        given = {"learning_rat": 0.1, "seed": "7"}
        papermill.execute_notebook(source, target, given, progress_bar=False, kernel_name="python3")
    assert caught.value.ename == "InputError"
    assert "did you mean 'learning_rate'" in caught.value.evalue
    assert "seed: got '7' (str), expected int" in caught.value.evalue
