"""Hyperband as an algorithm of Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`."""

from __future__ import annotations

import functools
import itertools
import logging
import numbers
from collections.abc import Callable, Hashable, Iterator, Sequence

from hyperopt.base import Domain, Trials

from hyperopt_hyperband._ask_tell import ask, parameters, tell
from hyperopt_hyperband._best_model import best_model, keep_best
from hyperopt_hyperband._branches import configurations, options_without_budget
from hyperopt_hyperband._budget import Budgets, budget, find_budget, has_node, more_brackets, schedule
from hyperopt_hyperband._documents import Document, Vals, in_spark
from hyperopt_hyperband._evaluations import Evaluation, argmin, evaluations, incumbent
from hyperopt_hyperband._history import Held, History, read
from hyperopt_hyperband._lifecycle import disown, give_up, new_document, numbered, unused
from hyperopt_hyperband._objective import NO_TRIAL, Wants, check_objective, sees_trial, wants_of, with_budget
from hyperopt_hyperband._promotion import Promote, Retry, Sample
from hyperopt_hyperband._report import records, report
from hyperopt_hyperband._retention import NO_FOLDER, claim, drop
from hyperopt_hyperband._samplers import (
    Drawn,
    Model,
    Request,
    Suggest,
    few_configurations,
    generator,
    model_draws,
    model_of,
    random_draws,
    untried,
)
from hyperopt_hyperband._saving import load_trials, save_trials
from hyperopt_hyperband._schedule import Bracket, Budget, Schedule, shown
from hyperopt_hyperband._space import hyperparameters
from hyperopt_hyperband._stamps import BracketKey, check_labels, space_of
from hyperopt_hyperband._stopping import no_progress, stop_after
from hyperopt_hyperband._tables import counted
from hyperopt_hyperband._trials import Trials as OwnTrials
from hyperopt_hyperband._values import as_number
from hyperopt_hyperband._warn import warn

__all__ = [
    "argmin",
    "ask",
    "best_model",
    "budget",
    "incumbent",
    "load_trials",
    "no_progress",
    "parameters",
    "records",
    "report",
    "save_trials",
    "schedule",
    "stop_after",
    "suggest",
    "tell",
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
    budget: str | Sequence[str] | None = None,
    sampler: Suggest | Model | None = None,
    random_share: float = 0.25,
) -> list[Document]:
    """Suggest the next evaluations by Hyperband; pass it to fmin as `algo`.

    Each document carries its budget in `misc["budget"]` and its place in the schedule in
    `misc["hyperband"]`. A result with `"final": True` (default False) stands for every higher budget: the
    configuration goes up without another evaluation, and counts as evaluated at max_budget. So does one in
    which no budget of the space is active. All state is read from the documents of `trials`: a run that was
    stopped goes on where it stood when fmin is called again with the same trials.

    Parameters
    ----------
    new_ids, domain, trials, seed
        Hyperopt's own. A draw's randomness comes from the seed and its new id, or, where the ids are no ints,
        from how many documents there are.
    min_budget, max_budget : int or float, optional
        What one evaluation may spend. Default: the bounds of the space's budget. Where it has none: 1, and
        what the objective of `hyperband.with_budget` has as its default for the budget, or 81.
    eta : int or float, at least 2
        Each rung keeps the best 1/eta of its configurations. Default 3.
    budget : str or list of str, optional
        The label of a numeric hyperparameter that is the budget, or those of several, at most one of them
        active in a configuration. Default: the space's `hyperband.budget` nodes, where it has some.
    sampler : callable, or a model, optional
        What draws the configurations: `bohb.gaussian_process`, or any algorithm of Hyperopt, such as
        `tpe.suggest`. That sees one document a configuration, the evaluation at the highest budget reached,
        and for its loss the rank: a higher budget beats a lower one, the loss decides within a budget, and
        failures come last. Default: random draws.
    random_share : float, 0 to 1
        The share of draws that stay random, whatever the sampler. Default 0.25.

    Returns
    -------
    list of dict
        One new trial document for each of new_ids.

    Raises
    ------
    ValueError
        Options that are out of range or do not fit the space or the objective, or trials of another space.

    Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1.
    """
    if not (isinstance(random_share, numbers.Real) and 0 <= random_share <= 1):
        raise ValueError(f"random_share={random_share!r}: pass a number from 0 to 1")
    model = None if sampler is None else model_of(sampler)
    wants = wants_of(domain.fn)
    full_budget = wants and wants.full_budget
    budgets = find_budget(domain, budget, min_budget, max_budget, default=full_budget)
    plan = budgets.plan(eta)
    if model is not None:
        model.check(domain, budgets.labels)
    history = read(trials, plan, space_of(domain, budgets.labels))
    if history.run is None:
        history.run = int(seed)
    check_labels(history.labels(), domain)
    if history.foreign or not history.brackets:
        _check_start(plan, domain, trials, wants)
        _warn_at_start(history, budgets, domain, random=model is None, named=budget is not None)
    _settle(trials, history)
    if wants and wants.checkpoint:
        drop(trials, history, wants.checkpoint_dir, budgets.labels)
    if wants and wants.keep_model and not isinstance(trials, OwnTrials):  # these drop after they are saved
        keep_best(trials)
    issued: list[Document] = []

    @functools.cache
    def known(_issued: int) -> list[Evaluation]:
        return _known(trials, issued, domain, plan, budgets)

    def request(start_budget: Budget) -> Request:
        return Request(domain, known(len(issued)), budgets.maxima, start_budget, plan.max_budget, seed)

    def draws(number: int, start_budget: Budget) -> Iterator[Drawn]:
        rng = generator(seed, number)
        asked = model if model is not None and rng.random() >= random_share else None
        few = few_configurations(domain.expr, budgets.labels)
        found = random_draws(domain, rng)
        if asked:
            found = itertools.chain(model_draws(asked, request(start_budget), rng), found)
        return untried(few, found, known(len(issued)), budgets.labels, plan.max_budget) if few else found

    if model is not None and (choose := model.choose):
        history.choose = lambda opened: choose(request(plan.min_budget), plan, opened)
    ids = unused(new_ids, trials, ascending=history.linked)
    for number, new_id in zip(numbered(ids, trials), ids, strict=True):
        own_draws = functools.partial(draws, number)
        document = _next_document(new_id, domain, trials, budgets, history, own_draws)
        issued.append(document)  # for the next draw to know
    return issued


def _next_document(
    new_id: Hashable,
    domain: Domain,
    trials: Trials,
    budgets: Budgets,
    history: History,
    draws: Callable[[Budget], Iterator[Drawn]],
) -> Document:
    while True:
        key, action = history.next_action()
        bracket = history.schedule.bracket(key[1])
        rungs = bracket.rungs
        by_model = False
        match action:
            case Sample():
                taken = history.drawn(key)
                drawn = draws(rungs[0].budget)
                found = ((_at_rung(vals, budgets, bracket, 0), modelled) for vals, modelled in drawn)
                new = next((each for each in found if each[0][0] not in taken), None)
                if new is None:
                    history.brackets[key].closed = True
                    logger.info("%s: no more than %d distinct configurations found", _where(key), len(taken))
                    continue
                config, rung, ((vals, held), by_model) = new_id, 0, new
                if not taken:
                    logger.info("%s opens: %s", _where(key), ", ".join(map(str, rungs)))
            case Retry(config):
                rung = 0
                vals, held = _at_rung(history.vals(key, action), budgets, bracket, rung)
            case Promote(config, rung):
                vals, held = _at_rung(history.vals(key, action), budgets, bracket, rung)
                goes_up = "%s: configuration %s goes up to rung %d, budget %s"
                logger.info(goes_up, _where(key), config, rung, shown(held.value))
        document = new_document(new_id, vals, domain, trials)
        return history.issue(document, key, rung, config, held, by_model=by_model)


def _at_rung(vals: Vals, budgets: Budgets, bracket: Bracket, rung: int) -> tuple[Vals, Held]:
    """The same configuration at a rung, as plain values, and its budget there.

    In an inactive branch its label stays empty.
    """
    held = budgets.held(vals, bracket, rung)
    new = {
        str(name): [held.value] if name == held.label else list(map(as_number, value))
        for name, value in vals.items()
    }
    return new, held


def _known(
    trials: Trials, issued: list[Document], domain: Domain, plan: Schedule, budgets: Budgets
) -> list[Evaluation]:
    """The evaluations that a model may learn from: those whose values the space's hyperparameters can have.

    What was interrupted has been issued again, or will be. A point that names an option of a choice instead
    of its index has failed.
    """
    space = hyperparameters(domain.expr)
    return [
        e
        for e in evaluations(trials, issued, schedule=plan, maxima=budgets.maxima)
        if e.status != "interrupted"
        and e.vals.keys() <= domain.params.keys()
        and all(
            isinstance(value, int | float) and (name in budgets.labels or space[name].has(value))
            for name, value in e.vals.items()
        )
    ]


def _settle(trials: Trials, history: History) -> None:
    """Write down, for all who read the documents, what is not of the run, and what is given up."""
    for document in history.misfits:
        disown(trials, document, outside=not history.space.holds(document))
    if history.misfits:
        warn(
            f"{len(history.misfits)} trials are not of the run that goes on: they come from another one, lie "
            "outside the space, or what they were promoted from is gone; they take no place in the schedule"
        )
    if history.given_up is not None:
        give_up(history.given_up)


def _check_start(plan: Schedule, domain: Domain, trials: Trials, wants: Wants | None) -> None:
    """Refuse, at the first suggestion of a run, what can't end well."""
    check_objective(domain)
    if plan.evaluations > MOST_EVALUATIONS:
        raise ValueError(
            f"{plan.options if plan.shares_of else _bounds(plan)} plan "
            f"{plan.evaluations} evaluations an iteration: raise min_budget or eta"
        )
    if in_spark(trials) and wants:
        if not has_node(domain):
            raise ValueError(NO_TRIAL)
        if wants.checkpoint:
            if wants.checkpoint_dir is None:
                raise ValueError(NO_FOLDER)
            claim(wants.checkpoint_dir)


def _warn_at_start(history: History, budgets: Budgets, domain: Domain, *, random: bool, named: bool) -> None:
    """Tell, at the first suggestion of a run, what its user may not expect."""
    plan = history.schedule
    if history.foreign:
        warn(
            f"{history.foreign} trials come from a Hyperband run with other min_budget, max_budget or eta: "
            "they take no place in the schedule; pass the options of that run to go on with it"
        )
    if named and (without := options_without_budget(domain.expr, budgets.labels)):
        warn(
            f"no budget is active in {', '.join(without)}: there, a first evaluation counts as the result at "
            "max_budget, and is not repeated; where another hyperparameter is the budget, name it too, as in "
            f"budget={[*sorted(budgets.labels), '...']}"
        )
    if len(plan.brackets) > 1 and not budgets.knobs and not sees_trial(domain):
        warn(
            "the objective can't see its budget, so every evaluation costs the same: put "
            "hyperband.budget(label, min_budget, max_budget) into the space, name one of its hyperparameters "
            "with budget=label, or decorate the objective with hyperband.with_budget; to search without "
            "budgets, each configuration once, pass min_budget=max_budget"
        )
    if len(plan.brackets) == 1 and plan.min_budget < plan.max_budget:
        warn(
            f"{_too_close(budgets, plan)}, so every evaluation is at max_budget: plain {'random ' * random}"
            f"search at full budget; for lower budgets take {more_brackets(plan, budgets)}"
        )
    every = configurations(domain.expr, budgets.labels) or ()
    distinct = sum(1 for _ in itertools.islice(every, plan.configurations))
    if 0 < distinct < plan.configurations:
        warn(
            f"the space has {counted(distinct, 'distinct configuration')}, fewer than the "
            f"{plan.configurations} that one Hyperband iteration draws: a full grid, each of them once at "
            f"max_budget, costs {distinct} x max_budget, and one Hyperband iteration of the planned size "
            f"{plan.total_budget / plan.max_budget:.3g} x max_budget. Until all have been at max_budget, "
            "brackets draw from the others alone"
        )


def _bounds(plan: Schedule) -> str:
    return f"min_budget={plan.min_budget}, max_budget={plan.max_budget}, eta={plan.eta}"


def _too_close(budgets: Budgets, plan: Schedule) -> str:
    if budgets.in_shares:
        return f"min_budget times eta={plan.eta} is above max_budget for every budget of the space"
    return f"min_budget={plan.min_budget} times eta={plan.eta} is above max_budget={plan.max_budget}"


def _where(key: BracketKey) -> str:
    return f"iteration {key[0]}, bracket {key[1]}"
