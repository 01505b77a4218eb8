import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from hyperopt_hyperband import _gp as gp


def data(count, columns=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((count, columns))
    t = rng.choice([-1.0, -0.5, 0.0], size=count)
    y = np.sin(5 * x[:, 0]) + x[:, -1] ** 2 + 0.3 * t + 0.05 * rng.standard_normal(count)
    return x, t, np.arange(columns), (y - y.mean()) / y.std()


def fixed(monkeypatch, scales, budget_scale=1.0, noise=0.1, growth=0.0):
    monkeypatch.setattr(gp, "_most_likely", lambda *_: (np.array(scales), budget_scale, noise, growth))


def test_mean_and_deviation_are_scikit_learn_s_with_the_same_kernel(monkeypatch):
    x, _, owners, y = data(30)
    fixed(monkeypatch, [0.3, 0.8])
    process = gp.fit(x, np.zeros(30), owners, y, np.arange(30))
    new = data(20, seed=1)[0]
    mean, deviation = process.predict(new)
    theirs = GaussianProcessRegressor(Matern([0.3, 0.8], nu=2.5), alpha=0.1 + gp.JITTER, optimizer=None)
    their_mean, their_deviation = theirs.fit(x, y).predict(new, return_std=True)
    np.testing.assert_allclose(mean, their_mean, rtol=1e-6, atol=1e-9)
    # Our kernel is times the most likely variance, theirs is not.
    assert process.variance == pytest.approx(y @ theirs.alpha_ / 30)
    np.testing.assert_allclose(deviation, their_deviation * np.sqrt(process.variance), rtol=1e-6)


def test_low_budgets_count_by_the_formula(monkeypatch):
    x, t, owners, y = data(12)
    fixed(monkeypatch, [0.5, 0.5], budget_scale=2.0, noise=0.2, growth=1.5)
    mean, deviation = gp.fit(x, t, owners, y, np.arange(12)).predict(x[:3] + 0.1)

    def kernel(a, s, b, u):
        r = np.linalg.norm((a - b) / 0.5)
        matern = (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)
        return matern * np.exp(-abs(s - u) / 2.0)

    known = np.array(
        [[kernel(a, s, b, u) for b, u in zip(x, t, strict=True)] for a, s in zip(x, t, strict=True)]
    )
    known += np.diag(0.2 * np.exp(-1.5 * t) + gp.JITTER)
    new = np.array([[kernel(a, 0.0, b, u) for b, u in zip(x, t, strict=True)] for a in x[:3] + 0.1])
    variance = y @ np.linalg.solve(known, y) / 12
    np.testing.assert_allclose(mean, new @ np.linalg.solve(known, y))
    left = 1 - np.diag(new @ np.linalg.solve(known, new.T))
    np.testing.assert_allclose(deviation, np.sqrt(variance * left))


def log_likelihood(theta, x, t, owners, y):
    width = owners.max() + 1
    kernel = gp._matern(gp._scaled_squares(x, x, np.exp(theta[:width])[owners]))[0]
    kernel *= np.exp(-np.abs(t[:, None] - t) / np.exp(theta[width]))
    kernel += np.diag(np.exp(theta[width + 1] - theta[width + 2] * t) + gp.JITTER)
    variance = y @ np.linalg.solve(kernel, y) / len(y)
    return -0.5 * (len(y) * np.log(variance) + np.linalg.slogdet(kernel)[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(seed):
    x, t, _, y = data(25, columns=4, seed=seed)
    owners = np.array([0, 1, 1, 2])  # hyperparameter 1 has two columns
    theta = np.random.default_rng(seed).uniform([-1, -1, -1, -1, -3, 0.2], [1, 1, 1, 1, -1, 2])
    squares = np.zeros((25, 25, 3))
    for column, owner in enumerate(owners):
        squares[:, :, owner] += (x[:, None, column] - x[:, column]) ** 2
    gradient = gp._gradient(theta, squares, np.abs(t[:, None] - t), t, y)
    numeric = [
        (log_likelihood(theta + h, x, t, owners, y) - log_likelihood(theta - h, x, t, owners, y)) / 2e-5
        for h in 1e-5 * np.eye(6)
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


def test_the_fit_is_likelier_than_where_it_starts_and_knows_what_matters():
    rng = np.random.default_rng(0)
    x, t, owners = rng.random((80, 3)), np.zeros(80), np.arange(3)
    y = np.sin(6 * x[:, 1]) + 0.02 * rng.standard_normal(80)
    y = (y - y.mean()) / y.std()
    scales, budget_scale, noise, growth = gp._most_likely(x, t, owners, y)
    found = np.array([*np.log(scales), np.log(budget_scale), np.log(noise), growth])
    start = np.array([*[0.5 * np.log(3) - np.log(2)] * 3, 0, np.log(0.05), 0])
    assert log_likelihood(found, x, t, owners, y) > log_likelihood(start, x, t, owners, y) + 10
    assert scales[1] < min(scales[0], scales[2]) / 2


def test_what_is_pending_lowers_the_deviation_around_itself_and_leaves_the_mean(monkeypatch):
    x, t, owners, y = data(20)
    fixed(monkeypatch, [0.2, 0.2])
    pending = np.array([[0.5, 0.5]])
    before = gp.fit(x, t, owners, y, np.arange(20))
    after = gp.fit(np.concatenate([x, pending]), np.append(t, 0.0), owners, y, np.arange(20))
    (mean,), (deviation,) = before.predict(pending)
    (mean_after,), (deviation_after,) = after.predict(pending)
    assert mean_after == pytest.approx(mean)
    assert deviation_after < 0.7 * deviation


@pytest.mark.parametrize("y", [[0.0], [0.0] * 5, [1.0, -1.0]])
def test_few_or_equal_losses_are_fitted(y):
    x = np.full((len(y), 1), 0.3)
    process = gp.fit(x, np.zeros(len(y)), np.array([0]), np.array(y), np.arange(len(y)))
    assert all(np.isfinite(found).all() for found in process.predict(np.linspace(0, 1, 5)[:, None]))
