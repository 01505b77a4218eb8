"""Hyperband and its model against peers, on many problems, at equal total budget.

    python benchmarks/suite.py --install optuna       make the environment of a peer
    python benchmarks/suite.py                        run what is not there yet, then print and draw
    python benchmarks/suite.py --no-runs              table, JSON and picture of the runs there are

A run is one algorithm on one problem with one seed. It is stored when it is done, and only a run that is not
stored is run. Algorithms of Hyperopt run through fmin; a peer runs in a process and an environment of its
own and asks for each evaluation over a pipe (peers/protocol.py), so that all see the same losses.

Total budget: the sum of the budgets of all evaluations, in multiples of max_budget. "Spent" charges a
promoted evaluation in full, but only the difference where the package itself goes on with the training
(Optuna, Syne Tune); "continued" charges everyone the difference. The incumbent is the lowest loss seen at
the largest budget evaluated so far; its regret is its noise-free loss at max_budget, less the optimum.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import math
import os
import platform
import signal
import subprocess
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a run takes one core

import numpy as np
from problems import Params, Problem, all_problems, flat, load

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "suite"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hyperopt_hyperband"
OWN = ("random", "tpe", "hyperband", "bohb")
TOTALS = (10, 30, 100)
TPE_LONGER = 2
"""TPE runs so many times longer than the others: its regret at both totals is the speed-ups' target."""


@dataclass(frozen=True)
class Peer:
    """Another package, its algorithm, and what its environment needs."""

    package: str
    label: str
    requirements: tuple[str, ...]
    note: str = ""


HPBANDSTER = ("hpbandster==0.7.4", "numpy==1.23.5", "ConfigSpace==0.6.1", "setuptools<70")
# torch comes first: on its own it may be a CPU build.
NEPS = ("torch==2.13.0", "neural-pipeline-search==0.17.0")
PEERS = {
    "hpbandster_bohb": Peer("hpbandster", "HpBandSter BOHB", HPBANDSTER),
    "optuna_hyperband": Peer("optuna", "Optuna Hyperband+TPE", ("optuna==5.0.0",)),
    "dehb": Peer("dehb", "DEHB", ("dehb==0.1.2",)),
    "syne_tune_asha": Peer("syne_tune", "Syne Tune ASHA", ("syne-tune==0.16.0",)),
    "smac_hyperband": Peer("smac", "SMAC multi-fidelity", ("smac==2.4.1",), "needs swig to build pyrfr"),
    "neps_hyperband": Peer("neps", "NePS Hyperband", NEPS),
    "neps_priorband": Peer("neps", "NePS PriorBand", NEPS),
}


@dataclass(frozen=True)
class Places:
    """Where environments and runs are kept."""

    environments: Path
    runs: Path
    limit: float

    def python(self, peer: Peer) -> Path:
        return self.environments / f"venv-{peer.package}" / "bin" / "python"

    def run(self, problem: str, algorithm: str, seed: int) -> Path:
        return self.runs / problem / f"{algorithm.partition('=')[0]}-{seed}.json"


@dataclass
class Run:
    """One run, as it goes: charges evaluations, keeps the incumbent, and its score whenever it changes.

    curve holds [spent, continued, score], the totals as multiples of max_budget.
    """

    problem: str
    algorithm: str
    seed: int
    total: float
    stop: str = "continued"
    spent: float = 0.0
    continued: float = 0.0
    evaluations: int = 0
    curve: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    suggest_ms: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._problem = load(self.problem)
        self._reached: dict[str, float] = {}
        self._incumbent: tuple[float, float] = (0.0, math.inf)

    @property
    def done(self) -> bool:
        return (self.spent if self.stop == "spent" else self.continued) >= self.total - 1e-9

    def evaluate(self, params: Params, budget: float, continued: bool = False) -> float:
        """One evaluation: its loss. continued: the algorithm goes on with the training by itself."""
        problem = self._problem
        params = flat(params)
        budget = round(min(float(budget), problem.max_budget), 6)
        loss = problem.evaluate(params, budget, self.seed)
        configuration = repr(sorted(params.items()))
        reached = self._reached.get(configuration, 0.0)
        below = reached if reached < budget else 0.0
        self._reached[configuration] = max(reached, budget)
        self.spent += (budget - below if continued else budget) / problem.max_budget
        self.continued += (budget - below) / problem.max_budget
        self.evaluations += 1
        if (budget, -loss) > (self._incumbent[0], -self._incumbent[1]):
            self._incumbent = (budget, loss)
            score = float(f"{problem.score(params):.6g}")
            if not self.curve or self.curve[-1][2] != score:
                self.curve.append([round(self.spent, 3), round(self.continued, 3), score])
        return loss

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "spent": round(self.spent, 3), "continued": round(self.continued, 3)}


def run(problem: str, algorithm: str, seed: int, total: float, stop: str, places: Places) -> dict[str, Any]:
    """One run, stored when it is done."""
    state = Run(problem, algorithm, seed, total, stop)
    start = time.perf_counter()
    if algorithm in PEERS:
        run_peer(state, PEERS[algorithm], places)
    else:
        run_hyperopt(state)
    state.seconds = round(time.perf_counter() - start, 2)
    record = state.record()
    path = places.run(problem, algorithm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    partial.replace(path)
    return record


# Hyperopt's algorithms


def resolve(algorithm: str) -> Callable[..., Any]:
    """The suggest function of a name, or of "any label=module:function"."""
    module = {"random": "hyperopt.rand", "tpe": "hyperopt.tpe"}.get(
        algorithm, f"hyperopt_hyperband.{algorithm}"
    )
    name = "suggest"
    if "=" in algorithm:
        module, _, name = algorithm.partition("=")[2].partition(":")
    suggest: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return suggest


def run_hyperopt(state: Run) -> None:
    from hyperopt import Trials, fmin, tpe

    from hyperopt_hyperband import hyperband

    suggest = resolve(state.algorithm)
    problem = load(state.problem)
    knows_budgets = state.algorithm not in ("random", "tpe")
    seconds: defaultdict[str, list[float]] = defaultdict(list)

    def timed(new_ids: Any, domain: Any, trials: Any, seed: int) -> Any:
        # TPE's own time on the same trials, now and then: its answer is thrown away.
        if knows_budgets and len(seconds["own"]) % 10 == 9:
            start = time.perf_counter()
            tpe.suggest(new_ids, domain, trials, seed)
            seconds["tpe"].append(time.perf_counter() - start)
            label = "beside tpe"
        else:
            label = "own"
        start = time.perf_counter()
        documents = suggest(new_ids, domain, trials, seed)
        elapsed = time.perf_counter() - start
        seconds["own"].append(elapsed)
        if label == "beside tpe":
            seconds[label].append(elapsed)
        return documents

    def objective(params: Params) -> float:
        params = dict(params)
        return state.evaluate(params, params.pop("budget"))

    fmin(
        objective,
        problem.space | {"budget": hyperband.budget("budget", problem.min_budget, problem.max_budget)},
        algo=timed,
        max_evals=10**6,
        trials=Trials(),
        rstate=np.random.default_rng(state.seed),
        early_stop_fn=lambda _trials, *args: (state.done, args),
        verbose=False,
    )
    state.suggest_ms = {
        label: round(1000 * float(np.mean(times)), 3) for label, times in seconds.items() if times
    }
    names = ("hyperopt", "hyperopt-hyperband", "numpy", "scikit-learn")
    state.versions = {"python": platform.python_version()} | {name: version(name) for name in names}


# Peers


def install(package: str, places: Places) -> None:
    """Make the environment of a peer."""
    peers = [peer for peer in PEERS.values() if peer.package == package]
    if not peers:
        known = sorted({peer.package for peer in PEERS.values()})
        raise SystemExit(f"--install {package}: pass one of {', '.join(known)}")
    python = places.python(peers[0])
    venv.create(python.parent.parent, with_pip=True)
    for requirement in peers[0].requirements[:1], peers[0].requirements:
        subprocess.run([python, "-m", "pip", "install", "-q", *requirement], check=True)


def run_peer(state: Run, peer: Peer, places: Places) -> None:
    """Serve a peer's process until the total budget is spent, or its time is up."""
    script = HERE / "peers" / f"run_{peer.package}.py"
    mode = state.algorithm.removeprefix(f"{peer.package}_")
    task = load(state.problem).description() | {"mode": mode, "seed": state.seed, "total": state.total}
    deadline = time.monotonic() + places.limit
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "errors", "w+") as errors:
        process = subprocess.Popen(
            [places.python(peer), script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                asked = json.loads(line)
                if not state.versions:
                    state.versions = asked
                    continue
                loss = state.evaluate(asked["params"], asked["budget"], asked["continued"])
                if state.done or time.monotonic() > deadline:
                    return
                process.stdin.write(f"{loss!r}\n")
                process.stdin.flush()
            errors.seek(0)
            raise RuntimeError(f"{script.name} ended early: {errors.read()[-2000:]}")
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# What came out


def read_runs(
    places: Places, problems: Iterable[str], algorithms: Iterable[str], seeds: Iterable[int]
) -> Runs:
    """The stored runs, by problem and algorithm."""
    runs: Runs = {}
    seeds = list(seeds)
    algorithms = list(algorithms)
    for problem in problems:
        for algorithm in algorithms:
            paths = [places.run(problem, algorithm, seed) for seed in seeds]
            found = [json.loads(path.read_text()) for path in paths if path.exists()]
            if found:
                runs.setdefault(problem, {})[algorithm.partition("=")[0]] = found
    return runs


Runs = dict[str, dict[str, list[dict[str, Any]]]]
COLUMN = {"spent": 0, "continued": 1}


def regrets(run: dict[str, Any], totals: Sequence[float], unit: str, floor: float) -> list[float]:
    """Regret of the incumbent at each total; NaN where the run did not get so far, or had none yet."""
    spent = [point[COLUMN[unit]] for point in run["curve"]]
    index = np.searchsorted(spent, np.asarray(totals) + 1e-6, side="right") - 1
    return [
        run["curve"][i][2] - floor if i >= 0 and total <= run[unit] + 1e-6 else math.nan
        for i, total in zip(index, totals, strict=True)
    ]


def lowest(problem: Problem, runs: dict[str, list[dict[str, Any]]]) -> float:
    """The score to which regrets refer: the optimum, or the best of all runs where only that is known."""
    if problem.exact:
        return problem.optimum
    seen = [point[2] for found in runs.values() for run in found for point in run["curve"]]
    return float(min([problem.optimum, *seen]))


def median_curve(runs: list[dict[str, Any]], grid: Sequence[float], unit: str, floor: float) -> list[float]:
    """Median regret over seeds at each total of the grid; NaN until most runs have an incumbent."""
    table = np.array([regrets(run, grid, unit, floor) for run in runs])
    alone = np.isnan(table).sum(axis=0) * 2 > len(runs)
    with np.errstate(all="ignore"):
        return np.where(alone, math.nan, np.nanmedian(np.where(alone, 0.0, table), axis=0)).tolist()  # type: ignore[no-any-return]


GRID = tuple(float(f"{total:.4g}") for total in np.geomspace(0.5, 200, 160))


def speed_up(own: list[float], tpe: list[float], at: float) -> float | None:
    """TPE's total over ours for the regret that TPE has at a total. None: that regret was not reached.

    Both totals are where the median curve first comes down to the target.
    """
    reached = [regret for total, regret in zip(GRID, tpe, strict=True) if total <= at + 1e-6]
    if not reached or math.isnan(reached[-1]):
        return None
    target = reached[-1] + 1e-12
    first = [
        next((total for total, regret in zip(GRID, curve, strict=True) if regret <= target), None)
        for curve in (own, tpe)
    ]
    return None if first[0] is None or first[1] is None else round(first[1] / first[0], 2)


def summarize(runs: Runs, totals: Sequence[float]) -> dict[str, Any]:
    """Regrets by problem and algorithm, average ranks, speed-ups over TPE, and suggest's time."""
    problems = all_problems()
    names = sorted({name for cells in runs.values() for name in cells}, key=_order)
    targets = [max(totals), TPE_LONGER * max(totals)]
    floors = {problem: lowest(problems[problem], cells) for problem, cells in runs.items()}
    summary: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            name: next(run["versions"] for cells in runs.values() for run in cells.get(name, []))
            for name in names
        },
        "totals": list(totals),
        "targets": targets,
        "lowest": floors,
        "seeds": {
            problem: {name: len(found) for name, found in cells.items()} for problem, cells in runs.items()
        },
        "units": {},
        "grid": [],
        "curves": {},
        "milliseconds": {},
        "suggest_ms": {},
    }
    for unit in COLUMN:
        table: dict[str, Any] = {}
        for problem, cells in runs.items():
            table[problem] = {
                name: [
                    _mean_and_spread(values)
                    for values in np.array([regrets(run, totals, unit, floors[problem]) for run in found]).T
                ]
                for name, found in cells.items()
            }
        curves = {
            problem: {name: median_curve(found, GRID, unit, floors[problem]) for name, found in cells.items()}
            for problem, cells in runs.items()
        }
        speed_ups = {
            name: {
                str(at): {
                    problem: speed_up(by_name[name], by_name["tpe"], at)
                    for problem, by_name in curves.items()
                    if name in by_name and "tpe" in by_name
                }
                for at in targets
            }
            for name in names
        }
        tpe_longer = {
            problem: _mean_and_spread(
                np.array([regrets(run, targets[1:], unit, floors[problem])[0] for run in cells["tpe"]])
            )
            for problem, cells in runs.items()
            if "tpe" in cells
        }
        summary["units"][unit] = {
            "regret": table,
            "rank": ranks(table, names, len(totals)),
            "speed_up_over_tpe": speed_ups,
            "tpe_longer": tpe_longer,
        }
        if unit == "spent":
            summary["curves"] = curves
    summary["grid"] = list(GRID)
    for name in names:
        found = [run for cells in runs.values() for run in cells.get(name, [])]
        cheap = [run for run in found if not problems[run["problem"]].trains]
        if cheap:
            each = [1000 * run["seconds"] / run["evaluations"] for run in cheap]
            summary["milliseconds"][name] = round(float(np.median(each)), 2)
        own = [run["suggest_ms"] for run in found if "own" in run["suggest_ms"]]
        if own:
            summary["suggest_ms"][name] = {"own": round(float(np.mean([ms["own"] for ms in own])), 3)}
        beside = [(ms["beside tpe"], ms["tpe"]) for ms in own if "tpe" in ms]
        if beside:
            ratio = float(np.mean([b for b, _ in beside]) / np.mean([t for _, t in beside]))
            summary["suggest_ms"][name]["tpe"] = round(float(np.mean([t for _, t in beside])), 3)
            summary["suggest_ms"][name]["ratio"] = round(ratio, 3)
    return summary


def _mean_and_spread(values: Any) -> list[float] | None:
    """Mean and standard deviation over the seeds; None where no run got there."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return [float(f"{v:.4g}") for v in (values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0)]


def ranks(table: dict[str, Any], names: Sequence[str], totals: int) -> dict[str, list[Any]]:
    """For each algorithm and total: the average over problems of its rank by mean regret, and of how many.

    Ties share their ranks' mean.
    """
    average: dict[str, list[Any]] = {name: [] for name in names}
    for column in range(totals):
        collected: dict[str, list[float]] = {name: [] for name in names}
        for cells in table.values():
            means = {name: cell[column][0] for name, cell in cells.items() if cell[column] is not None}
            for name, mean in means.items():
                below = sum(other < mean for other in means.values())
                same = sum(other == mean for other in means.values())
                collected[name].append(below + (same + 1) / 2)
        for name, found in collected.items():
            average[name].append([round(float(np.mean(found)), 2), len(found)] if found else None)
    return average


def run_all(options: argparse.Namespace, places: Places) -> None:
    """Run what is not stored yet."""
    jobs = []
    for seed in options.seeds:
        for problem in options.problems:
            for algorithm in options.algorithms:
                total = max(options.totals) * (TPE_LONGER if algorithm == "tpe" else 1)
                path = places.run(problem, algorithm, seed)
                if not reason_left_out(algorithm, places) and not is_stored(path, total, options.stop):
                    jobs.append((problem, algorithm, seed, total, options.stop, places))
    start = time.monotonic()
    with ProcessPoolExecutor(options.workers) as executor:
        futures = {executor.submit(run, *job): job for job in jobs}
        for count, future in enumerate(as_completed(futures), 1):
            problem, algorithm, seed, *_ = futures[future]
            try:
                record = future.result()
                news = f"{record['evaluations']} evaluations, {record['seconds']:.1f} s, score "
                news += str(record["curve"][-1][2])
            except Exception as error:
                news = f"failed: {error}"
            elapsed = time.monotonic() - start
            print(f"{count}/{len(jobs)} {elapsed:.0f} s: {problem} {algorithm} {seed}: {news}", flush=True)


def is_stored(path: Path, total: float, stop: str) -> bool:
    if not path.exists():
        return False
    stored = json.loads(path.read_text())
    return stored["total"] >= total and stored["stop"] in (stop, "continued")


def reason_left_out(algorithm: str, places: Places) -> str:
    """Why an algorithm can't run here; empty where it can."""
    if algorithm in PEERS:
        peer = PEERS[algorithm]
        if places.python(peer).exists():
            return ""
        return f"no environment (--install {peer.package}{'; ' + peer.note if peer.note else ''})"
    try:
        resolve(algorithm)
    except ImportError as error:
        return str(error)
    return ""


def _order(name: str) -> tuple[int, str]:
    known = [*OWN, *PEERS]
    return (known.index(name) if name in known else len(known), name)


def label(name: str) -> str:
    return PEERS[name].label if name in PEERS else name


def markdown(summary: dict[str, Any], left_out: dict[str, str]) -> str:
    """The tables, for people."""
    totals = summary["totals"]
    early, late = summary["targets"]
    names = list(summary["versions"])
    lines = [
        "# Suite",
        "",
        f"{summary['date']}, {summary['machine']}. Regret of the incumbent, mean ± standard deviation over "
        "seeds; ranks by mean regret, averaged over problems. Totals in multiples of max_budget.",
    ]
    for unit, title in [("spent", "Total budget"), ("continued", "Total budget, continued training")]:
        figures = summary["units"][unit]
        lines += ["", f"## {title}", "", "Average rank (of how many problems):", ""]
        lines += _table(
            ["", *(f"{total:g} x" for total in totals)],
            [
                [label(name), *(f"{c[0]:.2f} ({c[1]})" if c else "" for c in figures["rank"][name])]
                for name in names
            ],
        )
        if unit == "continued":
            continue
        for column, total in enumerate(totals):
            rows = []
            for problem, cells in figures["regret"].items():
                row = [problem]
                means = {name: cell[column][0] for name, cell in cells.items() if cell[column]}
                for name in names:
                    cell = cells.get(name, [None] * len(totals))[column]
                    seeds = summary["seeds"][problem].get(name, 0)
                    text = f"{cell[0]:.3g} ± {cell[1]:.2g}" if cell else ""
                    if cell and cell[0] == min(means.values()):
                        text = f"**{text}**"
                    row.append(text + (f" ({seeds})" if cell and seeds < 10 else ""))
                longer = figures["tpe_longer"].get(problem)
                rows.append([*row, f"{longer[0]:.3g}" if longer else ""])
            lines += ["", f"### Regret at {total:g} x max_budget", ""]
            lines += _table(["", *map(label, names), f"tpe at {late:g} x"], rows)
        lines += [
            "",
            f"### Times less than TPE for the regret that it has at {early:g} x, and at {late:g} x",
            "",
        ]
        rows = []
        for problem in figures["regret"]:
            row = [problem]
            for name in names:
                ratios = [
                    figures["speed_up_over_tpe"][name][str(at)].get(problem) for at in summary["targets"]
                ]
                row.append(", ".join(f"{ratio:.1f}" if ratio else "-" for ratio in ratios))
            rows.append(row)
        lines += _table(["", *map(label, names)], rows)
    lines += ["", "## Time", "", "Milliseconds an evaluation on problems that train nothing:", ""]
    lines += _table(
        ["", "all", "suggest", "tpe.suggest beside it", "ratio"],
        [
            [label(name), f"{summary['milliseconds'].get(name, math.nan):.1f}"]
            + [str(summary["suggest_ms"].get(name, {}).get(key, "")) for key in ("own", "tpe", "ratio")]
            for name in names
        ],
    )
    lines += ["", "## Versions", ""]
    lines += [
        f"- {label(name)}: " + ", ".join(f"{package} {number}" for package, number in versions.items())
        for name, versions in summary["versions"].items()
    ]
    lines += [f"- {label(name)} is left out: {reason}" for name, reason in left_out.items()]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def draw(summary: dict[str, Any], path: Path) -> None:
    """Median regret against total budget, problem by problem."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(summary["versions"])
    strong = {"bohb": "#D55E00", "hyperband": "#0072B2", "tpe": "#000000", "random": "#999999"}
    rest = iter(["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#7B3294", "#66A61E", "#B15928"])
    colors = {name: strong.get(name) or next(rest) for name in names}
    columns = 4 if len(summary["curves"]) > 4 else len(summary["curves"])
    rows = math.ceil(len(summary["curves"]) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.5 * rows + 0.6), layout="constrained", squeeze=False
    )
    for ax, (problem, curves) in zip(axes.flat, summary["curves"].items(), strict=False):
        smallest = math.inf
        for name in names:
            if name in curves:
                curve = np.array(curves[name], dtype=float)
                curve = np.where(curve > 0, curve, np.nan)
                smallest = min(smallest, np.nanmin(curve, initial=math.inf))
                own = name in ("bohb", "hyperband")
                ax.plot(summary["grid"], curve, color=colors[name], lw=2 if own else 1.1, label=label(name))
        ax.set(xscale="log", yscale="log", xlim=(1, 200))
        ax.set_title(problem, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
    for ax in list(axes.flat)[len(summary["curves"]) :]:
        ax.axis("off")
    handles = {
        text: handle for ax in axes.flat for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    figure.supxlabel("total budget, multiples of max_budget", fontsize=9)
    figure.supylabel("regret of the incumbent, median over seeds", fontsize=9)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _rounded(value: Any) -> Any:
    """The same with four digits, and None for NaN."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", metavar="PEER", help="make the environment of a peer, and stop")
    parser.add_argument("--algorithms", nargs="+", default=[*OWN, *PEERS])
    parser.add_argument("--problems", nargs="+", default=list(all_problems()))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--totals", nargs="+", type=float, default=list(TOTALS))
    parser.add_argument("--stop", choices=list(COLUMN), default="continued", help="the total that ends a run")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that a peer's run may take")
    parser.add_argument("--environments", type=Path, default=CACHE, help="where peers' environments are")
    parser.add_argument("--runs", type=Path, default=CACHE / "suite", help="where runs are stored")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where table and picture go")
    parser.add_argument("--no-runs", action="store_true", help="only summarise what is stored")
    options = parser.parse_args(argv)
    places = Places(options.environments.resolve(), options.runs.resolve(), options.limit)
    if options.install:
        install(options.install, places)
        return
    if not options.no_runs:
        run_all(options, places)
    runs = read_runs(places, options.problems, options.algorithms, options.seeds)
    if not runs:
        raise SystemExit(f"no runs in {places.runs}")
    summary = summarize(runs, options.totals)
    seen = {name for cells in runs.values() for name in cells}
    left_out = {name: reason_left_out(name, places) for name in options.algorithms if name not in seen}
    table = markdown(summary, left_out)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "suite.md").write_text(table)
    (options.results / "suite.json").write_text(json.dumps(_rounded(summary), separators=(",", ":")) + "\n")
    draw(summary, options.results / "suite.png")
    print(table)


if __name__ == "__main__":
    main()
