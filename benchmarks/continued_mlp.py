"""scikit-learn's MLPClassifier, trained on from a checkpoint: bit for bit the model of one longer fit.

`partial_fit` alone is not that. It runs one epoch whatever scikit-learn's own stop says, makes a new
generator at each call where random_state is an int, and shuffles from 0, ..., n - 1 at each call where one
fit shuffles the order of the epoch before.

    python benchmarks/continued_mlp.py    how equal, and for how much less, on the article's quick problem
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, fmin
from sklearn.datasets import load_digits
from sklearn.model_selection import check_cv
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from hyperopt_hyperband import hyperband


class Orders(np.random.RandomState):
    """A generator whose shuffles of 0, ..., n - 1 go on from one another."""

    order: np.ndarray | None = None

    def shuffle(self, x: Any) -> None:
        super().shuffle(x)
        if self.order is not None:
            x[:] = self.order[x]
        self.order = x.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _orders, (self.get_state(), self.order)


def _orders(state: Any, order: np.ndarray | None) -> Orders:
    orders = Orders()
    orders.set_state(state)
    orders.order = order
    return orders


def untrained(**params: Any) -> MLPClassifier:
    """A model for `train_on`; random_state is an int."""
    return MLPClassifier(**params | {"random_state": Orders(params["random_state"])})


def train_on(model: MLPClassifier, max_iter: int, features: np.ndarray, target: np.ndarray) -> None:
    """Train a model of `untrained` until it has seen max_iter epochs, or scikit-learn's fit would stop.

    The same features and target at every call. The model is then that of
    `MLPClassifier(max_iter=max_iter).fit(features, target)`; it has seen len(model.loss_curve_) epochs.
    """
    classes = np.unique(target)
    while not (_stopped(model) or len(getattr(model, "loss_curve_", ())) >= max_iter):
        model.partial_fit(features, target, classes=classes)


def _stopped(model: MLPClassifier) -> bool:
    return bool(getattr(model, "_no_improvement_count", 0) > model.n_iter_no_change)


def cross_validate(
    params: dict[str, Any],
    max_iter: int,
    features: np.ndarray,
    target: np.ndarray,
    folds: int,
    models: list[MLPClassifier] | None = None,
) -> tuple[list[float], list[int], list[MLPClassifier]]:
    """Accuracy, epochs seen and model of every fold, trained on from the models of an earlier call.

    What the call itself has trained is the difference of the epochs to those of the earlier call.
    """
    models = [untrained(**params) for _ in range(folds)] if models is None else models
    splits = check_cv(folds, target, classifier=True).split(features, target)
    scores = []
    for model, (train, test) in zip(models, splits, strict=True):
        train_on(model, max_iter, features[train], target[train])
        scores.append(float(model.score(features[test], target[test])))
    return scores, [len(model.loss_curve_) for model in models], models


def main() -> None:
    from article import ARTICLE_SPACE, QUICK, train

    features, target = load_digits(return_X_y=True)
    anew: list[dict[str, Any]] = []
    continued: list[dict[str, Any]] = []

    @hyperband.with_budget
    def objective(params: dict[str, Any], budget: int, checkpoint: Any = None) -> dict[str, Any]:
        anew.append(train(QUICK, params, budget))
        params = params | {"random_state": 1234}
        models = checkpoint.state if checkpoint else [untrained(**params) for _ in range(QUICK.folds)]
        before = sum(len(getattr(model, "loss_curve_", ())) for model in models)
        with threadpool_limits(1):
            scores, epochs, models = cross_validate(params, budget, features, target, QUICK.folds, models)
        trained = {"accuracy": float(np.mean(scores)), "epochs": sum(epochs), "trained": sum(epochs) - before}
        continued.append(trained)
        return {"loss": -trained["accuracy"], "status": STATUS_OK, "checkpoint": models}

    start = time.process_time()
    fmin(
        objective,
        ARTICLE_SPACE,
        algo=functools.partial(hyperband.suggest, max_budget=QUICK.max_budget),
        max_evals=QUICK.iterations * hyperband.schedule(1, QUICK.max_budget).evaluations,
        rstate=np.random.default_rng(0),
        verbose=False,
    )
    # All but the training anew: checkpoints and suggestions too.
    seconds = time.process_time() - start - sum(one["cpu_seconds"] for one in anew)
    same = [one["accuracy"] == other["accuracy"] for one, other in zip(anew, continued, strict=True)]
    same_epochs = [one["epochs"] == other["epochs"] for one, other in zip(anew, continued, strict=True)]
    print(f"{len(same)} evaluations: {sum(same)} accuracies and {sum(same_epochs)} n_iter_ are equal")
    for unit, whole, less in [
        ("epochs", sum(one["epochs"] for one in anew), sum(one["trained"] for one in continued)),
        ("CPU seconds", sum(one["cpu_seconds"] for one in anew), seconds),
    ]:
        print(f"{unit}: {whole:.0f} anew, {less:.0f} continued, ratio {less / whole:.3f}")


if __name__ == "__main__":
    main()
