"""What becomes of a document: made, stamped, begun, ended, taken back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any

from hyperopt.base import (
    JOB_STATE_CANCEL,
    JOB_STATE_DONE,
    JOB_STATE_ERROR,
    JOB_STATE_NEW,
    JOB_STATE_RUNNING,
    STATUS_NEW,
    Domain,
    Trials,
)
from hyperopt.utils import coarse_utcnow

from hyperopt_hyperband._documents import (
    Document,
    Vals,
    documents,
    everyones,
    hyperparameters_of,
    in_mongo,
    is_cut_short,
    is_suspect,
    newest_first,
    tid_of,
)
from hyperopt_hyperband._schedule import Budget

logger = logging.getLogger("hyperopt_hyperband")


def new_document(tid: Hashable, vals: Vals, domain: Domain, trials: Trials) -> Document:
    """A new evaluation of the hyperparameters in vals."""
    misc = {
        "tid": tid,
        "cmd": domain.cmd,
        "workdir": domain.workdir,
        "idxs": {label: [tid] if value else [] for label, value in vals.items()},
        "vals": vals,
    }
    [document] = trials.new_trial_docs([tid], [None], [domain.new_result()], [misc])
    return document  # type: ignore[no-any-return]


def unused(new_ids: Sequence[Hashable], trials: Trials, *, ascending: bool) -> Sequence[Hashable]:
    """The ids, or later ones where documents have them already.

    Hyperopt counts up from the number of ids that it knows, and a Trials built from documents does not
    know those of failed evaluations, nor how many have the same.

    ascending : the newest document is known to have the largest id
    """
    ids = [i for i in new_ids if isinstance(i, int)]
    if len(ids) < len(new_ids):
        return new_ids
    found = [everyones(trials)[next(newest_first(trials))]] if ascending else documents(trials)
    last = max((tid for document in found if isinstance(tid := document["tid"], int)), default=-1)
    return new_ids if min(ids) > last else range(last + 1, last + 1 + len(ids))


def numbered(new_ids: Sequence[Hashable], trials: Trials) -> Sequence[int]:
    """What tells new evaluations from earlier ones: their ids, or their positions where not all are ints.

    Hyperopt's own tests ask that ids such as "a" and 0.1 have no effect on what is drawn.
    """
    ids = [i for i in new_ids if isinstance(i, int)]
    first = len(everyones(trials))
    return ids if len(ids) == len(new_ids) else range(first, first + len(new_ids))


def write_stamp(document: Document, budget: Budget, stamp: dict[str, Any]) -> None:
    """Write down an evaluation's budget, and its place in the schedule."""
    document["misc"]["budget"] = budget
    document["misc"]["hyperband"] = stamp


def disown(trials: Trials, document: Document, *, outside: bool) -> None:
    """Write down that an evaluation is foreign to the run, whatever its stamp says; nobody is to begin it.

    outside : it lies outside the space that the run goes on with
    """
    foreign = "space" if outside else "run"
    document["misc"]["hyperband"]["foreign"] = foreign
    unbegun = document["state"] == JOB_STATE_NEW
    if unbegun:
        fail(document, ValueError("foreign to the run that goes on"))
    if in_mongo(trials):
        # A worker writes its result to the version that it knows: that stays, unless nobody has begun.
        itself = {"_id": document["_id"]}
        trials.handle.jobs.update_one(itself, {"$set": {"misc.hyperband.foreign": foreign}})
        if unbegun:
            ended = {
                "state": document["state"],
                "misc.error": document["misc"]["error"],
                "refresh_time": document["refresh_time"],
            }
            unless_begun = itself | {"state": JOB_STATE_NEW}
            trials.handle.jobs.update_one(unless_begun, {"$set": ended, "$inc": {"version": 1}})


def begin(document: Document, owner: str | None = None) -> None:
    """Mark an evaluation as running, for an owner where that is not fmin's own loop."""
    now = coarse_utcnow()
    document.update(state=JOB_STATE_RUNNING, book_time=now, refresh_time=now, owner=owner)


def finish(document: Document, result: Document) -> None:
    """Write down an evaluation's result."""
    document.update(state=JOB_STATE_DONE, result=result, refresh_time=coarse_utcnow())


def fail(document: Document, error: BaseException) -> None:
    """Write down what an evaluation has raised."""
    document["misc"]["error"] = (str(type(error)), str(error))
    document.update(state=JOB_STATE_ERROR, refresh_time=coarse_utcnow())


def give_up(document: Document) -> None:
    """Write down that an evaluation has failed, since the user has interrupted it twice."""
    fail(document, KeyboardInterrupt("interrupted twice"))
    config = hyperparameters_of(document)
    logger.warning("trial %s was interrupted twice and has failed: %s", tid_of(document), config)


def cut_short(trials: Trials) -> None:
    """Mark the running evaluations as cancelled, and cut short; `unfinished` brings them back."""
    for document in documents(trials):
        if document["state"] == JOB_STATE_RUNNING:
            document.update(state=JOB_STATE_CANCEL, refresh_time=coarse_utcnow())
            document["misc"]["cut_short"] = 1


def renew(document: Document) -> None:
    """Mark an evaluation as one that nobody has begun."""
    document.update(state=JOB_STATE_NEW, result={"status": STATUS_NEW}, owner=None)
    document["misc"].pop("cut_short", None)


def begin_again(trials: Trials, *, but: Iterable[Document] = (), states: Collection[int] = ()) -> None:
    """Mark as new what an executor has cut short, and what is in one of these states.

    but : those that a later document repeats
    """
    apart = set(map(id, but))
    for document in documents(trials):
        if (document["state"] in states or is_cut_short(document)) and id(document) not in apart:
            renew(document)


def unfinished(trials: Trials, *, but: Iterable[Document]) -> list[Document]:
    """The evaluations still to be done, those that were cut short among them, suspects first.

    To be called while none is under way: those marked as running were cut short too.

    but : those that a later document repeats
    """
    begin_again(trials, but=but, states={JOB_STATE_RUNNING, JOB_STATE_CANCEL})
    trials.refresh()
    new = [document for document in documents(trials) if document["state"] == JOB_STATE_NEW]
    return sorted(new, key=lambda document: not is_suspect(document))


def suspect(document: Document) -> None:
    """Mark an evaluation as under way when an executor broke."""
    document["misc"]["suspect"] = 1
