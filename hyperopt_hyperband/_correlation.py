"""Whether the losses at one budget order configurations as those at the next do."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from hyperopt_hyperband._schedule import Budget

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[float, float]

Interval = tuple[float, float, float]
"""Mean, lower and upper end."""

GRID = np.linspace(-0.98, 0.98, 99)
"""Rank correlations that are weighed against one another."""
NORMAL = 2 * np.sin(math.pi / 6 * GRID)
"""What they are between normal variables (Pearson, 1907)."""
SAME = 2 / 3
"""How likely it is beforehand that two budgets correlate as another two do: few configurations lean on those
at other budgets, many speak for themselves."""


def neighbours(
    losses: Iterable[tuple[Hashable, Budget, float]],
) -> dict[tuple[Budget, Budget], list[Pair]]:
    """The losses of each configuration at two neighbouring ones of its budgets, by these, from the lowest.

    losses : configuration, budget and finite loss of each evaluation
    """
    by_configuration: defaultdict[Hashable, dict[Budget, float]] = defaultdict(dict)
    for config, budget, loss in losses:
        by_configuration[config][budget] = loss
    both: defaultdict[tuple[Budget, Budget], list[Pair]] = defaultdict(list)
    for by_budget in by_configuration.values():
        for low, high in itertools.pairwise(sorted(by_budget)):
            both[low, high].append((by_budget[low], by_budget[high]))
    return dict(sorted(both.items()))


def spearman(pairs: Sequence[Pair]) -> float | None:
    """Rank correlation, -1 to 1; None where the losses at one budget are all equal."""
    low, high = (_ranks(column) for column in np.array(pairs).T)
    return None if np.ptp(low) == 0 or np.ptp(high) == 0 else float(np.corrcoef(low, high)[0, 1])


def over_all(
    losses: Iterable[tuple[Hashable, Budget, float]],
) -> dict[tuple[Budget, Budget], tuple[int, Interval | None]]:
    """The rank correlation between neighbouring budgets over all configurations that could be drawn.

    Only those that went up have a loss at the higher budget, and they are alike at the lower one: among them
    the correlation is much lower than over all. So each that went up is placed, by normal scores, among all
    that began at the low budget, and among all that began at the high one. Of two normal variables with
    correlation r, the second is distributed as N(r x, 1 - r^2) where the first is x, by whatever rule x was
    selected. All correlations are equally likely beforehand.

    Parameters
    ----------
    losses : configuration, budget and finite loss of each evaluation, of configurations drawn alike

    Returns
    -------
    By neighbouring budgets, from the lowest: how many configurations have been at both; the mean, and the 5
    and 95 % points, of what the correlation may be, None where the losses at one budget are all equal.
    """
    losses = list(losses)
    lowest: dict[Hashable, tuple[Budget, float]] = {}
    for config, budget, loss in losses:
        lowest[config] = min(lowest.get(config, (math.inf, 0.0)), (budget, loss))
    began: defaultdict[Budget, list[float]] = defaultdict(list)
    for budget, loss in lowest.values():
        began[budget].append(loss)
    both = neighbours(losses)
    likelihoods = {
        budgets: _likelihood(np.array(pairs), *(np.array(began[budget]) for budget in budgets))
        for budgets, pairs in both.items()
    }
    return {budgets: (len(pairs), _interval(budgets, likelihoods)) for budgets, pairs in both.items()}


def _likelihood(pairs: Array, low: Array, high: Array) -> Array | None:
    """How well each correlation of the grid explains the losses, 1 on average; None where it can't be told.

    pairs : losses at the two budgets of those that went up, (n, 2)
    low, high : losses of those that began at the one budget, and at the other
    """
    at_low, at_high = np.concatenate([low, pairs[:, 0]]), np.concatenate([high, pairs[:, 1]])
    if np.ptp(at_low) == 0 or np.ptp(at_high) == 0:
        return None
    below, not_above = (np.searchsorted(np.sort(low), pairs[:, 0], side) for side in ("left", "right"))
    x = _scores((below + not_above + 1) / 2, len(low) + 1)
    y = _scores(_ranks(at_high) - 0.5, len(at_high))
    began, up = y[: len(high)], y[len(high) :]
    # The normal variable behind y is a y - b, with a scale and a shift that are not known: the likelihood is
    # integrated over b and maximised over a. All sums are weighted with the inverse of the variance.
    inverse = 1 / (1 - NORMAL**2)
    total = len(began) + inverse * len(up)
    mean_y = (began.sum() + inverse * up.sum()) / total
    mean_x = NORMAL * inverse * x.sum() / total
    yy = began @ began + inverse * (up @ up) - total * mean_y**2
    xy = NORMAL * inverse * (x @ up) - total * mean_x * mean_y
    xx = NORMAL**2 * inverse * (x @ x) - total * mean_x**2
    degrees = len(y) - 1
    a = (xy + np.sqrt(xy**2 + 4 * degrees * yy)) / (2 * yy)
    log = degrees * np.log(a) - (a * a * yy - 2 * a * xy + xx) / 2
    log += (len(up) * np.log(inverse) - np.log(total)) / 2
    likelihood: Array = np.exp(log - log.max())
    likelihood /= likelihood.mean()
    return likelihood


def _interval(
    budgets: tuple[Budget, Budget], likelihoods: Mapping[tuple[Budget, Budget], Array | None]
) -> Interval | None:
    own = likelihoods[budgets]
    if own is None:
        return None
    others = [each for other, each in likelihoods.items() if other != budgets and each is not None]
    weights = own * np.prod([1 - SAME + SAME * each for each in others], axis=0)
    weights /= weights.sum()
    lower, upper = np.interp([0.05, 0.95], weights.cumsum() - weights / 2, GRID)
    return float(weights @ GRID), float(lower), float(upper)


def _scores(ranks: Array, number: int) -> Array:
    """Normal scores of ranks between 0 and number."""
    return np.array([NormalDist().inv_cdf(rank / number) for rank in ranks])


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ranks from 1, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray[Any, Any] = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return ranks
