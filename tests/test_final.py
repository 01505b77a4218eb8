"""A result that stands for every higher budget is not evaluated again, and counts at max_budget."""

import contextlib
import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import evaluation, interrupted, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, hp, rand, space_eval, tpe, trials_from_docs

from hyperopt_hyperband import Trials, bohb, hyperband, plots
from hyperopt_hyperband._promotion import BracketState, Done, Promote, Wait, advance
from hyperopt_hyperband._rungs import rungs_of

PLAN = hyperband.schedule(1, 9)
SPACE = {"x": hp.uniform("x", 0, 1), "epochs": hyperband.budget("epochs", 1, 9)}
KINDS = hp.choice(
    "model",
    [
        {"kind": "svm", "C": hp.loguniform("C", -3, 3)},
        {"kind": "net", "rate": hp.uniform("rate", 0, 1), "epochs": hyperband.budget("epochs", 1, 9)},
    ],
)
BRACKET = PLAN.bracket(2)


def stops_early(params):
    """Some stop by themselves, after 2 epochs, from which on nothing changes."""
    stopped = params["x"] < 0.5 and params["epochs"] >= 2
    epochs = 2 if stopped else params["epochs"]
    return {"loss": params["x"] + 1 / epochs, "status": STATUS_OK, "final": stopped}


def of_kinds(params):
    if params["kind"] == "svm":
        return abs(np.log(params["C"]))
    return params["rate"] + 1 / params["epochs"]


def counted(objective):
    def counting(params):
        counting.calls.append(repr(sorted({**params, "epochs": None}.items())))
        return objective(params)

    counting.calls = []
    return counting


@pytest.mark.parametrize("final", [True, np.True_, "True", "true"])
def test_what_says_that_it_is_final_is_not_evaluated_again(final):
    trials = run(lambda p: {"loss": p["x"], "status": STATUS_OK, "final": final}, SPACE, 17)
    assert {place[2] for place in places(trials)} == {0}
    assert [record["final"] for record in hyperband.records(trials)] == [True] * 17
    assert places(trials)[-1] == (0, 0, 0, 9), "17 configurations are one iteration"


@pytest.mark.parametrize("final", [False, 0, 1, 1.0, None, np.False_, "False", "no", [], {"a": 1}, [0.5] * 9])
def test_all_other_values_say_that_it_is_not(final):
    objective = lambda p: {"loss": p["x"], "status": STATUS_OK, "final": final}  # noqa: E731
    plain = run(lambda p: p["x"], SPACE, PLAN.evaluations)
    assert places(run(objective, SPACE, PLAN.evaluations)) == places(plain)


@pytest.mark.parametrize(
    "algo", [hyperband.suggest, bohb.suggest, partial(hyperband.suggest, sampler=tpe.suggest)]
)
def test_a_final_configuration_goes_up_with_the_loss_that_it_has(algo):
    objective = counted(stops_early)
    trials = run(objective, SPACE, 60, algo=algo)
    rungs = {}
    for place, record in zip(places(trials), hyperband.records(trials), strict=True):
        rungs.setdefault(place[:3], {})[record["config"]] = record
    for (iteration, s, i), evaluated in rungs.items():
        above = rungs.get((iteration, s, i + 1), {})
        assert not any(evaluated[config]["final"] for config in above if config in evaluated)
    calls = Counter(objective.calls)
    final = [record for record in hyperband.records(trials) if record["final"]]
    assert len(final) > 5
    for record in final:
        assert calls[repr([("epochs", None), ("x", record["param_x"])])] == record["rung"] + 1


def test_the_incumbent_may_be_final_at_a_low_budget():
    trials = run(stops_early, SPACE, PLAN.evaluations - 3, Trials())
    best = min(
        (r for r in hyperband.records(trials) if r["final"] or r["budget"] == 9), key=lambda r: r["loss"]
    )
    assert best["budget"] < 9
    assert hyperband.incumbent(trials)["tid"] == trials.best_trial["tid"] == best["tid"]
    report = hyperband.report(trials)
    assert report.incumbent.tid == best["tid"]
    assert (report.incumbent.budget, report.incumbent.known_at) == (best["budget"], 9)
    assert "at max_budget 9, final, trial" in str(report)
    assert hyperband.argmin(trials) == {"x": best["param_x"], "epochs": best["budget"]}


def test_the_report_says_what_was_saved():
    trials = run(stops_early, SPACE, PLAN.evaluations)
    plain = run(lambda p: stops_early(p)["loss"], SPACE, PLAN.evaluations)
    first, whole = (
        [d for d in each.trials if d["misc"]["hyperband"]["iteration"] == 0] for each in (trials, plain)
    )
    report = hyperband.report(trials_from_docs(first))
    assert report.saved_evaluations == len(whole) - len(first) > 0
    assert report.saved_budget == sum(d["misc"]["budget"] for d in whole) - report.total_budget
    assert report.final == sum(doc["result"]["final"] for doc in first)
    assert [r.evaluations + r.carried for r in report.rungs] == [9, 3, 1, 5, 1, 3]
    for rung, other in zip(report.rungs[:3], hyperband.report(plain).rungs[:3], strict=True):  # drawn alike
        assert (rung.best, rung.median, rung.promoted) == (other.best, other.median, other.promoted)
    text = str(report)
    saved = rf"known without another +{report.saved_evaluations} evaluations at higher budgets, a total"
    assert re.search(saved, text)
    assert re.search(rf"final results +{report.final}$", text, re.MULTILINE)
    assert " + 1 known" in text
    assert not re.search("final results|known without", str(hyperband.report(plain)))


def test_the_report_carries_no_more_than_the_run_where_an_evaluation_was_interrupted():
    objective = interrupted(lambda p: {"loss": p["x"], "status": STATUS_OK, "final": True}, 9)
    trials = Trials()
    with contextlib.suppress(KeyboardInterrupt):
        run(objective, SPACE, 22, trials)
    assert hyperband.report(trials).pending == 1
    assert hyperband.report(trials).saved_evaluations == 2, "the third place is not sure yet"
    run(objective, SPACE, 22, trials)
    assert hyperband.report(trials).saved_evaluations > 0


def test_a_failed_evaluation_is_not_final():
    def objective(params):
        return {"status": STATUS_FAIL, "final": True} if params["x"] < 0.5 else stops_early(params)

    trials = run(objective, SPACE, 40)
    assert all(loss is None or loss > 0.5 for loss in trials.losses() if loss)
    report = hyperband.report(trials)
    assert report.final == sum(r["final"] and r["status"] == "ok" for r in hyperband.records(trials))


def test_a_larger_max_budget_later_leaves_a_final_result_final():
    trials = run(stops_early, SPACE, PLAN.evaluations)
    best = hyperband.incumbent(trials)
    assert best["result"]["final"]
    larger = SPACE | {"epochs": hyperband.budget("epochs", 1, 27)}
    with pytest.warns(UserWarning, match="trials come from a Hyperband run with other"):
        run(lambda p: p["x"] + 5, larger, 90, trials)
    assert 27 in {doc["misc"]["budget"] for doc in trials.trials}
    assert hyperband.incumbent(trials) is best


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_run_with_final_results_goes_on_where_it_was_cut(cut):
    algo = lambda ids, domain, trials, seed: hyperband.suggest(ids, domain, trials, 7)  # noqa: E731
    whole = run(stops_early, SPACE, 40, algo=algo)
    first = run(stops_early, SPACE, cut, algo=algo)
    again = json.loads(json.dumps(first._dynamic_trials, default=str))
    rest = run(stops_early, SPACE, 40, trials_from_docs(again), algo=algo)
    assert places(rest) == places(whole)
    assert rest.losses() == whole.losses()


# Configurations without a budget.


def test_a_configuration_without_a_budget_is_evaluated_once():
    objective = counted(of_kinds)
    trials = run(objective, KINDS, 44)
    svm = [call for call in objective.calls if "svm" in call]
    assert len(svm) == len(set(svm)) > 10
    for doc, record in zip(trials.trials, hyperband.records(trials), strict=True):
        without = doc["misc"]["vals"]["epochs"] == []
        assert record["final"] == without == ("final" in doc["misc"]["hyperband"])
        assert not without or record["rung"] == 0
    best = min(r["loss"] for r in hyperband.records(trials) if r["final"] or r["budget"] == 9)
    assert hyperband.incumbent(trials)["result"]["loss"] == best
    assert space_eval(KINDS, hyperband.argmin(trials))["kind"] in ("svm", "net")


def test_a_space_without_any_budget_keeps_the_schedule_in_misc():
    space = hp.choice("m", [{"x": hp.uniform("x", 0, 1)}, {"y": hp.uniform("y", 0, 1)}])
    objective = hyperband.with_budget(lambda params, budget=9: sum(params.values()) + 1 / budget)
    trials = run(objective, space, PLAN.evaluations)
    planned = [(0, b.s, i, r.budget) for b in PLAN.brackets for i, r in enumerate(b.rungs)]
    assert Counter(places(trials)) == {
        place: PLAN.bracket(place[1]).rungs[place[2]].configurations for place in planned
    }
    assert not any(record["final"] for record in hyperband.records(trials))


def test_an_objective_with_a_budget_gets_the_full_one_where_none_is_active():
    seen = []

    @hyperband.with_budget
    def objective(params, budget=9, checkpoint=None):
        seen.append((params["kind"], params.get("epochs"), budget))
        assert params["kind"] == "net" or checkpoint is None
        return {"loss": of_kinds(params), "status": STATUS_OK, "checkpoint": [budget]}

    trials = run(objective, KINDS, 30)
    assert {budget for kind, _, budget in seen if kind == "svm"} == {9}
    assert all(epochs == budget for kind, epochs, budget in seen if kind == "net")
    held = {name for name in trials.attachments if name.endswith("checkpoint")}
    svm = {d["tid"] for d in trials.trials if d["misc"]["vals"]["epochs"] == []}
    assert not any(trials.aname({"tid": tid}, "checkpoint") in held for tid in svm)


def test_a_final_evaluation_leaves_no_checkpoint_and_drops_that_below(tmp_path):
    for folder in (None, tmp_path):

        @hyperband.with_budget(checkpoint_dir=folder)
        def objective(params, budget=9, checkpoint=None):
            return {**stops_early({**params, "epochs": budget}), "checkpoint": budget}

        trials = run(objective, {"x": SPACE["x"]}, 60)
        names = {name for name in trials.attachments if name.endswith("checkpoint")}
        for doc in trials.trials:
            if doc["result"]["final"]:
                assert trials.aname(doc, "checkpoint") not in names
                below = doc["misc"]["hyperband"].get("below")
                assert below is None or trials.aname({"tid": below}, "checkpoint") not in names
        assert folder is None or len(list(folder.rglob("*.pkl"))) == len(names) <= 9


def test_a_model_learns_final_results_as_those_of_max_budget():
    known = []

    def sampler(new_ids, domain, trials, seed):
        known.append([(d["misc"]["vals"], d["result"]["loss"]) for d in trials.trials])
        return rand.suggest(new_ids, domain, trials, seed)

    trials = run(stops_early, SPACE, 30, algo=partial(hyperband.suggest, sampler=sampler, random_share=0))
    by_x = {r["param_x"]: r for r in hyperband.records(trials) if r["final"]}
    ranks = {vals["x"][0]: rank for vals, rank in known[-1] if vals["x"][0] in by_x}
    low = [rank for vals, rank in known[-1] if vals["x"][0] not in by_x and vals["x"][0] > 0.5]
    assert ranks
    assert max(ranks.values()) < max(low), "a final result outranks one of a low budget"


@pytest.mark.parametrize("max_evals", [1, 5])
def test_fmin_does_not_complain_of_low_budgets_where_a_result_is_final(max_evals):
    objective = lambda p: {"loss": p["x"], "status": STATUS_OK, "final": True}  # noqa: E731
    trials = run(objective, SPACE, PLAN.evaluations, Trials())
    run(objective, SPACE, PLAN.evaluations + max_evals, trials)
    assert trials.best_trial["result"]["loss"] == min(trials.losses())


def test_loss_threshold_is_met_by_a_final_result():
    trials = run(stops_early, SPACE, 100, Trials(), loss_threshold=0.7)
    assert len(trials) < 100
    assert trials.trials[-1]["result"]["final"]
    assert trials.trials[-1]["misc"]["budget"] < 9


def test_stopping_counts_what_is_known():
    trials = run(stops_early, SPACE, None, Trials(), early_stop_fn=hyperband.stop_after(iterations=2))
    assert {place[0] for place in places(trials)} == {0, 1}
    assert len(trials) < 2 * PLAN.evaluations
    flat = lambda p: {"loss": 1.0, "status": STATUS_OK, "final": True}  # noqa: E731
    trials = run(flat, SPACE, 300, Trials(), early_stop_fn=hyperband.no_progress())
    assert len(trials) <= 2 * PLAN.configurations + 1


def test_a_small_space_is_exhausted_by_final_results():
    space = {"x": hp.choice("x", list(range(20))), "epochs": hyperband.budget("epochs", 1, 9)}
    trials = run(lambda p: {"loss": p["x"], "status": STATUS_OK, "final": True}, space, 20)
    assert sorted(doc["misc"]["vals"]["x"][0] for doc in trials.trials) == list(range(20))


def test_the_pictures_know_what_is_final():
    trials = run(stops_early, SPACE, PLAN.evaluations)
    ends = {max(line.get_xdata()) for line in plots.evaluations(trials).get_lines()}
    assert 9 in ends
    budgets = Counter(record["budget"] for record in hyperband.records(trials) if record["final"])
    assert budgets.keys() - {9}, "some are final below max_budget"
    for axes in (plots.incumbent(trials), plots.budgets(trials), *plots.hyperparameters(trials)):
        axes.figure.canvas.draw()


def test_the_report_lets_nothing_up_while_a_first_evaluation_is_to_be_repeated():
    first = [replace(e, place=(0, 2, 0), known_at=9, final=True) for e in entered(*range(9)).values()]
    cut = [replace(e, status="interrupted", loss=None) if e.config == 4 else e for e in first]
    later = replace(first[0], place=(0, 1, 0), config=99)
    assert [rung.carried for rung in rungs_of(PLAN, [*first, later])] == [0, 3, 1, 0]
    assert [rung.carried for rung in rungs_of(PLAN, [*cut, later])] == [0, 0]


# The rule, pure.


def entered(*losses):
    return {i: evaluation(i, 1, loss, {}) for i, loss in enumerate(losses)}


def told(e):
    return None if e.status == "pending" else e.loss if e.loss is not None else np.inf


def advanced(rungs, final):
    state = BracketState(tuple(rungs))
    action = advance(BRACKET, state, told, lambda e: 9 if e.config in final else e.budget)
    return action, [sorted(rung) for rung in state.rungs]


def test_only_what_qualifies_goes_up():
    losses = entered(*range(9))
    assert advanced([losses, {}, {}], final={0, 5}) == (Promote(1, 1), [[*range(9)], [0], []])
    assert advanced([losses, {}, {}], final={0, 1, 2}) == (Done(), [[*range(9)], [0, 1, 2], [0]])
    assert advanced([losses, {}, {}], final={1, 2}) == (
        Promote(0, 1),
        [[*range(9)], [], []],
    )  # the best first
    up = {0: losses[0]}
    assert advanced([losses, up, {}], final={1, 2}) == (Promote(0, 2), [[*range(9)], [0, 1, 2], []])


def test_what_is_pending_may_still_push_it_out():
    losses = entered(0, 1, 2, 3, 4, 5, 6, None, None)
    assert advanced([losses, {}, {}], final={0, 1, 2}) == (Wait(), [[*range(9)], [0], []])
    losses = entered(0, 1, 2, 3, 4, 5, None, None, None)
    assert advanced([losses, {}, {}], final={0, 1, 2}) == (Wait(), [[*range(9)], [], []])
