from functools import partial

import pytest
from conftest import loss, run
from hyperopt import STATUS_FAIL, Trials, tpe
from hyperopt.base import JOB_STATE_DONE
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import AllTrialsFailed
from simulator import Simulation

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._history import completed_iterations

ITERATION = hyperband.schedule(1, 9).evaluations


def best_in(iteration):
    """An objective whose best full-budget loss is found in the given Hyperband iteration, early in it."""
    calls = []

    def objective(params):
        calls.append(params)
        return -1 if (len(calls) - 1) // ITERATION >= iteration else 0

    return objective


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("best", [0, 1, 2])
def test_it_stops_after_whole_iterations_without_a_better_incumbent(space, best, iterations):
    stop = hyperband.no_progress(iterations=iterations)
    # The loss at first is 0 throughout, so that with best > iterations the run ends before it gets better.
    trials = run(best_in(best), space, 500, early_stop_fn=stop)
    assert len(trials) == (1 + iterations + (best if best <= iterations else 0)) * ITERATION


def test_it_goes_on_while_each_iteration_is_better(space):
    calls = []
    falling = lambda params: calls.append(params) or -len(calls)  # noqa: E731
    assert len(run(falling, space, 5 * ITERATION, early_stop_fn=hyperband.no_progress())) == 5 * ITERATION


def test_hyperopt_s_own_stops_within_the_first_brackets(space):
    at_full_budget_only = lambda params: -params["epochs"] if params["epochs"] == 9 else 0  # noqa: E731
    assert len(run(at_full_budget_only, space, 500, early_stop_fn=no_progress_loss(9))) < 13
    assert len(run(at_full_budget_only, space, 500, early_stop_fn=hyperband.no_progress())) == 2 * ITERATION


def test_it_stops_where_everything_fails(space):
    trials = Trials()
    with pytest.raises(AllTrialsFailed):
        run(
            lambda _: {"status": STATUS_FAIL},
            space,
            500,
            trials=trials,
            early_stop_fn=hyperband.no_progress(),
        )
    assert len(trials) == 9 + 5 + 3  # rung 0 of the three brackets


@pytest.mark.parametrize("cut", [1, ITERATION - 1, ITERATION, ITERATION + 1, 2 * ITERATION - 1])
def test_a_run_that_was_cut_stops_where_the_whole_one_does(space, cut, tmp_path):
    objective = best_in(0)
    for max_evals in (cut, 500):
        stop = hyperband.save_trials(tmp_path / "trials", hyperband.no_progress())
        trials = hyperband.load_trials(tmp_path / "trials")
        run(objective, space, max_evals, trials=trials, early_stop_fn=stop, seed=max_evals)
    assert len(trials) == 2 * ITERATION


def test_an_incumbent_from_before_the_run_has_to_be_beaten_in_its_first_iteration(space):
    trials = run(lambda _: -1, space, 5, algo=tpe.suggest)
    run(loss, space, 500, trials=trials, early_stop_fn=hyperband.no_progress())
    assert len(trials) == 5 + ITERATION


def test_without_hyperband_it_never_stops(space):
    assert len(run(lambda _: 0, space, 60, algo=tpe.suggest, early_stop_fn=hyperband.no_progress())) == 60


def test_trials_of_other_options_are_no_iterations_of_this_run(space):
    objective = hyperband.with_budget(lambda params, budget: 1 / budget)
    space = {"x": space["x"]}
    trials = run(objective, space, 200, algo=partial(hyperband.suggest, max_budget=9))
    with pytest.warns(UserWarning, match="come from a Hyperband run with other"):
        run(
            objective,
            space,
            500,
            trials=trials,
            algo=partial(hyperband.suggest, max_budget=3),
            early_stop_fn=hyperband.no_progress(),
        )
    assert len(trials) == 200 + hyperband.schedule(1, 3).evaluations


@pytest.mark.parametrize("workers", [1, 7])
def test_completed_iterations_are_those_with_nothing_left_to_do(workers):
    simulation = Simulation(workers=workers, ids=3, iterations=3)
    seen = set()
    while simulation.step():
        finished = [0, 0, 0]
        for doc in simulation.in_state(JOB_STATE_DONE):
            finished[doc["misc"]["hyperband"]["iteration"]] += 1
        whole = [number == ITERATION for number in finished]
        assert completed_iterations(simulation.trials) == [*whole, False].index(False)
        seen.add(sum(whole))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None])
def test_iterations_are_whole_and_positive(wrong):
    with pytest.raises(ValueError, match=f"iterations={wrong}: pass a whole number, 1 or more"):
        hyperband.no_progress(iterations=wrong)
