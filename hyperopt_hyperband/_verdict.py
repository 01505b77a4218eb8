"""Whether low budgets mislead, in words, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hyperopt_hyperband._correlation import Interval
from hyperopt_hyperband._schedule import Budget, Schedule, schedule, shown
from hyperopt_hyperband._tables import counted

MISLEADING, GOOD = 0.2, 0.5
"""Rank correlations below and above which a low budget misleads, or is a good guide. There is no verdict
where both are possible; benchmarks/verdict.py tells how often it is wrong."""
ENOUGH = 4
"""Configurations at both budgets from which on there is a verdict."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Whether a budget ranks configurations as the next one does.

    Attributes
    ----------
    low, high : neighbouring budgets
    configurations : those evaluated at both without failure, and drawn at random
    interval : the rank correlation of the losses, -1 to 1, over all that could be drawn, of which those that
        went up tell: its mean, and the ends between which it lies with 90 %; None where the losses at one
        budget are all equal
    """

    low: Budget
    high: Budget
    configurations: int
    interval: Interval | None

    @property
    def verdict(self) -> str:
        """The correlation in plain words."""
        if self.configurations < ENOUGH:
            return "too few to tell"
        if self.interval is None:
            return "the losses are all equal"
        mean, lower, upper = self.interval
        if lower <= MISLEADING and upper >= GOOD:
            return "too few to tell"
        if self.misleads:
            return "the low budget misleads"
        return "the low budget is a good guide" if mean >= GOOD else "the low budget is a weak guide"

    @property
    def misleads(self) -> bool:
        """Whether the low budget is no guide, and certainly not a good one."""
        if self.configurations < ENOUGH or self.interval is None:
            return False
        mean, _, upper = self.interval
        return mean < MISLEADING and upper < GOOD

    def __str__(self) -> str:
        told = self.interval is not None and self.configurations >= ENOUGH
        value = "{:.2f} ({:.2f} to {:.2f}) over ".format(*self.interval or ()) if told else ""
        return f"{value}{counted(self.configurations, 'configuration')}: {self.verdict}"


def advice(plan: Schedule, correlations: Sequence[Correlation]) -> str | None:
    """What to do where a low budget misleads; None where none does.

    Never a schedule of one bracket, which is random search.
    """
    misleading = [c for c in correlations if c.misleads]
    if not misleading:
        return None
    full, worst = plan.max_budget, misleading[-1]
    for highest, eta in ((worst.high, plan.eta), (full, 2)):
        raised = min(highest, _down(full / eta, whole=plan.integer))
        if raised > 1.01 * worst.low and len(brackets := schedule(raised, full, eta).brackets) > 1:
            lower = "" if eta == plan.eta else f" and lower eta to {eta}"
            low = f"each min_budget to {shown(raised)} of its max_budget"
            low = low if plan.shares_of else f"min_budget to {shown(raised)}"
            return f"raise {low}{lower}: {len(brackets)} brackets are left"
    return "search at max_budget alone, with tpe.suggest, or make another hyperparameter the budget"


def _down(budget: float, *, whole: bool) -> Budget:
    """The budget, or a little less, as it is shown."""
    if whole:
        return math.floor(budget)
    below = (float(shown(part)) for part in (budget, 0.999 * budget))
    return next(each for each in below if each <= budget * (1 + 1e-9))
