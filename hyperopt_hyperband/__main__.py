"""The command line: `python -m hyperopt_hyperband plan` and `report`."""

from __future__ import annotations

import argparse
import importlib
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._report import clock, report
from hyperopt_hyperband._saving import load_trials
from hyperopt_hyperband._schedule import Budget, schedule


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a plan, or the report of saved trials."""
    parser = argparse.ArgumentParser(
        prog="python -m hyperopt_hyperband", description="Hyperband for Hyperopt."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    plan = commands.add_parser(
        "plan", help="what one Hyperband iteration will evaluate, and how long it takes"
    )
    plan.add_argument("--min-budget", type=number, default=1, help="default: 1")
    plan.add_argument("--max-budget", type=number, required=True)
    plan.add_argument("--eta", type=number, default=3, help="default: 3")
    plan.add_argument("--seconds", type=number, help="what one evaluation takes at max_budget")
    plan.add_argument("--workers", type=int, default=1, help="evaluations that run at a time; default: 1")

    saved = commands.add_parser(
        "report",
        help="what happened in a run",
        description="Print the report of a run whose trials are in a file, of fmin's trials_save_file or of "
        "hyperband.save_trials. The file is a pickle, which can run any code when it is read: pass only a "
        "file that comes from a source you trust.",
    )
    saved.add_argument("file", metavar="FILE", help="a pickle from a source you trust")
    saved.add_argument(
        "--space",
        metavar="MODULE:NAME",
        help="the space of the run, so that choices have their options' names; the module, such as train for "
        "train.py, is imported from the current folder, and what stands at its top level runs",
    )

    options = parser.parse_args(arguments)
    try:
        if options.command == "plan":
            _print_plan(options)
        else:
            trials = _load(options.file)
            print(report(trials, space=options.space and _space(options.space)))
    except ValueError as error:
        parser.error(str(error))


def _load(file: str) -> Trials:
    if not Path(file).is_file():
        raise ValueError(f"{file}: no such file")
    try:
        return load_trials(file)
    except (AttributeError, ImportError) as error:  # a class that is not here
        raise ValueError(f"{file} can't be read: {error}") from error


def _space(reference: str) -> Any:
    module, _, name = reference.partition(":")
    if not (module and name):
        raise ValueError(
            f"--space {reference}: pass module:name, as in train:space for what train.py calls space"
        )
    sys.path.insert(0, os.getcwd())
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except Exception as error:  # whatever the module raises as it is imported
        raise ValueError(
            f"--space {reference} can't be imported from {os.getcwd()}: {type(error).__name__}: {error}"
        ) from error


def _print_plan(options: argparse.Namespace) -> None:
    plan = schedule(options.min_budget, options.max_budget, options.eta)
    print(plan)
    if options.seconds is not None:
        scratch, continued = (
            clock(plan.duration(options.seconds, options.workers, continued=c).total_seconds())
            for c in (False, True)
        )
        workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
        print(f"expected duration on {workers}: {scratch}; with continued training {continued}")


def number(text: str) -> Budget:
    """An int where the text is one, else a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


if __name__ == "__main__":
    main()
