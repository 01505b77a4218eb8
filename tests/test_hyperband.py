import logging
import math
import pickle
import re
import warnings
from functools import partial

import numpy as np
import pytest
from conftest import interrupted, loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp, rand, tpe
from hyperopt.base import JOB_STATE_ERROR, Domain, trials_from_docs
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.fmin import fmin_pass_expr_memo_ctrl

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._samplers import generator

ITERATION = hyperband.schedule(1, 9).evaluations


def planned(plan):
    return [
        (bracket.s, i, rung.budget)
        for bracket in plan.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    ]


def test_what_is_planned_is_what_is_done(space):
    trials = run(loss, space, 2 * ITERATION)
    for iteration in range(2):
        done = [place[1:] for place in places(trials) if place[0] == iteration]
        assert sorted(done) == sorted(planned(hyperband.schedule(1, 9)))


def test_the_default_schedule_is_the_paper_s():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 81)}
    trials = run(loss, space, 206)
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(1, 81, 3)))


def test_the_budget_stands_in_misc_in_vals_and_in_the_parameters(space):
    seen = []

    def objective(params):
        seen.append(params["epochs"])
        return loss(params)

    trials = run(objective, space, ITERATION)
    assert all(type(budget) is int for budget in seen)
    assert seen == [doc["misc"]["budget"] for doc in trials.trials]
    assert [[budget] for budget in seen] == [doc["misc"]["vals"]["epochs"] for doc in trials.trials]
    assert not any("from_tid" in doc["misc"] for doc in trials.trials)


def test_a_promotion_keeps_the_configuration_and_is_among_the_best(space):
    trials = run(loss, space, ITERATION)
    by_place = {}
    for doc in trials.trials:
        stamp = doc["misc"]["hyperband"]
        by_place.setdefault((stamp["bracket"], stamp["rung"]), {})[stamp["config"]] = doc
    for (bracket, rung), promoted in by_place.items():
        if rung == 0:
            assert all(config == doc["tid"] for config, doc in promoted.items())
            continue
        below = by_place[bracket, rung - 1]
        best = sorted(below, key=lambda config: (below[config]["result"]["loss"], config))
        assert set(promoted) == set(best[: len(promoted)])
        for config, doc in promoted.items():
            was, now = below[config]["misc"]["vals"], doc["misc"]["vals"]
            assert {**now, "epochs": 0} == {**was, "epochs": 0}
            assert doc["misc"]["idxs"] == {k: [doc["tid"]] if v else [] for k, v in now.items()}


def test_documents_hold_plain_values_only(space):
    trials = run(loss, space, ITERATION, max_queue_len=7)
    assert any(doc["misc"]["hyperband"]["open"] for doc in trials.trials)
    for doc in trials.trials:
        assert type(doc["misc"]["budget"]) in (int, float)
        stamp = doc["misc"]["hyperband"]
        assert {type(value) for name, value in stamp.items() if name not in ("open", "label")} == {int}
        assert type(stamp["label"]) is str
        assert all(type(value) is int for bracket in stamp["open"] for value in bracket)
        assert {type(bracket) for bracket in stamp["open"]} <= {list}
        assert {type(label) for label in doc["misc"]["vals"]} == {str}


def test_the_same_seed_gives_the_same_run(space):
    first, second, other = (run(loss, space, ITERATION, seed=seed) for seed in (1, 1, 2))
    assert first.vals == second.vals
    assert first.vals != other.vals


def test_one_budget_is_random_search():
    space = {"x": hp.uniform("x", -5, 5), "c": hp.choice("c", [0, hp.normal("y", 0, 1)])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no budgets, as asked for
        ours = run(lambda p: p["x"], space, 20, algo=partial(hyperband.suggest, min_budget=9, max_budget=9))

    def by_id(new_ids, domain, trials, seed):
        [new_id] = new_ids
        return rand.suggest(new_ids, domain, trials, generator(seed, new_id))

    theirs = run(lambda p: p["x"], space, 20, algo=by_id)
    assert ours.vals == theirs.vals
    assert {doc["misc"]["budget"] for doc in ours.trials} == {9}


@pytest.mark.parametrize("cut", range(1, ITERATION + 3))
def test_cut_after_any_document_and_gone_on_with_it_is_the_same_run(space, cut):
    whole = run(loss, space, ITERATION + 3)
    rstate = np.random.default_rng(0)
    rstate.integers(2**31 - 1, size=cut)
    trials = pickle.loads(pickle.dumps(trials_from_docs(whole.trials[:cut])))
    fmin(
        loss,
        space,
        algo=hyperband.suggest,
        max_evals=ITERATION + 3,
        trials=trials,
        rstate=rstate,
        verbose=False,
    )
    assert places(trials) == places(whole)
    assert trials.vals == whole.vals


def test_max_evals_stops_the_run_and_more_of_them_go_on(space):
    whole = run(loss, space, 2 * ITERATION)
    trials = Trials()
    rstate = np.random.default_rng(0)
    for max_evals in (5, 6, ITERATION, ITERATION + 1, 2 * ITERATION):
        fmin(
            loss,
            space,
            algo=hyperband.suggest,
            max_evals=max_evals,
            trials=trials,
            rstate=rstate,
            verbose=False,
        )
        assert len(trials) == max_evals
    assert trials.vals == whole.vals


@pytest.mark.parametrize("max_queue_len", [2, 5, 100])
def test_several_ids_a_call_do_the_same_schedule(space, max_queue_len):
    trials = run(loss, space, 400, max_queue_len=max_queue_len)
    for iteration in range(3):
        done = sorted(place[1:] for place in places(trials) if place[0] == iteration)
        assert done == sorted(planned(hyperband.schedule(1, 9)))


def test_a_failure_is_never_promoted_and_the_run_goes_on(space):
    def objective(params):
        match int(params["x"] * 1000) % 6:
            case 0:
                raise RuntimeError("diverged")
            case 1:
                return {"status": STATUS_FAIL}
            case 2:
                return {"status": STATUS_OK}
            case 3:
                return {"status": STATUS_OK, "loss": math.nan}
            case 4:
                return {"status": STATUS_OK, "loss": -math.inf}
        return loss(params)

    trials = run(objective, space, 3 * ITERATION, catch_eval_exceptions=True)
    assert any(doc["state"] == JOB_STATE_ERROR for doc in trials._dynamic_trials)
    good = {
        doc["misc"]["hyperband"]["config"]
        for doc in trials._dynamic_trials
        if int(doc["misc"]["vals"]["x"][0] * 1000) % 6 == 5
    }
    promoted = [d["misc"]["hyperband"] for d in trials._dynamic_trials if d["misc"]["hyperband"]["rung"] > 0]
    assert promoted
    assert {stamp["config"] for stamp in promoted} <= good
    assert hyperband.incumbent(trials)["misc"]["hyperband"]["config"] in good
    feet = [place for place in places(trials) if place[:3] == (0, 2, 0)]
    assert len(feet) == 9


def test_a_run_in_which_everything_fails_still_ends(space):
    trials = Trials()
    with pytest.raises(AllTrialsFailed):  # Hyperopt's own, when the run is over
        run(lambda _: {"status": STATUS_FAIL}, space, 50, trials=trials)
    assert len(trials) == 50
    assert {rung for _, _, rung, _ in places(trials)} == {0}
    assert {bracket for _, bracket, _, _ in places(trials)} == {0, 1, 2}


@pytest.mark.parametrize("at", [1, 4, 9, 12, 13, 20])
def test_an_interrupted_evaluation_is_issued_again(space, at):
    objective = interrupted(loss, at)
    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, ITERATION + 1, trials=trials)
    run(objective, space, ITERATION + 1, trials=trials, seed=1)
    assert objective.calls[at] == objective.calls[at - 1]
    [dead] = [doc for doc in trials._dynamic_trials if doc["state"] == 1]
    assert dead["misc"]["hyperband"]["config"] == trials._dynamic_trials[at]["misc"]["hyperband"]["config"]
    alive = [doc["misc"] for doc in trials._dynamic_trials if doc is not dead]
    done = [(m["hyperband"]["bracket"], m["hyperband"]["rung"], m["budget"]) for m in alive]
    assert sorted(done) == sorted(planned(hyperband.schedule(1, 9)))


def test_an_interruption_with_several_ids_in_the_queue(space):
    objective = interrupted(loss, 2, 6, 13)
    trials = Trials()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(objective, space, ITERATION + 3, trials=trials, max_queue_len=4)
    run(objective, space, ITERATION + 3, trials=trials, max_queue_len=4)
    alive = [doc["misc"] for doc in trials._dynamic_trials if doc["state"] == 2]
    done = [(m["hyperband"]["bracket"], m["hyperband"]["rung"], m["budget"]) for m in alive]
    assert sorted(done) == sorted(planned(hyperband.schedule(1, 9)))


def test_an_exception_that_is_not_caught_leaves_trials_that_can_be_gone_on_with(space):
    calls = []

    def objective(params):
        calls.append(params)
        if len(calls) == 5:
            raise RuntimeError("once")
        return loss(params)

    trials = Trials()
    with pytest.raises(RuntimeError, match="once"):
        run(objective, space, ITERATION, trials=trials)
    run(objective, space, ITERATION, trials=trials)
    assert [place[2] for place in places(trials)[:10]] == [0] * 9 + [1]


def test_foreign_trials_take_no_place(space):
    trials = run(loss, space, 25, algo=tpe.suggest)
    run(loss, space, 25 + ITERATION, trials=trials)
    assert sorted(
        (s["bracket"], s["rung"], doc["misc"]["budget"])
        for doc in trials.trials[25:]
        for s in [doc["misc"]["hyperband"]]
    ) == sorted(planned(hyperband.schedule(1, 9)))


def test_points_to_evaluate_come_first_and_take_no_place(space):
    points = [{"x": 1.0, "branch": 1, "epochs": 9}, {"x": 2.0, "branch": 0, "y": 0.5, "epochs": 9}]
    fmin_trials = []

    def objective(params):
        fmin_trials.append(params)
        return loss(params)

    fmin(
        objective,
        space,
        algo=hyperband.suggest,
        max_evals=ITERATION,
        points_to_evaluate=points,
        rstate=np.random.default_rng(0),
        verbose=False,
    )
    assert [p["x"] for p in fmin_trials[:2]] == [1.0, 2.0]
    budgets = [p["epochs"] for p in fmin_trials[2:]]
    assert sorted(budgets) == sorted(budget for _, _, budget in planned(hyperband.schedule(1, 9)))


def test_a_run_with_other_options_is_foreign_with_one_warning():
    space = {"x": hp.uniform("x", -5, 5)}
    objective = hyperband.with_budget(lambda params, budget: params["x"] ** 2 + 1 / budget)
    trials = run(objective, space, 10, algo=partial(hyperband.suggest, max_budget=9))
    with pytest.warns(UserWarning, match="10 trials come from a Hyperband run with other") as caught:
        run(objective, space, 15, trials=trials, algo=partial(hyperband.suggest, max_budget=27))
    assert len(caught) == 1
    assert places(trials)[10:] == [(0, 3, 0, 1)] * 5
    with pytest.warns(UserWarning, match="5 trials come from") as caught:
        run(objective, space, 17, trials=trials, algo=partial(hyperband.suggest, max_budget=9))
    assert len(caught) == 1
    assert [place[2] for place in places(trials)[15:]] == [1, 1]


def test_an_objective_that_cannot_see_its_budget_gets_one_warning():
    with pytest.warns(UserWarning, match=r"can't see its budget.*hyperband\.budget\(label") as caught:
        trials = run(lambda params: params["x"] ** 2, {"x": hp.uniform("x", -5, 5)}, 206)
    assert len(caught) == 1
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(1, 81, 3)))


def said(space, **options):
    """The warnings that a run and its going on give."""
    seen = hyperband.with_budget(lambda params, budget: params["x"])
    trials = Trials()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for max_evals in (1, 5, 12):
            run(seen, space, max_evals, trials, algo=partial(hyperband.suggest, **options))
    return [str(warning.message) for warning in caught]


def test_the_warning_names_the_way_to_search_without_budgets_which_warns_no_more():
    unseen = {"x": hp.uniform("x", -5, 5)}
    with pytest.warns(
        UserWarning, match="can't see its budget.* without budgets.* pass min_budget=max_budget"
    ):
        run(lambda params: params["x"], unseen, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = partial(hyperband.suggest, min_budget=81)
        trials = run(lambda params: params["x"], unseen, 5, algo=full)
    assert places(trials) == [(i, 0, 0, 81) for i in range(5)]


@pytest.mark.parametrize(
    ("budgets", "eta", "remedy"),
    [
        ((3, 8), 3, "min_budget=2 or less, or eta=2"),
        ((50, 100), 3, "min_budget=33 or less, or eta=2"),
        ((2, 3), 3, "min_budget=1 or less"),
        ((2, 3), 4, "min_budget=1 or less and eta=2"),
        ((1, 2), 3, "eta=2"),
        ((0.7, 1.0), 3, "min_budget=0.333 or less"),
        ((0.1, 0.29), 3, "min_budget=0.0966 or less, or eta=2"),
    ],
)
def test_budgets_that_leave_one_bracket_are_told_once_with_numbers_that_would_do(budgets, eta, remedy):
    space = {"x": hp.uniform("x", -5, 5)}
    low, high = budgets
    [warning] = said(space, min_budget=low, max_budget=high, eta=eta)
    assert warning == (
        f"min_budget={low} times eta={eta} is above max_budget={high}, so every evaluation is at max_budget: "
        f"plain random search at full budget; for lower budgets take {remedy}"
    )
    numbers = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", remedy)}
    if isinstance(low, int):
        numbers = {name: int(value) for name, value in numbers.items()}
    ways = [numbers] if " and " in remedy else [{name: value} for name, value in numbers.items()]
    for way in ways:
        assert (
            len(hyperband.schedule(**{"min_budget": low, "max_budget": high, "eta": eta} | way).brackets) > 1
        )
        assert not said(space, **{"min_budget": low, "max_budget": high, "eta": eta} | way)


def test_budgets_of_the_space_that_leave_one_bracket_are_told_in_its_own_steps():
    tens = {"x": hp.uniform("x", -5, 5), "n": hp.quniform("n", 40, 100, 10)}
    [warning] = said(tens, budget="n")
    assert "min_budget=40 times eta=3 is above max_budget=100" in warning
    assert warning.endswith("take min_budget=30 or less, or eta=2")
    [warning] = said({"x": hp.uniform("x", -5, 5), "n": hyperband.budget("n", 4, 9)}, sampler=tpe.suggest)
    assert warning.endswith(
        "plain search at full budget; for lower budgets take min_budget=3 or less, or eta=2"
    )


def test_an_objective_that_sees_its_budget_gets_no_warning(space):
    @fmin_pass_expr_memo_ctrl
    def low_level(expr, memo, ctrl):
        return ctrl.current_trial["misc"]["budget"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss, space, 5)
        run(low_level, {"x": hp.uniform("x", -5, 5)}, 5)
        numeric = {"x": hp.uniform("x", -5, 5), "epochs": hp.uniformint("epochs", 1, 9)}
        run(loss, numeric, 5, algo=partial(hyperband.suggest, budget="epochs"))


def test_a_label_of_an_existing_space_is_the_budget():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hp.quniform("epochs", 1, 9, 1)}
    seen = []

    def objective(params):
        seen.append(params["epochs"])
        return loss(params)

    trials = run(objective, space, ITERATION, algo=partial(hyperband.suggest, budget="epochs"))
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(1, 9)))
    assert seen == [doc["misc"]["budget"] for doc in trials.trials]


def test_float_budgets():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 0.1, 8.1)}
    trials = run(loss, space, 206)
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(0.1, 8.1)))


def test_a_budget_in_a_branch_that_may_be_inactive():
    space = hp.choice("model", [{"epochs": hyperband.budget("epochs", 1, 9)}, {"x": hp.uniform("x", 0, 1)}])
    seen = []

    def objective(params):
        seen.append(params.get("epochs"))
        return params.get("x", 0.5)

    trials = run(objective, space, ITERATION)
    assert {place[1:] for place in places(trials)} <= set(planned(hyperband.schedule(1, 9)))
    assert None in seen
    for epochs, doc in zip(seen, trials.trials, strict=True):
        assert epochs in (None, doc["misc"]["budget"])
        assert doc["misc"]["vals"]["epochs"] == ([] if epochs is None else [epochs])


def test_every_distribution_and_a_space_that_is_no_dict():
    space = [
        hp.choice("a", [0, (1, hp.randint("b", 10))]),
        hp.randint("bb", 12, 25),
        hp.uniformint("c", 1, 5),
        hp.loguniform("d", -2, 0),
        hp.quniform("e", 0, 10, 3),
        hp.qloguniform("f", 0, 3, 2),
        hp.normal("g", 4, 7),
        hp.lognormal("h", -2, 2),
        hp.qnormal("i", 0, 10, 2),
        hp.qlognormal("j", 0, 2, 1),
        hp.pchoice("k", [(0.1, 0), (0.9, 1)]),
        hyperband.budget("epochs", 1, 9),
    ]
    trials = run(lambda point: point[3] + 1 / point[-1], space, ITERATION)
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(1, 9)))


@pytest.mark.parametrize(
    ("size", "feet"), [(1, (1, 1, 1)), (2, (2, 1, 2)), (4, (4, 3, 3)), (7, (7, 5, 3)), (9, (9, 5, 3))]
)
@pytest.mark.filterwarnings("ignore:the space has")
def test_a_small_space_is_not_evaluated_twice_in_a_bracket_and_the_run_ends(size, feet):
    space = {"x": hp.choice("x", list(range(size))), "epochs": hyperband.budget("epochs", 1, 9)}
    trials = run(loss, space, 3 * ITERATION)
    seen = [
        (place, doc["misc"]["vals"]["x"][0]) for place, doc in zip(places(trials), trials.trials, strict=True)
    ]
    assert len(seen) == len(set(seen)) == 3 * ITERATION
    assert tuple(len([1 for place, _ in seen if place[:3] == (0, s, 0)]) for s in (2, 1, 0)) == feet


@pytest.mark.filterwarnings("ignore:the space has")
def test_an_unlikely_configuration_is_found_before_a_rung_shrinks():
    rare = hp.pchoice("x", [(0.005, 0), (0.005, 1), (0.99, 2)])
    trials = run(loss, {"x": rare, "epochs": hyperband.budget("epochs", 1, 3)}, 40)
    assert len([1 for place in places(trials) if place[:3] == (0, 1, 0)]) == 3


def test_fmin_s_own_options_go_on_working(space, tmp_path):
    file = str(tmp_path / "trials.pkl")
    run(loss, space, 12, trials_save_file=file)
    with open(file, "rb") as saved:
        assert places(pickle.load(saved)) == places(run(loss, space, 12))
    assert len(run(loss, space, 500, loss_threshold=5.0)) < 50
    assert len(run(loss, space, 500, early_stop_fn=no_progress_loss(10))) < 200
    assert len(run(loss, space, 10**6, timeout=0.5)) < 10**5
    assert fmin(loss, space, algo=hyperband.suggest, max_evals=5, verbose=False).keys() >= {"x", "epochs"}
    best = fmin(loss, space, algo=hyperband.suggest, max_evals=5, verbose=False, return_argmin=False)
    assert best["branch"]["kind"] in "ab"


def test_trials_saved_to_a_file_are_gone_on_with(space, tmp_path):
    file = str(tmp_path / "trials.pkl")
    for max_evals in (7, 15, ITERATION):
        fmin(
            loss,
            space,
            algo=hyperband.suggest,
            max_evals=max_evals,
            rstate=np.random.default_rng(max_evals),
            verbose=False,
            trials_save_file=file,
        )
    with open(file, "rb") as saved:
        trials = pickle.load(saved)
    assert sorted(place[1:] for place in places(trials)) == sorted(planned(hyperband.schedule(1, 9)))


def test_several_experiments_in_one_trials_keep_apart(space):
    everything = Trials()
    for exp_key in ("a", "b"):
        trials = everything.view(exp_key)
        run(loss, space, ITERATION, trials=trials)
        assert len(trials) == ITERATION
        mine = [doc["misc"]["hyperband"] for doc in trials.trials]
        assert sorted((s["bracket"], s["rung"]) for s in mine) == sorted(
            (s, rung) for s, rung, _ in planned(hyperband.schedule(1, 9))
        )


def test_a_schedule_of_more_than_a_million_evaluations_is_refused():
    domain = Domain(lambda _: 0, hp.uniform("x", 0, 1))
    with pytest.raises(
        ValueError, match=r"max_budget=1000000, eta=2 plan \d+ evaluations.*raise min_budget or eta"
    ):
        hyperband.suggest([0], domain, Trials(), 0, max_budget=10**6, eta=2)


def test_brackets_and_promotions_are_logged(space, caplog):
    with caplog.at_level(logging.INFO, "hyperopt_hyperband"):
        run(loss, space, ITERATION + 1)
    lines = [record.getMessage() for record in caplog.records if record.name == "hyperopt_hyperband"]
    assert lines[0] == "iteration 0, bracket 2 opens: 9 x 1, 3 x 3, 1 x 9"
    assert lines[-1] == "iteration 1, bracket 2 opens: 9 x 1, 3 x 3, 1 x 9"
    assert sum(" goes up to rung 1, budget " in line for line in lines) == 4
    assert len(lines) == 4 + 5


def test_the_incumbent_is_the_best_at_the_largest_budget(space):
    trials = run(lambda params: params["x"] + params["epochs"], space, 12)
    best = hyperband.incumbent(trials)
    assert best["misc"]["budget"] == 3
    assert best["result"]["loss"] == min(
        d["result"]["loss"] for d in trials.trials if d["misc"]["budget"] == 3
    )
    assert best is not trials.best_trial
    run(lambda params: params["x"] + params["epochs"], space, 13, trials=trials)
    assert hyperband.incumbent(trials)["misc"]["budget"] == 9


def test_the_incumbent_of_a_run_without_budgets_is_its_best_trial(space):
    trials = run(loss, space, 10, algo=rand.suggest)
    assert hyperband.incumbent(trials) is trials.best_trial
