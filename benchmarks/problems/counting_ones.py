"""Counting ones: maximise the ones of 8 bits and the success rates of 8 coins, each tossed budget times.

Source: Falkner, Klein and Hutter, BOHB, ICML 2018, section 5.1.
"""

from __future__ import annotations

import numpy as np

from problems import Choice, Float, Params, Problem

BITS = [f"bit_{i}" for i in range(8)]
COINS = [f"coin_{i}" for i in range(8)]


def loss(params: Params, budget: float, rng: np.random.Generator | None) -> float:
    rates = np.array([params[name] for name in COINS])
    tosses = max(1, round(budget))
    successes = rates if rng is None else rng.binomial(tosses, rates) / tosses
    return -float(sum(params[name] for name in BITS) + successes.sum())


PROBLEMS = [
    Problem(
        "counting_ones",
        {name: Choice((0, 1)) for name in BITS} | {name: Float(0, 1) for name in COINS},
        min_budget=1,
        max_budget=81,
        loss=loss,
        optimum=-16,
    )
]
