"""Trials in a file that survives a kill at any moment, the one of its own writing included."""

from __future__ import annotations

import os
import pickle
import reprlib
from pathlib import Path
from typing import Any

from hyperopt import base
from hyperopt.base import JOB_STATE_RUNNING
from hyperopt.fmin import pickler

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._documents import copy_of
from hyperopt_hyperband._lifecycle import begin_again
from hyperopt_hyperband._stamps import issued_again
from hyperopt_hyperband._trials import EarlyStop, Trials, or_never
from hyperopt_hyperband._writer import Writer


@shows_its_call
def save_trials(path: str | os.PathLike[str], early_stop_fn: EarlyStop | None = None) -> EarlyStop:
    """Save the trials after every evaluation; pass it to fmin as `early_stop_fn`.

    Hyperopt's own `trials_save_file` empties the file before it writes: a kill in between leaves nothing
    to load. Here a new file is written in full, then takes the old one's name. With a max_queue_len above 1,
    fmin evaluates so many in a row before it saves, by either way.

    One process at a time writes the file: from this call until what it returns is dropped, or until the
    process ends, by a kill too. So call this first, then `load_trials`, which reads at any time. Within the
    process the latest call has the file: a notebook's cell can be run again, and a search in another thread
    that still saves there ends with a ValueError. On a network file system, this holds between machines as
    far as its locks do (flock's; NFS under Linux has them), and the lock of a machine that has crashed stays
    until the server misses it. Where a file system has no locks, one warning says so.

    Parameters
    ----------
    path : str or path
        The file. It holds a pickled hyperopt.Trials, whatever the kind of trials that fmin works on. The lock
        lies beside it, path.lock. Nobody need remove the one that a kill leaves there.
    early_stop_fn : callable, optional
        The early_stop_fn that fmin would have been given.

    Raises
    ------
    ValueError
        Another process has the file, there is no such folder, it can't be written to, or the path is that of
        something else than a file; or early_stop_fn can't be called. In fmin: a later call in this process
        has the file, or the trials are MongoTrials, which their server keeps.
    """
    other = or_never(early_stop_fn)
    target = _file(path).resolve()  # the same file still where the objective changes the working directory
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise ValueError(f"path={str(path)!r}: pass a file in a folder that exists")
    writer = Writer(target)

    def save(trials: base.Trials, *args: Any) -> tuple[bool, Any]:
        writer.write(lambda file: pickler.dump(copy_of(trials), file))
        return other(trials, *args)

    return save


@shows_its_call
def load_trials(path: str | os.PathLike[str]) -> Trials:
    """The trials of a file that `save_trials` or fmin's trials_save_file has written, to go on with.

    New, empty trials where there is no such file. Evaluations that were under way are new again: fmin begins
    with them, if its max_evals is above len(trials). The file is a pickle: load none that you do not trust.

    Raises
    ------
    ValueError
        The file can't be read, holds no trials, or is not whole, as a kill inside fmin's trials_save_file
        leaves it.
    """
    try:
        pickled = _file(path).read_bytes()
    except FileNotFoundError:
        return Trials()
    except OSError as error:
        raise ValueError(f"path={str(path)!r}: pass a file that can be read ({error})") from error
    try:
        trials = pickler.loads(pickled)
    except (EOFError, pickle.UnpicklingError):
        trials = None
    if not isinstance(trials, base.Trials):
        raise ValueError(
            f"path={str(path)!r} holds no trials, or not all of them: remove it to start anew, and save with "
            "save_trials, which leaves no such file"
        )
    begin_again(trials, but=issued_again(trials), states={JOB_STATE_RUNNING})
    return trials if isinstance(trials, Trials) else Trials(trials=trials)


def _file(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"path={reprlib.repr(path)}: pass the path of a file, a str or Path; "
            "early_stop_fn=save_trials(path) saves the trials that fmin works on"
        )
    if Path(path).is_dir():
        raise ValueError(f"path={str(path)!r}: pass a file in a folder that exists")
    return Path(path)
