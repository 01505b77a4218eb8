"""Hyperopt's documents, read and written. The one module that knows their layout."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from operator import itemgetter
from typing import Any, Literal, NamedTuple

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

from hyperopt_hyperband.promotion import FAILED, Done, Outcomes, Promote, Retry, Sample, Wait, decide
from hyperopt_hyperband.schedule import Budget, Schedule, schedule

Document = dict[str, Any]
Vals = dict[str, list[Any]]
"""Hyperopt's assignment: for every label a list of its value, empty where the label is inactive."""
BracketKey = tuple[int, int]
"""Hyperband iteration and bracket s."""
Place = tuple[int, int, int]
"""Hyperband iteration, bracket s and rung."""
Status = Literal["ok", "failed", "pending", "interrupted"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One document, read.

    Attributes
    ----------
    tid, config : its id, and the tid of its configuration's first evaluation
    place : where in the schedule; None for a stranger
    budget : that of a document without one is max_budget; None where no schedule is known
    status : "interrupted" where it was cut short and counts no more
    loss : finite where the status is "ok", else None
    vals : the active hyperparameters by label, a choice as its index
    begun, ended : None where that has not happened or is not known
    """

    tid: Hashable
    config: Hashable
    place: Place | None
    budget: Budget | None
    status: Status
    loss: float | None
    vals: dict[str, Any]
    begun: datetime | None
    ended: datetime | None

    @property
    def spent(self) -> Budget:
        """The budget of a finished evaluation; 0 for others, and where it is not known."""
        return self.budget if self.budget is not None and self.status in ("ok", "failed") else 0


class Evidence(NamedTuple):
    """What a model may learn from one evaluation: loss None while it is pending, infinite where it failed."""

    config: Hashable
    budget: Budget
    loss: float | None
    vals: Vals


@dataclass(slots=True)
class History:
    """What the documents tell of a run.

    Attributes
    ----------
    outcomes : the brackets that may still be open, and the newest, oldest first; evaluations are documents
    ends : for each of them, the tids of the oldest document that still counts, and of the newest
    strangers : how many documents of other schedules have come since
    """

    schedule: Schedule
    outcomes: dict[BracketKey, Outcomes]
    ends: dict[BracketKey, tuple[Hashable, Hashable]]
    strangers: int

    def next_action(self) -> tuple[BracketKey, Sample | Retry | Promote]:
        """The oldest bracket that has something to do does it; where all wait, the next bracket opens.

        What proves complete on the way is forgotten, the newest bracket aside.
        """
        s_max = self.schedule.brackets[0].s
        iteration, s = newest = next(reversed(self.outcomes), (0, s_max + 1))
        for key, outcomes in list(self.outcomes.items()):
            action = decide(self.schedule.bracket(key[1]), outcomes, loss)
            if not isinstance(action, Wait | Done):
                return key, action
            if isinstance(action, Done) and key != newest:
                del self.outcomes[key], self.ends[key]
        return ((iteration, s - 1) if s > 0 else (iteration + 1, s_max)), Sample()

    def labels(self) -> set[str] | None:
        """The hyperparameters of the run; None where it has not begun."""
        for outcomes in self.outcomes.values():
            for rung in (*outcomes.rungs, outcomes.interrupted):
                for document in rung.values():
                    return set(document["misc"]["vals"])
        return None

    def vals(self, key: BracketKey, config: Hashable) -> Vals:
        """The hyperparameters of a configuration, as one of its evaluations had them."""
        outcomes = self.outcomes[key]
        return next(
            hyperparameters(rung[config])
            for rung in (outcomes.interrupted, *outcomes.rungs)
            if config in rung
        )

    def drawn(self, key: BracketKey) -> list[Vals]:
        """The hyperparameters of all configurations of a bracket that still draws."""
        if key not in self.outcomes:
            return []
        return [document["misc"]["vals"] for document in self.outcomes[key].rungs[0].values()]

    def issue(self, document: Document, key: BracketKey, rung: int, config: Hashable) -> Document:
        """Write a document's budget and place in the schedule into its misc, and take it in.

        The stamp leads on to all that counts, past all else: "before" is the document before it in its
        bracket, "since" the oldest there that still counts, "open" the other open brackets and the newest
        document of each. What lies two rungs below a full one counts no more: the last promotion into a rung
        waits until all of the rung below has finished.
        """
        if key not in self.outcomes:
            for older in self.outcomes.values():
                older.closed = True
            self.outcomes[key] = Outcomes(tuple({} for _ in range(key[1] + 1)))
        schedule, outcomes = self.schedule, self.outcomes[key]
        rungs, plan = outcomes.rungs, schedule.bracket(key[1]).rungs
        tid = document["tid"]
        since, before = self.ends.get(key, (tid, None))
        rungs[rung][config] = document
        if rung == 0:
            outcomes.interrupted.pop(config, None)
        else:
            outcomes.closed = True
        if rung > 1 and all(len(rungs[i]) == plan[i].configurations for i in (rung - 1, rung)):
            since = min(entered["tid"] for entered in rungs[rung - 1].values())
        self.ends[key] = since, tid
        document["misc"]["budget"] = plan[rung].budget
        document["misc"]["hyperband"] = {
            "iteration": key[0],
            "bracket": key[1],
            "rung": rung,
            "config": config,
            "min_budget": schedule.min_budget,
            "max_budget": schedule.max_budget,
            "eta": schedule.eta,
            "since": since,
            "open": [[*other, newest] for other, (_, newest) in self.ends.items() if other != key],
            **({"before": before} if before is not None else {}),
            **({"below": rungs[rung - 1][config]["tid"]} if rung > 0 else {}),
        }
        return document


def read(trials: Trials, schedule: Schedule) -> History:
    """Read the run of a schedule from the documents, as far as it may still matter.

    The newest stamp leads to all documents that count, so that reading costs the same however long the run
    is, and however long its brackets stay open. Documents without a stamp, or of another schedule, are
    strangers. Two drivers that suggest at the same time from the same documents do not see each other's.
    """
    everything = _everything(trials)
    history = History(schedule, {}, {}, 0)
    chains: dict[BracketKey, list[Document]] = {}
    for position in _newest_first(trials):
        stamp = everything[position]["misc"].get("hyperband")
        if stamp is None:
            continue
        if _is_of(schedule, stamp):
            try:
                chains = _linked(everything, position)
            except (LookupError, TypeError):  # some are missing, or in another order, or have no numbers
                chains = _all(trials, schedule, stamp)
            break
        history.strangers += 1
    for key in sorted(chains, key=_order):
        chain = chains[key]
        history.outcomes[key] = _outcomes(chain, key[1], serial=not trials.asynchronous)
        history.ends[key] = chain[0]["tid"], chain[-1]["tid"]
    for older in list(history.outcomes.values())[:-1]:
        older.closed = True
    return history


def _linked(everything: list[Document], position: int) -> dict[BracketKey, list[Document]]:
    """The documents that the one at a position leads to, by bracket, in the order of the run.

    Ids count up with the positions, gaps aside. Raises LookupError where a document is not found, or the
    newest ones are out of order.
    """
    newest = everything[position]
    exp_key = newest["exp_key"]
    if position and everything[position - 1]["tid"] >= newest["tid"]:
        raise LookupError("the documents are out of order")
    chains = {}
    for tid in (newest["tid"], *(end for *_, end in newest["misc"]["hyperband"]["open"])):
        chain: list[Document] = []
        offset, since = position - newest["tid"], None
        while True:
            document = everything[tid + offset if tid + offset > 0 else 0]  # none counts from the end
            if document["tid"] != tid or document["exp_key"] != exp_key:
                offset = bisect_left(everything, tid, key=itemgetter("tid")) - tid
                document = everything[tid + offset]
                if document["tid"] != tid or document["exp_key"] != exp_key:
                    raise LookupError(f"no document {tid}")
            stamp = document["misc"]["hyperband"]
            if not chain:
                since = stamp["since"]
            chain.append(document)
            if tid == since:
                break
            tid = stamp["before"]
        chains[stamp["iteration"], stamp["bracket"]] = chain[::-1]
    return chains


def _all(trials: Trials, schedule: Schedule, newest: dict[str, Any]) -> dict[BracketKey, list[Document]]:
    """All documents of a schedule, by bracket, in the order of the run.

    A bracket that was complete by the newest stamp is left out: where documents of it are missing, it would
    look open again.
    """
    own = [d for d in documents(trials) if _is_of(schedule, d["misc"].get("hyperband"))]
    if all(isinstance(document["tid"], int) for document in own):
        own.sort(key=itemgetter("tid"))
    chains: dict[BracketKey, list[Document]] = {}
    for document in own:
        stamp = document["misc"]["hyperband"]
        chains.setdefault((stamp["iteration"], stamp["bracket"]), []).append(document)
    if "open" not in newest:
        return chains
    counting = {(newest["iteration"], newest["bracket"]), *((i, s) for i, s, _ in newest["open"])}
    last = max(map(_order, counting))
    return {key: chain for key, chain in chains.items() if key in counting or _order(key) > last}


def _outcomes(chain: list[Document], s: int, serial: bool) -> Outcomes:
    """What the documents of a bracket tell; a serial Trials leaves those that were cut short RUNNING."""
    rungs: tuple[dict[Hashable, Document], ...] = tuple({} for _ in range(s + 1))
    interrupted: dict[Hashable, Document] = {}
    closed = False
    lowest = chain[0]["misc"]["hyperband"]["rung"]
    for document in chain:
        stamp = document["misc"]["hyperband"]
        rung, config = stamp["rung"], stamp["config"]
        if rung < lowest:
            continue  # it counts no more, but came later than some that do
        closed = closed or rung > 0
        if serial and document["state"] == JOB_STATE_RUNNING:
            if rung == 0:
                interrupted[config] = document
            continue
        rungs[rung][config] = document
        if interrupted:
            interrupted.pop(config, None)
    return Outcomes(rungs, interrupted, closed)


def _is_of(schedule: Schedule, stamp: dict[str, Any] | None) -> bool:
    return stamp is not None and (stamp["min_budget"], stamp["max_budget"], stamp["eta"]) == (
        schedule.min_budget,
        schedule.max_budget,
        schedule.eta,
    )


def _newest_first(trials: Trials) -> Iterator[int]:
    """The positions of the documents of a Trials among everything, from the newest."""
    everything, key = _everything(trials), trials._exp_key
    newest_first = reversed(range(len(everything)))
    return newest_first if key is None else (i for i in newest_first if everything[i]["exp_key"] == key)


def _everything(trials: Trials) -> list[Document]:
    """The documents of a Trials and its other views, those of failed evaluations too."""
    return getattr(trials, "_dynamic_trials", trials.trials)  # type: ignore[no-any-return]


def documents(trials: Trials) -> list[Document]:
    """All documents of a Trials, those of failed evaluations too, which `trials.trials` leaves out."""
    everything = _everything(trials)
    if trials._exp_key is None:
        return everything
    return [document for document in everything if document["exp_key"] == trials._exp_key]


def loss(document: Document) -> float | None:
    """The loss of an evaluation: None while it is pending, infinite where it failed."""
    state, result = document["state"], document["result"]
    if state == JOB_STATE_DONE and result.get("status") == STATUS_OK:
        value = result.get("loss")
        if type(value) is not float:  # Hyperopt makes it one; another backend may not
            value = float(value) if isinstance(value, int | np.number) else FAILED
        return value if -FAILED < value < FAILED else FAILED  # not NaN either; no call, for speed
    # SparkTrials sets the state a moment before the result.
    pending = state in (JOB_STATE_NEW, JOB_STATE_RUNNING) or result == {"status": STATUS_NEW}
    return None if pending and state not in (JOB_STATE_ERROR, JOB_STATE_CANCEL) else FAILED


def evidence(
    trials: Trials,
    issued: Iterable[Document],
    labels: Collection[str],
    schedule: Schedule,
    budget_label: str | None,
) -> list[Evidence]:
    """All evaluations of these hyperparameters, then those issued in this call, in the order of the run.

    Without a stamp, each is a configuration of its own, at the budget that its hyperparameters hold, or else
    at max_budget. What was interrupted is left out: it has been issued again, or will be.
    """
    found = []
    for document in (*documents(trials), *issued):
        misc = document["misc"]
        if document["state"] == JOB_STATE_RUNNING and not trials.asynchronous:
            continue
        vals = misc["vals"]
        if not vals.keys() <= labels:
            continue
        if "hyperband" in misc:
            config, budget = misc["hyperband"]["config"], misc["budget"]
        elif all(isinstance(held, Real) for value in vals.values() for held in value):
            held = vals.get(budget_label)
            config = document["tid"]
            budget = max(held[0], schedule.min_budget) if held else schedule.max_budget
        else:
            continue  # a point that names an option of a choice instead of its index: it has failed
        found.append(Evidence(config, budget, loss(document), vals))
    return found


def newest_schedule(trials: Trials) -> Schedule | None:
    """The schedule of the newest stamped document, but for a step of its budgets; None without a stamp."""
    for document in reversed(documents(trials)):
        if stamp := document["misc"].get("hyperband"):
            return _schedule(stamp)
    return None


def _schedule(stamp: dict[str, Any]) -> Schedule:
    return schedule(stamp["min_budget"], stamp["max_budget"], stamp["eta"])


def evaluations(trials: Trials) -> list[Evaluation]:
    """All evaluations, in the order of the run. Those of other schedules than the newest are strangers."""
    plan = newest_schedule(trials)
    everything = documents(trials)
    stamps = [document["misc"]["hyperband"] for document in everything if "hyperband" in document["misc"]]
    full = max((stamp["max_budget"] for stamp in stamps), default=None)
    found: list[Evaluation] = []
    overtaken = False
    for document in reversed(everything):
        status = _status(document, overtaken and not trials.asynchronous)
        overtaken |= document["state"] != JOB_STATE_NEW
        misc = document["misc"]
        stamp = misc.get("hyperband", {})
        own = bool(stamp) and _schedule(stamp) == plan
        found.append(
            Evaluation(
                tid=document["tid"],
                config=stamp.get("config", document["tid"]),
                place=(stamp["iteration"], stamp["bracket"], stamp["rung"]) if own else None,
                budget=misc.get("budget", full),
                status=status,
                loss=loss(document) if status == "ok" else None,
                vals={str(label): plain(value[0]) for label, value in misc["vals"].items() if value},
                begun=document.get("book_time"),
                ended=document.get("refresh_time") if status in ("ok", "failed") else None,
            )
        )
    return found[::-1]


def is_budget(label: str, everything: Iterable[Evaluation]) -> bool:
    """Whether a hyperparameter is the budget's own: wherever Hyperband had it active, it held the budget."""
    held = [(e.vals[label], e.budget) for e in everything if e.place and label in e.vals]
    return bool(held) and all(value == budget for value, budget in held)


def incumbents(finished: Iterable[Evaluation]) -> Iterator[Evaluation | None]:
    """The incumbent after each evaluation, by the rule of `incumbent`; None while none has succeeded."""
    best = None
    for e in finished:
        if e.loss is not None and (best is None or _rank(e) < _rank(best)):
            best = e
        yield best


def _rank(evaluation: Evaluation) -> tuple[float, float]:
    budget, value = evaluation.budget, evaluation.loss
    return -math.inf if budget is None else -budget, math.inf if value is None else value


def plain(value: Any) -> Any:
    """The same number as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _status(document: Document, overtaken: bool) -> Status:
    """A serial Trials leaves an evaluation that was cut short RUNNING, and goes on with others."""
    value = loss(document)
    if value is not None:
        return "ok" if value < FAILED else "failed"
    return "interrupted" if overtaken and document["state"] == JOB_STATE_RUNNING else "pending"


def unused(new_ids: Sequence[Hashable], trials: Trials) -> Sequence[Hashable]:
    """The ids, or later ones where documents may have them already.

    Hyperopt counts up from the number of ids that it knows, and a Trials built from documents does not
    know those of failed evaluations.
    """
    newest = next(_newest_first(trials), None)
    ids = [i for i in new_ids if isinstance(i, int)]
    if newest is None or len(ids) < len(new_ids) or min(ids) > _everything(trials)[newest]["tid"]:
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
        "vals": vals,
    }
    [document] = trials.new_trial_docs([tid], [None], [domain.new_result()], [misc])
    return document  # type: ignore[no-any-return]


def hyperparameters(document: Document) -> Vals:
    """The hyperparameters of an evaluation."""
    return document["misc"]["vals"]  # type: ignore[no-any-return]


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


def completed_iterations(trials: Trials) -> int:
    """How many Hyperband iterations of the newest schedule are complete, from the first without a gap."""
    plan = newest_schedule(trials)
    if plan is None:
        return 0
    outcomes = read(trials, plan).outcomes
    for iteration, s in outcomes:
        if decide(plan.bracket(s), outcomes[iteration, s], loss) != Done():
            return iteration
    iteration, s = next(reversed(outcomes))
    return iteration + 1 if s == 0 else iteration


def _order(key: BracketKey) -> tuple[int, int]:
    """Orders brackets by when they open."""
    return key[0], -key[1]
