"""What bohb.suggest(per_second=True) finds in the same time, where configurations differ in theirs.

    python benchmarks/seconds.py              10 seeds of every line, then the table
    python benchmarks/seconds.py --seeds 0 1  some seeds, printed

The suite's problems with a time of their own for each configuration, up to ten times another's: growing with
a hyperparameter towards the optimum or away from it, with the width of a network, or the same for all. It is
written into the documents, with a spread of 15 %. digits_mlp has the CPU seconds of its training. One unit of
time is that of a mean random configuration at max_budget; what counts is the regret of the incumbent.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a run takes one core

import numpy as np
from hyperopt import Trials, fmin
from hyperopt.pyll.stochastic import sample
from problems import Params, flat, load
from recording import destination, environment, versions, write_text

from hyperopt_hyperband import bohb, hyperband

RESULTS = Path(__file__).parent / "results" / "seconds"
TOTALS = (10, 30, 60)


@dataclass(frozen=True)
class Case:
    """A problem, and the seconds that a configuration takes at max_budget; None: those that it takes."""

    problem: str
    name: str
    seconds: Callable[[Params], float] | None


CASES = (
    Case("hartmann6_moderate", "the optimum is cheap", lambda params: 10 ** params["x0"]),
    Case("hartmann6_moderate", "the optimum is dear", lambda params: 10 ** (1 - params["x0"])),
    Case("hartmann3_bad", "the optimum is cheap", lambda params: 10 ** params["x0"]),
    Case("hartmann3_bad", "the optimum is dear", lambda params: 10 ** (1 - params["x0"])),
    Case("curves", "by width", lambda params: 20 + params["width"]),
    Case("curves_crossing", "by width", lambda params: 20 + params["width"]),
    Case("hartmann6_good", "all the same", lambda _: 1.0),
    Case("digits_mlp", "CPU seconds", None),
)


def run(index: int, seed: int, per_second: bool) -> list[float]:
    """The regret of the incumbent at each total, in one of the cases."""
    case = CASES[index]
    problem = load(case.problem)
    rng = np.random.default_rng(seed)
    unit = _mean_seconds(index)
    spent, best, curve = 0.0, (0.0, -math.inf), [(0.0, math.nan)]
    took: list[float] = []

    def objective(params: Params) -> float:
        nonlocal spent, best
        params = dict(params)
        budget = params.pop("budget")
        params = flat(params)
        start = time.process_time()
        loss = problem.evaluate(params, budget, seed)
        seconds = time.process_time() - start
        if case.seconds:
            seconds = case.seconds(params) * budget / problem.max_budget
        spent += seconds / unit
        took.append(seconds * (rng.lognormal(0, 0.15) if case.seconds else 1))
        if (budget, -loss) > best:
            best = budget, -loss
            curve.append((spent, problem.score(params) - problem.optimum))
        return loss

    def write_down(trials: Trials, *args: Any) -> tuple[bool, Any]:
        document = trials.trials[-1]
        document["refresh_time"] = document["book_time"] + timedelta(seconds=took[-1])
        return spent >= max(TOTALS), args

    node = hyperband.budget("budget", problem.min_budget, problem.max_budget)
    fmin(
        objective,
        problem.space | {"budget": node},
        algo=functools.partial(bohb.suggest, per_second=per_second),
        max_evals=10**6,
        trials=Trials(),
        rstate=np.random.default_rng(seed),
        early_stop_fn=write_down,
        verbose=False,
    )
    return [next(regret for when, regret in reversed(curve) if when <= total) for total in TOTALS]


@functools.cache
def _mean_seconds(index: int) -> float:
    case = CASES[index]
    problem, rng = load(case.problem), np.random.default_rng(0)
    seconds = []
    for _ in range(300 if case.seconds else 30):
        params = flat(sample(problem.space, rng))
        start = time.process_time()
        if not case.seconds:
            problem.evaluate(params, problem.max_budget, 0)
        seconds.append(case.seconds(params) if case.seconds else time.process_time() - start)
    return float(np.mean(seconds))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder; without: the stored one, with all seeds")
    options = parser.parse_args(argv)
    rows = []
    with ProcessPoolExecutor(options.processes) as executor:
        jobs = [
            [[executor.submit(run, i, seed, weighed) for seed in options.seeds] for weighed in (False, True)]
            for i in range(len(CASES))
        ]
        for case, pair in zip(CASES, jobs, strict=True):
            plain, weighed = (np.log10(np.maximum([f.result() for f in each], 1e-4)) for each in pair)
            gain = weighed - plain
            error = gain.std(axis=0, ddof=min(1, len(gain) - 1)) / math.sqrt(len(gain))
            figures = {"plain": plain.mean(axis=0), "per_second": weighed.mean(axis=0)}
            figures |= {"difference": gain.mean(axis=0), "standard_error": error}
            rows.append(
                {"problem": case.problem, "seconds": case.name}
                | {name: values.round(3).tolist() for name, values in figures.items()}
            )
            shown = [
                f"{mean:+.2f} ± {abs(spread):.2f}"
                for mean, spread in zip(gain.mean(axis=0), error, strict=True)
            ]
            print(f"{case.problem}, {case.name}: {', '.join(shown)}", flush=True)
    if out := destination(parser, options, RESULTS, indifferent={"processes"}):
        head = {
            **environment(),
            "versions": versions("scikit-learn"),
            "seeds": options.seeds,
            "totals": TOTALS,
        }
        write_text(out / "seconds.json", json.dumps({**head, "log10 regret": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
