"""The model of `bohb.suggest`: which configuration to evaluate next, by a Gaussian process."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hyperopt_hyperband import _encoding as encoding
from hyperopt_hyperband import _gp as gp
from hyperopt_hyperband import _seconds as seconds
from hyperopt_hyperband._correlation import neighbours, spearman
from hyperopt_hyperband._documents import Vals
from hyperopt_hyperband._evaluations import Evaluation
from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._samplers import Request, order
from hyperopt_hyperband._schedule import Budget
from hyperopt_hyperband._space import contains

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


def draw(request: Request, *, per_second: bool = False) -> Vals | None:
    """The model's draw; None as long as nothing has succeeded at max_budget, or nothing is to be drawn.

    `bohb.suggest` says how it works.
    """
    known = everything = sorted(request.evaluations, key=order)
    if not is_ready(request, known):
        return None
    rng = np.random.default_rng(request.seed)
    if rng.random() >= _agreement(_succeeded(known)):
        known = [e for e in known if e.status == "pending" or e.reached >= request.start_budget]
    learned = learn(request, known, rng)
    if learned is None:
        return None
    budgets = request.maxima.keys()
    with one_thread():
        mean, deviation = learned.process.predict(learned.candidates)
    bound = mean - rng.uniform(0, 2) * deviation
    if per_second:
        better = np.minimum(bound - mean.min(), 0) / seconds.relative(learned.space, everything, learned.rows)
        bound = np.where(better < 0, better, bound - bound.min())
    for row in learned.rows[np.argsort(bound, kind="stable")]:
        if contains(request.domain.expr, vals := encoding.assignment(learned.space, row), budgets):
            return vals
    return None


def is_ready(request: Request, known: Sequence[Evaluation]) -> bool:
    """Whether there is something to draw, and the first evaluation has succeeded at max_budget."""
    space = encoding.axes(request.domain, request.maxima.keys())
    return (
        not all(axis.budget for axis in space)
        and bool(known)
        and known[0].loss is not None
        and known[0].reached >= request.max_budget
    )


class Learned(NamedTuple):
    """A fitted process, and what it may draw.

    Attributes
    ----------
    space : the hyperparameters
    rows : the configurations that may be drawn, none of which is known
    candidates : the same as the process sees them
    unit : log budgets are multiples of it, below that of max_budget
    own : the share of the noise that belongs to a configuration, and is the same at all budgets
    """

    space: Sequence[encoding.Axis]
    process: gp.Process
    rows: Array
    candidates: Array
    unit: float
    own: float


def learn(request: Request, known: Sequence[Evaluation], rng: np.random.Generator) -> Learned | None:
    """Fit the process to evaluations, in their order; None where every configuration is known."""
    domain, max_budget = request.domain, request.max_budget
    space = encoding.axes(domain, request.maxima.keys())
    succeeded = len(_succeeded(known))
    finished = sum(e.status != "pending" for e in known)
    rows = encoding.matrix(space, [e.vals for e in known])
    seen_before = {row.tobytes() for row in rows}
    parents = np.array(list({row.tobytes(): row for row in rows[:succeeded]}.values())[:PARENTS])
    random_rows = encoding.random_rows(space, domain, rng, CANDIDATES)
    children = encoding.mutated(space, parents[rng.integers(len(parents), size=CANDIDATES)], random_rows, rng)
    candidates = np.array([row for row in (*random_rows, *children) if row.tobytes() not in seen_before])
    if not len(candidates):
        return None

    half = LEARNED_FROM // 2  # the best of them, and some of the others
    others = rng.permutation(np.arange(half, finished))[: LEARNED_FROM - half]
    learned = np.concatenate([np.arange(min(half, finished)), np.sort(others)])
    seen = np.concatenate([learned, np.arange(finished, len(known))[:LEARNED_FROM]])
    times = np.log([(known[i].known_at or max_budget) / max_budget for i in seen])
    unit = -min(times.min(), 0.0) or 1.0
    options = encoding.options(space, np.concatenate([rows, candidates]))
    x, owners = encoding.features(space, rows[seen], options)
    targets = _targets([known[i].loss for i in learned])
    with one_thread():
        subset = rng.permutation(len(learned))[:SCALED_BY]
        process = gp.fit(x, times / unit, owners, targets, subset)
    own = _own([known[i] for i in learned], process.left)
    return Learned(space, process, candidates, encoding.features(space, candidates, options)[0], unit, own)


def _own(finished: Sequence[Evaluation], left: Array) -> float:
    """The correlation of what the process can't explain at neighbouring budgets of a configuration.

    Where it is noise, there is none. Where its kernel fails, on losses without structure, low budgets may
    tell much all the same.
    """
    rests = zip(finished, left, strict=True)
    by_budgets = neighbours((e.config, e.reached, rest) for e, rest in rests if e.loss is not None)
    pairs = np.array([pair for both in by_budgets.values() for pair in both]).reshape(-1, 2)
    squares = math.sqrt((pairs[:, 0] @ pairs[:, 0]) * (pairs[:, 1] @ pairs[:, 1]))
    correlation = float(pairs[:, 0] @ pairs[:, 1]) / squares if squares else 0.0
    return max(correlation, 0.0) * len(pairs) / (len(pairs) + ENOUGH)


def _succeeded(known: Sequence[Evaluation]) -> list[tuple[Hashable, Budget, float]]:
    """Configuration, budget and loss of those that have succeeded."""
    return [(e.config, e.reached, e.loss) for e in known if e.loss is not None]


def _agreement(succeeded: list[tuple[Hashable, Budget, float]]) -> float:
    """Rank correlation between the losses at neighbouring budgets, over all of them; 0 with hardly any."""
    both = [pairs for pairs in neighbours(succeeded).values() if len(pairs) >= ENOUGH]
    counts = [len(pairs) for pairs in both]
    return float(np.average([spearman(pairs) or 0.0 for pairs in both], weights=counts)) if both else 0.0


def _targets(observed: Sequence[float | None]) -> Array:
    """Standardised losses: the better half as it is, the worse half by rank, failures as the worst."""
    losses = np.array([FAILED if loss is None else loss for loss in observed])
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


_limiting = threading.Lock()
"""The limit holds for the whole process: the later of two at a time would end by restoring the other's one
thread. OpenMP's is the thread's own, so that each has to set and restore it itself."""
if hasattr(os, "register_at_fork"):  # forked under the limit, a worker would have one thread for ever
    os.register_at_fork(
        before=_limiting.acquire, after_in_parent=_limiting.release, after_in_child=_limiting.release
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from threads, and lose much where the cores are busy training.

    threadpoolctl comes with scikit-learn; without it, the threads stay.
    """
    controller = _controller()
    if controller is None:
        yield
        return
    with _limiting, controller.limit(limits=1):
        yield
