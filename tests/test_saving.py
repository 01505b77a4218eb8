import os
import pickle
import random
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
