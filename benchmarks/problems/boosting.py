"""Real training: scikit-learn's gradient boosting on the diabetes data, the budget in trees.

The loss is one minus the explained variance of one hold-out.
"""

from __future__ import annotations

import functools
from typing import Any

from problems import Choice, Float, Int, Params, Problem, loss_of_training


@functools.cache
def data() -> list[Any]:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    split: list[Any] = train_test_split(*load_diabetes(return_X_y=True), test_size=0.5, random_state=0)
    return split


def train(params: Params, trees: float, state: int) -> float:
    from sklearn.ensemble import GradientBoostingRegressor

    train_features, test_features, train_target, test_target = data()
    model = GradientBoostingRegressor(n_estimators=round(trees), random_state=state, **params)
    model.fit(train_features, train_target)
    return 1 - float(model.score(test_features, test_target))


PROBLEMS = [
    Problem(
        "boosting",
        {
            "learning_rate": Float(1e-3, 1.0, log=True),
            "max_depth": Int(1, 8),
            "subsample": Float(0.2, 1.0),
            "max_features": Float(0.1, 1.0),
            "min_samples_leaf": Int(1, 64, log=True),
            "loss": Choice(("squared_error", "absolute_error", "huber")),
        },
        min_budget=1,
        max_budget=81,
        loss=loss_of_training(train),
        optimum=0.568711,
        exact=False,
        trains=True,
    )
]
