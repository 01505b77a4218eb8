"""scikit-learn's MLPClassifier, trained on from a checkpoint: bit for bit the model of one longer fit.

scikit-learn's own ways are not that. `warm_start` makes a new optimizer and a new order of the rows at each
fit; `partial_fit` keeps the optimizer, but not the order, runs one epoch whatever the stop of `fit` would
say, and validates the data at each of them, which takes half of a small network's time.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv
from sklearn.neural_network import MLPClassifier


class Orders(np.random.RandomState):
    """A generator that goes on from its last shuffle where a fit starts again from 0, ..., n - 1."""

    order: np.ndarray | None = None
    resumed = False

    def shuffle(self, x: Any) -> None:
        super().shuffle(x)
        self.order = x.copy() if self.order is None else self.order[x]
        if self.resumed:
            x[:] = self.order
            self.resumed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _orders, (self.get_state(), self.order)


def _orders(state: Any, order: np.ndarray | None) -> Orders:
    orders = Orders()
    orders.set_state(state)
    orders.order = order
    return orders


class ContinuedMLP(MLPClassifier):  # type: ignore[misc] # scikit-learn has no types
    """An MLPClassifier whose warm start keeps its optimizer."""

    @property
    def _optimizer(self) -> Any:
        return self.first_optimizer

    @_optimizer.setter
    def _optimizer(self, new: Any) -> None:
        if not hasattr(self, "first_optimizer"):
            self.first_optimizer = new


def untrained(*, random_state: int, **params: Any) -> ContinuedMLP:
    """A model for `train_on`, but without early_stopping, which splits the data anew at each fit."""
    return ContinuedMLP(random_state=Orders(random_state), warm_start=True, **params)


def train_on(model: ContinuedMLP, max_iter: int, features: np.ndarray, target: np.ndarray) -> int:
    """Train until the model has seen max_iter epochs, or scikit-learn's fit would have stopped.

    The model is then that of `MLPClassifier(max_iter=max_iter).fit(features, target)`, n_iter_ included, if
    features and target are the same at every call. Returns how many epochs this call has trained.
    """
    seen = len(getattr(model, "loss_curve_", ()))
    if seen >= max_iter or getattr(model, "_no_improvement_count", 0) > model.n_iter_no_change:
        return 0
    model.random_state.resumed = seen > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_params(max_iter=max_iter - seen).fit(features, target)
    model.n_iter_ = len(model.loss_curve_)
    return int(model.n_iter_) - seen


def cross_validate(
    params: dict[str, Any],
    max_iter: int,
    features: np.ndarray,
    target: np.ndarray,
    folds: int,
    models: list[ContinuedMLP] | None = None,
) -> tuple[list[float], int, list[ContinuedMLP]]:
    """Accuracy of every fold, epochs trained over all folds, and the models for the next call to go on from.

    The accuracies and each model's n_iter_ are those of scikit-learn's cross_validate at max_iter.
    """
    models = [untrained(**params) for _ in range(folds)] if models is None else models
    splits = check_cv(folds, target, classifier=True).split(features, target)
    scores, epochs = [], 0
    for model, (train, test) in zip(models, splits, strict=True):
        epochs += train_on(model, max_iter, features[train], target[train])
        scores.append(float(model.score(features[test], target[test])))
    return scores, epochs, models
