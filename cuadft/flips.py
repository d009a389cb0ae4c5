"""How steady an LM judge is: how often its verdict changes though the answer does not."""

from __future__ import annotations

import math

import pandas as pd

from cuadft.agreement import clusters
from cuadft.judge_prompts import ORDERS, WORDINGS, Variant
from cuadft.judges import LMJudge
from cuadft.ratings import Rows, failed
from cuadft.stats import cluster_bootstrap


def flip_rate(judge: LMJudge, rows: Rows, *, n_resamples: int = 2000, seed: int = 0,
              confidence: float = 0.95) -> pd.DataFrame:  # fmt: skip
    """Return the share of rows whose verdict is not the same in all orders, in all wordings, and in either.

    The judge is asked with its first wording in every order, and in its first order with every wording: five calls a
    row, whatever its number of votes; its cache serves them too. Columns: varied ("order", "wording", "either"),
    value, low, high, n (rows with all verdicts), n_clusters (contracts, or questions if there is one contract),
    failed (rows without all verdicts: they are in no share) and failed_generations (rows that no judge sees).
    """
    first = Variant(next(iter(WORDINGS)), next(iter(ORDERS)))
    orders = [Variant(first.wording, order) for order in ORDERS]
    wordings = [Variant(wording, first.order) for wording in WORDINGS]
    asked = [row for row in rows if not failed(row)]
    groups = clusters(pd.DataFrame(asked, columns=["contract", "question"]))[1] if asked else []
    variants = list(dict.fromkeys(orders + wordings))
    votes = [dict(zip(variants, given, strict=True)) for given in judge.vote(asked, variants)]
    lines = []
    for varied, names in {"order": orders, "wording": wordings, "either": variants}.items():
        verdicts = [[given[v].verdict for v in names] for given in votes]
        changed = [math.nan if None in found else float(len(set(found)) > 1) for found in verdicts]
        share = cluster_bootstrap(changed, groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
        lines.append({"varied": varied, "value": share.value, "low": share.low, "high": share.high, "n": share.n,
                      "n_clusters": share.n_clusters, "failed": sum(map(math.isnan, changed)),
                      "failed_generations": len(rows) - len(asked)})  # fmt: skip
    return pd.DataFrame(lines)
