"""Real threads and real processes under real fmin."""

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest
from conftest import loss, named, run
from hyperopt import STATUS_OK, Trials, anneal, fmin, hp, rand, space_eval, tpe
from hyperopt.base import (
    JOB_STATE_CANCEL,
    JOB_STATE_DONE,
    JOB_STATE_ERROR,
    JOB_STATE_NEW,
    JOB_STATE_RUNNING,
)
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import InvalidLoss
from hyperopt.fmin import generate_trials_to_calculate

from hyperopt_hyperband import ExecutorTrials, hyperband

# Runs are cut short on purpose.
pytestmark = pytest.mark.filterwarnings(
    "ignore:max_evals=.* is too few", "ignore:fmin has ended before a result"
)

PLAN = hyperband.schedule(1, 9)
ALGORITHMS = {
    "hyperband": hyperband.suggest,
    "rand": rand.suggest,
    "anneal": anneal.suggest,
    "tpe": partial(tpe.suggest, n_startup_jobs=5),
}


multiprocessing.get_context("forkserver").set_forkserver_preload(["hyperopt_hyperband._executor"])


def processes(n, method="forkserver"):
    """By default, workers that start at once and that inherit neither threads nor locks."""
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context(method))


EXECUTORS = {
    "threads": ThreadPoolExecutor,
    "fork": partial(processes, method="fork"),
    "forkserver": processes,
}


@pytest.fixture(autouse=True)
def interruptible():
    """A shell that runs the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=EXECUTORS, scope="module")
def executor(request):
    with EXECUTORS[request.param](3) as executor:
        yield executor


@pytest.fixture
def threads():
    with ThreadPoolExecutor(3) as executor:
        yield executor


def states(trials):
    return [doc["state"] for doc in trials._dynamic_trials]


def first_iteration(trials, *args):
    """An early_stop_fn: whether all that the first Hyperband iteration plans has finished, and no more."""
    finished = [(doc["misc"]["hyperband"], doc["misc"]["budget"]) for doc in trials.trials]
    done = [(s["bracket"], s["rung"], budget) for s, budget in finished if s["iteration"] == 0]
    planned = [
        (bracket.s, i, rung.budget)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    ]
    assert len(done) <= len(planned)
    return sorted(done) == sorted(planned), args


def outcomes(trials):
    return [(doc["tid"], doc["misc"]["vals"], doc["state"], doc["result"]) for doc in trials._dynamic_trials]


def test_a_hyperband_iteration(executor, space):
    shift = 1  # a closure

    def objective(params):
        return (params["x"] - shift) ** 2 + 1 / params["epochs"]

    trials = run(objective, space, 10**5, ExecutorTrials(executor), early_stop_fn=first_iteration)
    assert first_iteration(trials) == (True, ())
    for doc in trials.trials:
        assert doc["result"]["loss"] == (doc["misc"]["vals"]["x"][0] - 1) ** 2 + 1 / doc["misc"]["budget"]
    assert hyperband.incumbent(trials)["misc"]["budget"] == 9


@pytest.mark.parametrize("algo", named(ALGORITHMS))
def test_with_one_worker_every_algorithm_does_what_it_does_in_a_serial_run(threads, space, algo):
    serial = run(loss, space, 30, algo=ALGORITHMS[algo])
    trials = run(loss, space, 30, algo=ALGORITHMS[algo], trials=ExecutorTrials(threads, parallelism=1))
    assert outcomes(trials) == outcomes(serial)


@pytest.mark.parametrize("algo", named(ALGORITHMS))
def test_every_algorithm_runs_in_parallel(threads, space, algo):
    trials = run(loss, space, 30, algo=ALGORITHMS[algo], trials=ExecutorTrials(threads))
    assert states(trials) == [JOB_STATE_DONE] * 30
    assert [doc["tid"] for doc in trials.trials] == list(range(30))


def test_a_free_worker_gets_work_while_others_are_busy(threads, space):
    others = threading.Semaphore(0)

    def objective(params, expr=None, memo=None, ctrl=None):
        if ctrl.current_trial["tid"] == 0:
            for _ in range(20):
                assert others.acquire(timeout=60)
        else:
            others.release()
        return 0

    trials = ExecutorTrials(threads, parallelism=2)
    run(partial(objective, None), space, 21, trials=trials, pass_expr_memo_ctrl=True)
    assert states(trials) == [JOB_STATE_DONE] * 21


@pytest.mark.parametrize(("parallelism", "max_queue_len", "most"), [(1, 1, 1), (3, 1, 3), (2, 3, 4)])
def test_each_draw_knows_those_before_it(threads, space, parallelism, max_queue_len, most):
    seen = []

    def watched(new_ids, domain, trials, seed):
        pending = sum(state in (JOB_STATE_NEW, JOB_STATE_RUNNING) for state in states(trials))
        seen.append((len(new_ids), len(trials.trials), pending))
        return rand.suggest(new_ids, domain, trials, seed)

    trials = ExecutorTrials(threads, parallelism=parallelism)
    run(loss, space, 20, algo=watched, trials=trials, max_queue_len=max_queue_len)
    assert [(ids, known) for ids, known, _ in seen] == [(1, n) for n in range(20)]
    assert max(pending for _, _, pending in seen) == most - 1


def test_an_algorithm_without_suggestions_ends_the_run(threads, space):
    def three(new_ids, domain, trials, seed):
        return rand.suggest(new_ids, domain, trials, seed) if len(trials.trials) < 3 else []

    assert states(run(loss, space, 20, algo=three, trials=ExecutorTrials(threads))) == [JOB_STATE_DONE] * 3


# Fmin's options.


@contextmanager
def blocked_above(limit):
    """An objective that blocks where x is above the limit, until the end of the block."""
    release = threading.Event()
    started = threading.Event()

    def objective(params):
        if params["x"] > limit:
            started.set()
            release.wait()
        return loss(params)

    try:
        objective.started = started
        yield objective
    finally:
        release.set()


def test_a_timeout_does_not_wait_and_what_was_cut_short_comes_first_afterwards(threads, space):
    trials = ExecutorTrials(threads)
    with blocked_above(0) as objective:
        run(objective, space, 1000, trials=trials, timeout=1)
        cut = [doc["tid"] for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_CANCEL]
        assert len(cut) == 3
        assert all(doc["result"]["status"] == STATUS_OK for doc in trials.trials)
    before = len(trials._dynamic_trials)
    run(loss, space, before + 5, trials=trials)
    assert states(trials) == [JOB_STATE_DONE] * (before + 5)
    issued = sorted(trials._dynamic_trials, key=lambda doc: doc["book_time"])
    assert sorted(doc["tid"] for doc in issued[before - 3 : before]) == cut


def test_loss_threshold_ends_the_run(threads, space):
    trials = run(loss, space, 1000, trials=ExecutorTrials(threads), algo=rand.suggest, loss_threshold=0.5)
    assert min(trials.losses()) < 0.5
    assert len(trials) < 1000
    assert set(states(trials)) <= {JOB_STATE_DONE, JOB_STATE_CANCEL}


def test_early_stop_fn_sees_finished_trials_in_the_order_in_which_they_finish(threads, space):
    first = threading.Semaphore(0)
    seen = []

    def objective(expr, memo, ctrl):
        if ctrl.current_trial["tid"] == 0:
            for _ in range(5):
                assert first.acquire(timeout=60)
        else:
            first.release()
        return ctrl.current_trial["tid"]

    def stop(trials, *args):
        seen.append([doc["result"]["loss"] for doc in trials.trials])
        trials.refresh()
        assert list(args) == [len(seen)] * (len(seen) > 1)
        return 0.0 in seen[-1], [len(seen) + 1]

    run(objective, space, 1000, ExecutorTrials(threads), pass_expr_memo_ctrl=True, early_stop_fn=stop)
    assert [len(losses) for losses in seen] == list(range(1, len(seen) + 1))
    assert all(longer[:-1] == shorter for shorter, longer in itertools.pairwise(seen))
    assert len(seen) > 3, "two other workers have done five evaluations, or nearly"


def test_hyperopts_own_early_stop_works(threads, space):
    trials = run(loss, space, 1000, trials=ExecutorTrials(threads), early_stop_fn=no_progress_loss(10))
    assert 10 < len(trials) < 500


def failing_left_of_zero(params):
    if params["x"] < 0:
        raise LookupError("left of zero")
    return loss(params)


def test_exceptions_are_caught_as_in_a_serial_run(executor, space):
    serial = run(failing_left_of_zero, space, 30, algo=rand.suggest, catch_eval_exceptions=True)
    trials = ExecutorTrials(executor)
    run(failing_left_of_zero, space, 30, algo=rand.suggest, trials=trials, catch_eval_exceptions=True)
    assert outcomes(trials) == outcomes(serial)
    assert JOB_STATE_ERROR in states(trials)
    assert [doc["misc"].get("error") for doc in trials._dynamic_trials] == [
        doc["misc"].get("error") for doc in serial._dynamic_trials
    ]
    assert len(trials.trials) == len(serial.trials)


def test_an_exception_ends_the_run_as_in_a_serial_one(executor, space):
    trials = ExecutorTrials(executor)
    with pytest.raises(LookupError, match="left of zero") as raised:
        run(failing_left_of_zero, space, 30, trials=trials)
    frames = str(raised.value.__cause__) + str([str(entry) for entry in raised.traceback])
    assert "failing_left_of_zero" in frames, "the traceback shows where"
    assert states(trials).count(JOB_STATE_ERROR) >= 1
    run(loss, space, 30, trials=trials)
    assert states(trials).count(JOB_STATE_DONE) == 30


def test_exceptions_that_do_not_unpickle_arrive_too(executor, space):
    with pytest.raises(InvalidLoss) as raised:
        run(lambda params: {"status": STATUS_OK, "loss": None}, space, 5, trials=ExecutorTrials(executor))
    assert raised.value.result == {"status": STATUS_OK, "loss": None}


def test_exceptions_that_do_not_pickle_arrive_by_name(space):
    def objective(params):
        raise LookupError("locked", threading.Lock())

    with processes(1) as executor, pytest.raises(RuntimeError, match=r"LookupError: .*locked"):
        run(objective, space, 5, trials=ExecutorTrials(executor))


def test_points_given_beforehand_come_first(threads):
    space = {"x": hp.uniform("x", -5, 5)}
    points = generate_trials_to_calculate([{"x": 1.0}, {"x": 2.0}])
    trials = run(lambda p: p["x"], space, 5, algo=rand.suggest, trials=ExecutorTrials(threads, trials=points))
    assert trials.vals["x"][:2] == [1.0, 2.0]
    assert states(trials) == [JOB_STATE_DONE] * 5


def test_the_save_file_holds_trials_to_go_on_with(threads, space, tmp_path):
    file = tmp_path / "trials"
    with blocked_above(2) as objective:
        run(objective, space, 100, ExecutorTrials(threads), timeout=1, trials_save_file=str(file))
    saved = hyperband.load_trials(file)
    under_way = [doc["tid"] for doc in saved._dynamic_trials if doc["state"] == JOB_STATE_NEW]
    assert under_way
    trials = ExecutorTrials(threads, trials=saved)
    run(loss, space, 10**5, trials, seed=1, early_stop_fn=first_iteration)
    assert first_iteration(trials) == (True, ())
    assert all(trials._dynamic_trials[tid]["state"] == JOB_STATE_DONE for tid in under_way)


def test_the_progress_bar_counts_finished_evaluations(threads, space):
    bars = []

    @contextmanager
    def bar(initial, total):
        bars.append({"initial": initial, "total": total, "updates": 0})

        class Bar:
            def update(self, n):
                bars[-1].update(updates=bars[-1]["updates"] + n, postfix=self.postfix)

        yield Bar()

    trials = ExecutorTrials(threads)
    for max_evals in (10, 15):
        fmin(
            loss,
            space,
            algo=rand.suggest,
            max_evals=max_evals,
            trials=trials,
            show_progressbar=bar,
            rstate=np.random.default_rng(0),
        )
    best = f"best loss: {min(trials.losses())}"
    assert [(b["initial"], b["total"], b["updates"]) for b in bars] == [(0, 10, 10), (10, 15, 5)]
    assert bars[-1]["postfix"] == best


def test_hyperopts_own_progress_bar_shows(threads, space, capsys):
    fmin(loss, space, algo=rand.suggest, max_evals=7, trials=ExecutorTrials(threads))
    assert "7/7" in "".join(capsys.readouterr())


def test_what_fmin_returns(threads, space):
    trials = ExecutorTrials(threads)
    options = {"algo": rand.suggest, "max_evals": 5, "trials": trials, "verbose": False}
    assert fmin(loss, space, **options) == trials.argmin
    assert fmin(loss, space, return_argmin=False, **options) == space_eval(space, trials.argmin)
    assert trials.fmin(loss, space, max_evals=6) == trials.argmin


def test_what_runs_on_after_the_end_ends_with_its_executor(space, tmp_path):
    def objective(expr, memo, ctrl):
        (tmp_path / str(os.getpid())).touch()
        while len(list(tmp_path.iterdir())) < 2 + ctrl.current_trial["tid"]:
            time.sleep(0.01)
        return 0

    with processes(2) as executor:
        trials = ExecutorTrials(executor)
        run(objective, space, 10, trials, pass_expr_memo_ctrl=True, early_stop_fn=lambda *_: (True, []))
        workers = [int(file.name) for file in tmp_path.iterdir()]
        assert all(alive(pid) for pid in workers)
        (tmp_path / "go").touch()
    assert len(workers) == 2
    assert not any(alive(pid) for pid in workers)
    assert states(trials) == [JOB_STATE_DONE, JOB_STATE_CANCEL]


def test_a_run_without_a_finished_evaluation(threads, space):
    with blocked_above(-9) as objective:
        assert run(objective, space, 5, ExecutorTrials(threads), timeout=0.1).trials == []
        with pytest.raises(Exception, match="no evaluation tasks"):
            fmin(objective, space, rand.suggest, 5, 0.1, trials=ExecutorTrials(threads), verbose=False)


def test_an_annotated_objective(threads):
    def objective(x: hp.uniform("x", 0, 1)):
        return x

    best = fmin(objective, "annotated", rand.suggest, 5, trials=ExecutorTrials(threads), verbose=False)
    assert 0 <= best["x"] <= 1


# The worker's side.


def test_with_budget_hands_over_the_budget(executor):
    space = {"x": hp.uniform("x", -5, 5)}
    objective = hyperband.with_budget(lambda params, budget: params["x"] + 100 * budget)
    trials = run(
        objective,
        space,
        22,
        algo=partial(hyperband.suggest, min_budget=1, max_budget=9),
        trials=ExecutorTrials(executor),
    )
    for doc in trials.trials:
        assert doc["result"]["loss"] == doc["misc"]["vals"]["x"][0] + 100 * doc["misc"]["budget"]


def test_attachments_come_back(executor, space):
    def objective(expr, memo, ctrl):
        ctrl.attachments["weights"] = b"%d" % ctrl.current_trial["tid"]
        return {"loss": 0.0, "status": STATUS_OK, "attachments": {"log": "text"}}

    trials = run(objective, space, 10, ExecutorTrials(executor), pass_expr_memo_ctrl=True)
    for doc in trials.trials:
        assert doc["result"] == {"loss": 0.0, "status": STATUS_OK}
        assert trials.trial_attachments(doc)["weights"] == b"%d" % doc["tid"]
        assert trials.trial_attachments(doc)["log"] == "text"


def test_an_evaluation_reads_its_own_attachments_and_those_of_the_rung_below(executor, space):
    def below(new_ids, domain, trials, seed):
        docs = rand.suggest(new_ids, domain, trials, seed)
        tid = docs[0]["tid"]
        place = {"iteration": 0, "bracket": 2, "rung": 1, "config": 1, "below": 1} if tid == 2 else {}
        first = {"iteration": 0, "bracket": 2, "rung": 0, "config": tid}
        docs[0]["misc"]["budget"] = 3 if place else 1
        docs[0]["misc"]["hyperband"] = {"min_budget": 1, "max_budget": 9, "eta": 3, **(place or first)}
        docs[0]["misc"]["hyperband"] |= {"run": 0, "space": 0, "position": tid, "since": tid, "open": []}
        return docs

    def objective(expr, memo, ctrl):
        ctrl.attachments["weights"] = ctrl.current_trial["tid"]
        if ctrl.current_trial["tid"] == 2:
            theirs = ctrl.trials.trial_attachments({"tid": 1})
            found = theirs["weights"], "weights" in ctrl.trials.trial_attachments({"tid": 0})
            del theirs["weights"]
            return {"loss": 0.0, "status": STATUS_OK, "found": found}
        return 0.0

    trials = ExecutorTrials(executor, parallelism=1)
    run(objective, space, 3, trials, algo=below, pass_expr_memo_ctrl=True)
    assert trials.results[2]["found"] == (1, False)
    assert ["weights" in trials.trial_attachments({"tid": tid}) for tid in range(3)] == [True, False, True]


def trains_on(folder, kill_once=None):
    """An objective whose checkpoint lists its x and all budgets that it has been trained to."""

    @hyperband.with_budget(checkpoint_dir=folder)
    def objective(params, budget, checkpoint=None):
        trained = [*(checkpoint.state if checkpoint else [params["x"]]), budget]
        if kill_once and checkpoint and budget == 9 and not kill_once.exists():
            kill_once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": params["x"] ** 2, "status": STATUS_OK, "trained": trained, "checkpoint": trained}

    return objective


def check_trained_on(trials):
    assert first_iteration(trials) == (True, ())
    for doc in trials.trials:
        if doc["state"] == JOB_STATE_NEW:  # cut short twice: it would come next
            continue
        stamp = doc["misc"]["hyperband"]
        budgets = [rung.budget for rung in PLAN.bracket(stamp["bracket"]).rungs[: stamp["rung"] + 1]]
        assert doc["result"]["trained"] == [doc["misc"]["vals"]["x"][0], *budgets]


@pytest.fixture(params=["attachments", "folder"])
def folder(request, tmp_path):
    return None if request.param == "attachments" else tmp_path / "checkpoints"


def test_a_promotion_trains_on_from_the_checkpoint_of_the_rung_below(executor, space, folder):
    check_trained_on(
        run(trains_on(folder), space, 10**5, ExecutorTrials(executor), early_stop_fn=first_iteration)
    )


def test_a_promotion_whose_worker_is_killed_trains_on_too(space, folder, tmp_path):
    objective = trains_on(folder, kill_once=tmp_path / "killed")
    with processes(2) as executor:
        trials = ExecutorTrials(executor)
        with pytest.raises(BrokenExecutor):
            run(objective, space, 10**5, trials, early_stop_fn=first_iteration)
    with processes(2) as trials.executor:
        run(objective, space, 10**5, trials, seed=1, early_stop_fn=first_iteration)
    check_trained_on(trials)


def test_results_that_only_cloudpickle_knows_come_back(executor, space):
    class Model:
        pass

    def objective(params):
        return {"loss": 0.0, "status": STATUS_OK, "model": Model(), "f": lambda: 3}

    trials = run(objective, space, 3, ExecutorTrials(executor))
    assert all(isinstance(result["model"], Model) and result["f"]() == 3 for result in trials.results)


def test_an_objective_is_loaded_once_in_a_worker(space):
    class Counted:
        def __init__(self):
            self.calls = 0

        def __call__(self, params):
            self.calls += 1
            return self.calls

    with processes(1) as executor:
        assert run(Counted(), space, 5, ExecutorTrials(executor)).losses() == [1, 2, 3, 4, 5]


class Weighed(ProcessPoolExecutor):
    """Counts the bytes that it sends."""

    def submit(self, fn, *args):
        self.sent.append(len(pickle.dumps(args)))
        return super().submit(fn, *args)


def test_an_objective_travels_once_to_each_worker(space):
    data = np.zeros(10**6)
    with Weighed(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        executor.sent = []
        run(lambda params: data[0], space, 50, ExecutorTrials(executor))
    large = [size for size in executor.sent if size > 10**4]
    assert 2 <= len(large) <= 10
    assert executor.sent[0] > data.nbytes


def test_a_worker_without_the_objective_is_sent_it_again(space):
    with processes(1) as executor:

        def run_another(trials):
            if len(trials.trials) in (2, 5):
                run(lambda params: -1, space, 2, ExecutorTrials(executor))
            return False, []

        trials = run(lambda params: 1, space, 8, ExecutorTrials(executor), early_stop_fn=run_another)
    assert trials.losses() == [1] * 8


# What goes wrong.


def test_an_objective_that_cannot_be_pickled_is_named_and_threads_take_it(space):
    lock = threading.Lock()

    def objective(params):
        with lock:
            return loss(params)

    with processes(2) as executor:
        trials = ExecutorTrials(executor)
        for catch in (True, False):
            with pytest.raises(ValueError, match=r"can't be pickled .*lock.*ThreadPoolExecutor"):
                run(objective, space, 5, trials, catch_eval_exceptions=catch)
    with ThreadPoolExecutor(2) as trials.executor:
        assert states(run(objective, space, 5, trials)) == [JOB_STATE_DONE] * 5


class Missing:
    """Stands for a module that the worker has not."""

    def __reduce__(self):
        return missing, ()


def missing():
    raise ModuleNotFoundError("No module named 'mine'")


def test_a_worker_that_cannot_load_the_objective_costs_no_evaluation(space):
    module = Missing()
    with processes(2) as executor:
        trials = ExecutorTrials(executor)
        with pytest.raises(BrokenExecutor, match="No module named 'mine'"):
            run(lambda params: module and 0.0, space, 5, trials, catch_eval_exceptions=True)
        assert set(states(trials)) == {JOB_STATE_CANCEL}
        assert states(run(loss, space, 5, trials)) == [JOB_STATE_DONE] * 5


def test_a_worker_that_is_killed_costs_no_evaluation(space, tmp_path):
    """Two evaluations kill their workers whenever they run, and one of them only once."""
    once = tmp_path / "once"

    def objective(expr, memo, ctrl):
        tid = ctrl.current_trial["tid"]
        if tid in (5, 11) or (tid == 8 and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tid

    trials = ExecutorTrials(parallelism=3)
    rstate = np.random.default_rng(0)
    breaks = 0
    while len(trials) < 20:
        with processes(3) as trials.executor:
            finished = [doc["tid"] for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_DONE]
            with suppress(BrokenExecutor):
                fmin(
                    objective,
                    space,
                    algo=hyperband.suggest,
                    max_evals=20,
                    trials=trials,
                    rstate=rstate,
                    verbose=False,
                    pass_expr_memo_ctrl=True,
                )
            if len(trials) < 20:
                breaks += 1
        assert all(trials._dynamic_trials[tid]["state"] == JOB_STATE_DONE for tid in finished)
        assert breaks < 10
    failed = {doc["tid"]: doc for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_ERROR}
    assert failed.keys() == {5, 11}
    assert "BrokenProcessPool" in failed[5]["misc"]["error"][0]
    assert [doc["result"]["loss"] for doc in trials.trials] == [n for n in range(22) if n not in failed]


def test_a_broken_executor_says_what_to_do(space):
    def objective(params):
        os.kill(os.getpid(), signal.SIGKILL)

    with processes(1) as executor:
        trials = ExecutorTrials(executor)
        with pytest.raises(BrokenExecutor, match=r"terminated.*trials \[0\] under way.*trials\.executor"):
            run(objective, space, 5, trials)
        with pytest.raises(BrokenExecutor, match=r"trials\.executor"):
            run(objective, space, 5, trials)
    with pytest.raises(BrokenExecutor, match=r"trials\.executor"):
        run(objective, space, 5, trials)
    assert states(trials) == [JOB_STATE_CANCEL]


@pytest.mark.slow
def test_loky_goes_on_after_its_worker_is_killed(space, tmp_path):
    loky = pytest.importorskip("joblib.externals.loky", reason="needs joblib, which has loky")

    def objective(expr, memo, ctrl):
        if ctrl.current_trial["tid"] == 5 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ctrl.current_trial["tid"]

    trials = ExecutorTrials(loky.get_reusable_executor(2))
    with pytest.raises(BrokenExecutor, match=r"trials \[.*5.*\] under way"):
        run(objective, space, 10, trials, pass_expr_memo_ctrl=True)
    trials.executor = loky.get_reusable_executor(2)
    assert run(objective, space, 10, trials, pass_expr_memo_ctrl=True, seed=1).losses() == list(range(10))
    trials.executor.shutdown()


def test_an_executor_shut_down_in_mid_run(space):
    executor = ThreadPoolExecutor(2)
    trials = ExecutorTrials(executor)

    def objective(params):
        executor.shutdown(wait=False, cancel_futures=True)
        return 0

    with pytest.raises(BrokenExecutor, match=r"set trials\.executor"):
        run(objective, space, 5, trials, max_queue_len=3)
    with ThreadPoolExecutor(2) as trials.executor:
        assert states(run(loss, space, 5, trials)) == [JOB_STATE_DONE] * 5


@pytest.mark.parametrize("algo", named(ALGORITHMS))
@pytest.mark.parametrize("pickled", [False, True])
def test_ctrl_c_leaves_trials_to_go_on_with(space, algo, pickled):
    with ThreadPoolExecutor(3) as executor, blocked_above(3) as objective:
        trials = ExecutorTrials(executor)
        threading.Thread(
            target=lambda: objective.started.wait() and os.kill(os.getpid(), signal.SIGINT)
        ).start()
        with pytest.raises(KeyboardInterrupt):
            run(objective, space, 1000, trials, algo=ALGORITHMS[algo])
    before = len(trials._dynamic_trials)
    assert JOB_STATE_CANCEL in states(trials)
    if pickled:
        trials = pickle.loads(pickle.dumps(trials))
    with ThreadPoolExecutor(3) as trials.executor:
        run(loss, space, before + 10, trials, algo=ALGORITHMS[algo], seed=1)
    assert states(trials) == [JOB_STATE_DONE] * (before + 10)


def test_an_objective_that_is_interrupted_alone_interrupts_the_run(executor, space):
    def objective(params):
        raise KeyboardInterrupt

    trials = ExecutorTrials(executor)
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 5, trials, catch_eval_exceptions=True)
    assert set(states(trials)) == {JOB_STATE_CANCEL}


SCRIPT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from hyperopt import fmin, hp, rand
from hyperopt_hyperband import ExecutorTrials

def objective(x):
    os.write(1, b"started %d\\n" % os.getpid())
    time.sleep(0.1)
    return x

def run(max_evals):
    fmin(objective, hp.uniform("x", 0, 1), rand.suggest, max_evals, trials=trials, verbose=False)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[1])) as executor:
        trials = ExecutorTrials(executor)
        try:
            run(10**6)
        except KeyboardInterrupt:
            cut = [doc["tid"] for doc in trials._dynamic_trials if doc["state"] != 2]
            run(len(trials._dynamic_trials))
            print("cut", len(cut), "done", len(trials.trials), {doc["state"] for doc in trials.trials})
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_no_process_behind_and_the_pool_whole(tmp_path, method):
    (tmp_path / "script.py").write_text(SCRIPT)
    child = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", method],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started = []
    while len(set(started)) < 2:
        started.append(int(child.stdout.readline().split()[1]))
    os.killpg(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    *lines, last = out.splitlines()
    started += [int(line.split()[1]) for line in lines]
    _, cut, _, done, states = last.split()
    assert states == "{2}"
    assert int(done) <= len(started) <= int(done) + int(cut)
    assert len(set(started)) == 2, "the same workers go on"
    assert not any(alive(pid) for pid in started)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


UNGUARDED = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from hyperopt import fmin, hp, rand
from hyperopt_hyperband import ExecutorTrials

def objective(x):
    return x

with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[1])) as executor:
    trials = ExecutorTrials(executor)
    fmin(objective, hp.uniform("x", 0, 1), rand.suggest, 5, trials=trials, verbose=False)
print("done", len(trials))
"""


def ended(script, method, **options):
    return subprocess.run(
        [sys.executable, script, method], capture_output=True, text=True, timeout=120, check=False, **options
    )


def broken(stderr):
    """The last error: a warning of semaphores may follow it as Python shuts down."""
    return [line for line in stderr.splitlines() if "BrokenExecutor" in line][-1]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.slow
def test_a_script_without_a_guard_is_told_to_have_one(tmp_path, method):
    (tmp_path / "script.py").write_text(UNGUARDED)
    told = ended(tmp_path / "script.py", method)
    assert told.returncode == 1
    last = broken(told.stderr)
    assert 'has to stand under if __name__ == "__main__"' in last
    assert "ValueError: a worker has called fmin: a spawned worker imports the script" in told.stderr
    assert "freeze_support" not in told.stderr


@pytest.mark.slow
def test_a_script_that_is_no_file_is_told_to_be_one():
    last = broken(ended("-", "spawn", input=UNGUARDED).stderr)
    assert "imports the script, so that has to be a file" in last


@pytest.mark.slow
def test_a_script_needs_no_guard_where_processes_are_forked(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    assert ended(tmp_path / "script.py", "fork").stdout == "done 5\n"


def dying(params):
    os._exit(1)


@pytest.mark.slow
def test_a_worker_that_dies_in_its_first_evaluation_keeps_the_usual_advice(space):
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(BrokenExecutor, match=r"with trials .* under way\. No result is lost") as caught,
    ):
        run(dying, space, 5, ExecutorTrials(executor))
    assert "No worker has finished anything" in str(caught.value)


def after_one(params, folder):
    if any(folder.iterdir()):
        os._exit(1)
    (folder / "one").touch()
    return 0


@pytest.mark.slow
def test_a_worker_that_dies_later_is_not_told_of_guards(space, tmp_path):
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(BrokenExecutor, match="No result is lost") as caught,
    ):
        run(partial(after_one, folder=tmp_path), space, 5, ExecutorTrials(executor))
    assert "__main__" not in str(caught.value)


# The object.


def test_pickled_trials_leave_the_executor_behind_and_take_another(threads, space):
    trials = run(loss, space, 5, ExecutorTrials(threads, parallelism=2))
    copy = pickle.loads(pickle.dumps(trials))
    assert outcomes(copy) == outcomes(trials)
    with pytest.raises(ValueError, match=r"executor=None: set trials\.executor"):
        run(loss, space, 8, copy)
    copy.executor = threads
    assert copy.parallelism == 2
    assert states(run(loss, space, 8, copy, seed=1)) == [JOB_STATE_DONE] * 8


def test_trials_of_a_serial_run_go_on_in_parallel_and_back(threads, space):
    serial = run(failing_left_of_zero, space, 8, catch_eval_exceptions=True)
    trials = ExecutorTrials(threads, trials=serial)
    assert outcomes(trials) == outcomes(serial)
    run(failing_left_of_zero, space, 20, trials, seed=1, catch_eval_exceptions=True)
    assert [doc["tid"] for doc in trials._dynamic_trials] == list(range(len(trials._dynamic_trials)))
    assert len(trials._dynamic_trials) > len(serial._dynamic_trials)


def test_an_experiment_key_is_kept(threads, space):
    keyed = run(loss, space, 3, trials=Trials(exp_key="a"))
    trials = run(loss, space, 6, ExecutorTrials(threads, trials=keyed), seed=1)
    assert {doc["exp_key"] for doc in trials._dynamic_trials} == {"a"}
    assert len(trials) == 6


class Silent(ThreadPoolExecutor):
    _max_workers = None

    def __init__(self):
        pass


@pytest.mark.parametrize(
    ("executor", "parallelism", "message"),
    [
        (4, None, "executor=4: set trials.executor to one of concurrent.futures"),
        (Silent(), None, "parallelism=None: pass how many evaluations"),
        (Silent(), 0, "parallelism=0: pass how many evaluations"),
        (Silent(), 2.0, "parallelism=2.0: pass how many evaluations"),
        (Silent(), True, "parallelism=True: pass how many evaluations"),
    ],
)
def test_mistakes_are_named(space, executor, parallelism, message):
    with pytest.raises(ValueError, match=message):
        run(loss, space, 5, ExecutorTrials(executor, parallelism=parallelism))
