"""What happened in each rung of a run."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from hyperopt_hyperband._evaluations import Evaluation, Place
from hyperopt_hyperband._promotion import FAILED, BracketState, advance
from hyperopt_hyperband._schedule import Budget, Schedule, shown
from hyperopt_hyperband._tables import cell


@dataclass(frozen=True, slots=True)
class RungReport:
    """One rung of one bracket.

    Attributes
    ----------
    planned : places in the rung
    evaluations : those that have finished, failed ones included
    pending, failed : how many
    best, median : of the finite losses; None where there is none
    promoted : configurations that have gone up from here
    carried : places taken by final results of lower rungs, which needed no evaluation here; they count in
        best, median and promoted
    """

    iteration: int
    bracket: int
    rung: int
    budget: Budget
    planned: int
    evaluations: int
    pending: int
    failed: int
    best: float | None
    median: float | None
    promoted: int
    carried: int


def rungs_of(plan: Schedule, own: list[Evaluation]) -> tuple[RungReport, ...]:
    """The rungs that any evaluation has entered, in the order of the run; own: those of the schedule."""
    by_place: defaultdict[Place, list[Evaluation]] = defaultdict(list)
    for e in own:
        if e.place:
            by_place[e.place].append(e)
    carried = _carried(plan, by_place)
    reports = []
    for iteration, s, rung in sorted(
        {*by_place, *carried}, key=lambda place: (place[0], -place[1], place[2])
    ):
        inside, known = by_place.get((iteration, s, rung), []), carried.get((iteration, s, rung), [])
        losses = [e.loss for e in (*inside, *known) if e.loss is not None]
        above = iteration, s, rung + 1
        pending = sum(e.status == "pending" for e in inside)
        reports.append(
            RungReport(
                iteration=iteration,
                bracket=s,
                rung=rung,
                budget=plan.bracket(s).rungs[rung].budget,
                planned=plan.bracket(s).rungs[rung].configurations,
                evaluations=len(inside) - pending,
                pending=pending,
                failed=sum(e.status == "failed" for e in inside),
                best=min(losses, default=None),
                median=statistics.median(losses) if losses else None,
                promoted=len(by_place.get(above, ())) + len(carried.get(above, ())),
                carried=len(known),
            )
        )
    return tuple(reports)


def _carried(plan: Schedule, by_place: Mapping[Place, list[Evaluation]]) -> dict[Place, list[Evaluation]]:
    """The evaluations that stand for higher rungs than their own, by the places that they take there."""
    found: defaultdict[Place, list[Evaluation]] = defaultdict(list)
    newest = max(((iteration, -s) for iteration, s, _ in by_place), default=None)
    for iteration, s in {place[:2] for place in by_place}:
        rungs = [by_place.get((iteration, s, rung), []) for rung in range(s + 1)]
        state = BracketState(
            tuple({e.config: e for e in inside} for inside in rungs),
            closed=(iteration, -s) != newest or any(rungs[1:]),
        )
        advance(plan.bracket(s), state, _outcome, lambda e: e.stands_for)
        for rung, entered in enumerate(state.rungs):
            found[iteration, s, rung] += [e for e in entered.values() if e.place != (iteration, s, rung)]
    return {place: known for place, known in found.items() if known}


def _outcome(e: Evaluation) -> float | None:
    return None if e.status == "pending" else FAILED if e.loss is None else e.loss


def row_of(rung: RungReport) -> dict[str, str]:
    """A rung as a row of a table, by column."""
    full = rung.evaluations + rung.carried == rung.planned
    evaluations = str(rung.evaluations) if full else f"{rung.evaluations} of {rung.planned}"
    return {
        "iteration": str(rung.iteration),
        "bracket": str(rung.bracket),
        "rung": str(rung.rung),
        "budget": shown(rung.budget),
        "evaluations": " + ".join([evaluations] + [f"{rung.carried} final"] * (rung.carried > 0)),
        "pending": str(rung.pending),
        "failed": str(rung.failed),
        "best": cell(rung.best),
        "median": cell(rung.median),
        "promoted": str(rung.promoted),
    }
