"""What an evaluation has trained: checkpoints, for its promotion to take up, and models in files."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperopt.base import JOB_STATE_DONE, Ctrl
from hyperopt.fmin import pickler

from hyperopt_hyperband._documents import (
    Document,
    attached_to,
    budget_of,
    in_mongo,
    maxima_of,
    outcome,
    stamp_of,
)
from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._schedule import Budget

logger = logging.getLogger("hyperopt_hyperband")

NAME = "checkpoint"
"""Of the objective's argument, of the key in its result, and of the trial's attachment."""
MODEL, MODEL_FILE = "model", "model_file"
"""The keys of a result under which there is a model, or the path of the file that holds it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the evaluation of the same configuration at the rung below has left.

    Attributes
    ----------
    state : what the objective returned there under the key "checkpoint", a copy that is free to be changed
    budget : int or float, the budget that this state has been trained with
    """

    state: Any
    budget: Budget


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one evaluation takes up a checkpoint, and leaves its own.

    Attributes
    ----------
    folder : of all checkpoints; None where they are kept in the trials' attachments
    below : what the rung below has left: a pickle, or the name of a file in the folder
    own : the name of this configuration's subfolder
    budget, max_budget : of this evaluation, and of the top rung, after which nothing is left to anyone
    """

    folder: Path | None
    below: bytes | str | None
    own: str
    budget: Budget
    max_budget: Budget


def slot_of_trial(ctrl: Ctrl, folder: Path | None) -> Slot | None:
    """The slot of an evaluation that sees its trial; None where the trial is not Hyperband's.

    The attachment of the rung below names its file, and each configuration's subfolder has a new name: runs
    that share a folder never meet.
    """
    stamp, budget = stamp_of(ctrl.current_trial), budget_of(ctrl.current_trial)
    if stamp is None or budget is None:
        return None
    below = unpacked(attached_to(ctrl.trials, stamp["below"], NAME)) if "below" in stamp else None
    own = str(Path(below).parent) if isinstance(below, str) else f"{stamp['config']}-{uuid.uuid4().hex}"
    return Slot(folder, below, own, budget, _full(stamp))


def _full(stamp: Mapping[str, Any]) -> Budget:
    """max_budget, in the unit of the evaluation's own budget."""
    full: Budget = stamp["max_budget"]
    return maxima_of(stamp).get(stamp.get("label", ""), full)


def slot_of_parameters(
    vals: Mapping[str, Any], budget: Budget, max_budget: Budget, folder: Path | None
) -> Slot | None:
    """The slot of an evaluation that sees its hyperparameters alone, the budget not among vals.

    It takes up what the same hyperparameters have reached at the largest smaller budget. In a small space,
    that may be a first evaluation's too, where another bracket has trained them before.
    """
    if folder is None:
        return None
    own = configuration_name(vals)
    reached = [float(path.stem) for path in (folder / own).glob("*.pkl")]
    smaller = [number for number in reached if number < budget]
    return Slot(folder, file_name(own, max(smaller)) if smaller else None, own, budget, max_budget)


def configuration_name(vals: Mapping[str, Any]) -> str:
    """A name made of hyperparameters, the same in every process."""
    plain = sorted((str(label), float(value)) for label, value in vals.items())
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:32]


def file_name(own: str, budget: Budget) -> str:
    """The name of the file of a configuration's checkpoint at a budget."""
    return f"{own}/{float(budget)!r}.pkl"


def packed(left: bytes | str, ctrl: Ctrl) -> bytes | str:
    """What an evaluation leaves, as its trials can keep it: MongoTrials takes bytes alone."""
    return left.encode() if isinstance(left, str) and in_mongo(ctrl.trials) else left


def unpacked(left: bytes | str | None) -> bytes | str | None:
    """What an evaluation has left, again as a pickle, or the name of a file."""
    if isinstance(left, bytes) and not left.startswith(pickle.PROTO):
        return left.decode()
    return left


def take_up(slot: Slot | None) -> Checkpoint | None:
    """The checkpoint to train on from; None where there is none, and training starts anew."""
    if slot is None or slot.below is None:
        return None
    if isinstance(slot.below, bytes):
        return pickle.loads(slot.below)  # type: ignore[no-any-return]
    path = (slot.folder or Path()) / slot.below
    try:
        with path.open("rb") as file:
            return pickle.load(file)  # type: ignore[no-any-return]
    except FileNotFoundError:
        logger.warning("checkpoint %s is gone: training starts anew", path)
        return None


def leave(slot: Slot | None, state: object) -> bytes | str | None:
    """Keep a checkpoint; returns what to attach to the trial, None where no promotion can follow.

    It is pickled at once: what the objective does with the state later changes nothing. A file gets its name
    when it is complete, so that no reader ever sees half of one.
    """
    if slot is None or state is None or slot.budget == slot.max_budget:
        return None
    checkpoint = Checkpoint(state, slot.budget)
    if slot.folder is None:
        return pickler.dumps(checkpoint)  # type: ignore[no-any-return]
    name = file_name(slot.own, slot.budget)
    _write(slot.folder / name, checkpoint)
    return name


def leave_model(folder: Path, result: Document) -> None:
    """Move the model of a result into a file, which the result then names; that of a failure is dropped.

    The result goes wherever the document goes, under SparkTrials too, which has no attachments.
    """
    model = result.pop(MODEL, None)
    if model is not None and outcome({"state": JOB_STATE_DONE, "result": result}) != FAILED:
        path = folder / f"model-{uuid.uuid4().hex}.pkl"
        _write(path, model)
        result[MODEL_FILE] = str(path)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            pickler.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
