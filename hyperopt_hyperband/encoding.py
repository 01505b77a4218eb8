"""A space as numbers, for a model: configurations are rows, hyperparameters columns, inactive ones NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import Domain
from hyperopt.pyll.base import Apply, Literal

from hyperopt_hyperband.budget import bounds, deciding
from hyperopt_hyperband.history import Vals

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
    deciding : others are active or not by it
    whole : its values are ints in Hyperopt's documents
    budget : it holds the budget, which is no hyperparameter to the model
    low, high : its range, of the logarithm where it is log
    step : its values are multiples of it; None: any
    """

    label: str
    choice: bool = False
    deciding: bool = False
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


def axes(domain: Domain, budget_label: str | None) -> list[Axis]:
    """The hyperparameters of a space.

    Raises
    ------
    ValueError
        A distribution whose parameters are expressions.
    """
    decide = deciding(domain)
    return [
        Axis(str(label), budget=True) if label == budget_label else _axis(str(label), node, label in decide)
        for label, node in domain.params.items()
    ]


def _axis(label: str, node: Apply, deciding: bool) -> Axis:
    whole = node.name in ("randint", "categorical")
    if node.name == "categorical" or (deciding and whole):
        return Axis(label, choice=True, deciding=True, whole=whole)
    log = "log" in node.name
    found = bounds(node)
    if found is not None:
        low, high, step = found
        low, high = (math.log(max(low, TINY)), math.log(max(high, TINY))) if log else (low, high)
        return Axis(label, deciding=deciding, whole=whole, log=log, low=low, high=high, step=step)
    given: dict[str, Any] = {name: a.obj for name, a in node.arg.items() if isinstance(a, Literal)}
    if not given.keys() >= {"mu", "sigma"}:
        raise ValueError(
            f"the {node.name} of {label!r} has parameters that are expressions: give it numbers, or draw at "
            "random, with hyperband.suggest"
        )
    mean, reach = given["mu"], SPREAD * given["sigma"]
    low, high, step = mean - reach, mean + reach, given.get("q")
    return Axis(label, deciding=deciding, log=log, low=low, high=high, step=step)


def matrix(space: Sequence[Axis], configurations: Sequence[Vals]) -> Array:
    """Configurations as rows of values; NaN where inactive, 0 for any budget."""
    missing = (math.nan,)
    rows = [[(vals.get(axis.label) or missing)[0] for axis in space] for vals in configurations]
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


def vals_of(space: Sequence[Axis], row: Array) -> Vals:
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
        if axis.deciding:
            moved, where = others[:, i], changed[:, i] & alike
        else:
            moved = axis.value(axis.unit(parents[:, i]) + distance * rng.standard_normal(count))
            where = changed[:, i]
        children[:, i] = np.where(where, moved, parents[:, i])
    return _canonical(space, children)


def is_valid(domain: Domain, vals: Vals, budget_label: str | None) -> bool:
    """Whether the space can draw these values: inside their bounds, and just those that are active.

    Variations of strangers may lie outside, and others where `mutated` says so.
    """
    nodes = [node for node in pyll.dfs(domain.expr) if node.name == "hyperopt_param"]
    memo = {node: vals[label][0] for node in nodes if vals[label := node.arg["label"].obj]}
    active: set[Apply] = set()
    waiting = [domain.expr]
    while waiting:
        node = waiting.pop()
        if node in active:
            continue
        active.add(node)
        if node.name != "switch":
            waiting += node.inputs()
            continue
        selector, *options = node.pos_args
        asked = [each for each in pyll.dfs(selector) if each.name == "hyperopt_param"]
        if not memo.keys() >= set(asked):
            return False
        option = int(pyll.rec_eval(selector, memo=memo))
        if not 0 <= option < len(options):
            return False
        waiting += [selector, options[option]]
    return active.intersection(nodes) == memo.keys() and all(
        _within(node.arg["obj"], value)
        for node, value in memo.items()
        if node.arg["label"].obj != budget_label
    )


def _within(node: Apply, value: float) -> bool:
    found = bounds(node)
    if found is None:
        return True
    low, high, step = found
    slack = (step or 0) / 2 + 1e-9 * abs(high - low)
    return low - slack <= value <= high + slack
