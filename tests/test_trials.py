"""Our Trials: the incumbent is the answer; the bar, the threshold and the points know of budgets."""

import math
import pickle
import re
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import hyperopt
import numpy as np
import pytest
from conftest import interrupted, loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, fmin, hp, rand, space_eval, tpe
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.fmin import generate_trials_to_calculate
from hyperopt.pyll import scope

from hyperopt_hyperband import ExecutorTrials, Trials, bohb, hyperband
from hyperopt_hyperband._schedule import schedule

PLAN = hyperband.schedule(1, 9)
FIRST_FULL = 9 + 3 + 1

cut_on_purpose = pytest.mark.filterwarnings("ignore:max_evals=.* is too few:UserWarning")


@pytest.fixture(params=["serial", "threads"])
def new_trials(request):
    """Makes a Trials, or an ExecutorTrials on two threads, of the same arguments."""
    if request.param == "serial":
        yield Trials
        return
    with ThreadPoolExecutor(2) as executor:
        yield partial(ExecutorTrials, executor)


def misleading(params):
    """The best losses are those of low budgets."""
    return (params["x"] - 1) ** 2 + params["epochs"]


def recorded(objective):
    """The objective, and a list of what it got."""
    got = []

    def call(params):
        got.append(params)
        return objective(params)

    return call, got


# The answer.


@pytest.mark.parametrize("kind", [hyperopt.Trials, Trials])
def test_argmin_is_what_the_objective_got_for_the_incumbent(space, kind):
    objective, got = recorded(misleading)
    trials = run(objective, space, PLAN.evaluations, trials=kind())
    best = hyperband.incumbent(trials)
    params = space_eval(space, hyperband.argmin(trials))
    assert params == got[best["tid"]]
    assert params["epochs"] == 9
    assert type(params["epochs"]) is int
    assert type(hyperband.argmin(trials)["branch"]) is int


def test_argmin_leaves_out_what_is_not_active():
    space = hp.choice(
        "model",
        [
            {"kind": "svm", "C": hp.lognormal("C", 0, 1), "n": hyperband.budget("n", 1.0, 9.0)},
            {"kind": "forest", "depth": hp.choice("depth", [2, {"deep": hp.randint("deep", 5, 9)}])},
        ],
    )
    for seed in range(5):
        objective, got = recorded(lambda params: params.get("C", 5.0))
        trials = run(objective, space, 30, trials=Trials(), seed=seed)
        assert space_eval(space, trials.argmin) == got[trials.best_trial["tid"]]
        vals = trials.best_trial["misc"]["vals"]
        assert trials.argmin.keys() == {label for label, value in vals.items() if value}


def test_argmin_of_a_trial_from_before_the_space_had_a_budget_has_the_budget_filled_in():
    space = {"x": hp.uniform("x", -5, 5)}
    trials = run(lambda _: -1, space, 5, trials=hyperopt.Trials(), algo=tpe.suggest)
    with_budget = {**space, "epochs": hyperband.budget("epochs", 1, 9)}
    trials = run(lambda p: p["x"] ** 2, with_budget, 5 + PLAN.evaluations, trials=Trials(trials=trials))
    assert "epochs" not in trials.best_trial["misc"]["vals"]
    first = trials.trials[0]["misc"]["vals"]["x"][0]
    plain = hyperopt.trials_from_docs(trials.trials)
    assert trials.argmin == hyperband.argmin(plain) == {"x": first, "epochs": 9}
    assert space_eval(with_budget, trials.argmin) == {"x": first, "epochs": 9}


def test_argmin_of_a_trial_of_another_algorithm_keeps_what_it_evaluated(space):
    trials = run(lambda p: -100 - p["epochs"], space, 3, trials=Trials(), algo=rand.suggest)
    run(loss, space, 3 + PLAN.evaluations, trials=trials)
    assert trials.best_trial["tid"] == 0
    assert space_eval(space, trials.argmin)["epochs"] == 9


def test_where_nothing_has_succeeded_there_is_no_argmin(space, new_trials):
    trials = new_trials()
    with pytest.raises(AllTrialsFailed):
        run(lambda _: {"status": STATUS_FAIL}, space, 20, trials=trials)
    for ask in (hyperband.argmin, lambda t: t.best_trial, lambda t: t.argmin):
        with pytest.raises(AllTrialsFailed):
            ask(trials)


@pytest.mark.parametrize("objective", [misleading, lambda params: 0], ids=["misleading", "ties"])
def test_fmin_answers_with_the_incumbent(space, new_trials, objective):
    trials = new_trials()
    options = {"algo": hyperband.suggest, "max_evals": 40, "trials": trials, "verbose": False}
    best = fmin(objective, space, rstate=np.random.default_rng(0), **options)
    assert best == trials.argmin == hyperband.argmin(trials)
    assert trials.best_trial is hyperband.incumbent(trials)
    assert trials.best_trial["misc"]["budget"] == best["epochs"] == 9
    assert fmin(objective, space, return_argmin=False, **options) == space_eval(space, best)


def test_hyperopts_own_trials_answer_as_before(space):
    trials = run(misleading, space, 40, trials=hyperopt.Trials())
    assert trials.best_trial["misc"]["budget"] == 1
    assert trials.argmin["epochs"] == 1


@pytest.mark.parametrize("algo", [rand.suggest, tpe.suggest])
def test_other_algorithms_run_as_in_hyperopts_trials(space, algo, capsys):
    results = []
    for trials in (hyperopt.Trials(), Trials()):
        best = fmin(
            lambda p: -math.inf if p["x"] > 4 else loss(p),
            space,
            algo=algo,
            max_evals=30,
            loss_threshold=0.13,
            trials=trials,
            rstate=np.random.default_rng(1),
        )
        shown = "".join(capsys.readouterr())
        tail = re.sub(r"\[.*, ", "[", re.split(r"[\r\n]+", shown.strip())[-1])  # but for its times
        results.append((best, trials.best_trial["tid"], trials.losses(), trials.vals, tail))
    assert results[0] == results[1]
    assert "trial" in shown


# Points.

MODELS = {
    "model": hp.choice(
        "model",
        [
            {
                "kind": "svm",
                "C": hp.loguniform("C", -7, 7),
                "shape": hp.choice("shape", [(32,), (32, 32), None]),
            },
            {"kind": "forest", "depth": hp.choice("depth", [2, 4, 8]), "leaf": hp.quniform("leaf", 2, 20, 2)},
        ],
    ),
    "rate": hp.uniform("learning rate", 0, 1),
    "units": hp.uniformint("units", 1, 100),
    "warm": hp.choice("warm", [True, False]),
    "epochs": hyperband.budget("epochs", 1, 9),
}
REST = {"rate": 0.5, "units": 10, "warm": True}
SVM = {"kind": "svm", "C": 2.0, "shape": (32, 32)}


@pytest.mark.parametrize(
    ("point", "got"),
    [
        ({"model": SVM, **REST}, {}),
        ({"model": {"C": 2.0, "shape": [32, 32]}, **REST}, {}),
        ({"model": SVM, **REST, "epochs": 3}, {"epochs": 3}),
        ({"model": 0, "C": 2.0, "shape": 1, "learning rate": 0.5, "units": 10, "warm": 0}, {}),
        ({"model": "svm", "C": 2.0, "shape": (32, 32), "learning rate": 0.5, "units": 10, "warm": True}, {}),
        (
            {"model": {"kind": "svm", "shape": None}, "C": 3.0, **REST},
            {"model": {**SVM, "C": 3.0, "shape": None}},
        ),
        (
            {"model": {"kind": "forest", "depth": 8, "leaf": 4}, **REST, "warm": False},
            {"model": {"kind": "forest", "depth": 8, "leaf": 4.0}, "warm": False},
        ),
        ({"model": np.int64(0), "C": np.float64(2), "shape": 1, **REST}, {}),
    ],
)
def test_points_are_nested_or_flat_with_options_by_value_name_or_index(new_trials, point, got):
    objective, seen = recorded(lambda params: 1.0)
    trials = run(objective, MODELS, 22, trials=new_trials(points_to_evaluate=[point]))
    expected = {"model": SVM, **REST, "epochs": 9, **got}
    assert expected in seen[:2]
    assert "hyperband" not in trials.trials[0]["misc"]
    assert trials.trials[0]["misc"]["vals"].keys() == trials.trials[1]["misc"]["vals"].keys()
    assert len(places_of_hyperband(trials)) == 21


def places_of_hyperband(trials):
    return [doc["misc"]["hyperband"] for doc in trials.trials if "hyperband" in doc["misc"]]


def test_an_argmin_is_a_point(space):
    for seed in range(5):
        first = run(loss, space, 25, trials=Trials(), seed=seed)
        objective, seen = recorded(loss)
        run(objective, space, 22, trials=Trials(points_to_evaluate=[first.argmin]))
        assert seen[0] == space_eval(space, first.argmin)


@pytest.mark.filterwarnings("ignore:the space has")
def test_a_number_that_is_option_and_index_is_the_option_with_a_warning():
    space = {"layers": hp.choice("layers", [1, 2, 3]), "n": hyperband.budget("n", 1, 9)}
    for given, expected in [(3, 3), ("2", 2), (0, 1)]:  # by value, by name, by index
        objective, seen = recorded(lambda p: 0)
        run(objective, space, 14, trials=Trials(points_to_evaluate=[{"layers": given}]))
        assert seen[0]["layers"] == expected
    with pytest.warns(UserWarning, match="'layers': 1 is taken as the option, not as the index of 2: .*'1'"):
        run(objective, space, 14, trials=Trials(points_to_evaluate=[{"layers": 1}]))


def test_points_of_spaces_that_are_no_dicts():
    choice = hp.choice("m", [{"x": hp.uniform("x", 0, 1)}, {"y": hp.uniform("y", 0, 1)}, None])
    for point, expected in [({"x": 0.5}, {"x": 0.5}), ({"m": 1, "y": 0.25}, {"y": 0.25}), (None, None)]:
        objective, seen = recorded(lambda p: 0)
        run(objective, choice, 3, trials=Trials(points_to_evaluate=[point]), algo=rand.suggest)
        assert seen[0] == expected
    numbers = [hp.randint("r", 2, 5), 10 ** hp.uniform("e", 0, 2), scope.int(hp.quniform("q", 0, 9, 1))]
    objective, seen = recorded(lambda p: 0)
    run(
        objective, numbers, 3, trials=Trials(points_to_evaluate=[{"r": 3, "e": 2, "q": 4}]), algo=rand.suggest
    )
    assert seen[0] == (3, 100, 4)


@pytest.mark.parametrize("active", [True, False])
def test_a_hyperparameter_that_suggest_takes_as_budget_may_be_left_out(active):
    epochs = hp.quniform("epochs", 1, 9, 1)
    space = {"x": hp.uniform("x", 0, 1), "kind": hp.choice("kind", [{"epochs": epochs}, {}])}
    point = {"x": 0.5, "kind": 0 if active else 1}
    for seed in range(4):  # the first draw takes either branch
        trials = Trials(points_to_evaluate=[point])
        run(lambda p: p["x"], space, 30, trials, seed, partial(hyperband.suggest, budget="epochs"))
        assert trials.trials[0]["misc"]["vals"]["epochs"] == ([9] if active else [])


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            {"model": {**SVM, "C": -1}, **REST},
            r"'C': -1 is none of its values: pass one from 0\.0009",
        ),
        ({"model": {**SVM, "C": "high"}, **REST}, "'model': .* is like none of its options: pass one of"),
        (
            {"model": {"kind": "tree"}, **REST},
            r"'model': \{'kind': 'tree'\} is like none .*\['svm', 'forest'\]",
        ),
        ({"model": {"kind": "svm", "C": 1.0}, **REST}, "'shape' is missing: give it a value"),
        ({"model": 2, **REST}, "'model': 2 is like none of its options"),
        (
            {"model": SVM, **REST, "rate": math.nan},
            "'learning rate': nan is none of its values: pass one from 0 to 1",
        ),
        ({"model": SVM, **REST, "rate": True}, "'learning rate': True is no number: pass one"),
        (
            {"model": SVM, **REST, "units": 2.5},
            "'units': 2.5 is none of its values: .*100, a multiple of 1",
        ),
        ({"model": SVM, **REST, "epochs": 10}, "'epochs': 10 is none of its values: pass one from 1 to 9"),
        (
            {"model": SVM, **REST, "depth": 2},
            r"\['depth'\] take no part in it: leave them out, or pass some of",
        ),
        ({"model": SVM, **REST, "unit": 2}, r"\['unit'\] take no part in it"),
        ({"model": SVM, "rate": 0.1, "units": 10}, "'warm' is missing"),
        ("svm", "'svm' is no dict of"),
    ],
)
def test_a_point_outside_the_space_is_named_before_anything_runs(new_trials, point, message):
    objective, seen = recorded(lambda p: 0)
    good = {"model": SVM, **REST}
    with pytest.raises(ValueError, match=rf"points_to_evaluate\[1\]=(?s:.*): {message}"):
        run(objective, MODELS, 22, trials=new_trials(points_to_evaluate=[good, point]))
    assert not seen


def test_points_are_a_list():
    with pytest.raises(ValueError, match=r"points_to_evaluate=\{'x': 1\}: pass a list of points"):
        Trials(points_to_evaluate={"x": 1})


def test_each_point_is_evaluated_once_however_often_fmin_is_called(space, new_trials):
    points = [{"x": 1, "branch": {"kind": "b"}}, {"x": 2, "branch": 1}, {"x": 1, "branch": 1}]
    objective, seen = recorded(loss)
    trials = run(objective, space, 16, trials=new_trials(points_to_evaluate=points))
    trials = new_trials(trials=pickle.loads(pickle.dumps(trials)))
    run(objective, space, 26, trials=trials, seed=1)
    assert sorted(p["x"] for p in seen if p["epochs"] == 9 and p["x"] in (1, 2)) == [1, 2]
    assert len(trials) == 26


def test_a_point_that_was_cut_short_is_evaluated_again(space):
    def objective(params):
        if not calls:
            calls.append(params)
            raise KeyboardInterrupt
        calls.append(params)
        return loss(params)

    calls = []
    trials = Trials(points_to_evaluate=[{"x": 1, "branch": 1}])
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 20, trials=trials)
    run(objective, space, 20, trials=trials, seed=1)
    assert [p["x"] for p in calls[:2]] == [1, 1]
    assert calls[2]["x"] != 1


@pytest.mark.parametrize("max_queue_len", [1, 4])
def test_points_keep_their_order_and_ids_stay_unique(space, max_queue_len):
    points = [{"x": x, "branch": 1} for x in (3, 1, 2)]
    trials = Trials(points_to_evaluate=points)
    run(loss, space, 25, trials=trials, max_queue_len=max_queue_len)
    assert [doc["misc"]["vals"]["x"][0] for doc in trials.trials[:3]] == [3, 1, 2]
    tids = [doc["tid"] for doc in trials.trials]
    assert tids == sorted(set(tids))
    assert len(tids) == 25


def test_a_model_learns_from_points(space):
    def near(trials):
        drawn = [doc["misc"]["vals"]["x"][0] for doc in trials.trials if "hyperband" in doc["misc"]]
        return sum(abs(x - 1) < 1 for x in drawn[:9])

    points = [{"x": x, "branch": 1} for x in (-4, -1, 0.5, 1, 1.5, 4)]
    without = [near(run(loss, space, 15, trials=Trials(), seed=seed, algo=bohb.suggest)) for seed in range(5)]
    trials = [Trials(points_to_evaluate=points) for _ in range(5)]
    learnt = [near(run(loss, space, 21, trials[seed], seed, bohb.suggest)) for seed in range(5)]
    assert sum(learnt) > 2 * sum(without)


# The threshold.


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
def test_only_an_evaluation_at_max_budget_meets_the_threshold(space, new_trials, algo):
    trials = new_trials()
    run(misleading, space, 500, trials=trials, algo=algo, loss_threshold=20)
    full = [d for d in trials.trials if d["misc"]["budget"] == 9 and d["result"]["status"] == STATUS_OK]
    assert min(d["result"]["loss"] for d in full) < 20
    assert sum(loss is not None and loss < 20 for loss in trials.losses()) > 5
    assert FIRST_FULL <= len(trials) < 500


@pytest.mark.filterwarnings("ignore:fmin has ended before")
def test_failures_and_other_trials_do_not_meet_the_threshold_unless_they_may(space):
    failing = lambda p: {"status": STATUS_FAIL, "loss": -1.0} if p["epochs"] == 9 else 0.0  # noqa: E731
    assert len(run(failing, space, 30, trials=Trials(), loss_threshold=-0.5)) == 30
    trials = run(lambda _: -1.0, space, 2, trials=Trials(), algo=tpe.suggest)  # at max_budget
    assert len(run(failing, space, 30, trials=trials, loss_threshold=-0.5)) == 3


def test_the_threshold_holds_where_another_algorithm_goes_on(space):
    trials = run(misleading, space, 22, trials=Trials())
    run(misleading, space, 60, trials=trials, algo=rand.suggest, loss_threshold=8.9)
    assert len(trials) == 60
    run(misleading, space, 500, trials=trials, algo=rand.suggest, loss_threshold=9.1)
    assert 60 < len(trials) < 500


@pytest.mark.filterwarnings("ignore:fmin has ended before")
@cut_on_purpose
def test_threshold_and_early_stop_fn_go_together(space, new_trials):
    def stop(trials, *args):
        seen.append(args)
        return len(seen) == 5, [len(seen)]

    seen = []
    trials = run(loss, space, 500, trials=new_trials(), loss_threshold=0.0, early_stop_fn=stop)
    assert seen == [(), (1,), (2,), (3,), (4,)]
    assert len(trials) in (5, 6)  # another thread's evaluation may be under way


def test_a_wrong_threshold_is_refused_as_by_hyperopt(space):
    for way in (partial(fmin, trials=Trials()), Trials().fmin):
        with pytest.raises(Exception, match="loss_threshold argument should be None or a numeric"):
            way(loss, space, algo=hyperband.suggest, max_evals=20, loss_threshold="low")


# The warning.


def too_short(max_evals, first, plan=PLAN):
    return (
        f"max_evals={max_evals} is too few for a result at max_budget={plan.max_budget}: the first takes "
        f"max_evals={first}, a whole Hyperband iteration {plan.evaluations} evaluations"
    )


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest, lambda *args: hyperband.suggest(*args)])
def test_a_run_too_short_says_so_once_and_before_it_starts(space, new_trials, algo):
    told = []
    objective, seen = recorded(lambda p: told.append(len(caught)) or loss(p))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(objective, space, FIRST_FULL - 1, trials=new_trials(), algo=algo)
    [warning] = caught
    assert str(warning.message).startswith(too_short(FIRST_FULL - 1, FIRST_FULL))
    assert told[0] == 1
    assert max(p["epochs"] for p in seen) < 9


@pytest.mark.filterwarnings("ignore:fmin has ended before")
def test_a_run_that_is_long_enough_or_not_sized_by_max_evals_says_nothing(space):
    trials = run(loss, space, FIRST_FULL, trials=Trials())
    assert trials.best_trial["misc"]["budget"] == 9
    run(loss, space, None, trials=Trials(), early_stop_fn=lambda trials, *args: (len(trials) > 2, args))
    run(loss, space, 5, trials=Trials(), algo=tpe.suggest)
    run(loss, space, 5)  # Hyperopt's own Trials


def test_what_is_done_and_what_comes_first_is_counted(space):
    with pytest.warns(UserWarning, match=too_short(5, FIRST_FULL)):
        trials = run(loss, space, 5, trials=Trials())
    with pytest.warns(UserWarning, match=too_short(FIRST_FULL - 1, FIRST_FULL)):
        run(loss, space, FIRST_FULL - 1, trials=trials)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss, space, FIRST_FULL, trials=trials)
        run(loss, space, FIRST_FULL + 1, trials=trials)
    points = [{"x": 1, "branch": 1}, {"x": 2, "branch": 1}]
    with pytest.warns(UserWarning, match=too_short(14, FIRST_FULL + 2)):
        run(loss, space, 14, trials=Trials(points_to_evaluate=points))


@pytest.mark.parametrize(
    ("low", "high", "eta", "first"), [(1, 81, 3, 121), (9, 9, 3, 1), (1, 8, 2, 15), (2, 9, 4, 5)]
)
def test_as_many_evaluations_as_it_names_reach_max_budget(low, high, eta, first):
    space = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", low, high)}
    algo = partial(hyperband.suggest, eta=eta)
    if first > 1:
        with pytest.warns(UserWarning, match=too_short(first - 1, first, schedule(low, high, eta))):
            trials = run(loss, space, first - 1, trials=Trials(), algo=algo)
        assert trials.best_trial["misc"]["budget"] < high
    assert run(loss, space, first, trials=Trials(), algo=algo).best_trial["misc"]["budget"] == high


# The bar.


def shown(capsys):
    """The states of the bar that the run has drawn."""
    return [line for line in re.split(r"[\r\n]+", "".join(capsys.readouterr())) if "|" in line]


def with_bar(objective, space, max_evals, trials, **options):
    fmin(
        objective,
        space,
        max_evals=max_evals,
        trials=trials,
        rstate=np.random.default_rng(0),
        **{"algo": hyperband.suggest, **options},
    )
    return trials


def test_the_bar_counts_budget(space, new_trials, capsys):
    trials = with_bar(loss, space, PLAN.evaluations, new_trials())
    first, *_, last = shown(capsys)
    spent = sum(doc["misc"]["budget"] for doc in trials.trials)
    assert first.startswith(f"budget 0/{PLAN.total_budget} |")
    assert "best ?" in first
    best = trials.best_trial
    newest = trials.trials[-1]["misc"]["hyperband"]
    assert last.startswith(f"budget {spent}/{spent} |")
    assert last.endswith(
        f"best {best['result']['loss']:.4g} at {best['misc']['budget']}, iteration {newest['iteration']}, "
        f"bracket {newest['bracket']}"
    )


@pytest.mark.parametrize("max_evals", [1, 10, FIRST_FULL, 20, 22, 23, 50, 100])
@cut_on_purpose
def test_the_total_is_what_a_serial_run_spends(space, max_evals, capsys):
    trials = with_bar(loss, space, max_evals, Trials())
    spent = sum(doc["misc"]["budget"] for doc in trials.trials)
    totals = {int(line.split("|")[0].split("/")[1]) for line in shown(capsys)}
    assert totals == {spent}


def test_a_run_that_goes_on_counts_from_where_it_stood(space, capsys):
    trials = with_bar(loss, space, 30, Trials(points_to_evaluate=[{"x": 2, "branch": 1}]))
    spent = 9 + sum(doc["misc"]["budget"] for doc in trials.trials[1:])
    *_, last = shown(capsys)
    assert last.startswith(f"budget {spent}/{spent} |")
    with_bar(loss, space, 44, trials)
    first, *_, last = shown(capsys)
    total = 9 + sum(doc["misc"]["budget"] for doc in trials.trials[1:])
    assert first.startswith(f"budget {spent}/{total} |")
    assert last.startswith(f"budget {total}/{total} |")
    with_bar(loss, space, 46, trials, algo=tpe.suggest)
    first, *_, last = shown(capsys)
    assert first.startswith(f"budget {total}/{total + 18} |")
    assert last.startswith(f"budget {total + 18}/{total + 18} |")
    with_bar(loss, space, 46, trials)  # nothing left to do
    assert shown(capsys)[-1].startswith(f"budget {total + 18}/{total + 18} |")


def test_the_bar_ends_full_where_evaluations_fail(space, new_trials, capsys):
    def objective(params):
        if params["x"] > 0:
            raise LookupError
        return loss(params)

    trials = with_bar(objective, space, 60, new_trials(), catch_eval_exceptions=True)
    spent = sum(doc["misc"]["budget"] for doc in trials._dynamic_trials)
    assert len(trials) < 60
    assert shown(capsys)[-1].startswith(f"budget {spent}/{spent} |")


def test_what_is_cut_short_is_not_counted_as_done(space, capsys):
    with ThreadPoolExecutor(2) as executor:
        trials = with_bar(
            loss, space, 60, ExecutorTrials(executor), early_stop_fn=lambda t, *args: (len(t) >= 30, args)
        )
        done = sum(doc["misc"]["budget"] for doc in trials.trials)
        last = shown(capsys)[-1]
    assert last.startswith(f"budget {done}/")
    assert int(last.split("|")[0].split("/")[1]) > done


@pytest.mark.filterwarnings("ignore:fmin has ended before")
def test_floats_are_shown_short_and_without_max_evals_there_is_no_total(capsys):
    space = {"x": hp.uniform("x", 0, 1), "share": hyperband.budget("share", 0.1, 8.1)}
    stop = lambda trials, *args: (len(trials) >= 90, args)  # noqa: E731
    with_bar(lambda p: p["x"], space, None, Trials(), early_stop_fn=stop)
    text = "".join(capsys.readouterr())
    assert re.search(r"budget \d+(\.\d)? 00:0\d, best 0\.\d+ at 0\.1, iteration 0, bracket 4", text)
    assert not re.search(r"\d{6}", text.replace("0.00", ""))


def test_prints_of_the_objective_stay_above_the_bar_and_nothing_shows_where_asked(space, capsys):
    def objective(params):
        print("seen")
        return loss(params)

    with_bar(objective, space, 22, Trials())
    assert capsys.readouterr().out.count("seen\n") == 22
    with_bar(loss, space, 22, Trials(), verbose=False)
    with_bar(loss, space, 22, Trials(), show_progressbar=False)
    assert "".join(capsys.readouterr()) == ""


@cut_on_purpose
def test_a_bar_of_ones_own_counts_evaluations_as_in_hyperopt(space, new_trials):
    bars = []

    @contextmanager
    def bar(initial, total):
        class Bar:
            postfix = None

            def update(self, n):
                bars.append((initial, total, n, self.postfix))

        yield Bar()

    trials = with_bar(misleading, space, 10, new_trials(), show_progressbar=bar)
    assert sum(n for *_, n, _ in bars) == 10
    assert bars[-1][:2] == (0, 10)
    assert bars[-1][-1] == f"best loss: {min(trials.losses())}"


# One of Hyperopt's Trials.


@cut_on_purpose
def test_older_trials_are_taken_over_and_go_on(space):
    def objective(params):
        if params["x"] < 0:
            raise LookupError
        return {"loss": loss(params), "status": STATUS_OK, "attachments": {"model": "weights"}}

    old = run(objective, space, 12, trials=hyperopt.Trials(exp_key="a"), catch_eval_exceptions=True)
    trials = Trials(trials=old)
    assert trials._dynamic_trials == old._dynamic_trials
    assert trials.trial_attachments(trials.trials[0])["model"] == "weights"
    run(objective, space, 40, trials=trials, seed=1, catch_eval_exceptions=True)
    assert {doc["exp_key"] for doc in trials._dynamic_trials} == {"a"}
    assert len({place[:2] for place in places(trials)}) > 1
    whole = run(objective, space, 12, trials=Trials(), catch_eval_exceptions=True)
    assert places(whole) == places(old)


@cut_on_purpose
def test_views_pickles_and_files_answer_alike(space, tmp_path):
    trials = Trials(exp_key="a", points_to_evaluate=[{"x": 4, "branch": 1}])
    file = tmp_path / "trials"
    save = hyperband.save_trials(file)
    run(misleading, space, 25, trials=trials, early_stop_fn=save, trials_save_file=str(tmp_path / "own"))
    view = Trials().view("a")
    assert len(view) == 0
    same = [
        trials.view("a"),
        pickle.loads(pickle.dumps(trials)),
        Trials(trials=hyperband.load_trials(file)),
        hyperband.load_trials(tmp_path / "own"),
    ]
    for each in same:
        assert isinstance(each, Trials)
        assert each.argmin == trials.argmin
        assert each.best_trial["tid"] == trials.best_trial["tid"]
    run(misleading, space, 30, trials=same[1], seed=1)
    assert [doc["misc"]["vals"]["x"] for doc in same[1].trials].count([4]) == 1


def test_views_of_two_experiments_know_their_own(space):
    everything = Trials()
    for key, sign in (("a", 1), ("b", -1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(lambda p, sign=sign: sign * p["x"], space, 22, trials=everything.view(key))
    a, b = everything.view("a"), everything.view("b")
    assert len(a) == len(b) == 22
    assert a.best_trial["exp_key"] == "a"
    assert b.best_trial["exp_key"] == "b"


def test_points_of_hyperopts_own_way_come_first_too():
    space = {"x": hp.uniform("x", -5, 5)}
    points = generate_trials_to_calculate([{"x": 1.0}, {"x": 2.0}])
    trials = run(lambda p: p["x"], space, 5, algo=rand.suggest, trials=Trials(trials=points))
    assert trials.vals["x"][:2] == [1.0, 2.0]
    assert len(trials) == 5


def test_a_run_that_was_cut_goes_on_to_the_same_answer(space):
    whole = run(loss, space, 44, trials=Trials())
    for cut in range(FIRST_FULL, 44, 6):
        trials, rng = Trials(), np.random.default_rng(0)
        for max_evals in (cut, 44):
            best = fmin(
                loss,
                space,
                algo=hyperband.suggest,
                max_evals=max_evals,
                trials=trials,
                rstate=rng,
                verbose=False,
            )
        assert best == whole.argmin
        assert places(trials) == places(whole)


@pytest.mark.skipif(hyperopt.__version__ < "0.3", reason="HyperoptSearchCV came with 0.3")
@pytest.mark.slow
def test_hyperoptsearchcv_takes_them(capsys):
    from hyperopt.sklearn import HyperoptSearchCV
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    space = {"C": hp.loguniform("C", -5, 5), "max_iter": hyperband.budget("max_iter", 10, 90)}
    X, y = load_iris(return_X_y=True)  # noqa: N806
    trials = Trials()
    search = HyperoptSearchCV(
        LogisticRegression(),
        space,
        max_evals=22,
        algo=hyperband.suggest,
        trials=trials,
        warm_start=True,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lbfgs has not converged
        search.fit(X, y)
    assert search.trials_ is trials
    assert trials.best_trial["misc"]["vals"]["max_iter"] == [90]
    assert trials.best_trial["result"]["params"] == space_eval(space, trials.argmin)
    assert "budget" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "ending",
    [
        {"early_stop_fn": no_progress_loss(2)},
        {"early_stop_fn": hyperband.stop_after(seconds=1e-6)},
        {"timeout": 1},
    ],
    ids=["no_progress_loss", "stop_after", "timeout"],
)
def test_a_run_that_ended_at_a_low_budget_says_so(space, ending, new_trials):
    trials = new_trials()
    low = "fmin has ended before a result at max_budget=9: .* at budget 1; "

    def objective(params):
        time.sleep(0.6 if "timeout" in ending else 0)
        return loss(params)

    with pytest.warns(UserWarning, match=low) as told:
        run(objective, space, 100, trials=trials, **ending)
    [needed] = re.findall(r"to max_evals=(\d+) at least", str(told[0].message))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trials = run(loss, space, int(needed), trials=Trials(trials=trials))  # many workers may need more
    assert trials.best_trial["misc"]["budget"] == 9


@pytest.mark.filterwarnings("ignore:.*are not of the run that goes on")
def test_an_evaluation_outside_the_space_meets_no_threshold(new_trials):
    trials = new_trials()
    for low, evaluations in ((0, 22), (2, 44)):
        space = {"x": hp.uniform("x", low, low + 1), "epochs": hyperband.budget("epochs", 1, 9)}
        run(lambda p: p["x"], space, evaluations, trials=trials, loss_threshold=1.0 if low else -1.0)
    assert len(trials) == 44


def test_early_stop_fn_sees_all_that_these_trials_hold(space, new_trials):
    seen = []

    def look(trials, *_):
        seen.append((trials.points_to_evaluate, trials.keep_model))
        return False, []

    points = [{"x": 1.0, "branch": {"kind": "b"}}, {"x": 2.0, "branch": {"kind": "b"}}]
    run(loss, space, 22, trials=new_trials(points_to_evaluate=points, keep_model=True), early_stop_fn=look)
    assert seen == [(points, True)] * 22


def test_points_and_kept_models_outlive_a_kill(space, new_trials, tmp_path):
    points = [{"x": float(i), "branch": {"kind": "b"}} for i in range(4)]
    stop_after_two = lambda trials, *_: (len(trials) == 2, [])  # noqa: E731
    save = hyperband.save_trials(tmp_path / "trials", stop_after_two)
    trials = new_trials(points_to_evaluate=points, keep_model=True)
    run(loss, space, 30, trials=trials, early_stop_fn=save)
    trials = new_trials(trials=hyperband.load_trials(tmp_path / "trials"))
    assert trials.keep_model
    run(loss, space, 30, trials=trials)
    evaluated = [doc["misc"]["vals"]["x"][0] for doc in trials.trials if "hyperband" not in doc["misc"]]
    assert sorted(evaluated) == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.filterwarnings("ignore:max_evals=5 is too few")
def test_a_point_that_was_interrupted_is_done_once_also_where_trials_are_loaded(space, tmp_path):
    point = {"x": 1.0, "branch": {"kind": "b"}}
    objective = interrupted(loss, 1)
    trials = Trials(points_to_evaluate=[point])
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 22, trials=trials)
    run(objective, space, 5, trials=trials, early_stop_fn=hyperband.save_trials(tmp_path / "trials"))
    trials = hyperband.load_trials(tmp_path / "trials")
    run(objective, space, 22, trials=trials)
    assert sum(params["x"] == 1.0 for params in objective.calls) == 2
    assert [record["status"] for record in hyperband.records(trials)[:2]] == ["interrupted", "ok"]


def test_a_point_that_was_interrupted_twice_has_failed(space, caplog):
    objective = interrupted(loss, 1, 2)
    trials = Trials(points_to_evaluate=[{"x": 1.0, "branch": {"kind": "b"}}])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(objective, space, 22, trials=trials)
    run(objective, space, 22, trials=trials)
    assert [record["status"] for record in hyperband.records(trials)[:3]] == ["interrupted", "failed", "ok"]
    assert caplog.text.count("was interrupted twice and has failed") == 1
    assert hyperband.report(trials).pending == 0


@pytest.mark.parametrize("stop_at", [1, 3, 8, 10, 12])
def test_what_is_needed_for_a_result_at_max_budget_counts_what_was_cut_short(space, stop_at):
    with ThreadPoolExecutor(4) as executor:
        trials = ExecutorTrials(executor)
        stop = lambda trials, *_: (len(trials) == stop_at, [])  # noqa: E731
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(loss, space, 100, trials=trials, early_stop_fn=stop)
        [needed] = re.findall(r"to max_evals=(\d+) at least", "".join(str(each.message) for each in caught))
        assert f"max_evals={needed} or more" in str(hyperband.report(trials))
    with ThreadPoolExecutor(1) as executor, warnings.catch_warnings():
        warnings.simplefilter("error")
        trials.executor = executor
        run(loss, space, int(needed), trials=trials)
    assert trials.best_trial["misc"]["budget"] == 9
