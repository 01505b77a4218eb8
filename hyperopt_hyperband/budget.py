"""The objective's side: the budget as a node of the space, as a label of it, or as an argument."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hyperopt import pyll
from hyperopt.base import Domain
from hyperopt.pyll import scope
from hyperopt.pyll.base import Apply, Literal

from hyperopt_hyperband.schedule import Budget, schedule

MIN_BUDGET, MAX_BUDGET = 1, 81
"""The bounds where neither the space nor the options give any."""

NO_TRIAL = (
    "with_budget needs the trial, and SparkTrials hands none to the objective: put "
    "hyperband.budget(label, min_budget, max_budget) into the space instead"
)


@dataclass(frozen=True, slots=True)
class Knob:
    """The budget as a run sees it: its bounds, its label in the space (None: it has none), its rounding."""

    label: str | None
    min_budget: Budget
    max_budget: Budget
    step: Budget | None = None


class _BudgetLabel(str):
    """The label of a budget node, which remembers the bounds."""

    knob: Knob

    def __new__(cls, label: str, knob: Knob) -> _BudgetLabel:
        self = super().__new__(cls, label)
        self.knob = knob
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _BudgetLabel, (str(self), self.knob)


def budget(label: str, min_budget: Budget, max_budget: Budget) -> Apply:
    """The budget as a node of the space.

    Under `hyperband.suggest` it holds the trial's budget; under every other algorithm max_budget.

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
    knob = Knob(label, kind(plan.min_budget), kind(plan.max_budget))
    # A distribution with a single value, max_budget, for the algorithms that know no budgets.
    full = float(plan.max_budget)
    only_full = scope.quniform(0.75 * full, 1.25 * full, full)
    node = scope.hyperopt_param(_BudgetLabel(label, knob), only_full)
    return scope.int(node) if integer else scope.float(node)


def with_budget(objective: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the trial's budget to an objective as its argument `budget`.

        @hyperband.with_budget
        def objective(params, budget=81): ...

    Where the trial has no budget (TPE, random search), the function's own default holds. Called
    directly, the function is what it was.

    Raises
    ------
    ValueError
        The function takes no argument named budget. In fmin: the trials are SparkTrials, which hand the
        objective no trial; put the budget into the space with `hyperband.budget`.
    """
    signature = inspect.signature(objective)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if "budget" not in signature.parameters and not takes_any:
        raise ValueError(
            f"{_name(objective)}{signature} takes no budget: add an argument, such as budget={MAX_BUDGET}"
        )

    @functools.wraps(objective)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        if args or kwargs.keys() != {"expr", "memo", "ctrl"}:
            return objective(*args, **kwargs)
        if kwargs["ctrl"] is None:
            raise ValueError(NO_TRIAL)
        params = pyll.rec_eval(kwargs["expr"], memo=kwargs["memo"], print_node_on_error=False)
        misc = kwargs["ctrl"].current_trial["misc"]
        return objective(params, **({"budget": misc["budget"]} if "budget" in misc else {}))

    evaluate.fmin_pass_expr_memo_ctrl = True  # type: ignore[attr-defined]
    evaluate.needs_trial = True  # type: ignore[attr-defined]
    return evaluate


def find_knob(
    domain: Domain, label: str | None, min_budget: Budget | None, max_budget: Budget | None
) -> Knob:
    """The budget of a space: its budget node, the hyperparameter of the given label, or none.

    Raises ValueError where the options name no such hyperparameter, or contradict the space.
    """
    nodes = [name for name in domain.params if isinstance(name, _BudgetLabel)]
    labels = {str(name) for name in nodes} | ({label} if label is not None else set())
    if len(labels) > 1:
        raise ValueError(f"the space has more than one budget, {sorted(map(str, labels))}: keep one")
    if nodes:
        knob = nodes[0].knob
    elif label is not None:
        knob = _labelled(domain, label)
    else:
        return Knob(
            None,
            MIN_BUDGET if min_budget is None else min_budget,
            MAX_BUDGET if max_budget is None else max_budget,
        )
    for name, asked, found in [
        ("min_budget", min_budget, knob.min_budget),
        ("max_budget", max_budget, knob.max_budget),
    ]:
        if asked is not None and asked != found:
            raise ValueError(
                f"{name}={asked!r} contradicts the space, where {knob.label!r} gives {found!r}: "
                "leave the option out, or change the space"
            )
    return knob


def _labelled(domain: Domain, label: str) -> Knob:
    if label not in domain.params:
        raise ValueError(
            f"budget={label!r} is not in the space: pass one of {sorted(map(str, domain.params))}"
        )
    node = domain.params[label]
    if node.name == "categorical" or (node.name == "randint" and _is_choice(domain, label)):
        raise ValueError(f"budget={label!r} is a choice: pass the label of a numeric hyperparameter")
    bounds = _bounds(node)
    if bounds is None:
        raise ValueError(
            f"budget={label!r} is {node.name}, which has no bounds: use uniform, quniform, uniformint, "
            "randint, loguniform or qloguniform, or hyperband.budget(label, min_budget, max_budget)"
        )
    low, high, step = bounds
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


def _bounds(node: Apply) -> tuple[float, float, float | None] | None:
    """Low, high and step of a distribution; None where it has no bounds."""
    given: dict[str, Any] = {name: a.obj for name, a in node.arg.items() if isinstance(a, Literal)}
    low, high = given.get("low"), given.get("high")
    match node.name:
        case "randint":
            return (0, given["low"] - 1, 1) if high is None else (given["low"], high - 1, 1)
        case "uniform" | "quniform" if low is not None and high is not None:
            return low, high, given.get("q")
        case "loguniform" | "qloguniform" if low is not None and high is not None:
            return _exp(low), _exp(high), given.get("q")
    return None


def _exp(logarithm: float) -> float:
    """exp, but a whole number where only rounding keeps it from one, as with exp(log(27))."""
    value = math.exp(logarithm)
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-12) else value


def _is_choice(domain: Domain, label: str) -> bool:
    return any(
        node.name == "switch"
        and node.pos_args[0].name == "hyperopt_param"
        and node.pos_args[0].arg["label"].obj == label
        for node in pyll.dfs(domain.expr)
    )


def _name(objective: Callable[..., Any]) -> str:
    return getattr(objective, "__name__", repr(objective))
