"""The driver's side of the budget: as a node of the space, or as a label of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperopt.base import Domain
from hyperopt.pyll import scope
from hyperopt.pyll.base import Apply

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._schedule import Budget, schedule
from hyperopt_hyperband._space import BudgetLabel, Hyperparameter, hyperparameters

MIN_BUDGET, MAX_BUDGET = 1, 81
"""The bounds where neither the space nor the options give any."""


@dataclass(frozen=True, slots=True)
class BudgetRange:
    """The budgets of a run: their bounds, the label that holds them (None: there is none), their rounding."""

    label: str | None
    min_budget: Budget
    max_budget: Budget
    step: Budget | None = None


@shows_its_call
def budget(label: str, min_budget: Budget, max_budget: Budget) -> Apply:
    """The budget as a node of the space.

    Under `hyperband.suggest` it holds the trial's budget; under every other algorithm max_budget.

    A point of fmin's `points_to_evaluate` has to give the budget too, {label: max_budget} as a rule, like
    every hyperparameter: what a point leaves out, Hyperopt meets with an AssertionError without text.

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
    plan = schedule(min_budget, max_budget)
    integer = isinstance(plan.min_budget, int) and isinstance(plan.max_budget, int)
    kind = int if integer else float
    # A distribution with a single value, max_budget, for the algorithms that know no budgets.
    full = float(plan.max_budget)
    only_full = scope.quniform(0.75 * full, 1.25 * full, full)
    name = BudgetLabel(label, kind(plan.min_budget), kind(plan.max_budget))
    node = scope.hyperopt_param(name, only_full)
    return scope.int(node) if integer else scope.float(node)


def has_node(domain: Domain) -> bool:
    """Whether the space has a budget node, so that the parameters alone tell the budget."""
    return any(isinstance(label, BudgetLabel) for label in domain.params)


def find_budget(
    domain: Domain, label: str | None, min_budget: Budget | None, max_budget: Budget | None
) -> BudgetRange:
    """The budget of a space: its budget node, the hyperparameter of the given label, or none.

    Raises ValueError where the options name no such hyperparameter, or contradict the space.
    """
    if label is not None and not isinstance(label, str):
        raise ValueError(f"budget={label!r}: pass the label of a hyperparameter, a str")
    nodes = [name for name in domain.params if isinstance(name, BudgetLabel)]
    labels = {str(name) for name in nodes} | ({label} if label is not None else set())
    if len(labels) > 1:
        raise ValueError(f"the space has more than one budget, {sorted(labels)}: keep one")
    if nodes:
        found = BudgetRange(str(nodes[0]), nodes[0].min_budget, nodes[0].max_budget)
    elif label is not None:
        found = _labelled(domain, label)
    else:
        return BudgetRange(
            None,
            MIN_BUDGET if min_budget is None else min_budget,
            MAX_BUDGET if max_budget is None else max_budget,
        )
    for name, asked, given in [
        ("min_budget", min_budget, found.min_budget),
        ("max_budget", max_budget, found.max_budget),
    ]:
        if asked is not None and asked != given:
            raise ValueError(
                f"{name}={asked!r} contradicts the space, where {found.label!r} gives {given!r}: "
                "leave the option out, or change the space"
            )
    return found


def _labelled(domain: Domain, label: str) -> BudgetRange:
    known = hyperparameters(domain.expr)
    if label not in known:
        raise ValueError(f"budget={label!r} is not in the space: pass one of {sorted(known)}")
    if known[label].is_choice or known[label].decides:
        raise ValueError(f"budget={label!r} is a choice: pass the label of a numeric hyperparameter")
    return _range(known[label])


def _range(hyperparameter: Hyperparameter) -> BudgetRange:
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
    return BudgetRange(label, low, high, step)
