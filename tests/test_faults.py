"""Nothing is lost: every kind of failure, disorder and interruption, simulated."""

import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from hyperopt import rand, tpe
from hyperopt.base import JOB_STATE_NEW, JOB_STATE_RUNNING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator import Disrupted, Simulation, where, without_budget

from hyperopt_hyperband import bohb, hyperband

pytestmark = pytest.mark.filterwarnings("ignore:the space has", "ignore:min_budget")

etas = st.sampled_from([2, 2.5, 3, 4])
simulations = st.builds(
    Simulation,
    min_budget=st.integers(1, 3),
    max_budget=st.integers(3, 27),
    eta=etas,
    workers=st.integers(1, 20),
    ids=st.integers(1, 7),
    faults=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    restarts=st.sampled_from([0.0, 0.02]),
    ties=st.sampled_from([1, 3, 10**6]),
    finals=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    knobs=st.sampled_from([0, 0, 1, 2]),
    seed=st.integers(0, 2**31),
)
serial = st.builds(
    Simulation,
    max_budget=st.integers(1, 27),
    eta=etas,
    ids=st.integers(1, 5),
    faults=st.sampled_from([0.0, 0.3]),
    restarts=st.sampled_from([0.05, 0.2]),
    finals=st.sampled_from([0.0, 0.5]),
    knobs=st.sampled_from([0, 1, 2]),
    serial=st.just(True),
    seed=st.integers(0, 2**31),
)
asked = st.builds(
    Simulation,
    max_budget=st.integers(1, 27),
    workers=st.integers(1, 20),
    ids=st.integers(1, 5),
    faults=st.sampled_from([0.0, 0.3]),
    restarts=st.sampled_from([0.0, 0.05]),
    finals=st.sampled_from([0.0, 0.5]),
    knobs=st.sampled_from([0, 1, 2]),
    asks=st.just(True),
    seed=st.integers(0, 2**31),
)
disrupted = st.builds(
    Disrupted,
    max_budget=st.sampled_from([1, 3, 9, 16, 27]),
    eta=etas,
    workers=st.integers(1, 12),
    ids=st.integers(1, 5),
    faults=st.sampled_from([0.0, 0.1, 0.5]),
    restarts=st.sampled_from([0.0, 0.02, 0.1]),
    disruptions=st.integers(1, 5),
    finals=st.sampled_from([0.0, 0.5]),
    knobs=st.sampled_from([0, 1, 2]),
    algo=st.sampled_from([hyperband.suggest, hyperband.suggest, bohb.suggest]),
    seed=st.integers(0, 2**31),
)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@thorough
@given(simulations)
def test_every_promise_holds_in_parallel_under_faults(simulation):
    simulation.run().check()


@pytest.mark.slow
@settings(thorough, max_examples=60)
@given(disrupted, st.sampled_from(["async", "serial", "asks"]))
def test_documents_lost_disordered_joined_or_of_another_space_are_told_once_and_break_no_promise(
    simulation, driver
):
    serial = {"serial": True, "workers": 1}
    replace(simulation, **{"async": {}, "serial": serial, "asks": {"asks": True}}[driver]).run().check()


@settings(thorough, max_examples=40)
@given(asked)
def test_every_promise_holds_where_evaluations_are_asked_for_and_told(simulation):
    simulation.run().check()


@thorough
@given(serial)
@pytest.mark.slow
def test_every_promise_holds_when_the_process_dies(simulation):
    simulation.run().check()
    anywhere = dict.fromkeys(("since", "open", "before", "position"))
    for dead in simulation.dead:
        assert any(
            doc["misc"]["hyperband"] | anywhere == dead["misc"]["hyperband"] | anywhere
            and without_budget(doc) == without_budget(dead)
            for doc in simulation.docs
            if doc is not dead
        ), "an evaluation that was cut short is issued again"


class Script:
    """Stands in for the simulation's random numbers: takes the written choices, then always the first."""

    def __init__(self, choices):
        self.choices, self.taken = choices, []

    def choice(self, options):
        i = self.choices[len(self.taken)] if len(self.taken) < len(self.choices) else 0
        self.taken.append((i, len(options)))
        return options[i]

    def random(self):
        return 0.0

    def randint(self, low, high):
        return high


def every_script():
    """Scripts, each used before the next is asked for, until there is no other way to choose."""
    choices = []
    while choices is not None:
        yield (script := Script(choices))
        while script.taken and script.taken[-1][0] == script.taken[-1][1] - 1:
            script.taken.pop()
        choices = [i for i, _ in script.taken]
        choices = [*choices[:-1], choices[-1] + 1] if choices else None


@pytest.mark.parametrize(("workers", "ids", "seed"), [(2, 2, 0), (2, 2, 1), (3, 1, 2), (3, 3, 3), (6, 1, 4)])
def test_every_order_in_which_suggest_s_evaluations_can_finish_promotes_the_same(workers, ids, seed):
    promoted, orders = set(), 0
    for script in every_script():
        simulation = Simulation(
            max_budget=3, workers=workers, ids=ids, iterations=1, faults=0.3, ties=3, seed=seed
        )
        simulation.rng = script
        simulation.run().check()
        ups = [doc for doc in simulation.docs if doc["misc"]["hyperband"]["rung"] > 0]
        promoted.add(tuple(repr(sorted(without_budget(doc).items())) for doc in ups))
        orders += 1
    assert len(promoted) == 1
    assert orders > 10


@pytest.mark.parametrize("budgets", [(5, 5), (5, 9), (1, 1)])
def test_a_schedule_of_one_bracket_ends_under_faults(budgets):
    simulation = Simulation(*budgets, eta=4, workers=5, ids=3, faults=0.3).run().check()
    assert len(simulation.docs) == 2


@pytest.mark.parametrize("points", [1, 2, 9, 100])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("faults", [0.0, 0.5])
@pytest.mark.parametrize("workers", [1, 8])
def test_small_spaces_end_and_tell_how_many_configurations_there_were(
    points, nested, faults, workers, caplog
):
    simulation = Simulation(
        points=points, nested=nested, faults=faults, workers=workers, max_budget=27, iterations=2
    )
    with caplog.at_level(logging.INFO, "hyperopt_hyperband"):
        simulation.run().check()
    drawn = {}
    for doc in simulation.docs:
        drawn.setdefault(where(doc)[:2], set()).add(doc["misc"]["hyperband"]["config"])
    assert len(drawn) == 2 * 4
    report = hyperband.report(simulation.trials)
    assert report.configurations == sum(map(len, drawn.values()))
    assert report.distinct == len({repr(without_budget(doc)) for doc in simulation.docs})
    if points < 100:
        assert report.distinct == points
        assert f" of {report.configurations} configurations, {points} of them distinct" in str(report)
    shrunk = [record.message for record in caplog.records if "distinct" in record.message]
    last = "iteration 1, bracket 0"  # is asked again and again, since what opens after it is thrown away
    shrunk = [line for line in shrunk if last not in line] + [line for line in shrunk if last in line][:1]
    assert shrunk == [
        f"iteration {iteration}, bracket {-s}: no more than {len(configs)} distinct configurations found"
        for (iteration, s), configs in drawn.items()
        if len(configs) < {3: 27, 2: 12, 1: 6, 0: 4}[-s]
    ], "once for each rung that shrinks"


MODELS = [
    bohb.suggest,
    partial(bohb.suggest, random_share=0),
    partial(hyperband.suggest, sampler=tpe.suggest),
    partial(hyperband.suggest, sampler=rand.suggest, random_share=0),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("points", [None, 4])
@pytest.mark.parametrize("faults", [0.3, 1.0])
def test_every_promise_holds_with_a_model(model, points, faults):
    simulation = Simulation(
        algo=model, points=points, nested=True, faults=faults, workers=5, ids=3, restarts=0.05, ties=3
    )
    simulation.run().check()


@pytest.mark.parametrize("serial", [False, True])
def test_the_report_can_be_asked_for_at_any_time(serial):
    simulation = Simulation(serial=serial, workers=5, ids=3, faults=0.3, restarts=0.1, seed=1)
    while simulation.step():
        report = hyperband.report(simulation.trials, space=simulation.space)
        assert str(report)
        pending = simulation.in_state(JOB_STATE_NEW, JOB_STATE_RUNNING)
        assert report.pending + report.interrupted == len(pending)
        assert report.evaluations == len(simulation.docs) - len(pending)


@pytest.mark.slow
def test_the_same_documents_and_seed_give_the_same_answer_in_a_new_process(tmp_path):
    simulation = Simulation(workers=5, faults=0.2, max_budget=27)
    for _ in range(150):
        simulation.step()
    ids = simulation.trials.new_trial_ids(5)
    here = simulation.suggest(ids, simulation.domain, simulation.trials, 7)
    (tmp_path / "trials.pkl").write_bytes(pickle.dumps(simulation.trials))
    script = (
        "import pickle, sys; from simulator import Simulation; simulation = Simulation(max_budget=27);"
        f"trials = pickle.load(open({str(tmp_path / 'trials.pkl')!r}, 'rb'));"
        f"docs = simulation.suggest({ids}, simulation.domain, trials, 7);"
        "sys.stdout.buffer.write(pickle.dumps(docs))"
    )
    for hash_seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.path.dirname(__file__)}
        there = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        )
        assert pickle.loads(there.stdout) == here
