"""The brackets of a run, read from the stamps of its documents.

How the stamps lead to what counts. Reading all documents at each suggestion would make a long run slower and
slower. So each stamp says where to go on from it: "before" is the document before it in its bracket, "since"
the oldest document there that still counts, and "open" lists the other brackets that were open, each with its
newest document. From the newest stamp one gets to the newest document of every open bracket, and from there,
by "before", back to "since". What is not reached belongs to brackets that were complete, or lies two rungs
below a full one: the last promotion into a rung waits until all of the rung below has finished. A range of
ids in place of the links fails where one evaluation takes much longer than all others. Where a link leads
nowhere (documents were deleted, reordered, or have ids that are no numbers), all documents are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._documents import (
    Document,
    Vals,
    documents,
    everyones,
    is_running,
    newest_first,
    outcome,
    place,
    stamp_of,
    vals_of,
)
from hyperopt_hyperband._promotion import BracketState, Done, Promote, Retry, Sample, Wait, decide
from hyperopt_hyperband._schedule import Bracket, Budget, Schedule, schedule

BracketKey = tuple[int, int]
"""Hyperband iteration and bracket s."""


@dataclass(slots=True)
class History:
    """What the documents tell of a run.

    Attributes
    ----------
    brackets : those that may still be open, and the newest, oldest first; their evaluations are documents
    ends : for each of them, the tids of the oldest document that still counts, and of the newest
    foreign : how many documents of other schedules have come since
    """

    schedule: Schedule
    brackets: dict[BracketKey, BracketState]
    ends: dict[BracketKey, tuple[Hashable, Hashable]]
    foreign: int

    def next_action(self) -> tuple[BracketKey, Sample | Retry | Promote]:
        """The oldest bracket that has something to do does it; where all wait, the next bracket opens.

        What proves complete on the way is forgotten, the newest bracket aside.
        """
        s_max = self.schedule.brackets[0].s
        iteration, s = newest = next(reversed(self.brackets), (0, s_max + 1))
        for key, state in list(self.brackets.items()):
            action = decide(self.schedule.bracket(key[1]), state, outcome)
            if not isinstance(action, Wait | Done):
                return key, action
            if isinstance(action, Done) and key != newest:
                del self.brackets[key], self.ends[key]
        return ((iteration, s - 1) if s > 0 else (iteration + 1, s_max)), Sample()

    def until_full(self) -> int:
        """How many evaluations lead to the next one at max_budget, itself among them."""
        so_far = 0
        for count, budget in (*self._rest(), *_sizes(self.schedule.brackets)):
            if count > 0 and budget == self.schedule.max_budget:
                break
            so_far += count
        return so_far + 1

    def ahead(self, evaluations: int) -> Budget:
        """The total budget of so many evaluations to come."""
        rest = self._rest()
        beyond = max(0, evaluations - sum(count for count, _ in rest))
        iterations, last = divmod(beyond, self.schedule.evaluations)
        return (
            _total(rest, evaluations)
            + iterations * self.schedule.total_budget
            + _total(_sizes(self.schedule.brackets), last)
        )

    def _rest(self) -> list[tuple[int, Budget]]:
        """How many evaluations, at which budget, the open brackets and the newest iteration still have.

        In the schedule's order, as if none failed and the space never ran out of configurations.
        """
        found: list[tuple[int, Budget]] = []
        for (_, s), state in self.brackets.items():
            # Below the lowest rung that holds anything, all have been evaluated, and count no more.
            lowest = next((i for i, rung in enumerate(state.rungs) if rung), 0)
            for planned, rung in list(zip(self.schedule.bracket(s).rungs, state.rungs, strict=True))[lowest:]:
                found.append((planned.configurations - len(rung), planned.budget))
        newest = next(reversed(self.brackets), (0, 0))[1]
        return found + _sizes(bracket for bracket in self.schedule.brackets if bracket.s < newest)

    def labels(self) -> set[str] | None:
        """The hyperparameters of the run; None where it has not begun."""
        for state in self.brackets.values():
            for rung in (*state.rungs, state.interrupted):
                for document in rung.values():
                    return set(vals_of(document))
        return None

    def vals(self, key: BracketKey, config: Hashable) -> Vals:
        """The hyperparameters of a configuration, as one of its evaluations had them."""
        state = self.brackets[key]
        return next(vals_of(rung[config]) for rung in (state.interrupted, *state.rungs) if config in rung)

    def drawn(self, key: BracketKey) -> list[Vals]:
        """The hyperparameters of all configurations of a bracket that still draws."""
        if key not in self.brackets:
            return []
        return [vals_of(document) for document in self.brackets[key].rungs[0].values()]

    def issue(
        self, document: Document, key: BracketKey, rung: int, config: Hashable, label: str | None
    ) -> Document:
        """Write a document's budget and place in the schedule into it, and take it in.

        label : the hyperparameter that holds the budget; None where there is none in this configuration
        """
        if key not in self.brackets:
            for older in self.brackets.values():
                older.closed = True
            self.brackets[key] = BracketState(tuple({} for _ in range(key[1] + 1)))
        state, plan = self.brackets[key], self.schedule.bracket(key[1]).rungs
        tid = document["tid"]
        since, before = self.ends.get(key, (tid, None))
        state.rungs[rung][config] = document
        if rung == 0:
            state.interrupted.pop(config, None)
        else:
            state.closed = True
        if rung > 1 and all(len(state.rungs[i]) == plan[i].configurations for i in (rung - 1, rung)):
            since = min(entered["tid"] for entered in state.rungs[rung - 1].values())
        self.ends[key] = since, tid
        stamp = {
            "iteration": key[0],
            "bracket": key[1],
            "rung": rung,
            "config": config,
            "min_budget": self.schedule.min_budget,
            "max_budget": self.schedule.max_budget,
            "eta": self.schedule.eta,
            "since": since,
            "open": [[*other, newest] for other, (_, newest) in self.ends.items() if other != key],
        }
        if before is not None:
            stamp["before"] = before
        if label is not None:
            stamp["label"] = label
        if rung > 0:
            stamp["below"] = state.rungs[rung - 1][config]["tid"]
        place(document, plan[rung].budget, stamp)
        return document


def read(trials: Trials, schedule: Schedule) -> History:
    """Read the run of a schedule from the documents, as far as it may still matter.

    Reading costs the same however long the run is, and however long its brackets stay open. Documents without
    a stamp, or of another schedule, are foreign. Two drivers that suggest at the same time from the same
    documents do not see each other's.
    """
    everything = everyones(trials)
    history = History(schedule, {}, {}, 0)
    chains: dict[BracketKey, list[Document]] = {}
    for position in newest_first(trials):
        newest = stamp_of(everything[position])
        if newest is None:
            continue
        if _is_of(schedule, newest):
            try:
                chains = _linked(everything, position)
            except (LookupError, TypeError):  # some are missing, or in another order, or have no numbers
                chains = _all(trials, schedule, newest)
            break
        history.foreign += 1
    for key in sorted(chains, key=_order):
        chain = chains[key]
        history.brackets[key] = _state(chain, key[1], serial=not trials.asynchronous)
        history.ends[key] = chain[0]["tid"], chain[-1]["tid"]
    for older in list(history.brackets.values())[:-1]:
        older.closed = True
    return history


def newest_schedule(trials: Trials) -> Schedule | None:
    """The schedule of the newest stamped document, but for a step of its budgets; None without a stamp."""
    for document in reversed(documents(trials)):
        if found := stamp_of(document):
            return schedule(found["min_budget"], found["max_budget"], found["eta"])
    return None


def completed_iterations(trials: Trials) -> int:
    """How many Hyperband iterations of the newest schedule are complete, from the first without a gap."""
    plan = newest_schedule(trials)
    if plan is None:
        return 0
    brackets = read(trials, plan).brackets
    for iteration, s in brackets:
        if decide(plan.bracket(s), brackets[iteration, s], outcome) != Done():
            return iteration
    iteration, s = next(reversed(brackets))
    return iteration + 1 if s == 0 else iteration


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
    own = [d for d in documents(trials) if _is_of(schedule, stamp_of(d))]
    if all(isinstance(document["tid"], int) for document in own):
        own.sort(key=itemgetter("tid"))
    chains: dict[BracketKey, list[Document]] = {}
    for document in own:
        its = document["misc"]["hyperband"]
        chains.setdefault((its["iteration"], its["bracket"]), []).append(document)
    if "open" not in newest:
        return chains
    counting = {(newest["iteration"], newest["bracket"]), *((i, s) for i, s, _ in newest["open"])}
    last = max(map(_order, counting))
    return {key: chain for key, chain in chains.items() if key in counting or _order(key) > last}


def _state(chain: list[Document], s: int, serial: bool) -> BracketState:
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
        if serial and is_running(document):
            if rung == 0:
                interrupted[config] = document
            continue
        rungs[rung][config] = document
        if interrupted:
            interrupted.pop(config, None)
    return BracketState(rungs, interrupted, closed)


def _sizes(brackets: Iterable[Bracket]) -> list[tuple[int, Budget]]:
    return [(rung.configurations, rung.budget) for bracket in brackets for rung in bracket.rungs]


def _total(sizes: list[tuple[int, Budget]], evaluations: int) -> Budget:
    """The total budget of the first so many evaluations."""
    total: Budget = 0
    for count, budget in sizes:
        taken = min(count, evaluations)
        total += taken * budget
        evaluations -= taken
    return total


def _is_of(schedule: Schedule, stamp: dict[str, Any] | None) -> bool:
    return stamp is not None and (stamp["min_budget"], stamp["max_budget"], stamp["eta"]) == (
        schedule.min_budget,
        schedule.max_budget,
        schedule.eta,
    )


def _order(key: BracketKey) -> tuple[int, int]:
    """Orders brackets by when they open."""
    return key[0], -key[1]
