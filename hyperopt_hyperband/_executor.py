"""Trials whose evaluations run on any executor of concurrent.futures."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from hyperopt import base, progress, space_eval
from hyperopt.base import Domain

from hyperopt_hyperband._documents import (
    Document,
    attachments,
    is_done,
    is_suspect,
    outcome,
    stamp_of,
    tid_of,
)
from hyperopt_hyperband._lifecycle import begin, cut_short, fail, finish, suspect, unfinished
from hyperopt_hyperband._saving import save_trials
from hyperopt_hyperband._stamps import issued_again
from hyperopt_hyperband._trials import Algorithm, EarlyStop, Trials
from hyperopt_hyperband._worker import Answer, LoadError, Payload, PayloadRef, evaluate

logger = logging.getLogger("hyperopt_hyperband")

NO_GUARD = (
    "a spawned worker imports the script, so that has to be a file, and what makes the pool and calls fmin "
    'has to stand under if __name__ == "__main__"'
)


class ExecutorTrials(Trials):
    """Our Trials whose evaluations run on an executor, many at a time; pass them to fmin as `trials`.

        with ProcessPoolExecutor(8) as executor:
            fmin(objective, space, algo=..., max_evals=..., trials=ExecutorTrials(executor))

    For every algorithm, with all of fmin's options. The algorithm is asked for one evaluation whenever a
    worker is free, so that each draw knows those before it. The objective travels by cloudpickle where the
    executor pickles. There, `ctrl.trials` holds the evaluation's own document, with the attachments
    of this trial and of the configuration's evaluation at the rung below.

    max_queue_len - 1 evaluations wait in the executor until a worker is free. early_stop_fn is called after
    every evaluation, with trials that hold the finished ones in the order in which they finished.
    trials_save_file is written as by `hyperband.save_trials`.

    No evaluation is lost. Those under way when fmin ends (timeout, loss_threshold, early_stop_fn, Ctrl-C, an
    exception) are cancelled, and come first when fmin is called again with these trials. A worker can't
    be made to drop its evaluation: it goes on unheard, and the shutdown of the executor waits for it.
    Pickled trials leave the executor behind: set `trials.executor` to another one.

    Parameters
    ----------
    executor : concurrent.futures.Executor, optional
        A ProcessPoolExecutor, a ThreadPoolExecutor, Dask's `client.get_executor()`, mpi4py's
        MPIPoolExecutor, loky's. Who made it shuts it down.
    parallelism : int, at least 1, optional
        How many evaluations run at a time. Default: one for each worker, where the executor tells.
    trials : hyperopt.Trials, optional
        Trials of any kind to go on with, such as those of `hyperband.load_trials`.
    points_to_evaluate, keep_model : optional
        As in Trials.

    Raises
    ------
    ValueError
        In fmin: there is no executor, parallelism is unknown or no positive int, the objective or the space
        can't be pickled, or a spawned worker has called it, as it imports a script without
        `if __name__ == "__main__"`.
    concurrent.futures.BrokenExecutor
        In fmin: the executor takes no more work, because a worker has died or it is shut down. Set
        `trials.executor` to a new one and call fmin again. What was under way when a worker died runs
        first then, one at a time; where that breaks the executor again, the evaluation has failed.
    """

    asynchronous = True
    executor: Executor | None = None
    parallelism: int | None = None

    def __init__(
        self,
        executor: Executor | None = None,
        *,
        parallelism: int | None = None,
        trials: base.Trials | None = None,
        points_to_evaluate: Sequence[Any] | None = None,
        keep_model: bool = False,
    ) -> None:
        super().__init__(trials=trials, points_to_evaluate=points_to_evaluate, keep_model=keep_model)
        self.executor = executor
        self.parallelism = parallelism

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "executor"}

    def _minimize(
        self,
        fn: Callable[..., Any],
        space: Any,
        *,
        algo: Algorithm,
        max_evals: int | None,
        timeout: float | None,
        verbose: bool,
        show_progressbar: bool | Callable[..., Any],
        early_stop_fn: EarlyStop | None,
        max_queue_len: int = 1,
        rstate: np.random.Generator | None = None,
        pass_expr_memo_ctrl: bool | None = None,
        catch_eval_exceptions: bool = False,
        return_argmin: bool = True,
        trials_save_file: str = "",
    ) -> Any:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise ValueError(f"a worker has called fmin: {NO_GUARD}")
        if not isinstance(self.executor, Executor):
            raise ValueError(
                f"executor={self.executor!r}: set trials.executor to one of concurrent.futures, such as "
                "ProcessPoolExecutor(4); a Dask client gives one by client.get_executor()"
            )
        room = _workers(self.executor, self.parallelism) + max(max_queue_len, 1) - 1
        max_evals = sys.maxsize if max_evals is None else max_evals
        rstate = np.random.default_rng() if rstate is None else rstate
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if trials_save_file:
            early_stop_fn = save_trials(trials_save_file, early_stop_fn)

        domain = Domain(fn, space, pass_expr_memo_ctrl=pass_expr_memo_ctrl)
        running = _Running(self, self.executor, _pack(domain, self.executor))
        waiting = deque(unfinished(self, but=issued_again(self)))
        suspects = sum(map(is_suspect, waiting))
        unasked = max_evals - len(self)
        done = self.view(self._exp_key)
        finished = [document for document in self.trials if is_done(document)]
        best = min(map(_ranked, finished), default=math.inf)
        started = 0
        stop = False
        stop_args: Any = []
        show = show_progressbar if verbose and callable(show_progressbar) else progress.no_progress_callback
        with show(initial=len(finished), total=max_evals) as bar:
            try:
                while not stop:
                    while len(running) < (1 if suspects > 0 else room) and time.monotonic() < deadline:
                        if not waiting and unasked > 0:
                            waiting.extend(self._suggest(algo, domain, rstate))
                            unasked = unasked - len(waiting) if waiting else 0
                        if not waiting:
                            break
                        running.start(waiting.popleft(), whole=started < room)
                        started += 1
                    if (ended := running.next(deadline)) is None:
                        break
                    document, error = ended
                    suspects -= 1
                    if error is None:
                        finished.append(document)
                        best = min(best, _ranked(document))
                        bar.postfix = f"best loss: {best}"
                        bar.update(1)
                    else:
                        logger.error("trial %s failed: %r", tid_of(document), error)
                        if not catch_eval_exceptions:
                            raise error
                        self.refresh()
                    if early_stop_fn is not None:
                        done._trials = finished  # each time: it may have called refresh()
                        stop, stop_args = early_stop_fn(done, *stop_args)
            finally:
                running.stop()
                self.refresh()
        if return_argmin:
            if not self.trials:
                raise Exception("There are no evaluation tasks, cannot return argmin of task losses.")
            return self.argmin
        return space_eval(space, self.argmin) if self.trials else None

    def _suggest(self, algo: Algorithm, domain: Domain, rstate: np.random.Generator) -> list[Document]:
        before = len(self._dynamic_trials)
        new = algo(self.new_trial_ids(1), domain, self, rstate.integers(2**31 - 1))
        self._ids.update(self.insert_trial_docs(new))
        inserted: list[Document] = self._dynamic_trials[before:]
        self._trials.extend(inserted)  # refresh() would read every document
        return inserted


@dataclass
class _Running:
    """The evaluations under way on an executor."""

    trials: Trials
    executor: Executor
    domain: Payload
    documents: dict[Future[Payload | None], Document] = field(default_factory=dict)
    ended: SimpleQueue[Future[Payload | None]] = field(default_factory=SimpleQueue)
    broken: BrokenExecutor | None = None
    answered: bool = False

    def __post_init__(self) -> None:
        self.reference = PayloadRef(self.domain)

    def __len__(self) -> int:
        return len(self.documents)

    def start(self, document: Document, *, whole: bool) -> None:
        """Hand an evaluation to the executor, with the whole domain or a reference to it."""
        begin(document)
        # A copy: in a thread, an evaluation that was given up can still write into it.
        task = Payload((dict(document), attachments(self.trials, *_readable(document))))
        if self.domain.blob:
            task.packed()
        try:
            future = self.executor.submit(evaluate, self.domain if whole else self.reference, task)
        except Exception as error:
            raise self._unfit(error) from error
        self.documents[future] = document
        future.add_done_callback(self.ended.put)

    def next(self, deadline: float) -> tuple[Document, Exception | None] | None:
        """Wait for an evaluation to end: its document and its error; None where all have, or time is up."""
        while self.documents:
            try:
                left = None if deadline == math.inf else max(0, deadline - time.monotonic())
                future = self.ended.get(timeout=left)
            except Empty:
                return None
            try:
                payload = future.result()
                self.answered = True
                answer = None if payload is None else payload.open()
            except (BrokenExecutor, CancelledError, LoadError) as error:
                raise self._unfit(error) from error
            except Exception as error:
                answer = Answer(error=error)
            if answer is None:  # its worker has not opened the domain yet
                self.start(self.documents.pop(future), whole=True)
                continue
            document = self.documents[future]
            self._write(document, answer)
            del self.documents[future]  # last, so that Ctrl-C leaves it to stop()
            return document, answer.error
        return None

    def stop(self) -> None:
        """Take in what has ended, and give up the rest."""
        for future, document in self.documents.items():
            if not future.cancel() and future.done() and future.exception() is None:
                with contextlib.suppress(Exception):
                    if (payload := future.result()) is not None:
                        self._write(document, payload.open())
                        continue
            if self.broken:
                fail(document, self.broken) if is_suspect(document) else suspect(document)
        cut_short(self.trials)
        if self.broken and isinstance(self.executor, ProcessPoolExecutor):
            # Before 3.12, a pool overlooks the worker that starts as it breaks, and waits for it for ever.
            for process in list((self.executor._processes or {}).values()):
                process.terminate()

    def _write(self, document: Document, answer: Answer) -> None:
        self.trials.attachments.update(answer.attached)
        for name in answer.deleted:
            self.trials.attachments.pop(name, None)
        if answer.error is not None:
            fail(document, answer.error)
        elif answer.result is not None:
            finish(document, answer.result)

    def _unfit(self, error: Exception) -> Exception:
        """What to tell the user where the executor can't do the work."""
        if isinstance(error, BrokenExecutor):
            self.broken = error
        tids = sorted(map(tid_of, self.documents.values()))
        unstarted = self.broken and not self.answered and _spawns(self.executor)
        return BrokenExecutor(
            f"the executor can't go on ({type(error).__name__}: {error}), with trials {tids} under way. "
            "No result is lost: set trials.executor to a new one, and call fmin again with these trials"
            + (f". No worker has finished anything: mind that {NO_GUARD}" if unstarted else "")
        )


def _readable(document: Document) -> list[Hashable]:
    """The evaluations whose attachments this one may read: itself, and that of the rung below."""
    below = (stamp_of(document) or {}).get("below")
    return [tid_of(document), *([] if below is None else [below])]


def _ranked(document: Document) -> float:
    loss = outcome(document)
    return math.inf if loss is None else loss


def _pack(domain: Domain, executor: Executor) -> Payload:
    """Pickle before the executor does: a process pool may never shut down once that has failed in it."""
    payload = Payload(domain)
    if not isinstance(executor, ThreadPoolExecutor):
        try:
            payload.packed()
        except Exception as error:
            raise ValueError(
                f"the objective or the space can't be pickled ({type(error).__name__}: {error}): make in the "
                "objective what it needs there, or evaluate in threads, with a ThreadPoolExecutor"
            ) from error
    return payload


def _spawns(executor: Executor) -> bool:
    """Whether it is a process pool whose workers import the script."""
    if not isinstance(executor, ProcessPoolExecutor):
        return False
    return (executor._mp_context or multiprocessing).get_start_method() != "fork"


def _workers(executor: Executor, parallelism: int | None) -> int:
    if parallelism is None:
        parallelism = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
    if not isinstance(parallelism, int) or isinstance(parallelism, bool) or parallelism < 1:
        raise ValueError(
            f"parallelism={parallelism!r}: pass how many evaluations may run at a time, 1 or more"
        )
    return parallelism
