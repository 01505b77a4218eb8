"""The command line: `python -m hyperopt_hyperband plan` and `report`."""

from __future__ import annotations

import argparse
import importlib
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hyperopt.base import Trials

from hyperopt_hyperband._report import report
from hyperopt_hyperband._saving import load_trials
from hyperopt_hyperband._schedule import (
    Budget,
    Schedule,
    higher_minima,
    lower_maxima,
    positive,
    schedule,
)
from hyperopt_hyperband._tables import clock, counted


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
    plan.add_argument(
        "--hours", type=number, help="how much time there is; tells how many iterations fit, or what would"
    )
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
    if options.seconds is None:
        if options.hours is not None:
            raise ValueError(
                f"hours={options.hours}: pass --seconds too, what one evaluation takes at max_budget"
            )
        return
    scratch, continued = (
        plan.duration(options.seconds, options.workers, continued=c).total_seconds() for c in (False, True)
    )
    workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
    print(f"expected duration on {workers}: {clock(scratch)}; with continued training {clock(continued)}")
    if options.hours is None:
        return
    limit = 3600 * positive("hours", options.hours) * (1 + 1e-9)  # for rounding
    fit, fit_continued = (_iterations(int(limit / each), plan) for each in (scratch, continued))
    print(f"{options.hours:g} h hold {fit}; with continued training {fit_continued}")
    if limit < scratch:
        found = [_first_that_fits(plans, plan, options, limit) for plans in (lower_maxima, higher_minima)]
        if ways := ", or with ".join(filter(None, found)):
            print(f"one iteration fits with {ways}")
        else:
            print("no iteration of two budgets or more fits: take more hours or workers")


def _iterations(count: int, plan: Schedule) -> str:
    if count == 0:
        return "no iteration"
    return f"{counted(count, 'iteration')}, {count * plan.evaluations} evaluations"


def _first_that_fits(
    smaller: Callable[[Schedule], Iterator[Schedule]],
    plan: Schedule,
    options: argparse.Namespace,
    limit: float,
) -> str | None:
    """The options of the first smaller plan of which one iteration fits; None where none does."""
    for other in smaller(plan):
        # Rounded first: what is printed is what has been computed.
        seconds = float(f"{options.seconds * other.max_budget / plan.max_budget:g}")
        duration = other.duration(seconds, options.workers).total_seconds()
        if duration <= limit:
            return (
                f"--min-budget {other.min_budget} --max-budget {other.max_budget} --seconds {seconds:g} "
                f"({clock(duration)})"
            )
    return None


def number(text: str) -> Budget:
    """An int where the text is one, else a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


if __name__ == "__main__":
    main()
