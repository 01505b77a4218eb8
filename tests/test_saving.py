import os
import pickle
import random
import signal
import time
from functools import partial

import numpy as np
import pytest
from conftest import killed, loss, places, run
from hyperopt import STATUS_OK, Trials, fmin
from hyperopt.early_stop import no_progress_loss

from hyperopt_hyperband import hyperband

PLAN = hyperband.schedule(1, 9)
ITERATIONS = 3


def work(space, file, log, begun):
    """What a user's script does; every start of an evaluation goes into the log."""

    def objective(params):
        os.write(log, f"{params['x']} {params['epochs']}\n".encode())
        begun()
        time.sleep(0.004)
        return {"loss": loss(params), "status": STATUS_OK, "payload": b"x" * 20_000}

    trials = hyperband.load_trials(file)
    fmin(
        objective,
        space,
        algo=hyperband.suggest,
        max_evals=ITERATIONS * PLAN.evaluations,
        trials=trials,
        rstate=np.random.default_rng(),
        verbose=False,
        early_stop_fn=hyperband.save_trials(file),
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kill_9_at_random_moments_loses_nothing_but_what_is_in_flight(space, tmp_path):
    file, log = tmp_path / "trials", os.open(tmp_path / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    rng = random.Random(0)
    kills = 0
    sessions = []
    going = True
    while going:
        before = len((tmp_path / "log").read_text().splitlines())
        going = killed(partial(work, space, file, log), rng.randint(0, 4), delay=rng.uniform(0, 0.006))
        sessions.append((tmp_path / "log").read_text().splitlines()[before:])
        kills += going
    os.close(log)

    trials = hyperband.load_trials(file)
    assert kills > 20
    started = [line for session in sessions for line in session]
    assert len(trials) == ITERATIONS * PLAN.evaluations
    assert len(started) <= len(trials) + kills
    kept = {f"{doc['misc']['vals']['x'][0]} {doc['misc']['budget']}" for doc in trials.trials}
    for i, session in enumerate(sessions):
        earlier = {line for other in sessions[:i] for line in other}
        assert not earlier & set(session[1:]), "only what was in flight is evaluated again"
        assert set(session[:-1]) <= kept, "no finished evaluation is lost"
    planned = sorted(
        (iteration, bracket.s, i, rung.budget)
        for iteration in range(ITERATIONS)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    )
    assert sorted(places(trials)) == planned


class Kills:
    """Kills its process while it is pickled, in the middle of the file that is being written."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def saved_by_a_process_that_is_killed_inside_its_sixth_save(space, **options):
    child = os.fork()
    if child == 0:

        def objective(params):
            calls.append(params)
            last = [Kills()] if len(calls) == 6 else []
            return {"loss": loss(params), "status": STATUS_OK, "payload": [b"x" * 200_000, *last]}

        calls = []
        try:
            run(objective, space, 20, **options)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_inside_the_write_costs_the_last_evaluation_alone(space, tmp_path):
    file = tmp_path / "trials"
    saved_by_a_process_that_is_killed_inside_its_sixth_save(space, early_stop_fn=hyperband.save_trials(file))
    assert len(hyperband.load_trials(file)) == 5
    trials = hyperband.load_trials(file)
    run(loss, space, PLAN.evaluations, trials=trials, early_stop_fn=hyperband.save_trials(file))
    assert [rung.evaluations for rung in hyperband.report(trials).rungs] == [9, 3, 1, 5, 1, 3]
    assert os.listdir(tmp_path) == ["trials"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_hyperopt_s_own_file_does_not_survive_it_and_says_so_when_it_is_loaded(space, tmp_path):
    file = tmp_path / "trials"
    saved_by_a_process_that_is_killed_inside_its_sixth_save(space, trials_save_file=str(file))
    with pytest.raises(ValueError, match=r"path='.*trials' holds no trials, or not all of them: remove it"):
        hyperband.load_trials(file)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "trials").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(ValueError, match=r"path='.*trials' holds no trials"):
        hyperband.load_trials(tmp_path / "trials")


def test_where_no_file_can_be_is_said_before_the_run(tmp_path):
    for nowhere in (tmp_path / "none" / "trials", tmp_path):
        with pytest.raises(ValueError, match=r"path='.*': pass a file in a folder that exists"):
            hyperband.save_trials(nowhere)


def test_it_goes_with_another_early_stop_fn(space, tmp_path):
    stop = hyperband.save_trials(tmp_path / "trials", no_progress_loss(5))
    trials = run(loss, space, 500, early_stop_fn=stop)
    assert len(trials) < 100
    assert places(hyperband.load_trials(tmp_path / "trials")) == places(trials)


def test_failures_and_attachments_are_kept_and_ids_stay_unique(space, tmp_path):
    def objective(params):
        if params["x"] < 0:
            raise RuntimeError
        return {"loss": params["x"], "status": STATUS_OK, "attachments": {"model": b"weights"}}

    file = tmp_path / "trials"
    for max_evals in (8, 15):
        trials = hyperband.load_trials(file)
        run(
            objective,
            space,
            max_evals,
            trials=trials,
            catch_eval_exceptions=True,
            early_stop_fn=hyperband.save_trials(file),
            seed=max_evals,
        )
    loaded = hyperband.load_trials(file)
    tids = [doc["tid"] for doc in loaded._dynamic_trials]
    assert tids == list(range(len(tids)))
    assert len(tids) > len(loaded.trials) > 0
    assert loaded.trial_attachments(loaded.trials[-1])["model"] == b"weights"


def test_it_loads_what_fmin_saves_and_starts_anew_without_a_file(space, tmp_path):
    assert len(hyperband.load_trials(tmp_path / "none")) == 0
    trials = run(loss, space, 5, trials_save_file=str(tmp_path / "trials"))
    assert places(hyperband.load_trials(tmp_path / "trials")) == places(trials)


def test_the_file_is_a_plain_trials(space, tmp_path):
    run(loss, space, 3, early_stop_fn=hyperband.save_trials(tmp_path / "trials"))
    assert type(pickle.loads((tmp_path / "trials").read_bytes())) is Trials
