import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from conftest import broken_anneal, places, run
from hyperopt import Trials, anneal, fmin, hp, rand, tpe
from hyperopt.base import Domain
from hyperopt.pyll import as_apply, scope

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband
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
        assert (knob(again).labels, knob(again).min_budget, knob(again).max_budget) == ({"epochs"}, 1, 9)


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


@pytest.mark.filterwarnings("ignore:the space has")
def test_an_expression_over_the_budget_is_refused_where_a_run_goes_on():
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
    assert knob(space, "e").labels == {"e"}


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


class Trainer:
    def __init__(self):
        self.seen = []

    def __call__(self, params, budget=27, **more):
        self.seen.append(budget)
        return params["x"] + 1 / budget


def trainer(params, budget, seen):
    seen.append(budget)
    return params["x"] + 1 / budget


def with_default():
    """Objectives whose budget is 27 by default, each with the list of budgets that it has seen."""

    def function(params, budget=27):
        return trainer(params, budget, seen)

    def continued(params, budget=27, checkpoint=None):
        return {"loss": trainer(params, budget, seen), "status": "ok", "checkpoint": budget}

    seen, whole = [], Trainer()
    return {
        "function": (function, seen),
        "continued": (continued, seen),
        "numpy": (lambda params, budget=np.int64(27): trainer(params, budget, seen), seen),  # noqa: B008
        "partial": (partial(trainer, seen=seen, budget=27), seen),
        "class": (whole, whole.seen),
    }


ONE = {"x": hp.uniform("x", 0, 1)}


@pytest.mark.parametrize("kind", with_default())
@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
def test_the_function_s_default_is_the_full_budget(kind, algo):
    function, seen = with_default()[kind]
    plan = hyperband.schedule(1, 27)
    trials = run(hyperband.with_budget(function), ONE, plan.evaluations, algo=algo)
    planned = [rung for bracket in plan.brackets for rung in bracket.rungs]
    assert sorted(seen) == sorted(rung.budget for rung in planned for _ in range(rung.configurations))
    assert {type(doc["misc"]["budget"]) for doc in trials.trials} == {int}
    seen.clear()
    run(hyperband.with_budget(function), ONE, 3, algo=tpe.suggest)
    assert seen == [27] * 3


@pytest.mark.filterwarnings("ignore:fmin has ended before")
def test_the_default_reaches_the_driver_of_executor_trials():
    function, seen = with_default()["function"]
    with ThreadPoolExecutor(2) as executor:
        run(hyperband.with_budget(function), ONE, 40, trials=ExecutorTrials(executor))
    assert seen.count(1) == 27


@pytest.mark.parametrize(
    "function",
    [
        lambda params, budget: 0,
        lambda params, budget=None: 0,
        lambda params, budget=0: 0,
        lambda params, budget=True: 0,
        lambda params, budget="81": 0,
        lambda params, budget=math.inf: 0,
        lambda params, **options: 0,
    ],
)
def test_without_a_number_as_default_the_full_budget_is_81(function):
    assert places(run(hyperband.with_budget(function), ONE, 1)) == [(0, 4, 0, 1)]
    algo = partial(hyperband.suggest, max_budget=9)
    assert places(run(hyperband.with_budget(function), ONE, 1, algo=algo)) == [(0, 2, 0, 1)]


def test_without_a_default_other_algorithms_are_told_to_give_one():
    objective = hyperband.with_budget(lambda params, budget: 0)
    with pytest.raises(ValueError, match=r"\(params, budget\) has no default .*, such as budget=81"):
        run(objective, ONE, 3, algo=tpe.suggest)
    seen = []
    run(hyperband.with_budget(lambda params, **its: seen.append(its) or 0), ONE, 2, algo=rand.suggest)
    assert seen == [{}, {}]


def test_a_default_that_contradicts_the_options_or_the_space_is_refused():
    objective = hyperband.with_budget(lambda params, budget=27: 0)
    with pytest.raises(ValueError, match="max_budget=9 contradicts the objective's default budget=27: "):
        run(objective, ONE, 1, algo=partial(hyperband.suggest, max_budget=9))
    space = ONE | {"epochs": hyperband.budget("epochs", 1, 81)}
    with pytest.raises(ValueError, match=r"default budget=27 .* where 'epochs' gives max_budget=81: .* same"):
        run(objective, space, 1)
    space = ONE | {"n": hp.quniform("n", 5, 100, 5)}
    with pytest.raises(ValueError, match=r"default budget=27 .* where 'n' gives max_budget=100: .* the same"):
        run(objective, space, 1, algo=partial(hyperband.suggest, budget="n"))
    with pytest.raises(ValueError, match="min_budget=81 is above max_budget=27: pass 27 or less"):
        run(objective, ONE, 1, algo=partial(hyperband.suggest, min_budget=81))


@pytest.mark.parametrize(
    ("node", "options"),
    [
        (hyperband.budget("b", 0.1, 8.1), {}),
        (hp.loguniform("b", math.log(0.1), math.log(8.1)), {"budget": "b"}),
        (hp.uniform("x", 0, 1), {"min_budget": 0.1, "max_budget": 8.1}),
        (hp.uniform("x", 0, 1), {"min_budget": 0.1}),
    ],
)
def test_a_default_may_say_what_options_or_space_say_too(node, options):
    objective = hyperband.with_budget(lambda params, budget=8.1: budget)
    trials = run(
        objective, {"node": node, "y": hp.uniform("y", 0, 1)}, 5, algo=partial(hyperband.suggest, **options)
    )
    assert places(trials) == [(0, 4, 0, pytest.approx(0.1))] * 5


@pytest.mark.parametrize("default", [0.5, 1, 1.0])
def test_a_default_that_leaves_no_lower_budget_needs_a_min_budget(default):
    objective = hyperband.with_budget(lambda params, budget=default: budget)
    with pytest.raises(
        ValueError, match=f"default budget={default} is .* which is 1 where none is given: pa"
    ):
        run(objective, ONE, 1)
    trials = run(objective, ONE, 1, algo=partial(hyperband.suggest, min_budget=default / 9))
    assert places(trials) == [(0, 2, 0, pytest.approx(default / 9))]


def test_older_trials_go_on_with_the_default_that_is_what_they_had():
    older = run(hyperband.with_budget(lambda params, budget: budget), ONE, 90)
    with pytest.warns(UserWarning, match="90 trials come from a Hyperband run with other .*max_budget"):
        [new] = places(run(hyperband.with_budget(lambda _, budget=27: budget), ONE, 91, trials=older))[90:]
    assert new == (0, 3, 0, 1)
    older = run(hyperband.with_budget(lambda params, budget: budget), ONE, 90)
    again = run(hyperband.with_budget(lambda params, budget=81: budget), ONE, 206, trials=older)
    assert len({place[0] for place in places(again)}) == 1


@pytest.mark.parametrize(
    ("space", "label", "bounds"),
    [
        ({"x": hp.uniform("x", 0, 1), "epochs": hyperband.budget("epochs", 2, 50)}, None, (2, 50)),
        (hyperband.budget("epochs", 0.1, 8.1), None, (0.1, 8.1)),
        ([hp.choice("kind", [{"n": hyperband.budget("n", 1, 9)}, (hp.normal("y", 0, 1),)])], None, (1, 9)),
        (hp.choice("kind", [None, {"deep": [hp.uniformint("n", 1, 81)]}]), "n", (1, 81)),
        ((hp.loguniform("n", 0, math.log(243)), 3), "n", (1, 243)),
    ],
)
def test_a_schedule_reads_the_budget_of_a_space(space, label, bounds):
    plan = hyperband.schedule(space, budget=label)
    assert (plan.min_budget, plan.max_budget) == bounds
    assert plan == hyperband.schedule(plan.min_budget, plan.max_budget)
    assert hyperband.schedule(space, budget=label, eta=4) == hyperband.schedule(
        plan.min_budget, plan.max_budget, 4
    )


def test_a_schedule_of_a_space_is_what_a_run_evaluates():
    space = {"x": hp.uniform("x", 0, 1), "n": hp.quniform("n", 5, 100, 5)}
    plan = hyperband.schedule(space, budget="n", eta=2)
    trials = run(
        lambda p: p["x"], space, plan.evaluations, algo=partial(hyperband.suggest, budget="n", eta=2)
    )
    assert sorted(place[1:] for place in places(trials)) == sorted(
        (bracket.s, i, rung.budget)
        for bracket in plan.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    )


def test_a_schedule_of_two_numbers_takes_them_in_every_way():
    plan = hyperband.schedule(1, 81, 3)
    assert plan == hyperband.schedule(1, 81) == hyperband.schedule(min_budget=1, max_budget=81, eta=3)
    assert hyperband.schedule(5, 100, step=5).brackets[0].rungs[0].budget == 10


def test_what_is_no_schedule_is_refused_with_a_remedy(space):
    two_ways = r"no budget: put hyperband\.budget\(label, .*name one of its hyperparameters with budget=label"
    for without in (ONE, hp.uniform("x", 0, 1), [3, hp.randint("n", 81)]):
        with pytest.raises(ValueError, match=two_ways):
            hyperband.schedule(without)
    with pytest.raises(ValueError, match=r"budget='z' is not in the space: pass one of \['x'\]"):
        hyperband.schedule(ONE, budget="z")
    with pytest.raises(ValueError, match=r"more than one budget, \['epochs', 'x'\]: keep one"):
        hyperband.schedule(space, budget="x")
    with pytest.raises(ValueError, match=r"eta=1: .* pass 2 or more"):
        hyperband.schedule(space, eta=1)
    for wrong in ({"max_budget": 4}, {"step": 2}):
        with pytest.raises(ValueError, match=r"=[24] beside a space.*: pass budget and eta alone, by name"):
            hyperband.schedule(space, **wrong)
    with pytest.raises(ValueError, match="budget='epochs' is a label: pass the space that has it"):
        hyperband.schedule(1, 81, budget="epochs")
    with pytest.raises(ValueError, match=r"min_budget=81: pass two bounds, as in schedule\(1, 81\)"):
        hyperband.schedule(81)
    with pytest.raises(ValueError, match="min_budget='space': pass a positive, finite number"):
        hyperband.schedule("space", 81)


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
    domain = Domain(hyperband.with_budget(lambda params, budget: budget), hp.uniform("x", 0, 1))
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
