"""The evaluations of a run, as reports, plots, stopping and models read them; which is the incumbent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from hyperopt.base import Trials
from hyperopt.exceptions import AllTrialsFailed

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._documents import (
    Document,
    Reach,
    active_of,
    budget_of,
    documents,
    hyperparameters_of,
    in_shares,
    is_cut_short,
    is_new,
    is_outside,
    known_at,
    left_behind,
    maxima_of,
    outcome,
    reach_of,
    stamp_of,
    tid_of,
    times_of,
    vals_of,
    without_budget,
)
from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._schedule import Budget, Schedule
from hyperopt_hyperband._stamps import fitting, is_of, issued_again, newest_schedule
from hyperopt_hyperband._values import as_number, number

Place = tuple[int, int, int]
"""Hyperband iteration, bracket s and rung."""
Told = frozenset[tuple[str, Any]]
"""What tells a configuration from others."""
Status = Literal["ok", "failed", "pending", "interrupted"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One document, read.

    Attributes
    ----------
    tid, config : its id, and the tid of its configuration's first evaluation
    place : where in the schedule; None for a foreign trial
    budget : a share of the full one where the space has several; that of a foreign trial is what its budget
        label holds, within the bounds of the run, or else max_budget; None where no schedule is known
    held : what it may spend, in the unit of its node: the budget, where that is no share
    known_at : the largest budget at which its result is known: its own, or that of a higher rung
    final : its result, once it is there, is what any higher budget would give
    status : "interrupted" where it was cut short: it counts no more, or not yet
    loss : finite where the status is "ok", else None
    vals : the active hyperparameters by label, a choice as its index, or as its option's name where the
        document has that
    label : the hyperparameter that holds the budget; None where there is none
    begun, ended : in UTC; None where that has not happened or is not known
    outside : it lies outside the space that the run went on with, and is no incumbent of it
    """

    tid: Hashable
    config: Hashable
    place: Place | None
    budget: Budget | None
    held: Budget | None
    known_at: Budget | None
    final: bool
    status: Status
    loss: float | None
    vals: dict[str, Any]
    label: str | None
    begun: datetime | None
    ended: datetime | None
    outside: bool = False

    @property
    def reached(self) -> Budget:
        """The largest budget at which its loss stands; 0 while it is pending, and where that is not known."""
        return self.known_at if self.known_at is not None and self.status in ("ok", "failed") else 0

    @property
    def spent(self) -> Budget:
        """The budget of a finished evaluation; 0 for others, and where it is not known."""
        return self.budget if self.budget is not None and self.status in ("ok", "failed") else 0


def evaluations(
    trials: Trials,
    issued: Iterable[Document] = (),
    *,
    schedule: Schedule | None = None,
    maxima: Mapping[str, Budget] | None = None,
) -> list[Evaluation]:
    """All evaluations, then those issued but not yet among the trials, in the order of the run.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state.
    schedule, maxima : optional
        Those of the run, maxima being what each label of a budget holds at max_budget. Default: as the stamps
        tell. Evaluations of other schedules are foreign trials.
    """
    before, new = documents(trials), list(issued)
    plan = schedule or newest_schedule(trials)
    own = {*map(id, fitting(trials, plan)), *map(id, new)} if plan else set()
    interrupted = set(map(id, issued_again(trials)))
    left = [d for d in before if left_behind(d) and id(d) not in interrupted]  # several are at work elsewhere
    stamps = [(d, its) for d in (*before, *new) if (its := stamp_of(d)) is not None]
    stamped = {id(document): its for document, its in stamps}
    known = {label: high for label, _, high in (plan.shares_of if plan else ())} | dict(maxima or {})
    for _, its in stamps:
        # In another schedule, a label may have been a budget that is a hyperparameter now.
        if "label" in its and its["label"] not in known and plan and is_of(plan, its):
            known |= maxima_of(its)
    # What is only pending says nothing of what a full budget was.
    alike = ((d, its) for d, its in stamps if not plan or in_shares(its) == bool(plan.shares_of))
    evaluated = (its["max_budget"] for d, its in alike if _status(d) == "ok")
    highest = schedule.max_budget if schedule else max(evaluated, default=plan.max_budget if plan else None)
    found: list[Evaluation] = []
    overtaken = False
    for document in reversed((*before, *new)):
        status = _status(document)
        alone = len(left) == 1 and document is left[0] and not trials.asynchronous
        if id(document) in interrupted or (alone and overtaken) or is_cut_short(document):
            status = "interrupted"
        overtaken |= not is_new(document)
        its = stamped.get(id(document))
        vals = active_of(document)
        label = next((name for name in (*known, (its or {}).get("label")) if name in vals), None)
        begun, ended = times_of(document)
        place, config = None, tid_of(document)
        held = number(vals[label]) if label is not None else None
        reach = reach_of(document, its)
        if its is None or (without_budget(its) and label is not None):  # it has become one since
            budget = _foreign_budget(held, known.get(str(label)), plan, highest)
            known_at = highest if reach.final and its is None else budget
        else:
            held = number(budget_of(document))
            budget, known_at = _compared(reach, its, plan, highest)
        if its is not None and id(document) in own:
            place, config = (its["iteration"], its["bracket"], its["rung"]), its["config"]
        elif its is not None:
            config = its["run"], its["config"]
        found.append(
            Evaluation(
                tid=tid_of(document),
                config=config,
                place=place,
                budget=budget,
                held=held,
                known_at=known_at,
                # Not where its label has become a budget that it did not have in full.
                final=reach.final and (known_at is None or highest is None or known_at >= highest),
                status=status,
                loss=outcome(document) if status == "ok" else None,
                vals=vals,
                label=label,
                begun=begun,
                ended=ended if status in ("ok", "failed") else None,
                outside=is_outside(its),
            )
        )
    return found[::-1]


def _foreign_budget(
    held: Budget | None, maximum: Budget | None, plan: Schedule | None, highest: Budget | None
) -> Budget | None:
    """The budget at which an evaluation without a stamp counts, by what its label holds.

    maximum : what the label holds at max_budget
    """
    if held is None or maximum is None or plan is None:
        return highest
    return min(max(held / maximum if plan.shares_of else held, plan.min_budget), plan.max_budget)


def _compared(
    reach: Reach, its: Mapping[str, Any], plan: Schedule | None, highest: Budget | None
) -> tuple[Budget | None, Budget | None]:
    """The budget of an evaluation with a stamp, and the largest at which its result is known.

    In the unit of the newest schedule: a run with several budgets has shares.
    """
    budget, known = reach.budget, reach.known_at
    if plan and in_shares(its) != bool(plan.shares_of):
        scale = plan.max_budget / its["max_budget"]
        budget, known = (each and each * scale for each in (budget, known))
    if reach.final and highest is not None:
        known = max(known or 0, highest)
    return budget, known


def labels_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """The hyperparameters of a run, but for what holds the budget in all evaluations."""
    return list(dict.fromkeys(label for e in evaluations for label in e.vals if label != e.label))


def told_apart(active: Mapping[str, Any], budgets: Collection[str | None]) -> Told:
    """All active hyperparameters of a configuration but those of these labels, which hold the budget."""
    return frozenset((name, value) for name, value in active.items() if name not in budgets)


def incumbents(evaluations: Iterable[Evaluation]) -> Iterator[Evaluation | None]:
    """The incumbent after each evaluation: the lowest loss at the largest budget, ties to the earlier one.

    A final result counts as evaluated at max_budget. None while none has succeeded. A budget that is not
    known ranks as the largest.
    """
    best, rank = None, (math.inf, math.inf)
    for e in evaluations:
        if e.loss is not None and not e.outside and (its := _rank(e.known_at, e.loss)) < rank:
            best, rank = e, its
        yield best


def incumbent_of(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The incumbent of all of them; None where none has succeeded."""
    *_, best = [None, *incumbents(evaluations)]
    return best


def best_of(trials: Trials, some: Sequence[Document]) -> Document | None:
    """The one among some documents, in the order of the run, that is the incumbent of them.

    Other evaluations are read only where the budget of one of these can't be told without them.
    """
    ok = [
        (document, loss)
        for document in some
        if (loss := outcome(document)) is not None and loss < FAILED and not is_outside(stamp_of(document))
    ]
    units = {
        its and (in_shares(its), its["max_budget"]) for its in (stamp_of(document) for document, _ in ok)
    }
    if len(ok) > 1 and (None in units or len(units) > 1):
        budgets = {id(d): e.known_at for d, e in zip(documents(trials), evaluations(trials), strict=True)}
    else:
        budgets = {id(document): known_at(document) for document, _ in ok}
    return min(ok, key=lambda each: _rank(budgets[id(each[0])], each[1]), default=(None,))[0]


@shows_its_call
def incumbent(trials: Trials) -> Document:
    """The document of the best trial at the largest budget evaluated.

    Losses at different budgets do not compare; fmin's own argmin mixes them. A trial without a budget,
    such as one of TPE, counts at the budget that its hyperparameters hold, or else at max_budget.

    Raises
    ------
    hyperopt.exceptions.AllTrialsFailed
        No trial has finished with a finite loss.
    """
    return _incumbent(trials)[0]


def argmin(trials: Trials) -> dict[str, Any]:
    """The hyperparameters of the incumbent, in the form of Hyperopt's argmin: choices as indices.

    `hyperopt.space_eval(space, hyperband.argmin(trials))` is what the objective got. Where the incumbent is
    a trial from before the space had a budget, the budget at which it counts is filled in.

    Raises
    ------
    hyperopt.exceptions.AllTrialsFailed
        No trial has finished with a finite loss.
    """
    document, best, everything = _incumbent(trials)
    held = {str(name): as_number(value) for name, value in hyperparameters_of(document).items()}
    full = full_values(trials, everything, best)
    return {name: value for name, value in full.items() if name not in vals_of(document)} | held


def full_values(trials: Trials, everything: list[Evaluation], best: Evaluation) -> dict[str, Any]:
    """What the label of the budget holds at the incumbent's; empty where there are several."""
    labels = {e.label for e in everything if e.place and e.label is not None}
    plan = newest_schedule(trials)
    return {} if plan and plan.shares_of else dict.fromkeys(labels, best.known_at)


def _incumbent(trials: Trials) -> tuple[Document, Evaluation, list[Evaluation]]:
    everything = evaluations(trials)
    best = incumbent_of(everything)
    if best is None:
        counts = Counter(e.status for e in everything)
        told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "there are none"
        raise AllTrialsFailed(
            f"no trial has finished with a finite loss ({told}): call fmin with these trials; where "
            "all have failed, their documents say why, in result and misc['error']"
        )
    return documents(trials)[next(i for i, e in enumerate(everything) if e is best)], best, everything


def _rank(budget: Budget | None, loss: float) -> tuple[float, float]:
    return (-math.inf if budget is None else -budget, loss)


def _status(document: Document) -> Status:
    value = outcome(document)
    if value is None:
        return "pending"
    return "ok" if value < FAILED else "failed"
