"""Evaluations that the user runs: asked for, evaluated anywhere and in any order, told."""

import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from conftest import loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, rand, tpe
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_RUNNING, Domain

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
from hyperopt_hyperband import Trials as OwnTrials

PLAN = hyperband.schedule(1, 9)


def ask(space, trials, algo=hyperband.suggest, seed=None):
    return hyperband.ask(trials, space, algo=algo, seed=seed)


def x_of(document):
    return document["misc"]["vals"]["x"][0]


def test_documents_that_the_user_marks_as_running_are_at_work(space):
    trials, domain = Trials(), Domain(loss, space)
    for seed in range(5):
        trials.insert_trial_docs(hyperband.suggest(trials.new_trial_ids(1), domain, trials, seed))
        trials.refresh()
        trials._dynamic_trials[-1]["state"] = JOB_STATE_RUNNING
    assert len(set(map(x_of, trials._dynamic_trials))) == 5
    assert hyperband.report(trials).pending == 5


@pytest.mark.parametrize("workers", [1, 4, 30])
def test_an_asked_run_is_the_planned_one_in_whatever_order_its_results_are_told(space, workers):
    trials, rng, pending = Trials(), random.Random(workers), []
    while (unfinished := sum(place[0] == 0 for place in places(trials)) < PLAN.evaluations) or pending:
        if len(pending) < workers and unfinished:
            pending.append(ask(space, trials, seed=len(trials._dynamic_trials)))
        else:
            document = pending.pop(rng.randrange(len(pending)))
            result = loss(hyperband.parameters(space, document))
            hyperband.tell(
                trials, document, result if rng.random() < 0.5 else {"status": "ok", "loss": result}
            )
    first = sorted(place[1:] for place in places(trials) if place[0] == 0)
    planned = [
        (bracket.s, i, rung.budget)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    ]
    assert first == sorted(planned)
    report = hyperband.report(trials, space=space)
    assert (report.pending, report.interrupted, report.failed) == (0, 0, 0)
    budgeted = hyperband.incumbent(trials)
    assert budgeted["misc"]["budget"] == 9
    assert budgeted["result"]["loss"] == loss(hyperband.parameters(space, budgeted))


@pytest.mark.parametrize(
    "algo", [bohb.suggest, tpe.suggest, rand.suggest, partial(hyperband.suggest, sampler=tpe.suggest)]
)
def test_any_algorithm_can_be_asked(space, algo):
    trials = Trials()
    for seed in range(40):
        document = ask(space, trials, algo, seed)
        hyperband.tell(trials, document, loss(hyperband.parameters(space, document)))
    assert len(trials.losses()) == 40
    assert len(set(map(x_of, trials.trials))) > 20


def test_what_was_asked_is_told_through_a_copy_of_any_make_and_after_the_trials_were_saved(space):
    trials = Trials()
    asked = [ask(space, trials, seed=seed) for seed in range(6)]
    copies = [json.loads(json.dumps(document, default=str)) for document in asked]
    trials = pickle.loads(pickle.dumps(trials))
    later = ask(space, trials, seed=6)
    assert x_of(later) not in set(map(x_of, asked)), "nothing is issued again"
    for copy in reversed(copies):
        hyperband.tell(trials, copy, loss(hyperband.parameters(space, copy)))
    report = hyperband.report(trials)
    assert (report.evaluations, report.pending, report.interrupted) == (6, 1, 0)
    assert [trial["result"]["loss"] for trial in trials.trials[:6]] == [
        loss(hyperband.parameters(space, document)) for document in asked
    ]


@pytest.mark.parametrize("failure", [RuntimeError("diverged"), {"status": STATUS_FAIL}, float("nan")])
def test_a_failure_is_told_too_and_never_promoted(space, failure):
    trials = Trials()
    asked = [ask(space, trials, seed=seed) for seed in range(9)]
    for document in asked[:7]:
        hyperband.tell(trials, document, failure)
    for document in asked[7:]:
        hyperband.tell(trials, document, loss(hyperband.parameters(space, document)))
    assert hyperband.report(trials).failed == 7
    promoted = [ask(space, trials) for _ in range(2)]
    stamps = [document["misc"]["hyperband"] for document in promoted]
    assert {stamp["config"] for stamp in stamps} == {7, 8}
    assert {stamp["rung"] for stamp in stamps} == {1}


def test_an_exception_is_kept_as_fmin_keeps_it(space):
    trials = Trials()
    hyperband.tell(trials, ask(space, trials), RuntimeError("diverged"))
    [document] = trials._dynamic_trials
    assert document["misc"]["error"] == (str(RuntimeError), "diverged")
    assert trials.trials == []


def test_attachments_are_told_and_kept(space):
    trials = Trials()
    document = ask(space, trials)
    hyperband.tell(trials, document, {"status": STATUS_OK, "loss": 1.0, "attachments": {"model": b"weights"}})
    assert trials.trial_attachments(trials.trials[0])["model"] == b"weights"
    assert "attachments" not in trials.trials[0]["result"]


@pytest.mark.parametrize("result", [None, "0.3", {"loss": 1.0}, {"status": "fine", "loss": 1.0}, [1.0]])
def test_a_result_of_no_known_form_is_refused_and_can_be_told_again(space, result):
    trials = Trials()
    document = ask(space, trials)
    with pytest.raises(ValueError, match=r"result=.*pass a loss, an exception, or a dict"):
        hyperband.tell(trials, document, result)
    hyperband.tell(trials, document, 1.0)
    assert trials.losses() == [1.0]


def test_a_result_is_told_once_and_to_the_trials_that_were_asked(space):
    trials = Trials()
    document = ask(space, trials)
    with pytest.raises(ValueError, match="trial 0 is not among these trials"):
        hyperband.tell(Trials(), document, 1.0)
    hyperband.tell(trials, document, 1.0)
    with pytest.raises(ValueError, match="trial 0 has its result already: tell each once"):
        hyperband.tell(trials, document, 2.0)
    assert trials.losses() == [1.0]


def test_fmin_goes_on_from_what_was_asked(space):
    trials = Trials()
    asked = [ask(space, trials, seed=seed) for seed in range(9)]
    for document in asked[:8]:
        hyperband.tell(trials, document, loss(hyperband.parameters(space, document)))
    run(loss, space, 17, trials)
    report = hyperband.report(trials)
    assert (report.evaluations, report.pending, report.interrupted) == (16, 1, 0)
    hyperband.tell(trials, asked[8], 0.0)
    run(loss, space, 19, trials)
    assert any(doc["misc"]["hyperband"]["config"] == 8 for doc in trials.trials[-2:]), "it goes up"


def test_points_are_asked_for_first_each_once(space):
    points = [{"x": 1.0, "branch": {"kind": "b"}}, {"x": 2.0, "branch": {"kind": "a", "y": 0.5}, "epochs": 3}]
    trials = OwnTrials(points_to_evaluate=points)
    asked = [ask(space, trials, seed=i) for i in range(4)]
    assert [doc["misc"]["vals"]["epochs"] for doc in asked] == [[9], [3], [1], [1]]
    assert [hyperband.parameters(space, doc)["x"] for doc in asked[:2]] == [1.0, 2.0]
    for doc in asked:
        hyperband.tell(trials, doc, loss(hyperband.parameters(space, doc)))
    run(loss, space, 24, trials=trials)
    assert sum("hyperband" not in doc["misc"] for doc in trials.trials) == 2


@pytest.mark.filterwarnings("ignore:fmin has ended before a result")
def test_what_an_executor_has_cut_short_is_asked_for_first(space):
    with ThreadPoolExecutor(3) as executor:
        trials = ExecutorTrials(executor)
        run(loss, space, 22, trials=trials, early_stop_fn=lambda trials, *_: (len(trials) == 3, []))
    cut = [doc["tid"] for doc in trials._dynamic_trials if doc["state"] != JOB_STATE_DONE]
    assert cut
    asked = [ask(space, trials) for _ in range(len(cut) + 1)]
    assert [doc["tid"] for doc in asked][:-1] == cut
    assert asked[-1]["tid"] not in cut
