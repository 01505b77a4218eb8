"""Models of scikit-learn in the place of bohb's own, everything else alike, for the suite.

    python benchmarks/suite.py --algorithms bohb gpr=models:gaussian_process forest=models:forest --out FOLDER

Both see what bohb's model sees: a configuration's features, and the log budget as one column more.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from hyperopt_hyperband import _brackets, _gp, bohb, hyperband
from hyperopt_hyperband._documents import Vals
from hyperopt_hyperband._samplers import Request

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Regressor:
    """What a draw asks of a fitted process; `left` is for the choice of brackets, which stays bohb's own."""

    mean_and_deviation: Callable[[Array], tuple[Array, Array]]
    left: Array

    def predict(self, x: Array) -> tuple[Array, Array]:
        return self.mean_and_deviation(np.column_stack([x, np.zeros(len(x))]))


def fit_gaussian_process(x: Array, t: Array, _owners: Array, y: Array, subset: Array) -> Regressor:
    """A Matern kernel with a scale for each column, by maximum likelihood."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    seen = np.column_stack([x, t])[: len(y)]
    scales = Matern(np.full(seen.shape[1], 0.5), (0.03, 50), nu=2.5)
    kernel = ConstantKernel(1, (1e-3, 1e3)) * scales + WhiteKernel(0.05, (1e-6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a parameter at its bound
        learned = GaussianProcessRegressor(kernel, random_state=0).fit(seen[subset], y[subset])
        fitted = GaussianProcessRegressor(learned.kernel_, optimizer=None).fit(seen, y)
    return Regressor(functools.partial(fitted.predict, return_std=True), np.zeros(len(y)))


def fit_forest(x: Array, t: Array, _owners: Array, y: Array, _subset: Array) -> Regressor:
    """Fifty randomised trees; their spread is the deviation."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(50, min_samples_leaf=2, bootstrap=True, random_state=0)
    forest.fit(np.column_stack([x, t])[: len(y)], y)

    def mean_and_deviation(rows: Array) -> tuple[Array, Array]:
        found = np.array([tree.predict(rows) for tree in forest.estimators_])
        return found.mean(axis=0), found.std(axis=0)

    return Regressor(mean_and_deviation, np.zeros(len(y)))


def _suggest(fit: Callable[..., Regressor]) -> Callable[..., Any]:
    def draw(request: Request) -> Vals | None:
        with mock.patch.object(_gp, "fit", fit):
            return bohb.gaussian_process.draw(request)

    model = replace(bohb.gaussian_process, draw=draw, choose=_brackets.choose)
    return functools.partial(hyperband.suggest, sampler=model)


gaussian_process = _suggest(fit_gaussian_process)
forest = _suggest(fit_forest)
