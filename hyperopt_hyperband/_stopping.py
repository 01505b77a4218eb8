"""When to stop, counted in whole Hyperband iterations."""

from __future__ import annotations

from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._evaluations import evaluations, incumbent_of
from hyperopt_hyperband._history import completed_iterations
from hyperopt_hyperband._saving import EarlyStop


@shows_its_call
def no_progress(*, iterations: int = 1) -> EarlyStop:
    """Stop when whole Hyperband iterations have not improved the incumbent.

    Pass it to fmin as `early_stop_fn`. Hyperopt's own `no_progress_loss` counts evaluations at any budget,
    most of which are cheap and can't compete, so that it stops within the first brackets. Here only what
    `hyperband.incumbent` calls better counts; a tie is no progress.

    Parameters
    ----------
    iterations : int, at least 1
        How many complete Hyperband iterations in a row may pass without a better incumbent. Where they have,
        fmin called again with the same trials stops after one evaluation more.

    Raises
    ------
    ValueError
        iterations is not a whole number of 1 or more.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"iterations={iterations!r}: pass a whole number, 1 or more")

    def stop(trials: Trials, seen: int = 0, *_: Any) -> tuple[bool, list[int]]:
        completed = completed_iterations(trials)
        if completed == seen:
            return False, [seen]
        return completed - _improved(trials) > iterations, [completed]

    return stop


def _improved(trials: Trials) -> int:
    """The Hyperband iteration that found the incumbent; -1 where none did, or another run."""
    best = incumbent_of(evaluations(trials))
    return best.place[0] if best is not None and best.place else -1
