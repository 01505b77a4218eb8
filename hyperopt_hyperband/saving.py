"""Trials in a file that survives a kill at any moment, the one of its own writing included."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperopt.base import Trials
from hyperopt.fmin import pickler

from hyperopt_hyperband.history import documents

EarlyStop = Callable[..., tuple[bool, Any]]


def save_trials(path: str | os.PathLike[str], early_stop_fn: EarlyStop | None = None) -> EarlyStop:
    """Save the trials after every evaluation; pass it to fmin as `early_stop_fn`.

    Hyperopt's own `trials_save_file` empties the file before it writes: a kill in between leaves nothing
    to load. Here a new file is written in full, then takes the old one's name.

    Parameters
    ----------
    path : str or path
        The file. It holds a pickled hyperopt.Trials, whatever the kind of trials that fmin works on.
    early_stop_fn : callable, optional
        The early_stop_fn that fmin would have been given.
    """
    target = Path(path)

    def save(trials: Trials, *args: Any) -> tuple[bool, Any]:
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as file:
            pickler.dump(_plain(trials), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        return early_stop_fn(trials, *args) if early_stop_fn else (False, args)

    return save


def load_trials(path: str | os.PathLike[str]) -> Trials:
    """The trials of a file that `save_trials` or fmin's trials_save_file has written, to go on with.

    New, empty trials where there is no such file. The file is a pickle: load none that you do not trust.
    On going on, give fmin another rstate than before: the same one draws the same points again.
    """
    if not Path(path).exists():
        return Trials()
    with Path(path).open("rb") as file:
        return pickler.load(file)


def _plain(trials: Trials) -> Trials:
    """A copy without threads, sessions and executors, which do not pickle."""
    plain = Trials(exp_key=trials._exp_key, refresh=False)
    plain._dynamic_trials = documents(trials)
    plain._ids = set(trials._ids)
    plain.attachments = {k: v for k, v in trials.attachments.items() if k != "FMinIter_Domain"}
    plain.refresh()
    return plain
