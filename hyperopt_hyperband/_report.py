"""What happened in a run: a report to read, and its evaluations as flat records."""

from __future__ import annotations

import html
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from hyperopt import space_eval
from hyperopt.base import Trials

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._correlation import neighbours, spearman
from hyperopt_hyperband._evaluations import Evaluation, Place, evaluations, incumbent_of
from hyperopt_hyperband._history import newest_schedule
from hyperopt_hyperband._schedule import Budget, Schedule, multiples
from hyperopt_hyperband._space import hyperparameters

MISLEADING, GOOD = 0.2, 0.5
"""Rank correlations below and above which the verdict is clear."""
ENOUGH = 8
"""Configurations from which on there is a verdict; by chance alone, 8 of them correlate by 0.38."""

HEADER = ["iteration", "bracket", "rung", "budget", "evaluations", "failed", "best", "median", "promoted"]
Section = tuple[str, list[str], list[list[str]]]
"""A title, a header (empty: none) and rows."""


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


@dataclass(frozen=True, slots=True)
class Correlation:
    """Whether a budget ranks configurations as the next one does.

    Attributes
    ----------
    low, high : neighbouring budgets
    configurations : those evaluated at both without failure. They are the survivors of the low budget, alike
        in their losses there: over all configurations the correlation is higher as a rule
    spearman : rank correlation of their losses, -1 to 1; None where the losses at one budget are all equal
    """

    low: Budget
    high: Budget
    configurations: int
    spearman: float | None

    @property
    def verdict(self) -> str:
        """The correlation in plain words."""
        if self.configurations < ENOUGH:
            return "too few to tell"
        if self.spearman is None:
            return "the losses are all equal"
        if self.spearman < MISLEADING:
            return "the low budget misleads: raise min_budget or lower eta"
        return "the low budget is a good guide" if self.spearman >= GOOD else "the low budget is a weak guide"


@dataclass(frozen=True, slots=True)
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
    total_budget : the sum of finished evaluations' budgets, every promotion trained from scratch
    total_budget_continued : the same where a promotion takes up what the rung below has trained
    full_search_budget : what a search at max_budget of as many configurations spends
    wall_seconds : from the first evaluation's begin to the last one's end, breaks included; None if not known
    evaluation_seconds : the sum over evaluations
    incumbent : see `hyperband.incumbent`; None where no evaluation has succeeded
    parameters : the incumbent's: as the objective got them where the space is given; else, or where it is of
        another space, by label, a choice as its index
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
    full_search_budget: Budget
    wall_seconds: float | None
    evaluation_seconds: float
    incumbent: Evaluation | None
    parameters: Any
    correlations: tuple[Correlation, ...]

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([title, *_lines(header, rows)]) for title, header, rows in self._sections()
        )

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{html.escape(title)}</h4><table>"
            + "".join([_html_row("th", header) if header else "", *(_html_row("td", row) for row in rows)])
            + "</table>"
            for title, header, rows in self._sections()
        )

    def _sections(self) -> list[Section]:
        plan, best = self.schedule, self.incumbent
        sections: list[Section] = []
        if plan:
            title = f"Hyperband, budgets {plan.min_budget:g} to {plan.max_budget:g}, eta {plan.eta:g}"
            sections.append((title, HEADER, [_rung_row(rung) for rung in self.rungs]))
        sections.append(("Totals", [], self._totals()))
        if best is None:
            sections.append(("Incumbent: none, no evaluation has succeeded yet", [], []))
        else:
            at = "" if best.budget is None else f" at budget {best.budget:.6g}"
            where = (
                "iteration {}, bracket {}, rung {}".format(*best.place) if best.place else "a foreign trial"
            )
            title = f"Incumbent: loss {_text(best.loss)}{at}, trial {best.tid} ({where})"
            sections.append((title, [], [[name, _text(v)] for name, v in _flat("", self.parameters)]))
        if self.correlations:
            title = (
                "Rank correlation between neighbouring budgets, over those evaluated at both (survivors only)"
            )
            rows = [[f"{c.low:.6g} and {c.high:.6g}", _correlation_text(c)] for c in self.correlations]
            sections.append((title, [], rows))
        return sections

    def _totals(self) -> list[list[str]]:
        others = {"failed": self.failed, "pending": self.pending, "interrupted": self.interrupted}
        counts = [f"{number} {name}" for name, number in others.items() if number]
        distinct = f", {self.distinct} of them distinct" if self.distinct < self.configurations else ""
        drawn = f"{self.evaluations} of {self.configurations} configurations{distinct}"
        rows = [["evaluations", ", ".join([drawn, *counts])]]
        if self.schedule:
            full = self.schedule.max_budget
            continued = multiples(self.total_budget_continued, full)
            rows += [
                ["total budget", multiples(self.total_budget, full)],
                ["with continued training", continued],
                ["as many configurations at max_budget", multiples(self.full_search_budget, full)],
            ]
        if self.wall_seconds is not None:
            rows.append(["wall time", clock(self.wall_seconds)])
            rows.append(["time of all evaluations", clock(self.evaluation_seconds)])
        if self.foreign:
            rows.append(["foreign trials", f"{self.foreign} not of this schedule, counted nowhere above"])
        return rows


@shows_its_call
def report(trials: Trials, *, space: Any = None) -> Report:
    """What happened in a run, so far or in full; print it, or let a notebook show it.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state. Where they hold more than one schedule, the report is on the newest.
    space : optional
        The space of the run, so that the incumbent's parameters read as the objective got them.
    """
    plan = newest_schedule(trials)
    everything = evaluations(trials)
    alive = [e for e in everything if e.status != "interrupted"]
    own = [e for e in alive if e.place]
    finished = [e for e in own if e.status != "pending"]
    configurations = len({e.config for e in own})
    seconds = [(e.begun, e.ended) for e in finished if e.begun and e.ended]
    best = incumbent_of(everything)
    return Report(
        schedule=plan,
        rungs=_rungs(plan, own) if plan else (),
        evaluations=len(finished),
        configurations=configurations,
        distinct=_distinct(own),
        failed=sum(e.status == "failed" for e in own),
        pending=sum(e.status == "pending" for e in own),
        interrupted=len(everything) - len(alive),
        foreign=len(alive) - len(own),
        total_budget=sum(e.spent for e in finished),
        total_budget_continued=sum(_continued_budgets(finished)),
        full_search_budget=configurations * plan.max_budget if plan else 0,
        wall_seconds=(
            (max(end for _, end in seconds) - min(begin for begin, _ in seconds)).total_seconds()
            if seconds
            else None
        ),
        evaluation_seconds=sum((end - begin).total_seconds() for begin, end in seconds),
        incumbent=best,
        parameters=best and _parameters(best, everything, space),
        correlations=_correlations(finished),
    )


@shows_its_call
def records(trials: Trials, *, space: Any = None) -> list[dict[str, Any]]:
    """One flat dict an evaluation, foreign and interrupted ones too: `pandas.DataFrame(records(trials))`.

    All dicts have the same keys: tid, config, iteration, bracket, rung (None for a foreign trial), budget,
    status ("ok", "failed", "pending", "interrupted"), loss, seconds, and for each hyperparameter "param_" and
    its label (None where it is inactive).

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state.
    space : optional
        The space of the run, so that choices hold their options' names in place of indices.
    """
    everything = evaluations(trials)
    known = {} if space is None else hyperparameters(space)
    labels = dict.fromkeys(label for e in everything for label in e.vals)
    flat = []
    for e in everything:
        iteration, bracket, rung = e.place or (None, None, None)
        vals = {label: known[label].shown(v) if label in known else v for label, v in e.vals.items()}
        flat.append(
            {
                "tid": e.tid,
                "config": e.config,
                "iteration": iteration,
                "bracket": bracket,
                "rung": rung,
                "budget": e.budget,
                "status": e.status,
                "loss": e.loss,
                "seconds": (e.ended - e.begun).total_seconds() if e.begun and e.ended else None,
                **{f"param_{label}": vals.get(label) for label in labels},
            }
        )
    return flat


def clock(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    largest = next(i for i, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[largest : largest + 2])


def _parameters(best: Evaluation, everything: list[Evaluation], space: Any) -> Any:
    known = {} if space is None else hyperparameters(space)
    if not best.vals.keys() <= known.keys():
        return best.vals
    read = {label: known[label].number(value) for label, value in best.vals.items()}
    vals = best.vals | {label: value for label, value in read.items() if value is not None}
    # A foreign trial may come from before the space had a budget.
    budget = {e.label: best.budget for e in everything if e.label is not None}
    try:
        return space_eval(space, budget | vals)
    except Exception:  # whatever the space says of values that it does not have
        return best.vals


def _distinct(own: list[Evaluation]) -> int:
    told_apart_by = {label for e in own for label in e.vals if label != e.label}
    return len({tuple((label, e.vals.get(label)) for label in told_apart_by) for e in own})


def _rungs(plan: Schedule, own: list[Evaluation]) -> tuple[RungReport, ...]:
    by_place: defaultdict[Place, list[Evaluation]] = defaultdict(list)
    for e in own:
        if e.place:
            by_place[e.place].append(e)
    reports = []
    for iteration, s, rung in sorted(by_place, key=lambda place: (place[0], -place[1], place[2])):
        inside = by_place[iteration, s, rung]
        losses = [e.loss for e in inside if e.loss is not None]
        pending = sum(e.status == "pending" for e in inside)
        reports.append(
            RungReport(
                iteration=iteration,
                bracket=s,
                rung=rung,
                budget=inside[0].budget or 0,
                planned=plan.bracket(s).rungs[rung].configurations,
                evaluations=len(inside) - pending,
                pending=pending,
                failed=sum(e.status == "failed" for e in inside),
                best=min(losses, default=None),
                median=statistics.median(losses) if losses else None,
                promoted=len(by_place.get((iteration, s, rung + 1), ())),
            )
        )
    return tuple(reports)


def _continued_budgets(finished: list[Evaluation]) -> Iterator[Budget]:
    """What each evaluation trains where it takes up what its configuration has trained a rung below."""
    reached: dict[Hashable, Budget] = {}
    for e in sorted(finished, key=lambda e: e.spent):
        yield e.spent - reached.get(e.config, 0)
        reached[e.config] = e.spent


def _correlations(finished: list[Evaluation]) -> tuple[Correlation, ...]:
    losses = [(e.config, e.spent, e.loss) for e in finished if e.loss is not None]
    return tuple(
        Correlation(*budgets, len(pairs), spearman(pairs)) for budgets, pairs in neighbours(losses).items()
    )


def _rung_row(rung: RungReport) -> list[str]:
    full = rung.evaluations == rung.planned
    return [
        str(rung.iteration),
        str(rung.bracket),
        str(rung.rung),
        f"{rung.budget:.6g}",
        str(rung.planned) if full else f"{rung.evaluations} of {rung.planned}",
        str(rung.failed),
        _text(rung.best),
        _text(rung.median),
        str(rung.promoted),
    ]


def _correlation_text(correlation: Correlation) -> str:
    value = "" if correlation.spearman is None else f"{correlation.spearman:.2f} over "
    plural = "" if correlation.configurations == 1 else "s"
    return f"{value}{correlation.configurations} configuration{plural}: {correlation.verdict}"


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of nested parameters, each with its path."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(f"{name}.{key}" if name else str(key), inner)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _lines(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table's lines: figures flush right under a header, names and texts flush left without."""
    cells = [header, *rows] if header else rows
    justify = str.rjust if header else str.ljust
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(justify, row, widths)).rstrip() for row in cells]


def _html_row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
