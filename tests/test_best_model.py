"""One model is kept, the incumbent's: through real fmin, threads, processes and kills."""

import contextlib
import functools
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import hyperopt
import numpy as np
import pytest
from conftest import killed, loss, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, hp, rand, tpe
from hyperopt.base import JOB_STATE_RUNNING
from hyperopt.exceptions import AllTrialsFailed

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
from hyperopt_hyperband import Trials as OwnTrials

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:max_evals=.* is too few:UserWarning"),  # runs are cut short on purpose
]

SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}
ITERATION = hyperband.schedule(1, 9).evaluations


class Model:
    """Names the evaluation that has trained it."""

    def __init__(self, params):
        self.params = params


def objective(params):
    return {"loss": loss(params), "status": STATUS_OK, "model": Model(params)}


def with_budget(function=objective, **options):
    """The objective, its budget as an argument; it travels by reference to a worker."""
    return hyperband.with_budget(functools.partial(_budgeted, function), keep_model=True, **options)


def _budgeted(function, params, budget=9):
    return function(params)


def holders(trials):
    """The evaluations that still have a model, in memory or in a file."""
    return [d["tid"] for d in trials._dynamic_trials if {"model", "model_file"} & d["result"].keys()]


def check(trials, folder=None):
    """The incumbent's model is handed back, and no other one is left."""
    best = hyperband.incumbent(trials)
    assert hyperband.best_model(trials).params["x"] == best["misc"]["vals"]["x"][0]
    assert holders(trials) == [best["tid"]]
    if folder is not None:
        assert [str(path) for path in folder.iterdir()] == [best["result"]["model_file"]]


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "models"


@pytest.fixture
def options(folder):
    return {} if folder is None else {"checkpoint_dir": folder}


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest, rand.suggest, tpe.suggest])
def test_our_trials_keep_the_model_of_the_incumbent_alone(options, folder, algo):
    trials = run(with_budget(**options), SPACE, ITERATION + 5, OwnTrials(), algo=algo)
    check(trials, folder)


@pytest.mark.parametrize("max_queue_len", [1, 4])
@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest, rand.suggest, tpe.suggest])
def test_of_a_plain_objective_too(algo, max_queue_len):
    trials = run(objective, SPACE, 50, OwnTrials(keep_model=True), algo=algo, max_queue_len=max_queue_len)
    check(trials)


def test_the_model_of_an_objective_that_wants_the_trial_is_kept_too():
    @hyperopt.fmin_pass_expr_memo_ctrl
    def with_ctrl(expr, memo, ctrl):
        params = hyperopt.pyll.rec_eval(expr, memo=memo)
        ctrl.attachments["model"] = params["x"]
        return objective(params)

    trials = run(with_ctrl, SPACE, ITERATION, OwnTrials(keep_model=True))
    check(trials)
    assert len(trials.attachments) == ITERATION, "attachments of that name are the user's"


@pytest.mark.parametrize("max_queue_len", [1, 4])
def test_at_any_moment_there_is_one_beside_those_of_the_newest_evaluations(options, folder, max_queue_len):
    counts = []

    def watch(seen, *args):
        counts.append(len(holders(seen)))
        best = hyperband.incumbent(seen)
        assert hyperband.best_model(seen).params["x"] == best["misc"]["vals"]["x"][0]
        if folder is not None:
            assert len(list(folder.iterdir())) == counts[-1]
        return False, args

    for trials in (Trials(), OwnTrials()):
        run(
            with_budget(**options),
            SPACE,
            2 * ITERATION,
            trials,
            early_stop_fn=watch,
            max_queue_len=max_queue_len,
        )
        assert 1 < max(counts) <= 1 + max_queue_len
        if folder is not None:
            [path.unlink() for path in folder.iterdir()]


def test_hyperopts_own_trials_hand_back_the_incumbents(options):
    trials = run(with_budget(**options), SPACE, ITERATION)
    best = hyperband.incumbent(trials)
    assert hyperband.best_model(trials).params["x"] == best["misc"]["vals"]["x"][0]
    assert len(holders(trials)) <= 2


def test_without_the_option_results_are_left_as_they_are():
    for trials in (Trials(), OwnTrials()):
        for evaluated in (objective, hyperband.with_budget(lambda params, budget: objective(params))):
            run(evaluated, SPACE, len(trials) + 10, trials)
        assert holders(trials) == list(range(20))
        assert hyperband.best_model(trials) is hyperband.incumbent(trials)["result"]["model"]


def test_a_larger_budget_outdoes_a_lower_loss(options, folder):
    def worse_with_budget(params):
        return objective(params) | {"loss": params["epochs"] + params["x"] ** 2}

    trials = run(with_budget(worse_with_budget, **options), SPACE, ITERATION, OwnTrials())
    check(trials, folder)
    assert hyperband.best_model(trials).params["epochs"] == 9


def test_ties_go_to_the_earlier_one(options, folder):
    def tied(params):
        return objective(params) | {"loss": 0.0}

    trials = run(with_budget(tied, **options), SPACE, 2 * ITERATION, OwnTrials())
    check(trials, folder)


def failing(params):
    if params["x"] < -3:
        raise RuntimeError("diverged")
    if params["x"] < -1:
        return objective(params) | {"status": STATUS_FAIL}
    return objective(params) | ({"loss": float("nan")} if params["x"] < 1 else {})


@pytest.mark.parametrize("own", [Trials, OwnTrials])
def test_failed_evaluations_keep_none(options, folder, own):
    trials = run(with_budget(failing, **options), SPACE, 2 * ITERATION, own(), catch_eval_exceptions=True)
    if own is OwnTrials:
        check(trials, folder)
    assert hyperband.best_model(trials).params["x"] >= 1


def test_where_all_have_failed_none_is_left(options, folder):
    def failing(params):
        return objective(params) | {"loss": float("nan")}

    trials = OwnTrials()
    with pytest.raises(AllTrialsFailed):  # fmin's own
        run(with_budget(failing, **options), SPACE, 5, trials)
    assert not holders(trials)
    assert folder is None or not folder.exists()
    with pytest.raises(AllTrialsFailed, match=r"5 failed"):
        hyperband.best_model(trials)


def test_points_and_trials_of_another_algorithm_count_at_their_budgets(options, folder):
    trials = OwnTrials(points_to_evaluate=[{"x": 2.0}, {"x": 4.0, "epochs": 3}], keep_model=True)
    run(with_budget(**options), SPACE, 2, trials)
    check(trials, folder)
    for max_evals in range(3, ITERATION):
        run(with_budget(**options), SPACE, max_evals, trials)
        check(trials, folder)
    run(with_budget(**options), SPACE, ITERATION + 10, trials, algo=rand.suggest, seed=1)
    check(trials, folder)


def test_checkpoints_are_handed_on_beside_models(options, folder):
    @hyperband.with_budget(keep_model=True, **options)
    def training(params, budget, checkpoint=None):
        epochs = list(checkpoint.state) if checkpoint else []
        epochs += [params["x"]] * (budget - len(epochs))
        return objective(params) | {"checkpoint": epochs, "epochs": epochs}

    trials = run(training, SPACE, 2 * ITERATION, OwnTrials())
    for doc in trials.trials:
        assert doc["result"]["epochs"] == doc["misc"]["vals"]["x"] * doc["misc"]["budget"]
    best = hyperband.incumbent(trials)
    assert holders(trials) == [best["tid"]]
    assert hyperband.best_model(trials).params["x"] == best["misc"]["vals"]["x"][0]
    if folder is not None:
        assert [path.name for path in folder.glob("*.pkl")] == [
            os.path.basename(best["result"]["model_file"])
        ]


def test_a_model_in_a_folder_is_as_it_was_when_returned(tmp_path):
    shared = Model(None)

    @hyperband.with_budget(keep_model=True, checkpoint_dir=tmp_path)
    def reusing(params, budget):
        shared.params = params
        return {"loss": loss(params), "status": STATUS_OK, "model": shared}

    check(run(reusing, SPACE, ITERATION, OwnTrials()), tmp_path)


def test_hyperopts_partial_hides_nothing(folder, options):
    def scaled(params, budget, scale=1):
        return objective(params)

    trials = run(
        hyperopt.partial(hyperband.with_budget(scaled, keep_model=True, **options), scale=2),
        SPACE,
        ITERATION,
        OwnTrials(),
    )
    check(trials, folder)


EXECUTORS = {
    "threads": ThreadPoolExecutor,
    "processes": functools.partial(ProcessPoolExecutor, mp_context=get_context("fork")),
}


@pytest.mark.parametrize("kind", EXECUTORS)
def test_on_an_executor(kind, options, folder):
    with EXECUTORS[kind](3) as executor:
        trials = run(with_budget(failing, **options), SPACE, 60, ExecutorTrials(executor), **CATCH)
        check(trials, folder)
        trials = ExecutorTrials(executor, keep_model=True)
        check(run(failing, SPACE, 60, trials, **CATCH))


CATCH = {"catch_eval_exceptions": True}


@pytest.mark.slow
def test_dask_workers_leave_theirs_in_a_folder(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        trials = ExecutorTrials(client.get_executor(), parallelism=2)
        run(travelling(tmp_path / "models"), SPACE, 30, trials)
        best = hyperband.incumbent(trials)
        assert hyperband.best_model(trials) == best["misc"]["vals"]["x"]
        assert len(list((tmp_path / "models").iterdir())) == 1


def travelling(checkpoint_dir=None):
    """An objective that a worker need not import from the tests."""

    @hyperband.with_budget(keep_model=True, checkpoint_dir=checkpoint_dir)
    def objective(params, budget):
        return {"loss": (params["x"] - 1) ** 2 + 1 / budget, "status": "ok", "model": [params["x"]]}

    return objective


def test_keeping_one_model_goes_on_after_saving_and_loading(options, folder, tmp_path):
    path = tmp_path / "trials.pkl"
    for max_evals in (3, 10, 11, ITERATION, 2 * ITERATION):
        trials = run(
            with_budget(**options),
            SPACE,
            max_evals,
            hyperband.load_trials(path),
            seed=max_evals,
            early_stop_fn=hyperband.save_trials(path),
        )
        check(trials, folder)
        loaded = hyperband.load_trials(path)
        assert len(holders(loaded)) <= 3
        assert hyperband.best_model(loaded).params == hyperband.best_model(trials).params
        check(pickle.loads(pickle.dumps(trials)), folder)


def test_our_trials_take_the_option_over_and_may_be_given_it_late():
    everything = run(objective, SPACE, 10)
    trials = OwnTrials(trials=everything, keep_model=True)
    check(run(objective, SPACE, 11, trials))
    assert OwnTrials(trials=trials).keep_model
    assert not OwnTrials(trials=everything).keep_model


def test_ask_and_tell_keep_one():
    trials = OwnTrials(keep_model=True)
    for seed in range(ITERATION):
        document = hyperband.ask(trials, SPACE, algo=hyperband.suggest, seed=seed)
        hyperband.tell(trials, document, objective(hyperband.parameters(SPACE, document)))
    check(trials)


def test_a_result_that_is_not_final_keeps_its_model():
    @hyperopt.fmin_pass_expr_memo_ctrl
    def reporting(expr, memo, ctrl):
        params = hyperopt.pyll.rec_eval(expr, memo=memo)
        ctrl.checkpoint(objective(params))
        if params["x"] < 0:
            raise KeyboardInterrupt
        return objective(params)

    trials = OwnTrials(keep_model=True)
    interrupted = 0
    for _ in range(20):
        with contextlib.suppress(KeyboardInterrupt):
            run(reporting, SPACE, len(trials) + 1, trials, seed=len(trials))
        if trials._dynamic_trials[-1]["state"] == JOB_STATE_RUNNING:
            interrupted += 1
            assert trials._dynamic_trials[-1]["tid"] in holders(trials)
    assert 0 < interrupted < 20


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on", "ignore:fmin has ended")
def test_the_incumbent_of_a_changed_space_keeps_its_model(folder):
    def over(low):
        return {"x": hp.uniform("x", low, low + 1), "epochs": hyperband.budget("epochs", 1, 9)}

    trials = OwnTrials()
    train = with_budget(checkpoint_dir=folder)
    run(train, over(1.0), ITERATION, trials)
    run(train, over(3.0), 2 * ITERATION, trials)
    assert hyperband.incumbent(trials)["misc"]["vals"]["x"][0] >= 3
    check(trials, folder)


def test_a_folder_that_was_moved_is_named(tmp_path):
    folder, moved = tmp_path / "models", tmp_path / "moved"
    trials = run(with_budget(checkpoint_dir=folder), SPACE, ITERATION, OwnTrials())
    folder.rename(moved)
    with pytest.raises(
        ValueError, match=r"model of trial \d+, the incumbent, is not at '.*models.*': pass the f"
    ):
        hyperband.best_model(trials)
    best = hyperband.incumbent(trials)
    assert hyperband.best_model(trials, checkpoint_dir=moved).params["x"] == best["misc"]["vals"]["x"][0]


@pytest.mark.slow
def test_another_process_finds_it(tmp_path):
    path = tmp_path / "trials.pkl"
    run(travelling(tmp_path / "models"), SPACE, ITERATION, early_stop_fn=hyperband.save_trials(path))
    script = f"""
        from hyperopt_hyperband import hyperband
        trials = hyperband.load_trials({str(path)!r})
        assert hyperband.best_model(trials) == hyperband.incumbent(trials)["misc"]["vals"]["x"]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd="/")


def test_an_incumbent_without_a_model_is_told_what_to_do():
    trials = run(loss, SPACE, ITERATION, OwnTrials(keep_model=True))
    with pytest.raises(
        ValueError, match=r"trial \d+, the incumbent, has no model: let the objective return one"
    ):
        hyperband.best_model(trials)
    with pytest.raises(AllTrialsFailed, match="there are none"):
        hyperband.best_model(Trials())
    with pytest.raises(ValueError, match="pass the Trials that fmin was given"):
        hyperband.best_model([])


def test_a_folder_needs_something_to_keep_in_it():
    with pytest.raises(ValueError, match=r"takes no checkpoint: .* keep_model=True"):
        hyperband.with_budget(lambda params, budget: 0, checkpoint_dir="models")


def until_free(file):
    """Wait until the last worker that holds the lock of a file is dead too."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(ValueError):
            hyperband.save_trials(file)
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["serial", *EXECUTORS])
@pytest.mark.slow
def test_kill_9_never_leaves_none(options, folder, tmp_path, kind):
    file = tmp_path / "trials"

    def session(begun):
        os.setpgrp()  # for the workers to be killed too: they do not notice
        (tmp_path / "group").write_text(str(os.getpid()))

        def better_each_time(params):
            begun()
            return {"loss": -time.time(), "status": STATUS_OK, "model": Model(params)}

        trials = hyperband.load_trials(file)
        search = functools.partial(
            run,
            with_budget(better_each_time, **options),
            {"x": hp.uniform("x", -5, 5)},
            10**4,
            algo=functools.partial(hyperband.suggest, min_budget=9, max_budget=9),
            early_stop_fn=hyperband.save_trials(file),
        )
        if kind == "serial":
            search(trials)
        else:
            with EXECUTORS[kind](2) as executor:
                search(ExecutorTrials(executor, trials=trials))

    rng = random.Random(0)
    incumbents = []
    for _ in range(25):
        assert killed(session, evaluations=rng.randint(2, 8), delay=rng.uniform(0, 0.01))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((tmp_path / "group").read_text()), signal.SIGKILL)
        until_free(file)
        trials = hyperband.load_trials(file)
        if any(doc["result"].get("loss") is not None for doc in trials.trials):
            best = hyperband.incumbent(trials)
            assert hyperband.best_model(trials).params["x"] == best["misc"]["vals"]["x"][0]
            incumbents.append(best["tid"])
    assert len(set(incumbents)) > 10


def test_an_iteration_of_large_models_takes_the_room_of_one(tmp_path):
    folder, space = tmp_path / "models", SPACE | {"epochs": hyperband.budget("epochs", 1, 27)}
    evaluations = hyperband.schedule(1, 27).evaluations

    def large(params):
        return objective(params) | {"model": np.random.default_rng(0).bytes(100_000)}

    everything = len(pickle.dumps(run(large, space, evaluations)))
    kept = len(pickle.dumps(run(large, space, evaluations, OwnTrials(keep_model=True))))
    in_folder = hyperband.with_budget(
        lambda params, budget: large(params), keep_model=True, checkpoint_dir=folder
    )
    named = len(pickle.dumps(run(in_folder, space, evaluations, OwnTrials())))
    assert everything > evaluations * 100_000
    assert kept < everything - (evaluations - 1) * 100_000
    assert named < kept - 99_000
    assert len(list(folder.iterdir())) == 1
