"""The driver's side of kept models: all but the incumbent's are dropped, and that is handed back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._checkpoint import MODEL, MODEL_FILE
from hyperopt_hyperband._documents import documents, outcome, result_of, tid_of
from hyperopt_hyperband._evaluations import best_of, incumbent


def keep_best(trials: Trials) -> None:
    """Drop the models of all finished evaluations but the best of those that have one.

    Where the trials are saved, to be called after they were: then what a kill leaves names no file that is
    gone.
    """
    holding = [
        document
        for document in documents(trials)
        if (MODEL in (result := result_of(document)) or MODEL_FILE in result)
        and outcome(document) is not None  # Hyperopt's Ctrl.checkpoint writes results that are not final
    ]
    best = best_of(trials, holding)
    for document in holding:
        if document is not best:
            result = result_of(document)
            if MODEL_FILE in result:
                Path(result[MODEL_FILE]).unlink(missing_ok=True)
            result.pop(MODEL_FILE, None)
            result.pop(MODEL, None)


@shows_its_call
def best_model(trials: Trials, *, checkpoint_dir: str | os.PathLike[str] | None = None) -> Any:
    """What the objective of the incumbent has returned under the key "model" of its result.

    `with_budget(keep_model=True)` and `Trials(keep_model=True)` keep it with the incumbent alone. Without
    them every trial keeps its own, and this is the incumbent's too.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind, in mid-run too.
    checkpoint_dir : str or path, optional
        Where the folder of `with_budget(checkpoint_dir=..., keep_model=True)` is now. Default: where it was.
        Its files are pickles: load none that you do not trust.

    Raises
    ------
    ValueError
        The incumbent has no model, or its file is not there.
    hyperopt.exceptions.AllTrialsFailed
        No trial has finished with a finite loss.
    """
    document = incumbent(trials)
    result = result_of(document)
    if MODEL_FILE not in result:
        if result.get(MODEL) is None:
            raise ValueError(
                f"trial {tid_of(document)}, the incumbent, has no model: let the objective return one, as in "
                '{"loss": loss, "status": "ok", "model": model}, or train one with the parameters '
                "space_eval(space, hyperband.argmin(trials))"
            )
        return result[MODEL]
    path = Path(result[MODEL_FILE])
    if checkpoint_dir is not None:
        path = Path(checkpoint_dir) / path.name
    try:
        with path.open("rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        raise ValueError(
            f"the model of trial {tid_of(document)}, the incumbent, is not at {str(path)!r}: pass the folder "
            "that it is in now, best_model(trials, checkpoint_dir=...); while a search goes on, load its "
            "trials again"
        ) from None
