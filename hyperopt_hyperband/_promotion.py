"""What a bracket does next, decided from its evaluations alone. Pure: knows nothing of Hyperopt."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hyperopt_hyperband._schedule import Bracket, Budget

FAILED = math.inf
"""The outcome of a failed evaluation: ranks last, is never promoted."""


@dataclass(slots=True)
class BracketState:
    """What is known of a bracket.

    Attributes
    ----------
    rungs : for every rung, the evaluation of each configuration that entered it: its own there, or one at a
        lower rung that stands for it
    interrupted : the first evaluations that were cut short and have to be repeated, by configuration
    closed : no more configurations are drawn, though rung 0 may have places left
    """

    rungs: tuple[dict[Hashable, Any], ...]
    interrupted: dict[Hashable, Any] = field(default_factory=dict)
    closed: bool = False

    def evaluations(self) -> Iterator[Any]:
        """All of them: those that stand for a lower rung's once for each."""
        return (e for entered in (*self.rungs, self.interrupted) for e in entered.values())

    def below(self, config: Hashable, rung: int) -> Any:
        """The evaluation that a configuration has at the highest rung below this one; None: there is none."""
        return next((each[config] for each in reversed(self.rungs[:rung]) if config in each), None)


Outcome = Callable[[Any], float | None]
"""Reads what an evaluation is ranked by: its loss, None while it is pending, FAILED where it failed."""
KnownAt = Callable[[Any], Budget | None]
"""Reads the largest budget at which an evaluation's result is known: its own, or that of a higher rung."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Draw a new configuration for rung 0."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeat the interrupted first evaluation of a configuration."""

    config: Hashable


@dataclass(frozen=True, slots=True)
class Promote:
    """Evaluate a configuration at the given rung, for which it has qualified."""

    config: Hashable
    rung: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a pending evaluation finishes."""


@dataclass(frozen=True, slots=True)
class Done:
    """The bracket is complete, or nothing in it has survived."""


Action = Sample | Retry | Promote | Wait | Done


def decide(bracket: Bracket, state: BracketState, outcome: Outcome) -> Action:
    """Choose the next action of a bracket: fill rung 0, then promote, from the highest rung first.

    A configuration goes up as soon as it is certain to be among the best n_{i+1} of its rung, whatever the
    unfinished evaluations turn out to be: those that go up are the ones that waiting for all of them would
    choose (Algorithm 1, line 9), in any order of completion. Ties go to the earlier configuration.

    What else follows from this rule: `promotable` (which checkpoints stay), `Schedule.duration` (plays it
    without losses), "since" in `History.issue` (the last promotion into a rung waits for all of the rung
    below), and the places of a rung in `_stamps.fitting`.
    """
    return _decided(bracket, state, outcome)[0]


class _Qualified(NamedTuple):
    """Those that finished at the rung below and have not gone up, of which the best so many do for sure."""

    rung: int
    survivors: list[tuple[float, Hashable]]
    free: int


def _decided(bracket: Bracket, state: BracketState, outcome: Outcome) -> tuple[Action, list[_Qualified]]:
    """What a bracket does next, and who has qualified for each rung."""
    if state.interrupted:
        return Retry(next(iter(state.interrupted))), []
    entrants = len(state.rungs[0])  # as many as can still enter the rung
    if not state.closed and entrants < bracket.rungs[0].configurations:
        return Sample(), []
    qualified: list[_Qualified] = []
    for i in range(bracket.s):
        promoted = state.rungs[i + 1]
        places = bracket.rungs[i + 1].configurations
        if len(promoted) < places:
            finished = [
                (value, config)
                for config, evaluation in state.rungs[i].items()
                if config not in promoted and (value := outcome(evaluation)) is not None
            ]
            survivors = [ranked for ranked in finished if ranked[0] < FAILED]
            unfinished = entrants - len(promoted) - len(finished)
            # Those that went up are the best so far: whatever finished since has taken no place from them.
            free = places - len(promoted) - unfinished
            if survivors and free > 0:
                qualified.append(_Qualified(i + 1, survivors, free))
            entrants = min(places, len(promoted) + len(survivors) + unfinished)
        else:
            entrants = places
    if qualified:
        return Promote(min(qualified[-1].survivors)[1], qualified[-1].rung), qualified
    finished_at_top = sum(outcome(evaluation) is not None for evaluation in state.rungs[bracket.s].values())
    return (Done() if finished_at_top == entrants else Wait()), []


def advance(bracket: Bracket, state: BracketState, outcome: Outcome, known_at: KnownAt) -> Action:
    """Let all go up that has qualified and needs no evaluation there; then what `decide` says.

    What a higher budget would bring is known of a final result. It enters the rungs for which it qualifies,
    as the evaluation that it is, the best of a rung first: `state` is changed.
    """
    while True:
        action, qualified = _decided(bracket, state, outcome)
        entered = False
        for rung, survivors, free in qualified:
            budget = bracket.rungs[rung].budget
            below, above = state.rungs[rung - 1], state.rungs[rung]
            if is_known(below[min(survivors)[1]], budget, known_at):  # as a rule, it is not: one look a rung
                entered = True
                for _, config in sorted(survivors)[:free]:
                    if not is_known(below[config], budget, known_at):
                        break
                    above[config] = below[config]
        if not entered:
            return action


def is_known(evaluation: Any, budget: Budget, known_at: KnownAt) -> bool:
    """Whether an evaluation tells what one at this budget would bring."""
    known = known_at(evaluation)
    return known is not None and known >= budget


def promotable(bracket: Bracket, state: BracketState, outcome: Outcome) -> set[tuple[Hashable, int]]:
    """Configuration and rung of the finished evaluations that a promotion may still start from.

    Those are at most as many as the next rung has places: the best so far, whose promotion has not finished.
    What ranks behind them can't come back, since losses do not change.
    """
    found: set[tuple[Hashable, int]] = set()
    for i in range(bracket.s):
        ranked = [(outcome(evaluation), config) for config, evaluation in state.rungs[i].items()]
        survivors = [(value, config) for value, config in ranked if value is not None and value < FAILED]
        best = sorted(survivors)[: bracket.rungs[i + 1].configurations]
        above = state.rungs[i + 1]
        found |= {(config, i) for _, config in best if config not in above or outcome(above[config]) is None}
    return found
