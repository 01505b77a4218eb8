"""When to stop: after whole Hyperband iterations, without progress, or when time is up."""

from __future__ import annotations

import math
import time
from statistics import median
from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._documents import documents, in_shares, is_new, level_of, outcome, stamp_of, times_of
from hyperopt_hyperband._evaluations import evaluations, incumbent_of
from hyperopt_hyperband._history import completed_iterations, read
from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._schedule import Budget, positive, whole
from hyperopt_hyperband._stamps import newest_schedule, turn_of
from hyperopt_hyperband._trials import EarlyStop, or_never


@shows_its_call
def stop_after(
    *,
    iterations: int | None = None,
    total_budget: Budget | None = None,
    seconds: float | None = None,
    early_stop_fn: EarlyStop | None = None,
) -> EarlyStop:
    """Stop after whole Hyperband iterations, a total budget, or a time; pass it to fmin as `early_stop_fn`.

        fmin(objective, space, algo=hyperband.suggest, early_stop_fn=hyperband.stop_after(iterations=1))

    max_evals may then be left out. One worker evaluates what `hyperband.schedule` plans for an iteration;
    less where results are final, and one evaluation more where the space has too few configurations to fill
    the last bracket. With many workers, or a max_queue_len above 1, the next iteration begins while this one
    waits. What is under way at the end, ExecutorTrials cancels, and begins with when fmin is called again;
    other backends wait for it.

    Parameters
    ----------
    iterations : int, at least 1, optional
        How many complete Hyperband iterations the trials are to hold. As with max_evals, those of earlier
        calls of fmin count; where they are enough, fmin stops after one evaluation more. Other algorithms
        have no iterations: they go on until seconds or max_evals end the run. Under `bohb.suggest`, which
        chooses its brackets, as many of them as a Hyperband iteration has count as one.
    total_budget : int or float, positive, optional
        The run ends with the evaluation that brings the trials' total budget to this: the sum over finished
        evaluations, each trained from scratch, as `hyperband.report` has it. In the unit of the budget; where
        the space has several, in multiples of the full one. Foreign trials, such as another algorithm's, do
        not count.
    seconds : int or float, positive, optional
        The time left, counted from this call of stop_after. The next evaluation begins only where it can end
        in time: by the median time of those that have succeeded at its budget, or else by that at the nearest
        budget, in proportion. The first evaluation always begins. Under other algorithms the median of all
        counts. (fmin's own `timeout` begins an evaluation as long as any time is left.)
    early_stop_fn : callable, optional
        Another reason to stop, such as `hyperband.no_progress()`.

    Raises
    ------
    ValueError
        None of iterations, total_budget and seconds is given, or one is out of its range.
    """
    if iterations is None and total_budget is None and seconds is None:
        raise ValueError("stop_after needs an end: pass iterations=1 or more, total_budget or seconds")
    most = math.inf if iterations is None else whole("iterations", iterations)
    limit = math.inf if total_budget is None else positive("total_budget", total_budget)
    deadline = math.inf if seconds is None else time.monotonic() + positive("seconds", seconds)

    other = or_never(early_stop_fn)

    def stop(trials: Trials, *args: Any) -> tuple[bool, Any]:
        stopped, args = other(trials, *args)
        complete = completed_iterations(trials) >= most
        spent = limit < math.inf and _total_budget(trials) >= limit * (1 - 1e-9)  # shares end in rounding
        late = deadline < math.inf and time.monotonic() + _expected_seconds(trials) > deadline
        return stopped or complete or spent or late, args

    return stop


@shows_its_call
def no_progress(*, iterations: int = 1) -> EarlyStop:
    """Stop when whole Hyperband iterations have not improved the incumbent.

    Pass it to fmin as `early_stop_fn`. Hyperopt's own `no_progress_loss` counts evaluations at any budget,
    most of which are cheap and can't compete, so that it stops within the first brackets. Here only what
    `hyperband.incumbent` calls better counts; a tie is no progress.

    Parameters
    ----------
    iterations : int, at least 1
        How many complete Hyperband iterations in a row may pass without a better incumbent, as
        `hyperband.stop_after` counts them. Default 1. Where they have, fmin called again with the same trials
        stops after one evaluation more.

    Raises
    ------
    ValueError
        iterations is not a whole number of 1 or more.
    """
    iterations = whole("iterations", iterations)

    def stop(trials: Trials, seen: int = 0, *_: Any) -> tuple[bool, list[int]]:
        completed = completed_iterations(trials)
        if completed == seen:
            return False, [seen]
        return completed - _improved(trials) > iterations, [completed]

    return stop


def _total_budget(trials: Trials) -> Budget:
    """The sum over the run's finished evaluations, each trained from scratch."""
    return sum(e.spent for e in evaluations(trials) if e.place)


def _improved(trials: Trials) -> int:
    """The Hyperband iteration that found the incumbent; -1 where none did, or another run."""
    everything, plan = evaluations(trials), newest_schedule(trials)
    best = incumbent_of(everything)
    if best is None or best.place is None or plan is None:
        return -1
    its = stamp_of(documents(trials)[everything.index(best)])
    return turn_of(its, plan) // len(plan.brackets) if its else -1


def _expected_seconds(trials: Trials) -> float:
    """What the next evaluation will take, by the times of those that have succeeded; 0 where none tells."""
    budget = _next_budget(trials)
    if budget is None and getattr(trials, "points_to_evaluate", None):
        return 0  # what comes after the points may be cheap
    seen: dict[Budget | None, list[float]] = {}
    plan = newest_schedule(trials)
    for document in documents(trials):
        if (its := stamp_of(document)) and plan and in_shares(its) != bool(plan.shares_of):
            continue  # of another unit
        begun, ended = times_of(document)
        value = outcome(document)
        if begun and ended and value is not None and value < FAILED:
            seen.setdefault(level_of(document), []).append((ended - begun).total_seconds())
    if budget in seen:
        return median(seen[budget])
    known = [other for other in seen if other is not None]
    if budget is None or not known:
        return 0
    nearest = min(known, key=lambda other: abs(math.log(budget / other)))
    return median(seen[nearest]) * budget / nearest


def _next_budget(trials: Trials) -> Budget | None:
    """The budget of the evaluation that comes next; None where it is not one of Hyperband's."""
    everything = documents(trials)
    following = next((document for document in everything if is_new(document)), None)
    if following is not None:
        return level_of(following)
    plan = newest_schedule(trials)
    if plan is None or stamp_of(everything[-1]) is None:  # another algorithm goes on, or points do
        return None
    return read(trials, plan).next_budget()
