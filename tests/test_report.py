import csv
import io
import math
import re
import statistics
import time
from functools import partial
from types import SimpleNamespace

import pytest
from conftest import interrupted, loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp, rand, space_eval, tpe
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_RUNNING, Domain
from hyperopt.early_stop import no_progress_loss
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.fmin import generate_trials_to_calculate
from simulator import Simulation

from hyperopt_hyperband import Trials as OwnTrials
from hyperopt_hyperband import hyperband
from hyperopt_hyperband._tables import clock

PLAN = hyperband.schedule(1, 9)
ITERATION = PLAN.evaluations


def done(report):
    """Iteration, bracket, rung, budget and evaluations of every rung."""
    return [(r.iteration, r.bracket, r.rung, r.budget, r.evaluations) for r in report.rungs]


def planned(plan, iterations):
    return [
        (iteration, bracket.s, i, rung.budget, rung.configurations)
        for iteration in range(iterations)
        for bracket in plan.brackets
        for i, rung in enumerate(bracket.rungs)
    ]


def first_line(report):
    return str(report).splitlines()[0]


def test_a_whole_run_is_reported_as_planned(space):
    report = hyperband.report(run(loss, space, 2 * ITERATION))
    assert report.schedule == PLAN
    assert done(report) == planned(PLAN, 2)
    assert [rung.promoted for rung in report.rungs] == 2 * [3, 1, 0, 1, 0, 0]
    assert report.evaluations == 2 * PLAN.evaluations
    assert report.configurations == 2 * PLAN.configurations
    assert report.total_budget == 2 * PLAN.total_budget
    assert report.total_budget_continued == 2 * PLAN.total_budget_continued
    assert report.full_search_budget == 2 * PLAN.configurations * 9
    assert (report.failed, report.pending, report.interrupted, report.foreign) == (0, 0, 0, 0)


def test_losses_are_those_of_the_rung(space):
    trials = run(loss, space, ITERATION)
    for rung in hyperband.report(trials).rungs:
        losses = [
            doc["result"]["loss"]
            for place, doc in zip(places(trials), trials.trials, strict=True)
            if place[:3] == (rung.iteration, rung.bracket, rung.rung)
        ]
        assert (rung.best, rung.median) == (min(losses), statistics.median(losses))


def test_there_is_a_report_at_every_moment_of_a_run(space):
    seen = []

    def objective(params):
        report = hyperband.report(trials, space=space)
        seen.append((report.evaluations, report.pending, sum(r.pending for r in report.rungs), str(report)))
        return loss(params)

    trials = Trials()
    run(objective, space, ITERATION, trials=trials)
    assert [entry[:3] for entry in seen] == [(k, 1, 1) for k in range(ITERATION)]
    assert "0 of 1 configuration, 1 pending" in seen[0][3]
    assert "Incumbent: none, no evaluation has succeeded yet" in seen[0][3]
    assert "4 of 9        1" in seen[4][3]
    assert "4 of 13 (1 pending) in iteration 0, bracket 2, which ends at max_budget" in seen[4][3]
    assert "max_evals=14 or more" in seen[4][3], "the one under way may be an interrupted one"


def test_no_trials_make_an_empty_report():
    report = hyperband.report(Trials())
    assert (report.schedule, report.rungs, report.incumbent, report.wall_seconds) == (None, (), None, None)
    assert str(report) == (
        "Incumbent: none, no evaluation has succeeded yet\n\nTotals\nevaluations  0 of 0 configurations"
    )
    assert hyperband.records(Trials()) == []


def test_failures_of_every_kind_are_counted(space):
    def objective(params):
        match int(params["x"] * 1000) % 5:
            case 0:
                raise RuntimeError("diverged")
            case 1:
                return {"status": STATUS_FAIL}
            case 2:
                return {"status": STATUS_OK, "loss": math.nan}
            case 3:
                return {"status": STATUS_OK, "loss": None}
        return loss(params)

    trials = run(objective, space, 2 * ITERATION, catch_eval_exceptions=True)
    docs = trials._dynamic_trials
    failed = sum(int(doc["misc"]["vals"]["x"][0] * 1000) % 5 != 4 for doc in docs)
    report = hyperband.report(trials)
    assert 0 < failed < len(docs)
    assert report.failed == sum(rung.failed for rung in report.rungs) == failed
    assert report.evaluations == len(docs)
    assert report.total_budget == sum(doc["misc"]["budget"] for doc in docs)
    statuses = [record["status"] for record in hyperband.records(trials)]
    assert (statuses.count("failed"), statuses.count("ok")) == (failed, len(docs) - failed)


def test_a_run_in_which_everything_fails_has_no_incumbent(space):
    trials = Trials()
    with pytest.raises(AllTrialsFailed):  # Hyperopt's own, when the run is over
        run(lambda _: {"status": STATUS_FAIL}, space, 9, trials=trials)
    report = hyperband.report(trials, space=space)
    assert (report.failed, report.incumbent, report.parameters) == (9, None, None)
    assert (report.rungs[0].best, report.rungs[0].median) == (None, None)
    assert report.correlations == ()
    assert "9        0       9     -       -         0" in str(report)


def test_an_interrupted_evaluation_counts_once_it_is_repeated(space):
    objective = interrupted(loss, 4)
    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, ITERATION + 1, trials=trials)
    cut = hyperband.report(trials)
    assert (cut.evaluations, cut.pending, cut.interrupted) == (3, 1, 0)
    run(objective, space, ITERATION + 1, trials=trials, seed=1)
    report = hyperband.report(trials)
    assert done(report) == planned(PLAN, 1)
    assert (report.evaluations, report.pending, report.interrupted) == (ITERATION, 0, 1)
    assert "22 of 17 configurations, 1 interrupted" in str(report)


def test_foreign_trials_are_told_apart_and_may_be_the_incumbent(space):
    trials = run(lambda _: -1, space, 7, algo=tpe.suggest)
    run(loss, space, 7 + ITERATION, trials=trials)
    report = hyperband.report(trials, space=space)
    assert (report.foreign, report.evaluations) == (7, ITERATION)
    assert done(report) == planned(PLAN, 1)
    assert report.incumbent.tid == 0
    assert report.parameters["epochs"] == 9
    assert first_line(report) == "Incumbent: loss -1 at max_budget 9, trial 0 (a foreign trial)"
    assert "7 not of this schedule" in str(report)
    foreign = hyperband.records(trials)[:7]
    assert {(r["iteration"], r["bracket"], r["rung"], r["budget"]) for r in foreign} == {
        (None, None, None, 9)
    }


def test_an_incumbent_from_before_the_space_had_a_budget(space):
    without = {label: node for label, node in space.items() if label != "epochs"}
    trials = run(lambda _: -1, without, 3, algo=tpe.suggest)
    fmin(loss, space, algo=hyperband.suggest, max_evals=3 + ITERATION, trials=trials, verbose=False)
    report = hyperband.report(trials, space=space)
    assert report.incumbent.tid == 0
    assert report.parameters["epochs"] == 9


def test_a_run_of_another_algorithm_has_totals_and_an_incumbent(space):
    trials = run(loss, space, 7, algo=rand.suggest)
    report = hyperband.report(trials)
    assert (report.schedule, report.foreign, report.evaluations) == (None, 7, 0)
    assert report.incumbent.tid == trials.best_trial["tid"]
    loss_, tid = trials.best_trial["result"]["loss"], trials.best_trial["tid"]
    assert first_line(report) == f"Incumbent: loss {loss_:.6g}, trial {tid} (a foreign trial)"


@pytest.mark.filterwarnings("ignore:.*trials come from a Hyperband run with other")
def test_the_newest_schedule_is_reported_and_the_older_one_is_foreign():
    space = {"x": hp.uniform("x", -5, 5)}
    objective = hyperband.with_budget(lambda params, budget: params["x"] ** 2 + 1 / budget)
    trials = run(objective, space, 10, algo=partial(hyperband.suggest, max_budget=9))
    run(objective, space, 30, trials=trials, algo=partial(hyperband.suggest, max_budget=27, eta=4))
    report = hyperband.report(trials)
    assert report.schedule == hyperband.schedule(1, 27, 4)
    assert (report.foreign, report.evaluations) == (10, 20)


def test_float_budgets_without_a_label_in_the_space():
    objective = hyperband.with_budget(lambda params, budget: params["x"] ** 2 + budget)
    algo = partial(hyperband.suggest, min_budget=0.1, max_budget=0.9)
    report = hyperband.report(run(objective, {"x": hp.uniform("x", 0, 1)}, ITERATION, algo=algo))
    assert done(report) == [
        (*place, pytest.approx(budget), number)
        for *place, budget, number in planned(hyperband.schedule(0.1, 0.9), 1)
    ]
    assert "budgets 0.1 to 0.9, eta 3" in str(report)


def test_parallel_runs_are_reported_while_evaluations_are_pending():
    simulation = Simulation(workers=6, ids=2, faults=0.3, iterations=2)
    most = 0
    while simulation.step():
        report = hyperband.report(simulation.trials)
        pending = [doc for doc in simulation.docs if doc["state"] in (0, 1)]
        assert report.pending == len(pending)
        assert report.evaluations == len(simulation.docs) - len(pending)
        assert report.interrupted == 0
        most = max(most, report.pending)
    assert most > 3


def test_trials_of_any_kind_are_read_by_their_documents(space):
    trials = run(loss, space, ITERATION)
    trials._dynamic_trials[3]["state"] = JOB_STATE_CANCEL
    trials._dynamic_trials[-1]["state"] = JOB_STATE_RUNNING
    trials._dynamic_trials[-2]["state"] = JOB_STATE_RUNNING
    spark_like = SimpleNamespace(
        _dynamic_trials=trials._dynamic_trials, _exp_key=None, asynchronous=True, trials=[]
    )
    report = hyperband.report(spark_like, space=space)
    assert (report.failed, report.pending, report.interrupted, report.evaluations) == (1, 2, 0, ITERATION - 2)
    assert len(hyperband.records(spark_like)) == ITERATION


def test_the_parameters_are_the_objective_s_where_the_space_is_given(space):
    trials = run(loss, space, ITERATION)
    best = hyperband.incumbent(trials)
    vals = {label: value[0] for label, value in best["misc"]["vals"].items() if value}
    assert hyperband.report(trials).parameters == vals
    assert hyperband.report(trials, space=space).parameters == space_eval(space, vals)


def test_hyperparameters_read_the_same_in_reports_and_records(space):
    trials = run(loss, space, ITERATION)
    for named, options in ((space, ["a", "b"]), (None, [0, 1])):
        report = hyperband.report(trials, space=named)
        record = next(r for r in hyperband.records(trials, space=named) if r["tid"] == report.incumbent.tid)
        shown = {f"param_{label}": value for label, value in report.hyperparameters.items()}
        assert shown == {k: v for k, v in record.items() if k.startswith("param_") and v is not None}
        assert report.hyperparameters["branch"] in options
        assert "epochs" not in report.hyperparameters, "that is the budget"
        assert f"branch  {report.hyperparameters['branch']}" in str(report)


def test_the_first_line_tells_that_nothing_has_reached_max_budget(space):
    trials = run(loss, space, 10)
    report = hyperband.report(trials)
    best = min(trials.trials, key=lambda doc: (-doc["misc"]["budget"], doc["result"]["loss"]))
    assert first_line(report) == (
        "Nothing has reached max_budget 9 yet (max_evals=13 would); "
        f"incumbent: loss {best['result']['loss']:.6g} at budget 3, trial {best['tid']} "
        "(iteration 0, bracket 2, rung 1)"
    )
    assert "10 of 13 in iteration 0, bracket 2, which ends at max_budget" in str(report)
    assert "fmin with these trials and max_evals=13 or more" in str(report)
    run(loss, space, 13, trials=trials)
    report = hyperband.report(trials)
    assert first_line(report).startswith("Incumbent: loss ")
    assert " at max_budget 9, trial 12 (iteration 0, bracket 2, rung 2)" in first_line(report)
    assert "How far it is" not in str(report)


@pytest.mark.parametrize(
    "ending",
    [{"loss_threshold": 40.0}, {"timeout": 0.2}, {"early_stop_fn": no_progress_loss(2)}],
    ids=lambda ending: next(iter(ending)),
)
def test_a_run_that_ended_early_is_told_what_its_next_one_needs(space, ending):
    foreign = 3
    trials = run(loss, space, foreign, algo=tpe.suggest)
    trials._dynamic_trials[0]["result"]["loss"] = math.nan  # what has failed is no incumbent
    for doc in trials.trials:
        doc["result"]["status"] = STATUS_FAIL

    def objective(params):
        time.sleep(0.01 if "timeout" not in ending else 0.05)
        return loss(params)

    run(objective, space, 100, trials=trials, **ending)
    report = hyperband.report(trials)
    assert report.evaluations < 13
    assert "timeout, loss_threshold and no_progress_loss can come before that" in str(report)
    [needed] = re.findall("max_evals=([0-9]+) or more", str(report))
    run(loss, space, int(needed), trials=trials, seed=1)
    assert " at max_budget 9, " in first_line(hyperband.report(trials))
    assert hyperband.report(trials).evaluations == 13


def test_what_failed_at_max_budget_has_not_succeeded(space):
    trials = run(lambda p: math.nan if p["epochs"] == 9 else loss(p), space, ITERATION)
    report = hyperband.report(trials)
    assert first_line(report).startswith("Nothing has succeeded at max_budget 9 yet (max_evals=35 would); ")
    assert "How far it is" not in str(report), "no evaluation of the schedule is left"


def test_a_lower_loss_at_a_lower_budget_is_named(space):
    trials = run(lambda p: loss(p) - 100 * (p["epochs"] == 3), space, ITERATION)
    report = hyperband.report(trials)
    low = trials.best_trial
    assert (low["misc"]["budget"], report.incumbent.budget) == (3, 9)
    assert report.lowest.tid == low["tid"]
    expected = (
        f"lowest loss at any budget             {low['result']['loss']:.6g} at budget 3, trial {low['tid']}: "
    )
    assert expected in str(report)
    assert "lowest loss" not in str(hyperband.report(run(lambda p: 1 / p["epochs"], space, ITERATION)))


def test_its_repr_is_one_line(space):
    trials = Trials()
    assert repr(hyperband.report(trials)) == (
        "<Report: incumbent: none, no evaluation has succeeded yet; 0 evaluations>"
    )
    run(lambda p: 2.5 if p["x"] > 0 else math.nan, space, ITERATION, trials=trials)
    report = hyperband.report(trials)
    tid = report.incumbent.tid
    place = "iteration {}, bracket {}, rung {}".format(*report.incumbent.place)
    assert repr(report) == (
        f"<Report: incumbent: loss 2.5 at max_budget 9, trial {tid} ({place}); "
        f"22 evaluations, {report.failed} failed>"
    )


def test_the_whole_text():
    objective = hyperband.with_budget(lambda params, budget=3: params["x"] - budget)
    algo = partial(hyperband.suggest, min_budget=1, max_budget=3)
    trials = run(objective, {"x": hp.randint("x", 1000)}, 5, algo=algo)
    promoted = trials.trials[3]["misc"]["hyperband"]["config"]
    others = iter([40, 30, 500])
    for doc in trials.trials:
        x = 20 if doc["misc"]["hyperband"]["config"] == promoted else next(others)
        doc["misc"]["vals"]["x"] = [x]
        doc["result"]["loss"] = x - float(doc["misc"]["budget"])
        doc["book_time"] = doc["refresh_time"].replace(2024, 1, 1, 0, doc["tid"], 0, 0)
        doc["refresh_time"] = doc["book_time"].replace(second=30)
    assert str(hyperband.report(trials)) == (
        "Incumbent: loss 17 at max_budget 3, trial 3 (iteration 0, bracket 1, rung 1)\n"
        "x  20\n"
        "\n"
        "Hyperband, budgets 1 to 3, eta 3\n"
        "iteration  bracket  rung  budget  evaluations  pending  failed  best  median  promoted\n"
        "        0        1     0       1            3        0       0    19      29         1\n"
        "        0        1     1       3            1        0       0    17      17         0\n"
        "        0        0     0       3       1 of 2        0       0   497     497         0\n"
        "\n"
        "Totals\n"
        "evaluations                           5 of 4 configurations\n"
        "total budget                          9 (3 x max_budget)\n"
        "with continued training               8 (2.67 x max_budget)\n"
        "as many configurations at max_budget  12 (4 x max_budget)\n"
        "wall time                             4 min 30 s\n"
        "time of all evaluations               2 min 30 s\n"
        "\n"
        "Rank correlation of neighbouring budgets over random configurations (90 % interval)\n"
        "1 and 3  1 configuration: too few to tell"
    )


@pytest.mark.filterwarnings("ignore:the space has")
def test_the_html_shows_the_same_and_escapes_everything():
    space = {
        "<b>": hp.choice("<b>", ["<script>alert(1)</script>", "&amp;"]),
        "e": hyperband.budget("e", 1, 9),
    }
    report = hyperband.report(run(lambda params: params["e"], space, ITERATION), space=space)
    shown = report._repr_html_()
    assert "<b>" not in shown
    assert "<script>" not in shown
    assert "&lt;b&gt;" in shown
    assert shown.count("<tr>") == shown.count("</tr>") == 1 + 1 + len(report.rungs) + 7 + 2


@pytest.mark.parametrize(("low", "step"), [(10, 10), (2, 7)])
def test_budgets_that_are_rounded_to_a_step_are_those_of_the_documents(low, step):
    space = {"x": hp.uniform("x", -1, 1), "n": hp.quniform("n", low, 100, step)}
    algo = partial(hyperband.suggest, budget="n")
    plan = hyperband.schedule(space, budget="n")
    trials = run(lambda p: p["x"] ** 2 + 1 / p["n"], space, plan.evaluations, algo=algo)
    report = hyperband.report(trials)
    assert (report.evaluations, report.foreign) == (plan.evaluations, 0)
    assert [rung.budget for rung in report.rungs] == [r.budget for b in plan.brackets for r in b.rungs]
    assert {record["rung"] for record in hyperband.records(trials)} == set(range(len(plan.brackets)))


def test_what_held_the_budget_of_an_older_run_is_no_hyperparameter():
    x = hp.uniform("x", 0, 1)
    trials = run(lambda p: p["x"], {"x": x, "n": hyperband.budget("n", 1, 9)}, 22)
    without = hyperband.with_budget(lambda params, budget: params["x"])
    for doc in trials.trials:
        del doc["misc"]["vals"]["n"], doc["misc"]["idxs"]["n"]
    with pytest.warns(UserWarning, match="come from a Hyperband run with other"):
        run(without, {"x": x}, 40, trials, algo=partial(hyperband.suggest, max_budget=27))
    assert [key for key in hyperband.records(trials)[0] if key.startswith("param_")] == ["param_x"]


def test_records_are_flat_and_alike(space):
    trials = run(loss, space, ITERATION)
    records = hyperband.records(trials)
    for record, place, doc in zip(records, places(trials), trials.trials, strict=True):
        assert (record["iteration"], record["bracket"], record["rung"], record["budget"]) == place
        assert (record["tid"], record["loss"]) == (doc["tid"], doc["result"]["loss"])
        assert record["config"] == doc["misc"]["hyperband"]["config"]
        assert record["seconds"] >= 0
        vals = {f"param_{label}": value for label, value in doc["misc"]["vals"].items() if label != "epochs"}
        assert {key for key in record if key.startswith("param_")} == vals.keys(), "all but the budget"
        assert all(record[key] == (value[0] if value else None) for key, value in vals.items())
        assert {type(value) for value in record.values()} <= {int, float, str, bool, type(None)}
    table = io.StringIO()
    writer = csv.DictWriter(table, records[0])
    writer.writerows(records)
    assert len(table.getvalue().splitlines()) == ITERATION


def test_records_name_the_options_of_choices():
    space = {
        "plain": hp.choice("plain", [(32, 32), None, len, "relu"]),
        "nested": hp.pchoice(
            "nested", [(0.5, {"kind": "svm", "C": hp.lognormal("C", 0, 1)}), (0.5, {"kind": "knn"})]
        ),
        "unnamed": hp.choice("unnamed", [hp.normal("a", 0, 1), {"k": hp.choice("inner", ["u", "v"])}]),
        "alike": hp.choice("alike", [{"kind": "mlp", "n": 1}, {"kind": "mlp", "n": 2}]),
        "e": hyperband.budget("e", 1, 9),
    }
    records = hyperband.records(run(lambda _: 0, space, 100), space=space)
    assert {r["param_plain"] for r in records} == {"(32, 32)", "None", "len", "relu"}
    assert {r["param_nested"] for r in records} == {"svm", "knn"}
    assert {r["param_unnamed"] for r in records} == {"0", "1"}
    assert {r["param_inner"] for r in records} == {"u", "v", None}
    assert {r["param_alike"] for r in records} == {"0: mlp", "1: mlp"}
    assert all((r["param_C"] is None) == (r["param_nested"] == "knn") for r in records)


def test_an_evaluation_that_runs_has_no_seconds_yet(space):
    trials = run(loss, space, 3)
    trials._dynamic_trials[-1]["state"] = JOB_STATE_RUNNING
    record = hyperband.records(trials)[-1]
    assert (record["status"], record["seconds"], record["loss"]) == ("pending", None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.0123 s"), (59, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_durations_for_people(seconds, text):
    assert clock(seconds) == text


def test_the_incumbent_is_one_and_the_same_wherever_it_is_asked_for():
    space = {"x": hp.uniform("x", -5, 5)}
    objective = hyperband.with_budget(lambda params, budget=9: params["x"] ** 2 + 1 / budget)
    trials = run(objective, space, 3, algo=tpe.suggest)
    run(objective, space, 25, trials=trials, algo=partial(hyperband.suggest, max_budget=9))
    before = hyperband.incumbent(trials)["tid"]
    larger = partial(hyperband.suggest, max_budget=27)
    with pytest.warns(UserWarning, match="22 trials come from a Hyperband run with other"):
        [pending] = larger([25], Domain(hyperband.with_budget(lambda _, budget: budget), space), trials, 0)
    trials.insert_trial_docs([pending])
    trials.refresh()
    assert hyperband.incumbent(trials)["tid"] == before, "what is only pending changes nothing"
    assert hyperband.report(trials).incumbent.tid == before
    ours = OwnTrials(trials=trials)
    assert ours.best_trial["tid"] == before
    assert ours.argmin == hyperband.argmin(trials) == {"x": trials.trials[before]["misc"]["vals"]["x"][0]}


@pytest.mark.parametrize("label", [None, "n"])
def test_a_point_given_at_a_low_budget_ranks_at_that(label):
    node = hyperband.budget("n", 1, 9) if label is None else hp.uniformint("n", 1, 9)
    space = {"x": hp.uniform("x", -5, 5), "n": node}
    trials = generate_trials_to_calculate([{"x": 0.0, "n": 1}, {"x": 4.0, "n": 9}])
    algo = partial(hyperband.suggest, budget=label)
    run(lambda p: p["x"] ** 2 + 1 / p["n"] - 2 * (p["n"] == 1), space, 4, trials=trials, algo=algo)
    assert hyperband.incumbent(trials)["tid"] == hyperband.report(trials).incumbent.tid == 1
    assert [record["budget"] for record in hyperband.records(trials)[:2]] == [1, 9]
