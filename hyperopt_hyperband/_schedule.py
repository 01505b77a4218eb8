"""Hyperband's schedule: brackets, rungs, their sizes and budgets (Li et al., JMLR 18, 2018, Algorithm 1)."""

from __future__ import annotations

import functools
import heapq
import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from hyperopt_hyperband import _tables

Budget = int | float

SMALLEST, LARGEST = 1e-18, 1e18
"""The numbers that are taken: no power of eta overflows, and whole ones still fit into BSON."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One budget level of a bracket: how many configurations it evaluates, and at what budget."""

    configurations: int
    budget: Budget

    def __str__(self) -> str:
        return f"{self.configurations} x {shown(self.budget)}"


@dataclass(frozen=True, slots=True)
class Bracket:
    """One run of successive halving; s is the number of promotions that its winner goes through."""

    s: int
    rungs: tuple[Rung, ...]

    @property
    def evaluations(self) -> int:
        """Evaluations over all rungs."""
        return sum(rung.configurations for rung in self.rungs)

    @property
    def total_budget(self) -> Budget:
        """The sum of evaluated budgets, every promotion trained from scratch."""
        return sum(rung.configurations * rung.budget for rung in self.rungs)

    @property
    def total_budget_continued(self) -> Budget:
        """The sum of trained budgets where a promotion takes up what the rung below has trained."""
        below = (0, *(rung.budget for rung in self.rungs))
        return sum(
            rung.configurations * (rung.budget - reached)
            for rung, reached in zip(self.rungs, below, strict=False)
        )


@dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """One Hyperband iteration; printed, and shown in a notebook, a table: brackets across, rungs down.

    `brackets` stand in the order in which they run, s counting down to 0. Where a space has several budgets,
    those of the rungs are shares of the full one, max_budget is 1, and `shares_of` has the label, the
    min_budget and the max_budget of each.
    """

    min_budget: Budget
    max_budget: Budget
    eta: Budget
    brackets: tuple[Bracket, ...]
    shares_of: tuple[tuple[str, Budget, Budget], ...] = ()

    def bracket(self, s: int) -> Bracket:
        """The bracket of the paper's s."""
        return self.brackets[-1 - s]

    @property
    def options(self) -> str:
        """What it was planned with, in words."""
        bounds = f"{shown(self.min_budget)} to {shown(self.max_budget)}"
        names = " and ".join(
            f"{label} ({shown(low)} to {shown(high)})" for label, low, high in self.shares_of
        )
        return f"{f'shares {bounds} of {names}' if names else f'budgets {bounds}'}, eta {self.eta:g}"

    @property
    def integer(self) -> bool:
        """Whether budgets are whole numbers."""
        return isinstance(self.min_budget, int) and isinstance(self.max_budget, int)

    @property
    def configurations(self) -> int:
        """Configurations drawn."""
        return sum(bracket.rungs[0].configurations for bracket in self.brackets)

    @property
    def evaluations(self) -> int:
        """Evaluations over all brackets: the most that one Hyperband iteration takes."""
        return sum(bracket.evaluations for bracket in self.brackets)

    @property
    def total_budget(self) -> Budget:
        """The sum of evaluated budgets, every promotion trained from scratch."""
        return sum(bracket.total_budget for bracket in self.brackets)

    @property
    def total_budget_continued(self) -> Budget:
        """The sum of trained budgets where a promotion takes up what the rung below has trained."""
        return sum(bracket.total_budget_continued for bracket in self.brackets)

    def duration(
        self, seconds_at_full_budget: float, workers: int = 1, *, continued: bool = False
    ) -> timedelta:
        """How long one Hyperband iteration takes if an evaluation's time is proportional to its budget.

        Plays the schedule through on the workers as `suggest` would hand it out: a worker that comes free
        takes a promotion that no unfinished evaluation can change any more, or else opens the next bracket.
        Without failures, and without the time that workers wait for fmin.

        Parameters
        ----------
        seconds_at_full_budget : int or float, positive
            What one evaluation takes at max_budget.
        workers : int, at least 1
            Evaluations that run at a time.
        continued : bool
            A promotion takes up what the rung below has trained. Default: it trains from scratch.

        Raises
        ------
        ValueError
            An option out of its range.
        """
        seconds = positive("seconds_at_full_budget", seconds_at_full_budget)
        workers = whole("workers", workers)
        return timedelta(seconds=seconds / self.max_budget * _makespan(self.brackets, workers, continued))

    def __repr__(self) -> str:
        parts = {"bracket": len(self.brackets), "evaluation": self.evaluations}
        counts = ", ".join(_tables.counted(number, noun) for noun, number in parts.items())
        return f"<Schedule: {self.options}, {counts}>"

    def __str__(self) -> str:
        return "\n".join([self._title(), *_tables.text(*self._table()), *self._totals()])

    def _repr_html_(self) -> str:
        return _tables.markup(self._title(), *self._table()) + f"<p>{' '.join(self._totals())}</p>"

    def _title(self) -> str:
        return f"Hyperband, {self.options}: configurations x {'share' if self.shares_of else 'budget'}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for index in range(len(self.brackets)):
            row = [bracket.rungs[index : index + 1] for bracket in self.brackets]
            rows.append([str(index), *("".join(map(str, rungs)) for rungs in row)])
        return ["rung", *(f"s = {bracket.s}" for bracket in self.brackets)], rows

    def _totals(self) -> list[str]:
        return [
            f"one iteration: at most {self.evaluations} evaluations of {self.configurations} configurations,",
            f"total budget {multiples(self.total_budget, self.max_budget)}; "
            f"with continued training {multiples(self.total_budget_continued, self.max_budget)}",
        ]


def schedule(
    min_budget: Budget, max_budget: Budget, eta: Budget = 3, *, step: Budget | None = None
) -> Schedule:
    """Plan one Hyperband iteration; the public `hyperband.schedule`, of `_budget`, documents the options."""
    min_budget = positive("min_budget", min_budget)
    max_budget = positive("max_budget", max_budget)
    eta = positive("eta", eta)
    if eta < 2:
        raise ValueError(f"eta={eta}: a rung keeps 1/eta of its configurations; pass 2 or more (default 3)")
    if min_budget > max_budget:
        raise ValueError(
            f"min_budget={min_budget} is above max_budget={max_budget}: pass {max_budget} or less"
        )
    if step is not None:
        step = positive("step", step)
        if step > min_budget:
            raise ValueError(f"step={step} is above min_budget={min_budget}: pass {min_budget} or less")
    if isinstance(eta, float) and eta.is_integer():
        eta = int(eta)
    return _plan(min_budget, max_budget, eta, step)


def lower_maxima(plan: Schedule) -> Iterator[Schedule]:
    """The same with a smaller max_budget, a power of eta times min_budget: the largest first, down to eta."""
    for s in range(plan.brackets[0].s, 0, -1):
        max_budget = plan.min_budget * plan.eta**s
        max_budget = math.ceil(max_budget) if plan.integer else float(f"{max_budget:.10g}")
        if max_budget < plan.max_budget:
            yield schedule(plan.min_budget, max_budget, plan.eta)


def higher_minima(plan: Schedule) -> Iterator[Schedule]:
    """The same with a larger min_budget, which drops the brackets that start lowest, down to two brackets."""
    for s in range(plan.brackets[0].s - 1, 0, -1):
        min_budget = plan.max_budget / plan.eta**s
        min_budget = _floor(min_budget, 1) if plan.integer else float(f"{min_budget:.10g}")
        yield schedule(min_budget, plan.max_budget, plan.eta)


@functools.lru_cache(typed=True)
def _plan(min_budget: Budget, max_budget: Budget, eta: Budget, step: Budget | None) -> Schedule:
    exact = isinstance(min_budget, int) and isinstance(max_budget, int)
    if exact and step is None:
        step = 1
    # Algorithm 1, line 1, by multiplication: log(243) / log(3) is below 5. Floats such as 0.1 * 3**4 miss
    # 8.1 by a rounding error.
    limit = max_budget if exact else max_budget * (1 + 1e-9)
    s_max = 0
    while min_budget * eta ** (s_max + 1) <= limit:
        s_max += 1
    brackets = tuple(_bracket(s, s_max, max_budget, eta, step) for s in range(s_max, -1, -1))
    return Schedule(min_budget, max_budget, eta, brackets)


def _bracket(s: int, s_max: int, max_budget: Budget, eta: Budget, step: Budget | None) -> Bracket:
    configurations = _ceil((s_max + 1) * eta**s, s + 1)  # Algorithm 1, line 3
    return Bracket(
        s,
        tuple(
            Rung(
                _floor(configurations, eta**i),  # line 6
                max_budget if i == s else _rounded(max_budget / eta ** (s - i), step),  # line 7
            )
            for i in range(s + 1)
        ),
    )


def _makespan(brackets: tuple[Bracket, ...], workers: int, continued: bool) -> float:
    """The time to work off the brackets where a budget of 1 takes a time of 1."""
    started = [[0] * len(bracket.rungs) for bracket in brackets]
    finished = [[0] * len(bracket.rungs) for bracket in brackets]

    def startable() -> tuple[int, int] | None:
        for b, bracket in enumerate(brackets):
            if started[b][0] < bracket.rungs[0].configurations:
                return b, 0
            for i in range(bracket.s, 0, -1):
                unfinished = bracket.rungs[i - 1].configurations - finished[b][i - 1]
                if started[b][i] < bracket.rungs[i].configurations - unfinished:
                    return b, i
        return None

    now = 0.0
    running: list[tuple[float, int, int]] = []
    while True:
        while len(running) < workers and (place := startable()):
            b, i = place
            rungs = brackets[b].rungs
            started[b][i] += 1
            trained = rungs[i - 1].budget if continued and i > 0 else 0
            heapq.heappush(running, (now + rungs[i].budget - trained, b, i))
        if not running:
            return now
        now, b, i = heapq.heappop(running)
        finished[b][i] += 1


def _floor(numerator: Budget, denominator: Budget) -> int:
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    return math.floor(numerator / denominator * (1 + 1e-12))


def _ceil(numerator: Budget, denominator: int) -> int:
    if isinstance(numerator, int):
        return -(-numerator // denominator)
    return math.ceil(numerator / denominator * (1 - 1e-12))


def _rounded(budget: float, step: Budget | None) -> Budget:
    return budget if step is None else round(budget / step) * step


def positive_number(value: object) -> Budget | None:
    """A positive, finite number as Python has it; None for anything else."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        if SMALLEST <= number <= LARGEST:
            return number
    return None


def positive(name: str, value: object) -> Budget:
    """The option as a number, or a ValueError that names it."""
    number = positive_number(value)
    if number is None:
        raise ValueError(
            f"{name}={value!r}: pass a positive, finite number, from {SMALLEST:g} to {LARGEST:g}"
        )
    return number


def whole(name: str, value: object) -> int:
    """The option as an int of 1 or more, or a ValueError that names it."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: pass a whole number, 1 or more")
    return int(value)


def multiples(total: Budget, max_budget: Budget) -> str:
    """A total budget as text, also in multiples of max_budget; of shares, in these alone."""
    times = f"{total / max_budget:.3g} x max_budget"
    return times if max_budget == 1 else f"{total:.10g} ({times})"


def shown(budget: Budget) -> str:
    """A budget as text, the same wherever it is read: a whole number in full, any other in four digits."""
    whole = budget == round(budget) and budget < LARGEST
    return str(round(budget)) if whole else f"{budget:.4g}"
