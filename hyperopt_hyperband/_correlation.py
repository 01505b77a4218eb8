"""Whether the losses at one budget order configurations as those at the next do."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from hyperopt_hyperband._schedule import Budget

Pair = tuple[float, float]


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


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ranks from 1, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray[Any, Any] = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return ranks
