"""Tables and picture of the suite's runs.

Regret of a run at a total: the noise-free loss at max_budget of its incumbent then, less the optimum (or less
the best score of any run, where only that is known). Ranks are by mean regret over seeds, ties sharing the
mean of their ranks. The speed-up is TPE's total over another algorithm's, each counted until the median
regret over seeds first comes down to the one that TPE has at the target's total.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from problems import Problem
from recording import environment

Record = dict[str, Any]
Runs = Mapping[str, Mapping[str, Sequence[Record]]]
"""Records of runs, by problem and algorithm."""
UNITS = {"spent": "Total budget", "continued": "Total budget, continued training"}
"""A record's curve holds points [spent, continued, score]."""
GRID = [float(f"{total:.4g}") for total in np.geomspace(0.5, 200, 160)]
"""The totals at which curves are drawn and compared."""
COLORS = {"bohb": "#D55E00", "hyperband": "#0072B2", "tpe": "#000000", "random": "#999999"}
MORE_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#7B3294", "#66A61E")


def regrets(run: Record, totals: Iterable[float], unit: str, optimum: float) -> list[float]:
    """Regret at each total; NaN before the first incumbent and after the end of the run."""
    spent = [point[list(UNITS).index(unit)] for point in run["curve"]]
    found = []
    for total in totals:
        count = int(np.searchsorted(spent, total + 1e-6, side="right"))
        known = count > 0 and total <= run[unit] + 1e-6
        found.append(run["curve"][count - 1][2] - optimum if known else math.nan)
    return found


def lowest(problem: Problem, cells: Mapping[str, Sequence[Record]]) -> float:
    """The score to which regrets refer."""
    if problem.exact:
        return problem.optimum
    seen = (point[2] for runs in cells.values() for run in runs for point in run["curve"])
    return float(min(problem.optimum, *seen))


def mean_and_spread(values: Iterable[float]) -> list[float] | None:
    """Mean and standard deviation over seeds; None where a run is missing one."""
    values = list(values)
    if any(map(math.isnan, values)):
        return None
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def median_curve(runs: Sequence[Record], unit: str, optimum: float) -> list[float]:
    """Median regret over seeds along the grid; NaN where half of the runs or fewer have one."""
    columns = np.array([regrets(run, GRID, unit, optimum) for run in runs]).T
    return [
        float(np.nanmedian(column)) if 2 * np.isfinite(column).sum() > len(runs) else math.nan
        for column in columns
    ]


def speed_up(own: Sequence[float], tpe: Sequence[float], target: float) -> float | None:
    """TPE's total over one's own; None where its regret at the target's total was never reached."""
    regret = tpe[int(np.searchsorted(GRID, target + 1e-6)) - 1]

    def reached(curve: Sequence[float]) -> float | None:
        return next((total for total, value in zip(GRID, curve, strict=True) if value <= regret), None)

    ours, theirs = reached(own), reached(tpe)
    return None if ours is None or theirs is None else theirs / ours


def average_ranks(regret: Record, names: Sequence[str], column: int) -> dict[str, list[float] | None]:
    """For each algorithm, its rank averaged over the problems that it ran on, and their number.

    A problem counts where all algorithms that ran on it got as far as the total.
    """
    ranks: dict[str, list[float]] = {name: [] for name in names}
    for cells in regret.values():
        if any(cell[column] is None for cell in cells.values()):
            continue
        means = {name: cell[column][0] for name, cell in cells.items()}
        for name, mean in means.items():
            below = sum(other < mean for other in means.values())
            equal = sum(other == mean for other in means.values())
            ranks[name].append(below + (equal + 1) / 2)
    return {name: [float(np.mean(found)), len(found)] if found else None for name, found in ranks.items()}


def summarize(
    runs: Runs, problems: Mapping[str, Problem], totals: Sequence[float], targets: Sequence[float]
) -> Record:
    """All figures. Targets are TPE's totals: speed-ups compare with its regret there."""
    names = list(dict.fromkeys(name for cells in runs.values() for name in cells))
    optima = {problem: lowest(problems[problem], cells) for problem, cells in runs.items()}
    everything = [(name, run) for cells in runs.values() for name, found in cells.items() for run in found]
    summary: Record = {
        **environment(),
        "versions": {name: run["versions"] for name, run in reversed(everything)},
        "totals": list(totals),
        "targets": list(targets),
        "optima": optima,
        "seeds": {
            problem: {name: len(found) for name, found in cells.items()} for problem, cells in runs.items()
        },
        "time": {
            name: times([(problems[run["problem"]], run) for other, run in everything if other == name])
            for name in names
        },
    }
    for unit in UNITS:
        regret = {
            problem: {
                name: [
                    mean_and_spread(regrets(run, [total], unit, optima[problem])[0] for run in found)
                    for total in [*totals, *(targets if name == "tpe" else ())]
                ]
                for name, found in cells.items()
            }
            for problem, cells in runs.items()
        }
        curves = {
            problem: {name: median_curve(found, unit, optima[problem]) for name, found in cells.items()}
            for problem, cells in runs.items()
        }
        summary[unit] = {
            "regret": regret,
            "rank": [average_ranks(regret, names, column) for column in range(len(totals))],
            "speed_up": {
                problem: {
                    name: [speed_up(curve, cells["tpe"], target) for target in targets]
                    for name, curve in cells.items()
                }
                for problem, cells in curves.items()
                if "tpe" in cells
            },
        }
        if unit == "spent":
            summary["grid"], summary["median_curves"] = GRID, curves
    return summary


def merged(new: Record, stored: Record, problems: Mapping[str, Problem]) -> Record:
    """The new figures, and an earlier summary's where there are none, against the lower optimum of both.

    Both have the same totals and targets.
    """
    names = list(dict.fromkeys([*stored["time"], *new["time"]]))
    optima = stored["optima"] | new["optima"]
    for problem, optimum in stored["optima"].items():
        if not problems[problem].exact:  # that of an exact one is the same in both, and rounded in one
            optima[problem] = min(optimum, optima[problem])
    summary = {"time": stored["time"] | new["time"], "versions": {}}
    for of in (stored, new):
        for name, numbers in of["versions"].items():
            summary["versions"][name] = {"run": of["date"], **numbers}
    summary |= {key: new[key] for key in ("date", "machine", "totals", "targets", "grid")}
    summary |= {"optima": optima, "time": {name: summary["time"][name] for name in names}}
    summary["seeds"] = _joined(stored["seeds"], new["seeds"])

    def lifted(of: Record, problem: str, values: Sequence[Any]) -> list[Any]:
        """Regrets, or pairs of regret and spread, against the lower optimum."""
        more = 0.0 if problems[problem].exact else of["optima"][problem] - optima[problem]
        return [
            [value[0] + more, value[1]]
            if isinstance(value, list)
            else None
            if value is None
            else value + more
            for value in values
        ]

    def all_lifted(*path: str) -> Record:
        found = []
        for of in (stored, new):
            cells = functools.reduce(lambda record, key: record[key], path, of)
            found.append(
                {
                    problem: {name: lifted(of, problem, values) for name, values in by_name.items()}
                    for problem, by_name in cells.items()
                }
            )
        return _joined(*found)

    summary["median_curves"] = all_lifted("median_curves")
    for unit in UNITS:
        regret = all_lifted(unit, "regret")
        ranks = [average_ranks(regret, names, column) for column in range(len(new["totals"]))]
        speed_ups = _joined(stored[unit]["speed_up"], new[unit]["speed_up"])
        summary[unit] = {"regret": regret, "rank": ranks, "speed_up": speed_ups}
    for problem, curves in summary["median_curves"].items():
        with_nan = {name: [math.nan if x is None else x for x in curve] for name, curve in curves.items()}
        summary["spent"]["speed_up"][problem] = {
            name: [speed_up(curve, with_nan["tpe"], target) for target in new["targets"]]
            for name, curve in with_nan.items()
            if "tpe" in with_nan
        }
        summary["median_curves"][problem] = with_nan
    return summary


def _joined(old: Record, new: Record) -> Record:
    return {key: old.get(key, {}) | new.get(key, {}) for key in dict.fromkeys([*old, *new])}


def times(runs: Sequence[tuple[Problem, Record]]) -> Record:
    """CPU milliseconds an evaluation: the whole run's where nothing is trained, and those of suggest."""
    found: Record = {}
    whole = [1000 * run["cpu_seconds"] / run["evaluations"] for problem, run in runs if not problem.trains]
    if whole:
        found["run"] = float(np.median(whole))
    for key in ("suggest", "suggest_sample", "tpe_sample"):
        if measured := [run["suggest_ms"][key] for _, run in runs if key in run["suggest_ms"]]:
            found[key] = float(np.mean(measured))
    if "tpe_sample" in found:
        found["ratio"] = found["suggest_sample"] / found["tpe_sample"]
    return found


def markdown(summary: Record, labels: Mapping[str, str], left_out: Mapping[str, str]) -> str:
    """The tables."""
    heads = {name: labels.get(name, name) for name in summary["time"]}
    lines = [
        "# Suite",
        "",
        f"{summary['date']}, {summary['machine']}. Totals in multiples of max_budget. Regret of the "
        "incumbent: mean ± standard deviation over seeds (how many, where it is fewer than 10). A total that "
        "no problem's runs have all reached has no rank: with --stop spent, the largest one, continued.",
        "",
        *rank_table(summary, heads),
    ]
    for column in range(len(summary["totals"])):
        lines += ["", *regret_table(summary, heads, column)]
    lines += ["", *speed_up_table(summary, heads), "", *time_table(summary, heads), "", "## Versions", ""]
    for name, head in heads.items():
        numbers = (f"{package} {number}" for package, number in summary["versions"][name].items())
        lines.append(f"- {head}: {', '.join(numbers)}")
    lines += [f"- {labels.get(name, name)} is left out: {reason}" for name, reason in left_out.items()]
    return "\n".join(lines) + "\n"


def rank_table(summary: Record, heads: Mapping[str, str]) -> list[str]:
    totals = summary["totals"]
    middle = len(totals) // 2
    rows = []
    for name, head in heads.items():
        ranks = [ranks[name] for unit in UNITS for ranks in summary[unit]["rank"]]
        found = [f"{rank[0]:.2f} ({rank[1]:.0f})" if rank else "" for rank in ranks]
        rows.append([head, *found, as_good_as_tpe(summary["spent"]["regret"], name, middle)])
    columns = [f"{total:g} x{unit}" for unit in ("", ", continued") for total in totals]
    aim = f"problems where {totals[middle]:g} x is as good as tpe at {summary['targets'][-1]:g} x"
    cells = [["", *columns, aim], *rows]
    filled = [any(column[1:]) for column in zip(*cells, strict=True)]
    header, *rows = (list(itertools.compress(row, filled)) for row in cells)
    return ["## Average rank by mean regret (over so many problems)", "", *table(header, rows)]


def as_good_as_tpe(regret: Record, name: str, column: int) -> str:
    """On how many problems the mean regret at a total is at most TPE's at the last target."""
    pairs = [
        (cells[name][column][0], cells["tpe"][-1][0])
        for cells in regret.values()
        if name in cells and cells[name][column] and "tpe" in cells and cells["tpe"][-1]
    ]
    return f"{sum(own <= tpe for own, tpe in pairs)} of {len(pairs)}"


def regret_table(summary: Record, heads: Mapping[str, str], column: int) -> list[str]:
    rows = []
    for problem, regret in summary["spent"]["regret"].items():
        found = {name: cells[column] for name, cells in regret.items() if cells[column]}
        best = min((mean for mean, _ in found.values()), default=math.nan)
        row = [problem]
        for name in heads:
            if name not in found:
                row.append("")
                continue
            mean, spread = found[name]
            text = f"{mean:.3g} ± {spread:.2g}"
            seeds = summary["seeds"][problem][name]
            row.append((f"**{text}**" if mean == best else text) + (f" ({seeds})" if seeds < 10 else ""))
        longer = regret["tpe"][-1] if "tpe" in regret else None
        rows.append([*row, f"{longer[0]:.3g}" if longer else ""])
    last = f"tpe at {summary['targets'][-1]:g} x"
    return [f"## Regret at {summary['totals'][column]:g} x", "", *table(["", *heads.values(), last], rows)]


def speed_up_table(summary: Record, heads: Mapping[str, str]) -> list[str]:
    """By problem, and the median over problems, where a regret never reached counts as none."""
    speed_ups, (early, late) = summary["spent"]["speed_up"], summary["targets"]
    rows = [
        [problem, *(", ".join(map(_ratio, cells.get(name, []))) for name in heads)]
        for problem, cells in speed_ups.items()
    ]
    medians = ["median"]
    for name in heads:
        pairs = [cells[name] for cells in speed_ups.values() if name in cells]
        ratios = [float(np.median([ratio or 0 for ratio in column])) for column in zip(*pairs, strict=True)]
        medians.append(", ".join(map(_ratio, ratios)))
    title = f"## TPE's total over the algorithm's, for TPE's median regret at {early:g} x, at {late:g} x"
    return [title, "", *table(["", *heads.values()], [*rows, medians])]


def _ratio(ratio: float | None) -> str:
    return f"{ratio:.1f}" if ratio else "-"


def time_table(summary: Record, heads: Mapping[str, str]) -> list[str]:
    keys = ("run", "suggest", "suggest_sample", "tpe_sample", "ratio")
    columns = ["whole run", "suggest", "suggest, each tenth", "tpe.suggest on the same trials", "ratio"]
    rows = []
    for name, head in heads.items():
        time = summary["time"][name]
        rows.append([head, *(f"{time[key]:.2f}" if key in time else "" for key in keys)])
    title = "## CPU milliseconds an evaluation (whole run: where nothing is trained)"
    return [title, "", *table(["", *columns], rows)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]


def draw(summary: Record, labels: Mapping[str, str], path: Path) -> None:
    """Median regret against total budget, problem by problem."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    more = itertools.cycle(MORE_COLORS)
    colors = {name: COLORS.get(name) or next(more) for name in summary["time"]}
    curves = summary["median_curves"]
    columns = min(4, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.3 * columns, 2.5 * rows + 0.8), layout="constrained", squeeze=False
    )
    handles = {}
    for ax, (problem, by_name) in zip(axes.flat, curves.items(), strict=False):
        for name, curve in by_name.items():
            above = [value if value > 0 else math.nan for value in curve]
            width = 2.2 if name in ("bohb", "hyperband") else 1.1
            [handles[name]] = ax.plot(
                summary["grid"], above, color=colors[name], lw=width, zorder=2 + (name == "bohb")
            )
        ax.set(xscale="log", yscale="log", xlim=(1, summary["targets"][-1]))
        ax.set_title(problem, fontsize=9)
        ax.tick_params(which="both", labelsize=7)
        ax.grid(alpha=0.3)
    for ax in list(axes.flat)[len(curves) :]:
        ax.axis("off")
    figure.legend(
        [handles[name] for name in colors],
        [labels.get(name, name) for name in colors],
        loc="outside upper center",
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    figure.supxlabel("total budget, multiples of max_budget", fontsize=9)
    figure.supylabel("regret of the incumbent, median over seeds", fontsize=9)
    figure.savefig(path, dpi=64, pil_kwargs={"optimize": True})
    plt.close(figure)


def rounded(value: Any) -> Any:
    """The same in four digits, with None for NaN: plain JSON, and short."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    return value
