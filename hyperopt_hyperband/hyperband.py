"""Hyperband as an algorithm of Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`."""

from __future__ import annotations

import functools
import logging
import numbers
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from hyperopt.base import Domain, Trials

from hyperopt_hyperband.budget import NO_TRIAL, Knob, budget, find_knob, has_node, with_budget
from hyperopt_hyperband.checkpoint import NO_FOLDER, claim, drop
from hyperopt_hyperband.history import (
    BracketKey,
    Document,
    History,
    Vals,
    evidence,
    incumbent,
    new_document,
    plain,
    read,
    unused,
)
from hyperopt_hyperband.promotion import Promote, Retry, Sample
from hyperopt_hyperband.report import records, report
from hyperopt_hyperband.samplers import Model, Suggest, model_draws, of_hyperopt, random_draws
from hyperopt_hyperband.saving import load_trials, save_trials
from hyperopt_hyperband.schedule import Budget, schedule
from hyperopt_hyperband.stopping import no_progress

__all__ = [
    "budget",
    "incumbent",
    "load_trials",
    "no_progress",
    "records",
    "report",
    "save_trials",
    "schedule",
    "suggest",
    "with_budget",
]

logger = logging.getLogger("hyperopt_hyperband")

MOST_EVALUATIONS = 10**6


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
    sampler: Suggest | None = None,
    random_share: float = 0.25,
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
    sampler : callable, optional
        Any algorithm of Hyperopt, such as `tpe.suggest`, to draw the configurations. It sees one document a
        configuration, the evaluation at the highest budget reached, and for its loss the rank: a higher
        budget beats a lower one, the loss decides within a budget, and failures come last. Default: random
        draws.
    random_share : float, 0 to 1
        The share of draws that stay random, whatever the sampler.

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
    model = None if sampler is None else of_hyperopt(sampler)
    return suggest_by(
        model,
        random_share,
        new_ids,
        domain,
        trials,
        seed,
        min_budget=min_budget,
        max_budget=max_budget,
        eta=eta,
        budget=budget,
    )


def suggest_by(
    model: Model | None,
    random_share: float,
    new_ids: Sequence[Hashable],
    domain: Domain,
    trials: Trials,
    seed: int,
    *,
    min_budget: Budget | None,
    max_budget: Budget | None,
    eta: Budget,
    budget: str | None,
) -> list[Document]:
    """Suggest the next evaluations by Hyperband, with configurations drawn by a model or at random."""
    if not (isinstance(random_share, numbers.Real) and 0 <= random_share <= 1):
        raise ValueError(f"random_share={random_share!r}: pass a number from 0 to 1")
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
    if getattr(domain.fn, "takes_checkpoint", False):
        drop(trials, history, domain.fn.checkpoint_dir, knob.label)
    generator = functools.cache(
        lambda: np.random.default_rng(seed)
    )  # a tenth of a promotion, which needs none
    issued: list[Document] = []

    def draws(start: Budget) -> Iterator[Vals]:
        rng = generator()
        if model is not None and rng.random() >= random_share:
            known = evidence(trials, issued, domain.params.keys(), plan, knob.label)
            yield from model_draws(model, domain, known, knob.label, start, knob.max_budget, rng)
        yield from random_draws(domain, rng)

    for new_id in unused(new_ids, trials):
        document = _next_document(new_id, domain, trials, knob, history, draws)
        issued.append(document)  # for the next draw to know
    return issued


def _next_document(
    new_id: Hashable,
    domain: Domain,
    trials: Trials,
    knob: Knob,
    history: History,
    draws: Callable[[Budget], Iterator[Vals]],
) -> Document:
    while True:
        key, action = history.next_action()
        rungs = history.schedule.bracket(key[1]).rungs
        match action:
            case Sample():
                taken = history.drawn(key)
                found = (_at_budget(drawn, knob.label, rungs[0].budget) for drawn in draws(rungs[0].budget))
                new = next((vals for vals in found if vals not in taken), None)
                if new is None:
                    history.outcomes[key].closed = True
                    logger.info("%s: no more than %d distinct configurations found", _where(key), len(taken))
                    continue
                config, rung, vals = new_id, 0, new
                if not taken:
                    logger.info("%s opens: %s", _where(key), ", ".join(map(str, rungs)))
            case Retry(config):
                rung, vals = 0, _at_budget(history.vals(key, config), knob.label, rungs[0].budget)
            case Promote(config, rung):
                vals = _at_budget(history.vals(key, config), knob.label, rungs[rung].budget)
                goes_up = "%s: configuration %s goes up to rung %d, budget %.4g"
                logger.info(goes_up, _where(key), config, rung, rungs[rung].budget)
        return history.issue(new_document(new_id, vals, domain, trials), key, rung, config)


def _at_budget(vals: Vals, label: str | None, budget: Budget) -> Vals:
    """The same configuration at a budget, as plain values; in an inactive branch its label stays empty."""
    return {
        str(name): [budget] if name == label and len(value) else list(map(plain, value))
        for name, value in vals.items()
    }


def _greet(knob: Knob, domain: Domain, trials: Trials, history: History) -> None:
    """Refuse or tell, at the first suggestion of a run, what its user may not expect."""
    plan = history.schedule
    if plan.evaluations > MOST_EVALUATIONS:
        raise ValueError(
            f"min_budget={plan.min_budget}, max_budget={plan.max_budget}, eta={plan.eta} plan "
            f"{plan.evaluations} evaluations an iteration: raise min_budget or eta"
        )
    if hasattr(trials, "_spark") and getattr(domain.fn, "needs_trial", False):
        _greet_spark(domain)
    if history.strangers:
        warnings.warn(
            f"{history.strangers} trials come from a Hyperband run with other min_budget, max_budget or eta: "
            "they take no place in the schedule; pass the options of that run to go on with it",
            stacklevel=4,
        )
    if knob.label is None and not domain.pass_expr_memo_ctrl:
        warnings.warn(
            "the objective can't see its budget, so every evaluation costs the same: put "
            "hyperband.budget(label, min_budget, max_budget) into the space, name one of its hyperparameters "
            "with budget=label, or decorate the objective with hyperband.with_budget",
            stacklevel=4,
        )


def _greet_spark(domain: Domain) -> None:
    if not has_node(domain):
        raise ValueError(NO_TRIAL)
    if domain.fn.takes_checkpoint:
        if domain.fn.checkpoint_dir is None:
            raise ValueError(NO_FOLDER)
        claim(domain.fn.checkpoint_dir)


def _where(key: BracketKey) -> str:
    return f"iteration {key[0]}, bracket {key[1]}"
