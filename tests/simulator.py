"""A backend that goes wrong in every way there is, in simulated time."""

import json
import math
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import bson
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, hp
from hyperopt.base import (
    JOB_STATE_CANCEL,
    JOB_STATE_DONE,
    JOB_STATE_ERROR,
    JOB_STATE_NEW,
    JOB_STATE_RUNNING,
    Domain,
)

from hyperopt_hyperband import hyperband

LOSS_NONE = {"status": STATUS_OK, "loss": None}
FAULTS = ("raise", "cancel", "fail", "nan", "inf", "-inf", "none", "missing")


class AsyncTrials(Trials):
    """Documents that are RUNNING are at work somewhere."""

    asynchronous = True


@dataclass
class Simulation:
    """Drives suggest with some workers until the given Hyperband iterations are complete.

    An evaluation's outcome is a function of its configuration and budget, so that runs can be compared
    whatever the order in which evaluations finish. With `serial`, evaluations are lost as they are in a
    serial run: the process dies, and the document stays RUNNING. With `asks`, a serial Trials' documents are
    handed out by `hyperband.ask`, or just marked RUNNING, and told. With `points`, the space has as many,
    with `nested` in a choice within a choice.
    """

    min_budget: int = 1
    max_budget: int = 9
    eta: float = 3
    workers: int = 1
    ids: int = 1
    faults: float = 0.0
    restarts: float = 0.0
    serial: bool = False
    asks: bool = False
    ties: int = 10**6
    points: int | None = None
    nested: bool = False
    algo: Callable = hyperband.suggest
    iterations: int = 2
    seed: int = 0

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        # A stream of its own: the same configurations come up whatever happens to the evaluations.
        self.seeds = random.Random(self.seed)
        self.suggest = partial(self.algo, eta=self.eta)
        self.plan = hyperband.schedule(self.min_budget, self.max_budget, self.eta)
        self.space = {
            "x": self.hyperparameters(),
            "b": hyperband.budget("b", self.min_budget, self.max_budget),
        }
        self.domain = Domain(lambda _: 0.0, self.space)
        self.trials = Trials() if self.serial or self.asks else AsyncTrials()
        self.injected = dict.fromkeys(("restart", "interrupted", *FAULTS), 0)

    def hyperparameters(self):
        if self.points is None:
            branches = [{"y": hp.normal("y", 0, 1)}, {"z": hp.lognormal("z", 0, 1)}]
            return {"x": hp.uniform("x", 0, 1), "branch": hp.choice("branch", branches)}
        if not self.nested:
            return hp.randint("x", self.points)
        inner = [hp.choice("inner", list(range(self.points - 1)))] if self.points > 1 else []
        return hp.choice("outer", [None, *inner])

    @property
    def docs(self):
        return self.trials._dynamic_trials

    def in_state(self, *states):
        return [doc for doc in self.docs if doc["state"] in states]

    @property
    def dead(self):
        """What a serial run's dead processes have left RUNNING; other documents have a result at once."""
        return self.in_state(JOB_STATE_RUNNING) if self.serial else []

    @property
    def pending(self):
        return self.in_state(JOB_STATE_NEW, *() if self.serial else (JOB_STATE_RUNNING,))

    def run(self):
        while self.step():
            pass
        return self

    def step(self):
        if self.rng.random() < self.restarts:
            self.restart()
        pending = self.pending
        if len(pending) < self.workers and (self.rng.random() < 0.7 or not pending) and self.issue():
            return True
        if not pending:
            return False
        self.finish(self.rng.choice(pending))
        return True

    def suggested(self, ids, domain, trials, seed):
        """What suggest says, without the iterations that are not wanted."""
        docs = self.suggest(ids, domain, trials, seed)
        assert len(docs) == len(ids), "there is always work"
        return [doc for doc in docs if doc["misc"]["hyperband"]["iteration"] < self.iterations]

    def issue(self):
        seed = self.seeds.randrange(2**31 - 1)
        if self.asks and self.rng.random() < 0.5:
            return hyperband.ask(self.trials, self.space, algo=self.suggested, seed=seed) is not None
        ids = self.trials.new_trial_ids(self.rng.randint(1, self.ids))
        self.trials.refresh()
        docs = self.suggested(ids, self.domain, self.trials, seed)
        if self.asks:
            for doc in docs:
                doc["state"] = JOB_STATE_RUNNING
        self.trials.insert_trial_docs(docs)
        self.trials.refresh()
        return bool(docs)

    def outcome(self, doc):
        vals = sorted((k, v) for k, v in doc["misc"]["vals"].items())
        rng = random.Random(repr([(k, [float(f"{x:.9g}") for x in v]) for k, v in vals]) + str(self.seed))
        if rng.random() < self.faults:
            return rng.choice(FAULTS)
        return rng.randrange(self.ties) / 7 - 1

    def finish(self, doc):
        outcome = self.outcome(doc)
        if outcome in FAULTS:
            self.injected[outcome] += 1
        if self.asks and outcome not in ("cancel", "missing"):
            told = {"raise": RuntimeError(), "fail": {"status": STATUS_FAIL}, "none": LOSS_NONE}
            copy = json.loads(json.dumps(doc, default=str))
            hyperband.tell(self.trials, copy, told[outcome] if outcome in told else float(outcome))
            return
        doc["state"] = JOB_STATE_DONE
        match outcome:
            case "raise":
                doc["state"] = JOB_STATE_ERROR
            case "cancel":
                doc["state"] = JOB_STATE_CANCEL
            case "fail":
                doc["result"] = {"status": STATUS_FAIL}
            case "missing":
                doc["result"] = {"status": STATUS_OK}
            case "none":
                doc["result"] = LOSS_NONE
            case _:
                doc["result"] = {"status": STATUS_OK, "loss": float(outcome)}
        self.trials.refresh()

    def restart(self):
        """The process dies and comes back with what it has saved: pickled, or as BSON."""
        self.injected["restart"] += 1
        if self.serial and (new := self.in_state(JOB_STATE_NEW)):
            new[0]["state"], new[0]["book_time"] = JOB_STATE_RUNNING, datetime.now()  # as fmin leaves it
            self.injected["interrupted"] += 1
        if self.rng.random() < 0.5:
            self.trials = pickle.loads(pickle.dumps(self.trials))
        else:
            self.go_on_with(bson.decode(bson.encode({"docs": self.docs}))["docs"])
        if self.serial and new:
            self.issue()  # as fmin does, before anything else can be interrupted

    def go_on_with(self, docs):
        """Trials of the same kind that hold these documents."""
        self.trials = type(self.trials)()
        self.trials.insert_trial_docs(docs)
        self.trials.refresh()

    def check(self):
        """What every run promises, whatever happened to its evaluations."""
        dead = {doc["tid"] for doc in self.dead}
        live = [doc for doc in self.docs if doc["tid"] not in dead]
        tids = [doc["tid"] for doc in self.docs]
        assert len(tids) == len(set(tids))
        assert all(doc["state"] not in (JOB_STATE_NEW, JOB_STATE_RUNNING) for doc in live)
        rungs = {}
        for doc in live:
            stamp = doc["misc"]["hyperband"]
            rung = rungs.setdefault((stamp["iteration"], stamp["bracket"], stamp["rung"]), {})
            assert stamp["config"] not in rung, "no configuration takes two places in a rung"
            rung[stamp["config"]] = doc
        vals = {doc["tid"]: without_budget(doc) for doc in self.docs}
        for iteration in range(self.iterations):
            for bracket in self.plan.brackets:
                self.check_bracket(
                    bracket, [rungs.get((iteration, bracket.s, i), {}) for i in range(bracket.s + 1)], vals
                )
        return self

    def check_bracket(self, bracket, rungs, vals):
        foot = bracket.rungs[0].configurations
        if self.points is None:
            assert len(rungs[0]) == foot, "rung 0 is filled, and never refilled"
        else:
            self.check_draws(rungs[0], foot)
        for i, rung in enumerate(bracket.rungs):
            for config, doc in rungs[i].items():
                assert doc["misc"]["budget"] == rung.budget
                assert doc["misc"]["vals"]["b"] == [rung.budget]
                assert without_budget(doc) == vals[config], "a promotion is the same configuration"
            if i < bracket.s:
                losses = {config: loss(doc) for config, doc in rungs[i].items()}
                survivors = sorted((value, config) for config, value in losses.items() if value < math.inf)
                best = {config for _, config in survivors[: bracket.rungs[i + 1].configurations]}
                assert set(rungs[i + 1]) == best, "what goes up is what the synchronous rule chooses"

    def check_draws(self, rung, foot):
        """A small space: no configuration that has been at max_budget is drawn while others are left."""
        drawn = {repr(without_budget(doc)) for doc in rung.values()}
        assert len(drawn) == len(rung) <= foot, "none comes twice"
        for config, doc in rung.items():
            full = self.full_before(config)
            if config == doc["tid"] and len(full) < self.points:  # it does not repeat one that was cut short
                assert repr(without_budget(doc)) not in full
        if len(drawn) < foot:
            last = max(rung)
            later = [doc["tid"] for doc in self.docs if doc["tid"] > last and where(doc) > where(rung[last])]
            full = self.full_before(min(later, default=math.inf))
            if len(full) == self.points:
                assert len(drawn) == self.points
            else:
                assert len(drawn | full) == self.points, "all that was left"

    def full_before(self, tid):
        """The configurations that were at max_budget, or on their way there, before this document."""
        full = (doc for doc in self.docs if doc["misc"]["budget"] == self.max_budget and doc["tid"] < tid)
        return {repr(without_budget(doc)) for doc in full}


def where(doc):
    """Orders documents by when their bracket and rung open."""
    stamp = doc["misc"]["hyperband"]
    return stamp["iteration"], -stamp["bracket"], stamp["rung"]


def loss(doc):
    value = doc["result"].get("loss")
    ok = doc["state"] == JOB_STATE_DONE and doc["result"]["status"] == STATUS_OK and value is not None
    return value if ok and math.isfinite(value) else math.inf


def without_budget(doc):
    return {label: value for label, value in doc["misc"]["vals"].items() if label != "b"}
