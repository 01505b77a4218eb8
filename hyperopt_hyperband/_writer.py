"""A file that one process at a time writes, whole or not at all.

Each write makes a new file, which then takes the old one's name: a reader always finds a whole one. The lock
lies on a third file beside it, since its own is another file after every write. It is the operating system's,
and so ends with the process that has it, however that ends. It is flock's: a POSIX lock would go as soon as
anything in the process closes the lock file, such as a copy of the folder. But a forked child has its part in
flock's, such as the worker of a process pool, which outlives a killed driver: hence `_forget`.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import sys
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hyperopt_hyperband._warn import warn

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(2**30)  # where nobody reads: Windows forbids that too
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_locks: dict[Path, BinaryIO] = {}
"""The lock file of each file that this process may write."""
_newest: dict[Path, str] = {}
"""The writer of each file that was made last, by its key."""
_mutex = threading.RLock()  # re-entrant: the garbage collector may let go of a writer anywhere


class Writer:
    """Who may write a file: of all processes one, and in that process the writer that was made last.

    So it is until the writer is dropped, or the process ends. A copy in another process, forked or unpickled
    there, writes with the leave of the process that made it, and takes the lock once that has let go of it.

    Raises
    ------
    ValueError
        Another process has the file, or none can be made there.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.key = uuid.uuid4().hex
        self.maker = _this_process()
        with _mutex:
            _newest[target] = self.key  # first, so that an older one that ends now does not let go
            if target not in _locks:
                _take(target)
        weakref.finalize(self, _let_go, target, self.key)

    def write(self, dump: Callable[[BinaryIO], object]) -> None:
        """Write the file anew. Raises ValueError where it has come to be another's, OSError as files do."""
        with _mutex:
            if _newest.setdefault(self.target, self.key) != self.key:
                raise ValueError(
                    f"path={str(self.target)!r}: a later save_trials of this process writes this file now: "
                    "pass another file to one of the two searches, or call save_trials before each fmin"
                )
            if self.target not in _locks:
                _take(self.target, left_to=self.maker)
        partial = _partial(self.target, uuid.uuid4().hex)
        try:
            with partial.open("xb") as file:
                dump(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.target)
        finally:
            partial.unlink(missing_ok=True)


def _take(target: Path, left_to: str | None = None) -> None:
    """Take the lock, unless the process that it is left to has it."""
    path = target.with_name(target.name + ".lock")
    while True:
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise ValueError(
                f"path={str(target)!r}: no file can be made there ({error}): pass one in a folder that you "
                "may write to"
            ) from error
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                with file:
                    file.seek(0)
                    holder = file.read().decode()
                if holder == left_to:
                    return
                raise ValueError(
                    f"path={str(target)!r} is in use by {holder or 'another process'}: wait for its end, or "
                    "pass another file. (A notebook lets go where it drops what save_trials returned.)"
                ) from None
            warn(
                f"path={str(target)!r}: the file system has no locks ({error}), so nothing keeps another "
                "process from writing this file too"
            )
        else:
            if not _is_at(path, file):  # who had it has let go, and removed the file
                file.close()
                continue
            for left in target.parent.glob(_partial(Path(glob.escape(target.name)), "?" * 32).name):
                left.unlink(missing_ok=True)  # by a process that was killed
        file.truncate(0)
        file.write(_this_process().encode())
        _locks[target] = file
        return


def _let_go(target: Path, key: str) -> None:
    """Remove and close the lock file, unless a later writer goes on with it."""
    with _mutex:
        if _newest.get(target) == key:
            del _newest[target]
            if (file := _locks.pop(target, None)) is not None:
                with file, contextlib.suppress(OSError):  # Windows keeps a file that is open
                    target.with_name(target.name + ".lock").unlink()


def _forget() -> None:
    """In a forked child: leave the locks to its parent, of which a thread may have had the mutex."""
    global _mutex
    _mutex = threading.RLock()
    for file in _locks.values():
        file.close()
    _locks.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)


def _partial(target: Path, unique: str) -> Path:
    return target.with_name(f"{target.name}.{unique}.partial")


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}"
