import csv
import io
import math
import statistics
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import loss, places, run
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp, rand, space_eval, tpe
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_RUNNING, Domain
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.fmin import generate_trials_to_calculate
from scipy.stats import spearmanr
from simulator import Simulation

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._report import ENOUGH, Correlation, clock

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


def test_it_reports_at_every_moment_of_a_run(space):
    seen = []

    def objective(params):
        report = hyperband.report(trials, space=space)
        seen.append((report.evaluations, report.pending, sum(r.pending for r in report.rungs), str(report)))
        return loss(params)

    trials = Trials()
    run(objective, space, ITERATION, trials=trials)
    assert [entry[:3] for entry in seen] == [(k, 1, 1) for k in range(ITERATION)]
    assert "0 of 1 configurations, 1 pending" in seen[0][3]
    assert "Incumbent: none, no evaluation has succeeded yet" in seen[0][3]
    assert "4 of 9" in seen[4][3]


def test_no_trials_make_an_empty_report():
    report = hyperband.report(Trials())
    assert (report.schedule, report.rungs, report.incumbent, report.wall_seconds) == (None, (), None, None)
    assert str(report) == (
        "Totals\nevaluations  0 of 0 configurations\n\nIncumbent: none, no evaluation has succeeded yet"
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
    assert "9       9     -       -         0" in str(report)


def test_an_interrupted_evaluation_counts_once_it_is_repeated(space):
    calls = []

    def objective(params):
        calls.append(params)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(params)

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
    assert "Incumbent: loss -1 at budget 9, trial 0 (a foreign trial)" in str(report)
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
    assert f"loss {trials.best_trial['result']['loss']:.6g}, trial" in str(report)


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
    report = hyperband.report(trials, space=space)
    assert report.parameters == space_eval(space, vals)
    assert f"branch.kind  {report.parameters['branch']['kind']}" in str(report)


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
        "Hyperband, budgets 1 to 3, eta 3\n"
        "iteration  bracket  rung  budget  evaluations  failed  best  median  promoted\n"
        "        0        1     0       1            3       0    19      29         1\n"
        "        0        1     1       3            1       0    17      17         0\n"
        "        0        0     0       3       1 of 2       0   497     497         0\n"
        "\n"
        "Totals\n"
        "evaluations                           5 of 4 configurations\n"
        "total budget                          9 (3 x max_budget)\n"
        "with continued training               8 (2.67 x max_budget)\n"
        "as many configurations at max_budget  12 (4 x max_budget)\n"
        "wall time                             4 min 30 s\n"
        "time of all evaluations               2 min 30 s\n"
        "\n"
        "Incumbent: loss 17 at budget 3, trial 3 (iteration 0, bracket 1, rung 1)\n"
        "x  20\n"
        "\n"
        "Rank correlation between neighbouring budgets, over those evaluated at both (survivors only)\n"
        "1 and 3  1 configuration: too few to tell"
    )


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
    assert shown.count("<tr>") == shown.count("</tr>") == 1 + len(report.rungs) + 6 + 2 + 2


def noisy(correlation, seed=0):
    """An objective whose losses at neighbouring budgets correlate as told, or not at all."""
    rng = np.random.default_rng(seed)

    def objective(params):
        sign = -1 if correlation < 0 and params["epochs"] > 1 else 1
        return sign * params["x"] + (rng.normal(0, 100) if correlation == 0 else 0)

    return objective


def test_the_rank_correlation_is_spearman_s_ties_averaged(space):
    trials = run(
        lambda p: round(p["x"]) + round(math.sin(9 * p["x"])) * p["epochs"] / 3, space, 6 * ITERATION
    )
    report = hyperband.report(trials)
    assert [(c.low, c.high, c.configurations) for c in report.correlations] == [(1, 3, 18), (3, 9, 12)]
    by_config = {}
    for doc in trials.trials:
        by_config.setdefault(doc["misc"]["hyperband"]["config"], {})[doc["misc"]["budget"]] = doc["result"][
            "loss"
        ]
    for c in report.correlations:
        both = [
            (losses[c.low], losses[c.high])
            for losses in by_config.values()
            if {c.low, c.high} <= losses.keys()
        ]
        assert len({low for low, _ in both}) < len(both), "there are ties"
        assert c.spearman == pytest.approx(spearmanr(both).statistic)


@pytest.mark.parametrize(
    ("correlation", "verdict"),
    [
        (1, "the low budget is a good guide"),
        (0, "the low budget misleads: raise min_budget or lower eta"),
        (-1, "the low budget misleads: raise min_budget or lower eta"),
    ],
)
def test_the_verdict_on_a_run(space, correlation, verdict):
    report = hyperband.report(run(noisy(correlation), space, 20 * ITERATION))
    assert report.correlations[0].verdict == verdict
    assert f"60 configurations: {verdict}" in str(report)


def test_the_verdict_needs_configurations_and_differences(space):
    assert Correlation(1, 3, ENOUGH - 1, 0.9).verdict == "too few to tell"
    assert Correlation(1, 3, ENOUGH, 0.9).verdict == "the low budget is a good guide"
    assert Correlation(1, 3, ENOUGH, 0.3).verdict == "the low budget is a weak guide"
    assert Correlation(1, 3, ENOUGH, 0.19).verdict.startswith("the low budget misleads")
    report = hyperband.report(run(lambda _: 5, space, 4 * ITERATION))
    assert [c.verdict for c in report.correlations] == 2 * ["the losses are all equal"]


def test_records_are_flat_and_alike(space):
    trials = run(loss, space, ITERATION)
    records = hyperband.records(trials)
    for record, place, doc in zip(records, places(trials), trials.trials, strict=True):
        assert (record["iteration"], record["bracket"], record["rung"], record["budget"]) == place
        assert (record["tid"], record["loss"]) == (doc["tid"], doc["result"]["loss"])
        assert record["config"] == doc["misc"]["hyperband"]["config"]
        assert record["seconds"] >= 0
        for label, value in doc["misc"]["vals"].items():
            assert record[f"param_{label}"] == (value[0] if value else None)
        assert {type(value) for value in record.values()} <= {int, float, str, type(None)}
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


@pytest.mark.parametrize("label", [None, "n"])
def test_a_point_given_at_a_low_budget_ranks_at_that(label):
    node = hyperband.budget("n", 1, 9) if label is None else hp.uniformint("n", 1, 9)
    space = {"x": hp.uniform("x", -5, 5), "n": node}
    trials = generate_trials_to_calculate([{"x": 0.0, "n": 1}, {"x": 4.0, "n": 9}])
    algo = partial(hyperband.suggest, budget=label)
    run(lambda p: p["x"] ** 2 + 1 / p["n"] - 2 * (p["n"] == 1), space, 4, trials=trials, algo=algo)
    assert hyperband.incumbent(trials)["tid"] == hyperband.report(trials).incumbent.tid == 1
    assert [record["budget"] for record in hyperband.records(trials)[:2]] == [1, 9]
