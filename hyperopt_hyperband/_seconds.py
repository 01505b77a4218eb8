"""How long a configuration takes, by those that have been evaluated: a linear model of log seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperopt_hyperband import _encoding as encoding
from hyperopt_hyperband._evaluations import Evaluation

Array = np.ndarray[Any, np.dtype[Any]]

PENALTY = 0.1
"""Of the squared coefficients (ridge regression); a feature's values lie between 0 and 1."""


def relative(space: Sequence[encoding.Axis], known: Sequence[Evaluation], rows: Array) -> Array:
    """The expected seconds of each row's configuration, over their geometric mean.

    Features and their squares explain the logarithm of the seconds of what has succeeded, beside that of its
    budget. All 1 where nothing has.
    """
    timed = [(e, seconds) for e in known if e.loss is not None and e.budget and (seconds := _seconds(e)) > 0]
    if not timed:
        return np.ones(len(rows))
    seen = encoding.matrix(space, [e.vals for e, _ in timed])
    options = encoding.options(space, np.concatenate([seen, rows]))

    def columns(rows: Array) -> Array:
        features = encoding.features(space, rows, options)[0]
        return np.column_stack([features, features**2])

    by_configuration = columns(seen)
    inputs = np.column_stack([by_configuration, [math.log(e.budget or 1) for e, _ in timed]])
    means = inputs.mean(axis=0)
    inputs = inputs - means
    logs = np.log([seconds for _, seconds in timed])
    squares = inputs.T @ inputs + PENALTY * np.eye(len(means))
    weights = np.linalg.solve(squares, inputs.T @ (logs - logs.mean()))
    expected = columns(rows) @ weights[:-1]
    ratios: Array = np.exp(np.clip(expected - expected.mean(), -10, 10))
    return ratios


def _seconds(e: Evaluation) -> float:
    return (e.ended - e.begun).total_seconds() if e.begun and e.ended else 0.0
