"""A space of few configurations: none that has been at max_budget is drawn again while others are left."""

import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from conftest import broken_tpe, interrupted, run
from hyperopt import Trials, hp, rand, tpe
from hyperopt.base import Domain, trials_from_docs

from hyperopt_hyperband import ExecutorTrials, bohb, hyperband

pytestmark = pytest.mark.filterwarnings("ignore:the space has")

N = hyperband.budget("n", 1, 9)
SPACES = {
    "a number": ({"x": hp.randint("x", 12), "n": N}, 12),
    "two": ({"x": hp.quniform("x", 0, 1, 0.5), "y": hp.choice("y", "abcd"), "n": N}, 12),
    "conditional": (
        hp.choice(
            "kind",
            [
                {"x": hp.uniformint("x", 1, 4), "n": N},
                {"c": hp.choice("c", [1, {"d": hp.pchoice("d", [(0.9, 0), (0.1, 1)])}]), "n": N},
                {"n": N},
            ],
        ),
        8,
    ),
}
ALGORITHMS = {
    "random": hyperband.suggest,
    "bohb": bohb.suggest,
    "the model alone": partial(bohb.suggest, random_share=0),
    "tpe": partial(hyperband.suggest, sampler=tpe.suggest),
}


def loss(params):
    return len(repr(sorted(map(repr, params.items())))) % 7 + 1 / params["n"]


def configuration(doc):
    return repr(sorted((k, v) for k, v in doc["misc"]["vals"].items() if k != "n" and v))


def drawn_too_early(trials, size):
    """Draws that had been at max_budget while others were left; also how many have been there at the end."""
    full, early = set(), []
    for doc in trials._dynamic_trials:
        stamp = doc["misc"].get("hyperband")
        if stamp and stamp["config"] == doc["tid"] and len(full) < size and configuration(doc) in full:
            early.append(doc["tid"])
        if doc["misc"]["vals"]["n"] == [9]:
            full.add(configuration(doc))
    return early, len(full)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("queue", [1, 5])
def test_each_evaluation_at_the_full_budget_is_of_another_configuration(space, algo, queue):
    if broken_tpe and (algo, space) == ("tpe", "conditional"):
        pytest.skip("Hyperopt 0.2.7's tpe fails on a randint under this numpy")
    space, size = SPACES[space]
    trials = run(loss, space, 44, algo=ALGORITHMS[algo], max_queue_len=queue)
    early, full = drawn_too_early(trials, size)
    assert not early
    # Of 44. Some of the five were promotions of the same configuration, in two brackets.
    assert full >= min(size, 10 if queue == 1 else 8)


def test_without_others_left_the_run_goes_on_to_its_end():
    space, size = SPACES["conditional"]
    trials = run(loss, space, 150)
    assert drawn_too_early(trials, size) == ([], size)
    assert len(trials) == 150
    stamps = [doc["misc"]["hyperband"] for doc in trials.trials]
    rungs = [
        (s["iteration"], s["bracket"], s["rung"], configuration(d))
        for s, d in zip(stamps, trials.trials, strict=True)
    ]
    assert len(set(rungs)) == len(rungs), "nor is one repeated in a bracket"
    last = [s for s in stamps if s["iteration"] == stamps[-1]["iteration"] - 1]
    assert sum(s["bracket"] == 2 and s["rung"] == 0 for s in last) == size


@pytest.mark.parametrize("read", [pickle.dumps, json.dumps])
def test_neither_a_new_process_nor_one_rstate_repeats_any(read):
    space, size = SPACES["two"]
    trials = Trials()
    for max_evals in range(1, 45):
        run(loss, space, max_evals, trials, seed=3)
        if read is json.dumps:
            kept = [{k: v for k, v in doc.items() if not k.endswith("_time")} for doc in trials.trials]
            docs = json.loads(json.dumps(kept))
            docs = [doc | {"book_time": None, "refresh_time": None} for doc in docs]
        else:
            docs = pickle.loads(pickle.dumps(trials.trials))
        trials = trials_from_docs(docs)
    early, full = drawn_too_early(trials, size)
    assert not early
    assert full >= 10


def test_one_that_has_failed_at_the_full_budget_is_not_drawn_again():
    space, size = SPACES["a number"]

    def objective(params):
        if params["n"] == 9:
            raise RuntimeError("out of memory")
        return loss(params)

    trials = run(objective, space, 60, catch_eval_exceptions=True)
    early, full = drawn_too_early(trials, size)
    assert not early
    assert full == size


@pytest.mark.parametrize("at", [3, 13, 20, 21])
def test_an_interruption_repeats_no_configuration(at):
    space, size = SPACES["a number"]
    objective = interrupted(loss, at)
    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 44, trials)
    run(objective, space, 44, trials)
    early, full = drawn_too_early(trials, size)
    assert not early
    assert full >= 10


def test_what_is_on_its_way_at_the_full_budget_is_not_drawn_beside_it():
    space, size = SPACES["a number"]
    docs = hyperband.suggest(range(36), Domain(loss, space), Trials(), 0)  # none has finished
    full = [doc["misc"]["vals"]["x"][0] for doc in docs if doc["misc"]["budget"] == 9]
    assert len(set(full)) == len(full) >= 6
    with ThreadPoolExecutor(4) as executor:
        trials = run(loss, space, 44, ExecutorTrials(executor))
    assert not drawn_too_early(trials, size)[0]


def test_foreign_trials_at_the_full_budget_are_not_drawn_again():
    space, size = SPACES["a number"]
    trials = run(loss, space, 15, algo=rand.suggest)
    foreign = {configuration(doc) for doc in trials.trials}
    assert 5 < len(foreign) < size
    run(loss, space, 30, trials)
    early, _ = drawn_too_early(trials, size)
    assert not early
    first = [doc for doc in trials.trials[15:] if doc["misc"]["hyperband"]["iteration"] == 0]
    feet = [configuration(doc) for doc in first if doc["misc"]["hyperband"]["bracket"] == 2][
        : size - len(foreign)
    ]
    assert set(feet) == {configuration(doc) for doc in trials.trials} - foreign


@pytest.mark.slow
def test_what_is_never_drawn_by_chance_gets_its_turn_and_what_can_t_be_drawn_does_not():
    rare = hp.pchoice("x", [(1e-9, 0), (1 - 1e-9, 1), (0.0, 2)])
    trials = run(loss, {"x": rare, "n": N}, 44)
    assert {doc["misc"]["vals"]["x"][0] for doc in trials.trials} == {0, 1}


def warned(space, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trials = Trials()
        for max_evals in (2, 10, 30, 60):
            run(lambda p: p.get("x", 0), space, max_evals, trials, algo=partial(hyperband.suggest, **options))
    return [str(w.message) for w in caught]


def test_a_small_space_is_said_once_with_what_a_full_grid_costs():
    space = {"x": hp.randint("x", 8), "n": hyperband.budget("n", 1, 81)}
    [said] = warned(space)
    assert said.startswith("the space has 8 distinct configurations, fewer than the 143 that one Hyperband")
    assert "full grid, each of them once at max_budget, costs 8 x max_budget" in said
    assert "iteration of the planned size 23.5 x max_budget" in said
    [said] = warned({"n": N})
    assert said.startswith("the space has 1 distinct configuration, fewer than the 17 ")
    [said] = warned({"x": hp.randint("x", 16), "n": hp.randint("n", 1, 10)}, budget="n")
    assert said.startswith("the space has 16 distinct configurations, fewer than the 17 ")


@pytest.mark.parametrize(
    "space",
    [
        {"x": hp.randint("x", 17), "n": N},
        {"x": hp.uniform("x", 0, 1), "n": N},
        {"c": hp.choice("c", [0, hp.uniform("x", 0, 1)]), "n": N},
        {"x": hp.qnormal("x", 0, 1, 1), "n": N},
        {"x": hp.randint("x", 3), "n": hyperband.budget("n", 9, 9)},
        {"x": hp.quniform("x", 0, 1e15, 1), "n": N},
        {"x": 0, "n": N, **{f"c{i}": hp.choice(f"c{i}", "abcd") for i in range(30)}},
    ],
)
def test_larger_spaces_and_those_that_can_t_be_counted_go_without(space):
    assert not warned(space)
