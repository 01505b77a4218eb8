import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
from conftest import broken_anneal, run
from hyperopt import Trials, anneal, fmin, hp, rand, tpe
from hyperopt.base import Domain
from hyperopt.pyll import as_apply, scope

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._budget import find_budget


def knob(space, label=None, **bounds):
    return find_budget(Domain(lambda _: 0, space), label, bounds.get("min_budget"), bounds.get("max_budget"))


@pytest.mark.parametrize(
    "algo", [rand.suggest, tpe.suggest, pytest.param(anneal.suggest, marks=broken_anneal)]
)
@pytest.mark.parametrize(("low", "high"), [(1, 81), (0.1, 8.1), (2, 7)])
def test_other_algorithms_always_evaluate_at_max_budget(algo, low, high):
    seen = []
    space = {"x": hp.uniform("x", 0, 1), "b": hyperband.budget("b", low, high)}

    def objective(params):
        seen.append(params["b"])
        return params["x"]

    run(objective, space, 30, algo=algo)
    assert seen == [high] * 30
    assert all(type(b) is type(high) for b in seen)


def test_tpe_goes_on_from_hyperband_s_trials(space):
    trials = run(lambda p: p["x"] ** 2 + 1 / p["epochs"], space, 30)
    run(lambda p: p["x"] ** 2 + 1 / p["epochs"], space, 40, trials=trials, algo=tpe.suggest)
    assert [doc["misc"]["vals"]["epochs"] for doc in trials.trials[30:]] == [[9.0]] * 10


def test_a_space_survives_pickle_and_copy(space):
    for again in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
        assert knob(again) == knob(space)
        assert (knob(again).label, knob(again).min_budget, knob(again).max_budget) == ("epochs", 1, 9)


@pytest.mark.parametrize(
    ("node", "bounds"),
    [
        (hp.uniform("b", 1, 81), (1, 81, None)),
        (hp.quniform("b", 1, 81, 1), (1, 81, 1)),
        (hp.quniform("b", 0, 100, 5), (5, 100, 5)),
        (hp.quniform("b", 0.5, 8, 0.5), (0.5, 8, 0.5)),
        (hp.uniformint("b", 1, 81), (1, 81, 1)),
        (hp.randint("b", 1, 82), (1, 81, 1)),
        (hp.randint("b", 82), (1, 81, 1)),
        (hp.loguniform("b", 0, math.log(243)), (1, 243, None)),
        (hp.loguniform("b", math.log(0.1), math.log(8.1)), (pytest.approx(0.1), pytest.approx(8.1), None)),
        (hp.qloguniform("b", 0, math.log(81), 1), (1, 81, 1)),
    ],
)
def test_any_bounded_hyperparameter_can_be_the_budget(node, bounds):
    found = knob({"b": node, "x": hp.uniform("x", 0, 1)}, "b")
    assert (found.min_budget, found.max_budget, found.step) == bounds


@pytest.mark.parametrize(
    "node",
    [
        hp.normal("b", 0, 1),
        hp.lognormal("b", 0, 1),
        hp.qnormal("b", 0, 1, 1),
        hp.qlognormal("b", 0, 1, 1),
    ],
)
def test_a_distribution_without_bounds_is_refused(node):
    with pytest.raises(ValueError, match=r"budget='b' is q?(log)?normal, which has no bounds: use uniform"):
        knob(node, "b")


@pytest.mark.parametrize("node", [hp.choice("b", [1, 2]), hp.pchoice("b", [(0.3, 1), (0.7, 2)])])
def test_a_choice_is_refused(node):
    with pytest.raises(ValueError, match=r"budget='b' is a choice: pass the label of a numeric"):
        knob(node, "b")


def test_mistakes_name_the_option_the_value_and_the_remedy(space):
    with pytest.raises(ValueError, match=r"budget='c' is not in the space: pass one of \['x', 'y'\]"):
        knob([hp.uniform("x", 1, 2), hp.uniform("y", 1, 2)], "c")
    with pytest.raises(ValueError, match=r"more than one budget, \['epochs', 'x'\]: keep one"):
        knob(space, "x")
    with pytest.raises(ValueError, match=r"more than one budget, \['a', 'b'\]: keep one"):
        knob([hyperband.budget("a", 1, 3), hyperband.budget("b", 1, 3)])
    with pytest.raises(ValueError, match=r"max_budget=27 contradicts the space, where 'epochs' gives 9"):
        knob(space, max_budget=27)
    with pytest.raises(ValueError, match=r"budget='x' goes from 0 to 5 in the space: a budget is positive"):
        knob(hp.uniform("x", 0, 5), "x")
    with pytest.raises(ValueError, match=r"label=3: pass the name"):
        hyperband.budget(3, 1, 9)
    with pytest.raises(ValueError, match=r"min_budget=9 is above max_budget=1"):
        hyperband.budget("b", 9, 1)


if not hasattr(scope, "round"):
    scope.define(round)

E = hp.uniformint("e", 1, 100)
N = hyperband.budget("n", 1, 9)


@pytest.mark.parametrize(
    ("space", "label", "expression"),
    [
        (101 - E, "e", "sub(101, e)"),
        ({"epochs": [hp.uniform("x", 0, 1), (-E,)]}, "e", "neg(e)"),
        ({"n": E, "half": E / 2}, "e", "truediv(e, 2)"),
        (hp.choice("c", [0, {"n": 2**E}]), "e", "pow(2, e)"),
        (1 + hp.choice("c", [E, 5]), "e", r"add(1, switch(c, e, 5))"),
        ({"x": hp.uniform("x", 0, E)}, "e", "uniform(0, e)"),
        (scope.len(as_apply([E])), "e", "len(pos_args(e))"),
        (as_apply([E, 3])[0], "e", "getitem(pos_args(e, 3), 0)"),
        (scope.int(E + 0.5), "e", "add(e, 0.5)"),
        ({"n": 101 - N}, None, "sub(101, n)"),
        ({"n": N, "steps": scope.int(N * 100)}, None, "mul(n, 100)"),
        ([hp.choice("c", [N, 3 * N])], None, "mul(3, n)"),
        (scope.switch(N, hp.uniform("x", 0, 1), 2), None, "switch(n, x, 2)"),
        (scope.switch(scope.int(N - 1), 1, 2), None, "sub(n, 1)"),
        (scope.add(np.zeros(10**6), N), None, "add(array("),
    ],
)
@pytest.mark.filterwarnings("ignore:the space has")
def test_an_expression_over_the_budget_is_refused_before_anything_is_evaluated(space, label, expression):
    trials, algo = Trials(), partial(hyperband.suggest, budget=label)
    with pytest.raises(ValueError, match=r"let it stand bare, or under int, float") as error:
        run(lambda _: 0.0, space, 3, trials=trials, algo=algo)
    assert f"budget={label or 'n'!r} stands in the expression {expression}" in str(error.value)
    assert len(str(error.value)) < 400
    assert len(trials) == 0


def test_and_where_a_run_goes_on_with_one():
    trials = run(lambda p: p["e"], {"e": E}, 5, algo=partial(hyperband.suggest, budget="e"))
    with pytest.raises(ValueError, match=r"budget='e' stands in the expression sub\(101, e\)"):
        run(lambda p: p["e"], {"e": 101 - E}, 9, trials, algo=partial(hyperband.suggest, budget="e"))
    assert len(trials) == 5


@pytest.mark.parametrize(
    "space",
    [
        E,
        [E, (E, {"n": E})],
        hp.choice("c", [{"n": scope.int(E)}, {"n": scope.float(scope.int(E))}, {"x": hp.uniform("x", 0, 1)}]),
        hp.pchoice("c", [(0.5, E), (0.5, hp.choice("d", [1, (E,)]))]),
        {"n": as_apply(scope.round(E)), "others": hp.uniform("x", 0, 1) * 3 + hp.randint("y", 3)},
    ],
)
def test_bare_or_under_a_conversion_the_budget_may_stand_anywhere(space):
    assert knob(space, "e").label == "e"


def test_bounds_that_agree_may_be_given_twice(space):
    assert knob(space, min_budget=1, max_budget=9) == knob(space)


def test_with_budget_hands_over_the_trial_s_budget():
    seen = []

    @hyperband.with_budget
    def objective(params, budget=81):
        seen.append(budget)
        return params["x"] + budget

    space = {"x": hp.uniform("x", 0, 1)}
    trials = run(objective, space, 30)
    assert seen == [doc["misc"]["budget"] for doc in trials.trials]
    seen.clear()
    run(objective, space, 5, algo=rand.suggest)
    assert seen == [81] * 5
    assert objective({"x": 1}) == 82
    assert objective({"x": 1}, budget=3) == 4


def test_with_budget_works_with_attachments_and_a_positional_space():
    @hyperband.with_budget
    def objective(params, budget):
        return {"loss": params[0], "status": "ok", "attachments": {"spent": budget}}

    trials = run(objective, [hp.uniform("x", 0, 1)], 3)
    assert [trials.trial_attachments(doc)["spent"] for doc in trials.trials] == [1, 1, 1]


def test_with_budget_refuses_a_function_that_takes_none():
    with pytest.raises(ValueError, match=r"objective\(params\) takes no budget: add an argument"):

        @hyperband.with_budget
        def objective(params): ...


def test_with_budget_names_the_way_where_the_backend_hands_over_no_trial():
    domain = Domain(hyperband.with_budget(lambda params, budget=1: budget), hp.uniform("x", 0, 1))
    with pytest.raises(ValueError, match=r"SparkTrials hands none.*hyperband\.budget\(label"):
        domain.evaluate({"x": 0.5}, ctrl=None, attach_attachments=False)


def test_the_annotated_space_of_a_function_can_hold_the_budget():
    seen = []

    def objective(x: hp.uniform("x", 0, 1), epochs: hyperband.budget("epochs", 1, 9)):
        seen.append(epochs)
        return x

    trials = Trials()
    fmin(
        objective,
        space="annotated",
        algo=hyperband.suggest,
        max_evals=22,
        trials=trials,
        rstate=np.random.default_rng(0),
        verbose=False,
    )
    assert sorted(seen) == [1] * 9 + [3] * 8 + [9] * 5
