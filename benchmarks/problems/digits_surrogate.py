"""A surrogate of the article's problem: cross-validated accuracy of MLPClassifier on digits, by epochs.

Kernel regression (Matern 5/2) on 913 recorded learning curves, in a basis of 5 curves of the accuracy's
logit, and in every cell of the space a mix of two residual curves of configurations recorded nearby:
deterministic, and as rough as the real one. A surrogate's figures are not those of training runs.
"""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from problems import Choice, Float, Params, Problem

HIDDEN = ("32", "64", "128", "256", "32-32", "64-64", "128-128", "256-256")
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
EPOCHS = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 67, 70, 81, 100, 120, 150, 200]
)
SAMPLES = 1797
Array = np.ndarray[Any, Any]


@functools.cache
def recorded() -> dict[str, Array]:
    with np.load(Path(__file__).with_suffix(".npz")) as file:
        return dict(file)


def features(rate: float, alpha: float, hidden: int, activation: int) -> Array:
    layers = HIDDEN[hidden].split("-")
    wide, deep = (math.log2(int(layers[0])) - 5) / 3, len(layers) - 1
    return np.array([rate / 2 + 1.5, alpha / 2 + 2, wide, deep, *np.eye(4)[activation]])


def smooth(point: Array) -> Array:
    """The accuracy's logit at each of EPOCHS."""
    data = recorded()
    count = len(data["V"])  # the last output tells when training stops: not needed here
    differences = (data["X"] - point) ** 2
    distance = np.sqrt(5 * differences @ (1 / data["ls"][:count] ** 2).T)
    kernel = data["amp"][:count] * (1 + distance + distance**2 / 3) * np.exp(-distance)
    outputs = (kernel * data["weights"][:count].T).sum(axis=0)
    outputs = outputs * data["z_sd"][:count] + data["z_mean"][:count]
    logit: Array = data["mean"] + outputs @ data["V"]
    return logit


@functools.cache
def residual(cell: tuple[int, int, int, int]) -> Array:
    """A cell is 0.06 decades of learning rate wide, 0.5 of alpha, of one network."""
    data = recorded()
    point = features((cell[0] + 0.5) * 0.06, (cell[1] + 0.5) * 0.5, *cell[2:])
    level = ((data["pred"] - smooth(point)[[8, 14, 25]]) ** 2).sum(axis=1) / 0.15**2
    near = np.argsort((((data["X"] - point) / data["ls"][0]) ** 2).sum(axis=1) + level)[:16]
    digest = hashlib.blake2b(repr((0, cell)).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    turn = 2 * np.pi * (number // 256 % 2**20) / 2**20
    one, two = data["resid"][near[number % 16]], data["resid"][near[number // 16 % 16]]
    turned: Array = np.cos(turn) * one + np.sin(turn) * two
    return turned


@functools.lru_cache(4096)
def curve(learning_rate_init: float, alpha: float, hidden: str, activation: str) -> Array:
    """Accuracy at each of EPOCHS."""
    rate, alpha = math.log10(learning_rate_init), math.log10(alpha)
    network = HIDDEN.index(hidden), ACTIVATIONS.index(activation)
    logit = smooth(features(rate, alpha, *network))
    logit = logit + residual((math.floor(rate / 0.06), math.floor(alpha / 0.5), *network))
    accuracy: Array = 1 / (1 + np.exp(-logit))
    return accuracy


def loss(params: Params, budget: float, _: np.random.Generator | None) -> float:
    accuracy = np.interp(round(budget), EPOCHS, curve(**params))
    return 1 - round(float(accuracy) * SAMPLES) / SAMPLES


PROBLEMS = [
    Problem(
        "digits_surrogate",
        {
            "learning_rate_init": Float(1e-3, 0.1, log=True),
            "hidden": Choice(HIDDEN),
            "alpha": Float(1e-4, 0.01, log=True),
            "activation": Choice(ACTIVATIONS),
        },
        min_budget=1,
        max_budget=200,
        loss=loss,
        optimum=55 / SAMPLES,
        exact=False,
    )
]
