"""Hyperband with a model that draws its configurations: `fmin(..., algo=bohb.suggest, ...)`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from hyperopt.base import Domain, Trials

from hyperopt_hyperband import encoding, gp
from hyperopt_hyperband.correlation import neighbours, spearman
from hyperopt_hyperband.history import Document, Evidence, Vals
from hyperopt_hyperband.hyperband import suggest_by
from hyperopt_hyperband.promotion import FAILED
from hyperopt_hyperband.samplers import order
from hyperopt_hyperband.schedule import Budget

__all__ = ["suggest"]

Array = np.ndarray[Any, np.dtype[Any]]

LEARNED_FROM, SCALED_BY = 250, 120
"""Most evaluations that the process sees, finished or pending each, and that its kernel is fitted to: they
bound a draw's time."""
CANDIDATES = 256
"""As many random ones, and as many variations of the best."""
PARENTS = 12
"""As many of the best configurations are varied."""
ENOUGH = 4
"""Fewest configurations at two budgets whose rank correlation counts."""


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
    succeeded at max_budget, three new configurations in four are drawn by a Gaussian process. It is fitted to
    the losses of evaluations, with the log budget as one more input and noise that may grow towards low
    budgets, and predicts the loss at max_budget. The better half of the losses counts as it is, the worse
    half by rank, failures as the worst. Of random configurations and variations of the best, it draws that of
    the lowest mean minus k standard deviations, k between 0 and 2 anew for each draw; pending evaluations
    lower the deviation around them. Until then, and for the other quarter, draws are random.

    Low budgets may mislead. So only a part of these draws learns from all evaluations: as large a part as the
    rank correlation between the losses at neighbouring budgets (the mean over all such pairs, weighted by
    configurations), none where it is negative or hardly any configuration has been at two budgets. It is that
    of configurations that went up, and so rather too low. The other draws trust no budget lower than the one
    at which their bracket starts, as Hyperband's brackets do.

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
    domain: Domain,
    evidence: list[Evidence],
    label: str | None,
    start: Budget,
    max_budget: Budget,
    seed: int,
) -> Vals | None:
    """The model's draw; None as long as nothing has succeeded at max_budget, or nothing is to be drawn."""
    space = encoding.axes(domain, label)
    evidence = sorted(evidence, key=order)
    succeeded = _succeeded(evidence)
    if all(axis.budget for axis in space) or not succeeded or evidence[0].budget < max_budget:
        return None
    rng = np.random.default_rng(seed)
    if rng.random() >= _agreement(succeeded):
        evidence = [each for each in evidence if each.loss is None or each.budget >= start]
        succeeded = _succeeded(evidence)
    finished = sum(each.loss is not None for each in evidence)
    rows = encoding.matrix(space, [each.vals for each in evidence])
    known = {row.tobytes() for row in rows}
    parents = np.array(list({row.tobytes(): row for row in rows[: len(succeeded)]}.values())[:PARENTS])
    random_rows = encoding.random_rows(space, domain, rng, CANDIDATES)
    children = encoding.mutated(space, parents[rng.integers(len(parents), size=CANDIDATES)], random_rows, rng)
    candidates = np.array([row for row in (*random_rows, *children) if row.tobytes() not in known])
    if not len(candidates):
        return None

    half = LEARNED_FROM // 2  # the best of them, and some of the others
    others = rng.permutation(np.arange(half, finished))[: LEARNED_FROM - half]
    learned = np.concatenate([np.arange(min(half, finished)), np.sort(others)])
    seen = np.concatenate([learned, np.arange(finished, len(evidence))[:LEARNED_FROM]])
    times = np.log([evidence[i].budget / max_budget for i in seen])
    options = encoding.options(space, np.concatenate([rows, candidates]))
    x, owners = encoding.features(space, rows[seen], options)
    targets = _targets([evidence[i].loss for i in learned])
    with _one_thread():
        subset = rng.permutation(len(learned))[:SCALED_BY]
        process = gp.fit(x, times / (-min(times.min(), 0.0) or 1.0), owners, targets, subset)
        mean, deviation = process.predict(encoding.features(space, candidates, options)[0])
    for row in candidates[np.argsort(mean - rng.uniform(0, 2) * deviation, kind="stable")]:
        if encoding.is_valid(domain, vals := encoding.vals_of(space, row), label):
            return vals
    return None


def _succeeded(evidence: list[Evidence]) -> list[tuple[Hashable, Budget, float]]:
    """Configuration, budget and loss of those that have succeeded."""
    return [(e.config, e.budget, e.loss) for e in evidence if e.loss is not None and e.loss < FAILED]


def _agreement(succeeded: list[tuple[Hashable, Budget, float]]) -> float:
    """Rank correlation between the losses at neighbouring budgets, over all of them; 0 with hardly any."""
    both = [pairs for pairs in neighbours(succeeded).values() if len(pairs) >= ENOUGH]
    counts = [len(pairs) for pairs in both]
    return float(np.average([spearman(pairs) or 0.0 for pairs in both], weights=counts)) if both else 0.0


def _targets(observed: Sequence[float | None]) -> Array:
    """Standardised losses: the better half as it is, the worse half by rank, failures as the worst."""
    losses = np.array(observed, dtype=float)
    losses = np.minimum(losses, losses[losses < FAILED].max()).clip(-1e100, 1e100)  # their squares are finite
    median = np.median(losses)
    scale = max(median - np.quantile(losses, 0.1), 1e-12)
    rank = np.argsort(np.argsort(losses, kind="stable")) / max(1, len(losses) - 1)
    better = (np.minimum(losses, median) - median) / scale
    targets: Array = np.where(losses <= median, better, 2 * rank - 1)
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
