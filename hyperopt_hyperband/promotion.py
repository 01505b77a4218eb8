"""What a bracket does next, decided from its outcomes alone. Pure: knows nothing of Hyperopt."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from hyperopt_hyperband.schedule import Bracket

FAILED = math.inf
"""The loss of a failed evaluation: ranks last, is never promoted."""


@dataclass(slots=True)
class Outcomes:
    """What is known of a bracket.

    Attributes
    ----------
    rungs : for every rung, the loss of each configuration that entered it; None while it is pending
    interrupted : configurations whose first evaluation was cut short and has to be repeated
    closed : no more configurations are drawn, though rung 0 may have places left
    """

    rungs: tuple[dict[Hashable, float | None], ...]
    interrupted: list[Hashable] = field(default_factory=list)
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


def decide(bracket: Bracket, outcomes: Outcomes) -> Action:
    """Choose the next action of a bracket: fill rung 0, then promote, from the highest rung first.

    A configuration goes up as soon as it is certain to be among the best n_{i+1} of its rung, whatever the
    unfinished evaluations turn out to be: those that go up are the ones that waiting for all of them would
    choose (Algorithm 1, line 9), in any order of completion. Ties go to the earlier configuration.
    """
    if outcomes.interrupted:
        return Retry(outcomes.interrupted[0])
    entered = outcomes.rungs[0]
    if not outcomes.closed and len(entered) < bracket.rungs[0].configurations:
        return Sample()

    promotion = None
    most = len(entered)  # as many as can still enter the rung
    for i in range(bracket.s):
        finished = [(loss, config) for config, loss in outcomes.rungs[i].items() if loss is not None]
        survivors = sorted(outcome for outcome in finished if outcome[0] < FAILED)
        unfinished = most - len(finished)
        places = bracket.rungs[i + 1].configurations
        certain = survivors[: max(0, places - unfinished)]
        qualified = (config for _, config in certain if config not in outcomes.rungs[i + 1])
        if (config := next(qualified, None)) is not None:
            promotion = Promote(config, i + 1)
        most = min(places, len(survivors) + unfinished)
    if promotion is not None:
        return promotion
    finished_at_top = sum(loss is not None for loss in outcomes.rungs[bracket.s].values())
    return Done() if finished_at_top == most else Wait()


def needed(bracket: Bracket, outcomes: Outcomes) -> set[tuple[Hashable, int]]:
    """Configuration and rung of the finished evaluations that a promotion may still start from.

    Those are at most as many as the next rung has places: the best so far, whose promotion has not finished.
    What ranks behind them can't come back, since losses do not change.
    """
    found: set[tuple[Hashable, int]] = set()
    for i in range(bracket.s):
        finished = [
            (loss, config) for config, loss in outcomes.rungs[i].items() if loss is not None and loss < FAILED
        ]
        best = sorted(finished)[: bracket.rungs[i + 1].configurations]
        found |= {(config, i) for _, config in best if outcomes.rungs[i + 1].get(config) is None}
    return found
