"""The driver's side of the budget: as a node of the space, or as a label of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from hyperopt.base import Domain
from hyperopt.pyll import scope
from hyperopt.pyll.base import Apply

from hyperopt_hyperband import _schedule
from hyperopt_hyperband._branches import budgets_together
from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._documents import Vals
from hyperopt_hyperband._history import Held
from hyperopt_hyperband._schedule import Bracket, Budget, Schedule, positive, positive_number, shown
from hyperopt_hyperband._space import (
    BudgetLabel,
    Hyperparameter,
    expression_over,
    hyperparameters,
    parameters,
)
from hyperopt_hyperband._values import as_number

MIN_BUDGET, MAX_BUDGET = 1, 81
"""The bounds where neither the space nor the options nor the objective give any."""

DEFAULT_IS_FULL = "the default is the full budget, at which other algorithms evaluate; make the two the same"


@dataclass(frozen=True, slots=True)
class Knob:
    """One hyperparameter that holds the budget: a node of `hyperband.budget`, or one of the space."""

    label: str
    min_budget: Budget
    max_budget: Budget
    step: Budget | None = None

    def at(self, share: float) -> Budget:
        """Its value at a share of the full budget: rounded to its step, not below its own minimum."""
        if share >= 1:
            return self.max_budget
        value = share * self.max_budget
        if self.step is not None:
            value = round(value / self.step) * self.step
        return max(self.min_budget, value)


@dataclass(frozen=True)
class Budgets:
    """The budgets of a run.

    Attributes
    ----------
    knobs : what holds them, at most one active in a configuration; empty: nothing does
    min_budget, max_budget, step : those of the schedule; with several knobs, shares of the full budget
    """

    knobs: tuple[Knob, ...]
    min_budget: Budget
    max_budget: Budget
    step: Budget | None = None

    @functools.cached_property
    def labels(self) -> frozenset[str]:
        """What holds the budget."""
        return frozenset(knob.label for knob in self.knobs)

    @functools.cached_property
    def maxima(self) -> dict[str, Budget]:
        """What each label holds at max_budget."""
        return {knob.label: knob.max_budget for knob in self.knobs}

    @property
    def in_shares(self) -> bool:
        """Whether rungs are shares of the full budget."""
        return len(self.knobs) > 1

    def plan(self, eta: Budget) -> Schedule:
        """One Hyperband iteration."""
        plan = _schedule.schedule(self.min_budget, self.max_budget, eta, step=self.step)
        if not self.in_shares:
            return plan
        return replace(plan, shares_of=tuple((k.label, k.min_budget, k.max_budget) for k in self.knobs))

    def held(self, vals: Vals, bracket: Bracket, rung: int) -> Held:
        """The budget of a configuration at a rung. Raises ValueError where two are active."""
        budget = bracket.rungs[rung].budget
        active = [knob for knob in self.knobs if len(vals[knob.label])]
        if len(active) > 1:
            raise ValueError(_together([knob.label for knob in active]))
        if not active:
            return Held(budget, final=bool(self.knobs))
        knob = active[0]
        if not self.in_shares:
            return Held(budget, knob.label)
        value = knob.at(budget)
        alike = [other.budget for other in bracket.rungs if knob.at(other.budget) == value]
        highest = alike[-1] if alike[-1] > budget else None
        return Held(value, knob.label, final=highest == self.max_budget, known_at=highest)


def _together(labels: Sequence[str]) -> str:
    return (
        f"the space has more than one budget, {list(labels)}: keep one, its node used twice, since both are "
        "active in one configuration; or put each into an option of its own of an hp.choice"
    )


@shows_its_call
def budget(label: str, min_budget: Budget, max_budget: Budget) -> Apply:
    """The budget as a node of the space.

    Under `hyperband.suggest` it holds the trial's budget; under every other algorithm max_budget.

    A space may have several, each with its own bounds (trees of a forest, epochs of a network), in branches
    of which one is active. The rungs are then shares of the full budget, from the smallest min_budget /
    max_budget to 1: each node holds that share of its own max_budget, rounded where its bounds are ints, and
    at least its min_budget.

    A configuration in which no budget is active is trained in full by its first evaluation, and takes the
    places of every rung in which that loss is among the best (benchmarks/kinds.py compares six such rules).

    A point of our Trials may leave it out. One of fmin's own `points_to_evaluate` has to give it, as a rule
    {label: max_budget}: what that leaves out, Hyperopt meets with an AssertionError without text.

    Parameters
    ----------
    label : str
        The name of the hyperparameter, unique in the space as with every `hp` node.
    min_budget, max_budget : int or float, 0 < min_budget <= max_budget
        What one evaluation may spend, in any unit. Two ints give ints, else floats.

    Raises
    ------
    ValueError
        A label that is not a str, or bounds that `hyperband.schedule` refuses.
    """
    if not isinstance(label, str):
        raise ValueError(f"label={label!r}: pass the name of the budget as a str")
    plan = _schedule.schedule(min_budget, max_budget)
    kind = int if plan.integer else float
    # A distribution with a single value, max_budget, for the algorithms that know no budgets.
    full = float(plan.max_budget)
    only_full = scope.quniform(0.75 * full, 1.25 * full, full)
    name = BudgetLabel(label, kind(plan.min_budget), kind(plan.max_budget))
    node = scope.hyperopt_param(name, only_full)
    return scope.int(node) if plan.integer else scope.float(node)


@overload
def schedule(
    min_budget: Budget, max_budget: Budget, eta: Budget = 3, *, step: Budget | None = None
) -> Schedule: ...
@overload
def schedule(min_budget: Any, *, budget: str | Sequence[str] | None = None, eta: Budget = 3) -> Schedule: ...
@shows_its_call
def schedule(
    min_budget: Any,
    max_budget: Budget | None = None,
    eta: Budget = 3,
    *,
    step: Budget | None = None,
    budget: str | Sequence[str] | None = None,
) -> Schedule:
    """Plan one Hyperband iteration, from two bounds or from a space: `schedule(1, 81)`, `schedule(space)`.

    Bracket s of s_max, ..., 0 draws n = ceil((s_max + 1) / (s + 1) * eta^s) configurations; its rung i
    evaluates floor(n * eta^-i) of them at budget max_budget * eta^(i - s), s_max being the largest s with
    min_budget * eta^s <= max_budget. (The paper's Table 1 starts its brackets with 81, 27, 9, 6, 5
    configurations where Algorithm 1 gives 81, 34, 15, 8, 5: its authors' code rounds down
    inside the bracket.) What it counts is the most that an iteration takes: a final result needs no
    evaluation at higher budgets, and what has failed is not promoted.

    Parameters
    ----------
    min_budget : int or float, 0 < min_budget <= max_budget; or a space
        The least that one evaluation may spend, in any unit; or the space of the run, whose budget then
        gives both bounds.
    max_budget : int or float
        The most that one evaluation may spend. Two ints give int budgets.
    eta : int or float, at least 2
        Each rung keeps the best 1/eta of its configurations. Default 3; with a space, pass it by name.
    step : int or float, optional
        Budgets are rounded to multiples of it; the top rung stays at max_budget. Default 1 for ints,
        no rounding for floats; a space brings its own.
    budget : str or list of str, optional
        With a space: the label of its hyperparameter that is the budget, as in `hyperband.suggest`, or
        several. Default: its `hyperband.budget` nodes.

    Raises
    ------
    ValueError
        A budget or step that is not a positive finite number, min_budget above max_budget or below step, eta
        below 2; a space without a budget, or bounds beside a space.

    Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1.
    """
    if not isinstance(min_budget, Apply | dict | list | tuple):
        if max_budget is None:
            raise ValueError(f"min_budget={min_budget!r}: pass two bounds, as in schedule(1, 81), or a space")
        if budget is not None:
            raise ValueError(f"budget={budget!r} is a label: pass the space that has it, in place of bounds")
        return _schedule.schedule(min_budget, max_budget, eta, step=step)
    for name, value in (("max_budget", max_budget), ("step", step)):
        if value is not None:
            raise ValueError(
                f"{name}={value!r} beside a space, whose budget gives it: pass budget and eta alone, by name"
            )
    found = find_budget(Domain(None, min_budget), budget)
    if not found.knobs:
        raise ValueError(
            "the space has no budget: put hyperband.budget(label, min_budget, max_budget) into it, or name "
            "one of its hyperparameters with budget=label; else pass the bounds, as in schedule(1, 81)"
        )
    return found.plan(eta)


def has_node(domain: Domain) -> bool:
    """Whether the space has a budget node, so that the parameters alone tell the budget."""
    return bool(_nodes(domain.expr))


def find_budget(
    domain: Domain,
    budget: str | Sequence[str] | None,
    min_budget: Budget | None = None,
    max_budget: Budget | None = None,
    default: Budget | None = None,
) -> Budgets:
    """The budgets of a space: its budget nodes, and the hyperparameters of the given labels.

    Where there is none, the bounds are those of the options, and by default MIN_BUDGET and what the objective
    has as its default for the budget, or MAX_BUDGET.

    Raises ValueError where the options name no such hyperparameter, or where options, space and objective
    contradict each other, an expression of the space changes a budget, or two are active at once.
    """
    named = [budget] if isinstance(budget, str) else [] if budget is None else budget
    if not isinstance(named, list | tuple) or not all(isinstance(label, str) for label in named):
        raise ValueError(f"budget={budget!r}: pass the label of a hyperparameter, a str, or a list of labels")
    found = _budgets_of(domain.expr, tuple(named))
    if not found.knobs:
        return _unlabelled(default, min_budget, max_budget)
    for knob in found.knobs:
        if default is not None and not math.isclose(default, knob.max_budget, rel_tol=1e-9):
            raise ValueError(
                f"the objective's default budget={default!r} contradicts the space, where {knob.label!r} "
                f"gives max_budget={knob.max_budget!r}: {DEFAULT_IS_FULL}"
            )
        for name, asked, given in [
            ("min_budget", min_budget, knob.min_budget),
            ("max_budget", max_budget, knob.max_budget),
        ]:
            if asked is not None and asked != given:
                raise ValueError(
                    f"{name}={asked!r} contradicts the space, where {knob.label!r} gives {given!r}: "
                    "leave the option out, or change the space"
                )
    return found


@functools.lru_cache(maxsize=8)
def _budgets_of(space: Apply, named: tuple[str, ...]) -> Budgets:
    """The budgets of a space, before options and objective are held against it."""
    nodes = {str(node): node for node in _nodes(space)}
    labels = frozenset({*nodes, *named})
    if together := budgets_together(space, labels):
        raise ValueError(_together(together))
    known = hyperparameters(space)
    knobs = tuple(
        _knob_of_node(nodes[label]) if label in nodes else _knob_of_label(known, label)
        for label in sorted(labels)
    )
    for label in labels:
        if expression := expression_over(space, label):
            raise ValueError(
                f"budget={label!r} stands in the expression {expression}, so the objective would not get the "
                "budget: let it stand bare, or under int, float or round, and compute in the objective"
            )
    if len(knobs) > 1:
        return Budgets(knobs, min(knob.min_budget / knob.max_budget for knob in knobs), 1.0)
    return (
        Budgets(knobs, knobs[0].min_budget, knobs[0].max_budget, knobs[0].step)
        if knobs
        else Budgets((), 1, 1)
    )


def _nodes(space: Apply) -> list[BudgetLabel]:
    labels = (node.arg["label"].obj for node in parameters(space))
    return [label for label in labels if isinstance(label, BudgetLabel)]


def _knob_of_node(node: BudgetLabel) -> Knob:
    whole = isinstance(node.min_budget, int) and isinstance(node.max_budget, int)
    return Knob(str(node), node.min_budget, node.max_budget, 1 if whole else None)


def _unlabelled(default: Budget | None, min_budget: Budget | None, max_budget: Budget | None) -> Budgets:
    if default is not None and max_budget is not None and positive("max_budget", max_budget) != default:
        raise ValueError(
            f"max_budget={max_budget!r} contradicts the objective's default budget={default!r}: "
            f"{DEFAULT_IS_FULL}"
        )
    if default is not None and min_budget is None and default <= MIN_BUDGET:
        raise ValueError(
            f"the objective's default budget={default!r} is the full budget, not above min_budget, which is "
            f"{MIN_BUDGET} where none is given: pass a min_budget, or make the default the full budget"
        )
    return Budgets(
        (),
        MIN_BUDGET if min_budget is None else min_budget,
        max_budget if max_budget is not None else default if default is not None else MAX_BUDGET,
    )


def more_brackets(plan: Schedule, budgets: Budgets) -> str:
    """The numbers nearest to those of a schedule with a single bracket that make two or more, as text."""
    step = budgets.step
    if budgets.in_shares:
        knob = min(budgets.knobs, key=lambda knob: knob.min_budget / knob.max_budget)
        low = knob.max_budget / plan.eta
        low = low if knob.step is None else math.floor(low / knob.step * (1 + 1e-9)) * knob.step
        return f"{shown(low)} or less as min_budget of {knob.label!r}"

    def least(eta: Budget) -> Budget:
        """The largest min_budget that leaves two brackets; 0: there is none."""
        low = plan.max_budget / eta
        grid = step or (1 if isinstance(plan.min_budget, int) else 10 ** (math.floor(math.log10(low)) - 2))
        low = math.floor(low / grid * (1 + 1e-9)) * grid
        return low if isinstance(low, int) else float(f"{low:.6g}")

    ways = [f"min_budget={low} or less"] if (low := least(plan.eta)) else []
    if plan.min_budget * 2 <= plan.max_budget:
        ways.append("eta=2")
    return ", or ".join(ways) or f"min_budget={least(2)} or less and eta=2"


def _knob_of_label(known: Mapping[str, Hyperparameter], label: str) -> Knob:
    if label not in known:
        raise ValueError(f"budget={label!r} is not in the space: pass one of {sorted(known)}")
    if known[label].is_choice or known[label].decides:
        numbers = [as_number(option) for option in known[label].options or ()]
        ordered = numbers and all(positive_number(each) is not None for each in numbers)
        node = f"hyperband.budget({label!r}, {min(numbers)}, {max(numbers)})" if ordered else ""
        raise ValueError(
            f"budget={label!r} is a choice: pass the label of a numeric hyperparameter"
            + f", or put {node} in its place" * bool(node)
        )
    return _knob(known[label])


def _knob(hyperparameter: Hyperparameter) -> Knob:
    label, drawn = hyperparameter.label, hyperparameter.distribution
    low, high, step = drawn.low, drawn.high, drawn.step
    if low is None or high is None:
        raise ValueError(
            f"budget={label!r} is {drawn.name}, which has no bounds: use uniform, quniform, uniformint, "
            "randint, loguniform or qloguniform, or hyperband.budget(label, min_budget, max_budget)"
        )
    if step is not None:
        # The smallest and largest positive multiples, whatever 1/3 * 3 makes of rounding.
        low, high = max(1, math.ceil(low / step - 1e-9)) * step, math.floor(high / step + 1e-9) * step
        if all(float(number).is_integer() for number in (low, high, step)):
            low, high, step = int(low), int(high), int(step)
    if not 0 < low <= high:
        raise ValueError(
            f"budget={label!r} goes from {low!r} to {high!r} in the space: a budget is positive; give it "
            "other bounds, or use hyperband.budget(label, min_budget, max_budget)"
        )
    return Knob(label, low, high, step)
