"""Which brackets bohb.suggest opens."""

import itertools
import pickle

import bson
import numpy as np
import pytest
from conftest import BRANCHES, places, run, stops_in_a_branch
from hyperopt import STATUS_FAIL, STATUS_OK, fmin, hp, rand
from hyperopt.base import Domain, trials_from_docs
from simulator import AsyncTrials, Simulation

from hyperopt_hyperband import _brackets as brackets
from hyperopt_hyperband import bohb, hyperband
from hyperopt_hyperband._history import completed_iterations, read

PLAN = hyperband.schedule(1, 27)
RUGGED = {f"x{i}": hp.uniform(f"x{i}", 0, 1) for i in range(6)} | {"b": hyperband.budget("b", 1, 27)}


def rugged(params):
    x = np.array([params[f"x{i}"] for i in range(6)])
    return float(((x - 0.3) ** 2 + 0.3 * np.sin(9 * x)).sum())


def misleading(params):
    return rugged(params) if params["b"] == 27 else float(sum((1 - params[f"x{i}"]) ** 2 for i in range(6)))


def opened(trials):
    """The s of every bracket, in the order in which they opened."""
    return [s for _, s in dict.fromkeys(place[:2] for place in places(trials))]


def turns(trials):
    """How many brackets each one's documents say that opened before it, in the order of the run."""
    return list(dict.fromkeys(doc["misc"]["hyperband"]["turn"] for doc in trials._dynamic_trials))


@pytest.mark.parametrize("seed", range(3))
def test_low_budgets_that_mislead_are_left_alone_after_the_first_iteration(seed):
    def misleading(params):
        return (
            rugged(params) if params["b"] == 27 else float(sum((1 - params[f"x{i}"]) ** 2 for i in range(6)))
        )

    trials = run(misleading, RUGGED, PLAN.evaluations + 32, algo=bohb.suggest, seed=seed)
    assert opened(trials) == [3, 2, 1, 0, *[0] * 8]
    assert turns(trials) == list(range(12))


def test_low_budgets_that_tell_all_are_used():
    found = [
        opened(run(rugged, RUGGED, PLAN.evaluations + 40, algo=bohb.suggest, seed=seed))[4:6]
        for seed in range(4)
    ]
    assert max(itertools.chain(*found)) > 0


@pytest.mark.parametrize("seed", range(3))
def test_low_budgets_that_tell_all_are_used_where_the_model_finds_no_structure(seed):
    def scattered(params):
        return 1e4 * np.sin(1e5 * params["x0"] + 3e4 * params["x1"]) % 1

    trials = run(scattered, RUGGED, PLAN.evaluations + 80, algo=bohb.suggest, seed=seed)
    assert opened(trials)[4:6] == [3, 3]


def test_a_sixteenth_follows_the_paper_in_the_end():
    domain = Domain(rugged, RUGGED)
    request = brackets.Request(domain, [], {"b": 27}, 1, 27, 0)
    paper = [brackets.choose(request, PLAN, turn) for turn in (0, 1, 2, 3, 19, 35, 51, 67, 83)]
    assert paper == [3, 2, 1, 0, 3, 2, 1, 0, 3]


def test_without_a_success_at_max_budget_the_order_is_the_paper_s():
    def fails(params):
        return {"status": STATUS_FAIL} if params["b"] == 27 else rugged(params)

    trials = run(fails, RUGGED, 3 * PLAN.evaluations, algo=bohb.suggest)
    assert opened(trials) == 3 * [3, 2, 1, 0]


def test_a_schedule_of_one_bracket_asks_no_model(monkeypatch):
    monkeypatch.setattr(brackets, "learn", None)
    space = {"x": hp.uniform("x", 0, 1), "b": hyperband.budget("b", 9, 9)}
    trials = run(lambda params: params["x"], space, 9, algo=bohb.suggest)
    assert opened(trials) == [0] * 9


def test_where_hardly_any_budget_but_the_full_one_is_known_lower_ones_count_as_the_lowest_known():
    space = {"x": hp.uniform("x", -5, 5), "b": hyperband.budget("b", 1.0, 9.0)}
    points = run(lambda params: params["x"] ** 2, {"x": space["x"]}, 12, algo=rand.suggest)
    for doc in points.trials:
        doc["misc"]["vals"]["b"], doc["misc"]["idxs"]["b"] = [8.99], [doc["tid"]]
    objective = {"status": STATUS_OK, "final": True}
    trials = run(lambda params: objective | {"loss": params["x"] ** 2}, space, 70, points, algo=bohb.suggest)
    assert len(trials) == 70


@pytest.mark.parametrize("way", [pickle, bson])
@pytest.mark.parametrize("space", [RUGGED, BRANCHES])
def test_cut_anywhere_and_gone_on_with_a_run_is_the_same(way, space):
    objective = rugged if space is RUGGED else stops_in_a_branch
    whole = run(objective, space, 100, algo=bohb.suggest)
    for cut in (68, 69, 73, 95):
        if way is bson:
            part = trials_from_docs(bson.decode(bson.encode({"docs": whole.trials[:cut]}))["docs"])
        else:
            part = pickle.loads(pickle.dumps(trials_from_docs(whole.trials[:cut])))
        rstate = np.random.default_rng(0)
        rstate.integers(2**31 - 1, size=cut)
        fmin(objective, space, bohb.suggest, 100, trials=part, rstate=rstate, verbose=False)
        assert [doc["misc"]["hyperband"] for doc in part.trials] == [
            doc["misc"]["hyperband"] for doc in whole.trials
        ]


@pytest.mark.parametrize("workers", [1, 9])
@pytest.mark.parametrize("faults", [0.0, 0.3])
@pytest.mark.parametrize("serial", [False, True])
def test_every_promise_holds_where_a_model_chooses(workers, faults, serial):
    simulation = Simulation(
        algo=bohb.suggest,
        workers=1 if serial else workers,
        ids=3,
        faults=faults,
        restarts=0.05,
        serial=serial,
        iterations=9,
        finals=0.2,
        knobs=workers % 2,
        seed=workers,
    )
    simulation.run().check()
    assert completed_iterations(simulation.trials) == len(opened(simulation.trials)) // 3


def test_several_ids_at_once_fill_the_bracket_that_the_first_of_them_opens():
    trials, domain = AsyncTrials(), Domain(misleading, RUGGED)
    before = run(misleading, RUGGED, PLAN.evaluations, algo=bohb.suggest)
    trials.insert_trial_docs(before.trials)
    trials.refresh()
    documents = bohb.suggest(trials.new_trial_ids(13), domain, trials, 5)
    stamps = [doc["misc"]["hyperband"] for doc in documents]
    assert [its["turn"] for its in stamps] == [4] * 4 + [5] * 4 + [6] * 4 + [7]
    assert [its["iteration"] for its in stamps] == [1] * 4 + [2] * 4 + [3] * 4 + [4]


def test_what_is_to_come_is_at_most_at_max_budget():
    trials = run(misleading, RUGGED, PLAN.evaluations + 1, algo=bohb.suggest)
    history = read(trials, PLAN)
    assert history.ahead(3) == 3 * 27
    assert history.ahead(10) == 10 * 27
    assert history.until_full() == 1
    # The first iteration is the paper's.
    assert read(trials_from_docs(trials.trials[:1]), PLAN).ahead(39 + 10) == 26 + 3 * 9 + 9 * 3 + 27 + 10 * 3
    assert read(trials_from_docs(trials.trials[:40]), PLAN).next_budget() == 3


def test_hyperband_goes_on_with_such_a_run_and_the_other_way_round():
    trials = run(misleading, RUGGED, PLAN.evaluations + 8, algo=bohb.suggest)
    run(misleading, RUGGED, 2 * PLAN.evaluations + 8, algo=hyperband.suggest, trials=trials)
    assert opened(trials) == [3, 2, 1, 0, 0, 0, 3, 2, 1, 0]
    assert completed_iterations(trials) == 2
    assert turns(trials) == list(range(10))
    other = run(misleading, RUGGED, 2 * PLAN.evaluations, algo=hyperband.suggest)
    assert "turn" not in other.trials[-1]["misc"]["hyperband"]
    run(misleading, RUGGED, 2 * PLAN.evaluations + 1, algo=bohb.suggest, trials=other)
    assert other.trials[-1]["misc"]["hyperband"]["turn"] == 8


def test_a_small_space_ends_in_brackets_that_draw_nothing_twice():
    space = {"x": hp.randint("x", 9), "b": hyperband.budget("b", 1, 27)}
    with pytest.warns(UserWarning, match="9 distinct"):
        trials = run(lambda params: params["x"], space, 120, algo=bohb.suggest)
    full = [doc["misc"]["vals"]["x"][0] for doc in trials.trials if doc["misc"]["budget"] == 27]
    assert set(full) == set(range(9))
