"""The space is edited between two calls of fmin, with the same labels: what lies outside is foreign."""

import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from conftest import named
from hyperopt import Trials, anneal, fmin, hp, space_eval, tpe
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
from hyperopt_hyperband import Trials as OwnTrials

ALGORITHMS = {
    "hyperband": hyperband.suggest,
    "bohb": partial(bohb.suggest, random_share=0),
    "tpe": partial(hyperband.suggest, sampler=tpe.suggest, random_share=0),
    "anneal": partial(hyperband.suggest, sampler=anneal.suggest, random_share=0),
}


def over(**hyperparameters):
    given = {name: node for name, node in hyperparameters.items() if node is not None}
    return {"y": hp.normal("y", 0, 1), "n": hyperband.budget("n", 1, 9)} | given


def conditional(*kinds):
    inner = {
        "a": lambda: {"kind": "a", "depth": hp.randint("depth", 1, 6)},
        "b": lambda: {"kind": "b", "rate": hp.loguniform("rate", -5, 0)},
        "c": lambda: {"kind": "c"},
    }
    return over(x=hp.choice("x", [inner[kind]() for kind in kinds]))


CHANGES = {
    "an option removed": (over(x=hp.choice("x", list("abcde"))), over(x=hp.choice("x", list("abc")))),
    "two options left": (over(x=hp.choice("x", list("abcde"))), over(x=hp.choice("x", list("ab")))),
    "an option removed under pchoice": (
        over(x=hp.pchoice("x", [(0.2, "a"), (0.4, "b"), (0.4, "c")])),
        over(x=hp.pchoice("x", [(0.5, "a"), (0.5, "b")])),
    ),
    "a range narrowed": (over(x=hp.uniform("x", -5, 5)), over(x=hp.uniform("x", -1, 2))),
    "a logarithmic range narrowed": (
        over(x=hp.loguniform("x", -7, 0)),
        over(x=hp.loguniform("x", -4, -2)),
    ),
    "whole numbers of before": (over(x=hp.uniform("x", 0, 5)), over(x=hp.uniformint("x", 0, 5))),
    "a number made a choice": (over(x=hp.uniform("x", 0, 5)), over(x=hp.choice("x", list("abcde")))),
    "a number made a weighted choice": (
        over(x=hp.uniform("x", 0, 2)),
        over(x=hp.pchoice("x", [(0.5, "a"), (0.5, "b")])),
    ),
    "a choice made a number": (over(x=hp.choice("x", list("abcde"))), over(x=hp.uniform("x", 0.5, 2.5))),
    "positive numbers of before": (over(x=hp.normal("x", 0, 1)), over(x=hp.lognormal("x", 0, 1))),
    "branches of a conditional space in another order": (
        conditional("a", "b", "c"),
        conditional("b", "c", "a"),
    ),
    "a branch without hyperparameters removed": (conditional("a", "b", "c"), conditional("a", "b")),
}


def run(objective, space, max_evals, trials=None, seed=0, algo=hyperband.suggest, **options):
    """Real fmin. It returns its argmin as it is: Hyperopt can't evaluate that of a space of before."""
    trials = Trials() if trials is None else trials
    rstate = np.random.default_rng(seed)
    options |= {"trials": trials, "rstate": rstate, "verbose": False}
    fmin(objective, space, algo=algo, max_evals=max_evals, **options)
    return trials


def loss(params):
    """As if at random, and the same in every process."""
    return zlib.crc32(repr(sorted(params.items(), key=str)).encode()) % 1000 / 1000 + 1 / params["n"]


def allowed(after, x):
    """Whether an objective over the space after the change may get this x, told without the package."""
    return {
        "an option removed": lambda: x in set("abc"),
        "two options left": lambda: x in set("ab"),
        "an option removed under pchoice": lambda: x in set("ab"),
        "a range narrowed": lambda: -1 <= x <= 2,
        "a logarithmic range narrowed": lambda: 0.0183 <= x <= 0.1354,
        "whole numbers of before": lambda: x == int(x) and 0 <= x <= 5,
        "a number made a choice": lambda: x in set("abcde"),
        "a number made a weighted choice": lambda: x in set("ab"),
        "a choice made a number": lambda: 0.5 <= x <= 2.5,
        "positive numbers of before": lambda: x > 0,
        "branches of a conditional space in another order": lambda: x["kind"] in set("abc"),
        "a branch without hyperparameters removed": lambda: x["kind"] in set("ab"),
    }[after]()


@pytest.mark.filterwarnings("ignore:the space has")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("algo", named(ALGORITHMS))
@pytest.mark.parametrize("evaluated", [12, 30])
def test_nothing_outside_the_new_space_is_evaluated_and_the_run_goes_on(change, algo, evaluated):
    before, after = CHANGES[change]
    trials = run(loss, before, evaluated, algo=ALGORITHMS[algo])
    seen = []

    def objective(params):
        seen.append(params["x"])
        return loss(params)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for more in (1, 15, 30):
            run(objective, after, evaluated + more, trials, seed=more, algo=ALGORITHMS[algo])
    assert len(seen) == 30
    assert all(allowed(change, x) for x in seen), seen
    told = [str(each.message) for each in caught if "are not of the run that goes on" in str(each.message)]
    foreign = [doc for doc in trials.trials if "foreign" in doc["misc"]["hyperband"]]
    assert len(told) == (len(foreign) > 0)
    report = hyperband.report(trials, space=after)
    assert str(report)
    assert report.evaluations + report.foreign == evaluated + 30
    assert report.foreign == len(foreign)
    assert all(rung.evaluations <= rung.planned for rung in report.rungs)
    assert all(doc["misc"]["hyperband"].get("foreign") is None for doc in trials.trials[evaluated:])
    hyperband.records(trials, space=after)
    hyperband.no_progress()(trials)


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on")
def test_documents_inside_the_new_space_keep_their_places():
    trials = run(loss, over(x=hp.uniform("x", -5, 5)), 6)
    inside = [doc["tid"] for doc in trials.trials if -1 <= doc["misc"]["vals"]["x"][0] <= 4]
    assert 0 < len(inside) < 6
    run(loss, over(x=hp.uniform("x", -1, 4)), 7, trials)
    rows = hyperband.records(trials)
    assert [row["tid"] for row in rows if row["rung"] is not None] == [*inside, 6]


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on", "ignore:the space has")
def test_a_space_that_is_the_same_again_changes_nothing():
    alike = [over(x=hp.choice("x", list("abcde"))) for _ in range(2)]
    trials, other = run(loss, alike[0], 12), run(loss, alike[0], 12)
    run(loss, alike[1], 20, trials, seed=1)
    run(loss, alike[0], 20, other, seed=1)
    assert hyperband.report(trials).foreign == 0
    assert [doc["misc"]["vals"] for doc in trials.trials] == [doc["misc"]["vals"] for doc in other.trials]


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on")
def test_a_queue_of_new_documents_outside_the_space_is_not_begun():
    trials = Trials()

    def interrupted(params):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, over(x=hp.uniform("x", -5, 5)), 20, trials, max_queue_len=8)
    assert trials.count_by_state_unsynced(0) == 7
    seen = []

    def objective(params):
        seen.append(params["x"])
        return loss(params)

    run(objective, over(x=hp.uniform("x", -1, 2)), 30, trials, max_queue_len=8)
    assert all(-1 <= x <= 2 for x in seen)
    foreign = [doc for doc in trials._dynamic_trials if "foreign" in doc["misc"]["hyperband"]]
    assert len(foreign) > 2
    assert {doc["state"] for doc in foreign} <= {JOB_STATE_ERROR, 1}


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on")
def test_an_executor_s_unfinished_documents_outside_the_space_are_not_begun():
    seen = []

    def cut_short(params):
        if params["x"] > 0:
            raise ValueError("cut short")
        return loss(params)

    def objective(params):
        seen.append(params["x"])
        return loss(params)

    with ThreadPoolExecutor(4) as executor:
        trials = ExecutorTrials(executor)
        with pytest.raises(ValueError, match="cut short"):
            run(cut_short, over(x=hp.uniform("x", -5, 5)), 40, trials, max_queue_len=6)
        for doc in trials._dynamic_trials[:4]:  # whatever the threads had got to
            doc.update(state=0, result={"status": "new"})
        run(objective, over(x=hp.uniform("x", -1, 2)), len(trials._dynamic_trials) + 20, trials)
    assert len(seen) >= 20
    assert all(-1 <= x <= 2 for x in seen)
    assert all(doc["state"] in (JOB_STATE_DONE, JOB_STATE_ERROR) for doc in trials._dynamic_trials)


@pytest.mark.parametrize("options", ["cde", "edcba", "abXde", "zabcde"])
@pytest.mark.parametrize("cut", [9, 22])
def test_an_option_is_known_by_its_name_where_the_others_change(options, cut):
    def space(names):
        return {
            "o": hp.choice("o", list(names)),
            "x": hp.uniform("x", -5, 5),
            "n": hyperband.budget("n", 1, 9),
        }

    evaluated = {}

    def objective(params):
        evaluated.setdefault(params["x"], set()).add(params["o"])
        return (params["x"] - 1) ** 2 + 1 / params["n"] + (params["o"] != "a")

    trials = Trials()
    run(objective, space("abcde"), cut, trials=trials)
    with pytest.warns(UserWarning, match="are not of the run that goes on"):
        run(objective, space(options), cut + 30, trials=trials)
    assert all(len(names) == 1 for names in evaluated.values()), "a promotion is the same configuration"
    best = space_eval(space(options), hyperband.argmin(trials))
    assert evaluated[best["x"]] == {best["o"]}


@pytest.mark.filterwarnings("ignore:max_evals=.* is too few", "ignore:fmin has ended before")
def test_what_is_left_in_the_queue_is_not_evaluated_outside():
    space = lambda names: {"o": hp.choice("o", list(names)), "n": hyperband.budget("n", 1, 9)}  # noqa: E731
    seen = []

    def objective(params):
        seen.append(params["o"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return 1 / params["n"]

    trials = OwnTrials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space("abcdefghijklmnopqrstuvwxyz"), 20, trials=trials, max_queue_len=6)
    before = len(seen)
    with pytest.warns(UserWarning, match="are not of the run that goes on|distinct"):
        run(objective, space("yz"), 12, trials=trials)
    assert set(seen[before:]) <= {"y", "z"}
