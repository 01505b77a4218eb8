"""Ctrl-C in fmin: what was cut short is issued again, and given up where it hangs."""

import contextlib
import logging
import pickle

import pytest
from conftest import loss, run
from hyperopt import Trials, hp

from hyperopt_hyperband import bohb, hyperband


@pytest.fixture
def space():
    return {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}


class Interrupted:
    """An objective during which the user presses Ctrl-C, wherever `hangs` says so."""

    def __init__(self, hangs):
        self.hangs, self.seen = hangs, []

    def __call__(self, params):
        self.seen.append((params["x"], params["epochs"]))
        if self.hangs(params):
            raise KeyboardInterrupt
        return loss(params)


def interrupted_at_will(objective, space, max_evals, again=25, trials=None, **options):
    """fmin is called again after each interruption, with the same seed as users do; how often that was."""
    trials = Trials() if trials is None else trials
    for interruptions in range(again):
        try:
            run(objective, space, max_evals, trials, **options)
        except KeyboardInterrupt:
            continue
        return trials, interruptions
    raise AssertionError("the run does not end")


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
def test_a_configuration_that_hangs_is_interrupted_twice_and_fails(space, algo, caplog):
    objective = Interrupted(lambda params: params["x"] > 3.5)
    with caplog.at_level(logging.WARNING, "hyperopt_hyperband"):
        trials, interruptions = interrupted_at_will(objective, space, 40, algo=algo)
    hanging = {x for x, _ in objective.seen if x > 3.5}
    assert interruptions == 2 * len(hanging) > 0
    assert all(objective.seen.count((x, 1)) in (0, 2) for x in hanging)
    given_up = [
        record.message
        for record in caplog.records
        if "was interrupted twice and has failed" in record.message
    ]
    assert len(given_up) == len(hanging)
    report = hyperband.report(trials)
    assert (report.failed, report.interrupted, report.pending) == (len(hanging), len(hanging), 0)


def test_twenty_five_interruptions_of_configurations_that_hang_leave_the_others_evaluated(space):
    objective = Interrupted(lambda params: params["x"] > 0)
    trials = Trials()
    for _ in range(25):
        with pytest.raises(KeyboardInterrupt):
            run(objective, space, 200, trials)
    report = hyperband.report(trials)
    assert report.failed >= 11
    assert report.evaluations - report.failed > 5
    assert max(objective.seen.count(each) for each in objective.seen) == 2


def test_a_promotion_that_hangs_is_given_up_and_does_not_come_back(space):
    objective = Interrupted(lambda params: params["epochs"] == 9)
    trials, interruptions = interrupted_at_will(objective, space, 30, again=60)
    rungs = hyperband.report(trials).rungs
    assert interruptions == 2 * sum(rung.failed for rung in rungs if rung.budget == 9) > 0
    assert all(rung.failed == rung.evaluations for rung in rungs if rung.budget == 9)
    assert all(rung.evaluations <= rung.planned for rung in rungs)


@pytest.mark.parametrize("queue", [1, 4])
def test_each_evaluation_that_is_interrupted_once_is_repeated_next_of_all(space, queue):
    once = set()

    def first_time(params):
        new = (params["x"], params["epochs"]) not in once
        once.add((params["x"], params["epochs"]))
        return new and len(once) % 3 == 0

    objective = Interrupted(first_time)
    trials, interruptions = interrupted_at_will(objective, space, 60, max_queue_len=queue)
    report = hyperband.report(trials)
    assert interruptions > 10
    assert (report.interrupted, report.failed, report.pending) == (interruptions, 0, 0)
    assert {x for x, _ in once} == {doc["misc"]["vals"]["x"][0] for doc in trials.trials}
    if queue == 1:
        cut_short = [i for i, each in enumerate(objective.seen[:-1]) if objective.seen.count(each) == 2]
        first = [i for i in cut_short if objective.seen.index(objective.seen[i]) == i]
        assert all(objective.seen[i + 1] == objective.seen[i] for i in first)


def test_an_interruption_is_remembered_by_trials_that_were_pickled(space):
    objective = Interrupted(lambda params: params["x"] > 3.5)
    trials = Trials()
    for _ in range(25):
        with contextlib.suppress(KeyboardInterrupt):
            run(objective, space, 40, trials)
        trials = pickle.loads(pickle.dumps(trials))
    assert hyperband.report(trials).pending == 0
    assert max(objective.seen.count(each) for each in objective.seen) == 2
