import math
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import bson
import numpy as np
import pytest
from conftest import broken_anneal, evaluation, interrupted, loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, anneal, fmin, hp, rand, space_eval, tpe
from hyperopt.base import Domain, trials_from_docs
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.pyll import scope
from simulator import Simulation

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
from hyperopt_hyperband import _gp as gp
from hyperopt_hyperband._model import draw
from hyperopt_hyperband._samplers import Request

pytestmark = pytest.mark.filterwarnings("ignore:the space has", "ignore:min_budget")

ITERATION = hyperband.schedule(1, 9).evaluations
always = partial(bohb.suggest, random_share=0)
SHARED = hp.uniform("shared", 0, 1)


def bowl(params):
    return (params["x"] - 1) ** 2 + (params["y"] + 2) ** 2 + 1 / params["epochs"]


BOWL = {
    "x": hp.uniform("x", -5, 5),
    "y": hp.normal("y", 0, 3),
    "epochs": hyperband.budget("epochs", 1, 9),
}


def without_budget(doc):
    return repr({label: value for label, value in doc["misc"]["vals"].items() if label != "epochs"})


@pytest.mark.slow
def test_bohb_beats_random_draws_on_a_bowl():
    def best(algo, seed):
        return (
            hyperband.incumbent(run(bowl, BOWL, 3 * ITERATION, algo=algo, seed=seed))["result"]["loss"]
            - 1 / 9
        )

    ours, random = ([best(a, seed) for seed in range(4)] for a in (bohb.suggest, hyperband.suggest))
    assert np.median(ours) < np.median(random) / 5


def test_until_an_evaluation_has_succeeded_at_the_full_budget_draws_are_random():
    domain = Domain(bowl, BOWL)
    vals = {"x": 1.0, "y": 0.0, "epochs": 9}
    low, failed, pending = (evaluation(0, *each, vals) for each in ((3, 0.5), (9, math.inf), (9, None)))
    for known in ([], [low], [low, failed], [low, failed, pending]):
        assert draw(Request(domain, known, {"epochs": 9}, 1, 9, seed=0)) is None
    known = [low, evaluation(1, 9, 0.7, vals)]
    assert draw(Request(domain, known, {"epochs": 9}, 1, 9, seed=0)) is not None


def evaluated_twice(ranks):
    """Configurations at budgets 9 and 3: the best at 9 first, and the ranks of their losses at 3."""
    return [
        evaluation(i, budget, at / 10, {"x": i - 5.0, "y": 0.0, "epochs": budget})
        for i, rank in enumerate(ranks)
        for budget, at in ((3, rank), (9, i))
    ]


@pytest.mark.parametrize(
    ("ranks", "share"),
    [(range(10), 1), ((1, 2, 0, 3), 0.4), (range(9, -1, -1), 0), (range(3), 0), ([5] * 10, 0)],
    ids=["agreeing", "correlation 0.4", "misleading", "too few to tell", "all equal"],
)
@pytest.mark.slow
def test_as_many_draws_learn_from_all_budgets_as_these_agree(monkeypatch, ranks, share):
    low = []  # whether a fit saw budgets below the highest
    fit = gp.fit
    monkeypatch.setattr(gp, "fit", lambda x, t, *rest: low.append((t < 0).any()) or fit(x, t, *rest))
    domain, known = Domain(bowl, BOWL), evaluated_twice(ranks)

    def saw_low(start):
        low.clear()
        assert all(draw(Request(domain, known, {"epochs": 9}, start, 9, seed)) for seed in range(100))
        return np.mean(low)

    assert saw_low(9) == (pytest.approx(share, abs=0.1) if 0 < share < 1 else share)
    assert saw_low(3) == 1


@pytest.mark.parametrize("queue", [1, 2, 7])
def test_the_schedule_is_hyperband_s_and_values_are_plain(space, queue):
    ours, theirs = (
        run(loss, space, 2 * ITERATION, algo=a, max_queue_len=queue)
        for a in (bohb.suggest, hyperband.suggest)
    )
    assert sorted(places(ours)[:ITERATION]) == sorted(places(theirs)[:ITERATION])
    direct = bohb.suggest([999], Domain(loss, space), ours, 0)
    for doc in [*direct, *ours.trials]:
        assert {type(v) for value in doc["misc"]["vals"].values() for v in value} <= {int, float}


def test_parallel_draws_are_not_the_same_point():
    trials = run(bowl, BOWL, ITERATION, algo=bohb.suggest)
    docs = always(range(100, 130), Domain(bowl, BOWL), trials, 0)
    drawn = [doc for doc in docs if doc["misc"]["hyperband"]["rung"] == 0]
    assert len({without_budget(doc) for doc in drawn}) == len(drawn) > 20
    x = [doc["misc"]["vals"]["x"][0] for doc in drawn]
    assert np.std(x) > 0.1, "nor all around one"


@pytest.mark.parametrize("cut", range(1, 2 * ITERATION, 5))
def test_cut_after_any_document_and_gone_on_with_it_is_the_same_run(space, cut):
    whole = run(loss, space, cut + 4, algo=bohb.suggest)
    rstate = np.random.default_rng(0)
    rstate.integers(2**31 - 1, size=cut)
    kept = bson.decode(bson.encode({"docs": whole.trials[:cut]}))["docs"]
    trials = pickle.loads(pickle.dumps(trials_from_docs(kept)))
    fmin(loss, space, algo=bohb.suggest, max_evals=cut + 4, trials=trials, rstate=rstate, verbose=False)
    assert trials.vals == whole.vals


@pytest.mark.slow
def test_the_same_documents_and_seed_give_the_same_answer_in_a_new_process(tmp_path):
    trials = run(bowl, BOWL, ITERATION, algo=bohb.suggest)
    here = [doc["misc"]["vals"] for doc in always(range(100, 104), Domain(bowl, BOWL), trials, 7)]
    (tmp_path / "trials.pkl").write_bytes(pickle.dumps(trials))
    script = (
        "import pickle; from test_bohb import *;"
        f"trials = pickle.load(open({str(tmp_path / 'trials.pkl')!r}, 'rb'));"
        "print([doc['misc']['vals'] for doc in always(range(100, 104), Domain(bowl, BOWL), trials, 7)])"
    )
    for hash_seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.path.dirname(__file__)}
        there = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True
        )
        assert there.stdout.strip() == repr(here)


def test_failures_of_every_kind_count_as_worst():
    def objective(params):
        match int(max(0, params["x"]) * 1000) % 4 if params["x"] > -2 else 4:
            case 1:
                raise RuntimeError("diverged")
            case 2:
                return {"status": STATUS_FAIL}
            case 3:
                return {"status": STATUS_OK, "loss": math.nan}
            case 4:
                raise RuntimeError("the good end, were it not for failing")
        return bowl(params) + params["x"]

    trials = run(objective, BOWL, 4 * ITERATION, algo=bohb.suggest, catch_eval_exceptions=True)
    late = [doc["misc"]["vals"]["x"][0] for doc in trials._dynamic_trials[2 * ITERATION :]]
    assert np.mean(np.array(late) < -2) < 0.2


def test_a_run_in_which_everything_fails_still_ends(space):
    trials = Trials()
    with pytest.raises(AllTrialsFailed):
        run(lambda _: {"status": STATUS_FAIL}, space, 40, trials=trials, algo=always)
    assert len(trials) == 40


@pytest.mark.parametrize("huge", [[1e308, -1e308], [1e300, 1.0], [0.0, 0.0]])
def test_losses_of_any_size_are_learned_from_without_a_warning(huge):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(lambda p: huge[p["x"] > 0] + 0 * p["y"], BOWL, ITERATION + 9, algo=always)


SPACES = {
    "every distribution": [
        hp.choice("a", [0, (1, hp.randint("b", 10))]),
        hp.randint("bb", 12, 25),
        hp.uniformint("c", 1, 5),
        hp.uniform("cc", -1, 1),
        hp.loguniform("d", -2, 0),
        hp.quniform("e", 0, 10, 3),
        hp.qloguniform("f", -2, 3, 2),
        hp.normal("g", 4, 7),
        hp.lognormal("h", -2, 2),
        hp.qnormal("i", 0, 10, 2),
        hp.qlognormal("j", 0, 2, 1),
        hp.pchoice("k", [(0.1, 0), (0.9, 1)]),
    ],
    "nested": hp.choice(
        "a",
        [
            {"b": hp.choice("b", [hp.normal("c", 0, 1), {"d": hp.loguniform("d", -3, 0)}])},
            {"e": hp.pchoice("e", [(0.4, 1), (0.6, hp.quniform("f", 0, 9, 3))])},
        ],
    ),
    "switch over an expression": scope.switch(
        scope.int(hp.uniform("u", 0, 1) * 2.999), hp.uniform("p", 0, 1), hp.randint("q", 400), 3
    ),
    "switch over two": scope.switch(
        hp.randint("u", 2) + hp.randint("v", 2),
        hp.uniform("p", 0, 1),
        hp.uniform("q", 0, 1),
        hp.normal("r", 0, 1),
    ),
    "shared by two choices": [hp.choice("u", [SHARED, 1]), hp.choice("v", [SHARED, 2]), hp.normal("w", 0, 1)],
    "choices only": [hp.choice(f"c{i}", [0, 1, 2, 3]) for i in range(4)],
    "budget in a branch": hp.choice(
        "m", [{"epochs": hyperband.budget("epochs", 1, 9), "y": hp.normal("y", 0, 1)}, hp.uniform("x", 0, 1)]
    ),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.filterwarnings("ignore:the objective can't see its budget")
def test_every_draw_is_a_configuration_of_the_space(name):
    space = SPACES[name]
    trials = run(lambda p: len(repr(p)) % 17, space, ITERATION + 12, algo=partial(always, max_budget=9))
    domain = Domain(len, space)
    for doc in trials.trials[ITERATION:]:
        given = {label: value[0] for label, value in doc["misc"]["vals"].items() if value}
        space_eval(domain.expr, given)
        for label in given:
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever Hyperopt raises without a value
                space_eval(domain.expr, {k: v for k, v in given.items() if k != label})
        for label in ("bb", "b", "q"):
            assert label not in given or label == "q" or type(given[label]) is int


def test_an_existing_hyperparameter_is_the_budget():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hp.randint("epochs", 1, 10)}
    algo = partial(always, budget="epochs")
    trials = run(loss, space, 3 * ITERATION, algo=algo)
    assert all(doc["misc"]["vals"]["epochs"] == [doc["misc"]["budget"]] for doc in trials.trials)
    assert abs(hyperband.incumbent(trials)["misc"]["vals"]["x"][0] - 1) < 0.3


@pytest.mark.parametrize(
    "space",
    [
        {"epochs": hyperband.budget("epochs", 1, 9)},
        {"x": hp.choice("x", [1]), "epochs": hyperband.budget("epochs", 1, 9)},
        {"x": hp.lognormal("x", 0.3, 0), "epochs": hyperband.budget("epochs", 1, 9)},
        {"x": hp.randint("x", 4), "epochs": hyperband.budget("epochs", 1, 9)},
    ],
)
@pytest.mark.slow
def test_a_space_of_few_points_is_run_to_its_end_without_repeats_in_a_rung(space):
    trials = run(lambda p: p.get("x", 0) + 1 / p["epochs"], space, 3 * ITERATION, algo=always)
    seen = [(place, without_budget(doc)) for place, doc in zip(places(trials), trials.trials, strict=True)]
    assert len(set(seen)) == len(seen) == 3 * ITERATION


def test_a_discrete_space_is_searched_without_drawing_a_configuration_twice():
    space = {f"c{i}": hp.choice(f"c{i}", [0, 1, 2]) for i in range(4)}
    space["epochs"] = hyperband.budget("epochs", 1, 9)
    trials = run(lambda p: sum(p.values()) + 1 / p["epochs"], space, 2 * ITERATION, algo=always)
    first = [doc for doc in trials.trials if doc["misc"]["hyperband"]["rung"] == 0]
    drawn = [without_budget(doc) for doc in first if doc["tid"] >= ITERATION]
    assert len(set(drawn)) == len(drawn)
    best = hyperband.incumbent(trials)["misc"]["vals"]
    assert sum(best[f"c{i}"][0] for i in range(4)) <= 1


def test_foreign_trials_are_learned_from_at_once():
    trials = run(bowl, BOWL, 30, algo=tpe.suggest)
    run(bowl, BOWL, 33, trials=trials, algo=always)
    for doc in trials.trials[30:]:
        x, y = (doc["misc"]["vals"][label][0] for label in "xy")
        assert bowl({"x": x, "y": y, "epochs": 9}) < 10


def test_foreign_trials_out_of_the_space_are_learned_from_but_not_varied_into_it():
    wide = BOWL | {"x": hp.uniform("x", -50, 50)}
    trials = run(lambda p: -p["x"], wide, 20, algo=rand.suggest)
    run(lambda p: -p["x"], BOWL, 50, trials=trials, algo=always)
    assert max(doc["misc"]["vals"]["x"][0] for doc in trials.trials[:20]) > 5
    assert all(-5 <= doc["misc"]["vals"]["x"][0] <= 5 for doc in trials.trials[20:])


def test_foreign_trials_of_a_smaller_space_and_points_are_learned_from():
    small = run(lambda p: p["x"] ** 2, {"x": hp.uniform("x", -5, 5)}, 20, algo=rand.suggest)
    trials = trials_from_docs(small.trials)
    docs = always(range(20, 29), Domain(bowl, BOWL), trials, 0)
    assert all(doc["misc"]["vals"]["y"] for doc in docs)
    found = []
    fmin(
        lambda p: found.append(p) or bowl(p),
        BOWL,
        algo=always,
        max_evals=9,
        points_to_evaluate=[{"x": 1.0, "y": -2.0, "epochs": 9}, {"x": 1.1, "y": -1.5, "epochs": 9}],
        rstate=np.random.default_rng(0),
        verbose=False,
    )
    assert [p["x"] for p in found[:2]] == [1.0, 1.1]
    assert len(found) > 2


@pytest.mark.filterwarnings("ignore:.*come from a Hyperband run with other")
@pytest.mark.parametrize("other", [3, 81])
def test_a_run_with_other_options_is_learned_from_at_its_own_budgets(other):
    space = {"x": hp.uniform("x", -5, 5)}
    objective = hyperband.with_budget(lambda p, budget: (p["x"] - 1) ** 2 + 1 / budget)
    trials = run(objective, space, 30, algo=partial(bohb.suggest, min_budget=other, max_budget=other))
    run(objective, space, 36, trials=trials, algo=partial(always, max_budget=9))
    drawn = [doc["misc"]["vals"]["x"][0] for doc in trials.trials[30:]]
    assert (np.median(np.abs(np.array(drawn) - 1)) < 1) == (other == 81)


def test_an_interrupted_evaluation_is_issued_again():
    objective = interrupted(bowl, ITERATION + 2)
    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, BOWL, 2 * ITERATION, trials=trials, algo=always)
    run(objective, BOWL, 2 * ITERATION, trials=trials, algo=always)
    assert objective.calls[ITERATION + 2] == objective.calls[ITERATION + 1]


def test_executor_trials_run_the_same_schedule():
    stop = hyperband.stop_after(iterations=1)
    trials = ExecutorTrials(ThreadPoolExecutor(3))
    run(bowl, BOWL, None, trials=trials, algo=bohb.suggest, early_stop_fn=stop)
    assert sorted(p for p in places(trials) if p[0] == 0) == sorted(places(run(bowl, BOWL, ITERATION)))


@pytest.mark.parametrize("serial", [False, True])
def test_every_promise_holds_under_faults(serial):
    for seed in range(2):
        simulation = Simulation(
            workers=1 if serial else 6, ids=3, faults=0.3, restarts=0.05, serial=serial, seed=seed
        )
        simulation.suggest = always
        simulation.run().check()


@pytest.mark.parametrize("points", [1, 2, 9])
def test_small_spaces_end(points):
    simulation = Simulation(points=points, workers=3, max_budget=9, iterations=2)
    simulation.suggest = always
    simulation.run().check()


@pytest.mark.parametrize("algo", [tpe.suggest, pytest.param(anneal.suggest, marks=broken_anneal)])
def test_other_algorithms_go_on_from_its_trials(algo):
    space = {
        "r": hp.randint("r", 3, 30),
        "c": hp.choice("c", [0, 1]),
        "epochs": hyperband.budget("epochs", 1, 9),
    }
    trials = run(lambda p: p["r"] + p["c"] + 1 / p["epochs"], space, 2 * ITERATION, algo=bohb.suggest)
    run(lambda p: p["r"] + p["c"], space, 2 * ITERATION + 25, trials=trials, algo=algo)
    assert len(trials) == 2 * ITERATION + 25


def test_parameters_that_are_expressions_are_refused():
    space = {"x": hp.uniform("x", 0, hp.uniform("y", 1, 2))}
    known = [evaluation(0, 9, 1.0, {"x": 0.5, "y": 1.0})]
    with pytest.raises(ValueError, match="'x' has parameters that are expressions"):
        draw(Request(Domain(len, space), known, {}, 1, 9, seed=0))


EXPRESSIONS = {
    "a bound": hp.uniform("a", 0, hp.uniform("b", 1, 2)),
    "a mean": hp.normal("a", hp.uniform("b", 1, 2), 1),
    "a step": hp.quniform("a", 0, 10, hp.choice("b", [1, 2])),
    "an upper bound of ints": hp.randint("a", 2, hp.choice("b", [4, 9])),
    "in a branch": hp.choice("c", [0, {"a": hp.lognormal("a", 0, hp.uniform("b", 1, 2))}]),
}


@pytest.mark.parametrize("which", EXPRESSIONS)
@pytest.mark.parametrize(
    "algo", [bohb.suggest, partial(hyperband.suggest, sampler=bohb.gaussian_process, random_share=1)]
)
def test_bohb_refuses_expressions_before_anything_is_evaluated(which, algo):
    space = {"it": EXPRESSIONS[which], "epochs": hyperband.budget("epochs", 1, 9)}
    trials = Trials()
    with pytest.raises(
        ValueError, match=r"of 'a' has parameters that are expressions: .* hyperband\.suggest"
    ):
        run(lambda _: 0, space, 30, trials=trials, algo=algo)
    assert len(trials) == 0
    run(lambda _: 0, space, 5, trials=trials)
    with pytest.raises(ValueError, match="of 'a' has parameters that are expressions"):
        run(lambda _: 0, space, 30, trials=trials, algo=algo)
    assert len(trials) == 5, "nor after a run without a model"
