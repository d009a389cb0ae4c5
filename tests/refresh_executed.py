"""Copy a finished run's notebooks to notebooks/executed/, for readers in a browser: `make executed`.

Paths of the machine and papermill's records are left out, so that two runs differ only in what they show.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = {
    "data_prep": "01_data_prep",
    "rag_compile": "02_rag_compile",
    "inference_aligned": "03_batch_inference",
    "fine_tune": "04_fine_tune",
    "evaluate": "05_evaluate",
    "align": "06_align",
}


def clean(notebook: dict) -> dict:
    """Return the notebook without papermill's records, widgets' states and home folders."""
    notebook["metadata"] = {k: v for k, v in notebook["metadata"].items() if k in ("kernelspec", "language_info")}
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
        # warnings and bars name the folders of this machine
        cell["outputs"] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if cell["cell_type"] != "code":
            del cell["outputs"]
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output["metadata"] = {}
            # a widget without its kernel shows an error instead of the text beside it
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    return json.loads(text.replace(str(ROOT), ".").replace(str(Path.home()), "~"))


def main(run: Path) -> None:
    """Write the six executed notebooks of iteration 1 of a run."""
    target = ROOT / "notebooks" / "executed"
    target.mkdir(exist_ok=True)
    for stage, name in SHOWN.items():
        notebook = json.loads((run / "iter-01" / "executed" / f"{stage}.ipynb").read_text())
        (target / f"{name}.ipynb").write_text(json.dumps(clean(notebook), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(ROOT / (sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
