"""A budget for each branch: rungs are shares of the full budget, each node holds its own."""

import contextlib
import json
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from conftest import interrupted, named, run
from hyperopt import STATUS_OK, anneal, fmin, hp, rand, space_eval, tpe, trials_from_docs
from hyperopt.base import JOB_STATE_DONE, Domain, spec_from_misc
from hyperopt.pyll import scope

from hyperopt_hyperband import ExecutorTrials, Trials, _stamps, bohb, hyperband, plots
from hyperopt_hyperband._branches import options_without_budget


def kinds(*others):
    """Trees of a forest, epochs of a network, and what has no budget."""
    return hp.choice(
        "model",
        [
            {"kind": "forest", "depth": hp.uniform("depth", 0, 1), "trees": hyperband.budget("trees", 3, 81)},
            {"kind": "net", "rate": hp.uniform("rate", 0, 1), "epochs": hyperband.budget("epochs", 10, 300)},
            *others,
        ],
    )


SVM = {"kind": "svm", "C": hp.loguniform("C", -3, 3)}
SPACE = kinds()
PLAN = hyperband.schedule(SPACE)
VALUES = {"trees": [3, 9, 27, 81], "epochs": [11, 33, 100, 300]}


def loss(params):
    if params["kind"] == "svm":
        return abs(np.log(params["C"])) + 0.5
    if params["kind"] == "forest":
        return params["depth"] + 3 / params["trees"]
    return params["rate"] + 10 / params["epochs"]


def level(doc):
    return round(3 + np.log(doc["misc"]["hyperband"]["share"]) / np.log(3))


def label_of(doc):
    return next((label for label in VALUES if len(doc["misc"]["vals"][label])), None)


def test_rungs_are_shares_of_the_full_budget():
    assert (PLAN.min_budget, PLAN.max_budget) == (1 / 30, 1.0)
    assert [[r.configurations for r in b.rungs] for b in PLAN.brackets] == [
        [27, 9, 3, 1],
        [12, 4, 1],
        [6, 2],
        [4],
    ]
    assert [r.budget for r in PLAN.brackets[0].rungs] == pytest.approx([1 / 27, 1 / 9, 1 / 3, 1])
    text = str(PLAN)
    assert (
        "shares 0.03333 to 1 of epochs (10 to 300) and trees (3 to 81), eta 3: configurations x share" in text
    )
    assert "15.7 x max_budget; with continued training 13.2 x max_budget" in text


@pytest.mark.parametrize(
    "algo", [hyperband.suggest, bohb.suggest, partial(hyperband.suggest, sampler=tpe.suggest)]
)
def test_each_node_holds_its_own_share(algo):
    seen = []
    trials = run(lambda p: seen.append(p) or loss(p), SPACE, 2 * PLAN.evaluations, algo=algo)
    for doc, params in zip(trials.trials, seen, strict=True):
        label = label_of(doc)
        value = VALUES[label][level(doc)]
        assert params[label] == doc["misc"]["budget"] == value
        assert type(doc["misc"]["budget"]) is type(params[label]) is int
        assert doc["misc"]["vals"][label] == [value]
    counts = Counter(
        (its["bracket"], its["rung"])
        for d in trials.trials
        if (its := d["misc"]["hyperband"])["iteration"] == 0
    )
    assert counts == {(b.s, i): r.configurations for b in PLAN.brackets for i, r in enumerate(b.rungs)}
    assert {label_of(doc) for doc in trials.trials} == {"trees", "epochs"}


def test_losses_at_the_same_share_compare():
    trials = run(loss, SPACE, PLAN.evaluations)
    full = [doc for doc in trials.trials if doc["misc"]["hyperband"]["share"] == 1]
    best = min(full, key=lambda doc: doc["result"]["loss"])
    assert hyperband.incumbent(trials) is best
    report = hyperband.report(trials, space=SPACE)
    assert (report.incumbent.tid, report.incumbent.budget) == (best["tid"], 1)
    assert [rung.budget for rung in report.rungs[:4]] == pytest.approx([1 / 27, 1 / 9, 1 / 3, 1])
    assert report.total_budget == pytest.approx(PLAN.total_budget)
    assert "Hyperband, shares 0.03333 to 1 of epochs (10 to 300) and trees (3 to 81), eta 3" in str(report)
    assert space_eval(SPACE, hyperband.argmin(trials)) == report.parameters
    assert report.parameters[label_of(best)] in (81, 300)


def test_records_have_the_budget_in_its_unit_and_the_share():
    trials = run(loss, kinds(SVM), 60)
    for doc, record in zip(trials.trials, hyperband.records(trials), strict=True):
        assert (record["budget"], record["share"]) == (
            doc["misc"]["budget"],
            doc["misc"]["hyperband"]["share"],
        )
        assert record["final"] == (label_of(doc) is None)
        assert {key for key in record if key.startswith("param_")} == {
            f"param_{name}" for name in ("model", "depth", "rate", "C")
        }


@pytest.mark.parametrize("algo", [rand.suggest, tpe.suggest])
def test_under_other_algorithms_each_node_holds_its_maximum(algo):
    trials = run(loss, SPACE, 30, algo=algo)
    assert {(label_of(d), *d["misc"]["vals"][label_of(d)]) for d in trials.trials} == {
        ("trees", 81),
        ("epochs", 300),
    }
    run(loss, SPACE, 30 + PLAN.evaluations, trials)
    foreign = hyperband.records(trials)[:30]
    assert {record["share"] for record in foreign} == {1}
    assert {record["budget"] for record in foreign} == {81, 300}


@pytest.mark.parametrize("named", [["n1", "n2"], ("n2", "n1")])
def test_labels_of_an_existing_space(named):
    space = hp.choice(
        "model",
        [
            {"a": hp.uniform("a", 0, 1), "n1": hp.quniform("n1", 5, 50, 5)},
            {"b": hp.uniform("b", 0, 1), "n2": hp.uniform("n2", 0.1, 8.1)},
        ],
    )
    trials = run(lambda p: 0.0, space, 206, algo=partial(hyperband.suggest, budget=named))
    values = {"n1": set(), "n2": set()}
    for doc in trials.trials:
        [label] = [name for name in values if doc["misc"]["vals"][name]]
        values[label].add(doc["misc"]["budget"])
    assert values["n1"] == {5, 15, 50}
    assert sorted(values["n2"]) == pytest.approx([0.1, 0.3, 0.9, 2.7, 8.1])
    assert hyperband.schedule(space, budget=named).shares_of


def test_an_evaluation_that_would_be_the_same_is_not_repeated():
    space = hp.choice(
        "model",
        [
            {"a": hp.uniform("a", 0, 1), "few": hyperband.budget("few", 1, 3)},
            {"b": hp.uniform("b", 0, 1), "many": hyperband.budget("many", 1, 81)},
        ],
    )
    calls = []
    trials = run(lambda p: calls.append(repr(p)) or sum(p.values()), space, 200, Trials())
    assert len(set(calls)) == len(calls) == 200
    few = [d["misc"]["hyperband"] for d in trials.trials if d["misc"]["vals"]["few"]]
    assert any(its["rung"] > 1 and "known_at" not in its for its in few), "some went up to another value"
    plan = hyperband.schedule(space)
    again = trials_from_docs(json.loads(json.dumps(trials._dynamic_trials, default=str)))
    assert len(_stamps.fitting(again, plan)) == 200, "what their stamps name is there"


@pytest.mark.parametrize(
    "shares", [None, 3, "a", [["a", 1]], [["a", "low", 9]], [["a", 0, 9]], [[1, 2, 3, 4]]]
)
def test_broken_shares_make_a_foreign_trial(shares):
    trials = run(loss, SPACE, 30)
    trials.trials[-1]["misc"]["hyperband"]["shares_of"] = shares
    assert hyperband.report(trials).evaluations == 29
    assert hyperband.records(trials)[-1]["rung"] is None
    run(loss, SPACE, 40, trials)


def test_a_node_is_not_below_its_own_minimum():
    space = hp.choice("m", [{"a": hyperband.budget("a", 20, 81)}, {"b": hyperband.budget("b", 1, 81)}])
    space = {"m": space, "x": hp.uniform("x", 0, 1)}
    trials = run(lambda p: p["x"], space, 206)
    held = {d["misc"]["vals"]["a"][0] for d in trials.trials if d["misc"]["vals"]["a"]}
    assert held == {20, 27, 81}


def test_one_node_in_several_branches_is_one_budget():
    node = hyperband.budget("n", 1, 9)
    space = hp.choice("m", [{"x": hp.uniform("x", 0, 1), "n": node}, {"y": hp.uniform("y", 0, 1), "n": node}])
    trials = run(lambda p: sum(p.values()), space, 22)
    assert {doc["misc"]["budget"] for doc in trials.trials} == {1, 3, 9}
    assert not any("share" in doc["misc"]["hyperband"] for doc in trials.trials)


TOGETHER = {
    "side by side": lambda a, b: {"a": a, "b": b},
    "one above a branch": lambda a, b: {"a": a, "m": hp.choice("m", [b, 1])},
    "in two choices": lambda a, b: [hp.choice("m", [a, 1]), hp.choice("k", [2, b])],
    "deep inside": lambda a, b: hp.choice(
        "m", [0, {"x": hp.choice("k", [a, 1]), "y": hp.choice("l", [b, 2])}]
    ),
}


@pytest.mark.parametrize("made", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
def test_two_that_are_active_at_once_are_refused_at_the_first_suggestion(made, algo):
    space = made(hyperband.budget("a", 1, 9), hyperband.budget("b", 1, 27))
    with pytest.raises(
        ValueError, match=r"more than one budget, \['a', 'b'\]: keep one, its node used twice"
    ):
        run(lambda _: pytest.fail("evaluated"), space, 5, algo=algo)
    with pytest.raises(ValueError, match=r"more than one budget, \['a', 'b'\]"):
        hyperband.schedule(space)


def test_budgets_of_branches_that_one_switch_decides_are_not_together():
    a, b = hyperband.budget("a", 1, 9), hyperband.budget("b", 1, 27)
    which = hp.randint("which", 2)
    space = {"m": scope.switch(which, {"a": a}, {"x": hp.uniform("x", 0, 1)}), "k": scope.switch(which, 3, b)}
    trials = run(lambda p: p["k"], space, 30)
    assert {label_of_any(doc, "ab") for doc in trials.trials} == {"a", "b"}


def label_of_any(doc, labels):
    [label] = [label for label in labels if doc["misc"]["vals"][label]]
    return label


def test_options_that_contradict_the_nodes_name_them():
    with pytest.raises(ValueError, match=r"min_budget=2 contradicts the space, where 'epochs' gives 10"):
        run(loss, SPACE, 5, algo=partial(hyperband.suggest, min_budget=2))
    objective = hyperband.with_budget(lambda params, budget=81: 0.0)
    with pytest.raises(ValueError, match=r"default budget=81 contradicts the space, where 'epochs' gives"):
        run(objective, SPACE, 5)
    with pytest.raises(ValueError, match=r"budget=\['trees', 3\]: pass the label .* or a list of labels"):
        run(loss, SPACE, 5, algo=partial(hyperband.suggest, budget=["trees", 3]))


def test_bounds_too_close_for_two_brackets_name_the_node():
    space = hp.choice("m", [{"a": hyperband.budget("a", 50, 81)}, {"b": hyperband.budget("b", 90, 100)}])
    with pytest.warns(UserWarning, match=r"for lower budgets take 27 or less as min_budget of 'a'"):
        run(lambda p: 0.0, {"m": space, "x": hp.uniform("x", 0, 1)}, 2)


def test_points_hold_the_maximum_of_their_branch():
    points = [{"kind": "net", "rate": 0.5}, {"kind": "forest", "depth": 0.1}]
    trials = run(loss, SPACE, 44, Trials(points_to_evaluate=points))
    assert [doc["misc"]["vals"]["epochs"] for doc in trials.trials[:2]] == [[300], []]
    assert [doc["misc"]["vals"]["trees"] for doc in trials.trials[:2]] == [[], [81]]
    assert {record["share"] for record in hyperband.records(trials)[:2]} == {1}


def test_a_threshold_and_the_bar_count_shares(capsys):
    trials = Trials()
    fmin(
        loss, SPACE, algo=hyperband.suggest, max_evals=80, trials=trials, loss_threshold=0.15, verbose=True,
        rstate=np.random.default_rng(0),
    )  # fmt: skip
    assert trials.trials[-1]["misc"]["hyperband"]["share"] == 1
    assert trials.best_trial["result"]["loss"] < 0.15
    assert "00000000" not in capsys.readouterr().err


def test_the_pictures_have_shares():
    trials = run(loss, kinds(SVM), PLAN.evaluations)
    axes = plots.evaluations(trials)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.03704", "0.1111", "0.3333", "1"]
    for each in (
        plots.incumbent(trials),
        plots.budgets(trials),
        *plots.hyperparameters(trials, space=kinds(SVM)),
    ):
        each.figure.canvas.draw()


def test_points_may_leave_out_each_budget_whatever_the_algorithm_is_wrapped_in():
    one = {"x": hp.uniform("x", 0, 1), "a": hp.quniform("a", 1, 9, 1)}
    space = hp.choice("m", [one, {"y": hp.uniform("y", 0, 1), "b": hp.quniform("b", 1, 90, 1)}])
    trials = Trials(points_to_evaluate=[{"x": 0.5}, {"y": 0.5}])
    wrapped = lambda *args: hyperband.suggest(*args, budget=["a", "b"])  # noqa: E731
    run(lambda p: p.get("x", 1), space, 200, trials, algo=wrapped)
    assert [doc["misc"]["vals"][label] for doc, label in zip(trials.trials, "ab", strict=False)] == [
        [9],
        [90],
    ]


def test_what_is_at_its_maximum_already_is_final():
    one = {"x": hp.uniform("x", 0, 1), "a": hyperband.budget("a", 100, 100)}
    space = hp.choice("m", [one, {"y": hp.uniform("y", 0, 1), "b": hyperband.budget("b", 1, 9)}])
    trials = run(lambda p: p.get("x", p.get("y")), space, 40, Trials())
    for record in hyperband.records(trials):
        assert record["final"] == (record["param_x"] is not None and record["share"] < 1)
    assert hyperband.report(trials).final > 0


@pytest.mark.parametrize("in_folder", [False, True])
def test_checkpoints_go_up_in_every_branch(tmp_path, in_folder):
    seen = []

    @hyperband.with_budget(checkpoint_dir=tmp_path if in_folder else None)
    def objective(params, budget, checkpoint=None):
        trained = checkpoint.state if checkpoint else 0
        assert checkpoint is None or checkpoint.budget == trained
        seen.append((params["kind"], trained, budget))
        return {"loss": loss(params), "status": STATUS_OK, "checkpoint": budget}

    run(objective, SPACE, PLAN.evaluations)
    steps = {(kind, trained, budget) for kind, trained, budget in seen if trained}
    pairs = {"forest": VALUES["trees"], "net": VALUES["epochs"]}
    assert steps <= {(k, low, high) for k, v in pairs.items() for low, high in pairwise(v)}
    assert len({kind for kind, *_ in steps}) == 2


def test_an_executor_evaluates_it():
    with ThreadPoolExecutor(3) as executor:
        trials = run(loss, kinds(SVM), 80, ExecutorTrials(executor))
    best = [d for d in trials.trials if label_of(d) is None or d["misc"]["hyperband"]["share"] == 1]
    assert trials.best_trial["result"]["loss"] == min(doc["result"]["loss"] for doc in best)


def test_asked_and_told():
    trials = Trials()
    for _ in range(40):
        document = hyperband.ask(trials, SPACE, algo=hyperband.suggest)
        hyperband.tell(trials, document, loss(hyperband.parameters(SPACE, document)))
    assert hyperband.incumbent(trials)["misc"]["hyperband"]["share"] == 1


def test_trials_of_a_single_budget_are_compared_with_shares():
    old = {"kind": "forest", "depth": hp.uniform("depth", 0, 1), "trees": hyperband.budget("trees", 3, 81)}
    old |= {"rate": hp.uniform("rate", 0, 1), "epochs": 300}
    trials = run(loss, old, 60)
    worst = max(doc["result"]["loss"] for doc in trials.trials if doc["misc"]["budget"] == 81)
    for doc in trials.trials:
        doc["misc"]["vals"] |= {"model": [0], "epochs": []}
        doc["misc"]["idxs"] |= {"model": [doc["tid"]], "epochs": []}
        doc["misc"]["vals"]["rate"] = doc["misc"]["idxs"]["rate"] = []
    with pytest.warns(UserWarning, match="trials come from a Hyperband run with other"):
        run(lambda p: -1.0 - worst, SPACE, 60 + PLAN.evaluations, trials)
    assert hyperband.incumbent(trials)["result"]["loss"] == -1.0 - worst
    assert {round(1 / r["share"]) for r in hyperband.records(trials)[:60]} == {27, 9, 3, 1}


def test_other_bounds_of_one_of_them_are_another_schedule():
    forest = {"a": hp.uniform("a", 0, 1), "n": hyperband.budget("n", 3, 81)}
    net = {"b": hp.uniform("b", 0, 1), "e": hyperband.budget("e", 10, 300)}
    larger = net | {"e": hyperband.budget("e", 100, 3000)}
    trials = run(lambda p: sum(p.values()), hp.choice("m", [forest, net]), 30)
    with pytest.warns(UserWarning, match="30 trials come from a Hyperband run with other min_budget"):
        run(lambda p: sum(p.values()), hp.choice("m", [forest, larger]), 60, trials)
    new = trials.trials[30:]
    assert {doc["misc"]["hyperband"]["iteration"] for doc in new} == {0}
    assert {doc["misc"]["vals"]["e"][0] for doc in new if doc["misc"]["vals"]["e"]} <= {111, 333, 1000, 3000}


@pytest.mark.filterwarnings("ignore:.*come from a Hyperband run", "ignore:no budget is active")
@pytest.mark.filterwarnings("ignore:the space has", "ignore:max_evals=")
def test_models_and_thresholds_compare_what_shares_and_budgets_have_in_common():
    def good(params):
        return {"loss": 0.1, "status": STATUS_OK, "model": "good"}

    def bad(params):
        return {"loss": 1.0, "status": STATUS_OK, "model": "bad"}

    forest = {"depth": hp.uniform("depth", 0, 1), "trees": hp.quniform("trees", 3, 81, 1)}
    space = hp.choice("model", [forest, {"epochs": hp.quniform("epochs", 10, 300, 1)}])
    several = partial(hyperband.suggest, budget=["trees", "epochs"])
    one = partial(hyperband.suggest, budget="trees")
    trials = run(good, space, PLAN.evaluations, Trials(keep_model=True), algo=several)
    run(bad, space, 160, trials, algo=one)
    assert hyperband.best_model(trials) == "good"
    assert hyperband.incumbent(trials)["result"]["loss"] == 0.1
    assert "param_epochs" in hyperband.records(trials)[0], "it is a hyperparameter now"
    run(bad, space, 300, trials, algo=one, loss_threshold=0.5)
    assert len(trials) == 161, "what was there before is enough"


@pytest.mark.filterwarnings("ignore:.*come from a Hyperband run", "ignore:no budget is active")
def test_what_had_no_budget_counts_at_what_it_held_once_that_is_one():
    branches = [{"trees": hp.quniform("trees", 3, 81, 1)}, {"epochs": hp.quniform("epochs", 10, 300, 1)}]
    space = {"x": hp.uniform("x", 0, 1), "model": hp.choice("model", branches)}
    trials = run(lambda p: p["x"] - 9, space, 60, Trials(), algo=partial(hyperband.suggest, budget="trees"))
    several = partial(hyperband.suggest, budget=["trees", "epochs"])
    run(lambda p: p["x"], space, 160, trials, algo=several)
    for doc, record in zip(trials.trials[:60], hyperband.records(trials), strict=False):
        if epochs := doc["misc"]["vals"]["epochs"]:
            assert not record["final"]
            assert record["share"] == pytest.approx(max(epochs[0] / 300, 1 / 30))
    assert not hyperband.report(trials).incumbent.final


def test_models_stay_where_max_budget_grows_and_the_incumbent_is_final():
    def space(high):
        return {"x": hp.uniform("x", 0, 1), "n": hyperband.budget("n", 1, high)}

    def result(loss, **more):
        return lambda p: {"loss": p["x"] + loss, "status": STATUS_OK, "model": "m", **more}

    trials = run(result(0, final=True), space(9), 13, Trials(keep_model=True))
    with pytest.warns(UserWarning, match="trials come from a Hyperband run with other"):
        run(result(5), space(27), 80, trials)
    assert hyperband.best_model(trials) == "m"
    assert hyperband.incumbent(trials)["tid"] < 13


def test_an_objective_with_a_budget_has_its_default_where_none_of_several_is_active():
    seen = set()

    @hyperband.with_budget
    def objective(params, budget=None):
        seen.add((params["kind"], budget))
        return loss(params)

    run(objective, kinds(SVM), 60)
    assert ("svm", None) in seen
    assert {budget for kind, budget in seen if kind == "net"} <= set(VALUES["epochs"])
    without = hyperband.with_budget(lambda params, budget: loss(params))
    with pytest.raises(ValueError, match=r"or None where the space has several"):
        run(without, kinds(SVM), 60)


# What has no budget, and what only seems to have none.


def existing(*others):
    forest = {"kind": "forest", "trees": hp.quniform("trees", 3, 81, 1)}
    return {"x": hp.uniform("x", 0, 1), "model": hp.choice("model", [forest, *others])}


def test_a_named_label_tells_of_the_branches_without_it():
    net = {"kind": "net", "epochs": hp.quniform("epochs", 10, 300, 1)}
    inner = hp.choice("inner", [{"kind": "deep", "n": hp.uniform("n", 0, 5)}, {"kind": "flat"}])
    space = existing(net, {"kind": "knn"}, inner)
    message = r"no budget is active in model=net, model=3: there, .*budget=\['trees', '...'\]"
    with pytest.warns(UserWarning, match=message) as caught:
        run(lambda p: p["x"], space, 30, algo=partial(hyperband.suggest, budget="trees"))
    assert len(caught) == 1


def test_nothing_is_said_where_no_number_could_be_the_budget():
    run(lambda p: p["x"], existing({"kind": "knn"}), 5, algo=partial(hyperband.suggest, budget="trees"))
    run(loss, kinds(SVM), 5)  # nodes: their user knows
    assert options_without_budget(Domain(len, existing({"kind": "knn"})).expr, frozenset({"trees"})) == []


@pytest.mark.parametrize(
    ("choice", "node"),
    [
        (hp.choice("n", [100, 500, 1000]), "hyperband.budget('n', 100, 1000)"),
        (hp.pchoice("n", [(0.5, 10), (0.5, 2.5)]), "hyperband.budget('n', 2.5, 10)"),
    ],
)
def test_an_ordered_choice_is_refused_with_the_node_to_put_there(choice, node):
    with pytest.raises(ValueError, match=re.escape(f"put {node} in its place")):
        run(lambda p: 0.0, {"n": choice}, 5, algo=partial(hyperband.suggest, budget="n"))
    with pytest.raises(ValueError, match=r"is a choice: pass the label of a numeric hyperparameter$"):
        run(lambda p: 0.0, {"n": hp.choice("n", ["a", 2])}, 5, algo=partial(hyperband.suggest, budget="n"))


# Every sampler, every driver, interruptions.


def once_each(trials, params):
    """No evaluation was repeated, what is final went up by itself, and each node held what its rung says."""
    assert len(set(map(repr, params))) == len(params)
    for doc in trials.trials:
        label = label_of(doc)
        assert doc["misc"]["hyperband"]["rung"] == 0 or label
        assert label is None or doc["misc"]["vals"][label] == [VALUES[label][level(doc)]]


@pytest.mark.parametrize("name", named(["rand", "tpe", "anneal"]))
@pytest.mark.parametrize("queue", [1, 4])
def test_any_algorithm_of_hyperopt_draws_in_every_branch(name, queue):
    sampler = {"rand": rand.suggest, "tpe": tpe.suggest, "anneal": anneal.suggest}[name]
    seen = []

    def objective(params):
        seen.append(params)
        return {"loss": loss(params), "status": STATUS_OK, "final": params.get("epochs", 0) >= 33}

    algo = partial(hyperband.suggest, sampler=sampler)
    trials = run(objective, kinds(SVM), 2 * PLAN.evaluations, algo=algo, max_queue_len=queue)
    once_each(trials, seen)
    assert {label_of(doc) for doc in trials.trials} == {None, "trees", "epochs"}


@pytest.mark.parametrize("at", [(5,), (40,), (30, 45, 50)])
def test_an_interrupted_evaluation_is_issued_again_in_its_branch(at):
    objective = interrupted(loss, *at)
    trials = Trials()
    for _ in range(len(at) + 1):
        with contextlib.suppress(KeyboardInterrupt):
            run(objective, kinds(SVM), 60, trials, seed=len(objective.calls))
    assert len(objective.calls) == 60
    again = [call for i, call in enumerate(objective.calls, 1) if i not in at]
    twice = [repr(objective.calls[i - 1]) for i in at if i + 1 not in at]
    assert all(call in map(repr, again) for call in twice)
    assert len(set(map(repr, again))) == len(again)


@pytest.mark.parametrize("algo", [hyperband.suggest, bohb.suggest])
@pytest.mark.parametrize("cut", [1, 20, 33, 50])
def test_a_run_goes_on_where_it_was_cut(algo, cut, tmp_path):
    same_seed = lambda ids, domain, trials, seed: algo(ids, domain, trials, 3)  # noqa: E731
    whole = run(loss, kinds(SVM), 70, algo=same_seed)
    save = hyperband.save_trials(tmp_path / "trials.pkl")
    run(loss, kinds(SVM), cut, algo=same_seed, early_stop_fn=save)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest = run(loss, kinds(SVM), 70, hyperband.load_trials(tmp_path / "trials.pkl"), algo=same_seed)
    assert [doc["misc"] for doc in rest.trials] == [doc["misc"] for doc in whole.trials]


def test_several_ids_at_once_fill_the_branches():
    domain, trials = Domain(lambda _: 0.0, kinds(SVM)), Trials()
    for seed in range(12):
        new = hyperband.suggest(trials.new_trial_ids(5), domain, trials, seed)
        for doc in new:
            doc["state"] = JOB_STATE_DONE
            doc["result"] = {
                "status": STATUS_OK,
                "loss": loss(space_eval(kinds(SVM), spec_from_misc(doc["misc"]))),
            }
        trials.insert_trial_docs(new)
        trials.refresh()
    once_each(trials, [doc["misc"]["vals"] for doc in trials.trials])
