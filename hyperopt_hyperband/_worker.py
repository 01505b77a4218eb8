"""What travels to a worker of an executor, and what runs there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hyperopt.base import Ctrl
from hyperopt.fmin import pickler

from hyperopt_hyperband._documents import Document, alone, hyperparameters_of


class Payload:
    """What goes to a worker and comes back: handed over as it is, or by cloudpickle where it is pickled."""

    # No dataclass, here and below: Dask would hash all its fields.
    def __init__(self, content: Any, blob: bytes = b"") -> None:
        self.content = content
        self.blob = blob

    def __reduce__(self) -> tuple[Any, ...]:
        return Payload, (None, self.packed())

    def packed(self) -> bytes:
        self.blob = self.blob or pickler.dumps(self.content)
        return self.blob

    def open(self) -> Any:
        return self.content if self.content is not None else pickler.loads(self.blob)

    def open_once(self) -> Any:
        """Open it where no earlier payload has been the same."""
        if self.content is None:
            key = _key(self.blob)
            known = _opened.get(key)
            self.content = self.open() if known is None else known
            _opened.clear()
            _opened[key] = self.content
        return self.content


class PayloadRef:
    """Stands for a payload with a worker that has opened it once."""

    def __init__(self, payload: Payload | None, key: bytes = b"") -> None:
        self.payload = payload
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        if self.payload is not None and not self.key:
            self.key = _key(self.payload.packed())
        return PayloadRef, (None, self.key)

    def open_once(self) -> Any:
        """None where the worker has not opened it."""
        return _opened.get(self.key) if self.payload is None else self.payload.content


_opened: dict[bytes, Any] = {}
"""In a worker: the domain that it has opened last."""


def _key(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


@dataclass
class Answer:
    """How an evaluation has ended, and what it has made of its attachments."""

    result: Document | None = None
    error: Exception | None = None
    attached: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.error is not None:
            state["error"] = _portable(self.error)
            state["trace"] = "".join(traceback.format_exception(self.error))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        trace = state.pop("trace", None)
        self.__dict__.update(state)
        if trace is not None:
            kind, args, attributes = state["error"]
            self.error = kind.__new__(kind, *args)
            with contextlib.suppress(TypeError):
                kind.__init__(self.error, *args)
            self.error.args = args
            self.error.__dict__.update(attributes)
            self.error.__cause__ = WorkerError(trace)


class WorkerError(Exception):
    """The traceback of an exception in its worker."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class LoadError(Exception):
    """A worker can't load the objective or the space."""


def evaluate(domain: Payload | PayloadRef, task: Payload) -> Payload | None:
    """In the worker: evaluate a document's hyperparameters, with trials that hold it alone.

    None where the worker has a mere reference to the domain, and has not opened it.
    """
    try:
        opened = domain.open_once()
    except Exception as error:
        raise LoadError(f"a worker can't load the objective: {error!r}") from error
    if opened is None:
        return None
    document, readable = task.open()
    trials = alone(document, readable)
    answer = Answer()
    try:
        with _ctrl_c():
            answer.result = opened.evaluate(hyperparameters_of(document), Ctrl(trials, document))
    except Exception as error:
        answer.error = error
    absent = object()
    after = trials.attachments
    answer.attached = {k: v for k, v in after.items() if v is not readable.get(k, absent)}
    answer.deleted = readable.keys() - after.keys()
    return Payload(answer)


@contextlib.contextmanager
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt a process pool's worker here alone: between evaluations, it may hold a lock."""
    if not _is_pool_worker(os.getpid()):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@functools.lru_cache(maxsize=1)
def _is_pool_worker(_pid: int) -> bool:
    """Whether this process is a worker that evaluates in its main thread and minds Ctrl-C."""
    return (
        multiprocessing.parent_process() is not None
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _portable(error: Exception) -> tuple[type[Exception], tuple[Any, ...], dict[str, Any]]:
    """The parts of an exception: some, such as Hyperopt's InvalidLoss, can be pickled but not unpickled."""
    parts = (type(error), error.args, vars(error))
    try:
        pickler.dumps(parts)
    except Exception:
        return RuntimeError, (f"{type(error).__name__}: {error}",), {}
    return parts
