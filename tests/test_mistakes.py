"""A user's mistakes: each gets an error that names option, value and remedy, and costs nothing."""

import math
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
from conftest import places, run
from hyperopt import Trials, hp, tpe
from hyperopt.exceptions import AllTrialsFailed, DuplicateLabel

from hyperopt_hyperband import bohb, hyperband

SPACE = {"x": hp.uniform("x", -5, 5), "kind": hp.choice("kind", ["a", "b"])}
PLAN = hyperband.schedule(1, 9)
NUMBER = "pass a positive, finite number, from 1e-18 to 1e[+]18"
objective = hyperband.with_budget(lambda params, budget=9: params["x"] ** 2 + 1 / budget)
suggest = partial(hyperband.suggest, max_budget=9)

MISTAKES = [
    *[
        ({name: wrong}, f"{name}=.*: {NUMBER}")
        for name in ("min_budget", "max_budget", "eta")
        for wrong in (True, "9", math.nan, math.inf, 0, -1, [1], {}, np.array([1]), 1j, 10**400, 1e-320)
    ],
    ({"eta": None}, f"eta=None: {NUMBER}"),
    ({"eta": 1}, r"eta=1: a rung keeps 1/eta of its configurations; pass 2 or more \(default 3\)"),
    ({"eta": 1.9}, "eta=1.9: .* pass 2 or more"),
    ({"min_budget": 10}, "min_budget=10 is above max_budget=9: pass 9 or less"),
    ({"min_budget": 1e-5, "eta": 2}, r"max_budget=9, eta=2 plan \d+ .*: raise min_budget or eta"),
    (
        {"max_budget": 27},
        "max_budget=27 contradicts the objective's default budget=9: .* make the two the same",
    ),
    ({"budget": "epochs"}, r"budget='epochs' is not in the space: pass one of \['kind', 'x'\]"),
    ({"budget": "kind"}, "budget='kind' is a choice: pass the label of a numeric hyperparameter"),
    ({"budget": "x"}, "budget='x' goes from -5 to 5 in the space: .* other bounds, or use hyperband.budget"),
    ({"budget": ["x"]}, r"budget=\['x'\]: pass the label of a hyperparameter, a str"),
    ({"budget": hp.uniform("x", 1, 9)}, "(?s)budget=.*: pass the label of a hyperparameter, a str"),
    *[
        ({"random_share": wrong}, "random_share=.*: pass a number from 0 to 1")
        for wrong in (-0.1, 1.1, math.nan, "0.5", None, [0.5], 1j)
    ],
    ({"sampler": "tpe"}, "sampler='tpe': pass an algorithm of Hyperopt, such as tpe.suggest"),
    ({"sampler": tpe}, "sampler=<module .*: pass an algorithm of Hyperopt, such as tpe.suggest"),
    (
        {"sampler": lambda *_: [{"misc": {"vals": {"y": [1]}}}], "random_share": 0},
        r"sampler=.* for one new id: return a list of one document, as rand.suggest does",
    ),
]


@pytest.fixture
def trials():
    return run(objective, SPACE, 8, algo=suggest)  # the next one is drawn


@pytest.mark.parametrize(("options", "message"), MISTAKES)
@pytest.mark.filterwarnings("ignore:8 trials come from a Hyperband run with other")
def test_a_wrong_option_is_refused_and_the_run_goes_on_without_it(trials, options, message):
    before = pickle.dumps(trials.trials)
    with pytest.raises(ValueError, match=message):
        run(objective, SPACE, 20, trials=trials, algo=partial(suggest, **options))
    assert pickle.dumps(trials.trials) == before
    run(objective, SPACE, PLAN.evaluations, trials=trials, algo=suggest)
    done = sorted((s, i, budget) for _, s, i, budget in places(trials))
    assert done == sorted(
        (bracket.s, i, rung.budget)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    )


@pytest.mark.parametrize(("options", "message"), [MISTAKES[0], MISTAKES[-4], MISTAKES[-3]])
def test_at_the_start_it_is_refused_before_anything_is_evaluated(options, message):
    trials = Trials()
    with pytest.raises(ValueError, match=message):
        run(objective, SPACE, 20, trials=trials, algo=partial(suggest, **options))
    assert len(trials) == 0


@pytest.mark.parametrize("random_share", [-1, "0.5"])
def test_so_does_the_model(trials, random_share):
    with pytest.raises(ValueError, match=r"random_share=.*: pass a number from 0 to 1"):
        run(objective, SPACE, 20, trials=trials, algo=partial(bohb.suggest, random_share=random_share))
    assert len(trials) == 8


def test_trials_of_another_space_are_refused_and_kept(trials):
    with pytest.raises(ValueError, match=r"another space, \['kind', 'x'\], not \['z'\]: pass new Trials"):
        run(lambda _: 0, {"z": hp.uniform("z", 0, 1)}, 20, trials=trials, algo=suggest)
    assert len(trials) == 8
    assert len(run(objective, SPACE, 20, trials=trials, algo=suggest)) == 20


def two(node):
    return hp.choice("model", [{"epochs": node(), "x": hp.uniform("x", 0, 1)}, {"epochs": node()}])


@pytest.mark.parametrize(
    ("node", "options"),
    [
        (lambda: hyperband.budget("epochs", 1, 9), {}),
        (lambda: hp.uniformint("epochs", 1, 9), {"budget": "epochs"}),
    ],
)
def test_two_nodes_of_one_label_are_refused_by_hyperopt_and_one_node_may_stand_twice(node, options):
    trials = Trials()
    algo = partial(hyperband.suggest, **options)
    with pytest.raises(DuplicateLabel, match="epochs"):
        run(lambda params: params["epochs"], two(node), 22, trials=trials, algo=algo)
    assert len(trials) == 0
    shared = node()
    run(lambda params: params["epochs"], two(lambda: shared), 22, trials=trials, algo=algo)
    assert trials.losses() == [doc["misc"]["budget"] for doc in trials.trials]


def takes_it_first(budget): ...
def takes_it_by_position_only(params, budget, /): ...
def takes_more(params, data, budget): ...


@pytest.mark.parametrize("function", [takes_it_first, takes_it_by_position_only, takes_more])
def test_with_budget_refuses_what_it_could_not_call(function):
    name = function.__name__
    with pytest.raises(ValueError, match=rf"{name}\(.*\) takes no budget: add an argument beside the para"):
        hyperband.with_budget(function)


@pytest.mark.parametrize("no_function", ["checkpoints", 3])
def test_with_budget_refuses_what_is_no_function(no_function):
    with pytest.raises(ValueError, match=r"with_budget\(.*\): pass a function, and checkpoint_dir by its"):
        hyperband.with_budget(no_function)


@pytest.mark.parametrize("wrong", [True, "1", math.nan, math.inf, 0, -1, [1], {}])
def test_a_step_is_a_number(wrong):
    with pytest.raises(ValueError, match=f"step=.*: {NUMBER}"):
        hyperband.schedule(1, 9, step=wrong)


def test_a_step_is_no_more_than_the_least_budget():
    with pytest.raises(ValueError, match="step=5 is above min_budget=1: pass 1 or less"):
        hyperband.schedule(1, 9, step=5)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (hp.loguniform("b", 0, 1000), f"max_budget=.*: {NUMBER}"),
        (hp.uniform("b", 1, math.inf), f"max_budget=inf: {NUMBER}"),
        (hp.quniform("b", 1, 4, 5), "budget='b' goes from 5 to 0 in the space"),
        (hp.quniform("b", 1, 9, -1), "budget='b' goes from -1 to 9 in the space"),
    ],
)
def test_bounds_that_make_no_schedule_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        run(lambda _: 0, {"b": node}, 3, algo=partial(hyperband.suggest, budget="b"))


def test_however_often_fmin_is_called_there_is_one_warning_that_the_budget_can_t_be_seen():
    trials = Trials()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for max_evals in range(1, 60, 3):
            run(lambda params: params["x"], SPACE, max_evals, trials=trials, algo=suggest, max_queue_len=3)
    assert len([w for w in caught if "can't see its budget" in str(w.message)]) == 1


def test_however_often_fmin_is_called_there_is_one_warning_of_other_options(trials):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for max_evals in range(9, 90, 4):
            algo = partial(hyperband.suggest, min_budget=3)
            run(objective, SPACE, max_evals, trials=trials, algo=algo, max_queue_len=3)
    assert [str(w.message)[:8] for w in caught if "other min_budget" in str(w.message)] == ["8 trials"]


def test_an_interruption_of_the_first_evaluation_does_not_repeat_the_warning():
    def interrupted(params):
        raise KeyboardInterrupt

    trials = Trials()
    with pytest.warns(UserWarning, match="can't see its budget"), pytest.raises(KeyboardInterrupt):
        run(interrupted, SPACE, 1, trials=trials, algo=suggest)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(lambda params: params["x"], SPACE, 3, trials=trials, algo=suggest)


def test_failures_alone_do_not_repeat_the_warning():
    def failing(params):
        raise RuntimeError

    trials = Trials()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            run(failing, SPACE, 2, trials=trials, algo=suggest, catch_eval_exceptions=True)
    assert len([w for w in caught if "can't see its budget" in str(w.message)]) == 1


def test_an_objective_that_calls_its_result_new_has_failed():
    trials = Trials()
    new = hyperband.with_budget(lambda params, budget=9: {"status": "new", "loss": 0})
    with pytest.raises(AllTrialsFailed):  # Hyperopt's own, when the run is over
        run(new, SPACE, 18, trials=trials, algo=suggest)
    report = hyperband.report(trials)
    assert (report.failed, report.pending) == (18, 0)
    assert {(rung.bracket, rung.rung) for rung in report.rungs} == {(2, 0), (1, 0), (0, 0)}
