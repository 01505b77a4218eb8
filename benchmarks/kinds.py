"""Several kinds of model in one space, one of them without a budget: its place in Hyperband's brackets.

A support vector machine is fully trained where a forest has had 3 of 81 trees, a network 10 of 270 epochs.
Two data sets of scikit-learn, 300 random configurations of each kind, their losses (3-fold cross-validation)
and CPU seconds recorded at four budgets; on these, a synchronous Hyperband is played by each rule:

- "trained again": at every rung, as if it had a budget;
- "takes places": its one result goes up through the rungs as far as it is among the best, the package's rule;
- "full brackets": it is drawn only where a bracket starts at max_budget;
- "at the top": it takes no places above the lowest rung, and is compared at max_budget alone;
- "by cost": it is drawn as rarely as it is costly, (s + 1) / eta^s as often in bracket s, and takes places;
- "by cost, at the top": both.

Three spaces are played: of all three kinds, where the machine is the best kind; and two of two kinds, where
the forest, the worse one, or the network is always trained in full.

    python benchmarks/kinds.py            half a minute, on the recorded curves
    python benchmarks/kinds.py --record   records them anew before, 20 minutes of CPU time
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from recording import destination, environment, read_text, versions, write_text
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import scale
from sklearn.svm import SVC, SVR
from threadpoolctl import threadpool_limits

from hyperopt_hyperband import hyperband

CURVES = Path(__file__).parent / "results" / "kinds" / "curves.json.gz"
RESULT = CURVES.with_name("kinds.json")
PLAN = hyperband.schedule(1, 27)
BUDGETS = (1, 3, 9, 27)
KINDS = ("svm", "forest", "network")
ENDS = (10, 30, 100)
"""Total costs at which incumbents are compared, in multiples of what the median configuration with a budget
costs at max_budget."""
Curves = dict[str, list[dict[str, list[float]]]]


def data(name: str) -> tuple[Any, Any]:
    """Standardised inputs, and what is to be predicted."""
    if name == "digits":
        features, target = load_digits(return_X_y=True)
        return features[:900] / 16, target[:900]
    features, target = load_diabetes(return_X_y=True)
    return scale(features), scale(target)


def drawn(kind: str, classes: bool, rng: np.random.Generator) -> Callable[[int], Any]:
    """A random configuration of a kind: its estimator by budget."""

    def log(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    params: dict[str, Any]
    if kind == "svm":
        made = SVC if classes else SVR
        params = {"C": log(0.01, 100), "gamma": log(1e-4, 10)}
        return lambda _: made(**params)
    if kind == "forest":
        made = RandomForestClassifier if classes else RandomForestRegressor
        params = {
            "max_features": float(rng.uniform(0.05, 1)),
            "min_samples_leaf": int(rng.integers(1, 21)),
            "max_depth": int(rng.integers(2, 21)),
            "random_state": 0,
        }
        return lambda budget: made(n_estimators=3 * budget, **params)
    made = MLPClassifier if classes else MLPRegressor
    params = {
        "hidden_layer_sizes": (round(log(8, 128)),),
        "learning_rate_init": log(1e-4, 1e-1),
        "alpha": log(1e-6, 1),
        "random_state": 0,
    }
    return lambda budget: made(max_iter=10 * budget, **params)


def record(configurations: int) -> dict[str, Curves]:
    """Losses and CPU seconds by budget."""
    found: dict[str, Curves] = {}
    for name in ("digits", "diabetes"):
        features, target = data(name)
        for kind in KINDS:
            rng = np.random.default_rng(KINDS.index(kind))
            rows = found.setdefault(name, {}).setdefault(kind, [])
            for number in range(configurations):
                estimator = drawn(kind, name == "digits", rng)
                row: dict[str, list[float]] = {"losses": [], "seconds": []}
                for budget in BUDGETS if kind != "svm" else BUDGETS[-1:]:
                    start = time.process_time()
                    with threadpool_limits(1), warnings.catch_warnings():
                        warnings.simplefilter("ignore", ConvergenceWarning)
                        warnings.simplefilter("ignore", RuntimeWarning)  # a network that diverges
                        score = cross_val_score(estimator(budget), features, target, cv=3, error_score=np.nan)
                    row["losses"].append(round(float(np.nan_to_num(1 - score.mean(), nan=9.9)), 6))
                    row["seconds"].append(round(time.process_time() - start, 4))
                rows.append(row)
                print(name, kind, number + 1, end="\r", flush=True)
    return found


SPACES = {"svm": KINDS, "forest": ("forest", "network"), "network": ("network", "forest")}
"""By the kind without a budget, the kinds of a space."""
RULES: dict[str, tuple[str, str]] = {  # how it is drawn, and where it goes
    "trained again": ("as it comes", "again"),
    "takes places": ("as it comes", "places"),
    "full brackets": ("full brackets", "places"),
    "at the top": ("as it comes", "top"),
    "by cost": ("by cost", "places"),
    "by cost, at the top": ("by cost", "top"),
}


def played(
    curves: Curves, fixed: str, rule: str, seed: int, spend: float
) -> list[tuple[float, float, float]]:
    """Synchronous Hyperband: cost, CPU seconds and the incumbent's loss after each evaluation at max_budget.

    The cost of an evaluation is its budget over max_budget, and 1 where the kind of model is fixed.
    """
    kinds = SPACES[fixed]
    drawing, place = RULES[rule]
    rng = np.random.default_rng(seed)
    cost = seconds = 0.0
    best = math.inf
    steps = []

    def draw(s: int) -> tuple[str, int]:
        while True:
            kind = kinds[rng.integers(len(kinds))]
            wanted = {"full brackets": float(s == 0), "by cost": (s + 1) / 3**s}.get(drawing, 1.0)
            if kind != fixed or rng.random() < wanted:
                return kind, int(rng.integers(len(curves[kind])))

    def evaluate(kind: str, number: int, level: int) -> float:
        nonlocal cost, seconds, best
        row, at = curves[kind][number], -1 if kind == fixed else level
        cost += 1 if kind == fixed else BUDGETS[level] / BUDGETS[-1]
        seconds += row["seconds"][at]
        if kind == fixed or level == len(BUDGETS) - 1:
            best = min(best, row["losses"][at])
            steps.append((cost, seconds, best))
        return row["losses"][at]

    while cost < spend:
        for bracket in PLAN.brackets:
            entered = [draw(bracket.s) for _ in range(bracket.rungs[0].configurations)]
            known: dict[tuple[str, int], float] = {}
            for i in range(bracket.s + 1):
                level = len(BUDGETS) - 1 - bracket.s + i
                for each in entered:
                    if each[0] != fixed or i == 0 or place == "again":
                        known[each] = evaluate(*each, level)
                if i < bracket.s:
                    entered = [each for each in dict.fromkeys(entered) if each[0] != fixed or place != "top"]
                    entered = sorted(entered, key=known.__getitem__)[: bracket.rungs[i + 1].configurations]
    return steps


def incumbent(steps: list[tuple[float, float, float]], spent: float, unit: int) -> float:
    """The incumbent's loss once so much is spent."""
    found = [step[2] for step in steps if step[unit] <= spent]
    return found[-1] if found else math.nan


def measured(curves: Curves, fixed: str, seeds: int) -> dict[str, Any]:
    """For each rule, by both costs at ENDS: how far the incumbent is above the best loss, in percent."""
    kinds = SPACES[fixed]
    lowest = min(row["losses"][-1] for kind in kinds for row in curves[kind])
    full = [row["seconds"][-1] for kind in kinds if kind != fixed for row in curves[kind]]
    second = float(np.mean(full))  # of CPU time, what a configuration with a budget takes at max_budget
    result: dict[str, Any] = {}
    runs = {
        rule: [played(curves, fixed, rule, seed, 3 * ENDS[-1]) for seed in range(seeds)] for rule in RULES
    }
    for unit, name, size in ((0, "max_budget", 1.0), (1, "seconds", second)):
        for end in ENDS:
            losses = {
                rule: np.array([incumbent(steps, end * size, unit) for steps in each])
                for rule, each in runs.items()
            }
            result[f"{name} x {end}"] = {
                rule: [
                    round(float(100 * np.nanmean(found / lowest - 1)), 2),
                    round(float(100 * np.nanstd(found / lowest) / math.sqrt(seeds)), 2),
                ]
                for rule, found in losses.items()
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="measure the curves anew")
    parser.add_argument("--configurations", type=int, default=300, help="to record, of each kind")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", type=Path, help="a JSON file; without: the stored one, if all is run")
    options = parser.parse_args()
    out = destination(parser, options, RESULT, indifferent={"record"})
    if options.record:
        write_text(CURVES, json.dumps(record(options.configurations)))
    recorded = json.loads(read_text(CURVES))
    found = {
        f"{name}, {fixed} without a budget": measured(curves, fixed, options.seeds)
        for name, curves in recorded.items()
        for fixed in SPACES
    }
    for name, result in found.items():
        print(f"\n{name}: incumbent above the best of all, in percent: mean (standard error)")
        print("| rule |" + "".join(f" {end} |" for end in result if " x " in end))
        for rule in RULES:
            cells = [
                f" {mean} ({error}) |"
                for end in result
                if " x " in end
                for mean, error in [result[end][rule]]
            ]
            print(f"| {rule} |" + "".join(cells))
    if out:
        settings = {**environment(), "versions": versions("scikit-learn"), "seeds": options.seeds}
        write_text(out, json.dumps({**settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
