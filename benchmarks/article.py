"""The article's tuning problem: random search, TPE, Hyperband and bohb on scikit-learn's digits.

    python benchmarks/article.py --quick      a smaller version of the problem, always anew, two minutes
    python benchmarks/article.py              the full one, hours; stopped, it goes on where it stood
    python benchmarks/article.py --no-runs    table, JSON and picture of all runs recorded so far

Loss: minus the mean accuracy of 5-fold cross-validation of `MLPClassifier(random_state=1234)`. Every
evaluation is kept at once, in a file of its run, which is compressed when the run is complete. A run is a
function of its seed: one that was stopped is played again from its file and goes on with the first
evaluation that is not there. Hyperband and bohb also run with continued training (continued_mlp.py), which
changes what they cost and nothing that they find.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import continued_mlp
import numpy as np
from hyperopt import STATUS_OK, fmin, hp, rand, tpe
from hyperopt.progress import tqdm
from recording import environment, read_text, versions, write_text
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_validate
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from hyperopt_hyperband import bohb, hyperband

HIDDEN = [(32,), (64,), (128,), (256,), (32, 32), (64, 64), (128, 128), (256, 256)]
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
ARTICLE_SPACE = {
    "learning_rate_init": hp.loguniform("learning_rate_init", np.log(0.001), np.log(0.1)),
    "hidden_layer_sizes": hp.choice("hidden_layer_sizes", HIDDEN),
    "alpha": hp.loguniform("alpha", np.log(0.0001), np.log(0.01)),
    "activation": hp.choice("activation", ACTIVATIONS),
}
SUGGEST = {"random": rand.suggest, "tpe": tpe.suggest, "hyperband": hyperband.suggest, "bohb": bohb.suggest}
# Okabe and Ito's colours: safe for all eyes. Dashed: continued training.
STYLES = {
    "random": ("#999999", "-"),
    "tpe": ("#D55E00", "-"),
    "hyperband": ("#56B4E9", "-"),
    "hyperband-continued": ("#56B4E9", "--"),
    "bohb": ("#004D80", "-"),
    "bohb-continued": ("#004D80", "--"),
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """The article's problem, or a smaller one that shows the same within two minutes."""

    max_budget: int  # epochs of one fold
    folds: int
    evaluations: int  # of TPE and of random search, all at max_budget
    iterations: int  # of Hyperband and of bohb
    targets: tuple[int, ...]  # Hyperband is to get as good as TPE after so many evaluations
    directory: Path


FULL = Problem(200, 5, 200, 7, (30, 50, 100, 200), Path(__file__).parent / "results" / "article")
QUICK = Problem(27, 3, 45, 3, (15, 30, 45), Path(tempfile.gettempdir()) / "hyperopt_hyperband_quick")


def train(problem: Problem, params: dict[str, Any], max_iter: int) -> dict[str, Any]:
    """Cross-validate one configuration: its accuracy, and what it cost over all folds."""
    features, target = load_digits(return_X_y=True)
    model = MLPClassifier(random_state=1234, max_iter=max_iter, **params)
    clock = Clock()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_validate(model, features, target, cv=problem.folds, return_estimator=True)
    epochs = int(sum(fitted.n_iter_ for fitted in scores["estimator"]))
    return {"accuracy": float(scores["test_score"].mean()), "epochs": epochs, **clock.read()}


def train_on(
    problem: Problem, params: dict[str, Any], max_iter: int, checkpoint: Any
) -> tuple[dict[str, Any], Any]:
    """The same from a checkpoint of the rung below, and the next checkpoint."""
    features, target = load_digits(return_X_y=True)
    params = params | {"random_state": 1234}
    with threadpool_limits(1):
        models = checkpoint and checkpoint.state
        if models == PLAYED_BACK:  # trained before a stop, and charged then
            *_, models = continued_mlp.cross_validate(
                params, checkpoint.budget, features, target, problem.folds
            )
        clock = Clock()
        scores, epochs, models = continued_mlp.cross_validate(
            params, max_iter, features, target, problem.folds, models
        )
        return {"accuracy": float(np.mean(scores)), "epochs": epochs, **clock.read()}, models


PLAYED_BACK = "played back"


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "wall_seconds": round(time.perf_counter() - self.wall, 3),
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
        }


class Recorder:
    """The objective of one run: adds every evaluation to the run's file, or plays it back from there."""

    def __init__(self, problem: Problem, path: Path) -> None:
        self.problem, self.path, self.count = problem, path, 0
        self.recorded = read_records(path)

    def __call__(self, params: dict[str, Any]) -> float:
        max_iter = params.get("max_iter", self.problem.max_budget)
        params = {name: params[name] for name in ARTICLE_SPACE}
        return -self.record(params, max_iter, lambda: train(self.problem, params, max_iter))

    def continued(self, params: dict[str, Any], budget: int, checkpoint: Any = None) -> dict[str, Any]:
        models: Any = PLAYED_BACK
        params = {name: params[name] for name in ARTICLE_SPACE}

        def trained() -> dict[str, Any]:
            nonlocal models
            record, models = train_on(self.problem, params, budget, checkpoint)
            return record

        accuracy = self.record(params, budget, trained)
        return {"loss": -accuracy, "status": STATUS_OK, "checkpoint": models}

    def record(self, params: dict[str, Any], max_iter: int, trained: Callable[[], Record]) -> float:
        asked = {**params, "hidden_layer_sizes": list(params["hidden_layer_sizes"]), "max_iter": max_iter}
        if self.count < len(self.recorded):
            record = self.recorded[self.count]
            if {name: record[name] for name in asked} != asked:
                raise RuntimeError(
                    f"{self.path}* holds another run: remove it, or use the versions that wrote it"
                )
        else:
            record = asked | trained()
            self.recorded.append(record)
            write_records(self.path, self.recorded)
        self.count += 1
        return float(record["accuracy"])


def run(problem: Problem, algorithm: str, seed: int) -> None:
    """One run of one algorithm, through plain fmin, on one core."""
    name, continued, _ = algorithm.partition("-continued")
    path = run_path(problem, algorithm, seed)
    recorder = Recorder(problem, path)
    objective: Callable[..., Any] = recorder
    space = ARTICLE_SPACE
    if name in ("hyperband", "bohb"):
        space = ARTICLE_SPACE | {"max_iter": hyperband.budget("max_iter", 1, problem.max_budget)}
    if continued:
        objective = hyperband.with_budget(recorder.continued)
    ends: dict[str, Any] = {"max_evals": problem.evaluations}
    if space is not ARTICLE_SPACE:
        ends = {"early_stop_fn": hyperband.stop_after(iterations=problem.iterations)}
    fmin(
        objective,
        space,
        algo=SUGGEST[name],
        **ends,
        rstate=np.random.default_rng(seed),
        verbose=False,
    )
    if space is not ARTICLE_SPACE:
        score_early_incumbents(problem, path)
    compress(path)


def planned(problem: Problem, algorithm: str) -> int:
    """How many evaluations a run has; fewer where bohb chooses its brackets."""
    if algorithm in ("random", "tpe"):
        return problem.evaluations
    return problem.iterations * hyperband.schedule(1, problem.max_budget).evaluations


def watch(problem: Problem, runs: dict[tuple[str, int], Future[None]]) -> None:
    """Show how far the runs are, until all have ended; an error in one ends it all."""
    counts = dict.fromkeys(runs, 0)
    with tqdm(total=sum(planned(problem, name) for name, _ in runs), unit="evaluation") as bar:
        while True:
            ended, pending = wait(runs.values(), timeout=1, return_when=FIRST_EXCEPTION)
            for future in ended:
                future.result()
            counts |= {each: len(read_records(run_path(problem, *each))) for each in runs}
            under_way = [f"{name} {seed}" for (name, seed), future in runs.items() if future.running()]
            bar.set_postfix_str(", ".join(under_way), refresh=False)
            bar.update(sum(counts.values()) - bar.n)
            if not pending:
                return


def score_early_incumbents(problem: Problem, path: Path) -> None:
    """Train at full budget the incumbents that a run had before its first evaluation there.

    What it costs to know how good they were is not charged to the run.
    """
    score = Recorder(problem, path.with_suffix(".scores"))
    for record in incumbents(read_records(path)):
        if record["max_iter"] == problem.max_budget:
            return
        score({name: record[name] for name in ARTICLE_SPACE})


def incumbents(records: list[Record]) -> Iterator[Record]:
    """Every record that became the incumbent: the best at the largest budget so far."""
    best = None
    for record in records:
        if best is None or (record["max_iter"], record["accuracy"]) > (best["max_iter"], best["accuracy"]):
            best = record
            yield record


def run_path(problem: Problem, algorithm: str, seed: int) -> Path:
    """The file of a run under way."""
    return problem.directory / f"{algorithm}-{seed}.jsonl"


def recorded_runs(problem: Problem, algorithm: str) -> list[Path]:
    """The paths of the runs there are, complete or under way, by seed."""
    files = [
        path
        for ending in ("jsonl", "jsonl.gz")
        for path in problem.directory.glob(f"{algorithm}-[0-9]*.{ending}")
    ]
    seeds = {int(path.name.partition(".")[0].rpartition("-")[2]) for path in files}
    return [run_path(problem, algorithm, seed) for seed in sorted(seeds)]


def read_records(path: Path) -> list[Record]:
    """The evaluations of a run so far. Where it goes on, its plain file is newer than the compressed one."""
    found = next((each for each in (path, compressed(path)) if each.exists()), None)
    return [json.loads(line) for line in read_text(found).splitlines()] if found else []


def write_records(path: Path, records: list[Record]) -> None:
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def compress(path: Path) -> None:
    """Replace a run's plain file, if it has one, by a compressed one."""
    if path.exists():
        write_records(compressed(path), read_records(path))
        path.unlink()


def compressed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


@dataclass(frozen=True)
class Curve:
    """One run: after each evaluation, what has been spent, and the incumbent's accuracy at full budget."""

    spent: dict[str, list[float]]
    accuracy: list[float]

    def cost(self, unit: str, target: float) -> float:
        """What was spent until the incumbent was as good as the target; infinite where it never was."""
        return next(
            (s for s, a in zip(self.spent[unit], self.accuracy, strict=True) if a >= target), math.inf
        )


UNITS = {"epochs": "epochs trained", "nominal": "epochs asked for", "cpu_seconds": "CPU seconds"}


def read_curve(problem: Problem, path: Path) -> Curve:
    records = read_records(path)
    early = iter(read_records(path.with_suffix(".scores")))
    accuracy: list[float] = []
    news = {id(record) for record in incumbents(records)}
    for record in records:
        if id(record) not in news:
            accuracy.append(accuracy[-1])
        else:
            accuracy.append((record if record["max_iter"] == problem.max_budget else next(early))["accuracy"])
    costs = {
        "epochs": [record["epochs"] for record in records],
        "nominal": [epochs * problem.folds for epochs in asked_for(records, "-continued-" in path.name)],
        "cpu_seconds": [record["cpu_seconds"] for record in records],
    }
    return Curve({unit: np.cumsum(cost).tolist() for unit, cost in costs.items()}, accuracy)


def asked_for(records: list[Record], continued: bool) -> Iterator[int]:
    """Epochs of a fold that each evaluation was given, less those of the rung below where it goes on."""
    reached: dict[str, int] = {}
    for record in records:
        configuration = json.dumps([record[name] for name in ARTICLE_SPACE])
        yield record["max_iter"] - (reached.get(configuration, 0) if continued else 0)
        reached[configuration] = record["max_iter"]


def known_before(records: list[Record], continued: bool) -> Iterator[Record]:
    """The evaluations that final results make needless: in all folds, training had ended by itself before.

    Trained again, they have seen as many epochs as at the lower budget; trained on, none.
    """
    below: dict[str, int] = {}
    for record in records:
        configuration = json.dumps([record[name] for name in ARTICLE_SPACE])
        if configuration in below and record["epochs"] == (0 if continued else below[configuration]):
            yield record
        below[configuration] = record["epochs"]


def saved_by_final_results(problem: Problem) -> Record:
    """What final results would have saved in each recorded run, with the same seeds and accuracies."""
    found: Record = {}
    for algorithm in STYLES:
        continued = algorithm.endswith("-continued")
        runs = [read_records(path) for path in recorded_runs(problem, algorithm)]
        for records in runs if algorithm.startswith(("hyperband", "bohb")) else []:
            needless = list(known_before(records, continued))
            figures = {
                "evaluations": [len(needless), len(records)],
                "epochs": [sum(record["epochs"] for record in each) for each in (needless, records)],
                "cpu_seconds": [sum(r["cpu_seconds"] for r in each) for each in (needless, records)],
            }
            found.setdefault(algorithm, []).append(figures)
    return found


def summarize(problem: Problem, curves: dict[str, list[Curve]]) -> Record:
    """Best accuracies and speed-ups over TPE: medians and quartiles over all pairs of seeds."""
    summary: Record = {
        **environment(),
        "versions": versions("scikit-learn"),
        "problem": {"max_budget": problem.max_budget, "folds": problem.folds},
        "best": {
            algorithm: {
                "seeds": len(runs),
                "accuracy": [run.accuracy[-1] for run in runs],
                **{unit: [run.spent[unit][-1] for run in runs] for unit in UNITS},
            }
            for algorithm, runs in curves.items()
        },
        "saved_by_final_results": saved_by_final_results(problem),
        "speedup_over_tpe": [],
    }
    for algorithm, count in itertools.product([name for name in curves if name != "tpe"], problem.targets):
        pairs = list(itertools.product(curves.get("tpe", []), curves[algorithm]))
        if not pairs:
            continue
        for unit in UNITS:
            ratios = []
            for tpe_run, run in pairs:
                target = tpe_run.accuracy[count - 1]
                ratios.append(tpe_run.cost(unit, target) / run.cost(unit, target))
            quartiles = np.quantile(ratios, [0.25, 0.5, 0.75], method="lower").tolist()
            summary["speedup_over_tpe"].append(
                {
                    "algorithm": algorithm,
                    "target": count,
                    "unit": unit,
                    "pairs": len(pairs),
                    "reached": sum(ratio > 0 for ratio in ratios),
                    "quartiles": quartiles,
                }
            )
    return summary


def print_summary(summary: Record) -> None:
    print(f"{'':20}{'seeds':>5} {'accuracy (range)':>24} " + " ".join(f"{UNITS[unit]:>16}" for unit in UNITS))
    for algorithm, best in summary["best"].items():
        accuracy = best["accuracy"]
        spread = f"{np.median(accuracy):.4f} ({min(accuracy):.4f}..{max(accuracy):.4f})"
        spent = " ".join(f"{np.median(best[unit]):16,.0f}" for unit in UNITS)
        print(f"{algorithm:20}{best['seeds']:5} {spread:>24} {spent}")
    print("\nwhat final results save, of all: median over seeds, which find the same")
    for algorithm, runs in summary["saved_by_final_results"].items():
        medians = {unit: np.median([run[unit] for run in runs], axis=0) for unit in runs[0]}
        shares = [f"{unit} {saved:,.0f} of {whole:,.0f}" for unit, (saved, whole) in medians.items()]
        print(f"{algorithm:20}" + ", ".join(shares))
    print(
        "\ntimes less than TPE spent until its best after so many evaluations, "
        "median (quartiles) over pairs of seeds"
    )
    for (algorithm, target), rows in itertools.groupby(
        summary["speedup_over_tpe"], key=lambda row: (row["algorithm"], row["target"])
    ):
        cells = list(rows)
        figures = "  ".join(f"{UNITS[row['unit']]} {_ratio(row)}" for row in cells)
        print(f"{algorithm:20}{target:4}: {figures}  reached {cells[0]['reached']} of {cells[0]['pairs']}")


def in_words(summary: Record) -> str:
    """The figure that matters most, as a sentence."""
    rows = {
        row["algorithm"]: row
        for row in summary["speedup_over_tpe"]
        if row["unit"] == "epochs" and row["quartiles"][1] > 0
    }  # of each algorithm, its highest target
    if not rows:
        return "In words: nothing has become as good as TPE yet."
    best = max(rows.values(), key=lambda row: (row["target"], row["quartiles"][1]))
    return (
        f"In words: to be as good as TPE after {best['target']} evaluations, {best['algorithm']} trained "
        f"{best['quartiles'][1]:.1f} times fewer epochs than TPE (median, seed against seed)."
    )


def _ratio(row: Record) -> str:
    low, median, high = (f"{ratio:.1f}" if ratio else "-" for ratio in row["quartiles"])
    return f"{median} ({low}..{high})" if row["quartiles"][1] else "not reached"


def draw(problem: Problem, curves: dict[str, list[Curve]], path: Path) -> None:
    """The incumbent's accuracy against what was spent: median and range over seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for ax, unit in zip(axes, ("epochs", "cpu_seconds"), strict=True):
        for algorithm, runs in curves.items():
            start = max(run.spent[unit][0] for run in runs)
            grid = np.geomspace(start, min(run.spent[unit][-1] for run in runs), 400)
            values = np.array(
                [
                    np.array(run.accuracy)[np.searchsorted(run.spent[unit], grid, side="right") - 1]
                    for run in runs
                ]
            )
            color, dashes = STYLES[algorithm]
            ax.plot(grid, np.median(values, axis=0), dashes, color=color, lw=2, label=algorithm)
            if dashes == "-":
                ax.fill_between(grid, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, lw=0)
        ax.set(xscale="log", xlabel=f"{UNITS[unit]}, all folds")
        ax.grid(alpha=0.3)
    best = max(run.accuracy[-1] for runs in curves.values() for run in runs)
    axes[0].set(
        ylabel=f"accuracy of the incumbent at {problem.max_budget} epochs", ylim=(best - 0.06, best + 0.004)
    )
    axes[0].legend(frameon=False, loc="lower right")
    seeds = {len(runs) for runs in curves.values()}
    figure.suptitle(f"digits, MLPClassifier, {problem.folds}-fold: median and range, seeds: {min(seeds)}")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the smaller problem")
    parser.add_argument("--no-runs", action="store_true", help="only summarise what is recorded")
    parser.add_argument("--seeds", type=int, nargs="+", help="to run; default: 0 to 4; quick: 0")
    parser.add_argument("--algorithms", nargs="+", default=list(STYLES), choices=list(STYLES))
    parser.add_argument("--iterations", type=int, help="of Hyperband and bohb; more go on with a run later")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one core each")
    arguments = parser.parse_args()
    problem = QUICK if arguments.quick else FULL
    problem = replace(problem, iterations=arguments.iterations or problem.iterations)
    seeds = arguments.seeds or ([0] if arguments.quick else range(5))
    if not arguments.no_runs:
        if arguments.quick:
            shutil.rmtree(problem.directory, ignore_errors=True)
        with ProcessPoolExecutor(arguments.workers) as executor:
            runs = {
                (name, seed): executor.submit(run, problem, name, seed)
                for seed in seeds
                for name in arguments.algorithms
            }
            watch(problem, runs)
    curves = {name: [read_curve(problem, path) for path in recorded_runs(problem, name)] for name in STYLES}
    curves = {name: runs for name, runs in curves.items() if runs}
    summary = summarize(problem, curves)
    print_summary(summary)
    write_text(problem.directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    draw(problem, curves, problem.directory / "article.png")
    print(f"\n{in_words(summary)}\n{problem.directory / 'summary.json'}\n{problem.directory / 'article.png'}")


if __name__ == "__main__":
    main()
