import math
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import bson
import hyperopt
import numpy as np
import pytest
from conftest import broken_anneal, evaluation, loss, named, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, anneal, fmin, hp, rand, tpe
from hyperopt.base import JOB_STATE_DONE, Domain, trials_from_docs
from simulator import Simulation

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
from hyperopt_hyperband._samplers import Request, _ranked

pytestmark = pytest.mark.filterwarnings("ignore:the space has", "ignore:min_budget")

PLAN = hyperband.schedule(1, 9)
ITERATION = PLAN.evaluations
SAMPLERS = {
    "rand": rand.suggest,
    "tpe": tpe.suggest,
    "tpe with options": partial(tpe.suggest, gamma=0.5, n_startup_jobs=3, verbose=False),
    "anneal": anneal.suggest,
}


def by(sampler, **options):
    return partial(hyperband.suggest, sampler=sampler, **options)


def far_out(new_ids, domain, trials, seed):
    """A user's own algorithm: its x lies beyond 20."""
    [document] = rand.suggest(new_ids, domain, trials, seed)
    document["misc"]["vals"]["x"] = [np.float64(20 + seed / 2**31)]
    return [document]


def no_draw(new_ids, domain, trials, seed):
    return []


def done(trials):
    return sorted(place[1:] for place in places(trials)[:ITERATION])


@pytest.fixture
def planned(space):
    return done(run(loss, space, ITERATION))


def test_by_default_nothing_but_random_draws(space):
    assert run(loss, space, ITERATION).vals == run(loss, space, ITERATION, algo=by(None)).vals


@pytest.mark.parametrize("name", named(SAMPLERS))
@pytest.mark.parametrize("queue", [1, 4])
def test_any_algorithm_of_hyperopt_draws_and_the_schedule_stays(space, planned, name, queue):
    trials = run(loss, space, 2 * ITERATION, algo=by(SAMPLERS[name]), max_queue_len=queue)
    assert done(trials) == planned
    for doc in trials.trials:
        assert {type(v) for value in doc["misc"]["vals"].values() for v in value} <= {int, float}


@pytest.mark.skipif(hyperopt.__version__ == "0.2.7", reason="its atpe needs numpy before 1.24")
@pytest.mark.parametrize("queue", [1, 4])
@pytest.mark.filterwarnings("ignore:An input array is constant")  # atpe's own draws are not seeded
@pytest.mark.slow
def test_atpe_draws_and_the_schedule_stays(space, planned, queue):
    from hyperopt import atpe

    trials = run(loss, space, ITERATION, algo=by(atpe.suggest), max_queue_len=queue)
    assert done(trials) == planned
    assert trials.vals != run(loss, space, ITERATION, algo=by(no_draw), max_queue_len=queue).vals


def test_the_model_draws_but_for_the_random_share(space):
    def drawn(share):
        trials = run(loss, space, 60, algo=by(far_out, random_share=share))
        first = [doc["misc"]["vals"] for doc in trials.trials if doc["misc"]["hyperband"]["rung"] == 0]
        return np.mean([vals["x"][0] > 20 for vals in first])

    assert drawn(0) == 1
    assert drawn(1) == 0
    assert 0.2 < drawn(0.5) < 0.8


def test_a_random_share_of_one_is_random_search_in_the_brackets(space):
    asked = []
    trials = run(loss, space, ITERATION, algo=by(lambda *args: asked.append(args), random_share=1))
    assert not asked
    assert len(trials) == ITERATION


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, "0.5", None])
def test_a_share_that_is_none_is_refused(space, share):
    with pytest.raises(ValueError, match=f"random_share={re.escape(repr(share))}: pass a number from 0 to 1"):
        run(loss, space, 1, algo=by(tpe.suggest, random_share=share))


@pytest.mark.parametrize("sampler", ["tpe", tpe, 3])
def test_a_sampler_that_can_t_be_called_is_refused(space, sampler):
    with pytest.raises(ValueError, match=r"sampler=.*: pass an algorithm of Hyperopt, such as tpe\.suggest"):
        run(loss, space, 1, algo=by(sampler))


X = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}


def drawn(documents):
    return [doc["misc"]["vals"]["x"][0] for doc in documents if doc["misc"]["hyperband"]["rung"] == 0]


@pytest.mark.parametrize("queue", [1, 4])
@pytest.mark.parametrize(
    "algo",
    [
        hyperband.suggest,
        bohb.suggest,
        by(rand.suggest, random_share=0),
        by(tpe.suggest),
        pytest.param(by(anneal.suggest, random_share=0), marks=broken_anneal),
    ],
)
def test_fmin_called_again_and_again_with_one_rstate_draws_no_repeats(algo, queue):
    trials = Trials()
    for max_evals in range(1, 2 * ITERATION + 1, queue):
        run(loss, X, max_evals, trials, seed=42, algo=algo, max_queue_len=queue)
    assert len(set(drawn(trials.trials))) == len(drawn(trials.trials)) > 30


@pytest.mark.filterwarnings("ignore:max_evals=.* is too few", "ignore:fmin has ended before a result")
@pytest.mark.parametrize("kind", [Trials, partial(ExecutorTrials, parallelism=2)], ids=["serial", "threads"])
def test_fmin_called_again_and_again_under_a_seed_from_outside_draws_no_repeats(kind, monkeypatch):
    monkeypatch.setenv("HYPEROPT_FMIN_SEED", "42")
    trials = kind()
    with ThreadPoolExecutor(2) as executor:
        trials.executor = executor
        for max_evals in range(1, 2 * ITERATION + 1):
            fmin(loss, X, hyperband.suggest, max_evals, trials=trials, verbose=False, return_argmin=False)
    assert len(set(drawn(trials.trials))) == len(drawn(trials.trials)) > 30


@pytest.mark.parametrize("seed", range(8))
def test_the_random_share_is_not_all_or_nothing_with_one_seed_at_every_call(seed):
    asked, trials = [], Trials()

    def spy(new_ids, domain, trials, seed):
        asked.append(seed)
        return rand.suggest(new_ids, domain, trials, seed)

    for max_evals in range(1, 2 * ITERATION + 1):
        run(loss, X, max_evals, trials, seed=seed, algo=by(spy))
    assert 0.5 < len(asked) / 34 < 1
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("algo", [hyperband.suggest, by(rand.suggest)])
def test_what_an_id_gets_is_the_same_alone_and_among_others(algo):
    together = algo(range(9), Domain(loss, X), Trials(), 7)
    alone = [algo([new_id], Domain(loss, X), Trials(), 7) for new_id in range(9)]
    assert drawn(together) == [x for documents in alone for x in drawn(documents)]


NAMES = ["a", "007", bson.ObjectId("0" * 23 + "a"), bson.ObjectId("0" * 23 + "b"), 0.5, (1, "a"), "é", "b"]


def one_by_one(ids):
    """What ids get, all with the same seed."""
    trials = Trials()
    for new_id in ids:
        trials._dynamic_trials += hyperband.suggest([new_id], Domain(loss, X), trials, 7)
    return drawn(trials._dynamic_trials)


@pytest.mark.slow
def test_ids_of_any_kind_get_draws_of_their_own_the_same_in_every_process():
    here = one_by_one(NAMES)
    assert len(set(here)) == len(NAMES)
    assert one_by_one(range(len(NAMES))) == here, "what an id is called has no effect"
    assert len(set(one_by_one([-1, 1, 2**70, 10]))) == 4
    script = "from test_samplers import *; print(one_by_one(NAMES))"
    for hash_seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.path.dirname(__file__)}
        there = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True
        )
        assert there.stdout.strip() == repr(here)


def returning(answer):
    return lambda new_ids, domain, trials, seed: answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        ["x"],
        [{}],
        [{"misc": {}}],
        [{"misc": {"vals": None}}],
        [{"misc": {"vals": {"x": [1]}}}],
        [{"misc": {"vals": {"x": 1, "branch": 0, "y": 0, "epochs": 9}}}],
        [{"misc": {"vals": {"x": [1, 2], "branch": [1], "y": [], "epochs": [9]}}}],
        [{"misc": {"vals": {"x": [1], "branch": [1], "y": [], "epochs": [9], "z": []}}}],
        2 * [{"misc": {"vals": {"x": [1], "branch": [1], "y": [], "epochs": [9]}}}],
    ],
)
def test_an_answer_that_is_none_is_named(space, answer):
    with pytest.raises(ValueError, match=r"sampler=.* returned .* list of one document.*'branch', 'epochs'"):
        run(loss, space, 1, algo=by(returning(answer), random_share=0))


def test_no_document_is_a_random_draw(space, planned):
    assert done(run(loss, space, ITERATION, algo=by(returning([]), random_share=0))) == planned


def test_what_a_sampler_raises_reaches_the_user_and_nothing_is_lost(space):
    def weary(new_ids, domain, trials, seed):
        if len(trials.trials) == 5:
            raise RuntimeError("enough")
        return rand.suggest(new_ids, domain, trials, seed)

    trials = Trials()
    with pytest.raises(RuntimeError, match="enough"):
        run(loss, space, ITERATION, trials=trials, algo=by(weary, random_share=0))
    assert len(trials) == 5
    run(loss, space, ITERATION, trials=trials)
    assert len(trials) == ITERATION


def evaluated(*each):
    return [
        evaluation(config, budget, value, {"x": float(i)}) for i, (config, budget, value) in enumerate(each)
    ]


def test_one_document_a_configuration_ranked_by_budget_then_loss_then_failures_then_pending():
    domain = Domain(lambda _: 0.0, {"x": hp.uniform("x", 0, 9)})
    known = evaluated(
        ("a", 1, 5.0), ("b", 1, 1.0), ("c", 1, math.inf), ("d", 1, 0.5), ("e", 1, None),
        ("b", 3, 9.0), ("a", 3, 8.0), ("d", 3, math.inf), ("a", 9, None),
    )  # fmt: skip
    trials = _ranked(Request(domain, known, {}, 1, 9, seed=0))
    ranks = {doc["misc"]["vals"]["x"][0]: doc["result"]["loss"] for doc in trials.trials}
    assert ranks == {6.0: 0, 5.0: 1, 7.0: 2, 2.0: 3, 4.0: 4}
    assert all(doc["state"] == JOB_STATE_DONE for doc in trials.trials)


def test_the_budget_is_no_hyperparameter_to_the_model(space):
    shown = set()

    def spy(new_ids, domain, trials, seed):
        shown.update(v for doc in trials.trials for v in doc["misc"]["vals"]["epochs"])
        return tpe.suggest(new_ids, domain, trials, seed)

    run(loss, space, 2 * ITERATION, algo=by(spy))
    assert shown == {9}


def test_parallel_draws_are_not_the_same_point(space):
    document = {"vals": {"x": [1.5], "branch": [1], "y": [], "epochs": [9]}}
    domain = Domain(loss, space)
    algo = by(returning([{"misc": document}]), random_share=0)
    docs = algo(range(30), domain, Trials(), 0)  # more than two brackets' first rungs
    assert len({repr(doc["misc"]["vals"] | {"epochs": 0}) for doc in docs}) == 30


@pytest.mark.parametrize("cut", range(1, ITERATION + 6, 3))
def test_cut_after_any_document_and_gone_on_with_it_is_the_same_run(space, cut):
    algo = by(partial(tpe.suggest, n_startup_jobs=5))
    whole = run(loss, space, ITERATION + 6, algo=algo)
    rstate = np.random.default_rng(0)
    rstate.integers(2**31 - 1, size=cut)
    kept = bson.decode(bson.encode({"docs": whole.trials[:cut]}))["docs"]
    trials = pickle.loads(pickle.dumps(trials_from_docs(kept)))
    fmin(loss, space, algo=algo, max_evals=ITERATION + 6, trials=trials, rstate=rstate, verbose=False)
    assert places(trials) == places(whole)
    assert trials.vals == whole.vals


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.slow
def test_every_promise_holds_under_faults_with_tpe(serial):
    for seed in range(3):
        simulation = Simulation(
            workers=1 if serial else 6, ids=3, faults=0.3, restarts=0.05, serial=serial, seed=seed
        )
        simulation.suggest = by(partial(tpe.suggest, n_startup_jobs=4))
        simulation.run().check()


@pytest.mark.parametrize("points", [1, 2, 9])
def test_small_spaces_end(points):
    simulation = Simulation(points=points, workers=3, max_budget=9, iterations=2)
    simulation.suggest = by(partial(tpe.suggest, n_startup_jobs=4), random_share=0)
    simulation.run().check()


def test_a_run_in_which_everything_fails_goes_on(space):
    def objective(params):
        if params["x"] < 0:
            raise RuntimeError("diverged")
        return {"status": STATUS_FAIL} if params["x"] < 2 else {"status": STATUS_OK, "loss": math.nan}

    trials = Trials()
    with pytest.raises(Exception, match=r"^$|evaluation"):  # AllTrialsFailed, when the run is over
        run(objective, space, 40, trials, algo=by(tpe.suggest), catch_eval_exceptions=True)
    assert len(trials._dynamic_trials) == 40


def test_an_executor_s_workers_get_them_too(space, planned):
    stop = hyperband.stop_after(iterations=1)
    trials = ExecutorTrials(ThreadPoolExecutor(3))
    run(loss, space, None, trials=trials, algo=by(tpe.suggest), early_stop_fn=stop)
    assert sorted(place[1:] for place in places(trials) if place[0] == 0) == planned


def seen_by_model(space, trials, algo=hyperband.suggest, **options):
    """The documents that a sampler is shown next."""
    shown = []

    def spy(new_ids, domain, trials, seed):
        shown.append(trials.trials)
        return rand.suggest(new_ids, domain, trials, seed)

    suggest = by(spy, random_share=0, **options)
    suggest([len(trials._dynamic_trials)], Domain(loss, space), trials, 0)
    return shown[0]


def test_foreign_trials_count_at_the_full_budget(space):
    trials = run(loss, space, 5, algo=tpe.suggest)
    foreign = trials.vals["x"]
    run(lambda params: -1e9, space, 5 + 8, trials=trials, seed=1)
    shown = seen_by_model(space, trials)
    ranks = {doc["misc"]["vals"]["x"][0]: doc["result"]["loss"] for doc in shown}
    assert {ranks[x] for x in foreign} == set(range(5)), "the full budget beats any loss at a lower one"


def test_a_foreign_trial_that_held_a_lower_budget_counts_at_that():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hp.randint("epochs", 10)}
    trials = run(lambda p: -p["epochs"] / 10, space, 30, algo=rand.suggest)
    run(lambda p: 0.0, space, 31, trials=trials, seed=1, algo=partial(hyperband.suggest, budget="epochs"))
    held = {doc["misc"]["vals"]["x"][0]: doc["misc"]["vals"]["epochs"][0] for doc in trials.trials[:30]}
    shown = seen_by_model(space, trials, budget="epochs")
    ranked = sorted(shown, key=lambda doc: doc["result"]["loss"])
    budgets = [max(1, held[x]) for doc in ranked if (x := doc["misc"]["vals"]["x"][0]) in held]
    assert budgets == sorted(budgets, reverse=True)


def test_foreign_trials_of_a_smaller_space_are_learned_from_and_those_of_another_are_not(space):
    small = {"x": space["x"]}
    other = {"w": hp.uniform("w", 0, 1)}
    foreign = [run(lambda p: 0.0, each, 3, algo=rand.suggest).trials for each in (small, other)]
    documents = [*foreign[0], *foreign[1]]
    for i, doc in enumerate(documents):
        doc["tid"] = doc["misc"]["tid"] = i
    trials = trials_from_docs(documents)
    assert [doc["misc"]["vals"]["branch"] for doc in seen_by_model(space, trials)] == [[]] * 3


def test_an_interrupted_evaluation_is_not_shown(space):
    def objective(params):
        if len(trials.trials) == 4:
            raise KeyboardInterrupt
        return loss(params)

    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, ITERATION, trials=trials)
    dead = trials._dynamic_trials[-1]
    # The next is the dead one, issued again; the one after it is drawn.
    [again] = hyperband.suggest([4], Domain(loss, space), trials, 0)
    assert again["misc"]["vals"] == dead["misc"]["vals"]
    trials.insert_trial_docs([again])
    trials.refresh()
    assert len(seen_by_model(space, trials)) == 4


def test_a_budget_that_decides_a_switch_is_refused():
    from hyperopt.pyll import scope

    space = scope.switch(scope.int(hp.quniform("n", 0, 1, 1)), hp.uniform("a", 0, 1), 3)
    with pytest.raises(ValueError, match="budget='n' is a choice"):
        run(lambda _: 0.0, space, 1, algo=partial(hyperband.suggest, budget="n"))


def test_points_that_name_an_option_instead_of_its_index_fail_and_the_run_goes_on(space):
    trials = Trials()
    points = [{"x": 1.0, "branch": "b", "epochs": 9}, {"x": 2.0, "branch": 1, "epochs": 9}]
    for point in points:
        vals = {label: [value] for label, value in point.items()}
        [doc] = rand.suggest([len(trials._dynamic_trials)], Domain(loss, space), trials, 0)
        doc["misc"]["vals"] = vals
        doc["misc"]["idxs"] = {label: [doc["tid"]] for label in vals}
        trials.insert_trial_docs([doc])
        trials.refresh()
    run(loss, space, 30, trials=trials, algo=by(tpe.suggest), catch_eval_exceptions=True)
    assert len(trials._dynamic_trials) == 30
    assert {v for doc in seen_by_model(space, trials) for v in doc["misc"]["vals"]["branch"]} == {0, 1}
