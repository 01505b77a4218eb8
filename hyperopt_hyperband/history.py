"""Hyperopt's documents, read and written. The one module that knows their layout."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt.base import (
    JOB_STATE_CANCEL,
    JOB_STATE_DONE,
    JOB_STATE_ERROR,
    JOB_STATE_NEW,
    JOB_STATE_RUNNING,
    STATUS_NEW,
    STATUS_OK,
    Domain,
    Trials,
)
from hyperopt.exceptions import AllTrialsFailed
from hyperopt.utils import coarse_utcnow

from hyperopt_hyperband.promotion import FAILED, Done, Outcomes, decide
from hyperopt_hyperband.schedule import Budget, Schedule

Document = dict[str, Any]
Vals = dict[str, list[Any]]
"""Hyperopt's assignment: for every label a list of its value, empty where the label is inactive."""
BracketKey = tuple[int, int]
"""Hyperband iteration and bracket s."""


@dataclass(slots=True)
class History:
    """What the documents tell of a run.

    Attributes
    ----------
    outcomes : the brackets that may still be open, oldest first
    first : for each of them, the tid of the document that opened it
    configs : the document of each configuration's first evaluation
    continued : whether the newest stamped document is of this schedule
    strangers : how many documents of other schedules were seen
    """

    schedule: Schedule
    outcomes: dict[BracketKey, Outcomes]
    configs: dict[Hashable, Document]
    first: dict[BracketKey, Hashable]
    continued: bool
    strangers: int

    def add(self, document: Document, loss: float | None = None, interrupted: bool = False) -> None:
        """Take in a stamped document, in the order of the run."""
        stamp = document["misc"]["hyperband"]
        key, rung, config = (stamp["iteration"], stamp["bracket"]), stamp["rung"], stamp["config"]
        if key not in self.outcomes:
            for older in self.outcomes.values():
                older.closed = True
            self.outcomes[key] = Outcomes(tuple({} for _ in range(stamp["bracket"] + 1)))
            self.first[key] = document["tid"]
        self.configs.setdefault(config, document)
        outcomes = self.outcomes[key]
        if rung > 0:
            outcomes.closed = True
        elif config in outcomes.interrupted:
            outcomes.interrupted.remove(config)
        if not interrupted:
            outcomes.rungs[rung][config] = loss
        elif rung == 0:
            outcomes.interrupted.append(config)

    def vals(self, config: Hashable) -> Vals:
        """The hyperparameters of a configuration, as its first evaluation had them."""
        return self.configs[config]["misc"]["vals"]  # type: ignore[no-any-return]

    def rung_0_vals(self, key: BracketKey) -> list[Vals]:
        """The hyperparameters of all configurations of a bracket."""
        return [self.vals(config) for config in self.outcomes[key].rungs[0]] if key in self.outcomes else []

    def labels(self) -> set[str]:
        """The hyperparameters of the run, none where it has not begun."""
        return set(next(reversed(self.configs.values()))["misc"]["vals"]) if self.configs else set()

    def stamp(self, document: Document, key: BracketKey, rung: int, config: Hashable) -> Document:
        """Write a document's budget and place in the schedule into its misc."""
        self._drop_completed()
        bracket = self.schedule.bracket(key[1])
        document["misc"]["budget"] = bracket.rungs[rung].budget
        document["misc"]["hyperband"] = {
            "iteration": key[0],
            "bracket": key[1],
            "rung": rung,
            "config": config,
            **_settings(self.schedule),
            "since": next(iter(self.first.values()), document["tid"]),
        }
        return document

    def _drop_completed(self) -> None:
        """Forget the oldest brackets where they are complete, the newest bracket aside."""
        while len(self.outcomes) > 1:
            key = next(iter(self.outcomes))
            if decide(self.schedule.bracket(key[1]), self.outcomes[key]) != Done():
                return
            del self.outcomes[key], self.first[key]


def read(trials: Trials, schedule: Schedule) -> History:
    """Read the run of a schedule from the documents, as far back as a bracket may still be open.

    Each stamp carries the tid with which the oldest open bracket began at its time, so that reading costs
    the same however long the run is. Documents without a stamp, or of another schedule, are strangers.
    """
    settings = _settings(schedule)
    own: list[Document] = []
    since = strangers = 0
    continued = None
    for document in reversed(documents(trials)):
        stamp = document["misc"].get("hyperband")
        if stamp is None:
            continue
        is_own = settings.items() <= stamp.items()
        continued = is_own if continued is None else continued
        if not is_own:
            strangers += 1
            continue
        if not own:
            since = stamp["since"]
        own.append(document)
        if document["tid"] == since:
            break
    history = History(schedule, {}, {}, {}, bool(continued), strangers)
    for document in reversed(own):
        if _order(document) < _order(own[-1]):
            continue  # its bracket was complete, though it ended after the oldest open one began
        interrupted = document["state"] == JOB_STATE_RUNNING and not trials.asynchronous
        history.add(document, loss(document), interrupted)
    return history


def documents(trials: Trials) -> list[Document]:
    """All documents of a Trials, those of failed evaluations too, which `trials.trials` leaves out."""
    everything = getattr(trials, "_dynamic_trials", trials.trials)
    if trials._exp_key is None:
        return everything  # type: ignore[no-any-return]
    return [document for document in everything if document["exp_key"] == trials._exp_key]


def loss(document: Document) -> float | None:
    """The loss of an evaluation: None while it is pending, infinite where it failed."""
    state, result = document["state"], document["result"]
    if state == JOB_STATE_DONE and result.get("status") == STATUS_OK:
        value = result.get("loss")
        return float(value) if isinstance(value, float | int | np.number) and math.isfinite(value) else FAILED
    # SparkTrials sets the state a moment before the result.
    pending = state in (JOB_STATE_NEW, JOB_STATE_RUNNING) or result.get("status") == STATUS_NEW
    return None if pending and state not in (JOB_STATE_ERROR, JOB_STATE_CANCEL) else FAILED


def unused(new_ids: Sequence[Hashable], trials: Trials) -> Sequence[Hashable]:
    """The ids, or later ones where documents may have them already.

    Hyperopt counts up from the number of ids that it knows, and a Trials built from documents does not
    know those of failed evaluations.
    """
    newest = [document["tid"] for document in documents(trials)[-1:]]
    ids = [i for i in new_ids if isinstance(i, int)]
    if not newest or len(ids) < len(new_ids) or all(i > newest[0] for i in ids):
        return new_ids
    first = max(document["tid"] for document in documents(trials)) + 1
    return range(first, first + len(ids))


def new_document(tid: Hashable, vals: Vals, domain: Domain, trials: Trials) -> Document:
    """A new evaluation of the hyperparameters in vals."""
    misc = {
        "tid": tid,
        "cmd": domain.cmd,
        "workdir": domain.workdir,
        "idxs": {label: [tid] if value else [] for label, value in vals.items()},
        "vals": {label: list(value) for label, value in vals.items()},
    }
    [document] = trials.new_trial_docs([tid], [None], [domain.new_result()], [misc])
    return document  # type: ignore[no-any-return]


def unfinished(trials: Trials) -> list[Document]:
    """The evaluations still to be done, those that were cut short among them, suspects first.

    To be called while none is under way: those marked as running were cut short too.
    """
    for document in documents(trials):
        if document["state"] in (JOB_STATE_RUNNING, JOB_STATE_CANCEL):
            document.update(state=JOB_STATE_NEW, result={"status": STATUS_NEW})
    trials.refresh()
    new = [document for document in documents(trials) if document["state"] == JOB_STATE_NEW]
    return sorted(new, key=lambda document: not is_suspect(document))


def is_suspect(document: Document) -> bool:
    """Whether the evaluation was under way when an executor broke."""
    return "suspect" in document["misc"]


def suspect(document: Document) -> None:
    """Mark an evaluation as under way when an executor broke."""
    document["misc"]["suspect"] = 1


def is_done(document: Document) -> bool:
    """Whether the evaluation has finished with a result."""
    return document["state"] == JOB_STATE_DONE  # type: ignore[no-any-return]


def begin(document: Document) -> None:
    """Mark an evaluation as running."""
    now = coarse_utcnow()
    document.update(state=JOB_STATE_RUNNING, book_time=now, refresh_time=now)


def finish(document: Document, result: Document) -> None:
    """Write down an evaluation's result."""
    document.update(state=JOB_STATE_DONE, result=result, refresh_time=coarse_utcnow())


def fail(document: Document, error: BaseException) -> None:
    """Write down what an evaluation has raised."""
    document["misc"]["error"] = (str(type(error)), str(error))
    document.update(state=JOB_STATE_ERROR, refresh_time=coarse_utcnow())


def cut_short(trials: Trials) -> None:
    """Mark the running evaluations as cancelled; `unfinished` brings them back."""
    for document in documents(trials):
        if document["state"] == JOB_STATE_RUNNING:
            document.update(state=JOB_STATE_CANCEL, refresh_time=coarse_utcnow())


def attachments(document: Document, trials: Trials) -> dict[str, Any]:
    """The attachments that an evaluation may read: its own, and those of the rung below."""
    owners = [document]
    if "below" in document["misc"].get("hyperband", {}):
        owners.append({"tid": document["misc"]["hyperband"]["below"]})
    prefixes = tuple(trials.aname(owner, "") for owner in owners)
    return {name: value for name, value in trials.attachments.items() if name.startswith(prefixes)}


def incumbent(trials: Trials) -> Document:
    """The document of the best trial at the largest budget evaluated.

    Losses at different budgets do not compare; fmin's own argmin mixes them. A trial without a budget,
    such as one of TPE, counts as evaluated at max_budget.

    Raises
    ------
    hyperopt.exceptions.AllTrialsFailed
        No trial has finished with a finite loss.
    """
    finished = [
        (value, document)
        for document in documents(trials)
        if (value := loss(document)) is not None and value < FAILED
    ]
    if not finished:
        raise AllTrialsFailed
    full = max(
        (
            document["misc"]["hyperband"]["max_budget"]
            for _, document in finished
            if "hyperband" in document["misc"]
        ),
        default=math.inf,
    )
    return min(finished, key=lambda outcome: (-outcome[1]["misc"].get("budget", full), outcome[0]))[1]


def _order(document: Document) -> tuple[int, int]:
    """Orders documents by when their brackets opened."""
    stamp = document["misc"]["hyperband"]
    return stamp["iteration"], -stamp["bracket"]


def _settings(schedule: Schedule) -> dict[str, Budget]:
    return {"min_budget": schedule.min_budget, "max_budget": schedule.max_budget, "eta": schedule.eta}
