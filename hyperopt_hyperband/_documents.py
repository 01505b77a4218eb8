"""Hyperopt's documents: their layout, and how they are read.

No other module touches a document's fields, but for `_lifecycle`, which writes them, and `_stamps` and
`_history`, which walk from stamp to stamp.
What Hyperband adds to Hyperopt's own fields:

    misc["budget"]       what the evaluation may spend, in the unit of its node
    misc["hyperband"]    its stamp
        iteration, bracket, rung      its place in the schedule
        config                        the tid of its configuration's first evaluation
        min_budget, max_budget, eta   the schedule
        run                           the seed of the run's first suggestion, to tell runs apart
        space                         a number that stands for the space
        position, since, before, open links, see `_stamps`
        turn                          how many brackets opened before its own, where a model chooses them
        below                         a promotion's: the tid of the evaluation at the rung below
        label                         the hyperparameter that holds the budget, where one does
        shares_of, share              where a space has several: label, min_budget and max_budget of each, and
                                      the rung's share of the full budget
        known_at                      the budget of a higher rung at which the evaluation would be the same
        final                         1: its space has budgets, but none is active, or one at its maximum
        options                       a number that stands for the names of the options chosen
        by_model                      1: a model has drawn the configuration
        foreign                       "run" or "space": not of that, whatever the rest says
    misc["cut_short"]    1: an executor has given it up, and begins with it next time
    misc["suspect"]      1: it was under way when an executor broke
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from hyperopt.base import (
    JOB_STATE_CANCEL,
    JOB_STATE_DONE,
    JOB_STATE_ERROR,
    JOB_STATE_NEW,
    JOB_STATE_RUNNING,
    STATUS_NEW,
    STATUS_OK,
    Trials,
    spec_from_misc,
)

from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._schedule import Budget
from hyperopt_hyperband._values import FLAT, SEQUENCES, flag, flat, number, time_of

Document = dict[str, Any]
Vals = dict[str, list[Any]]
"""Hyperopt's assignment: for every label a list of its value, empty where the label is inactive."""

DOMAIN = "FMinIter_Domain"
"""The attachment in which Hyperopt's own fmin leaves the objective and the space."""
STAMP = {
    *("iteration", "bracket", "rung", "config", "min_budget", "max_budget", "eta"),
    *("run", "space", "position", "since", "open"),
}
"""What every stamp says; others are there where they apply."""
OWN_OPTIONS = {"points_to_evaluate", "keep_model"}
"""What our own Trials hold beside documents and attachments."""
MOST_BRACKETS = 128
"""More than any schedule has."""


def documents(trials: Trials) -> list[Document]:
    """All documents of a Trials, those of failed evaluations too, which `trials.trials` leaves out.

    Raises ValueError where it is no Trials.
    """
    if not hasattr(trials, "_exp_key"):
        raise ValueError(
            f"trials={reprlib.repr(trials)}: pass the Trials that fmin was given; of a list of documents, "
            "hyperopt.base.trials_from_docs makes one, and hyperband.load_trials reads it from a file"
        )
    everything = everyones(trials)
    if trials._exp_key is None:
        return everything
    return [document for document in everything if document["exp_key"] == trials._exp_key]


def everyones(trials: Trials) -> list[Document]:
    """The documents of a Trials and of its other views."""
    if in_mongo(trials):
        return _with_failed(trials)
    return getattr(trials, "_dynamic_trials", trials.trials)  # type: ignore[no-any-return]


def in_spark(trials: Trials) -> bool:
    """Whether these are SparkTrials, which hand no trial to the objective and keep no attachments."""
    return hasattr(trials, "_spark")


def in_mongo(trials: Trials) -> bool:
    """Whether they are MongoTrials: a server has the documents, and its workers take them up."""
    return hasattr(getattr(trials, "handle", None), "jobs")


def _with_failed(trials: Trials) -> list[Document]:
    """The documents of a MongoTrials as of its last refresh, which leaves out those of failed evaluations.

    Until the next refresh they stay the same objects, and the failed ones cost one query.
    """
    refreshed, everything = vars(trials).get("_with_failed", (None, []))
    if refreshed is not trials.trials:
        query = {"state": JOB_STATE_ERROR}
        if trials._exp_key is not None:
            query["exp_key"] = trials._exp_key
        failed = {document["_id"]: document for document in trials.handle.jobs.find(query)}
        others = [document for document in trials.trials if document["_id"] not in failed]
        everything = in_order([*others, *failed.values()])
        trials._with_failed = trials.trials, everything
    return everything  # type: ignore[no-any-return]


def newest_first(trials: Trials) -> Iterator[int]:
    """The positions of the documents of a Trials among everyone's, from the newest."""
    everything, key = everyones(trials), trials._exp_key
    positions = reversed(range(len(everything)))
    return positions if key is None else (i for i in positions if everything[i]["exp_key"] == key)


def copy_of(trials: Trials, into: Trials | None = None) -> Trials:
    """The same documents and attachments in a plain Trials, or in `into`.

    The copy has no threads, sessions and executors, which do not pickle, and not the objective.
    Raises ValueError for MongoTrials.
    """
    if in_mongo(trials):
        raise ValueError(
            "MongoTrials can't be copied, nor need be saved, since their server keeps them: leave out "
            "save_trials; to evaluate on an executor instead, begin with new ExecutorTrials"
        )
    everything = list(documents(trials))
    copy = Trials(exp_key=trials._exp_key, refresh=False) if into is None else into
    copy._exp_key = trials._exp_key
    copy._dynamic_trials = everything
    copy._ids = trials._ids | {document["tid"] for document in copy._dynamic_trials}
    copy.attachments = {name: value for name, value in trials.attachments.items() if name != DOMAIN}
    vars(copy).update(own_options(trials))
    copy.refresh()
    return copy


def own_options(trials: Trials) -> dict[str, Any]:
    """Those of OWN_OPTIONS that a Trials has."""
    return {name: value for name, value in vars(trials).items() if name in OWN_OPTIONS}


def outcome(document: Document) -> float | None:
    """What a rung ranks an evaluation by: its loss, None while it is pending, infinite where it failed."""
    state, result = document["state"], document.get("result") or {}
    if state == JOB_STATE_DONE and result.get("status") == STATUS_OK:
        value: Any = result.get("loss")
        if type(value) is not float:  # Hyperopt makes it one; another backend, or JSON, may not
            try:
                value = float(value)
            except (TypeError, ValueError, OverflowError):
                return FAILED
        return value if -FAILED < value < FAILED else FAILED  # not NaN either; no call, for speed
    # SparkTrials sets the state a moment before the result.
    pending = state in (JOB_STATE_NEW, JOB_STATE_RUNNING) or result == {"status": STATUS_NEW}
    return None if pending and state not in (JOB_STATE_ERROR, JOB_STATE_CANCEL) else FAILED


def result_of(document: Document) -> Document:
    """What the objective has returned, as Hyperopt keeps it; empty where there is none."""
    return document.get("result") or {}


def alone(document: Document, attachments: Mapping[str, Any]) -> Trials:
    """A Trials of one document, with these attachments."""
    trials = Trials(exp_key=document["exp_key"], refresh=False)
    trials._insert_trial_docs([document])
    trials.attachments.update(attachments)
    trials.refresh()
    return trials


def tid_of(document: Document) -> Any:
    """The evaluation's id: hashable, an int as a rule."""
    return document["tid"]


def hyperparameters_of(document: Document) -> dict[str, Any]:
    """The active hyperparameters of an evaluation, by label."""
    return spec_from_misc(document["misc"])  # type: ignore[no-any-return]


def vals_of(document: Document) -> Vals:
    """The hyperparameters of an evaluation as Hyperopt writes them, inactive ones too."""
    return document["misc"]["vals"]  # type: ignore[no-any-return]


def active_of(document: Document) -> dict[str, Any]:
    """The active hyperparameters of an evaluation by label, whoever wrote them, as flat values.

    Numbers, None and texts are as they were. A sequence becomes the text of a tuple, whether JSON has made a
    list of it or not; what else there is becomes its text.
    """
    vals = document["misc"].get("vals") or {}
    return {
        str(name): value[0] if type(value[0]) in FLAT else flat(value[0])
        for name, value in vals.items()
        if isinstance(value, SEQUENCES) and len(value)
    }


def budget_of(document: Document) -> Budget | None:
    """What the evaluation may spend, in its own unit; None where Hyperband has not issued it."""
    return document["misc"].get("budget")  # type: ignore[no-any-return]


class Reach(NamedTuple):
    """How far up its schedule an evaluation counts.

    Attributes
    ----------
    budget : of its rung, by which evaluations compare: a share where its space has several; None: not known
    known_at : the largest budget at which its result is known
    final : its result, once it is there, is what any higher budget gives: it says so, or no budget is active
    """

    budget: Budget | None
    known_at: Budget | None
    final: bool


def reach_of(document: Document, its: Mapping[str, Any] | None) -> Reach:
    """How far an evaluation with this stamp counts."""
    final = flag(result_of(document).get("final"))
    if its is None:
        return Reach(None, None, final)
    budget = number(its.get("share", budget_of(document)))
    final = final or "final" in its
    return Reach(budget, its["max_budget"] if final else number(its.get("known_at")) or budget, final)


def in_shares(stamp: Mapping[str, Any]) -> bool:
    """Whether the budgets of a stamp's schedule are shares of the full one."""
    return "shares_of" in stamp


def maxima_of(stamp: Mapping[str, Any]) -> dict[str, Budget]:
    """What the labels of a schedule's budgets hold at max_budget, as far as a stamp tells of them."""
    if in_shares(stamp):
        return {label: high for label, _, high in stamp["shares_of"]}
    return {stamp["label"]: stamp["max_budget"]} if "label" in stamp else {}


def without_budget(stamp: Mapping[str, Any]) -> bool:
    """Whether the space has a budget, but none that is active in the configuration."""
    return "final" in stamp and "label" not in stamp


def in_full(document: Document) -> bool:
    """Whether an evaluation counts at the max_budget of its own schedule, as one without a stamp does."""
    its = stamp_of(document)
    known = None if its is None else reach_of(document, its).known_at
    return its is None or known is None or bool(known >= its["max_budget"])


def level_of(document: Document) -> Budget | None:
    """The budget of its rung, by which evaluations compare: a share where its space has several."""
    return reach_of(document, stamp_of(document)).budget


def known_at(document: Document) -> Budget | None:
    """The largest budget of its schedule at which an evaluation's result is known; None without a stamp."""
    return reach_of(document, stamp_of(document)).known_at


def stamp_of(document: Document) -> dict[str, Any] | None:
    """Its place in the schedule, as `_history` writes it; None where Hyperband has not issued it."""
    stamp = document["misc"].get("hyperband")
    return stamp if isinstance(stamp, dict) and _is_whole(stamp) else None


def _is_whole(stamp: dict[str, Any]) -> bool:
    """Whether a stamp says all that every one says, in values that make sense."""
    if not STAMP.issubset(stamp):
        return False
    iteration, bracket, rung = stamp["iteration"], stamp["bracket"], stamp["rung"]
    position, links = stamp["position"], stamp["open"]
    low, high, eta = stamp["min_budget"], stamp["max_budget"], stamp["eta"]
    try:
        return (
            iteration >= 0
            and stamp.get("turn", 0) >= 0
            and 0 <= rung <= bracket < MOST_BRACKETS
            and int(position) == position
            and 0 < low <= high < math.inf
            and 2 <= eta < math.inf
            and hash(stamp["config"]) is not None
            and all(len(each) == 3 for each in links)
            and all(0 < low <= high < math.inf for _, low, high in stamp.get("shares_of", ()))
        )
    except (TypeError, ValueError):
        return False


def times_of(document: Document) -> tuple[datetime | None, datetime | None]:
    """When the evaluation began, and when it was last heard of, in UTC; None where that is not known."""
    return time_of(document.get("book_time")), time_of(document.get("refresh_time"))


def is_outside(stamp: Mapping[str, Any] | None) -> bool:
    """Whether an evaluation with this stamp lies outside the space that the run goes on with."""
    return stamp is not None and stamp.get("foreign") == "space"


def left_behind(document: Document) -> bool:
    """Whether an evaluation looks as a serial fmin leaves it that was interrupted.

    It is running since a known time, and nobody owns it, as `hyperband.ask` would.
    """
    return (
        document["state"] == JOB_STATE_RUNNING
        and document.get("book_time") is not None
        and document.get("owner") is None
    )


def in_order(found: Iterable[Document]) -> list[Document]:
    """Documents in the order of the run: by ids, where these are numbers; of copies, the finished first."""
    documents = list(found)
    if all(isinstance(document["tid"], int) for document in documents):
        documents.sort(key=lambda document: (document["tid"], outcome(document) is None))
    return documents


def is_new(document: Document) -> bool:
    """Whether nobody has begun the evaluation."""
    return document["state"] == JOB_STATE_NEW  # type: ignore[no-any-return]


def is_running(document: Document) -> bool:
    """Whether the evaluation has begun, and nothing has been heard of its end."""
    return document["state"] == JOB_STATE_RUNNING  # type: ignore[no-any-return]


def is_unfinished(document: Document, trials: Trials) -> bool:
    """Whether an evaluation is to be done; an executor does what was running again."""
    return is_new(document) or (trials.asynchronous and is_running(document))


def is_done(document: Document) -> bool:
    """Whether the evaluation has finished with a result."""
    return document["state"] == JOB_STATE_DONE  # type: ignore[no-any-return]


def is_cut_short(document: Document) -> bool:
    """Whether an executor has given up the evaluation, to begin with it when fmin is called again."""
    return "cut_short" in document["misc"]


def is_suspect(document: Document) -> bool:
    """Whether the evaluation was under way when an executor broke."""
    return "suspect" in document["misc"]


def attachments(trials: Trials, *tids: Hashable) -> dict[str, Any]:
    """The attachments of these evaluations, under the names that Trials gives them."""
    prefixes = tuple(trials.aname({"tid": tid}, "") for tid in tids)
    return {name: value for name, value in trials.attachments.items() if name.startswith(prefixes)}


def attach(trials: Trials, tid: Hashable, attachments: Mapping[str, Any]) -> None:
    """Keep attachments of an evaluation, by their own names."""
    own = trials.trial_attachments({"tid": tid})
    for name, value in attachments.items():
        own[name] = value


def attached(trials: Trials, document: Document, name: str) -> Any:
    """An attachment of an evaluation; None where there is none."""
    try:
        return trials.trial_attachments(document)[name]
    except KeyError:
        return None


def attached_to(trials: Trials, tid: Hashable, name: str) -> Any:
    """An attachment of the evaluation with this id; None where there is none."""
    document = trials.handle.jobs.find_one({"tid": tid}) if in_mongo(trials) else None
    return attached(trials, document or {"tid": tid}, name)


def detach(trials: Trials, document: Document, name: str) -> None:
    """Delete an attachment of an evaluation, where it has it."""
    if not in_mongo(trials):
        trials.attachments.pop(trials.aname(document, name), None)
    elif name in trials.handle.attachment_names(document):
        trials.handle.delete_attachment(document, name)
