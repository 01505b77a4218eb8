"""Pictures of a run, by matplotlib (extra `plots`), in colours that all eyes and a grey print tell apart.

Every function takes the trials of a run in any state, draws into `ax` where it is given and returns its Axes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from hyperopt.base import Trials

from hyperopt_hyperband import _evaluations as read
from hyperopt_hyperband import _space as spaces
from hyperopt_hyperband._call import shows_its_call
from hyperopt_hyperband._evaluations import Evaluation
from hyperopt_hyperband._schedule import Budget, shown
from hyperopt_hyperband._stamps import newest_schedule
from hyperopt_hyperband._values import number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DARK = "#0B4A8A"
KINDS = {
    "not promoted": ("#C0C0C0", 4.0, 0.0),
    "promoted": ("#56B4E9", 4.0, 1.0),
    "reached max_budget": (DARK, 5.0, 1.8),
}
"""Colour, marker size and line width of a configuration by how far it got: the darker, the farther."""
LINES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#000000", "^"),
    ("#009E73", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
)
"""Okabe and Ito's colours, safe for all eyes, each with a marker for a print without colours."""
Against = Literal["evaluations", "total_budget", "seconds"]
SECONDS = "seconds since the first evaluation began"
AXIS = {"evaluations": "evaluations", "total_budget": "total budget", "seconds": SECONDS}


@shows_its_call
def evaluations(trials: Trials, *, ax: Axes | None = None) -> Axes:
    """Every evaluation by budget and loss: one line a configuration, through its rungs.

    Configurations that reached max_budget stand out, those that were promoted less so; where a result is
    final, the line goes on without a dot. A star marks the incumbent, crosses at the upper edge failures. A
    trial without a budget counts as evaluated at max_budget, and is left out where none is known.
    """
    plan = newest_schedule(trials)
    everything = [e for e in read.evaluations(trials) if e.budget is not None]
    [ax] = _panels(ax, 1)
    lines: defaultdict[Hashable, list[Evaluation]] = defaultdict(list)
    for e in everything:
        if e.loss is not None:
            lines[e.config].append(e)
    for line in lines.values():
        line.sort(key=lambda e: e.spent)
        known = [e for e in line[-1:] if e.known_at != e.spent]
        full = line[-1].known_at == (plan and plan.max_budget)
        kind = "reached max_budget" if full else "promoted" if len(line) > 1 else "not promoted"
        color, size, width = KINDS[kind]
        ax.plot(
            [e.spent for e in line] + [e.known_at for e in known],
            _losses([*line, *known]),
            "o-",
            markevery=range(len(line)),
            color=color,
            markersize=size,
            linewidth=width,
            zorder=2 + 0.1 * list(KINDS).index(kind),
            label=kind,
        )
    _mark_incumbent(ax, everything, [(e, e.known_at or e.spent) for e in everything])
    _mark_failures(ax, [e.spent for e in everything if e.status == "failed"])
    _scale_losses(ax, everything)
    if ticks := sorted({b for e in everything for b in (e.budget, e.known_at) if b is not None}):
        ax.set_xscale("log")
        ax.set_xticks(ticks, [shown(tick) for tick in ticks])
        ax.minorticks_off()
    _legend([ax])
    ax.set(xlabel="share of the full budget" if plan and plan.shares_of else "budget", ylabel="loss")
    return ax


@shows_its_call
def incumbent(
    trials: Trials | Mapping[str, Trials], *, against: Against = "total_budget", ax: Axes | None = None
) -> Axes:
    """The incumbent's loss as the search goes on, of one run or of several to compare.

    A marker is a new incumbent. A line is dashed while its incumbent's result is of less than the largest
    budget of all runs. What lies above the losses that each run had after a tenth of its way is out of view.

    Parameters
    ----------
    trials : hyperopt.Trials, or a mapping of names to them
        {"hyperband": a, "tpe": b}. Trials without budgets count as evaluated at the largest
        budget of all runs.
    against : "evaluations", "total_budget" or "seconds"
        Finished evaluations; the sum of their budgets, every promotion trained from scratch; or the time
        since the first evaluation began, breaks included.

    Raises
    ------
    ValueError
        against is something else.
    """
    if against not in AXIS:
        raise ValueError(f"against={against!r}: pass one of {sorted(AXIS)}")
    named = trials if isinstance(trials, Mapping) else {"incumbent": trials}
    runs = {name: _finished(run) for name, run in named.items()}
    [ax] = _panels(ax, 1)
    full = max((e.known_at for run in runs.values() for e in run if e.known_at is not None), default=1)
    in_view: list[float] = []
    dashed = False
    for i, (name, run) in enumerate(runs.items()):
        color, marker = LINES[i % len(LINES)]
        steps = zip(_progress(run, against, full), read.incumbents(run), strict=True)
        path = [(x, best) for x, best in steps if best is not None and not math.isnan(x)]
        new = [k for k, (_, best) in enumerate(path) if k == 0 or best is not path[k - 1][1]]
        below = sum(best.known_at is not None and best.known_at < full for _, best in path)
        dashed |= below > 0
        parts = [(0, path[: below + 1], "--", 1.2)] if below else []
        parts += [(below, path[below:], "-", 2.0)] if below < len(path) else []
        for first, part, line, width in parts:
            ax.plot(
                [x for x, _ in part],
                _losses(best for _, best in part),
                linestyle=line,
                linewidth=width,
                drawstyle="steps-post",
                color=color,
                marker=marker,
                markersize=5,
                markevery=[k - first for k in new if first <= k < first + len(part)],
                label=name if part is parts[-1][1] else f"_{name}",
            )
        in_view += _losses(best for x, best in path if x >= path[-1][0] / 10)
    if in_view:
        _show(ax, min(in_view), max(in_view))
        ax.set_xlim(left=0)
    _legend([ax], title=f"dashed: below budget {shown(full)}" if dashed else None)
    ax.set(xlabel=AXIS[against], ylabel="incumbent's loss")
    return ax


@shows_its_call
def budgets(trials: Trials, *, ax: Axes | None = None) -> Axes:
    """Where the total budget went: a bar for each bracket, over all Hyperband iterations, stacked by rung.

    Finished evaluations, failed ones included, every promotion trained from scratch; in each part
    stands their number x their budget. Foreign trials have a bar of their own where their budget is known.
    """
    numbers: defaultdict[str, defaultdict[Budget, int]] = defaultdict(lambda: defaultdict(int))
    for e in sorted(read.evaluations(trials), key=lambda e: -e.place[1] if e.place else 1):
        if e.spent:
            numbers[str(e.place[1]) if e.place else "foreign"][e.spent] += 1
    [ax] = _panels(ax, 1)
    shades = _shades({budget for bar in numbers.values() for budget in bar})
    tallest = max((sum(n * budget for budget, n in bar.items()) for bar in numbers.values()), default=1)
    for budget, color in shades.items():
        at = [x for x, bar in enumerate(numbers.values()) if budget in bar]
        rows = [bar for bar in numbers.values() if budget in bar]
        heights = [budget * bar[budget] for bar in rows]
        feet = [sum(b * n for b, n in bar.items() if b < budget) for bar in rows]
        ax.bar(at, heights, 0.75, feet, color=color, edgecolor="white", label=shown(budget))
        for x, height, foot, bar in zip(at, heights, feet, rows, strict=True):
            if height > 0.05 * tallest:
                text = f"{bar[budget]} x {shown(budget)}"
                ink = "white" if sum(color[:3]) < 1.4 else "black"
                ax.text(x, foot + height / 2, text, color=ink, ha="center", va="center", size="small")
    ax.set_xticks(range(len(numbers)), list(numbers))
    ax.set_ylim(0, 1.2 * tallest)
    ax.set(xlabel="bracket", ylabel="total budget")
    _legend([ax], title="budget", loc="upper center", ncols=8, columnspacing=1.2)
    return ax


@shows_its_call
def hyperparameters(
    trials: Trials,
    *,
    space: Any = None,
    labels: Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """The loss against each hyperparameter, one Axes each.

    The higher the budget of an evaluation, the darker and larger its dot; that of a final result counts as
    max_budget. A star marks the incumbent, crosses at the upper edge failed evaluations.

    Parameters
    ----------
    trials : hyperopt.Trials
        Of any kind and in any state.
    space : optional
        The space of the run: axes are log where a distribution is, and the options of choices have names.
        Without it a log axis is guessed from the values, and options are indices. What is no number, and
        no option of the space, has no dot.
    labels : sequence of str, optional
        The hyperparameters. Default: all but the budget.
    ax : Axes or sequence of Axes, optional
        One for each hyperparameter.

    Raises
    ------
    ValueError
        A label that no evaluation has, or another number of Axes than of hyperparameters.
    """
    everything = read.evaluations(trials)
    present = {label for e in everything for label in e.vals}
    labels = read.labels_of(everything) if labels is None else labels
    if unknown := [label for label in labels if label not in present]:
        raise ValueError(f"labels={unknown!r} are in no evaluation: pass some of {sorted(present)}")
    panels = _panels(ax, len(labels))
    known = {} if space is None else spaces.hyperparameters(space)
    shades = _shades({e.known_at for e in everything if e.known_at is not None})
    for axes, label in zip(panels, labels, strict=True):
        found = known.get(label) or _guessed(label, [e.vals[label] for e in everything if label in e.vals])
        held = [(e, found.number(e.vals[label])) for e in everything if label in e.vals]
        inside = [(e, value) for e, value in held if value is not None]
        at = [(e, _position(value, i, found)) for i, (e, value) in enumerate(inside)]
        for i, (budget, color) in enumerate(shades.items() or [(None, DARK)]):
            dots = [(e, x) for e, x in at if e.loss is not None and e.known_at == budget]
            axes.scatter(
                [x for _, x in dots],
                _losses(e for e, _ in dots),
                s=12 + 40 * (i + 1) / (len(shades) or 1),
                color=color,
                edgecolor="white",
                linewidth=0.4,
                label="evaluated" if budget is None else shown(budget),
                zorder=2 + i / 100,
            )
        _mark_incumbent(axes, everything, at)
        _mark_failures(axes, [x for e, x in at if e.status == "failed"])
        _scale_losses(axes, everything)
        _name_axis(axes, label, found, whole=all(float(value).is_integer() for _, value in inside))
    for axes in panels:
        place = axes.get_subplotspec()
        if ax is not None or place is None or place.is_first_col():
            axes.set_ylabel("loss")
    outside = {"loc": "outside upper center", "ncols": 10} if ax is None else {}
    _legend(panels, title="budget" if shades else None, **outside)
    return panels


def _panels(given: Axes | Sequence[Axes] | None, number: int) -> list[Axes]:
    """As many Axes as asked for: those given, or new ones in a figure of their own."""
    if given is not None:
        panels = list(given) if isinstance(given, Iterable) else [given]
        if len(panels) != number:
            raise ValueError(f"ax holds {len(panels)} Axes: pass {number}, one for each hyperparameter")
    else:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install 'hyperopt-hyperband[plots]'") from error
        columns = min(max(number, 1), 3)
        rows = max(math.ceil(number / columns), 1)
        size = (6.4, 4.2) if number == 1 else (3.1 * columns, 2.7 * rows + 0.5)
        _, grid = plt.subplots(rows, columns, sharey=True, squeeze=False, figsize=size, layout="constrained")
        panels = list(grid.flat)
        for unneeded in panels[number:]:
            unneeded.remove()
        panels = panels[:number]
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
        ax.set_axisbelow(True)
    return panels


def _mark_incumbent(ax: Axes, everything: list[Evaluation], at: Iterable[tuple[Evaluation, float]]) -> None:
    best = read.incumbent_of(everything)
    x = next((x for e, x in at if e is best), None)
    if best is not None and x is not None:
        style: dict[str, Any] = {
            "s": 190,
            "color": "#D55E00",
            "edgecolor": "black",
            "linewidth": 0.9,
            "zorder": 5,
        }
        ax.scatter([x], _losses([best]), marker="*", label="incumbent", **style)


def _mark_failures(ax: Axes, at: list[float]) -> None:
    if at:
        style: dict[str, Any] = {"marker": "x", "s": 22, "color": "black", "linewidth": 0.9, "zorder": 4}
        ax.scatter(
            at, [1.0] * len(at), transform=ax.get_xaxis_transform(), clip_on=False, label="failed", **style
        )


def _scale_losses(ax: Axes, everything: list[Evaluation]) -> None:
    """Log where the losses are positive and far apart; else without the few that dwarf the others."""
    losses = np.array([e.loss for e in everything if e.loss is not None])
    if not len(losses):
        return
    low, quarter, three_quarters, high = (float(q) for q in np.quantile(losses, [0, 0.25, 0.75, 1]))
    fence = three_quarters + 3 * (three_quarters - quarter)
    limit = float(losses[losses <= fence].max())
    if low > 0 or limit in (low, high):
        _show(ax, low, high)
        return
    _show(ax, low, limit)
    text = f"{(losses > limit).sum()} above"
    ax.text(1, 0.98, text, transform=ax.transAxes, ha="right", va="top", size="small", color="#555555")


def _show(ax: Axes, low: float, high: float) -> None:
    """Set the loss axis to a range, with margins, log where that is positive and wide."""
    if low > 0 and high > 5 * low:
        from matplotlib.ticker import LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        if high < 100 * low:
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        margin = (high / low) ** 0.05
        ax.set_ylim(low / margin, high * margin)
    else:
        span = 0.05 * (high - low) or 0.05
        ax.set_ylim(low - span, high + span)


def _finished(trials: Trials) -> list[Evaluation]:
    """Finished evaluations, in the order in which they ended where that is known."""
    finished = [e for e in read.evaluations(trials) if e.status in ("ok", "failed")]
    ends = [e.ended for e in finished if e.ended is not None]
    if len(ends) < len(finished):
        return finished
    return [finished[i] for i in sorted(range(len(ends)), key=ends.__getitem__)]


def _progress(run: list[Evaluation], against: Against, full: Budget) -> list[float]:
    if against == "evaluations":
        return list(range(1, len(run) + 1))
    if against == "total_budget":
        return list(np.cumsum([full if e.budget is None else e.budget for e in run]))
    begun = min((e.begun for e in run if e.begun is not None), default=None)
    return [(e.ended - begun).total_seconds() if begun and e.ended else math.nan for e in run]


def _losses(evaluations: Iterable[Evaluation]) -> list[float]:
    return [math.nan if e.loss is None else e.loss for e in evaluations]


def _shades(budgets: set[Budget]) -> dict[Budget, Any]:
    """A colour for each budget, the higher the darker."""
    from matplotlib import colormaps

    ordered = sorted(budgets)
    return dict(zip(ordered, colormaps["cividis_r"](np.linspace(0.1, 1, len(ordered))), strict=True))


def _guessed(label: str, values: list[Any]) -> spaces.Hyperparameter:
    numbers = [value for given in values if (value := number(given)) is not None]
    log = bool(numbers) and min(numbers) > 0 and max(numbers) > 10 * float(np.median(numbers))
    return spaces.Hyperparameter(label, spaces.Distribution("", log), decides=False, options=None)


def _position(value: float, i: int, found: spaces.Hyperparameter) -> float:
    """The value; an option's index with a little to the side, so that dots do not hide one another."""
    return value if found.options is None else value + 0.5 * (i * 0.618 % 1 - 0.5)


def _name_axis(ax: Axes, label: str, found: spaces.Hyperparameter, *, whole: bool) -> None:
    ax.set_xlabel(label)
    if found.options is not None:
        names = [name if len(name) <= 16 else f"{name[:15]}…" for name in found.options]
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > 26 else {}
        ax.set_xticks(range(len(names)), names, **turned)
    elif found.distribution.log:
        ax.set_xscale("log")
    elif whole:
        ax.locator_params(axis="x", integer=True)


def _legend(panels: list[Axes], **options: Any) -> None:
    """One legend for all panels: in the first of them, or, where loc is outside, in the figure."""
    handles: dict[str, Artist] = {}
    for ax in panels:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        last = [name for name in ("incumbent", "failed") if name in handles]
        names = [name for name in handles if name not in last] + last
        outside = str(options.get("loc")).startswith("outside")
        owner: Any = panels[0].figure if outside else panels[0]
        owner.legend([handles[name] for name in names], names, frameon=False, **options)
