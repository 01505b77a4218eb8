"""All that a space tells of its hyperparameters: the one module that reads pyll graphs."""

from __future__ import annotations

import functools
import math
import re
import reprlib
import textwrap
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import pyll
from hyperopt.base import Ctrl
from hyperopt.pyll.base import Apply, Literal

from hyperopt_hyperband._schedule import Budget
from hyperopt_hyperband._values import number

CONVERSIONS = ("int", "float", "round")


class BudgetLabel(str):
    """The label of a budget node, which remembers the bounds."""

    min_budget: Budget
    max_budget: Budget

    def __new__(cls, label: str, min_budget: Budget, max_budget: Budget) -> BudgetLabel:
        self = super().__new__(cls, label)
        self.min_budget, self.max_budget = min_budget, max_budget
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return BudgetLabel, (str(self), self.min_budget, self.max_budget)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a hyperparameter is drawn from.

    Attributes
    ----------
    name : Hyperopt's: "uniform", "randint", "categorical" ...
    log : its logarithm is what is uniform, or normal
    low, high : the least and the largest value; None where there is none, or it is an expression
    step : values are multiples of it; None: any value
    mean, deviation : of a normal distribution, or of its logarithm where log; None for others
    fixed : none of its parameters is an expression
    """

    name: str
    log: bool
    low: float | None = None
    high: float | None = None
    step: float | None = None
    mean: float | None = None
    deviation: float | None = None
    fixed: bool = True

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        step = 1 if self.name in ("categorical", "randint") else self.step
        if step and abs(value / step - round(value / step)) > 1e-6:
            return False
        if self.log and (
            value < 0 or (value == 0 and not step and self.low != 0)
        ):  # rounded to its step, it may be 0
            return False
        if self.low is None or self.high is None:
            return True
        slack = (self.step or 0) / 2 + 1e-9 * abs(self.high - self.low)
        return self.low - slack <= value <= self.high + slack


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One label of a space.

    Attributes
    ----------
    decides : which other hyperparameters are active depends on it
    options : the names of a choice's options; None for a number
    """

    label: str
    distribution: Distribution
    decides: bool
    options: tuple[str, ...] | None

    @property
    def is_choice(self) -> bool:
        """Whether its values are indices, without an order."""
        return self.distribution.name == "categorical" or (
            self.decides and self.distribution.name == "randint"
        )

    @property
    def could_be_budget(self) -> bool:
        """Whether it is a number that lies between bounds and may be positive."""
        low, high = self.distribution.low, self.distribution.high
        return self.options is None and low is not None and high is not None and 0 <= low < high

    def has(self, value: float) -> bool:
        """Whether it can have this value, a choice's being its index."""
        return value in self.distribution and (self.options is None or 0 <= value < len(self.options))

    def number(self, value: Any) -> int | float | None:
        """A value as a number, an option of a choice as its index; None where it can't be told.

        An option may be given by its name, as in a point of `points_to_evaluate`: Hyperopt can't evaluate
        that, but the document stays. A text that fits one option as its index, and another one by name, is
        not understood.
        """
        given = number(value)
        if self.options is None:
            return given
        index = None if given is None or given not in range(len(self.options)) else int(given)
        named = self.options.index(str(value)) if str(value) in self.options else None
        if isinstance(value, str) and index is not None and named is not None and index != named:
            return None
        return named if index is None else index

    def shown(self, value: Any) -> Any:
        """The name of a choice's option; any other value as it is."""
        index = self.number(value)
        return value if self.options is None or index is None else self.options[int(index)]


def hyperparameters(space: Any) -> dict[str, Hyperparameter]:
    """The hyperparameters of a space, by label.

    A choice's options are named by what they are. Dicts are named by the text under the first key whose texts
    all differ ({"kind": "svm", "C": ...}, {"kind": "forest"}), tuples and lists likewise by position; else by
    index.
    """
    nodes = pyll.dfs(pyll.as_apply(space))
    switches = [node.pos_args for node in nodes if node.name == "switch"]
    options = {label_of(s): rest for s, *rest in switches if s.name == "hyperopt_param"}
    decide = {label_of(each) for selector, *_ in switches for each in parameters(selector)}
    return {
        label: Hyperparameter(
            label,
            distribution(node.arg["obj"]),
            decides=label in decide,
            options=_names(options[label]) if label in options else None,
        )
        for node in nodes
        if node.name == "hyperopt_param" and (label := label_of(node))
    }


def parameters(space: Apply) -> list[Apply]:
    """The nodes of a space's hyperparameters."""
    return [node for node in pyll.dfs(space) if node.name == "hyperopt_param"]


def label_of(parameter: Apply) -> str:
    """The label of a hyperparameter's node."""
    return str(parameter.arg["label"].obj)


def distribution(node: Apply) -> Distribution:
    """What the node of a distribution says; parameters that are expressions count as not given."""
    given: dict[str, Any] = {name: a.obj for name, a in node.arg.items() if isinstance(a, Literal)}
    fixed = not any(isinstance(a, Apply) and name not in given for name, a in node.arg.items())
    low, high, step = given.get("low"), given.get("high"), given.get("q") or None
    log = "log" in node.name
    match node.name:
        case "randint" if low is not None and fixed:
            low, high, step = (0, low - 1, 1) if high is None else (low, high - 1, 1)
        case "categorical":
            low = high = None
        case _ if low is None or high is None:
            low = high = None
        case _ if log:
            low, high = _exp(low), _exp(high)
    return Distribution(node.name, log, low, high, step, given.get("mu"), given.get("sigma"), fixed)


def contains(space: Apply, vals: Mapping[str, Sequence[Any]], budgets: Collection[str | None]) -> bool:
    """Whether the space can draw these values: inside their bounds, and just those that are active.

    The labels that hold the budget may have any value.
    """
    nodes = parameters(space)
    held = {node: vals[label_of(node)][0] for node in nodes if vals[label_of(node)]}
    if not all(
        isinstance(value, int | float) and value in distribution(node.arg["obj"])
        for node, value in held.items()
        if label_of(node) not in budgets
    ):
        return False
    active: set[Apply] = set()
    waiting = [space]
    while waiting:
        node = waiting.pop()
        if node in active:
            continue
        active.add(node)
        if node.name != "switch":
            waiting += node.inputs()
            continue
        selector, *options = node.pos_args
        if not held.keys() >= set(parameters(selector)):
            return False
        option = pyll.rec_eval(selector, memo=dict(held))
        if not (isinstance(option, int | np.integer) and 0 <= option < len(options)):
            return False  # a float is no index to Hyperopt either
        waiting += [selector, options[option]]
    return active.intersection(nodes) == held.keys()


@functools.lru_cache(maxsize=8)
def option_names(space: Apply) -> dict[str, tuple[str, ...]]:
    """The names of the options of each choice."""
    known = hyperparameters(space).items()
    return {label: found.options for label, found in known if found.options is not None}


@functools.lru_cache(maxsize=8)
def name_of(space: Apply) -> int:
    """A number short for all that a space says, the same in every process."""
    return zlib.crc32(re.sub(r" at 0x[0-9a-f]+", "", str(space)).encode())


@functools.lru_cache(maxsize=8)
def expression_over(space: Apply, label: str) -> str | None:
    """An expression of the space that changes a hyperparameter, as text; None where its value is handed on.

    It is handed on bare or under int, float or round, in dicts, lists, tuples and the options of choices.
    """
    holding: set[Apply] = set()
    for node in pyll.dfs(space):  # what a node is made of comes before it
        inside = holding.intersection(node.inputs())
        if inside and not (
            node.name in (*CONVERSIONS, "dict", "pos_args")
            or (node.name == "switch" and node.pos_args[0] not in inside)
        ):
            return textwrap.shorten(as_text(node), 100)
        if inside or (node.name == "hyperopt_param" and label_of(node) == label):
            holding.add(node)
    return None


def has_ctrl(space: Apply) -> bool:
    """Whether the space hands the trial's Ctrl to the objective."""
    return any(isinstance(node, Literal) and node.obj is Ctrl for node in pyll.dfs(space))


def evaluate(space: Apply, memo: dict[Apply, Any]) -> Any:
    """What the objective gets of a space, its hyperparameters given by node."""
    return pyll.rec_eval(space, memo=memo, print_node_on_error=False)


def _exp(logarithm: float) -> float:
    """exp, but a whole number where only rounding keeps it from one, as with exp(log(27))."""
    value = math.exp(min(logarithm, 700))  # what is larger still would overflow
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-12) else value


def _names(options: Sequence[Apply]) -> tuple[str, ...]:
    texts = [_texts(option) for option in options]
    inside = [own for own in texts if own is not None]

    def tells_apart(key: str | int) -> bool:
        return len({own.get(key) for own in inside} - {None}) == len(inside)

    key = next((key for own in inside[:1] for key in own if tells_apart(key)), None)
    names = tuple(
        _value(option) if own is None else str(own[key] if key is not None else next(iter(own.values()), i))
        for i, (option, own) in enumerate(zip(options, texts, strict=True))
    )
    distinct = len(set(names)) == len(names)
    return names if distinct else tuple(f"{i}: {name}" for i, name in enumerate(names))


def _texts(option: Apply) -> dict[str | int, str] | None:
    """The texts right inside an option, by key or position; None where it is a plain value."""
    if option.name == "dict":
        inside = dict(option.named_args)
    elif not parameters(option):
        return None
    else:
        inside = dict(enumerate(option.pos_args)) if option.name == "pos_args" else {}
    return {
        key: node.obj
        for key, node in inside.items()
        if isinstance(node, Literal) and isinstance(node.obj, str)
    }


def as_text(node: Apply) -> str:
    """An expression as text, hyperparameters by their labels and without conversions."""
    if node.name == "hyperopt_param":
        return label_of(node)
    if isinstance(node, Literal):
        return reprlib.repr(node.obj)
    inside = [as_text(each) for each in node.inputs()]
    return inside[0] if node.name in CONVERSIONS else f"{node.name}({', '.join(inside)})"


def _value(option: Apply) -> str:
    value = pyll.rec_eval(option)
    return getattr(value, "__name__", None) or str(value)
