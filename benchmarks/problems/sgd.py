"""Real training: scikit-learn's SGDClassifier on digits, the budget a share of the training data (in 27ths).

The random state also draws the share.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from problems import Choice, Float, Params, Problem, loss_of_training

MAX_BUDGET = 27


@functools.cache
def data() -> list[Any]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    features, target = load_digits(return_X_y=True)
    split: list[Any] = train_test_split(features / 16, target, test_size=0.4, random_state=0, stratify=target)
    return split


def train(params: Params, budget: float, state: int) -> float:
    from sklearn.linear_model import SGDClassifier

    train_features, test_features, train_target, test_target = data()
    rows = np.random.default_rng(state).permutation(len(train_target))
    rows = rows[: round(len(rows) * budget / MAX_BUDGET)]
    model = SGDClassifier(max_iter=10, tol=None, random_state=state, **params)
    model.fit(train_features[rows], train_target[rows])
    return 1 - float(model.score(test_features, test_target))


PROBLEMS = [
    Problem(
        "sgd",
        {
            "loss": Choice(("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron")),
            "penalty": Choice(("l2", "l1", "elasticnet")),
            "alpha": Float(1e-7, 0.1, log=True),
            "learning_rate": Choice(("constant", "invscaling", "adaptive")),
            "eta0": Float(1e-4, 10.0, log=True),
            "power_t": Float(0.05, 0.9),
        },
        min_budget=1,
        max_budget=MAX_BUDGET,
        loss=loss_of_training(train),
        optimum=0.0342144,
        exact=False,
        trains=True,
    )
]
