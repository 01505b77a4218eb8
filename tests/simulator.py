"""A backend that goes wrong in every way there is, in simulated time."""

import json
import math
import pickle
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import zip_longest

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
from hyperopt.exceptions import AllTrialsFailed

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
    with `nested` in a choice within a choice. A share `finals` of the configurations stops early, at a budget
    of its own. With `knobs` = 1 or 2, the space is a choice of so many kinds with a budget, and one without.
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
    finals: float = 0.0
    knobs: int = 0
    algo: Callable = hyperband.suggest
    iterations: int = 2
    seed: int = 0

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        # A stream of its own: the same configurations come up whatever happens to the evaluations.
        self.seeds = random.Random(self.seed)
        self.suggest = partial(self.algo, eta=self.eta)
        self.bounds = {"b": (self.min_budget, self.max_budget)}
        if self.knobs == 2:
            self.bounds["c"] = (2 * self.min_budget, 5 * self.max_budget)
        nodes = {label: hyperband.budget(label, *bounds) for label, bounds in self.bounds.items()}
        kinds = [{"kind": label, label: node} for label, node in nodes.items()] + [{"kind": "without"}]
        knobs = {"kinds": hp.choice("kinds", kinds)} if self.knobs else nodes
        self.space = {"x": self.hyperparameters(), **knobs}
        self.plan = hyperband.schedule(self.space, eta=self.eta)
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

    def level(self, doc):
        return doc["misc"]["hyperband"].get("share", doc["misc"]["budget"])

    def value(self, label, level):
        """What a budget node holds at a rung."""
        low, high = self.bounds[label]
        return level if self.knobs < 2 else max(low, round(level * high))

    def stop(self, doc):
        """The level at which a configuration stops early; infinite where it does not."""
        rng = random.Random(f"{written(without_budget(doc))} {self.seed} stop")
        levels = [rung.budget for rung in self.plan.brackets[0].rungs]
        return rng.choice(levels) if rng.random() < self.finals else math.inf

    def known_at(self, doc, level):
        """Whether a finished evaluation tells what one at a higher level would bring."""
        active = [label for label in self.bounds if len(doc["misc"]["vals"][label])]
        final = not active or doc["result"].get("final")
        return final or self.value(active[0], level) == self.value(active[0], self.level(doc))

    def outcome(self, doc):
        vals = dict(doc["misc"]["vals"])
        if self.level(doc) > self.stop(doc):
            vals = {label: vals[label] if label not in self.bounds else ["stopped"] for label in vals}
        rng = random.Random(written(vals) + str(self.seed))
        if rng.random() < self.faults:
            return rng.choice(FAULTS)
        return rng.randrange(self.ties) / 7 - 1

    def finish(self, doc):
        outcome = self.outcome(doc)
        if outcome in FAULTS:
            self.injected[outcome] += 1
        alike = [other for other in self.docs if other["tid"] == doc["tid"]]
        if self.asks and outcome not in ("cancel", "missing") and len(alike) == 1:
            told = {"raise": RuntimeError(), "fail": {"status": STATUS_FAIL}, "none": LOSS_NONE}
            copy = json.loads(json.dumps(doc, default=str))
            result = told[outcome] if outcome in told else self.result(doc, outcome)
            hyperband.tell(self.trials, copy, result)
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
                doc["result"] = self.result(doc, outcome)
        self.trials.refresh()

    def result(self, doc, outcome):
        final = {"final": self.level(doc) >= self.stop(doc)} if self.finals else {}
        return {"status": STATUS_OK, "loss": float(outcome), **final}

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
        chosen = any("turn" in doc["misc"]["hyperband"] for doc in live)
        opened = {place[:2] for place in rungs}
        for iteration in range(self.iterations):
            for bracket in self.plan.brackets:
                if not chosen or iteration == 0 or (iteration, bracket.s) in opened:
                    self.check_bracket(
                        bracket,
                        [rungs.get((iteration, bracket.s, i), {}) for i in range(bracket.s + 1)],
                        vals,
                    )
        turns = {
            (where(doc)[:2], turn)
            for doc in live
            if (turn := doc["misc"]["hyperband"].get("turn")) is not None
        }
        assert not chosen or [turn for _, turn in sorted(turns)] == list(range(len(opened)))
        return self

    def check_bracket(self, bracket, rungs, vals):
        foot = bracket.rungs[0].configurations
        if self.points is None:
            assert len(rungs[0]) == foot, "rung 0 is filled, and never refilled"
        else:
            self.check_draws(rungs[0], foot)
        entered = rungs[0]
        for i, rung in enumerate(bracket.rungs):
            for config, doc in rungs[i].items():
                self.check_budget(doc, rung)
                assert without_budget(doc) == vals[config], "a promotion is the same configuration"
            if i < bracket.s:
                losses = {config: loss(doc) for config, doc in entered.items()}
                survivors = sorted((value, config) for config, value in losses.items() if value < math.inf)
                best = {config for _, config in survivors[: bracket.rungs[i + 1].configurations]}
                above = bracket.rungs[i + 1].budget
                known = {config: entered[config] for config in best if self.known_at(entered[config], above)}
                assert set(rungs[i + 1]) == best - known.keys(), (
                    "what goes up is what the synchronous rule chooses"
                )
                entered = rungs[i + 1] | known

    def check_budget(self, doc, rung):
        """It is evaluated at the budget of its rung, which the active node holds."""
        assert self.level(doc) == rung.budget
        held = {label: doc["misc"]["vals"][label] for label in self.bounds}
        active = [label for label, value in held.items() if len(value)]
        assert len(active) <= 1
        for label in active:
            assert held[label] == [self.value(label, rung.budget)] == [doc["misc"]["budget"]]

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
    return {label: value for label, value in doc["misc"]["vals"].items() if label not in ("b", "c")}


def written(vals):
    """Values as text, the same wherever the document has been."""
    return repr([(k, [f"{x:.9g}" if x != "stopped" else x for x in v]) for k, v in sorted(vals.items())])


@dataclass
class Disrupted(Simulation):
    """Its documents are lost, disordered, joined with other runs', read back; the space changes.

    What was promised then is checked at every suggestion: each document counts once, no rung is larger than
    planned, each promotion is one of the best of the rung below, nothing outside the space is issued, and no
    disruption is told twice.
    """

    disruptions: int = 3

    def __post_init__(self):
        self.high, self.options, self.kind = 1.0, 3, "uniform"
        super().__post_init__()
        self.injected |= dict.fromkeys(("lost", "reordered", "joined", "json", "bson", "space"), 0)
        self.left, self.untold, self.issued = self.disruptions, 0, 0

    def hyperparameters(self):
        kinds = {
            "uniform": lambda: hp.uniform("x", 0, self.high),
            "quniform": lambda: hp.quniform("x", 0, self.high, 0.01),
            "choice": lambda: hp.choice("x", [f"option {i}" for i in range(int(100 * self.high))]),
        }
        branches = [{"y": hp.normal("y", 0, 1)}, {"z": hp.lognormal("z", 0, 1)}, {}, {}]
        return {"x": kinds[self.kind](), "branch": hp.choice("branch", branches[: self.options])}

    def inside(self, doc):
        vals = doc["misc"]["vals"]
        [x], [branch] = vals["x"], vals["branch"]
        whole = abs(100 * x - round(100 * x)) < 1e-6
        fits = {
            "uniform": 0 <= x <= self.high,
            "quniform": 0 <= x <= self.high + 0.005 and whole,
            "choice": isinstance(x, int) and 0 <= x < int(100 * self.high),
        }
        active = {0: (1, 0), 1: (0, 1), 2: (0, 0), 3: (0, 0)}[branch]
        return fits[self.kind] and branch < self.options and (len(vals["y"]), len(vals["z"])) == active

    def step(self):
        if self.left and len(self.docs) > 5 and self.rng.random() < 0.05:
            self.left -= 1
            self.untold = 1
            self.rng.choice(
                [self.lose, self.reorder, self.join, self.join, self.read_back, self.change, self.repeat]
            )()
            self.check_readers()
            self.issue()
            self.check_readers()
            return True
        return super().step()

    def suggested(self, ids, domain, trials, seed):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            new = super().suggested(ids, domain, trials, seed)
        told = [str(w.message) for w in caught if "are not of the run that goes on" in str(w.message)]
        assert len(told) <= self.untold, "a disruption is told once"
        self.untold = 0
        self.issued += len(new)
        again = (1 + self.disruptions) * self.iterations * self.plan.evaluations
        assert self.issued <= again + self.injected["interrupted"], "a run ends"
        tids = {doc["tid"] for doc in self.docs}
        rows = [row for row in hyperband.records(trials) if row["status"] != "interrupted"]
        assert all(map(self.inside, [doc for doc in self.docs if doc["state"] == JOB_STATE_NEW]))
        for doc in new:
            assert doc["tid"] not in tids
            assert self.inside(doc), "nothing outside the space is issued"
            self.check_promotion(doc, rows)
        return new

    def check_promotion(self, doc, rows):
        its = doc["misc"]["hyperband"]
        rungs = self.plan.bracket(its["bracket"]).rungs
        self.check_budget(doc, rungs[its["rung"]])
        if its["rung"] > 0:
            own = [
                row
                for row in rows
                if (row["iteration"], row["bracket"]) == (its["iteration"], its["bracket"])
            ]
            rung = [row for row in own if row["rung"] == its["rung"] - 1]
            lower = [row for row in own if row["config"] == its["config"] and row["rung"] < its["rung"]]
            source = max(lower, key=lambda row: row["rung"])
            own = {name: value[0] if value else None for name, value in without_budget(doc).items()}
            assert {name: source.get(f"param_{name}") for name in own} == own, "the same configuration"
            assert source["status"] == "ok"
            better = [row for row in rung if row["loss"] is not None and row["loss"] < source["loss"]]
            assert len(better) < rungs[its["rung"]].configurations, "it is one of the best"

    def check_readers(self):
        report = hyperband.report(self.trials, space=self.space)
        assert str(report)
        rows = hyperband.records(self.trials, space=self.space)
        assert len(rows) == len(self.docs)
        assert report.evaluations + report.pending + report.interrupted + report.foreign == len(rows)
        own = [row for row in rows if row["status"] != "interrupted" and row["rung"] is not None]
        assert report.evaluations + report.pending == len(own)
        assert report.failed == sum(row["status"] == "failed" for row in own)
        assert report.configurations == len({row["config"] for row in own})
        places = [(row["iteration"], row["bracket"], row["rung"], row["config"]) for row in own]
        assert len(set(places)) == len(places), "each configuration counts once in a rung"
        for rung in report.rungs:
            assert rung.evaluations + rung.pending <= rung.planned
            assert rung.promoted <= rung.evaluations + rung.pending + rung.carried <= rung.planned
        hyperband.no_progress()(self.trials)
        try:
            best = hyperband.incumbent(self.trials)
        except AllTrialsFailed:
            assert all(row["loss"] is None for row in own), "what lies outside the space is no incumbent"
        else:
            assert best["result"]["loss"] == report.incumbent.loss

    def check(self):
        assert not self.pending
        self.check_readers()
        return self

    def lose(self):
        lost = self.rng.randint(1, 5)
        self.injected["lost"] += lost
        for _ in range(lost):
            self.docs.remove(self.rng.choice(self.docs))
        self.trials.refresh()

    def reorder(self):
        self.injected["reordered"] += 1
        self.rng.choice([self.rng.shuffle, list.reverse, lambda docs: docs.append(docs.pop(0))])(self.docs)
        self.trials.refresh()

    def read_back(self):
        way = self.rng.choice(["json", "bson"])
        self.injected[way] += 1
        if way == "json":
            self.go_on_with(json.loads(json.dumps(self.docs, default=str)))
        else:
            self.go_on_with(bson.decode(bson.encode({"docs": self.docs}))["docs"])

    def change(self):
        """An option fewer, a narrower range, another type, or back to the old one."""
        self.injected["space"] += 1
        self.high = self.rng.choice([1.0, 0.8, 0.5, 0.2])
        self.options = self.rng.choice([2, 3, 4])
        self.kind = self.rng.choice(["uniform", "uniform", "quniform", "choice"])
        self.space = self.space | {"x": self.hyperparameters()}
        self.domain = Domain(lambda _: 0.0, self.space)

    def join(self):
        """One or two other runs, or this one twice; in turns or not; ids as they are, or new ones."""
        runs = [self.docs]
        for _ in range(self.rng.randint(1, 2)):
            self.injected["joined"] += 1
            other = Simulation(
                self.min_budget,
                self.max_budget,
                self.eta,
                workers=self.workers,
                ids=self.ids,
                faults=self.faults,
                serial=self.serial,
                restarts=self.restarts,
                asks=self.asks,
                iterations=self.iterations,
                finals=self.finals,
                knobs=self.knobs,
                seed=self.seed + self.rng.randint(0, 1),
            )
            other.space, other.domain = self.space, self.domain
            while len(other.docs) < self.rng.randint(1, len(self.docs)) and other.step():
                pass
            runs.append(other.docs)
        if self.rng.random() < 0.2:
            runs.append(json.loads(json.dumps(self.docs, default=str)))
        self.rng.shuffle(runs)
        docs = [doc for run in runs for doc in run]
        if self.rng.random() < 0.3:
            docs = [doc for turn in zip_longest(*runs) for doc in turn if doc is not None]
        if self.rng.random() < 0.5:
            for tid, doc in enumerate(docs):
                doc["tid"] = doc["misc"]["tid"] = tid
                doc["misc"]["idxs"] = {
                    label: [tid] * len(value) for label, value in doc["misc"]["vals"].items()
                }
        self.go_on_with(docs)

    def repeat(self):
        """The same evaluation is interrupted again and again, where the run is serial."""
        for _ in range(3):
            if self.serial:
                for doc in self.pending[:-1]:
                    self.finish(doc)
            self.restart()
