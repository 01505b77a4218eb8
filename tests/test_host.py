"""Hyperopt's own tests, and its scikit-learn search, with hyperband.suggest."""

import unittest
from functools import partial

import numpy as np
import pytest
from hyperopt import Trials, fmin, hp
from hyperopt.base import Domain
from hyperopt.tests.test_base import Suggest_API
from hyperopt.tests.unit.test_domains import CasePerDomain, gauss_wave2
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from hyperopt_hyperband import hyperband

pytestmark = pytest.mark.filterwarnings("ignore:the objective can't see its budget", "ignore:the space has")

TestSuggestAPI = Suggest_API.make_tst_class(hyperband.suggest, gauss_wave2(), "TestSuggestAPI")
TestSuggestAPI.__module__ = __name__


BRANCHES = [{"x": hp.uniform("x", 0, 1), "n": hyperband.budget("n", 1, 9)}, {"y": hp.normal("y", 0, 1)}]
TestSuggestAPIOverBranches = Suggest_API.make_tst_class(
    hyperband.suggest,
    Domain(lambda p: p.get("x", 1.0), hp.choice("m", BRANCHES)),
    "TestSuggestAPIOverBranches",
)
TestSuggestAPIOverBranches.__module__ = __name__


@pytest.mark.slow
class TestDomains(unittest.TestCase, CasePerDomain):
    """To the tolerances that Hyperopt's tests have for random search."""

    def work(self):
        # As Hyperopt's tests of random search have it: 0.2.7 in test_rand, later in test_domains.
        trials = Trials()
        fmin(
            lambda point: point,
            self.bandit.expr,
            trials=trials,
            algo=partial(hyperband.suggest, min_budget=1, max_budget=9),
            rstate=np.random.default_rng(4),
            max_evals=5000 if self.bandit.name == "gauss_wave2" else 500,
            verbose=False,
        )
        assert trials.average_best_error(self.bandit) - self.bandit.loss_target < 0.2


@pytest.mark.parametrize(
    ("estimator", "knob", "data"),
    [
        (MLPClassifier((16,), random_state=0), "max_iter", load_digits),
        (GradientBoostingClassifier(random_state=0), "n_estimators", load_iris),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.slow
def test_hyperopt_search_cv_tunes_any_estimator(estimator, knob, data):
    sklearn_search = pytest.importorskip("hyperopt.sklearn", reason="new in Hyperopt 0.3.0")
    features, target = data(return_X_y=True)
    rate = "learning_rate_init" if knob == "max_iter" else "learning_rate"
    search = sklearn_search.HyperoptSearchCV(
        estimator,
        {rate: hp.loguniform(rate, -7, 0), knob: hyperband.budget(knob, 1, 9)},
        max_evals=hyperband.schedule(1, 9).evaluations,
        algo=hyperband.suggest,
        cv=3,
        random_state=0,
    ).fit(features, target)
    assert sorted(search.cv_results_[f"param_{knob}"].tolist()) == [1] * 9 + [3] * 8 + [9] * 5
    best = hyperband.incumbent(search.trials_)
    assert best["misc"]["vals"][knob] == [9]
    assert best["result"]["params"][knob] == 9  # best_params_ may be of any budget
    at_full = search.cv_results_["mean_test_score"][search.cv_results_[f"param_{knob}"] == 9]
    assert -best["result"]["loss"] == at_full.max()
    assert search.best_estimator_.predict(features).shape == target.shape


@pytest.mark.slow
def test_hyperopt_search_cv_evaluates_once_what_has_no_budget():
    sklearn_search = pytest.importorskip("hyperopt.sklearn", reason="new in Hyperopt 0.3.0")
    trees = hp.choice("trees", [5, hyperband.budget("n", 1, 9)])
    search = sklearn_search.HyperoptSearchCV(
        GradientBoostingClassifier(random_state=0),
        {"learning_rate": hp.loguniform("learning_rate", -7, 0), "n_estimators": trees},
        max_evals=22,
        algo=hyperband.suggest,
        cv=3,
        random_state=0,
    ).fit(*load_iris(return_X_y=True))
    records = hyperband.records(search.trials_)
    assert {record["rung"] for record in records if record["final"]} == {0}
    known = [record["loss"] for record in records if record["final"] or record["budget"] == 9]
    assert hyperband.incumbent(search.trials_)["result"]["loss"] == min(known)
