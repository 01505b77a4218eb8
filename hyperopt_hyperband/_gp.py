"""Regression by a Gaussian process over configurations and log budgets, in plain numpy.

The kernel is a Matern 5/2 over the features, with a length scale for each hyperparameter, times an
exponential one over log budgets; the noise may grow towards low budgets. Its parameters are the most
likely ones given the data and a log-normal prior (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, chapters 2 and 5), approached by a few steps of Rprop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 12
JITTER = 1e-6
LOWEST, HIGHEST = math.log(0.03), math.log(50)
"""Of the logarithm of a length scale."""


@dataclass(frozen=True, slots=True)
class Process:
    """A fitted process.

    Attributes
    ----------
    x, t : features and log budgets of what it has seen: n x columns, and n, 0 at the full budget
    owners : the hyperparameter of each column
    scales, budget_scale : length scales, of each hyperparameter and of the log budget
    weights : of each observation in the mean
    precision : the inverse of the covariance of what was observed and of what is pending, n x n
    variance : of the signal
    """

    x: Array
    t: Array
    owners: Array
    scales: Array
    budget_scale: float
    weights: Array
    precision: Array
    variance: float

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at the full budget, without noise, of every row."""
        covariance = _matern(_scaled_squares(x, self.x, self.scales[self.owners]))[0]
        covariance *= np.exp(-np.abs(self.t) / self.budget_scale)
        explained = np.einsum("ij,ij->i", covariance @ self.precision, covariance)
        return covariance @ self.weights, np.sqrt(self.variance * np.maximum(1 - explained, 1e-12))


def fit(x: Array, t: Array, owners: Array, y: Array, subset: Array) -> Process:
    """Fit a process.

    Parameters
    ----------
    x : n x columns
        Features.
    t : n
        Log budgets, 0 at the full one and -1 at the lowest.
    owners : columns
        The hyperparameter that each column belongs to.
    y : at most n
        Standardised losses of the first rows; the others are pending: they lower the uncertainty around
        themselves and say nothing of the mean (Desautels et al., JMLR 15, 2014).
    subset : indices of observations
        Those from which the kernel's parameters are learned.
    """
    scales, budget_scale, noise, growth = _most_likely(x[subset], t[subset], owners, y[subset])
    covariance = _matern(_scaled_squares(x, x, scales[owners]))[0]
    covariance *= np.exp(-np.abs(t[:, None] - t) / budget_scale)
    covariance[np.diag_indices_from(covariance)] += noise * np.exp(-growth * t) + JITTER
    observed = len(y)
    precision = np.linalg.inv(covariance)
    seen = precision if observed == len(x) else np.linalg.inv(covariance[:observed, :observed])
    weights = seen @ y
    variance = max(float(y @ weights) / observed, 1e-6)
    padded = np.concatenate([weights, np.zeros(len(x) - observed)])
    return Process(x, t, owners, scales, budget_scale, padded, precision, variance)


def _most_likely(x: Array, t: Array, owners: Array, y: Array) -> tuple[Array, float, float, float]:
    """Length scales, the budget's length scale, the noise at full budget and its growth to the lowest."""
    count, width = len(y), int(owners.max()) + 1
    squares = np.zeros((count, count, width))
    for column, owner in enumerate(owners):
        squares[:, :, owner] += (x[:, None, column] - x[:, column]) ** 2
    apart = np.abs(t[:, None] - t)
    # Logarithms of the parameters, the growth itself aside: where they start, and the prior around it.
    centre = np.array([*[0.5 * math.log(width) - math.log(2)] * width, 0.0, math.log(0.05), 0.0])
    spread = np.array([*[1.0] * width, 1.0, 1.5, 3.0])
    low = np.array([*[LOWEST] * width, math.log(0.05), math.log(1e-4), 0.0])
    high = np.array([*[HIGHEST] * width, math.log(20), math.log(2), 9.0])
    theta, step, before = centre.copy(), np.full(width + 3, 0.3), np.zeros(width + 3)
    for _ in range(STEPS):
        gradient = _gradient(theta, squares, apart, t, y) - (theta - centre) / spread**2
        turned = np.sign(gradient * before)
        step = np.where(turned > 0, np.minimum(1.3 * step, 1.0), np.where(turned < 0, 0.5 * step, step))
        theta, before = np.clip(theta + step * np.sign(gradient), low, high), gradient
    return np.exp(theta[:width]), math.exp(theta[width]), math.exp(theta[width + 1]), float(theta[width + 2])


def _gradient(theta: Array, squares: Array, apart: Array, t: Array, y: Array) -> Array:
    """The log likelihood's, with the most likely variance of the signal.

    Parameters
    ----------
    theta : what `_most_likely` returns, as logarithms, but for the growth
    squares, apart : n x n x hyperparameters and n x n
        Squared distances, and distances of log budgets.
    """
    width = squares.shape[2]
    shrink, budget_scale = np.exp(-2 * theta[:width]), math.exp(theta[width])
    kernel, slope = _matern(squares @ shrink)
    over_budgets = np.exp(-apart / budget_scale)
    kernel *= over_budgets
    noise = np.exp(theta[width + 1] - theta[width + 2] * t)
    precision = np.linalg.inv(kernel + np.diag(noise + JITTER))
    weights = precision @ y
    variance = max(float(y @ weights) / len(y), 1e-6)
    # The derivative by the covariance (Rasmussen and Williams, eq. 5.9); then the chain rule.
    outer = 0.5 * (np.outer(weights, weights) / variance - precision)
    by_squares = (outer * slope * over_budgets).ravel() @ squares.reshape(-1, width)
    by_noise = np.diag(outer) * noise
    by_budget_scale = np.sum(outer * kernel * apart) / budget_scale
    return np.array([*(by_squares * shrink), by_budget_scale, by_noise.sum(), -(by_noise @ t)])


def _scaled_squares(a: Array, b: Array, scales: Array) -> Array:
    """Squared distances between the rows of a and of b."""
    a, b = a / scales, b / scales
    squares: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0)


def _matern(squares: Array) -> tuple[Array, Array]:
    """Matern 5/2 of squared distances, and -2 times its derivative by them."""
    distance = np.sqrt(5 * squares)
    decay = np.exp(-distance)
    return (1 + distance + 5 / 3 * squares) * decay, 5 / 3 * (1 + distance) * decay
