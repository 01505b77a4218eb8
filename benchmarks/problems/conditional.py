"""A choice among four model families, each with parameters of its own: made-up losses, budgets as training.

The forest is good at once and never better; the network is the best at full budget where all its
parameters are right, and poor at low ones; boosting lies between them; the linear model is quick and weak.
"""

from __future__ import annotations

import math

import numpy as np

from problems import Choice, Float, Int, Parameter, Params, Problem

MAX_BUDGET = 81


def _linear(params: Params) -> tuple[float, float]:
    return 0.30 + 0.02 * (math.log10(params["linear_c"]) - 0.5) ** 2, 0.02


def _forest(params: Params) -> tuple[float, float]:
    depth, features = math.log2(params["forest_depth"]), params["forest_features"]
    return 0.18 + 0.02 * (depth - 4) ** 2 + 0.2 * (features - 0.4) ** 2, 0.05


def _boosting(params: Params) -> tuple[float, float]:
    rate, depth = math.log10(params["boosting_rate"]), params["boosting_depth"]
    end = 0.14 + 0.05 * (rate + 1.2 + 0.15 * (depth - 4)) ** 2 + 0.006 * (depth - 4) ** 2
    return end + 0.1 * (params["boosting_subsample"] - 0.7) ** 2, 0.2


def _network(params: Params) -> tuple[float, float]:
    rate, decay = math.log10(params["network_rate"]) + 2.7, math.log10(params["network_decay"]) + 4
    end = 0.10 if params["network_activation"] == "relu" else 0.13
    layers = params["network_layers"]
    end += 0.06 * rate**2 + 0.01 * decay**2 + 0.01 * (layers - 3) ** 2 + 0.01 * rate * decay
    return end, 0.35


FAMILIES = {"linear": _linear, "forest": _forest, "boosting": _boosting, "network": _network}
PARAMETERS: dict[str, Parameter] = {
    "family": Choice(tuple(FAMILIES)),
    "linear_c": Float(1e-3, 1e3, log=True, when=("family", "linear")),
    "forest_depth": Int(2, 64, log=True, when=("family", "forest")),
    "forest_features": Float(0.05, 1, when=("family", "forest")),
    "boosting_rate": Float(1e-3, 1, log=True, when=("family", "boosting")),
    "boosting_depth": Int(1, 10, when=("family", "boosting")),
    "boosting_subsample": Float(0.3, 1, when=("family", "boosting")),
    "network_rate": Float(1e-5, 0.1, log=True, when=("family", "network")),
    "network_decay": Float(1e-7, 0.1, log=True, when=("family", "network")),
    "network_layers": Int(1, 6, when=("family", "network")),
    "network_activation": Choice(("relu", "tanh"), when=("family", "network")),
}


def loss(params: Params, budget: float, rng: np.random.Generator | None) -> float:
    end, untrained = FAMILIES[params["family"]](params)
    value = min(end, 0.9) + untrained * (1 / math.sqrt(budget) - 1 / math.sqrt(MAX_BUDGET))
    return value if rng is None else value + 0.04 / math.sqrt(budget) * float(rng.standard_normal())


PROBLEMS = [Problem("conditional", PARAMETERS, 1, MAX_BUDGET, loss, optimum=0.10)]
