"""Draws that weigh what a configuration promises by its time."""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pytest
from conftest import evaluation, run
from hyperopt import hp
from hyperopt.base import Domain

from hyperopt_hyperband import _encoding as encoding
from hyperopt_hyperband import bohb, hyperband
from hyperopt_hyperband._seconds import relative

SPACE = {
    "width": hp.uniformint("width", 1, 100),
    "kind": hp.choice("kind", [{"k": 0}, {"k": 1, "depth": hp.uniform("depth", 0, 1)}]),
}
START = datetime(2026, 1, 1)


def timed(config, budget, vals, seconds, loss=0.0):
    return replace(
        evaluation(config, budget, loss, vals), begun=START, ended=START + timedelta(seconds=seconds)
    )


def test_what_takes_long_is_told_apart_at_every_budget():
    domain, rng = Domain(lambda _: 0.0, SPACE), np.random.default_rng(0)
    space = encoding.axes(domain, ())
    rows = encoding.random_rows(space, domain, rng, 60)
    vals = [
        {axis.label: value for axis, value in zip(space, row, strict=True) if not np.isnan(value)}
        for row in rows
    ]
    took = np.array([np.exp(0.02 * each["width"] + each["kind"]) for each in vals])
    known = [
        timed(i, budget, each, seconds * budget * rng.lognormal(0, 0.1))
        for i, (each, seconds) in enumerate(zip(vals, took, strict=True))
        for budget in (1, 9)
    ]
    known += [timed(99, 9, vals[0], 1e6, loss=float("inf")), evaluation(98, 9, None, vals[1])]
    found = np.log(relative(space, known, rows))
    expected = np.log(took) - np.log(took).mean()
    assert np.abs(found - expected).max() < 0.2
    assert found.mean() == pytest.approx(0)


@pytest.mark.parametrize("known", [[], [evaluation(0, 9, 1.0, {"width": 3, "kind": 0})]])
def test_where_no_times_are_known_all_take_the_same(known):
    domain = Domain(lambda _: 0.0, SPACE)
    space = encoding.axes(domain, ())
    rows = encoding.random_rows(space, domain, np.random.default_rng(0), 5)
    assert (relative(space, known, rows) == 1).all()


@pytest.mark.slow
def test_a_run_spends_its_time_on_what_is_cheap_where_losses_are_alike():
    space = {"slow": hp.uniform("slow", 0, 1), "x": hp.uniform("x", -1, 1), "b": hyperband.budget("b", 1, 9)}

    def objective(params):
        time.sleep(params["b"] * 10 ** (params["slow"] - 4))
        return params["x"] ** 2 + 1 / params["b"]

    def slow(per_second, seed):
        algo = partial(bohb.suggest, per_second=per_second)
        trials = run(objective, space, 80, algo=algo, seed=seed)
        by_model = [doc for doc in trials.trials if "by_model" in doc["misc"]["hyperband"]]
        return np.mean([doc["misc"]["vals"]["slow"][0] for doc in by_model])

    weighed, not_weighed = ([slow(per_second, seed) for seed in range(3)] for per_second in (True, False))
    assert np.mean(weighed) < np.mean(not_weighed) - 0.1


def test_per_second_is_true_or_false(space):
    with pytest.raises(ValueError, match="per_second='no': pass True or False"):
        run(lambda params: params["x"], space, 3, algo=partial(bohb.suggest, per_second="no"))
