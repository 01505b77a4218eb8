"""A warning points at the user's line, whatever runs in between."""

import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hyperopt import Trials, fmin, hp
from hyperopt.base import Domain

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband

SPACE = {"x": hp.uniform("x", 0, 1)}


def objective(params):
    return params["x"]


def line():
    return inspect.currentframe().f_back.f_lineno


def here(caught):
    [warning] = caught
    assert "can't see its budget" in str(warning.message)
    return warning.filename == __file__ and warning.lineno


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest, partial(hyperband.suggest, eta=4)])
@pytest.mark.parametrize("threads", [False, True])
def test_a_warning_points_at_the_call_of_fmin(algo, threads):
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(1) as executor:
        warnings.simplefilter("always")
        trials = ExecutorTrials(executor) if threads else Trials()
        expected = line() + 1
        fmin(objective, SPACE, algo=algo, max_evals=121, trials=trials, verbose=False)
    assert here(caught) == expected


def test_a_warning_points_at_a_direct_call_of_suggest():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = line() + 1
        bohb.suggest([0], Domain(objective, SPACE), Trials(), 0)
    assert here(caught) == expected
