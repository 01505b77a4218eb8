"""The objective's side: the budget as a node of the space, as a label of it, or as an argument."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperopt import pyll
from hyperopt.base import Domain
from hyperopt.pyll import scope
from hyperopt.pyll.base import Apply, GarbageCollected, Literal

from hyperopt_hyperband.checkpoint import Slot, leave, slot_of_parameters, slot_of_trial, take_up
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


def with_budget(
    objective: Callable[..., Any] | None = None, *, checkpoint_dir: str | os.PathLike[str] | None = None
) -> Callable[..., Any]:
    """Hand the trial's budget, and the checkpoint to train on from, to an objective.

        @hyperband.with_budget
        def objective(params, budget=81, checkpoint=None): ...

    Where the trial has no budget (TPE, random search), the function's own default holds. Called directly,
    the function is what it was.

    `checkpoint` may be left out. It is None on a configuration's first evaluation, and wherever there is
    none: train from the start. On a promotion, `checkpoint.state` is what the evaluation at the rung below
    has returned under the key "checkpoint" of its result, and `checkpoint.budget` the budget of that
    evaluation: train on until `budget`. Anything that pickles can be returned there, and what comes back is
    a copy. An evaluation that fails, or is interrupted and issued again, never counts: the next one starts
    from the rung below too. Checkpoints are dropped once no promotion can take them up, those of the top
    rung at once: to keep a model, return it among the "attachments" of the result.

    Parameters
    ----------
    objective : callable
        Takes the parameters, budget, and checkpoint if it is to train on.
    checkpoint_dir : str or path, optional
        A folder for the checkpoints, which all processes and machines of the run see, one subfolder a
        configuration. Default: Hyperopt's trial attachments, in memory. SparkTrials has none and needs the
        folder, for itself alone, and a `hyperband.budget` node in the space. What a killed process has half
        saved is never read; remove the folder after the run. Its files are pickles: let nobody write there
        whom you do not trust.

    Raises
    ------
    ValueError
        The function takes no budget beside the parameters, or no checkpoint for a checkpoint_dir. In fmin,
        under SparkTrials: the space has no `hyperband.budget`, there is no checkpoint_dir for checkpoints, or
        another run has taken it.
    """
    if objective is None:
        return functools.partial(with_budget, checkpoint_dir=checkpoint_dir)
    if not callable(objective):
        raise ValueError(f"with_budget({objective!r}): pass a function, and checkpoint_dir by its name")
    signature = inspect.signature(objective)
    takes_checkpoint = "checkpoint" in signature.parameters
    try:
        signature.bind({}, budget=MAX_BUDGET, **({"checkpoint": None} if takes_checkpoint else {}))
    except TypeError as error:
        raise ValueError(
            f"{_name(objective)}{signature} takes no budget: add an argument beside the parameters, such as "
            f"budget={MAX_BUDGET} ({error})"
        ) from None
    if checkpoint_dir is not None and not takes_checkpoint:
        raise ValueError(
            f"checkpoint_dir={str(checkpoint_dir)!r}, but {_name(objective)}{signature} takes no checkpoint: "
            "add the argument checkpoint=None, or leave checkpoint_dir out"
        )
    folder = None if checkpoint_dir is None else Path(checkpoint_dir).absolute()

    @functools.wraps(objective)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        if args or kwargs.keys() != {"expr", "memo", "ctrl"}:
            return objective(*args, **kwargs)
        expr, memo, ctrl = kwargs["expr"], kwargs["memo"], kwargs["ctrl"]
        if ctrl is None:
            budget, slot = _without_trial(expr, memo, folder)
        else:
            budget, slot = ctrl.current_trial["misc"].get("budget"), slot_of_trial(ctrl, folder)
        params = pyll.rec_eval(expr, memo=memo, print_node_on_error=False)
        given = {} if budget is None else {"budget": budget}
        if not takes_checkpoint:
            return objective(params, **given)
        result = objective(params, checkpoint=take_up(slot), **given)
        if not isinstance(result, Mapping):
            return result
        result = dict(result)
        state = result.pop("checkpoint", None)
        left = leave(slot, state)
        if left is not None and ctrl is not None:
            # Hyperopt moves it on, where the loss is valid.
            result["attachments"] = {**result.get("attachments", {}), "checkpoint": left}
        return result

    vars(evaluate).update(
        fmin_pass_expr_memo_ctrl=True,
        needs_trial=True,
        takes_checkpoint=takes_checkpoint,
        checkpoint_dir=folder,
    )
    return evaluate


def has_node(domain: Domain) -> bool:
    """Whether the space has a budget node, so that the parameters alone tell the budget."""
    return any(isinstance(label, _BudgetLabel) for label in domain.params)


def _without_trial(
    expr: Apply, memo: dict[Apply, Any], folder: Path | None
) -> tuple[Budget | None, Slot | None]:
    """The budget and the slot of an evaluation, from its parameters alone."""
    labels = {node.arg["label"].obj: node for node in pyll.dfs(expr) if node.name == "hyperopt_param"}
    vals = {name: memo[node] for name, node in labels.items() if memo[node] is not GarbageCollected}
    own = [name for name in labels if isinstance(name, _BudgetLabel)]
    if not own:
        raise ValueError(NO_TRIAL)
    if own[0] not in vals:
        return None, None  # in a branch that is not active
    knob = own[0].knob
    budget = type(knob.max_budget)(vals.pop(own[0]))
    return budget, slot_of_parameters(vals, budget, knob.max_budget, folder)


def find_knob(
    domain: Domain, label: str | None, min_budget: Budget | None, max_budget: Budget | None
) -> Knob:
    """The budget of a space: its budget node, the hyperparameter of the given label, or none.

    Raises ValueError where the options name no such hyperparameter, or contradict the space.
    """
    if label is not None and not isinstance(label, str):
        raise ValueError(f"budget={label!r}: pass the label of a hyperparameter, a str")
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
    if node.name == "categorical" or label in deciding(domain):
        raise ValueError(f"budget={label!r} is a choice: pass the label of a numeric hyperparameter")
    found = bounds(node)
    if found is None:
        raise ValueError(
            f"budget={label!r} is {node.name}, which has no bounds: use uniform, quniform, uniformint, "
            "randint, loguniform or qloguniform, or hyperband.budget(label, min_budget, max_budget)"
        )
    low, high, step = found
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


def bounds(node: Apply) -> tuple[float, float, float | None] | None:
    """Low, high and step of a distribution; None where it has no bounds."""
    given: dict[str, Any] = {name: a.obj for name, a in node.arg.items() if isinstance(a, Literal)}
    low, high = given.get("low"), given.get("high")
    match node.name:
        case "randint" if low is not None:
            return (0, low - 1, 1) if high is None else (low, high - 1, 1)
        case "uniform" | "quniform" if low is not None and high is not None:
            return low, high, given.get("q") or None
        case "loguniform" | "qloguniform" if low is not None and high is not None:
            return _exp(low), _exp(high), given.get("q") or None
    return None


def _exp(logarithm: float) -> float:
    """exp, but a whole number where only rounding keeps it from one, as with exp(log(27))."""
    value = math.exp(min(logarithm, 700))  # what is larger still would overflow
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-12) else value


def deciding(domain: Domain) -> set[str]:
    """The labels that a switch of the space depends on."""
    switches = [node.pos_args[0] for node in pyll.dfs(domain.expr) if node.name == "switch"]
    nodes = [node for switch in switches for node in pyll.dfs(switch)]
    return {node.arg["label"].obj for node in nodes if node.name == "hyperopt_param"}


def _name(objective: Callable[..., Any]) -> str:
    return getattr(objective, "__name__", repr(objective))
