"""The objective's side of the budget, all that a worker needs: the budget and a checkpoint as arguments."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperopt.base import Ctrl, Domain
from hyperopt.pyll.base import Apply, GarbageCollected

from hyperopt_hyperband._checkpoint import (
    Slot,
    leave,
    leave_model,
    packed,
    slot_of_parameters,
    slot_of_trial,
    take_up,
)
from hyperopt_hyperband._documents import budget_of, in_shares, stamp_of, without_budget
from hyperopt_hyperband._schedule import Budget, positive_number
from hyperopt_hyperband._space import BudgetLabel, evaluate, has_ctrl, parameters
from hyperopt_hyperband._values import flag

NO_TRIAL = (
    "with_budget needs the trial, and SparkTrials hands none to the objective: put "
    "hyperband.budget(label, min_budget, max_budget) into the space instead"
)


@dataclass(frozen=True, slots=True)
class Wants:
    """What an objective of `with_budget` wants, for the driver to know.

    Attributes
    ----------
    checkpoint : it takes one
    checkpoint_dir : where checkpoints and models go; None: into the trials
    keep_model : only the incumbent's model is to stay
    full_budget : its default for the budget; None: it has none
    """

    checkpoint: bool
    checkpoint_dir: Path | None
    keep_model: bool
    full_budget: Budget | None


def with_budget(
    objective: Callable[..., Any] | None = None,
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    keep_model: bool = False,
) -> Callable[..., Any]:
    """Hand the trial's budget, and the checkpoint to train on from, to an objective.

        @hyperband.with_budget
        def objective(params, budget=81, checkpoint=None): ...

    Where the trial has no budget (TPE, random search), the function's own default holds: 81 above. It is the
    full budget, and so the max_budget of `hyperband.suggest` too. Without a default, or with one that is no
    positive number (None), max_budget is what the space or the options say, and 81 where they say nothing.
    Called directly, the function is what it was.

    A result with `"final": True` (bool, default False) says that any higher budget would give the same: the
    configuration goes up without another evaluation, its checkpoints are dropped, and it counts as evaluated
    at max_budget. So does a configuration in which the space's budget is not active: the objective gets the
    full one. Where the space has several budgets, it gets its own default there: make that None.

    `checkpoint` may be left out. It is None on a configuration's first evaluation, and wherever there is
    none: train from the start. On a promotion, `checkpoint.state` is what the evaluation at the rung below
    has returned under the key "checkpoint" of its result, and `checkpoint.budget` the budget of that
    evaluation: train on until `budget`. Anything that pickles can be returned there, and what comes back is
    a copy. An evaluation that fails, or is interrupted and issued again, never counts: the next one starts
    from the rung below too. Checkpoints are dropped once no promotion can take them up, those of the top
    rung at once: to keep a model, return it under the key "model" too.

    Parameters
    ----------
    objective : callable
        Takes the parameters, budget, and checkpoint if it is to train on.
    checkpoint_dir : str or path, optional
        A folder for the checkpoints, which all processes and machines of the run see, one subfolder a
        configuration. Default: Hyperopt's trial attachments, in memory, or in the database of MongoTrials.
        SparkTrials has none and needs the folder, for itself alone, and a `hyperband.budget` node in the
        space. What a killed process has half saved is never read; remove the folder after the run. Its files
        are pickles: let nobody write there whom you do not trust.
    keep_model : bool, optional
        Keep what the result holds under the key "model", anything that pickles, with the incumbent alone, for
        `hyperband.best_model`. The others are dropped at the next suggestion of `hyperband.suggest` or
        `bohb.suggest`; with our Trials after each evaluation, whatever the algorithm. With a checkpoint_dir,
        each model is in a file there, which the result names under "model_file". A new model is there before
        an older one goes. One that no trial has heard of, as its evaluation was killed, stays there. Default:
        False, results are left as they are.

    Raises
    ------
    ValueError
        The function takes no budget beside the parameters. There is a checkpoint_dir, but neither a
        checkpoint argument nor keep_model. In fmin: its default is not the max_budget of the space or the
        options; or it has none, and neither has the trial. Under SparkTrials: the space has no
        `hyperband.budget`, there is no checkpoint_dir for checkpoints, or another run has taken it.
    """
    if objective is None:
        return functools.partial(with_budget, checkpoint_dir=checkpoint_dir, keep_model=keep_model)
    if not callable(objective):
        raise ValueError(f"with_budget({objective!r}): pass a function, and checkpoint_dir by its name")
    signature = inspect.signature(objective)
    takes_checkpoint = "checkpoint" in signature.parameters
    # Absent where **kwargs take it.
    default = signature.parameters["budget"].default if "budget" in signature.parameters else None
    try:
        signature.bind({}, budget=1, **({"checkpoint": None} if takes_checkpoint else {}))
    except TypeError as error:
        raise ValueError(
            f"{_name(objective)}{signature} takes no budget: add an argument beside the parameters, such as "
            f"budget=81 ({error})"
        ) from None
    if checkpoint_dir is not None and not takes_checkpoint and not keep_model:
        raise ValueError(
            f"checkpoint_dir={str(checkpoint_dir)!r}, but {_name(objective)}{signature} takes no checkpoint: "
            "add the argument checkpoint=None, keep models there with keep_model=True, or leave it out"
        )
    folder = None if checkpoint_dir is None else Path(checkpoint_dir).absolute()

    @functools.wraps(objective)
    def with_trial(*args: Any, **kwargs: Any) -> Any:
        if args or not kwargs.keys() >= {"expr", "memo", "ctrl"}:
            return objective(*args, **kwargs)
        expr, memo, ctrl = (kwargs.pop(name) for name in ("expr", "memo", "ctrl"))
        if ctrl is None:
            budget, slot = _without_trial(expr, memo, folder)
        else:
            budget, slot = _of_trial(ctrl, folder)
        params = evaluate(expr, memo)
        if budget is None and default is inspect.Parameter.empty:
            raise ValueError(
                f"{_name(objective)}{signature} has no default for the budget, and this trial has none: give "
                "it the full budget as default, such as budget=81, or None where the space has several"
            )
        given = kwargs if budget is None else kwargs | {"budget": budget}  # hyperopt.partial adds some
        if takes_checkpoint:
            given = given | {"checkpoint": take_up(slot)}
        result = objective(params, **given)
        if not isinstance(result, Mapping):
            return result
        result = dict(result)
        if flag(result.get("final")):
            slot = None  # no promotion evaluates it again
        left = leave(slot, result.pop("checkpoint", None)) if takes_checkpoint else None
        if left is not None and ctrl is not None:
            # Hyperopt moves it on, where the loss is valid.
            result["attachments"] = {**result.get("attachments", {}), "checkpoint": packed(left, ctrl)}
        if keep_model and folder is not None:
            leave_model(folder, result)
        return result

    vars(with_trial).update(
        fmin_pass_expr_memo_ctrl=True,
        wants=Wants(takes_checkpoint, folder, keep_model, positive_number(default)),
    )
    return with_trial


def sees_trial(domain: Domain) -> bool:
    """Whether the objective gets the trial: from Hyperopt, or as the Ctrl that stands in the space."""
    return domain.pass_expr_memo_ctrl or has_ctrl(domain.expr)


def wants_of(fn: Callable[..., Any] | None) -> Wants | None:
    """What an objective of `with_budget` wants, inside hyperopt.partial too; None for any other."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "wants", None)


def check_objective(domain: Domain) -> None:
    """Raise ValueError where functools.partial hides from Hyperopt that the objective wants the trial."""
    fn = domain.fn
    while isinstance(fn, functools.partial) and not domain.pass_expr_memo_ctrl:
        fn = fn.func
        if getattr(fn, "fmin_pass_expr_memo_ctrl", False):
            raise ValueError(
                f"fn is a functools.partial of {_name(fn)}, which wants the trial and so doesn't get it: use "
                "hyperopt.partial"
            )


def _of_trial(ctrl: Ctrl, folder: Path | None) -> tuple[Budget | None, Slot | None]:
    """The budget and the slot of an evaluation, from its trial; where no budget is active, the full one."""
    stamp = stamp_of(ctrl.current_trial)
    if stamp is None or not without_budget(stamp):
        return budget_of(ctrl.current_trial), slot_of_trial(ctrl, folder)
    return None if in_shares(stamp) else stamp["max_budget"], None


def _without_trial(
    expr: Apply, memo: dict[Apply, Any], folder: Path | None
) -> tuple[Budget | None, Slot | None]:
    """The budget and the slot of an evaluation, from its parameters alone."""
    labels = {node.arg["label"].obj: node for node in parameters(expr)}
    vals = {name: memo[node] for name, node in labels.items() if memo[node] is not GarbageCollected}
    own = [name for name in labels if isinstance(name, BudgetLabel)]
    if not own:
        raise ValueError(NO_TRIAL)
    active = next((name for name in own if name in vals), None)
    if active is None:
        return own[0].max_budget if len(own) == 1 else None, None
    full = active.max_budget
    budget = type(full)(vals.pop(active))
    return budget, slot_of_parameters(vals, budget, full, folder)


def _name(objective: Callable[..., Any]) -> str:
    return getattr(objective, "__name__", repr(objective))
