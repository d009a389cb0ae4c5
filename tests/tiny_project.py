"""A project with six tiny notebooks that do the loop's file work in milliseconds, here or in a kernel."""

import os
from pathlib import Path

import nbformat

OPEN = (
    "from cuadft.core import files, params\nfrom cuadft.loop.lineage import open_iteration\n"
    "params.check_parameters(globals())\nit = open_iteration(run_dir, iteration)"
)
RUN_DIR = 'run_dir: str = "runs/quickstart"  # run folder\niteration: int = 1  # round of the loop [1..]\n'
SEED = "seed: int = 7  # seed of every random choice [0..]\n"
# a test puts a trap_NN.py into the project to make notebook NN fail; the notebook itself stays the same
TRAP = "from pathlib import Path\ntrap = Path('trap_{}.py')\nif trap.exists():\n    exec(trap.read_text())"

BODIES = {
    "01_data_prep": (
        SEED + 'cuad: str = "sample"  # contracts: sample, auto or a file\n'
        "questions: int = 4  # questions per contract [1..64]\n",
        'if not it.previous:\n    files.write_jsonl(it.run / "contracts.jsonl", [{"seed": seed}])',
        'for name, n in [("train", questions), ("dev", 2), ("test", 2), ("synthetic", questions)]:\n'
        '    files.write_jsonl(it.path("data", name + ".jsonl"), [{"id": f"{name}-{i}"} for i in range(n)])',
    ),
    "02_rag_compile": (
        "",
        'files.write_text(it.path("retriever", "index.txt"), files.file_hash(it.path("data", "train.jsonl")))\n'
        'files.write_json(it.path("retriever", "confidence.json"), {"iteration": iteration})\n'
        'for name in ("rag", "rag_compiled"):\n'
        '    files.write_json(it.path("program", name + ".json"), {"name": name})',
    ),
    "03_batch_inference": (
        'systems: list = ["rag"]  # systems that answer\ntop_k: int = 3  # passages shown [1..8]\n',
        'nothing = {"exists": None, "quote": None}\nfor system in systems:\n    for split in ("dev", "test"):\n'
        '        path = it.path("predictions", f"{system}.{split}.jsonl")\n'
        "        rows = files.read_jsonl(path, torn_ok=True) if path.exists() else []\n"
        "        done = {row['id'] for row in rows}\n"
        '        for row in files.read_jsonl(it.path("data", split + ".jsonl")):\n'
        "            if row['id'] not in done:\n"
        '                files.append_jsonl(path, [{"id": row["id"], "system": system, "k": top_k}])\n'
        '    files.write_json(it.path("predictions", f"{system}.confidence.json"), nothing | {"about": {}})',
    ),
    "04_fine_tune": (
        SEED + "learning_rate: float = 0.0001  # step size [0..1]\n",
        'files.write_text(it.path("adapters", "sft", "w.txt"), f"{learning_rate}")',
    ),
    "05_evaluate": (
        "decide: bool = False  # promote or keep\nevaluated: list = []  # systems to evaluate\n",
        'names = sorted(p.name for p in it.path("predictions").glob("*.jsonl"))\n'
        'files.write_json(it.path("metrics", "scores.json"), names)\n'
        'files.write_text(it.path("figures", "f1.svg"), "<svg/>")',
        "if decide:\n"
        '    board = "system,split,metric,value,low,high,n\\n"\n'
        '    board += "rag,test,quote_f1,0.4,0.25,0.5,2\\nsft,test,quote_f1,0.5,,,2\\n"\n'
        '    files.write_text(it.path("scoreboard.csv"), board)\n'
        "    here = it.dir.name\n"
        '    best = {"system": "sft", "program": f"{here}/program/rag.json", "weights": f"{here}/adapters/sft"}\n'
        '    choice = {"incumbent": "rag", "promoted": best | {"retriever": f"{here}/retriever"}, "reason": "a gain"}\n'
        '    files.write_json(it.path("decision.json"), choice)',
    ),
    "06_align": (
        'align_methods: list = ["dpo", "orpo"]  # preference methods [dpo|orpo]\n',
        'files.write_jsonl(it.path("preferences.jsonl"), [{"id": "train-0"}])\n'
        "for method in align_methods:\n"
        '    files.write_text(it.path("adapters", method, "w.txt"), method)',
    ),
}


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """Write a notebook with a parameters cell and code cells, without outputs."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    codes = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), tagged, *codes])
    notebook.metadata.update(kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def make_project(folder: Path, preset: str = "questions: 5\n") -> Path:
    """Make notebooks/ and params/tiny.yaml in a folder."""
    for name, (parameters, *cells) in BODIES.items():
        path = folder / "notebooks" / f"{name}.ipynb"
        write_notebook(path, RUN_DIR + parameters, OPEN, TRAP.format(name[:2]), *cells)
    (folder / "params").mkdir(exist_ok=True)
    (folder / "params" / "tiny.yaml").write_text(preset)
    return folder


def run_in_process(source: Path, target: Path, parameters: dict, root: Path, log=print, **_: object) -> None:
    """Stand in for papermill: run the cells here, keep the executed copy, raise papermill's own error."""
    from papermill.exceptions import PapermillExecutionError

    notebook = nbformat.read(source, as_version=4)
    namespace, before = {"In": []}, Path.cwd()
    os.chdir(root)
    try:
        for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
            exec(cell.source, namespace)
            cell.execution_count = count
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update(parameters)
    except Exception as error:
        name, text = type(error).__name__, str(error)
        raise PapermillExecutionError(0, 1, cell.source, name, text, []) from error
    finally:
        os.chdir(before)
        nbformat.write(notebook, target)
