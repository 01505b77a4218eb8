"""Trials in a file that survives a kill at any moment, the one of its own writing included."""

from __future__ import annotations

import os
import pickle
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperopt.base import Trials
from hyperopt.fmin import pickler

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._documents import copy_of

EarlyStop = Callable[..., tuple[bool, Any]]


@shows_its_call
def save_trials(path: str | os.PathLike[str], early_stop_fn: EarlyStop | None = None) -> EarlyStop:
    """Save the trials after every evaluation; pass it to fmin as `early_stop_fn`.

    Hyperopt's own `trials_save_file` empties the file before it writes: a kill in between leaves nothing
    to load. Here a new file is written in full, then takes the old one's name. With a max_queue_len above 1,
    fmin evaluates so many in a row before it saves, by either way.

    Parameters
    ----------
    path : str or path
        The file. It holds a pickled hyperopt.Trials, whatever the kind of trials that fmin works on.
    early_stop_fn : callable, optional
        The early_stop_fn that fmin would have been given.

    Raises
    ------
    ValueError
        There is no such folder, or the path is that of a folder, or none; or early_stop_fn can't be called.
    """
    target = _file(path)
    if not target.parent.is_dir():
        raise ValueError(f"path={str(path)!r}: pass a file in a folder that exists")
    if early_stop_fn is not None and not callable(early_stop_fn):
        raise ValueError(f"early_stop_fn={early_stop_fn!r}: pass a function, such as no_progress()")

    def save(trials: Trials, *args: Any) -> tuple[bool, Any]:
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as file:
            pickler.dump(copy_of(trials), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        return early_stop_fn(trials, *args) if early_stop_fn else (False, args)

    return save


@shows_its_call
def load_trials(path: str | os.PathLike[str]) -> Trials:
    """The trials of a file that `save_trials` or fmin's trials_save_file has written, to go on with.

    New, empty trials where there is no such file. The file is a pickle: load none that you do not trust.
    On going on, give fmin another rstate than before: the same one draws the same points again.

    Raises
    ------
    ValueError
        The file is not whole, as a kill inside fmin's trials_save_file leaves it, or holds no trials; or the
        path is that of a folder, or none.
    """
    source = _file(path)
    if not source.exists():
        return Trials()
    with source.open("rb") as file:
        try:
            trials = pickler.load(file)
        except (EOFError, pickle.UnpicklingError):
            trials = None
    if not isinstance(trials, Trials):
        raise ValueError(
            f"path={str(path)!r} holds no trials, or not all of them: remove it to start anew, and save with "
            "save_trials, which leaves no such file"
        )
    return trials


def _file(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"path={reprlib.repr(path)}: pass the path of a file, a str or Path; "
            "early_stop_fn=save_trials(path) saves the trials that fmin works on"
        )
    if Path(path).is_dir():
        raise ValueError(f"path={str(path)!r}: pass a file in a folder that exists")
    return Path(path)
