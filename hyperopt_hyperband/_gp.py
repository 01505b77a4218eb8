"""Regression by a Gaussian process over configurations and log budgets, in plain numpy.

The covariance of two evaluations is  variance * matern(distance) * exp(-|t - t'| / budget_scale),  and each
one's noise is  variance * noise * exp(-growth * t):  it may grow towards low budgets. The parameters are the
most likely ones given the losses and a log-normal prior (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, chapters 2 and 5), approached by a few steps of Rprop.

No library has this kernel and this noise ready. Two models of scikit-learn in its place
(benchmarks/models.py, 23 and 24 runs over the suite's 11 cheap problems, seeds 100 and up, with bracket 0
alone after the first iteration) left more regret, in log10 at 10 / 30 / 100 x max_budget:
GaussianProcessRegressor 0.09 / 0.03 / 0.09, which is within noise, for 7 times the CPU time;
ExtraTreesRegressor 0.23 / 0.73 / 1.10, for 3 times.

Arrays, of n evaluations (the first m of them finished, the others pending), c columns of features that
belong to h hyperparameters, and k configurations to predict:

    x            n, c     features; two options of a choice lie 1 apart, numbers between 0 and 1
    t            n        log budgets, 0 at max_budget, -1 at the lowest
    owners       c        the hyperparameter of each column, 0 to h - 1
    y            m        standardised losses
    scales       h        length scales
    squares      n, n, h  squared distances of two evaluations, by hyperparameter
    apart        n, n     |t - t'|
    covariance   n, n     over the variance of the signal, noise included
    precision    n, n     its inverse; of the finished alone: seen, m, m
    weights      n        what each evaluation counts in the mean, 0 where pending
    theta        h + 3    the parameters: log scales, log budget_scale, log noise, growth
    gradient     h + 3    of the log posterior, by theta
    mean         k        predicted loss at max_budget
    deviation    k        its standard deviation, without noise
    times        b        log budgets to predict at
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
    x, t, owners, scales, weights, precision : arrays, as at the top of this module
    budget_scale : the length scale of the log budget
    noise, growth : the noise at max_budget over the variance of the signal, and how it grows
    variance : of the signal
    left : what the mean leaves of the losses, over the standard deviation of the noise there: (m)
    """

    x: Array
    t: Array
    owners: Array
    scales: Array
    budget_scale: float
    noise: float
    growth: float
    weights: Array
    precision: Array
    variance: float
    left: Array

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at the full budget, without noise, of every row."""
        covariance = _matern(_scaled_squares(x, self.x, self.scales[self.owners]))[0]
        covariance *= np.exp(-np.abs(self.t) / self.budget_scale)
        explained = np.einsum("ij,ij->i", covariance @ self.precision, covariance)
        return covariance @ self.weights, np.sqrt(self.variance * np.maximum(1 - explained, 1e-12))

    def sample(
        self, x: Array, times: Array, size: int, own: float, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Losses that each row may have at these budgets, and what is seen of them: two (size, k, b).

        own : the share of the noise that belongs to a configuration and is the same at all budgets, 0 to 1
        """
        alike = _matern(_scaled_squares(x, self.x, self.scales[self.owners]))[0]
        covariance = alike[:, None] * np.exp(-np.abs(times[:, None] - self.t) / self.budget_scale)
        prior = np.exp(-np.abs(times[:, None] - times) / self.budget_scale)
        left = self.variance * (prior - covariance @ self.precision @ covariance.transpose(0, 2, 1))
        values, vectors = np.linalg.eigh(left)
        spread = vectors * np.sqrt(np.maximum(values, 0))[:, None]
        normal = rng.standard_normal((size, len(x), len(times), 1))
        noise = np.sqrt(self.variance * self.noise * np.exp(-self.growth * times))
        losses = covariance @ self.weights + (spread @ normal)[..., 0]
        losses += math.sqrt(own) * noise * rng.standard_normal((size, len(x), 1))
        return losses, losses + math.sqrt(1 - own) * noise * rng.standard_normal(losses.shape)


def fit(x: Array, t: Array, owners: Array, y: Array, subset: Array) -> Process:
    """Fit a process.

    Parameters
    ----------
    x, t, owners, y
        As at the top of this module. What is pending lowers the uncertainty around itself and says nothing of
        the mean (Desautels et al., JMLR 15, 2014).
    subset : indices of finished evaluations
        Those from which the kernel's parameters are learned.
    """
    scales, budget_scale, noise, growth = _most_likely(x[subset], t[subset], owners, y[subset])
    covariance = _matern(_scaled_squares(x, x, scales[owners]))[0]
    covariance *= np.exp(-np.abs(t[:, None] - t) / budget_scale)
    noises = noise * np.exp(-growth * t) + JITTER
    covariance[np.diag_indices_from(covariance)] += noises
    observed = len(y)
    precision = np.linalg.inv(covariance)
    seen = precision if observed == len(x) else np.linalg.inv(covariance[:observed, :observed])
    weights = np.concatenate([seen @ y, np.zeros(len(x) - observed)])
    variance = max(float(y @ weights[:observed]) / observed, 1e-6)
    left = np.sqrt(noises[:observed]) * weights[:observed]  # y less the mean is the noise times these
    return Process(x, t, owners, scales, budget_scale, noise, growth, weights, precision, variance, left)


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
    """The log likelihood's, with the most likely variance of the signal."""
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
