"""Hyperopt's documents without fmin: a script asks suggest for them, and says itself what became of each."""

from __future__ import annotations

from typing import Any

from hyperopt import STATUS_OK, Trials
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_RUNNING

Document = dict[str, Any]


def trials_over(documents: list[Document], *, asynchronous: bool) -> Trials:
    """Trials of these documents and of those that the list will hold later.

    All are valid, so that no refresh is needed, which takes longer the more there are.
    asynchronous: what is RUNNING is at work somewhere; else it was interrupted.
    """
    trials = Trials()
    trials.asynchronous = asynchronous
    trials._dynamic_trials = trials._trials = documents
    return trials


def begin(document: Document) -> None:
    document["state"] = JOB_STATE_RUNNING


def finish(document: Document, loss: float) -> None:
    document["state"], document["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": loss}
