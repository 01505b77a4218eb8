"""Which bracket `bohb.suggest` opens next: the one of which its model expects most for its budget."""

from __future__ import annotations

from typing import Any

import numpy as np

from hyperopt_hyperband._model import Learned, is_ready, learn, one_thread
from hyperopt_hyperband._samplers import Request, order
from hyperopt_hyperband._schedule import Schedule

Array = np.ndarray[Any, np.dtype[Any]]

BY_THE_PAPER = 16
"""After the first iteration, each sixteenth bracket is the next one of the paper's order."""
MARGIN = 1.5
"""A deeper bracket has to promise so many times what bracket 0 does: there, each draw knows the results at
max_budget of those before it, which the simulation leaves out."""
BY_MODEL, AT_RANDOM = 36, 12
"""Configurations that a bracket is simulated with."""
SAMPLES = 128
"""Losses of each, at all budgets."""
SIMULATED = 16_000
"""Configurations that all simulations of a bracket draw together; a bracket is simulated 4 to 200 times."""


def choose(request: Request, plan: Schedule, opened: int) -> int:
    """The s of the bracket that opens after so many; `bohb.suggest` says how it is chosen."""
    brackets = [bracket.s for bracket in plan.brackets]
    if opened < len(brackets) or len(brackets) == 1:
        return brackets[opened % len(brackets)]
    turn, others = divmod(opened - len(brackets), BY_THE_PAPER)
    if others == BY_THE_PAPER - 1:
        return brackets[turn % len(brackets)]
    known = sorted(request.evaluations, key=order)
    rng = np.random.default_rng((request.seed, opened))
    learned = learn(request, known, rng) if is_ready(request, known) else None
    if learned is None:
        return brackets[opened % len(brackets)]
    gains = _gains(learned, plan, rng)
    gains[0] *= MARGIN
    return int(gains.argmax())


def _gains(learned: Learned, plan: Schedule, rng: np.random.Generator) -> Array:
    """How far each bracket, s from 0, may be expected to lower the loss, over its total budget."""
    levels = np.log([rung.budget / plan.max_budget for rung in plan.brackets[0].rungs])
    times = np.maximum(levels / learned.unit, -1)  # nothing is known of lower budgets than those seen
    with one_thread():
        mean, deviation = learned.process.predict(learned.candidates)
        by_model = [np.argmin(mean - k * deviation) for k in rng.uniform(0, 2, BY_MODEL)]
        drawn = np.concatenate([by_model, rng.integers(len(mean), size=AT_RANDOM)])
        losses, seen = learned.process.sample(learned.candidates[drawn], times, SAMPLES, learned.own, rng)
    gains = []
    for bracket in reversed(plan.brackets):
        count = bracket.rungs[0].configurations
        size = min(max(SIMULATED // count, 4), 200), count
        sample, configuration = rng.integers(SAMPLES, size=size), rng.integers(len(drawn), size=size)
        for i, rung in enumerate(bracket.rungs[1:]):
            ranks = seen[sample, configuration, i - len(bracket.rungs)].argsort(axis=1)
            best = ranks[:, : rung.configurations]
            sample, configuration = (
                np.take_along_axis(each, best, axis=1) for each in (sample, configuration)
            )
        lowest = losses[sample, configuration, -1].min(axis=1)
        gains.append(np.maximum(mean.min() - lowest, 0).mean() / bracket.total_budget)
    return np.array(gains)
