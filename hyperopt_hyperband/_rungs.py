"""What happened in each rung of a run."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperopt_hyperband._evaluations import Evaluation, Place
from hyperopt_hyperband._promotion import FAILED, BracketState, advance
from hyperopt_hyperband._schedule import Budget, Schedule, shown
from hyperopt_hyperband._stamps import order
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
    carried : places taken by results of lower rungs that are known here, and needed no evaluation; they count
        in best, median and promoted
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


def rungs_of(plan: Schedule, own: Sequence[Evaluation]) -> tuple[RungReport, ...]:
    """The rungs that any evaluation has entered, in the order of the run.

    own : the evaluations of the schedule, those that were interrupted too
    """
    by_place: defaultdict[Place, list[Evaluation]] = defaultdict(list)
    for e in own:
        if e.place and e.status != "interrupted":
            by_place[e.place].append(e)
    carried = _carried(plan, by_place, [e for e in own if e.status == "interrupted"])
    # By rungs below the top: the schedule does not know of a step that budgets were rounded to.
    budgets = {s - rung: inside[0].budget for (_, s, rung), inside in by_place.items()}
    reports = []
    for iteration, s, rung in sorted({*by_place, *carried}, key=lambda each: (order(each[:2]), each[2])):
        inside, known = by_place.get((iteration, s, rung), []), carried.get((iteration, s, rung), [])
        losses = [e.loss for e in (*inside, *known) if e.loss is not None]
        above = iteration, s, rung + 1
        pending = sum(e.status == "pending" for e in inside)
        reports.append(
            RungReport(
                iteration=iteration,
                bracket=s,
                rung=rung,
                budget=budgets.get(s - rung) or plan.bracket(s).rungs[rung].budget,
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


def _carried(
    plan: Schedule, by_place: Mapping[Place, Sequence[Evaluation]], interrupted: Sequence[Evaluation]
) -> dict[Place, list[Evaluation]]:
    """The evaluations whose results are known at higher rungs, by the places that they take there."""
    found: defaultdict[Place, list[Evaluation]] = defaultdict(list)
    newest = max(by_place, key=lambda place: order(place[:2]), default=None)
    for iteration, s in {place[:2] for place in by_place}:
        inside = [by_place.get((iteration, s, rung), ()) for rung in range(s + 1)]
        rungs = tuple({e.config: e for e in each} for each in inside)
        first = {
            e.config: e for e in interrupted if e.place == (iteration, s, 0) and e.config not in rungs[0]
        }
        closed = (iteration, s) != (newest and newest[:2]) or any(rungs[1:])
        state = BracketState(rungs, interrupted=first, closed=closed)
        advance(plan.bracket(s), state, _outcome, lambda e: e.known_at)
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
        "evaluations": " + ".join([evaluations] + [f"{rung.carried} known"] * (rung.carried > 0)),
        "pending": str(rung.pending),
        "failed": str(rung.failed),
        "best": cell(rung.best),
        "median": cell(rung.median),
        "promoted": str(rung.promoted),
    }
