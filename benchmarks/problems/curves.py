"""Learning curves of a network that does not exist: what learns fast ends higher.

After t epochs, loss = end + (start - end) * exp(-(t / tau)^0.7). The end is a bowl in all parameters.
`curves` ranks configurations alike early and late; in `curves_crossing` the optimizer and the learning rate
with the best end are the slow ones, and width and dropout slow training down as well.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from problems import Choice, Float, Int, Parameter, Params, Problem

START = 0.9
PARAMETERS: dict[str, Parameter] = {
    "optimizer": Choice(("sgd", "adam", "rmsprop")),
    "learning_rate": Float(1e-5, 1.0, log=True),
    "weight_decay": Float(1e-6, 0.1, log=True),
    "width": Int(16, 512, log=True),
    "dropout": Float(0, 0.8),
}
END = {"sgd": 0.05, "adam": 0.07, "rmsprop": 0.09}
BEST_RATE = {"sgd": -2.5, "adam": -3.5, "rmsprop": -3.2}
EPOCHS = {"sgd": 8.0, "adam": 2.5, "rmsprop": 2.0}
"""tau at the learning rate with the best end, where curves cross."""


def loss(params: Params, budget: float, rng: np.random.Generator | None, *, crossing: bool) -> float:
    kind = params["optimizer"]
    rate = math.log10(params["learning_rate"]) - BEST_RATE[kind]
    decay = math.log10(params["weight_decay"]) + 3.5
    width = math.log2(params["width"]) - 7.5
    dropout = params["dropout"] - 0.3
    bowl = 0.03 * rate**2 + 0.01 * decay**2 + 0.006 * width**2 + 0.3 * dropout**2 + 0.01 * rate * decay
    end = END[kind] + (START - END[kind]) * math.tanh(bowl)
    if crossing:
        tau = EPOCHS[kind] * 10 ** (-0.8 * rate) * 2 ** (0.3 * width) * math.exp(1.5 * dropout)
    else:
        tau = 3.0 * (1 + 4 * bowl)
    value = end + (START - end) * math.exp(-((budget / tau) ** 0.7))
    return value if rng is None else value + 0.01 * (1 + 2 / budget) * float(rng.standard_normal())


PROBLEMS = [
    Problem(name, PARAMETERS, 1, 81, functools.partial(loss, crossing=crossing), optimum)
    for name, crossing, optimum in [("curves", False, 0.0500368), ("curves_crossing", True, 0.0520411)]
]
