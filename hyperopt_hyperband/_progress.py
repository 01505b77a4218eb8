"""The progress bar, which counts budget."""

from __future__ import annotations

import sys
import time
from collections.abc import Sized
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hyperopt import progress
from hyperopt.base import Trials
from hyperopt.progress import std_out_err_redirect_tqdm, tqdm

from hyperopt_hyperband._documents import documents, is_cut_short
from hyperopt_hyperband._evaluations import evaluations, incumbent_of
from hyperopt_hyperband._history import read
from hyperopt_hyperband._schedule import Budget, Schedule, shown
from hyperopt_hyperband._stamps import newest_schedule

BAR = "budget {n:.10g}/{total:.10g} |{bar}| {elapsed}<{remaining}{postfix}"
"""Without a percentage and a rate, so that 80 columns hold the rest, the least important last."""
ENDLESS = "budget {n:.10g} {elapsed}{postfix}"
"""Where max_evals is not given."""

INTERVAL = 0.1
"""The least time between two drawings, in seconds."""
SHARE = 0.05
"""The most of the time that drawing may take."""


@dataclass
class Bar:
    """A bar of the budget spent, out of what fmin will have spent; without Hyperband, Hyperopt's own bar.

    Which of the two is known with the first suggestion: until then, nothing shows.

    Attributes
    ----------
    stack : where the bar is closed
    initial, total : what fmin passes: evaluations done, and max_evals
    postfix : what fmin writes: the lowest loss at any budget
    """

    trials: Trials
    stack: ExitStack
    initial: int
    total: int
    postfix: str = ""

    def __post_init__(self) -> None:
        self._shown: Any = None
        self._due = 0.0
        # How many documents there will be at the end. Those of errors do not count towards max_evals.
        self._last = len(documents(self.trials)) - len(self.trials) + self.total

    def open(self, plan: Schedule | None, points: Sized = ()) -> None:
        """Show the bar of a schedule; points are what is suggested first, at max_budget."""
        self._plan, self._points = plan, points
        if plan is None:
            own = progress.default_callback(initial=self.initial, total=self.total)
            self._shown = self.stack.enter_context(own)
            return
        out = self.stack.enter_context(std_out_err_redirect_tqdm())
        endless = self.total >= sys.maxsize
        done, total, text = self._read(plan)
        # The rate is that of all budget since the start: cheap evaluations come first.
        self._shown = self.stack.enter_context(
            tqdm(
                initial=done,
                total=None if endless else total,
                postfix=text,
                bar_format=ENDLESS if endless else BAR,
                file=out,
                disable=False,
                dynamic_ncols=True,
                smoothing=0,
            )
        )

    def update(self, n: int) -> None:
        """What fmin calls with the number of evaluations that have finished."""
        if self._shown is None:
            self.open(newest_schedule(self.trials))
        if self._plan is None:
            self._shown.postfix = self.postfix or self._shown.postfix
            self._shown.update(n)
        elif (start := time.monotonic()) >= self._due:
            self._draw(self._plan)
            took = time.monotonic() - start
            self._due = start + max(INTERVAL, took / SHARE)

    def finish(self) -> None:
        """Show the state in which a run has ended."""
        if self._shown is None:
            self.open(newest_schedule(self.trials))
        elif self._plan is not None:
            self._draw(self._plan)

    def _draw(self, plan: Schedule) -> None:
        self._shown.n, total, text = self._read(plan)
        if self._shown.total is not None:
            self._shown.total = total
        self._shown.set_postfix_str(text, refresh=False)
        self._shown.refresh()

    def _read(self, plan: Schedule) -> tuple[Budget, Budget, str]:
        """The budget spent, that of the whole run, and what there is to say.

        What the run will spend is planned anew each time: failures and small spaces change it.
        """
        everything = evaluations(self.trials, schedule=plan)
        done: Budget = 0
        under_way: Budget = 0
        for e, document in zip(everything, documents(self.trials), strict=True):
            if e.status == "pending" or is_cut_short(document):  # the latter will be done on going on
                under_way += e.budget or 0
            else:
                done += e.spent
        left = max(0, self._last - len(everything))
        points = min(left, len(self._points))
        ahead = points * plan.max_budget + read(self.trials, plan).ahead(left - points)
        best = incumbent_of(everything)
        text = "best ?" if best is None else f"best {best.loss:.4g} at {shown(best.known_at or 0)}"
        if place := next((e.place for e in reversed(everything) if e.place), None):
            text += f", iteration {place[0]}, bracket {place[1]}"
        return rounded(done), rounded(done + under_way + ahead), text


def rounded(total: Budget) -> Budget:
    """A whole number in full, any other in six digits: sums of shares end in rounding errors."""
    return total if total == round(total) else float(f"{total:.6g}")
