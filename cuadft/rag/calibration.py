"""A ridge logistic regression on named features, written as JSON: what turns evidence into a probability. For example:

    calibration = Calibration.fit([{"best": 2.5}, {"best": -4.0}, ...], [True, False, ...])
    calibration.p([{"best": 1.0}])

`threshold` gives the probability from which an answer pays. `read_parts` reads several calibrations of one file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cuadft.core import files
from cuadft.core.errors import InputError

Holder = TypeVar("Holder")  # a dataclass with calibrations among its fields

LEAST_QUESTIONS = 40  # fewer questions, or fewer of either kind than LEAST_OF_KIND, calibrate nothing
LEAST_OF_KIND = 5
STRENGTH = 0.5  # scikit-learn's C of the calibration


@dataclass(frozen=True)
class Calibration:
    """A logistic regression on named features; a feature that is missing counts as its mean.

    A feature "group:name" is 1 for the group of that name; "group:name*x" is the feature x for that group, else 0.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    n: int

    @classmethod
    def fit(
        cls,
        features: Sequence[Mapping[str, float]],
        truth: Sequence[bool],
        *,
        groups: Sequence[str] = (),
        slope: str = "",
        weights: Sequence[float] | None = None,
    ) -> Calibration:
        """Fit to rows of features; groups get an intercept each, and a slope of the feature named `slope`.

        Where all rows are of one kind, the probability is that of a base rate with half a row of either kind added.
        """
        from sklearn.linear_model import LogisticRegression

        plain = sorted({name for row in features for name, value in row.items() if not math.isnan(value)})
        names = [*plain, *(f"group:{group}" for group in sorted(set(groups)))]
        names += [f"group:{group}*{slope}" for group in sorted(set(groups)) if slope]
        table, rest = _numbers(features, plain), len(names) - len(plain)
        mean, scale = np.nanmean(table, axis=0), np.maximum(np.nanstd(table, axis=0), 1e-6)
        made = cls(tuple(names), (*mean, *[0.0] * rest), (*scale, *[1.0] * rest), (0.0,) * len(names), 0.0, len(truth))
        if len(set(map(bool, truth))) < 2:
            return replace(made, bias=math.log((sum(truth) + 0.5) / (len(truth) - sum(truth) + 0.5)))
        model = LogisticRegression(C=STRENGTH, max_iter=2000)
        model.fit(made._table(features, groups or None), np.asarray(truth, bool), sample_weight=weights)
        return replace(made, weights=tuple(model.coef_[0]), bias=float(model.intercept_[0]))

    def p(self, features: Sequence[Mapping[str, float]], groups: Sequence[str] | None = None) -> np.ndarray:
        """Return the probability of each row of features."""
        if not len(features):
            return np.zeros(0)
        return 1 / (1 + np.exp(-(self._table(features, groups) @ np.array(self.weights) + self.bias)))

    def _table(self, features: Sequence[Mapping[str, float]], groups: Sequence[str] | None) -> np.ndarray:
        """Return the standardised features, of shape (rows, names)."""
        plain = [name for name in self.names if not name.startswith("group:")]
        raw = (_numbers(features, plain) - self.mean[: len(plain)]) / self.scale[: len(plain)]
        table = np.zeros((len(features), len(self.names)))
        table[:, : len(plain)] = np.where(np.isnan(raw), 0, raw)  # 0 is the mean
        for n, name in enumerate(self.names[len(plain) :] if groups else (), len(plain)):
            group, _, slope = name.removeprefix("group:").partition("*")
            if own := [r for r, each in enumerate(groups) if each == group]:
                table[own, n] = table[own, plain.index(slope)] if slope else 1
        return table

    def as_json(self) -> dict[str, Any]:
        """Return a mapping that `from_json` reads."""
        columns = zip(self.names, *(map(float, values) for values in (self.mean, self.scale, self.weights)))
        rows = [dict(zip(("feature", "mean", "scale", "weight"), values)) for values in columns]
        return {"bias": self.bias, "n": self.n, "features": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Calibration:
        """Return what `as_json` gave."""
        rows = saved["features"]
        columns = [tuple(float(row[key]) for row in rows) for key in ("mean", "scale", "weight")]
        return cls(tuple(str(row["feature"]) for row in rows), *columns, float(saved["bias"]), saved["n"])


def parts_as_json(holder: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that holds calibrations as `read_parts` reads them."""
    values = {field.name: getattr(holder, field.name) for field in fields(holder)}
    return {name: value.as_json() if isinstance(value, Calibration) else value for name, value in values.items()}


def read_parts(
    kind: type[Holder],
    path: Path,
    stage: str,
    required: Sequence[str],
    optional: Sequence[str],
    later: Sequence[str] = (),
) -> Holder:
    """Return the dataclass in a JSON file; these fields of it are calibrations, None at most if optional.

    later: fields that an earlier version did not write; they keep their defaults. Raises InputError on another file,
    which names the stage that writes it.
    """
    saved = files.read_json(path)
    try:
        own = [field.name for field in fields(kind) if field.name in saved or field.name not in later]
        values = {name: saved[name] for name in own}
        given = [name for name in (*required, *optional) if name in required or values[name] is not None]
        return kind(**values | {name: Calibration.from_json(values[name]) for name in given})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no calibration ({error!r}): run {stage} again.") from error


def _numbers(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """Return the named features, of shape (rows, names), NaN where one is missing."""
    found = [[row.get(name, math.nan) for name in names] for row in features]
    return np.array(found, float).reshape(len(features), len(names))


def logit(p: float) -> float:
    """Return the log-odds of a probability, kept within those of 1e-4 and 1 - 1e-4."""
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def threshold(false_answer_cost: float) -> float:
    """Return the probability from which an answer pays; the cost is that of a false answer over a false refusal's."""
    if not (isinstance(false_answer_cost, int | float) and false_answer_cost > 0):
        raise InputError(f"Invalid false_answer_cost {false_answer_cost!r}: give a number above 0, such as 1.0.")
    return false_answer_cost / (1 + false_answer_cost)


def enough(truth: Sequence[bool]) -> bool:
    """Tell whether there are enough questions of both kinds to calibrate on."""
    return len(truth) >= LEAST_QUESTIONS and LEAST_OF_KIND <= sum(truth) <= len(truth) - LEAST_OF_KIND
