import math
import os
import signal
import time
from collections import Counter

import hyperopt
import numpy as np
import pytest
from hyperopt import Trials, fmin, hp

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._evaluations import Evaluation

QUICK_CASES = 2


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items):
    """Of a test with many cases, the first ones are quick; the others count as slow."""
    cases = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        cases[test] += 1
        if cases[test] > QUICK_CASES:
            item.add_marker(pytest.mark.slow)


broken_anneal = pytest.mark.skipif(
    hyperopt.__version__ == "0.2.7" and np.lib.NumpyVersion(np.__version__) >= "2.0.0",
    reason="Hyperopt 0.2.7's anneal fails under numpy 2",
)


def _bincount_takes_none():
    try:
        np.bincount([0], minlength=None)
    except TypeError:
        return False
    except DeprecationWarning:
        pass
    return True


broken_tpe = hyperopt.__version__ == "0.2.7" and not _bincount_takes_none()
"""The tpe of Hyperopt 0.2.7 passes None for the minlength of a randint, which newer numpys refuse."""


def named(algorithms):
    """Their names as parameters of a test, anneal's where it works."""
    return [pytest.param(name, marks=broken_anneal if name == "anneal" else ()) for name in algorithms]


@pytest.fixture
def space():
    """A conditional space with a budget node, 1 to 9."""
    return {
        "x": hp.uniform("x", -5, 5),
        "branch": hp.choice("branch", [{"kind": "a", "y": hp.normal("y", 0, 1)}, {"kind": "b"}]),
        "epochs": hyperband.budget("epochs", 1, 9),
    }


BRANCHES = hp.choice(
    "model",
    [
        {"C": hp.uniform("C", 0, 1)},
        {"depth": hp.uniform("depth", 0, 1), "trees": hyperband.budget("trees", 3, 27)},
        {"rate": hp.uniform("rate", 0, 1), "epochs": hyperband.budget("epochs", 10, 90)},
    ],
)
"""Kinds of model: one without a budget, two with their own."""


def stops_in_a_branch(params):
    """Some forests stop growing after a few trees; `params` tells the evaluations apart."""
    final = bool(params.get("depth", 0) > 0.5 and params["trees"] > 3)
    return {"loss": min(params.values()) + 1, "status": "ok", "final": final, "params": repr(params)}


def loss(params):
    """Lower near x = 1, and with every epoch."""
    return (params["x"] - 1) ** 2 + 1 / params["epochs"]


def run(objective, space, max_evals, trials=None, seed=0, algo=hyperband.suggest, **options):
    """Real fmin, quiet and seeded; returns its trials."""
    trials = Trials() if trials is None else trials
    fmin(
        objective,
        space,
        algo=algo,
        max_evals=max_evals,
        trials=trials,
        rstate=np.random.default_rng(seed),
        verbose=False,
        return_argmin=False,
        **options,
    )
    return trials


def interrupted(objective, *at):
    """The objective, with Ctrl-C during these of its calls, from 1; `calls` holds what it was given."""

    def interruptible(params):
        interruptible.calls.append(params)
        if len(interruptible.calls) in at:
            raise KeyboardInterrupt
        return objective(params)

    interruptible.calls = []
    return interruptible


def evaluation(config, budget, value, vals):
    """An evaluation as a model gets it; value: its loss, None while pending, infinite where it failed."""
    status = "pending" if value is None else "ok" if math.isfinite(value) else "failed"
    return Evaluation(
        tid=config,
        config=config,
        place=None,
        budget=budget,
        held=budget,
        known_at=budget,
        final=False,
        status=status,
        loss=value if status == "ok" else None,
        vals=vals,
        label=None,
        begun=None,
        ended=None,
    )


def places(trials):
    """Iteration, bracket, rung and budget of every document, in the order of the run."""
    stamps = [(doc["misc"]["hyperband"], doc["misc"]["budget"]) for doc in trials._dynamic_trials]
    return [(s["iteration"], s["bracket"], s["rung"], budget) for s, budget in stamps]


def killed(work, evaluations, delay):
    """Kill -9 a process at its work, seconds after it has begun some evaluations; False where it has ended.

    The work calls the function that it is given as each evaluation begins, so that it gets as far on a slow
    machine as on a fast one.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(lambda: os.write(writer, b"."))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    for _ in range(evaluations):
        os.read(reader, 1)  # nothing, at once, where it has ended
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
