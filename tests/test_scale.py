"""However long a run is, a suggestion looks at the documents that count, and sees what all of them tell."""

import json
import random
import warnings
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import pytest
from hyperopt import STATUS_OK, Trials, hp, rand, trials_from_docs
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR, JOB_STATE_RUNNING, Domain
from simulator import AsyncTrials, Simulation

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._documents import known_at, outcome
from hyperopt_hyperband._history import read
from hyperopt_hyperband._promotion import (
    BracketState,
    Done,
    Promote,
    Retry,
    Sample,
    Wait,
    advance,
    promotable,
)

pytestmark = pytest.mark.filterwarnings("ignore:the space has", "ignore:min_budget")

PLAN = hyperband.schedule(1, 9)
DOMAIN = Domain(lambda _: 0.0, {"x": hp.uniform("x", 0, 1), "b": hyperband.budget("b", 1, 9)})


class CountedList(list):
    """Counts the documents that are looked at."""

    looked_at = 0

    def __iter__(self):
        return self._counted(super().__iter__())

    def __reversed__(self):
        return self._counted(super().__reversed__())

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.looked_at += len(found) if isinstance(index, slice) else 1
        return found

    def _counted(self, documents):
        for document in documents:
            self.looked_at += 1
            yield document


def looks(evaluations, workers=1, ids=1, exp_key=None, stuck=(), gap=0, domain=DOMAIN):
    """For each call of suggest in a run: how many documents it looked at.

    The oldest pending ends first, but those stuck never end. Half-way, so many ids are left out.
    """
    trials = (AsyncTrials if workers > 1 else Trials)(exp_key)
    trials._dynamic_trials = documents = CountedList()
    pending, counts = deque(), []
    while len(documents) < evaluations:
        while len(pending) + ids > workers:
            doc = pending.popleft()
            loss = (doc["misc"]["hyperband"]["config"] * 7919 % 101) / doc["misc"]["budget"]
            doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": loss}
        documents.looked_at = 0
        tid = len(documents) + gap * (len(documents) >= evaluations // 2)
        new = hyperband.suggest(range(tid, tid + ids), domain, trials, tid)
        counts.append(documents.looked_at)
        for doc in new:
            doc["state"] = JOB_STATE_RUNNING
        documents += new
        pending += [doc for doc in new if doc["tid"] not in stuck]
    return counts


@pytest.mark.parametrize("exp_key", [None, "key"])
def test_suggest_looks_at_no_more_documents_the_longer_the_run_is(exp_key):
    counts = looks(20 * PLAN.evaluations, exp_key=exp_key)
    third, last = counts[2 * PLAN.evaluations : 3 * PLAN.evaluations], counts[-PLAN.evaluations :]
    assert last == third
    assert max(last) <= 2 * max(bracket.evaluations for bracket in PLAN.brackets)


def test_suggest_looks_at_no_more_documents_in_a_large_discrete_space():
    space = {"b": hyperband.budget("b", 1, 9), "c": hp.choice("c", [0, hp.randint("x", 10_000)])}
    counts = looks(20 * PLAN.evaluations, domain=Domain(lambda _: 0.0, space))
    assert counts[-PLAN.evaluations :] == counts[2 * PLAN.evaluations : 3 * PLAN.evaluations]


@pytest.mark.parametrize("ids", [1, 5])
def test_suggest_looks_at_no_more_documents_the_longer_the_run_with_many_workers_is(ids):
    counts = looks(60 * PLAN.evaluations, workers=20, ids=ids)
    half = len(counts) // 2
    assert max(counts[half:]) <= max(counts[:half])
    assert max(counts) < 6 * PLAN.evaluations


def test_several_ids_read_the_documents_once():
    one, five = looks(10 * PLAN.evaluations, workers=20), looks(10 * PLAN.evaluations, workers=20, ids=5)
    assert sum(five) < sum(one) / 3


@pytest.mark.slow
def test_suggest_looks_at_no_more_documents_while_evaluations_never_end():
    counts = looks(20_000, workers=20, ids=5, stuck=(0, 10, 20, 1000))
    assert max(counts[-1000:]) <= max(counts[500:1500])
    assert max(counts) < 6 * PLAN.evaluations


@pytest.mark.parametrize("gap", [1, 10**6])
@pytest.mark.slow
def test_suggest_looks_at_few_more_documents_where_ids_are_left_out(gap):
    without, counts = (looks(2000, workers=5, stuck=(995,), gap=g) for g in (0, gap))
    bisections = 20 * len(PLAN.brackets)
    assert max(counts[1000:]) <= max(without[1000:]) + bisections


OTHER_ETA = 11


def place(doc):
    stamp = doc["misc"]["hyperband"]
    return tuple(stamp[name] for name in ("iteration", "bracket", "rung", "config"))


def of_the_newest_run(docs):
    """The documents of the newest one's run, but for those promoted from one that is not there."""
    stamps = [doc["misc"].get("hyperband") for doc in docs]
    own = [doc for doc, its in zip(docs, stamps, strict=True) if its and its["eta"] != OTHER_ETA]
    own = [doc for doc in own if doc["misc"]["hyperband"]["run"] == own[-1]["misc"]["hyperband"]["run"]]
    kept = {}
    for doc in sorted(own, key=lambda doc: doc["tid"]):
        iteration, bracket, rung, config = place(doc)
        lower = (kept.get((iteration, bracket, i, config)) for i in reversed(range(rung)))
        below = next(filter(None, lower), None)
        if rung == 0 or (below and below["tid"] == doc["misc"]["hyperband"]["below"]):
            kept[place(doc)] = doc
            yield doc


def everything_read(docs, serial):
    """The outcomes of all brackets, from all documents, and what issues the interrupted evaluation again."""
    outcomes, left_behind, interrupted = {}, {}, set()
    for doc in of_the_newest_run(docs):
        *key, rung, config = place(doc)
        if (key := tuple(key)) not in outcomes:
            for older in outcomes.values():
                older.closed = True
            outcomes[key] = BracketState(tuple({} for _ in range(key[1] + 1)))
        bracket = outcomes[key]
        bracket.closed |= rung > 0
        bracket.rungs[rung][config] = doc
        if left_behind.pop(place(doc), None):
            interrupted.add(place(doc))
        if serial and doc["state"] == JOB_STATE_RUNNING and doc["book_time"] and not doc["owner"]:
            left_behind[place(doc)] = doc
    again = None
    if len(left_behind) == 1 and not left_behind.keys() & interrupted:
        [((*key, rung, config), doc)] = left_behind.items()
        del outcomes[tuple(key)].rungs[rung][config]
        if rung == 0:
            outcomes[tuple(key)].interrupted[config] = doc
        again = tuple(key), Promote(config, rung) if rung > 0 else Retry(config)
    return outcomes, again


@dataclass
class Compared(Simulation):
    """Before each suggestion, what it will read is compared with what all documents tell."""

    foreign: float = 0.0
    slow: float = 0.0
    completed: frozenset = frozenset()

    def finish(self, doc):
        """Some evaluations end when all else waits for them, or much else has ended."""
        if random.Random(doc["tid"]).random() >= self.slow or self.rng.random() < 0.02:
            super().finish(doc)

    def issue(self):
        while self.rng.random() < self.foreign:
            self.let_in_a_foreign_trial()
        self.compare()
        return super().issue()

    def let_in_a_foreign_trial(self):
        tid = max((doc["tid"] for doc in self.docs), default=-1) + self.rng.randint(1, 3)
        suggest = self.rng.choice([rand.suggest, partial(hyperband.suggest, eta=OTHER_ETA)])
        [doc] = suggest([tid], self.domain, self.trials, 0)
        doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": 0.0}
        self.trials.insert_trial_docs([doc])
        self.trials.refresh()

    def compare(self):
        serial = not self.trials.asynchronous
        expected, again = everything_read(self.docs, serial)
        history = read(self.trials, self.plan)
        history.go_up()
        assert history.brackets.keys() <= expected.keys()
        actions = {}
        for key, whole in expected.items():
            bracket = self.plan.bracket(key[1])
            actions[key] = advance(bracket, whole, outcome, known_at)
            if (found := history.brackets.get(key)) is None:
                # What is known needs no evaluation: a bracket may be complete within a suggestion.
                at_once = (self.finals or self.knobs) and actions[key] == Done()
                assert key in self.completed or at_once, "a bracket is read once after it is complete"
                assert key != list(expected)[-1], "the newest bracket is always read"
                continue
            assert advance(bracket, found, outcome, known_at) == actions[key]
            assert promotable(bracket, found, outcome) == promotable(bracket, whole, outcome)
            assert found.interrupted == whole.interrupted
            assert found.closed == whole.closed
            assert all(rung in ({}, of_all) for rung, of_all in zip(found.rungs, whole.rungs, strict=True))
        self.completed = frozenset(key for key, action in actions.items() if action == Done())
        following = [item for item in actions.items() if item[1] not in (Wait(), Done())]
        following = [again] * (again is not None) + following
        for _ in range(2):
            key, action = history.next_action()
            assert (key, action) == (following[0] if following else (key, Sample()))
            assert following or key not in expected


@pytest.mark.filterwarnings("ignore:.*trials come from a Hyperband run with other")
@pytest.mark.parametrize("seed", range(60))
def test_what_is_read_decides_as_all_documents_would(seed):
    rng = random.Random(seed)
    Compared(
        max_budget=rng.choice([3, 9, 20, 27]),
        eta=rng.choice([2, 3, 4]),
        workers=rng.randint(1, 30),
        ids=rng.randint(1, 7),
        faults=rng.choice([0.0, 0.1, 0.5]),
        restarts=rng.choice([0.0, 0.05, 0.2]),
        serial=rng.random() < 0.5,
        points=rng.choice([None, None, 5]),
        finals=rng.choice([0.0, 0.5]),
        knobs=rng.choice([0, 1, 2]),
        foreign=rng.choice([0.0, 0.2]),
        slow=rng.choice([0.0, 0.02, 0.1]),
        seed=seed,
    ).run()


def lose_some(simulation):
    counting = read(simulation.trials, simulation.plan).brackets.values()
    found = [doc for outcomes in counting for rung in outcomes.rungs for doc in rung.values()]
    for doc in simulation.rng.sample(found, 3):
        simulation.docs.remove(doc)


def shuffle(simulation):
    simulation.rng.shuffle(simulation.docs)


def put_the_first_last(simulation):
    simulation.docs.append(simulation.docs.pop(0))


def drop_the_foreign_trials(simulation):
    simulation.docs[:] = [doc for doc in simulation.docs if doc["misc"].get("hyperband", {}).get("eta") == 3]


def go_through_json(simulation):
    simulation.docs[:] = json.loads(json.dumps(simulation.docs, default=str))


def put_another_run_before(simulation):
    other = Simulation(max_budget=27, workers=5, seed=simulation.seed + 1)
    while len(other.docs) < 60:
        other.step()
    simulation.docs[:0] = other.docs


@pytest.mark.filterwarnings("ignore:.*trials come from a Hyperband run with other")
@pytest.mark.filterwarnings("ignore:.*trials are not of the run that goes on")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "spoil",
    [
        lose_some,
        shuffle,
        put_the_first_last,
        drop_the_foreign_trials,
        go_through_json,
        put_another_run_before,
    ],
)
def test_all_documents_decide_where_the_links_lead_nowhere(spoil, seed):
    simulation = Compared(max_budget=27, workers=12, ids=3, faults=0.1, slow=0.05, foreign=0.05, seed=seed)
    for _ in range(150):
        simulation.step()
    issued = len(simulation.docs)
    spoil(simulation)
    simulation.trials.refresh()
    simulation.run()
    assert len(simulation.docs) > issued


def test_a_bracket_that_has_promoted_stays_closed_when_an_evaluation_is_repeated():
    trials = Trials()
    trials._dynamic_trials += hyperband.suggest(range(9), DOMAIN, trials, 0)
    *finished, unfinished = trials._dynamic_trials
    for doc in finished:
        doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": float(doc["tid"])}
    trials._dynamic_trials += hyperband.suggest([9], DOMAIN, trials, 0)
    unfinished["state"], unfinished["book_time"] = JOB_STATE_RUNNING, datetime.now()
    trials._dynamic_trials += hyperband.suggest([10], DOMAIN, trials, 0)
    stamps = [doc["misc"]["hyperband"] for doc in trials._dynamic_trials[9:]]
    assert [(stamp["rung"], stamp["config"]) for stamp in stamps] == [(1, 0), (0, 8)]
    [outcomes] = read(trials, PLAN).brackets.values()
    assert outcomes.closed


@pytest.mark.parametrize("cut", range(100, 220, 7))
def test_no_bracket_opens_again_where_the_failed_documents_are_lost(cut):
    rng = random.Random(1)
    trials = Trials()
    for tid in range(cut):
        [doc] = hyperband.suggest([tid], DOMAIN, trials, tid)
        doc["state"] = JOB_STATE_ERROR if rng.random() < 0.1 else JOB_STATE_DONE
        doc["result"] = {"status": STATUS_OK, "loss": doc["misc"]["vals"]["x"][0]}
        trials._dynamic_trials.append(doc)
    kept = [doc for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_DONE]
    under_way = kept[-1]["misc"]["hyperband"]["iteration"]
    new = hyperband.suggest(range(1000, 1012), DOMAIN, trials_from_docs(kept), 0)
    assert all(doc["misc"]["hyperband"]["iteration"] >= under_way - 1 for doc in new)


def test_two_documents_in_the_wrong_order_are_noticed():
    trials = Trials()
    for tid in (*range(6), *range(106, 112)):
        [doc] = hyperband.suggest([tid], DOMAIN, trials, tid)
        doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": float(tid)}
        trials._dynamic_trials.append(doc)
    expected = read(trials, PLAN).brackets
    documents = trials._dynamic_trials
    documents[-2:] = documents[:-3:-1]
    assert read(trials, PLAN).brackets == expected


@pytest.mark.parametrize("of", ["rand", "another schedule"])
def test_a_run_of_which_the_newest_documents_lie_before_older_ones_is_read_in_whole(of):
    trials = Trials()
    other = rand.suggest if of == "rand" else partial(hyperband.suggest, eta=OTHER_ETA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tid in range(6):
            [doc] = (other if tid < 3 else hyperband.suggest)([tid], DOMAIN, trials, tid)
            doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": float(tid)}
            trials._dynamic_trials.append(doc)
    documents = trials._dynamic_trials
    documents[:] = [documents[i] for i in (4, 5, 0, 3, 1, 2)]  # the fourth is where it was
    [bracket] = read(trials, PLAN).brackets.values()
    assert sorted(bracket.rungs[0]) == [3, 4, 5]


def test_ids_need_be_no_numbers():
    runs = []
    for name in (int, "t{:04}".format):
        trials = Trials()
        number = {name(tid): tid for tid in range(2 * PLAN.evaluations)}
        for tid in range(2 * PLAN.evaluations):
            [doc] = hyperband.suggest([name(tid)], DOMAIN, trials, tid)
            loss = float(number[doc["misc"]["hyperband"]["config"]] * 7919 % 101)
            doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": loss}
            trials._dynamic_trials.append(doc)
        stamps = [doc["misc"]["hyperband"] for doc in trials._dynamic_trials]
        runs.append([(s["iteration"], s["bracket"], s["rung"], number[s["config"]]) for s in stamps])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("in_turns", [True, False])
def test_experiments_that_have_the_same_ids_keep_apart(in_turns):
    alone = {key: Compared(max_budget=27, workers=5, seed=seed) for seed, key in enumerate("ab")}
    for key, simulation in alone.items():
        simulation.trials = AsyncTrials(key)
        while len(simulation.docs) < 30:
            simulation.step()
    a, b = (simulation.docs for simulation in alone.values())
    together = AsyncTrials()
    if in_turns:
        together._dynamic_trials.extend(doc for pair in zip(a, b, strict=True) for doc in pair)
    else:
        a[-1]["tid"] += 1000
        together._dynamic_trials.extend([*a[:-1], *b, a[-1]])
    for key, simulation in alone.items():
        found = read(together.view(key), simulation.plan)
        assert found.brackets
        for bracket, outcomes in found.brackets.items():
            own = everything_read(simulation.docs, serial=False)[0][bracket]
            assert all(rung in ({}, of_all) for rung, of_all in zip(outcomes.rungs, own.rungs, strict=True))
