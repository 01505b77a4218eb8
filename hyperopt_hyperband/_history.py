"""The brackets of a run, read from the stamps of its documents.

How the stamps lead to what counts. Reading all documents at each suggestion would make a long run slower and
slower. So each stamp says where to go on from it, by positions among the documents: "before" is the document
before it in its bracket, "since" the oldest there that still counts, and "open" lists the other brackets that
were open, each with its newest document. From the newest stamp one gets to the newest document of every open
bracket, and from there, by "before", back to "since". What is not reached belongs to brackets that were
complete, or lies two rungs below a full one: the last promotion into a rung waits until all of the rung below
has finished. A range of positions in place of the links fails where one evaluation takes much longer than all
others.

Which stamps are believed. Each has its own "position": where a document is not at it (documents were deleted,
reordered, joined with others), the links lead to another run, or the newest is of another space, all
documents are read and judged: one is of the run where what its stamp names is there (the first evaluation of
its configuration, the one at the rung below), with the same hyperparameters, inside the space. What is not is
a misfit, and becomes foreign.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hyperopt.base import JOB_STATE_RUNNING, Trials

from hyperopt_hyperband._documents import (
    Document,
    Vals,
    documents,
    everyones,
    in_order,
    left_behind,
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


@dataclass(frozen=True, slots=True)
class Space:
    """What a stamp is held against.

    Attributes
    ----------
    name : short for all that the space says; documents that were drawn from the same space need no look
    has : whether the space has these hyperparameters
    """

    name: int
    has: Callable[[Vals], bool]


NOWHERE = -1
"""A position that no stamp has."""
ANY = Space(0, lambda _: True)
"""What those read with who do not know the space."""


@dataclass(slots=True)
class History:
    """What the documents tell of a run.

    Attributes
    ----------
    brackets : those that may still be open, and the newest, oldest first; their evaluations are documents
    ends : for each of them, the positions of the oldest document that still counts, and of the newest
    space : that of the run from here on
    run : the seed of its first suggestion, to tell it from others; None where it has not begun
    size : how many documents there are, those issued since included
    linked : the newest document is of the run, and its links were followed: no document has moved
    foreign : how many documents of other schedules have come since
    misfits : documents of this schedule that are not of the run
    again : the bracket of the interrupted evaluation, and what issues it again
    given_up : the evaluation that has been interrupted twice
    """

    schedule: Schedule
    brackets: dict[BracketKey, BracketState]
    ends: dict[BracketKey, tuple[int, int]]
    space: Space
    run: int | None
    size: int
    linked: bool = False
    foreign: int = 0
    misfits: list[Document] = field(default_factory=list)
    again: tuple[BracketKey, Retry | Promote] | None = None
    given_up: Document | None = None

    def next_action(self) -> tuple[BracketKey, Sample | Retry | Promote]:
        """The oldest bracket that has something to do does it; where all wait, the next bracket opens.

        What was interrupted comes before all: a second interruption would leave two running documents behind,
        which look as if at work elsewhere. What proves complete on the way is forgotten, the newest bracket
        aside.
        """
        if self.again is not None:
            return self.again
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

    def vals(self, key: BracketKey, action: Retry | Promote) -> Vals:
        """The hyperparameters of a configuration, as its interrupted or its last evaluation had them."""
        state = self.brackets[key]
        evaluated = state.interrupted if isinstance(action, Retry) else state.rungs[action.rung - 1]
        return vals_of(evaluated[action.config])

    def drawn(self, key: BracketKey) -> list[Vals]:
        """The hyperparameters of all configurations of a bracket that still draws."""
        if key not in self.brackets:
            return []
        return [vals_of(document) for document in self.brackets[key].rungs[0].values()]

    def issue(
        self,
        document: Document,
        key: BracketKey,
        rung: int,
        config: Hashable,
        label: str | None,
        *,
        by_model: bool = False,
    ) -> Document:
        """Write a document's budget and place in the schedule into it, and take it in.

        label : the hyperparameter that holds the budget; None where there is none in this configuration
        by_model : the configuration is new, and no random draw
        """
        if key not in self.brackets:
            for older in self.brackets.values():
                older.closed = True
            self.brackets[key] = BracketState(tuple({} for _ in range(key[1] + 1)))
        state, plan = self.brackets[key], self.schedule.bracket(key[1]).rungs
        self.again = None
        position = self.size
        self.size += 1
        since, before = self.ends.get(key, (position, None))
        state.rungs[rung][config] = document
        if rung == 0:
            state.interrupted.pop(config, None)
        else:
            state.closed = True
        if (
            self.linked
            and rung > 1
            and all(len(state.rungs[i]) == plan[i].configurations for i in (rung - 1, rung))
        ):
            entered = (stamp_of(each) for each in state.rungs[rung - 1].values())
            since = min(its["position"] for its in entered if its)
        self.ends[key] = since, position
        stamp = {
            "iteration": key[0],
            "bracket": key[1],
            "rung": rung,
            "config": config,
            "min_budget": self.schedule.min_budget,
            "max_budget": self.schedule.max_budget,
            "eta": self.schedule.eta,
            "run": self.run,
            "space": self.space.name,
            "position": position,
            "since": since,
            "open": [[*other, newest] for other, (_, newest) in self.ends.items() if other != key],
        }
        if before is not None:
            stamp["before"] = before
        if label is not None:
            stamp["label"] = label
        if by_model:
            stamp["by_model"] = 1
        if rung > 0:
            stamp["below"] = state.rungs[rung - 1][config]["tid"]
        place(document, plan[rung].budget, stamp)
        return document


def read(trials: Trials, schedule: Schedule, space: Space = ANY) -> History:
    """Read the run of a schedule from the documents, as far as it may still matter.

    Reading costs the same however long the run is, and however long its brackets stay open. Documents without
    a stamp, of another schedule, or with a stamp that does not fit are foreign. Two drivers that suggest at
    the same time from the same documents do not see each other's.
    """
    everything = everyones(trials)
    history = History(schedule, {}, {}, space, None, len(everything))
    chains: dict[BracketKey, list[Document]] = {}
    moved: dict[int, int] = {}  # where documents are that may not be at their own positions
    for ago, position in enumerate(newest_first(trials)):
        newest = stamp_of(everything[position])
        if newest is None or "foreign" in newest:
            continue
        if _is_of(schedule, newest):
            try:
                chains = _linked(everything, position, space)
                history.linked = ago == 0
            except (LookupError, TypeError):
                chains, history.misfits = _counting(trials, schedule, space)
                moved = {id(document): i for i, document in enumerate(everything)}
            break
        history.foreign += 1
    left: list[_Left] = []
    for key in sorted(chains, key=_order):
        chain = chains[key]
        newest = chain[-1]["misc"]["hyperband"]
        history.run = newest["run"]
        oldest = chain[0]["misc"]["hyperband"]
        history.ends[key] = oldest["position"], newest["position"]
        if moved:
            history.ends[key] = _ends(chain, [moved[id(document)] for document in chain])
        history.brackets[key] = _state(chain, key, left)
    for older in list(history.brackets.values())[:-1]:
        older.closed = True
    if not trials.asynchronous:
        _set_aside(history, left)
    return history


def newest_schedule(trials: Trials) -> Schedule | None:
    """The schedule of the newest stamped document, but for a step of its budgets; None without a stamp."""
    for document in reversed(documents(trials)):
        found = stamp_of(document)
        if found and "foreign" not in found:
            return schedule(found["min_budget"], found["max_budget"], found["eta"])
    return None


def completed_iterations(trials: Trials) -> int:
    """How many Hyperband iterations of the newest schedule are complete, from the first without a gap."""
    plan = newest_schedule(trials)
    if plan is None:
        return 0
    brackets = read(trials, plan).brackets
    if not brackets:
        return 0
    for iteration, s in brackets:
        if decide(plan.bracket(s), brackets[iteration, s], outcome) != Done():
            return iteration
    iteration, s = next(reversed(brackets))
    return iteration + 1 if s == 0 else iteration


def fitting(trials: Trials, schedule: Schedule, space: Space = ANY) -> list[Document]:
    """All documents of the run of a schedule, in the order of the run.

    Several runs may have been joined: the run is that of the newest document that fits.
    """
    own = in_order(d for d in documents(trials) if _is_of(schedule, stamp_of(d)))
    places: dict[tuple[Any, BracketKey], BracketState] = {}
    fit: list[Document] = []
    for document in own:
        its = document["misc"]["hyperband"]
        if not 0 <= its["bracket"] < len(schedule.brackets) or not 0 <= its["rung"] <= its["bracket"]:
            continue
        key = its["run"], (its["iteration"], its["bracket"])
        state = places.setdefault(key, BracketState(tuple({} for _ in range(its["bracket"] + 1))))
        plan = schedule.bracket(its["bracket"]).rungs[its["rung"]]
        rung = state.rungs[its["rung"]]
        if (before := rung.get(its["config"])) is not None:  # issued again after an interruption
            fits = left_behind(before) and before["tid"] != document["tid"] and _alike(before, document)
        elif len(rung) == plan.configurations:
            fits = False
        elif its["rung"] == 0:
            fits = its["config"] == document["tid"]
        else:
            below = state.rungs[its["rung"] - 1].get(its["config"])
            fits = below is not None and below["tid"] == its.get("below") and _alike(below, document)
        if fits and its["space"] != space.name:
            fits = space.has(vals_of(document))
        if fits:
            rung[its["config"]] = document
            fit.append(document)
    if not fit:
        return []
    found = set(map(id, fit))
    newest = next(d for d in reversed(documents(trials)) if id(d) in found)
    run = newest["misc"]["hyperband"]["run"]
    return [document for document in fit if document["misc"]["hyperband"]["run"] == run]


def issued_again(trials: Trials) -> list[Document]:
    """The interrupted evaluations that a later document repeats. They count no more."""
    if not any(map(left_behind, documents(trials))):
        return []
    stamped = [(document, its) for document in in_order(documents(trials)) if (its := stamp_of(document))]
    newest = {_place(its): document for document, its in stamped}
    return [d for d, its in stamped if left_behind(d) and newest[_place(its)] is not d]


def _place(stamp: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(stamp[name] for name in ("run", "iteration", "bracket", "rung", "config"))


def _linked(everything: list[Document], newest: int, space: Space) -> dict[BracketKey, list[Document]]:
    """The documents that the one at a position leads to, by bracket, in the order of the run.

    Raises LookupError or TypeError where a link leads to no document of the run.
    """
    exp_key, stamp = everything[newest]["exp_key"], everything[newest]["misc"]["hyperband"]
    if space is not ANY and stamp["space"] != space.name:
        raise LookupError("the space has changed: what is complete is to be judged too, once")
    run, chains = stamp["run"], {}
    starts = [[stamp["iteration"], stamp["bracket"], newest], *stamp["open"]]
    for iteration, bracket, position in starts:
        chain: list[Document] = []
        since, after = None, position + 1
        while True:
            document = everything[position]
            its = document["misc"]["hyperband"]
            if (
                its["position"] != position
                or position >= after
                or its["run"] != run
                or its["bracket"] != bracket
                or its["iteration"] != iteration
                or document["exp_key"] != exp_key
                or "foreign" in its
            ):
                raise LookupError(f"no document of the run at position {position}")
            if its["space"] != space.name and not space.has(vals_of(document)):
                raise LookupError(f"the document at position {position} is outside the space")
            if since is None:
                since = its["since"]
            chain.append(document)
            if position == since:
                break
            after, position = position, its["before"]
        chains[iteration, bracket] = chain[::-1]
    return chains


def _ends(chain: list[Document], positions: list[int]) -> tuple[int, int]:
    """Where the documents of a bracket, now at these positions, begin and end.

    If links no longer lead from the last one through all of them, those that are written now lead nowhere:
    all documents are judged again.
    """
    stamps = [document["misc"]["hyperband"] for document in chain]
    lead = [its["position"] for its in stamps] == positions
    lead = lead and [its.get("before") for its in stamps[1:]] == positions[:-1]
    return positions[0], positions[-1] if lead else NOWHERE


class _Left(NamedTuple):
    """An evaluation that nobody may be at work on; again: its place was interrupted before."""

    key: BracketKey
    rung: int
    config: Hashable
    document: Document
    again: bool


def _state(chain: list[Document], key: BracketKey, left: list[_Left]) -> BracketState:
    """What the documents of a bracket tell; those that may have been interrupted join `left`."""
    state = BracketState(tuple({} for _ in range(key[1] + 1)))
    lowest = chain[0]["misc"]["hyperband"]["rung"]
    for document in chain:
        its = document["misc"]["hyperband"]
        i, config = its["rung"], its["config"]
        if i < lowest:
            continue  # it counts no more, but came later than some that do
        rung = state.rungs[i]
        if i > 0:
            state.closed = True
        if document["state"] == JOB_STATE_RUNNING and left_behind(document):
            left.append(_Left(key, i, config, document, again=config in rung))
        rung[config] = document
    return state


def _set_aside(history: History, left: list[_Left]) -> None:
    """Take an interrupted evaluation out of its rung, to be issued again; twice interrupted, it is given up.

    fmin's own loop leaves one at a time; several are at work elsewhere.
    """
    states = history.brackets
    unreplaced = [each for each in left if states[each.key].rungs[each.rung][each.config] is each.document]
    if len(unreplaced) != 1:
        return
    [(key, rung, config, document, again)] = unreplaced
    if again:
        history.given_up = document
        return
    del states[key].rungs[rung][config]
    if rung == 0:
        states[key].interrupted[config] = document
    history.again = key, Promote(config, rung) if rung > 0 else Retry(config)


def _counting(
    trials: Trials, schedule: Schedule, space: Space
) -> tuple[dict[BracketKey, list[Document]], list[Document]]:
    """The run's documents that count, by bracket, in the order of the run; and the schedule's misfits.

    A bracket that was complete by the newest stamp is left out: where documents of it are missing, it would
    look open again. The last that the run has documents of is not: the next one opens after it.
    """
    own = fitting(trials, schedule, space)
    found = set(map(id, own))
    misfits = [d for d in documents(trials) if _is_of(schedule, stamp_of(d)) and id(d) not in found]
    chains: dict[BracketKey, list[Document]] = {}
    for document in own:
        its = document["misc"]["hyperband"]
        chains.setdefault((its["iteration"], its["bracket"]), []).append(document)
    if own:
        newest = own[-1]["misc"]["hyperband"]
        counting = {(newest["iteration"], newest["bracket"]), *((i, s) for i, s, _ in newest["open"])}
        last = max(_order(key) for key in counting if key in chains)
        chains = {key: chain for key, chain in chains.items() if key in counting or _order(key) > last}
    return chains, misfits


def _alike(one: Document, other: Document) -> bool:
    """Whether two documents have the same hyperparameters, the budget aside."""
    label = other["misc"]["hyperband"].get("label")
    ours, theirs = vals_of(one), vals_of(other)
    return set(ours) == set(theirs) and all(ours[name] == theirs[name] for name in ours if name != label)


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
    return (
        stamp is not None
        and "foreign" not in stamp
        and (stamp["min_budget"], stamp["max_budget"], stamp["eta"])
        == (schedule.min_budget, schedule.max_budget, schedule.eta)
    )


def _order(key: BracketKey) -> tuple[int, int]:
    """Orders brackets by when they open."""
    return key[0], -key[1]
