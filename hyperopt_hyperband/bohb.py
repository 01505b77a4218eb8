"""Hyperband with a model that draws its configurations: `fmin(..., algo=bohb.suggest, ...)`."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from hyperopt.base import Domain, Trials

from hyperopt_hyperband import encoding, gp
from hyperopt_hyperband.history import Document, Evidence, Vals
from hyperopt_hyperband.hyperband import suggest_by
from hyperopt_hyperband.promotion import FAILED
from hyperopt_hyperband.schedule import Budget

__all__ = ["suggest"]

Array = np.ndarray[Any, np.dtype[Any]]

LEARNED_FROM, SCALED_BY = 250, 120
"""Most evaluations that the process sees, and that its kernel is fitted to: they bound a draw's time."""
CANDIDATES = 256
"""As many random ones, and as many variations of the best."""
PARENTS = 12


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
    random_share: float = 0.25,
) -> list[Document]:
    """Suggest the next evaluations by Hyperband, its configurations drawn by a model (BOHB).

    The schedule, the promotions and the options are those of `hyperband.suggest`. Once a configuration has
    finished at max_budget, three new configurations in four are drawn by a Gaussian process. It is fitted to
    the losses of all evaluations, with the log budget as one more input and noise that may grow towards low
    budgets, and predicts the loss at max_budget. The better half of the losses counts as it is, the worse
    half by rank, failures as the worst. Of random configurations and variations of the best, it draws that of
    the lowest mean minus k standard deviations, k between 0 and 2 anew for each draw; pending evaluations
    lower the deviation around them. Until then, and for the other quarter, draws are random.

    Parameters
    ----------
    new_ids, domain, trials, seed, min_budget, max_budget, eta, budget
        As in `hyperband.suggest`.
    random_share : float, 0 to 1
        The share of random draws that remains: no misled model can do worse than this share of Hyperband.

    Returns
    -------
    list of dict
        One new trial document for each of new_ids.

    Raises
    ------
    ValueError
        As `hyperband.suggest`.

    Source: Falkner et al., BOHB, ICML 2018, for a model inside Hyperband's brackets; the model here is
    another one, chosen by its regret over benchmarks/suite.py.
    """
    return suggest_by(
        draw,
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


def draw(
    domain: Domain, evidence: list[Evidence], label: str | None, max_budget: Budget, seed: int
) -> Vals | None:
    """The model's draw; None as long as nothing has finished at max_budget, or there is nothing to tune."""
    space = encoding.axes(domain, label)
    finished = sorted((each for each in evidence if each.loss is not None), key=_order)
    if all(axis.budget for axis in space) or not any(
        each.loss != FAILED and each.budget >= max_budget for each in finished
    ):
        return None
    rng = np.random.default_rng(seed)
    best = [each for each in finished if each.loss != FAILED]
    parents = _distinct(encoding.matrix(space, [each.vals for each in best]))
    if len(finished) > LEARNED_FROM:  # the best of them, and some of the others
        half = LEARNED_FROM // 2
        others = np.sort(rng.choice(len(finished) - half, LEARNED_FROM - half, replace=False))
        finished = [*finished[:half], *(finished[half + i] for i in others)]
    seen = [*finished, *[each for each in evidence if each.loss is None][:LEARNED_FROM]]
    budgets = np.array([each.budget for each in seen], dtype=float)
    lowest = math.log(max_budget / budgets.min()) or 1.0

    rows = encoding.matrix(space, [each.vals for each in seen])
    drawn = encoding.random_rows(space, domain, rng, CANDIDATES)
    children = encoding.mutated(space, parents[rng.integers(len(parents), size=CANDIDATES)], drawn, rng)
    candidates = np.concatenate([drawn, children])
    options = encoding.options(space, np.concatenate([rows, candidates]))
    x, owners = encoding.features(space, rows, options)
    subset = rng.permutation(len(finished))[:SCALED_BY]
    with _one_thread():
        process = gp.fit(x, np.log(budgets / max_budget) / lowest, owners, _targets(finished), subset)
        mean, deviation = process.predict(encoding.features(space, candidates, options)[0])
    return encoding.vals_of(space, candidates[np.argmin(mean - rng.uniform(0, 2) * deviation)])


def _order(evidence: Evidence) -> tuple[bool, float, float | None]:
    """The rank of an evaluation: a higher budget beats a lower one, the loss decides within a budget."""
    return evidence.loss == FAILED, -evidence.budget, evidence.loss


def _distinct(rows: Array) -> Array:
    """The first PARENTS that differ."""
    found = {row.tobytes(): row for row in rows[::-1]}
    return np.array(list(found.values())[::-1][:PARENTS])


def _targets(finished: Sequence[Evidence]) -> Array:
    """Standardised losses: the better half as it is, the worse half by rank, failures as the worst."""
    losses = np.array([each.loss for each in finished], dtype=float)
    losses = np.minimum(losses, losses[losses < FAILED].max())
    median = np.median(losses)
    scale = max(median - np.quantile(losses, 0.1), 1e-12)
    rank = np.argsort(np.argsort(losses, kind="stable")) / max(1, len(losses) - 1)
    targets: Array = np.where(losses <= median, (losses - median) / scale, 2 * rank - 1)
    targets -= targets.mean()
    targets /= targets.std() or 1.0
    return targets


@functools.cache
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Matrices this small gain nothing from threads, and lose much where the cores are busy training.

    threadpoolctl comes with scikit-learn; without it, the threads stay.
    """
    controller = _controller()
    return contextlib.nullcontext() if controller is None else controller.limit(limits=1)
