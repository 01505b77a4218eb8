"""Hyperband as an algorithm of Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import Domain, Trials, miscs_update_idxs_vals

from hyperopt_hyperband.budget import NO_TRIAL, Knob, budget, find_knob, with_budget
from hyperopt_hyperband.history import (
    BracketKey,
    Document,
    History,
    Vals,
    incumbent,
    new_document,
    read,
    unused,
)
from hyperopt_hyperband.promotion import Promote, Retry, Sample
from hyperopt_hyperband.saving import load_trials, save_trials
from hyperopt_hyperband.schedule import Budget, schedule

__all__ = ["budget", "incumbent", "load_trials", "save_trials", "schedule", "suggest", "with_budget"]

logger = logging.getLogger("hyperopt_hyperband")

MOST_EVALUATIONS = 10**6
REDRAWS = (16, 256, 4096)
"""Sizes of the batches in which a new configuration is looked for once a draw has repeated an old one."""


def suggest(
    new_ids: Sequence[Hashable],
    domain: Domain,
    trials: Trials,
    seed: int,
    *,
    min_budget: Budget | None = None,
    max_budget: Budget | None = None,
    eta: Budget = 3,
    budget: str | None = None,
) -> list[Document]:
    """Suggest the next evaluations by Hyperband; pass it to fmin as `algo`.

    Each document carries its budget in `misc["budget"]` and its place in the schedule in
    `misc["hyperband"]`. All state is read from the documents of `trials`: a run that was stopped goes on
    where it stood when fmin is called again with the same trials.

    Parameters
    ----------
    new_ids, domain, trials, seed
        Hyperopt's own.
    min_budget, max_budget : int or float, optional
        What one evaluation may spend. Default: the bounds of the space's budget, or 1 and 81.
    eta : int or float, at least 2
        Each rung keeps the best 1/eta of its configurations.
    budget : str, optional
        The label of a numeric hyperparameter that is the budget. Default: the space's
        `hyperband.budget` node, where it has one.

    Returns
    -------
    list of dict
        One new trial document for each of new_ids.

    Raises
    ------
    ValueError
        Options that are out of range or do not fit the space, or trials of another space.

    Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1.
    """
    knob = find_knob(domain, budget, min_budget, max_budget)
    plan = schedule(knob.min_budget, knob.max_budget, eta, step=knob.step)
    history = read(trials, plan)
    if history.strangers or not history.outcomes:
        _greet(knob, domain, trials, history)
    if (labels := history.labels()) is not None and labels != domain.params.keys():
        raise ValueError(
            f"trials hold a run over another space, {sorted(labels)}, not "
            f"{sorted(map(str, domain.params))}: pass new Trials(), or the space of that run"
        )
    rng = np.random.default_rng(seed)
    return [_next_document(new_id, domain, trials, rng, knob, history) for new_id in unused(new_ids, trials)]


def _next_document(
    new_id: Hashable, domain: Domain, trials: Trials, rng: np.random.Generator, knob: Knob, history: History
) -> Document:
    while True:
        key, action = history.next_action()
        rungs = history.schedule.bracket(key[1]).rungs
        match action:
            case Sample():
                taken = history.drawn(key)
                drawn = _draw(domain, rng, taken, knob.label, rungs[0].budget)
                if drawn is None:
                    history.outcomes[key].closed = True
                    found = "the space has no more than %d distinct configurations"
                    logger.info(f"%s: {found}", _where(key), len(taken))
                    continue
                config, rung, vals = new_id, 0, drawn
                if not taken:
                    logger.info("%s opens: %s", _where(key), ", ".join(map(str, rungs)))
            case Retry(config):
                rung, vals = 0, _at_budget(history.vals(key, config), knob.label, rungs[0].budget)
            case Promote(config, rung):
                budget = rungs[rung].budget
                vals = _at_budget(history.vals(key, config), knob.label, budget)
                logger.info(
                    "%s: configuration %s goes up to rung %d, budget %.4g", _where(key), config, rung, budget
                )
        document = history.stamp(new_document(new_id, vals, domain, trials), key, rung, config)
        history.add(document)
        return document


def _draw(
    domain: Domain, rng: np.random.Generator, taken: list[Vals], label: str | None, budget: Budget
) -> Vals | None:
    """Draw a random configuration that is not among those taken; None where none turns up."""
    # As rand.suggest does it, in two thirds of its time: memo_gc would drop what lives for a moment only.
    memo = {domain.s_new_ids: [0], domain.s_rng: rng}
    _, drawn = pyll.rec_eval(domain.s_idxs_vals, memo=memo, memo_gc=False)
    vals = _at_budget(drawn, label, budget)
    if vals not in taken:
        return vals
    for size in REDRAWS:
        miscs: list[Document] = [{"tid": i} for i in range(size)]
        miscs_update_idxs_vals(miscs, *rand.suggest_batch(range(size), domain, None, rng))
        for misc in miscs:
            if (vals := _at_budget(misc["vals"], label, budget)) not in taken:
                return vals
    return None


def _at_budget(vals: Vals, label: str | None, budget: Budget) -> Vals:
    """The same configuration at a budget; in an inactive branch the budget's label stays empty."""
    return {
        str(name): [budget] if name == label and len(value) else list(value) for name, value in vals.items()
    }


def _greet(knob: Knob, domain: Domain, trials: Trials, history: History) -> None:
    """Tell, at the first suggestion of a run, what its user may not expect."""
    plan = history.schedule
    if plan.evaluations > MOST_EVALUATIONS:
        raise ValueError(
            f"min_budget={plan.min_budget}, max_budget={plan.max_budget}, eta={plan.eta} plan "
            f"{plan.evaluations} evaluations an iteration: raise min_budget or eta"
        )
    if hasattr(trials, "_spark") and getattr(domain.fn, "needs_trial", False):
        raise ValueError(NO_TRIAL)
    if history.strangers:
        warnings.warn(
            f"{history.strangers} trials come from a Hyperband run with other min_budget, max_budget or eta: "
            "they take no place in the schedule; pass the options of that run to go on with it",
            stacklevel=3,
        )
    if knob.label is None and not domain.pass_expr_memo_ctrl:
        warnings.warn(
            "the objective can't see its budget, so every evaluation costs the same: put "
            "hyperband.budget(label, min_budget, max_budget) into the space, name one of its hyperparameters "
            "with budget=label, or decorate the objective with hyperband.with_budget",
            stacklevel=3,
        )


def _where(key: BracketKey) -> str:
    return f"iteration {key[0]}, bracket {key[1]}"
