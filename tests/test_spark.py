"""A real local Spark cluster on loopback."""

import os
import shutil
import sys
import time

import numpy as np
import pytest
from conftest import BRANCHES, places
from hyperopt import STATUS_OK, SparkTrials, fmin, hp, space_eval
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_ERROR, Domain

from hyperopt_hyperband import hyperband

pyspark = pytest.importorskip("pyspark", reason="needs the extra spark")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
    pytest.mark.filterwarnings("ignore:Spark session is not provided"),  # Hyperopt's threads hand none on
]

PLAN = hyperband.schedule(1, 9)


@pytest.fixture(scope="module")
def spark():
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    session = (
        pyspark.sql.SparkSession.builder.master("local[4]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}


def run(spark, objective, max_evals, parallelism, space=SPACE, **options):
    trials = SparkTrials(parallelism=parallelism, spark_session=spark)
    fmin(
        objective,
        space,
        algo=hyperband.suggest,
        max_evals=max_evals,
        trials=trials,
        rstate=np.random.default_rng(0),
        verbose=False,
        return_argmin=False,
        **options,
    )
    return trials


def planned():
    return sorted(
        (0, bracket.s, i, rung.budget)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    )


@pytest.mark.parametrize("parallelism", [2, 4])
def test_a_hyperband_iteration(spark, parallelism):
    trials = run(spark, lambda p: p["x"] ** 2 + 1 / p["epochs"], PLAN.evaluations + 6, parallelism)
    assert sorted(place for place in places(trials) if place[0] == 0) == planned()
    for doc in trials.trials:
        assert doc["result"]["loss"] == doc["misc"]["vals"]["x"][0] ** 2 + 1 / doc["misc"]["budget"]
    best = hyperband.incumbent(trials)["misc"]
    assert best["budget"] == 9
    assert space_eval(SPACE, hyperband.argmin(trials)) == {"x": best["vals"]["x"][0], "epochs": 9}
    first = [rung for rung in hyperband.report(trials).rungs if rung.iteration == 0]
    assert [rung.evaluations for rung in first] == [9, 3, 1, 5, 1, 3]


def test_a_budget_for_each_branch_final_results_and_checkpoints(spark, tmp_path):
    @hyperband.with_budget(checkpoint_dir=tmp_path / "checkpoints")
    def train(params, budget=None, checkpoint=None):
        if budget is None:
            return {"loss": params["C"] + 0.3, "status": STATUS_OK, "trained": [0]}
        trained = [*(checkpoint.state if checkpoint else []), budget]
        first = params["depth"] if "depth" in params else params["rate"]
        final = first > 0.8 and budget in (9, 30)
        result = {"loss": first + 1 / len(trained), "status": STATUS_OK, "final": final, "trained": trained}
        return result | {"checkpoint": trained}

    trials = run(spark, train, 60, 3, BRANCHES)
    values = {"trees": [3, 9, 27], "epochs": [10, 30, 90]}
    stamps = [(doc["misc"]["hyperband"], doc["misc"]["vals"], doc["result"]) for doc in trials.trials]
    for its, vals, result in stamps:
        label = next((label for label in values if vals[label]), None)
        assert its["rung"] == 0 or (label and not its.get("final"))
        if label:
            start = 2 - its["bracket"]
            assert result["trained"] == values[label][start : start + its["rung"] + 1]
    assert {len(result["trained"]) for _, _, result in stamps} == {1, 2, 3}
    final = {its["config"] for its, _, result in stamps if result.get("final")}
    assert not any(its["config"] in final and its["share"] == 1 and its["rung"] > 1 for its, *_ in stamps)
    known = [
        result["loss"] for its, _, result in stamps if its["share"] == 1 or "final" in its or result["final"]
    ]
    assert hyperband.incumbent(trials)["result"]["loss"] == min(known)


def test_tasks_that_fail_are_never_promoted(spark):
    def objective(params):
        if params["x"] < 0:
            raise RuntimeError("diverged")
        return params["x"]

    trials = run(spark, objective, PLAN.evaluations, 4)
    assert any(doc["state"] == JOB_STATE_ERROR for doc in trials._dynamic_trials)
    for doc in trials._dynamic_trials:
        assert doc["misc"]["hyperband"]["rung"] == 0 or doc["misc"]["vals"]["x"][0] >= 0
    assert hyperband.report(trials).failed == sum(
        doc["misc"]["vals"]["x"][0] < 0 for doc in trials._dynamic_trials
    )


def test_a_timeout_cancels_what_runs_and_the_trials_can_be_gone_on_with(spark):
    def objective(params):
        time.sleep(60 if params["x"] > 2 else 0)
        return params["x"]

    start = time.monotonic()
    trials = run(spark, objective, 100, 2, timeout=8)
    assert time.monotonic() - start < 50
    cancelled = [doc for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_CANCEL]
    assert cancelled
    statuses = {record["tid"]: record["status"] for record in hyperband.records(trials)}
    assert {statuses[doc["tid"]] for doc in cancelled} == {"failed"}
    domain = Domain(lambda _: 0, {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)})
    tids = trials.new_trial_ids(3)
    assert [doc["tid"] for doc in hyperband.suggest(tids, domain, trials, 0)] == tids


def test_early_stop_ends_the_run(spark):
    # Hyperopt's own no_progress_loss reads the loss of the newest trial, which is pending under SparkTrials.
    def enough(trials):
        return sum(doc["result"]["status"] == STATUS_OK for doc in trials.trials) >= 5, []

    trials = run(spark, lambda p: p["x"], 100, 2, early_stop_fn=enough)
    assert 5 <= trials.count_successful_trials() < 60


def test_with_budget_says_that_spark_hands_it_no_trial(spark):
    objective = hyperband.with_budget(lambda params, budget=9: budget)
    with pytest.raises(ValueError, match=r"SparkTrials hands none.*hyperband\.budget"):
        run(spark, objective, 3, 2, space={"x": hp.uniform("x", -5, 5)})


def test_with_a_budget_node_with_budget_needs_no_trial(spark):
    trials = run(spark, hyperband.with_budget(lambda params, budget: budget), 12, 4)
    assert [doc["result"]["loss"] for doc in trials.trials] == [
        doc["misc"]["budget"] for doc in trials.trials
    ]


def continued(checkpoint_dir=None):
    @hyperband.with_budget(checkpoint_dir=checkpoint_dir)
    def objective(params, budget, checkpoint=None):
        if params["x"] < -3:
            raise RuntimeError("diverged")
        epochs = list(checkpoint.state) if checkpoint else []
        epochs += [params["x"]] * (budget - len(epochs))
        loss = params["x"] ** 2 + 1 / budget
        reached = checkpoint.budget if checkpoint else 0
        return {"loss": loss, "status": STATUS_OK, "checkpoint": epochs, "epochs": epochs, "reached": reached}

    return objective


def test_promotions_take_up_checkpoints_from_a_folder(spark, tmp_path):
    folder = tmp_path / "checkpoints"
    trials = run(spark, continued(folder), PLAN.evaluations, 4)
    budgets = {doc["tid"]: doc["misc"]["budget"] for doc in trials._dynamic_trials}
    done = [doc for doc in trials.trials if doc["result"]["status"] == STATUS_OK]
    assert {doc["misc"]["hyperband"]["rung"] for doc in done} == {0, 1, 2}
    for doc in done:
        below = doc["misc"]["hyperband"].get("below")
        assert doc["result"]["reached"] == (0 if below is None else budgets[below])
        assert doc["result"]["epochs"] == doc["misc"]["vals"]["x"] * doc["misc"]["budget"]
    left = list(folder.glob("*/*.pkl"))
    assert (
        len(left) <= 3 + 1 + 1 + 4
    )  # the places above the rungs, and what came in since the last suggestion


def test_a_folder_is_for_one_run_and_checkpoints_need_one(spark, tmp_path):
    run(spark, continued(tmp_path / "checkpoints"), 2, 2)
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*checkpoints' holds.*: pass a new folder"):
        run(spark, continued(tmp_path / "checkpoints"), 2, 2)
    with pytest.raises(
        ValueError, match=r"keeps no attachments.*: pass with_budget\(checkpoint_dir=\.\.\.\)"
    ):
        run(spark, continued(), 2, 2)


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_one_model_is_kept_and_those_of_the_newest(spark, tmp_path, where):
    folder = tmp_path / "models" if where == "folder" else None

    def trained(params, budget):
        if params["x"] < -3:
            raise RuntimeError("diverged")
        return {"loss": params["x"] ** 2 + 1 / budget, "status": STATUS_OK, "model": [params["x"]]}

    def continued(params, budget, checkpoint=None):
        return trained(params, budget) | {"checkpoint": budget}

    objective = continued if folder else trained  # checkpoints need a folder here, models do not
    trials = run(
        spark,
        hyperband.with_budget(objective, keep_model=True, checkpoint_dir=folder),
        PLAN.evaluations,
        4,
    )
    best = hyperband.incumbent(trials)
    assert hyperband.best_model(trials) == best["misc"]["vals"]["x"]
    left = [doc for doc in trials.trials if {"model", "model_file"} & doc["result"].keys()]
    assert len(left) <= 1 + 5  # the best, and what came in since the last suggestion
    if folder:
        assert len(list(folder.glob("model-*.pkl"))) == len(left)
