"""A real Dask cluster of several worker processes on loopback."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor

import pytest
from conftest import BRANCHES, loss, run, stops_in_a_branch
from hyperopt import rand
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_DONE, JOB_STATE_ERROR

from hyperopt_hyperband import ExecutorTrials, hyperband

distributed = pytest.importorskip("distributed", reason="needs the extra dask")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:max_evals=.* is too few"),  # runs are cut short on purpose
]

WORKERS = 3


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def states(trials):
    return Counter(doc["state"] for doc in trials._dynamic_trials)


def test_hyperband_runs_on_all_workers(client, space):
    def objective(params):
        return {"loss": loss(params), "status": "ok", "pid": os.getpid()}

    trials = run(objective, space, 44, ExecutorTrials(client.get_executor(), parallelism=WORKERS))
    assert states(trials) == {JOB_STATE_DONE: 44}
    assert len({result["pid"] for result in trials.results}) > 1
    assert hyperband.incumbent(trials)["misc"]["budget"] == 9


def test_a_budget_for_each_branch_and_final_results(client):
    executor = client.get_executor()
    trials = run(stops_in_a_branch, BRANCHES, 60, ExecutorTrials(executor, parallelism=WORKERS))
    calls = [result["params"] for result in trials.results]
    assert len(set(calls)) == len(calls) == 60
    known = [r["loss"] for r in hyperband.records(trials) if r["final"] or r["share"] == 1]
    assert trials.best_trial["result"]["loss"] == min(known)


def test_the_run_completes_though_workers_are_killed(client, space, tmp_path):
    def objective(expr, memo, ctrl):
        tid = ctrl.current_trial["tid"]
        (tmp_path / f"{tid}.{os.getpid()}").touch()
        if tid in (10, 20) and len(list(tmp_path.glob(f"{tid}.*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ctrl.attachments["weights"] = tid
        return tid

    trials = ExecutorTrials(client.get_executor(), parallelism=WORKERS)
    run(objective, space, 44, trials, pass_expr_memo_ctrl=True)
    assert trials.losses() == list(range(44))
    assert all(trials.trial_attachments(doc)["weights"] == doc["tid"] for doc in trials.trials)
    killed = {path.name for path in tmp_path.iterdir() if path.name.startswith(("10.", "20."))}
    assert len(killed) == 4, "both evaluations ran again on another worker"


def test_a_worker_killed_from_outside_in_mid_run(client, space):
    pids = list(client.run(os.getpid).values())
    seen = []

    def kill_one(trials, *args):
        seen.append(len(trials.trials))
        if len(seen) == 15:
            os.kill(pids[0], signal.SIGKILL)
        return False, args

    trials = ExecutorTrials(client.get_executor(), parallelism=WORKERS)
    run(loss, space, 60, trials, early_stop_fn=kill_one)
    assert states(trials) == {JOB_STATE_DONE: 60}


def test_an_evaluation_that_kills_its_workers_has_failed(client, space):
    def objective(expr, memo, ctrl):
        if ctrl.current_trial["tid"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    trials = ExecutorTrials(client.get_executor(), parallelism=WORKERS)
    run(objective, space, 10, trials, pass_expr_memo_ctrl=True, catch_eval_exceptions=True)
    assert states(trials) == {JOB_STATE_DONE: 9, JOB_STATE_ERROR: 1}
    assert "KilledWorker" in trials._dynamic_trials[5]["misc"]["error"][0]


def test_exceptions_arrive_as_they_are(client, space):
    def objective(params):
        raise LookupError("diverged")

    trials = ExecutorTrials(client.get_executor(), parallelism=WORKERS)
    with pytest.raises(LookupError, match="diverged"):
        run(objective, space, 5, trials)
    assert JOB_STATE_ERROR in states(trials)


def test_a_timeout_cancels_and_the_run_goes_on(client, space, tmp_path):
    def objective(params):
        while params["x"] > 0 and not (tmp_path / "go").exists():
            time.sleep(0.01)
        return loss(params)

    executor = client.get_executor()
    trials = ExecutorTrials(executor, parallelism=WORKERS)
    run(objective, space, 1000, trials, algo=rand.suggest, timeout=2)
    assert states(trials)[JOB_STATE_CANCEL] == WORKERS
    (tmp_path / "go").touch()
    before = len(trials._dynamic_trials)
    run(objective, space, before + 5, trials, algo=rand.suggest, seed=1)
    assert states(trials) == {JOB_STATE_DONE: before + 5}


def test_an_objective_that_cannot_be_pickled_is_named(client, space):
    lock = threading.Lock()
    trials = ExecutorTrials(client.get_executor(), parallelism=WORKERS)
    with pytest.raises(ValueError, match=r"can't be pickled .*lock"):
        run(lambda params: lock and 0, space, 5, trials)


def test_a_client_in_place_of_its_executor_is_named(client, space):
    with pytest.raises(ValueError, match=r"client\.get_executor\(\)"):
        run(loss, space, 5, ExecutorTrials(client))
    with pytest.raises(ValueError, match="parallelism=None"):
        run(loss, space, 5, ExecutorTrials(client.get_executor()))


def test_a_closed_cluster_leaves_trials_to_go_on_with(space):
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    client = distributed.Client(cluster, set_as_default=False)
    trials = ExecutorTrials(client.get_executor(), parallelism=2)

    def close(finished, *args):
        if len(finished.trials) == 5:
            client.close(timeout=1)
        return False, args

    with pytest.raises(BrokenExecutor, match=r"set trials\.executor"):
        run(loss, space, 20, trials, early_stop_fn=close)
    cluster.close()
    assert states(trials)[JOB_STATE_DONE] >= 5
    assert set(states(trials)) <= {JOB_STATE_DONE, JOB_STATE_CANCEL}
