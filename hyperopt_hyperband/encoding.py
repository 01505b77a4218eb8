"""A space as numbers, for a model: configurations are rows, hyperparameters columns, inactive ones NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import Domain
from hyperopt.pyll.base import Literal

from hyperopt_hyperband.budget import bounds
from hyperopt_hyperband.history import Vals

Array = np.ndarray[Any, np.dtype[Any]]

SPREAD = 2.5
"""A distribution without bounds is taken for this many standard deviations to either side."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One hyperparameter.

    Attributes
    ----------
    choice : its values are indices without an order
    budget : it holds the budget, which is no hyperparameter to the model
    low, high : its range, of the logarithm where it is log
    step : its values are multiples of it; None: any
    """

    label: str
    choice: bool = False
    budget: bool = False
    log: bool = False
    low: float = 0.0
    high: float = 1.0
    step: float | None = None

    def unit(self, values: Array) -> Array:
        """The values on a scale where the range is 0 to 1."""
        values = np.log(np.maximum(values, 1e-300)) if self.log else values
        unit: Array = (values - self.low) / (self.high - self.low or 1.0)
        return unit

    def value(self, unit: Array) -> Array:
        """What `unit` maps to these numbers, reflected into the range."""
        unit = 1 - np.abs(1 - np.abs(unit) % 2)
        values: Array = self.low + unit * (self.high - self.low)
        values = np.exp(values) if self.log else values
        return values if self.step is None else np.round(values / self.step) * self.step


def axes(domain: Domain, budget_label: str | None) -> list[Axis]:
    """The hyperparameters of a space.

    What a switch of the space depends on is a choice, whatever its distribution.
    """
    switches = [node.pos_args[0] for node in pyll.dfs(domain.expr) if node.name == "switch"]
    deciding = {
        node.arg["label"].obj
        for switch in switches
        for node in pyll.dfs(switch)
        if node.name == "hyperopt_param"
    }
    return [
        Axis(str(label), budget=True) if label == budget_label else _axis(str(label), node, label in deciding)
        for label, node in domain.params.items()
    ]


def _axis(label: str, node: pyll.Apply, deciding: bool) -> Axis:
    if deciding or node.name == "categorical":
        return Axis(label, choice=True)
    log = "log" in node.name
    found = bounds(node)
    if found is not None:
        low, high, step = found
        low, high = (math.log(low), math.log(high)) if log else (low, high)
        return Axis(label, log=log, low=low, high=high, step=step)
    given: dict[str, Any] = {name: a.obj for name, a in node.arg.items() if isinstance(a, Literal)}
    mean, reach = given["mu"], SPREAD * given["sigma"]
    return Axis(label, log=log, low=mean - reach, high=mean + reach, step=given.get("q"))


def matrix(space: Sequence[Axis], configurations: Sequence[Vals]) -> Array:
    """Configurations as rows of values, NaN where inactive."""
    missing = (math.nan,)
    return np.array(
        [[(vals.get(axis.label) or missing)[0] for axis in space] for vals in configurations], dtype=float
    ).reshape(len(configurations), len(space))


def random_rows(space: Sequence[Axis], domain: Domain, rng: np.random.Generator, size: int) -> Array:
    """Rows of random configurations, drawn together."""
    idxs, vals = rand.suggest_batch(range(size), domain, None, rng)
    rows = np.full((size, len(space)), math.nan)
    for column, axis in enumerate(space):
        rows[list(idxs[axis.label]), column] = vals[axis.label]
    return rows


def vals_of(space: Sequence[Axis], row: Array) -> Vals:
    """Hyperopt's assignment of a row."""
    return {
        axis.label: [] if math.isnan(value) else [int(value) if axis.choice else value]
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
    """Each parent with some of its hyperparameters changed: numbers a little, choices to another's.

    A choice changes only where the other has the same hyperparameters active, so that every child is a
    configuration of the space.
    """
    count, width = parents.shape
    changed = rng.random((count, width)) < rng.choice([0.0, 0.2, 0.5], size=(count, 1))
    changed[np.arange(count), rng.integers(width, size=count)] = True
    distance = 10 ** rng.uniform(-2.3, -0.5, size=count)
    alike = (np.isnan(parents) == np.isnan(others)).all(axis=1)
    children: Array = parents.copy()
    for i, axis in enumerate(space):
        if axis.choice:
            moved, where = others[:, i], changed[:, i] & alike
        else:
            moved = axis.value(axis.unit(parents[:, i]) + distance * rng.standard_normal(count))
            where = changed[:, i]
        children[:, i] = np.where(where, moved, parents[:, i])
    return children
