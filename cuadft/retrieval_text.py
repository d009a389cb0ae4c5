"""What `cuadft retrieval` prints and writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cuadft import files
from cuadft.pooled import counted
from cuadft.retrieval_report import TOKENS, K

if TYPE_CHECKING:
    from cuadft.retrieval_report import Measured

LABELS = {"hit@1": "Hit at 1", f"hit@{K}": f"Hit at {K}", f"char_recall@{K}": f"Character recall at {K}",
          f"char_precision@{K}": f"Character precision at {K}", TOKENS: f"Prompt tokens at {K}"}  # fmt: skip


def text(done: Measured) -> str:
    """Return the table for people, and how long it took."""
    lines = [f"Retriever: {done.retriever}. Search in each question's contract."]
    for row in done.table.itertuples():
        digits = ".1f" if row.metric == TOKENS else ".3f"
        bounds = "" if row.low != row.low else f" [{row.low:{digits}}, {row.high:{digits}}]"
        lines.append(f"{LABELS[row.metric]:<28}{row.value:{digits}}{bounds}")
    n = f"{counted(len(done.rows), 'question')} of {counted(done.rows['contract'].nunique(), 'contract')}"
    lines += [
        f"{n}; {done.confidence:.0%} intervals over contracts. The longest prompt has {done.rows[TOKENS].max():,} "
        "tokens of passages.",
        f"Indexing {done.seconds['indexing']:.1f} s, searching {done.seconds['searching']:.1f} s.",
    ]
    return "\n".join(lines)


def write(done: Measured, out: str | Path) -> list[Path]:
    """Write the table to a CSV file, beside it a row per question and the contracts left out; return the paths."""
    import pandas as pd

    from cuadft.score_report import as_csv

    path = Path(out).expanduser()
    seconds = {f"{name}_seconds": round(value, 2) for name, value in done.seconds.items()}
    left_out = pd.DataFrame(done.left_out.items(), columns=["contract", "why"])
    tables = {"": done.table.assign(retriever=done.retriever, **seconds), "_rows": done.rows, "_left_out": left_out}
    paths = {end: path.with_name(f"{path.stem}{end}{path.suffix or '.csv'}") for end in tables}
    for end, table in tables.items():
        files.write_text(paths[end], as_csv(table))
    return list(paths.values())
