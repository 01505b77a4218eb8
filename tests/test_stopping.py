import datetime
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module

import pytest
from conftest import BRANCHES, loss, places, run, stops_in_a_branch
from hyperopt import STATUS_FAIL, Trials, hp, rand, tpe
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_DONE, trials_from_docs
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.fmin import generate_trials_to_calculate
from simulator import Simulation

from hyperopt_hyperband import ExecutorTrials, _lifecycle, _stopping, bohb, hyperband
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
def test_no_progress_stops_after_whole_iterations_without_a_better_incumbent(space, best, iterations):
    stop = hyperband.no_progress(iterations=iterations)
    # The loss at first is 0 throughout, so that with best > iterations the run ends before it gets better.
    trials = run(best_in(best), space, 500, early_stop_fn=stop)
    assert len(trials) == (1 + iterations + (best if best <= iterations else 0)) * ITERATION


def test_no_progress_goes_on_while_each_iteration_is_better(space):
    calls = []
    falling = lambda params: calls.append(params) or -len(calls)  # noqa: E731
    assert len(run(falling, space, 5 * ITERATION, early_stop_fn=hyperband.no_progress())) == 5 * ITERATION


def test_hyperopt_s_own_stops_within_the_first_brackets(space):
    at_full_budget_only = lambda params: -params["epochs"] if params["epochs"] == 9 else 0  # noqa: E731
    assert len(run(at_full_budget_only, space, 500, early_stop_fn=no_progress_loss(9))) < 13
    assert len(run(at_full_budget_only, space, 500, early_stop_fn=hyperband.no_progress())) == 2 * ITERATION


def test_no_progress_stops_where_everything_fails(space):
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


@pytest.mark.filterwarnings("ignore:max_evals=.* is too few")
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


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
@pytest.mark.parametrize("iterations", [1, 2])
def test_stop_after_ends_exactly_where_the_iterations_do(space, iterations, algo):
    trials = run(loss, space, None, algo=algo, early_stop_fn=hyperband.stop_after(iterations=iterations))
    plan = hyperband.schedule(space)
    brackets = list(dict.fromkeys(place[:2] for place in places(trials)))
    assert len(trials) == sum(plan.bracket(s).evaluations for _, s in brackets)
    assert len(brackets) == iterations * len(plan.brackets)


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
def test_stop_after_a_total_budget_ends_with_the_evaluation_that_reaches_it(space, algo):
    def session(total, trials=None):
        stop = hyperband.stop_after(total_budget=total)
        return run(loss, space, None, algo=algo, early_stop_fn=stop, trials=trials)

    trials = session(150)
    budgets = [doc["misc"]["budget"] for doc in trials.trials]
    assert sum(budgets) >= 150 > sum(budgets[:-1])
    assert hyperband.report(session(200, trials)).total_budget == sum(
        doc["misc"]["budget"] for doc in trials.trials
    )
    assert 200 <= hyperband.report(trials).total_budget < 200 + 9


def test_a_total_budget_is_that_of_the_run_alone(space):
    trials = run(loss, space, 10, algo=rand.suggest)  # at max_budget
    run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(total_budget=95))
    assert hyperband.report(trials).foreign == 10
    assert 95 <= hyperband.report(trials).total_budget < 95 + 9


def test_a_total_budget_of_shares_is_in_multiples_of_the_full_one():
    trials = run(
        stops_in_a_branch,
        BRANCHES,
        None,
        early_stop_fn=hyperband.stop_after(total_budget=2.5),
        max_queue_len=1,
    )
    spent = [doc["misc"]["hyperband"]["share"] for doc in trials.trials]
    assert sum(spent[:-1]) < 2.5 * (1 - 1e-9) <= sum(spent)


def test_no_progress_counts_as_many_brackets_as_an_iteration_has(space):
    def flat(params):
        return 0.0

    trials = run(flat, space, None, algo=bohb.suggest, early_stop_fn=hyperband.no_progress())
    assert len({place[:2] for place in places(trials)}) == 2 * 3


@pytest.mark.parametrize("max_queue_len", [2, 3, 5, 40])
def test_what_fmin_asks_for_at_once_is_evaluated_too(space, max_queue_len):
    stop = hyperband.stop_after(iterations=1)
    trials = run(loss, space, None, early_stop_fn=stop, max_queue_len=max_queue_len)
    assert completed_iterations(trials) >= 1
    assert completed_iterations(trials_from_docs(trials.trials[:-max_queue_len])) == 0


def test_one_worker_of_an_executor_ends_exactly_too(space):
    with ThreadPoolExecutor(1) as executor:
        trials = ExecutorTrials(executor)
        run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(iterations=2))
    assert len(trials) == 2 * ITERATION


def test_many_workers_finish_the_iteration_and_go_on_with_what_they_had_begun(space):
    stop = hyperband.stop_after(iterations=1)
    with ThreadPoolExecutor(4) as executor:
        trials = run(loss, space, None, trials=ExecutorTrials(executor), early_stop_fn=stop)
        begun = len(trials._dynamic_trials)
        assert completed_iterations(trials) >= 1
        assert begun >= ITERATION
        assert sorted(places(trials)[:begun])[:ITERATION] == sorted(p for p in places(trials) if p[0] == 0)
        run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(iterations=2))
    assert completed_iterations(trials) >= 2
    assert sum(place[0] < 2 for place in places(trials)) == 2 * ITERATION


def test_while_one_evaluation_takes_long_other_iterations_become_complete(space):
    calls, enough = [], threading.Event()

    def objective(params):
        calls.append(params)
        if len(calls) == 1:
            assert enough.wait(60)
        elif len(calls) == 3 * ITERATION:
            enough.set()
        return loss(params)

    stop = hyperband.stop_after(iterations=1)
    with ThreadPoolExecutor(4) as executor:
        trials = run(objective, space, None, trials=ExecutorTrials(executor), early_stop_fn=stop)
    assert completed_iterations(trials) >= 2
    assert sum(place[0] == 0 for place in places(trials)) == ITERATION


@pytest.mark.parametrize("failing", [lambda p: p["epochs"] == 1, lambda p: p["x"] < 2, lambda p: True])
@pytest.mark.parametrize("worker", ["Hyperopt's", "an executor's"])
def test_an_iteration_of_failures_ends_where_nothing_is_left_to_do(space, failing, worker):
    def objective(params):
        if failing(params):
            raise RuntimeError
        return loss(params)

    with ThreadPoolExecutor(1) as executor:
        trials = Trials() if worker == "Hyperopt's" else ExecutorTrials(executor)
        stop = hyperband.stop_after(iterations=1)
        try:
            run(objective, space, None, trials=trials, early_stop_fn=stop, catch_eval_exceptions=True)
        except AllTrialsFailed:
            assert failing({"x": 9, "epochs": 9})
    assert completed_iterations(trials) == 1
    assert {place[0] for place in places(trials)} == {0}


@pytest.mark.filterwarnings("ignore:the space has")
@pytest.mark.parametrize(("points", "more"), [(1, 1), (2, 1), (3, 0), (4, 0), (8, 0)])
def test_in_a_small_space_the_iteration_ends_too(points, more):
    space = {"x": hp.randint("x", points), "epochs": hyperband.budget("epochs", 1, 9)}
    trials = run(loss, space, None, early_stop_fn=hyperband.stop_after(iterations=1))
    assert completed_iterations(trials) == 1
    assert sum(place[0] == 1 for place in places(trials)) == more


@pytest.mark.parametrize("cut", [1, ITERATION - 1])
def test_iterations_count_those_of_earlier_calls(space, cut):
    trials = run(loss, space, cut)
    run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(iterations=1), seed=1)
    assert len(trials) == ITERATION
    run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(iterations=1), seed=2)
    assert len(trials) == ITERATION + 1
    run(loss, space, None, trials=trials, early_stop_fn=hyperband.stop_after(iterations=2), seed=3)
    assert len(trials) == 2 * ITERATION


def test_points_and_max_evals_and_a_file_go_with_it(space, tmp_path):
    trials = generate_trials_to_calculate([{"x": 1.0, "branch": 1, "epochs": 9}])
    save = hyperband.save_trials(tmp_path / "trials", hyperband.stop_after(iterations=1))
    run(loss, space, None, trials=trials, early_stop_fn=save)
    assert len(trials) == 1 + ITERATION == len(hyperband.load_trials(tmp_path / "trials"))
    assert len(run(loss, space, 7, early_stop_fn=hyperband.stop_after(iterations=1))) == 7


def test_stop_after_stops_for_another_reason_too(space):
    def stop(iterations):
        return hyperband.stop_after(iterations=iterations, early_stop_fn=hyperband.no_progress(iterations=2))

    assert len(run(best_in(0), space, None, early_stop_fn=stop(9))) == 3 * ITERATION
    assert len(run(best_in(0), space, None, early_stop_fn=stop(2))) == 2 * ITERATION


class Clock:
    """Simulated time, which fmin, its documents and stop_after read."""

    def __init__(self, monkeypatch):
        self.seconds = 0
        monkeypatch.setattr(import_module("hyperopt.fmin"), "coarse_utcnow", self.now)
        monkeypatch.setattr(_lifecycle, "coarse_utcnow", self.now)
        monkeypatch.setattr(_stopping.time, "monotonic", lambda: self.seconds)

    def now(self):
        return datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=self.seconds)

    def takes(self, seconds_of):
        def objective(params):
            self.seconds += seconds_of(params["epochs"])
            return params["x"] ** 2

        return objective


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


BUDGETS = [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] + [9] * 3
"""Of the evaluations of an iteration, one at a time."""


@pytest.mark.parametrize(
    "limit", [0.5, 1, 8, 9, 9.5, 11, 12, 17, 18, 26, 27, 29, 30, 31, 70, 77, 78, 79, 100]
)
def test_no_evaluation_begins_that_can_t_end_in_time(space, clock, limit):
    trials = run(
        clock.takes(lambda epochs: epochs), space, None, early_stop_fn=hyperband.stop_after(seconds=limit)
    )
    assert [budget for *_, budget in places(trials)] == list(
        itertools.islice(itertools.cycle(BUDGETS), len(trials))
    )
    following = [*BUDGETS, *BUDGETS][len(trials)]
    assert clock.seconds <= limit or len(trials) == 1
    assert clock.seconds + following > limit


def test_the_times_of_its_own_budget_count_before_those_of_others(space, clock):
    # 10 s at any budget: 30 s are foreseen where budget 3 is new, and 10 s where it is not.
    constant = clock.takes(lambda epochs: 10)
    assert len(run(constant, space, None, early_stop_fn=hyperband.stop_after(seconds=119))) == 9
    clock.seconds = 0
    assert len(run(constant, space, None, early_stop_fn=hyperband.stop_after(seconds=120))) == 12
    clock.seconds = 0
    assert len(run(constant, space, None, early_stop_fn=hyperband.stop_after(seconds=150))) == 15
    clock.seconds = 0
    trials = run(constant, space, ITERATION)
    clock.seconds = 0
    run(constant, space, None, trials=trials, early_stop_fn=hyperband.stop_after(seconds=119), seed=1)
    assert len(trials) == ITERATION + 11


def test_a_few_long_or_failed_evaluations_do_not_stop_it(space, clock):
    calls = itertools.count()

    def objective(params):
        number = next(calls)
        clock.seconds += 20 if number == 6 else 0 if number in (1, 2, 3) else 1
        return {"status": STATUS_FAIL} if number in (1, 2, 3) else params["x"]

    trials = run(objective, space, None, early_stop_fn=hyperband.stop_after(seconds=26))
    assert len(trials) == 9, "3 s are foreseen for budget 3, when 25 have passed"


def test_the_clock_starts_where_stop_after_is_called(space, clock):
    stop = hyperband.stop_after(seconds=10)
    clock.seconds = 6
    assert len(run(clock.takes(lambda epochs: epochs), space, None, early_stop_fn=stop)) == 4
    run(clock.takes(lambda epochs: epochs), space, None, early_stop_fn=hyperband.stop_after(seconds=5))
    assert clock.seconds == 15


def test_where_a_model_is_to_choose_the_next_bracket_the_evaluation_may_be_at_max_budget(space, clock):
    objective = clock.takes(lambda epochs: epochs)
    trials = run(objective, space, ITERATION, algo=bohb.suggest)
    clock.seconds = 0
    stop = hyperband.stop_after(seconds=9 + 8.5)
    run(objective, space, None, algo=bohb.suggest, trials=trials, early_stop_fn=stop)
    assert (len(trials), clock.seconds) == (ITERATION + 1, 9)  # 8.5 s are left, and 9 may be needed


def test_seconds_and_iterations_go_together(space, clock):
    for seconds, evaluations in ((9, 9), (200, ITERATION)):
        clock.seconds = 0
        stop = hyperband.stop_after(iterations=1, seconds=seconds)
        assert len(run(clock.takes(lambda epochs: epochs), space, None, early_stop_fn=stop)) == evaluations


@pytest.mark.parametrize("algo", [rand.suggest, tpe.suggest])
def test_seconds_hold_under_other_algorithms_too(space, clock, algo):
    objective = clock.takes(lambda epochs: epochs)
    stop = hyperband.stop_after(seconds=40)
    trials = run(objective, space, None, algo=algo, early_stop_fn=stop)
    assert (len(trials), clock.seconds) == (4, 36)
    clock.seconds = 0
    run(objective, space, 30, trials=trials)
    clock.seconds = 0
    run(objective, space, None, trials=trials, algo=algo, early_stop_fn=hyperband.stop_after(seconds=40))
    assert (len(trials), clock.seconds) == (34, 36)


@pytest.mark.filterwarnings("ignore:fmin has ended before")
def test_what_an_executor_begins_again_is_foreseen(space, clock):
    objective = clock.takes(lambda epochs: epochs)
    trials = run(objective, space, 13)
    for doc in trials.trials[11:]:  # budgets 3 and 9; what else could begin has 3
        doc.update(state=JOB_STATE_CANCEL, result={"status": "new"})
    clock.seconds = 0
    with ThreadPoolExecutor(1) as executor:
        trials = ExecutorTrials(executor, trials=trials)
        run(objective, space, None, trials=trials, early_stop_fn=hyperband.stop_after(seconds=11))
        assert clock.seconds == 3
        run(objective, space, None, trials=trials, early_stop_fn=hyperband.stop_after(seconds=9))
    assert (len(trials), clock.seconds) == (13, 12)


def test_step_and_label_of_a_space_are_foreseen(clock):
    space = {"x": hp.uniform("x", 0, 1), "epochs": hp.quniform("epochs", 5, 100, 5)}
    algo = partial(hyperband.suggest, budget="epochs")
    plan = hyperband.schedule(space, budget="epochs")
    stop = hyperband.stop_after(seconds=plan.total_budget)
    trials = run(clock.takes(lambda epochs: epochs), space, None, algo=algo, early_stop_fn=stop)
    assert (len(trials), clock.seconds) == (plan.evaluations, plan.total_budget)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
def test_iterations_to_stop_after_are_whole_and_positive(wrong):
    with pytest.raises(ValueError, match=f"iterations={wrong!r}: pass a whole number, 1 or more"):
        hyperband.stop_after(iterations=wrong)


@pytest.mark.parametrize("wrong", [0, -1, True, "1", float("nan"), float("inf")])
def test_seconds_to_stop_after_are_positive(wrong):
    with pytest.raises(ValueError, match=f"seconds={wrong!r}: pass a positive, finite number"):
        hyperband.stop_after(seconds=wrong)


def test_stop_after_without_an_end_is_refused():
    with pytest.raises(ValueError, match="needs an end: pass iterations=1 or more, total_budget or seconds"):
        hyperband.stop_after()
