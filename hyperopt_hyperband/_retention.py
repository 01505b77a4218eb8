"""The driver's side of checkpoints: which are kept, and whose folder they lie in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from pathlib import Path

from hyperopt.base import Trials

from hyperopt_hyperband._checkpoint import NAME, configuration_name, file_name, unpacked
from hyperopt_hyperband._documents import (
    Document,
    Vals,
    attached,
    budget_of,
    detach,
    in_spark,
    outcome,
    vals_of,
)
from hyperopt_hyperband._history import History
from hyperopt_hyperband._promotion import promotable
from hyperopt_hyperband._schedule import Budget

CLAIMED = "one-spark-run"
"""The file that keeps a second run out of a folder whose checkpoints are told apart by parameters alone."""

NO_FOLDER = (
    "SparkTrials keeps no attachments, and so no checkpoints: pass with_budget(checkpoint_dir=...), a folder "
    "that the driver and all workers see"
)


def claim(folder: Path) -> None:
    """Take a folder for one run of evaluations that see no trial. Raises ValueError where one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / CLAIMED).touch(exist_ok=False)
    except FileExistsError:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} holds the checkpoints of another run, which SparkTrials can't "
            "tell from this run's: pass a new folder, or remove this one"
        ) from None


def drop(trials: Trials, history: History, folder: Path | None, budgets: Collection[str]) -> None:
    """Drop what no promotion can take up any more, read from the documents of the open brackets alone.

    What stays: of each rung, the finished configurations that are among as many best as the next rung has
    places, until their promotion has finished.
    """
    history.go_up()
    evaluations = _held(history)
    if folder is not None and in_spark(trials):
        _drop_by_parameters(folder, budgets, evaluations)
        return
    pending = {evaluation.config for evaluation in evaluations if evaluation.pending}
    for evaluation in evaluations:
        if not evaluation.kept:
            left = None if folder is None else unpacked(attached(trials, evaluation.document, NAME))
            detach(trials, evaluation.document, NAME)
            if folder is not None and isinstance(left, str):
                _remove(folder / left, whole=evaluation.config not in pending)


@dataclass(frozen=True, slots=True)
class _Held:
    """One evaluation of an open bracket, and whether a promotion may still take up its checkpoint."""

    document: Document
    config: Hashable
    vals: Vals
    budget: Budget
    pending: bool
    kept: bool


def _held(history: History) -> list[_Held]:
    found = []
    for (_, s), state in history.brackets.items():
        bracket = history.schedule.bracket(s)
        may_go_up = promotable(bracket, state, outcome)
        for i, rung in enumerate(state.rungs):
            above = state.rungs[i + 1] if i < s else {}
            for config, document in rung.items():
                if above.get(config) is document:
                    continue  # it stands for a higher rung too, and counts there
                pending = outcome(document) is None
                kept = pending or (config, i) in may_go_up
                budget = budget_of(document) or bracket.rungs[i].budget
                found.append(_Held(document, config, vals_of(document), budget, pending, kept))
    return found


def _drop_by_parameters(folder: Path, budgets: Collection[str], evaluations: list[_Held]) -> None:
    """Two configurations of a small space may share a subfolder: what one of them needs stays."""
    present = set(os.listdir(folder))
    names = {}
    for each in evaluations:
        vals = {name: value[0] for name, value in each.vals.items() if value and name not in budgets}
        names[each.config] = configuration_name(vals)
    kept = {file_name(names[each.config], each.budget) for each in evaluations if each.kept}
    pending = {names[each.config] for each in evaluations if each.pending}
    for each in evaluations:
        own = names[each.config]
        name = file_name(own, each.budget)
        if own in present and name not in kept:
            _remove(folder / name, whole=own not in pending)


def _remove(path: Path, whole: bool) -> None:
    """Remove a file; with the last of a configuration that is not at work, its subfolder too."""
    path.unlink(missing_ok=True)
    if whole and not any(path.parent.glob("*.pkl")):
        shutil.rmtree(path.parent, ignore_errors=True)
