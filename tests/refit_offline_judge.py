"""Fit the offline judge anew: python tests/refit_offline_judge.py FOLDER.

FOLDER holds published answers with verdicts, see `cuadft.evaluation.published`.
"""

import sys
from pathlib import Path

from cuadft.core import files
from cuadft.evaluation import answer_files, offline_judge, published
from cuadft.models import weights
from cuadft.retrieval.embedder import Embedder


def main(folder: str) -> None:
    """Write the fit, and how well it predicts verdicts left out of it, to calibration.json in the package."""
    rows = answer_files.join_files(published.read_published(folder).files).predictions
    rows = [row for row in rows if "judge_score" in row["verdicts"]]
    embedder = Embedder(weights.find_weights("sentence-transformers/all-MiniLM-L6-v2"), cache_dir=weights.cache_dir())
    verdicts = [row["verdicts"]["judge_score"] for row in rows]
    made = offline_judge.fit_record(rows, verdicts, fitted_to=offline_judge.SOURCE, encode=embedder.encode)
    files.write_json(Path(offline_judge.__file__).with_name("calibration.json"), made)


if __name__ == "__main__":
    main(sys.argv[1])
