"""The brackets of a run: what its documents tell of them, what is done next, and how that is stamped."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hyperopt.base import JOB_STATE_RUNNING, Trials

from hyperopt_hyperband._documents import (
    Document,
    Vals,
    documents,
    everyones,
    is_cut_short,
    left_behind,
    outcome,
    reach_of,
    vals_of,
)
from hyperopt_hyperband._lifecycle import write_stamp
from hyperopt_hyperband._promotion import BracketState, Done, Promote, Retry, Sample, Wait, advance
from hyperopt_hyperband._schedule import Bracket, Budget, Schedule
from hyperopt_hyperband._stamps import ANY, BracketKey, Space, follow, newest_schedule, turn_of


class Held(NamedTuple):
    """The budget of one evaluation.

    Attributes
    ----------
    value : what it may spend, in the unit of its node
    label : the hyperparameter that holds it; None where there is none, or none is active
    final : any higher budget would give the same: its space has a budget, but none that is active in its
        configuration, or its node has its maximum already
    known_at : the budget of the highest rung at which the node holds the same value; None: only here
    """

    value: Budget
    label: str | None = None
    final: bool = False
    known_at: Budget | None = None


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
    choose : returns the s of the bracket that opens next, given how many have opened; None: the paper's order
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
    choose: Callable[[int], int] | None = None

    def next_action(self) -> tuple[BracketKey, Sample | Retry | Promote]:
        """The oldest bracket that has something to do does it; where all wait, the next bracket opens.

        What was interrupted comes before all: a second interruption would leave two running documents behind,
        which look as if at work elsewhere. What proves complete on the way is forgotten, the newest bracket
        aside.
        """
        if self.again is not None:
            return self.again
        iteration, s = newest = self._newest
        for key, state in list(self.brackets.items()):
            action = advance(self.schedule.bracket(key[1]), state, outcome, _known_at)
            if not isinstance(action, Wait | Done):
                return key, action
            if isinstance(action, Done) and key != newest:
                del self.brackets[key], self.ends[key]
        s_max = self.schedule.brackets[0].s
        following = self.choose(self.opened) if self.choose else s - 1 if s > 0 else s_max
        return (iteration if following < s else iteration + 1, following), Sample()

    def next_budget(self) -> Budget:
        """The budget of the next evaluation: max_budget, where a model has yet to choose its bracket."""
        key, action = self.next_action()
        if self._is_open_end and key not in self.brackets:
            return self.schedule.max_budget
        return self.schedule.bracket(key[1]).rungs[action.rung if isinstance(action, Promote) else 0].budget

    @property
    def opened(self) -> int:
        """How many brackets the run has opened."""
        return self.turn(self._newest) + 1 if self.brackets else 0

    def turn(self, key: BracketKey) -> int:
        """How many brackets opened before an open one."""
        return turn_of(_stamp_in(self.brackets[key]), self.schedule)

    @property
    def _newest(self) -> BracketKey:
        return next(reversed(self.brackets), (0, len(self.schedule.brackets)))

    @property
    def _to_come(self) -> tuple[Bracket, ...]:
        """The brackets that follow those of the newest iteration, again and again.

        Which ones a model will choose is not known: at most, all evaluations are at max_budget.
        """
        return self.schedule.brackets[-1:] if self._chosen else self.schedule.brackets

    @property
    def _is_open_end(self) -> bool:
        """Whether a model is to choose the next bracket: the first iteration is the paper's."""
        return self._chosen and self.opened >= len(self.schedule.brackets)

    @property
    def _chosen(self) -> bool:
        return bool(self.brackets) and "turn" in _stamp_in(self.brackets[self._newest])

    def go_up(self) -> None:
        """Let all go up, in every bracket, that has qualified and needs no evaluation there."""
        for (_, s), state in self.brackets.items():
            advance(self.schedule.bracket(s), state, outcome, _known_at)

    def until_full(self) -> int:
        """How many evaluations lead to the next one at max_budget, itself among them; 0: one is under way.

        What an executor has cut short is: it comes first in the next fmin.
        """
        top = [evaluation for state in self.brackets.values() for evaluation in state.rungs[-1].values()]
        if any(outcome(evaluation) is None or is_cut_short(evaluation) for evaluation in top):
            return 0
        so_far = 0
        for count, budget in (*self._rest(), *_sizes(self._to_come)):
            if count > 0 and budget == self.schedule.max_budget:
                break
            so_far += count
        return so_far + 1

    def ahead(self, evaluations: int) -> Budget:
        """The total budget of so many evaluations to come."""
        rest = self._rest()
        beyond = max(0, evaluations - sum(count for count, _ in rest))
        again = _sizes(self._to_come)
        times, last = divmod(beyond, sum(count for count, _ in again))
        return _total(rest, evaluations) + times * _total(again) + _total(again, last)

    def _rest(self) -> list[tuple[int, Budget]]:
        """How many evaluations, at which budget, the open brackets and the newest iteration still have.

        In the schedule's order, as if none failed and the space never ran out of configurations. Where a
        model is to choose the next bracket, the open ones alone.
        """
        self.go_up()
        found: list[tuple[int, Budget]] = []
        for (_, s), state in self.brackets.items():
            # Below the lowest rung that holds anything, all have been evaluated, and count no more.
            lowest = next((i for i, rung in enumerate(state.rungs) if rung), 0)
            for planned, rung in list(zip(self.schedule.bracket(s).rungs, state.rungs, strict=True))[lowest:]:
                found.append((planned.configurations - len(rung), planned.budget))
        if self.brackets and not self._is_open_end:
            found += _sizes(self.schedule.brackets[len(self.schedule.brackets) - self._newest[1] :])
        return found

    def labels(self) -> set[str] | None:
        """The hyperparameters of the run; None where it has not begun."""
        for state in self.brackets.values():
            return set(vals_of(next(state.evaluations())))
        return None

    def vals(self, key: BracketKey, action: Retry | Promote) -> Vals:
        """The hyperparameters of a configuration, as its interrupted or its last evaluation had them."""
        state = self.brackets[key]
        if isinstance(action, Retry):
            return vals_of(state.interrupted[action.config])
        return vals_of(state.below(action.config, action.rung))

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
        held: Held,
        *,
        by_model: bool = False,
    ) -> Document:
        """Write a document's budget and place in the schedule into it, and take it in.

        by_model : the configuration is new, and no random draw
        """
        turn = self.turn(key) if key in self.brackets else self.opened
        chosen = self.choose is not None or self._chosen
        if key not in self.brackets:
            for older in self.brackets.values():
                older.closed = True
            self.brackets[key] = BracketState(tuple({} for _ in range(key[1] + 1)))
        state, rungs = self.brackets[key], self.schedule.bracket(key[1]).rungs
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
            and all(len(state.rungs[i]) == rungs[i].configurations for i in (rung - 1, rung))
        ):
            below = [e["misc"]["hyperband"] for e in state.rungs[rung - 1].values()]
            if all(its["rung"] == rung - 1 for its in below):  # none that stands for it from a lower rung
                since = min(its["position"] for its in below)
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
        if chosen:
            stamp["turn"] = turn
        if held.label is not None:
            stamp["label"] = held.label
        if held.final:
            stamp["final"] = 1
        if self.schedule.shares_of:
            stamp["shares_of"] = [list(each) for each in self.schedule.shares_of]
            stamp["share"] = rungs[rung].budget
        if held.known_at is not None:
            stamp["known_at"] = held.known_at
        if (options := self.space.chosen(vals_of(document))) is not None:
            stamp["options"] = options
        if by_model:
            stamp["by_model"] = 1
        if rung > 0:
            stamp["below"] = state.below(config, rung)["tid"]
        write_stamp(document, held.value, stamp)
        return document


def read(trials: Trials, schedule: Schedule, space: Space = ANY) -> History:
    """Read the run of a schedule from the documents, as far as it may still matter.

    Reading costs the same however long the run is, and however long its brackets stay open. Documents without
    a stamp, of another schedule, or with a stamp that does not fit are foreign. Two drivers that suggest at
    the same time from the same documents do not see each other's.
    """
    found = follow(trials, schedule, space)
    history = History(
        schedule,
        {},
        found.ends,
        space,
        found.run,
        size=len(everyones(trials)),
        linked=found.linked,
        foreign=found.foreign,
        misfits=found.misfits,
    )
    left: list[_Left] = []
    for key, chain in found.chains.items():
        history.brackets[key] = _state(chain, key, left)
    for older in list(history.brackets.values())[:-1]:
        older.closed = True
    if not trials.asynchronous:
        _set_aside(history, left)
    return history


def first_full(trials: Trials, plan: Schedule) -> int:
    """The max_evals with which the next result at max_budget is there, if no more evaluations fail."""
    cut = sum(map(is_cut_short, documents(trials)))
    return len(trials.trials) + cut + read(trials, plan).until_full()


def completed_iterations(trials: Trials) -> int:
    """How many Hyperband iterations of the newest schedule are complete, from the first without a gap.

    Where a model chooses the brackets, as many of them as an iteration has count as one.
    """
    plan = newest_schedule(trials)
    if plan is None:
        return 0
    history = read(trials, plan)
    for key, state in history.brackets.items():
        if advance(plan.bracket(key[1]), state, outcome, _known_at) != Done():
            return history.turn(key) // len(plan.brackets)
    return history.opened // len(plan.brackets)


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
        if document["state"] == JOB_STATE_RUNNING and left_behind(document):  # no call, for speed
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


def _stamp_in(state: BracketState) -> Mapping[str, Any]:
    """The stamp of one of a bracket's documents."""
    return next(state.evaluations())["misc"]["hyperband"]  # type: ignore[no-any-return]


def _known_at(document: Document) -> Budget | None:
    """The largest budget at which the result of one of the run's evaluations is known."""
    return reach_of(document, document["misc"]["hyperband"]).known_at  # its stamp was read before


def _sizes(brackets: Iterable[Bracket]) -> list[tuple[int, Budget]]:
    return [(rung.configurations, rung.budget) for bracket in brackets for rung in bracket.rungs]


def _total(sizes: list[tuple[int, Budget]], evaluations: float = math.inf) -> Budget:
    """The total budget of the first so many evaluations, or of all."""
    total: Budget = 0
    for count, budget in sizes:
        taken = min(count, evaluations)
        total += taken * budget
        evaluations -= taken
    return total
