"""What a bracket does next, decided from its outcomes alone. Pure: knows nothing of Hyperopt."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from hyperopt_hyperband.schedule import Bracket

FAILED = math.inf
"""The loss of a failed evaluation: ranks last, is never promoted."""


@dataclass(slots=True)
class Outcomes:
    """What is known of a bracket.

    Attributes
    ----------
    rungs : for every rung, the evaluation of each configuration that entered it
    interrupted : the first evaluations that were cut short and have to be repeated, by configuration
    closed : no more configurations are drawn, though rung 0 may have places left
    """

    rungs: tuple[dict[Hashable, Any], ...]
    interrupted: dict[Hashable, Any] = field(default_factory=dict)
    closed: bool = False


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


def decide(bracket: Bracket, outcomes: Outcomes, loss: Callable[[Any], float | None]) -> Action:
    """Choose the next action of a bracket: fill rung 0, then promote, from the highest rung first.

    A configuration goes up as soon as it is certain to be among the best n_{i+1} of its rung, whatever the
    unfinished evaluations turn out to be: those that go up are the ones that waiting for all of them would
    choose (Algorithm 1, line 9), in any order of completion. Ties go to the earlier configuration.

    loss : reads the loss of an evaluation, None while it is pending
    """
    if outcomes.interrupted:
        return Retry(next(iter(outcomes.interrupted)))
    entered = len(outcomes.rungs[0])
    if not outcomes.closed and entered < bracket.rungs[0].configurations:
        return Sample()

    promotion = None
    most = entered  # as many as can still enter the rung
    for i in range(bracket.s):
        promoted = outcomes.rungs[i + 1]
        places = bracket.rungs[i + 1].configurations
        if len(promoted) < places:
            finished = [
                (value, config)
                for config, evaluation in outcomes.rungs[i].items()
                if config not in promoted and (value := loss(evaluation)) is not None
            ]
            survivors = [outcome for outcome in finished if outcome[0] < FAILED]
            unfinished = most - len(promoted) - len(finished)
            # Those that went up are the best so far: whatever finished since has taken no place from them.
            if survivors and len(promoted) + unfinished < places:
                promotion = Promote(min(survivors)[1], i + 1)
            most = min(places, len(promoted) + len(survivors) + unfinished)
        else:
            most = places
    if promotion is not None:
        return promotion
    finished_at_top = sum(loss(evaluation) is not None for evaluation in outcomes.rungs[bracket.s].values())
    return Done() if finished_at_top == most else Wait()


def needed(
    bracket: Bracket, outcomes: Outcomes, loss: Callable[[Any], float | None]
) -> set[tuple[Hashable, int]]:
    """Configuration and rung of the finished evaluations that a promotion may still start from.

    Those are at most as many as the next rung has places: the best so far, whose promotion has not finished.
    What ranks behind them can't come back, since losses do not change.
    """
    found: set[tuple[Hashable, int]] = set()
    for i in range(bracket.s):
        losses = [(loss(evaluation), config) for config, evaluation in outcomes.rungs[i].items()]
        finished = [(value, config) for value, config in losses if value is not None and value < FAILED]
        best = sorted(finished)[: bracket.rungs[i + 1].configurations]
        above = outcomes.rungs[i + 1]
        found |= {(config, i) for _, config in best if config not in above or loss(above[config]) is None}
    return found
