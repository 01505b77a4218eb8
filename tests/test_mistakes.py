"""A user's mistakes: each gets an error that names option, value and remedy, and costs nothing."""

import functools
import math
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import hyperopt
import numpy as np
import pytest
from conftest import places, run
from hyperopt import Trials, fmin_pass_expr_memo_ctrl, hp, pyll, tpe
from hyperopt.base import Ctrl, Domain
from hyperopt.exceptions import AllTrialsFailed, DuplicateLabel
from hyperopt.fmin import generate_trials_to_calculate

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband, plots
from hyperopt_hyperband import Trials as OwnTrials

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
    ({"budget": ["x"]}, "budget='x' goes from -5 to 5 in the space: a budget is positive"),
    ({"budget": [3]}, r"budget=\[3\]: pass the label of a hyperparameter, a str, or a list of labels"),
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
def test_a_wrong_random_share_is_refused_by_the_model_too(trials, random_share):
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


READERS = [
    hyperband.report,
    hyperband.records,
    hyperband.incumbent,
    hyperband.no_progress(),
    plots.evaluations,
    plots.incumbent,
    plots.budgets,
    plots.hyperparameters,
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("wrong", [[{"tid": 0}], "trials.pkl", None, Trials, {"random": 3}, 3])
def test_what_is_no_trials_is_told_and_how_to_get_some(reader, wrong):
    shown = "3" if reader is plots.incumbent and isinstance(wrong, dict) else str(wrong)[:6]
    message = (
        f"trials='?{re.escape(shown)}.*: pass the Trials that fmin was given; .*trials_from_docs.*load_trials"
    )
    with pytest.raises(ValueError, match=message):
        reader(wrong)


def test_documents_are_no_trials_for_an_executor_either():
    with pytest.raises(ValueError, match=r"trials=.*: pass the Trials that fmin was given"):
        ExecutorTrials(trials=[{"tid": 0}])


def test_without_a_success_there_is_no_incumbent_and_the_error_says_why():
    with pytest.raises(
        AllTrialsFailed, match=r"no trial has finished .* \(there are none\): call fmin with these"
    ):
        hyperband.incumbent(Trials())
    trials = Trials()

    @hyperband.with_budget
    def failing(params, budget=9):
        raise RuntimeError(params)

    run(failing, SPACE, 3, trials=trials, algo=suggest, catch_eval_exceptions=True)
    trials._dynamic_trials[0]["state"] = 0
    with pytest.raises(AllTrialsFailed, match=r"\(1 pending, 2 failed\): .* misc\['error'\]"):
        hyperband.incumbent(trials)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hyperband.no_progress(3), r"call no_progress(*, iterations=1), iterations by name"),
        (lambda: hyperband.no_progress(Trials()), r"call no_progress(*, iterations=1), iterations by name"),
        (lambda: hyperband.schedule(), "missing a required argument: 'min_budget'; call schedule(min"),
        (
            lambda: hyperband.schedule(1, 9, maximum=3),
            "schedule: got an unexpected keyword argument 'maximum'; ca",
        ),
        (
            lambda: hyperband.budget("n", max_budget=9),
            "'min_budget'; call budget(label, min_budget, max_budget)",
        ),
        (lambda: hyperband.report(Trials(), SPACE), "call report(trials, *, space=None), space by name"),
        (lambda: hyperband.records(), "'trials'; call records(trials, *, space=None), space by name"),
        (lambda: hyperband.incumbent(), "missing a required argument: 'trials'; call incumbent(trials)"),
        (lambda: hyperband.save_trials(), "'path'; call save_trials(path, early_stop_fn=None)"),
        (lambda: hyperband.load_trials(file="a"), "call load_trials(path)"),
        (lambda: plots.evaluations(Trials(), None), "call evaluations(trials, *, ax=None), ax by name"),
        (
            lambda: plots.incumbent(),
            "incumbent(trials, *, against='total_budget', ax=None), against and ax by name",
        ),
        (lambda: plots.budgets(Trials(), 3), "call budgets(trials, *, ax=None), ax by name"),
        (
            lambda: plots.hyperparameters(Trials(), SPACE),
            "space=None, labels=None, ax=None), space and labels and",
        ),
    ],
)
def test_a_wrong_call_is_answered_with_the_right_one(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_a_type_error_from_within_stays_what_it_was():
    with pytest.raises(TypeError, match="an int and no other"):
        hyperband.schedule(Odd(), 9)


class Odd(int):
    def __int__(self):
        raise TypeError("an int and no other")


@pytest.mark.parametrize("function", [hyperband.save_trials, hyperband.load_trials])
def test_a_path_is_the_path_of_a_file(function, tmp_path):
    with (tmp_path / "trials").open("w") as file:
        for wrong in (Trials(), None, 3, b"trials", file):
            with pytest.raises(
                ValueError, match=r"path=.*: pass the path of a file, a str or Path; early_stop_fn=save"
            ):
                function(wrong)
    with pytest.raises(ValueError, match=r"path=.*: pass a file in a folder that exists"):
        function(tmp_path)


def test_what_stops_early_is_a_function(tmp_path):
    with pytest.raises(ValueError, match=r"early_stop_fn=3: pass a function, such as no_progress\(\)"):
        hyperband.save_trials(tmp_path / "trials", 3)


# An objective that sees its budget is told nothing, however it gets the trial.


def raw(expr, memo, ctrl, scale=1):
    return scale * pyll.rec_eval(expr, memo=memo)["x"] ** 2 + 1 / ctrl.current_trial["misc"]["budget"]


@fmin_pass_expr_memo_ctrl
def marked(expr, memo, ctrl, scale=1):
    return raw(expr, memo, ctrl, scale)


class Marked:
    @fmin_pass_expr_memo_ctrl
    def method(self, expr, memo, ctrl):
        return raw(expr, memo, ctrl)


@hyperband.with_budget
def with_scale(params, budget=9, scale=1):
    return scale * params["x"] ** 2 + 1 / budget


def through_the_space(params):
    return params["x"] ** 2 + 1 / params["ctrl"].current_trial["misc"]["budget"]


@pytest.fixture(params=["Trials", "ExecutorTrials"])
def any_trials(request):
    with ThreadPoolExecutor(1) as executor:
        yield Trials() if request.param == "Trials" else ExecutorTrials(executor)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (marked, {}),
        (Marked().method, {}),
        (raw, {"pass_expr_memo_ctrl": True}),
        (marked, {"pass_expr_memo_ctrl": True}),
        (hyperopt.partial(marked, scale=1), {}),
        (functools.partial(marked, scale=1), {"pass_expr_memo_ctrl": True}),
        (with_scale, {}),
        (hyperopt.partial(with_scale, scale=1), {}),
        (functools.partial(with_scale, scale=1), {"pass_expr_memo_ctrl": True}),
        (hyperband.with_budget(functools.partial(with_scale, scale=1)), {}),
        (through_the_space, {}),
    ],
)
def test_an_objective_that_gets_the_trial_is_not_warned(function, options, any_trials):
    space = {"x": SPACE["x"]}
    if function is through_the_space:
        space["ctrl"] = pyll.as_apply(Ctrl)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(function, space, PLAN.evaluations, trials=any_trials, algo=suggest, **options)
    for doc in any_trials.trials:
        expected = doc["misc"]["vals"]["x"][0] ** 2 + 1 / doc["misc"]["budget"]
        assert doc["result"]["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("function", [marked, with_scale])
def test_a_partial_that_hides_what_the_objective_wants_is_refused(function, any_trials):
    hidden = functools.partial(functools.partial(function, scale=2), scale=1)
    message = (
        f"fn is a functools.partial of {function.__name__}, which wants the trial .* use hyperopt.partial"
    )
    for space in (SPACE, {**SPACE, "n": hyperband.budget("n", 1, 9)}):
        with pytest.raises(ValueError, match=message):
            run(hidden, space, 3, trials=any_trials)
    assert len(any_trials) == 0


def test_a_partial_of_an_objective_that_can_t_see_its_budget_is_warned():
    with pytest.warns(UserWarning, match="can't see its budget"):
        run(functools.partial(lambda params, scale: scale, scale=1), SPACE, 3, algo=suggest)


def test_a_point_without_the_budget_fails_in_hyperopt_as_budget_s_docstring_says():
    space = {"x": SPACE["x"], "n": hyperband.budget("n", 1, 9)}
    points = [{"x": 1.0}]
    with pytest.raises(AssertionError, match=r"^$"):
        run(lambda params: params["x"], space, 1, trials=generate_trials_to_calculate(points))
    assert "AssertionError without text" in " ".join(hyperband.budget.__doc__.split())
    run(lambda params: params["x"], space, 1, trials=generate_trials_to_calculate([{"x": 1.0, "n": 9}]))


@pytest.mark.parametrize("new", [False, True])
def test_trials_of_a_space_with_other_labels_and_fewer_options_are_refused(new):
    budget = hyperband.budget("b", 1, 9)
    before = {"c": hp.choice("c", list("abc")), "x": hp.uniform("x", 0, 1), "b": budget}
    after = {"c": hp.choice("c", ["a"]), "y": hp.uniform("y", 0, 1), "b": budget}
    trials = run(lambda p: p["x"], before, 12, Trials())
    if new:
        trials.insert_trial_docs(hyperband.suggest([20], Domain(lambda p: 0, before), trials, 0))
        trials.refresh()
    was = [doc["state"] for doc in trials._dynamic_trials]
    with pytest.raises(ValueError, match=r"a run over another space, \['b', 'c', 'x'\]"):
        run(lambda p: p["y"], after, 22, OwnTrials(trials=trials))
    assert [doc["state"] for doc in trials._dynamic_trials] == was
