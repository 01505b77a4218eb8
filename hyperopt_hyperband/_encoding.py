"""A space as numbers, for a model: configurations are rows, hyperparameters columns, inactive ones NaN."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import rand
from hyperopt.base import Domain

from hyperopt_hyperband._documents import Vals
from hyperopt_hyperband._space import Hyperparameter, hyperparameters

Array = np.ndarray[Any, np.dtype[Any]]

TINY = 1e-300
SPREAD = 2.5
"""A distribution without bounds is taken for this many standard deviations to either side."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One hyperparameter.

    Attributes
    ----------
    choice : its values have no order
    decides : others are active or not by it
    whole : its values are ints in Hyperopt's documents
    budget : it holds the budget, which is no hyperparameter to the model
    low, high : its range, of the logarithm where it is log
    step : its values are multiples of it; None: any
    """

    label: str
    choice: bool = False
    decides: bool = False
    whole: bool = False
    budget: bool = False
    log: bool = False
    low: float = 0.0
    high: float = 1.0
    step: float | None = None

    def unit(self, values: Array) -> Array:
        """The values on a scale where the range is 0 to 1."""
        if self.log:  # a rounded one may be 0
            values = np.where(values <= 0, self.low, np.log(np.maximum(values, TINY)))
        unit: Array = (values - self.low) / (self.high - self.low or 1.0)
        return unit

    def value(self, unit: Array) -> Array:
        """What `unit` maps to these numbers, reflected into the range."""
        unit = 1 - np.abs(1 - np.abs(unit) % 2)
        values: Array = self.low + unit * (self.high - self.low)
        values = np.exp(values) if self.log else values
        return values if self.step is None else np.round(values / self.step) * self.step


def axes(domain: Domain, budgets: Collection[str]) -> list[Axis]:
    """The hyperparameters of a space; budgets: the labels of those that hold the budget.

    Raises
    ------
    ValueError
        A distribution whose parameters are expressions.
    """
    return [
        Axis(label, budget=True) if label in budgets else _axis(known)
        for label, known in hyperparameters(domain.expr).items()
    ]


def _axis(known: Hyperparameter) -> Axis:
    drawn = known.distribution
    whole = drawn.name in ("randint", "categorical")
    if known.is_choice:
        return Axis(known.label, choice=True, decides=True, whole=whole)
    if not drawn.fixed:
        raise ValueError(
            f"the {drawn.name} of {known.label!r} has parameters that are expressions: give it numbers, or "
            "draw at random, with hyperband.suggest"
        )
    if drawn.low is not None and drawn.high is not None:
        low, high = drawn.low, drawn.high
        if drawn.log:
            low, high = math.log(max(low, TINY)), math.log(max(high, TINY))
    else:
        assert drawn.mean is not None
        assert drawn.deviation is not None
        low, high = (drawn.mean + side * SPREAD * drawn.deviation for side in (-1, 1))
    return Axis(
        known.label, decides=known.decides, whole=whole, log=drawn.log, low=low, high=high, step=drawn.step
    )


def matrix(space: Sequence[Axis], configurations: Sequence[Mapping[str, Any]]) -> Array:
    """Configurations, each its active hyperparameters, as rows: NaN where inactive, 0 for any budget."""
    rows = [[active.get(axis.label, math.nan) for axis in space] for active in configurations]
    return _canonical(space, np.array(rows, dtype=float).reshape(len(rows), len(space)))


def random_rows(space: Sequence[Axis], domain: Domain, rng: np.random.Generator, size: int) -> Array:
    """Rows of random configurations, drawn together."""
    idxs, vals = rand.suggest_batch(range(size), domain, None, rng)
    rows = np.full((size, len(space)), math.nan)
    for column, axis in enumerate(space):
        rows[list(idxs[axis.label]), column] = vals[axis.label]
    return _canonical(space, rows)


def _canonical(space: Sequence[Axis], rows: Array) -> Array:
    """Equal configurations as equal bytes: 0 for any budget, no -0, and one kind of NaN."""
    for column, axis in enumerate(space):
        if axis.budget:
            rows[:, column] *= 0
    rows[np.isnan(rows)] = math.nan
    return rows + 0.0


def assignment(space: Sequence[Axis], row: Array) -> Vals:
    """Hyperopt's assignment of a row."""
    return {
        axis.label: [] if math.isnan(value) else [int(value) if axis.whole else value]
        for axis, value in zip(space, row.tolist(), strict=True)
    }


def features(space: Sequence[Axis], rows: Array, choices: Sequence[Array]) -> tuple[Array, Array]:
    """What a model measures distances in, and the hyperparameter that each column belongs to.

    A number lies between 0 and 1, or in the middle where it is inactive. A choice has a column for each of
    its options: two options lie 1 apart, whichever they are.
    """
    columns, owners = [], []
    for i, axis in enumerate(space):
        values = rows[:, i]
        if axis.budget:
            continue
        if axis.choice:
            columns += [(values == option) * math.sqrt(0.5) for option in choices[i]]
            owners += [i] * len(choices[i])
        else:
            columns.append(np.where(np.isnan(values), 0.5, axis.unit(values)))
            owners.append(i)
    return np.column_stack(columns), np.array(owners)


def options(space: Sequence[Axis], rows: Array) -> list[Array]:
    """The options of each choice that occur in any row; empty for numbers."""
    return [
        np.unique(rows[~np.isnan(rows[:, i]), i]) if axis.choice else np.array([])
        for i, axis in enumerate(space)
    ]


def mutated(space: Sequence[Axis], parents: Array, others: Array, rng: np.random.Generator) -> Array:
    """Each parent with some of its hyperparameters changed: numbers a little, choices to those of the row of
    `others` beside it.

    A hyperparameter that others depend on changes only where both rows have the same ones active. So a child
    is a configuration of the space, except where two switches share a hyperparameter, or one depends on
    several.
    """
    count, width = parents.shape
    changed = rng.random((count, width)) < rng.choice([0.0, 0.2, 0.5], size=(count, 1))
    changed[np.arange(count), rng.integers(width, size=count)] = True
    distance = 10 ** rng.uniform(-2.3, -0.5, size=count)
    alike = (np.isnan(parents) == np.isnan(others)).all(axis=1)
    children: Array = parents.copy()
    for i, axis in enumerate(space):
        if axis.budget or axis.low == axis.high:
            continue
        if axis.decides:
            moved, where = others[:, i], changed[:, i] & alike
        else:
            moved = axis.value(axis.unit(parents[:, i]) + distance * rng.standard_normal(count))
            where = changed[:, i]
        children[:, i] = np.where(where, moved, parents[:, i])
    return _canonical(space, children)
