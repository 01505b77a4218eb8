"""How often `hyperband.report` says that low budgets mislead, by the rank correlation that is true.

Real `hyperband.suggest`, reports of one and of two Hyperband iterations, and losses of which the rank
correlation over all configurations is known. Three ways in which low budgets can be related to max_budget:

- "neighbours": each budget correlates so with the next one, and tells nothing more of later ones;
- "noisy": each correlates so with max_budget, with noise of its own: 0.8 makes 0.62 between two low budgets;
- "shared": each correlates so with max_budget, with the same noise: low budgets agree with one another.

    python benchmarks/verdict.py --runs 200
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from hyperopt import Trials, hp
from hyperopt.base import JOB_STATE_DONE, STATUS_OK, Domain

from hyperopt_hyperband import hyperband

SCHEDULES = ((1, 9), (10, 100), (1, 27), (1, 81))
STRUCTURES = ("neighbours", "noisy", "shared")
CORRELATIONS = (0.8, 0.0)
ITERATIONS = (1, 2)


def curve(structure: str, correlation: float, budgets: int, rng: np.random.Generator) -> list[float]:
    """The losses of a configuration by budget, the last at max_budget: normal variables."""
    r = 2 * math.sin(math.pi / 6 * correlation)  # Pearson's, of normal variables of this rank correlation
    rest = math.sqrt(1 - r * r)
    if structure == "neighbours":
        losses = [rng.normal()]
        for _ in range(budgets - 1):
            losses.append(r * losses[-1] + rest * rng.normal())
        return losses
    full, shared = rng.normal(size=2)
    noise = [shared if structure == "shared" else rng.normal() for _ in range(budgets - 1)]
    return [*(float(r * full + rest * each) for each in noise), float(full)]


def verdicts(
    min_budget: int,
    max_budget: int,
    structure: str,
    correlation: float,
    seed: int,
    suggest: Callable[..., Any] = hyperband.suggest,
) -> list[bool]:
    """Whether the report says "misleads", after each of ITERATIONS."""
    plan = hyperband.schedule(min_budget, max_budget)
    budgets = [rung.budget for rung in plan.brackets[0].rungs]
    rng = np.random.default_rng(seed)
    curves: dict[Hashable, list[float]] = {}
    space = {"x": hp.uniform("x", 0, 1), "budget": hyperband.budget("budget", min_budget, max_budget)}
    domain, trials, said = Domain(lambda _: 0.0, space), Trials(), []
    for number in range(1, max(ITERATIONS) * plan.evaluations + 1):
        [document] = suggest(trials.new_trial_ids(1), domain, trials, int(rng.integers(2**31)))
        config = document["misc"]["hyperband"]["config"]
        if config not in curves:
            curves[config] = curve(structure, correlation, len(budgets), rng)
        loss = curves[config][budgets.index(document["misc"]["budget"])]
        document.update(state=JOB_STATE_DONE, result={"status": STATUS_OK, "loss": loss})
        trials._insert_trial_docs([document])  # without a check that takes half of the time
        trials.refresh()
        if number in [iterations * plan.evaluations for iterations in ITERATIONS]:
            said.append("misleads" in str(hyperband.report(trials)))
    return said


def shares(
    min_budget: int, max_budget: int, structure: str, correlation: float, runs: int, **options: Any
) -> list[float]:
    """The share of runs in which some low budget is said to mislead, after each of ITERATIONS."""
    said = [verdicts(min_budget, max_budget, structure, correlation, seed, **options) for seed in range(runs)]
    return [float(share) for share in np.mean(said, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=200, help="a cell; default: 200")
    runs = parser.parse_args().runs
    print(f"runs of {runs} in which a low budget is said to mislead, after 1 / 2 Hyperband iterations\n")
    columns = "".join(f" | true correlation {correlation:g}" for correlation in CORRELATIONS)
    print(f"| budgets | structure{columns} |\n|---|---|{'---|' * len(CORRELATIONS)}")
    for budgets in SCHEDULES:
        for structure in STRUCTURES:
            cells = [shares(*budgets, structure, correlation, runs) for correlation in CORRELATIONS]
            shown = [" / ".join(f"{100 * share:.1f} %" for share in cell) for cell in cells]
            print(f"| {budgets[0]}..{budgets[1]} | {structure} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
