"""Real training: scikit-learn's MLPClassifier on digits, one hold-out, the budget in epochs."""

from __future__ import annotations

import functools
import warnings
from typing import Any

from problems import Choice, Float, Int, Params, Problem, loss_of_training


@functools.cache
def data() -> list[Any]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    features, target = load_digits(return_X_y=True)
    split: list[Any] = train_test_split(features / 16, target, test_size=0.5, random_state=0, stratify=target)
    return split


def train(params: Params, epochs: float, state: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    train_features, test_features, train_target, test_target = data()
    options = {name: value for name, value in params.items() if name != "width"}
    count = round(epochs)
    model = MLPClassifier(
        (params["width"],), max_iter=count, n_iter_no_change=count, random_state=state, **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_features, train_target)
    return 1 - float(model.score(test_features, test_target))


PROBLEMS = [
    Problem(
        "digits_mlp",
        {
            "learning_rate_init": Float(1e-4, 0.3, log=True),
            "alpha": Float(1e-6, 1.0, log=True),
            "batch_size": Int(16, 256, log=True),
            "width": Int(8, 64, log=True),
            "activation": Choice(("identity", "logistic", "tanh", "relu")),
        },
        min_budget=1,
        max_budget=27,
        loss=loss_of_training(train),
        optimum=0.0240266,
        exact=False,
        trains=True,
    )
]
