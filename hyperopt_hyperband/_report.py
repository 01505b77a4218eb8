"""What happened in a run: a report to read, and its evaluations as flat records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from hyperopt import space_eval
from hyperopt.base import Trials

from hyperopt_hyperband import _tables
from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._correlation import over_all
from hyperopt_hyperband._documents import documents, stamp_of
from hyperopt_hyperband._evaluations import (
    Evaluation,
    evaluations,
    full_values,
    incumbent_of,
    labels_of,
    told_apart,
)
from hyperopt_hyperband._history import first_full
from hyperopt_hyperband._rungs import RungReport, row_of, rungs_of
from hyperopt_hyperband._schedule import Budget, Schedule, multiples, shown
from hyperopt_hyperband._space import Hyperparameter, hyperparameters
from hyperopt_hyperband._stamps import newest_schedule
from hyperopt_hyperband._tables import clock, counted
from hyperopt_hyperband._verdict import Correlation, advice

Section = tuple[str, list[str], list[list[str]]]
"""A title, a header (empty: none) and rows."""


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A run so far; printed, and shown in a notebook, as tables.

    Attributes
    ----------
    schedule : that of the newest trial; None where Hyperband has made none
    rungs : in the order of the run
    evaluations : those that have finished, failed ones included
    configurations : those whose first evaluation has been issued
    distinct : how many of them differ; in a small discrete space, brackets draw the same ones again
    failed, pending, interrupted : how many; the interrupted count in no other figure
    foreign : trials that are not of this schedule; they count in no other figure, but may be the incumbent
    total_budget : the sum of the budgets of finished evaluations' rungs, each trained from scratch.
        What has no budget, or one that does not go so low, counts so too, though it costs more
    total_budget_continued : the same where a promotion takes up what the rung below has trained
    final : how many of them have a final result: what any higher budget would give
    saved_evaluations, saved_budget : what was not evaluated again, as its result was known, trained from
        scratch
    full_search_budget : what a search at max_budget of as many configurations spends
    wall_seconds : from the first evaluation's begin to the last one's end, breaks included; None if not known
    evaluation_seconds : the sum over evaluations
    incumbent : see `hyperband.incumbent`; None where no evaluation has succeeded
    parameters : the incumbent's: as the objective got them where the space is given; else, or where it is of
        another space, by label, a choice as its index
    hyperparameters : the same by label, without the budget, a choice as its option's name where the space is
        given: as in `hyperband.records` and plots
    lowest : the evaluation of the lowest loss at any budget, ties to the incumbent; it is not the better one,
        since losses at different budgets do not compare
    needed_for_full : the max_evals with which the next result at max_budget is there, if no more evaluations
        fail; None without a schedule
    correlations : for neighbouring budgets, from the lowest
    """

    schedule: Schedule | None
    rungs: tuple[RungReport, ...]
    evaluations: int
    configurations: int
    distinct: int
    failed: int
    pending: int
    interrupted: int
    foreign: int
    total_budget: Budget
    total_budget_continued: Budget
    final: int
    saved_evaluations: int
    saved_budget: Budget
    full_search_budget: Budget
    wall_seconds: float | None
    evaluation_seconds: float
    incumbent: Evaluation | None
    parameters: Any
    hyperparameters: dict[str, Any]
    lowest: Evaluation | None
    needed_for_full: int | None
    correlations: tuple[Correlation, ...]

    def __repr__(self) -> str:
        return f"<Report: {self._found()}; {counted(self.evaluations, 'evaluation')}{self._counts()}>"

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([title, *_tables.text(header, rows)]) for title, header, rows in self._sections()
        )

    def _repr_html_(self) -> str:
        return "".join(_tables.markup(*section) for section in self._sections())

    def _found(self) -> str:
        """What was found at which budget, in one line."""
        best, plan = self.incumbent, self.schedule
        if best is None:
            return "incumbent: none, no evaluation has succeeded yet"
        where = "iteration {}, bracket {}, rung {}".format(*best.place) if best.place else "a foreign trial"
        full = plan.max_budget if plan else None
        budget = best.known_at
        name = "max_budget" if budget == full else "budget"
        at = "" if budget is None else f" at {name} {shown(budget)}"
        if best.final and best.budget != budget:
            at += ", final"
        found = f"incumbent: loss {_tables.cell(best.loss)}{at}, trial {best.tid} ({where})"
        if full is None or self._at_full():
            return found
        failed = any(rung.budget == full and rung.failed for rung in self.rungs)
        would = f" (max_evals={self.needed_for_full} would)" if self.needed_for_full else ""
        reached = "succeeded at" if failed else "reached"
        return f"nothing has {reached} max_budget {shown(full)} yet{would}; {found}"

    def _at_full(self) -> bool:
        """Whether the incumbent was evaluated at max_budget, or above that of the newest schedule."""
        best, plan = self.incumbent, self.schedule
        reached = None if best is None else best.known_at
        return best is not None and (plan is None or reached is None or reached >= plan.max_budget)

    def _counts(self) -> str:
        """What has become of the evaluations that gave no loss, if any."""
        others = {"failed": self.failed, "pending": self.pending, "interrupted": self.interrupted}
        return "".join(f", {number} {name}" for name, number in others.items() if number)

    def _sections(self) -> list[Section]:
        plan, found = self.schedule, self._found()
        rows = [[label, _tables.cell(value)] for label, value in self.hyperparameters.items()]
        sections: list[Section] = [(found[0].upper() + found[1:], [], rows)]
        if not self._at_full() and (first := self._first_full()):
            early = "Hyperopt's max_evals, timeout, loss_threshold and no_progress_loss can come before that"
            rows = [
                ["places taken", first],
                ["to go on", f"fmin with these trials and max_evals={self.needed_for_full} or more"],
                ["if fmin has ended", early],
            ]
            sections.append(("How far it is to max_budget", [], rows))
        if plan:
            table = [row_of(rung) for rung in self.rungs]
            header, rows = list(table[0]) if table else [], [list(row.values()) for row in table]
            sections.append((f"Hyperband, {plan.options}", header, rows))
        sections.append(("Totals", [], self._totals()))
        if self.correlations:
            title = "Rank correlation of neighbouring budgets over random configurations (90 % interval)"
            rows = [[f"{shown(c.low)} and {shown(c.high)}", str(c)] for c in self.correlations]
            to_do = advice(plan, self.correlations) if plan else None
            sections.append((title, [], rows + ([["what to do", to_do]] if to_do else [])))
        return sections

    def _first_full(self) -> str | None:
        """Which bracket gets to max_budget first, and how far it is."""
        plan = self.schedule
        if plan is None:
            return None
        finished: defaultdict[tuple[int, int], int] = defaultdict(int)
        pending: defaultdict[tuple[int, int], int] = defaultdict(int)
        for rung in self.rungs:
            finished[rung.iteration, rung.bracket] += rung.evaluations + rung.carried
            pending[rung.iteration, rung.bracket] += rung.pending
        for key, number in finished.items():
            planned = plan.bracket(key[1]).evaluations
            if number < planned:
                at_work = f" ({pending[key]} pending)" if pending[key] else ""
                where = "iteration {}, bracket {}, which ends at max_budget".format(*key)
                return f"{number} of {planned}{at_work} in {where}"
        return None

    def _totals(self) -> list[list[str]]:
        distinct = f", {self.distinct} of them distinct" if self.distinct < self.configurations else ""
        drawn = f"{self.evaluations} of {counted(self.configurations, 'configuration')}{distinct}"
        rows = [["evaluations", drawn + self._counts()]]
        if self.schedule:
            full = self.schedule.max_budget
            continued = multiples(self.total_budget_continued, full)
            rows += [
                ["total budget", multiples(self.total_budget, full)],
                ["with continued training", continued],
                ["as many configurations at max_budget", multiples(self.full_search_budget, full)],
            ]
            if self.final:
                rows.append(["final results", str(self.final)])
            if self.saved_evaluations:
                saved = f"{counted(self.saved_evaluations, 'evaluation')} at higher budgets, "
                saved += f"a total budget of {multiples(self.saved_budget, full)}"
                rows.append(["known without another", saved])
        if self.wall_seconds is not None:
            rows.append(["wall time", clock(self.wall_seconds)])
            rows.append(["time of all evaluations", clock(self.evaluation_seconds)])
        if self.foreign:
            rows.append(["foreign trials", f"{self.foreign} not of this schedule, counted nowhere above"])
        best, lowest = self.incumbent, self.lowest
        if best and lowest and best.known_at != lowest.known_at:
            at = f"{_tables.cell(lowest.loss)} at budget {shown(lowest.known_at or 0)}, trial {lowest.tid}"
            rows.append(
                ["lowest loss at any budget", f"{at}: Hyperopt's best_trial and loss_threshold go by it"]
            )
        return rows


@shows_its_call
def report(trials: Trials, *, space: Any = None) -> Report:
    """What happened in a run, so far or in full; print it, or let a notebook show it.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state. Where they hold more than one schedule, the report is on the newest.
    space : optional
        The space of the run, so that choices hold their options' names in place of indices.
    """
    plan = newest_schedule(trials)
    everything = evaluations(trials)
    alive = [e for e in everything if e.status != "interrupted"]
    own = [e for e in alive if e.place]
    finished = [e for e in own if e.status != "pending"]
    configurations = len({e.config for e in own})
    seconds = [(e.begun, e.ended) for e in finished if e.begun and e.ended]
    best = incumbent_of(everything)
    known = {} if space is None else hyperparameters(space)
    rungs = rungs_of(plan, [e for e in everything if e.place]) if plan else ()
    return Report(
        schedule=plan,
        rungs=rungs,
        evaluations=len(finished),
        configurations=configurations,
        distinct=len({told_apart(e.vals, {e.label}) for e in own}),
        failed=sum(e.status == "failed" for e in own),
        pending=sum(e.status == "pending" for e in own),
        interrupted=len(everything) - len(alive),
        foreign=len(alive) - len(own),
        total_budget=sum(e.spent for e in finished),
        total_budget_continued=sum(_continued_budgets(finished)),
        final=sum(e.final and e.status == "ok" for e in own),
        saved_evaluations=sum(rung.carried for rung in rungs),
        saved_budget=sum(rung.carried * rung.budget for rung in rungs),
        full_search_budget=configurations * plan.max_budget if plan else 0,
        wall_seconds=(
            (max(end for _, end in seconds) - min(begin for begin, _ in seconds)).total_seconds()
            if seconds
            else None
        ),
        evaluation_seconds=sum((end - begin).total_seconds() for begin, end in seconds),
        incumbent=best,
        parameters=best and _parameters(best, full_values(trials, everything, best), space),
        hyperparameters=_named(best, labels_of(everything), known) if best else {},
        lowest=min(
            (e for e in everything if e.loss is not None), key=lambda e: (e.loss, e is not best), default=None
        ),
        needed_for_full=first_full(trials, plan) if plan else None,
        correlations=_correlations(trials, finished),
    )


@shows_its_call
def records(trials: Trials, *, space: Any = None) -> list[dict[str, Any]]:
    """One flat dict an evaluation, foreign and interrupted ones too: `pandas.DataFrame(records(trials))`.

    All dicts have the same keys: tid, config, iteration, bracket, rung (None for a foreign trial), budget,
    status ("ok", "failed", "pending", "interrupted"), loss, final (whether that is what any higher budget
    would give), seconds, and for each hyperparameter, but those of the budget, "param_" and its label (None
    where it is inactive). Where the space has several budgets, budget is in the unit of the active one, and
    there is a key more, share: that of the full budget.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state.
    space : optional
        The space of the run, so that choices hold their options' names in place of indices.
    """
    everything = evaluations(trials)
    known = {} if space is None else hyperparameters(space)
    labels = labels_of(everything)
    plan = newest_schedule(trials)
    in_shares = plan is not None and plan.shares_of
    flat = []
    for e in everything:
        iteration, bracket, rung = e.place or (None, None, None)
        named = _named(e, labels, known)
        flat.append(
            {
                "tid": e.tid,
                "config": e.config,
                "iteration": iteration,
                "bracket": bracket,
                "rung": rung,
                "budget": e.budget if e.held is None or not in_shares else e.held,
                **({"share": e.budget} if in_shares else {}),
                "status": e.status,
                "loss": e.loss,
                "final": e.final,
                "seconds": (e.ended - e.begun).total_seconds() if e.begun and e.ended else None,
                **{f"param_{label}": named.get(label) for label in labels},
            }
        )
    return flat


def _parameters(best: Evaluation, full: dict[str, Any], space: Any) -> Any:
    known = {} if space is None else hyperparameters(space)
    if not best.vals.keys() <= known.keys():
        return best.vals
    read = {label: known[label].number(value) for label, value in best.vals.items()}
    vals = best.vals | {label: value for label, value in read.items() if value is not None}
    try:
        return space_eval(space, full | vals)  # a foreign trial may come from before the space had a budget
    except Exception:  # whatever the space says of values that it does not have
        return best.vals


def _named(e: Evaluation, labels: list[str], known: dict[str, Hyperparameter]) -> dict[str, Any]:
    """The active ones of these hyperparameters, choices by their options' names where these are known."""
    active = {label: e.vals[label] for label in labels if label in e.vals}
    return {label: known[label].shown(v) if label in known else v for label, v in active.items()}


def _continued_budgets(finished: list[Evaluation]) -> Iterator[Budget]:
    """What each evaluation trains where it takes up what its configuration has trained a rung below."""
    reached: dict[Hashable, Budget] = {}
    for e in sorted(finished, key=lambda e: e.spent):
        yield e.spent - reached.get(e.config, 0)
        reached[e.config] = e.spent


def _correlations(trials: Trials, finished: list[Evaluation]) -> tuple[Correlation, ...]:
    """Those among random draws: what a model draws later is better at any budget."""
    stamps = [its for document in documents(trials) if (its := stamp_of(document))]
    by_model = {its["config"] for its in stamps if "by_model" in its}
    losses = [
        (e.config, e.spent if e.final else e.reached, e.loss)
        for e in finished
        if e.loss is not None and e.config not in by_model
    ]
    return tuple(Correlation(*budgets, *found) for budgets, found in over_all(losses).items())
