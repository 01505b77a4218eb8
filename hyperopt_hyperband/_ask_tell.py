"""A search whose evaluations the user runs: ask for one, evaluate it anywhere, tell its result."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from hyperopt import space_eval
from hyperopt.base import STATUS_FAIL, STATUS_OK, Domain, Trials

from hyperopt_hyperband._best_model import keep_best
from hyperopt_hyperband._documents import (
    Document,
    attach,
    documents,
    hyperparameters_of,
    in_mongo,
    is_new,
    is_running,
    tid_of,
)
from hyperopt_hyperband._lifecycle import begin, begin_again, fail, finish
from hyperopt_hyperband._trials import Algorithm, Run
from hyperopt_hyperband._trials import Trials as OwnTrials


def ask(trials: Trials, space: Any, *, algo: Algorithm, seed: int | None = None) -> Document | None:
    """Take up the next evaluation: one that nobody has begun, or one of the points to evaluate of our own
    Trials, or else what the algorithm suggests.

    Its budget is in `document["misc"]["budget"]`, and `parameters(space, document)` is what an objective
    would get. Any number may be asked for before the first result is told, from one thread at a time. What is
    never told stays pending; the search goes on with other brackets.

    Parameters
    ----------
    trials : hyperopt.Trials
        The search so far; the evaluation joins it. Save and load them as those of fmin.
    space : the space of the search
    algo : callable
        `hyperband.suggest`, `bohb.suggest` or any other algorithm of Hyperopt, its options bound.
    seed : int, optional
        Of the draw. Default: another one each time.

    Returns
    -------
    dict or None
        Its document, marked as running; None where the algorithm has nothing more to suggest.

    Raises
    ------
    ValueError
        The trials are MongoTrials.
    """
    if in_mongo(trials):
        raise ValueError(
            "MongoTrials hand their evaluations to workers of their own, none to ask: pass hyperopt.Trials() "
            "or ExecutorTrials()"
        )
    domain = Domain(_evaluated_elsewhere, space, pass_expr_memo_ctrl=True)
    if seed is None:
        seed = int(np.random.default_rng().integers(2**31 - 1))
    begin_again(trials)
    document = next(filter(is_new, documents(trials)), None)
    if document is None:
        trials.refresh()
        suggest = Run(trials, algo).suggest if isinstance(trials, OwnTrials) else algo
        new = suggest(trials.new_trial_ids(1), domain, trials, seed)
        if not new:
            return None
        trials.insert_trial_docs(new)
        document = documents(trials)[-1]
    begin(document, owner="ask")
    trials.refresh()
    return document


def tell(trials: Trials, document: Document, result: Any) -> None:
    """Take in what an evaluation has brought.

    Parameters
    ----------
    trials : hyperopt.Trials
        Those that it was asked from.
    document : dict
        What `ask` returned, or a copy of it.
    result : float, dict or exception
        What an objective returns: the loss, or a dict with a status and the loss; or the exception that it
        has raised: the evaluation has failed.

    Raises
    ------
    ValueError
        The document is none of trials', has been told before, or the result is none of these.
    """
    if not isinstance(document, Mapping) or "tid" not in document:
        raise ValueError(f"document={document!r}: pass the document that ask returned")
    mine = [each for each in documents(trials) if tid_of(each) == tid_of(document)]
    if not mine:
        raise ValueError(
            f"trial {tid_of(document)} is not among these trials: pass those that it was asked from"
        )
    if not (is_running(mine[-1]) or is_new(mine[-1])):  # new again, where trials were saved and loaded
        raise ValueError(f"trial {tid_of(document)} has its result already: tell each once")
    if isinstance(result, BaseException):
        fail(mine[-1], result)
    elif isinstance(result, Real):
        finish(mine[-1], {"status": STATUS_OK, "loss": float(result)})
    elif isinstance(result, Mapping) and result.get("status") in (STATUS_OK, STATUS_FAIL):
        told = dict(result)
        attach(trials, tid_of(document), told.pop("attachments", {}))
        finish(mine[-1], told)
    else:
        raise ValueError(
            f"result={result!r}: pass a loss, an exception, or a dict with a loss and 'ok' or 'fail' as its "
            "status"
        )
    if getattr(trials, "keep_model", False):
        keep_best(trials)
    trials.refresh()


def parameters(space: Any, document: Document) -> Any:
    """What an objective gets of an evaluation: the space, with its hyperparameters filled in."""
    return space_eval(space, hyperparameters_of(document))


def _evaluated_elsewhere(expr: Any, memo: Any, ctrl: Any) -> None:
    """Stands for the objective, which the algorithm does not call."""
