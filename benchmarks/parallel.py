"""Many workers in simulated time: our suggest, a synchronous Hyperband and ASHA's rule.

    python benchmarks/parallel.py                        all problems and workers, 20 seeds
    python benchmarks/parallel.py --problems curves --workers 64 --seeds 5

An evaluation takes its budget times a factor: lognormal by configuration (mean 1, sigma 0.6), and ten times
that in one evaluation of fifty. Time is in evaluations at max_budget, of mean length without those. All
algorithms draw the same configurations in the same order, and evaluate what they promote from scratch
(--continued: go on from what it has trained).
The incumbent of a run is the lowest loss at the largest budget evaluated so far; regret is its loss at
max_budget without noise, less the optimum.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from documents import Document, begin, finish, trials_over
from hyperopt import hp, rand
from hyperopt.base import Domain
from problems import Choice, Int, Params, Problem, load
from recording import destination, environment, versions, write_text

from hyperopt_hyperband import hyperband

ETA = 3
RESULTS = Path(__file__).parent / "results" / "parallel"
PROBLEMS = ["curves", "curves_crossing", "counting_ones"]
WORKERS = [1, 4, 16, 64, 256]
TARGETS = {"best 1 %": 0.01, "best 0.1 %": 0.001}
"""Shares of random configurations at max_budget."""
CHECKPOINTS = [0.2, 0.5, 1.0]
"""Shares of a run's time at which regrets are compared."""
COMPARED = [
    ("hyperband", "synchronous"),
    ("hyperband", "asha, brackets"),
    ("hyperband", "asha"),
    ("one bracket", "asha"),
]
SIGMA, STRAGGLERS, SLOWER = 0.6, 0.02, 10
COLORS = {
    "hyperband": "#0072B2",
    "one bracket": "#56B4E9",
    "synchronous": "#999999",
    "asha": "#D55E00",
    "asha, brackets": "#E69F00",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One configuration at one budget; `trained` is the budget that it has behind it."""

    config: int
    s: int
    rung: int
    budget: float
    trained: float


class Algorithm(Protocol):
    """What decides: `ask` gives the next evaluation, None where it has to wait for results."""

    def ask(self) -> Evaluation | None: ...
    def tell(self, evaluation: Evaluation, loss: float) -> None: ...


class Stream:
    """The configurations of a seed, by number, with their losses and times: the same for every algorithm."""

    BATCH = 1_000

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.plan = hyperband.schedule(problem.min_budget, problem.max_budget, ETA)
        self.domain = Domain(lambda _: 0.0, problem.space)
        self.rng = np.random.default_rng(seed)
        self.drawn: list[Params] = []
        self.slownesses: list[list[float]] = []
        self.losses: dict[tuple[int, float], float] = {}
        self.budgets = {rung.budget: i for i, rung in enumerate(self.plan.brackets[0].rungs)}

    def _draw(self) -> None:
        ids = range(self.BATCH)
        idxs, vals = rand.suggest_batch(ids, self.domain, None, self.rng)
        batch: list[Params] = [{} for _ in ids]
        for name, parameter in self.problem.parameters.items():
            for i, value in zip(idxs[name], vals[name], strict=True):
                if isinstance(parameter, Choice):
                    value = parameter.options[value]
                batch[i][name] = int(value) if isinstance(parameter, Int) else value
        self.drawn += batch
        factors = np.exp(SIGMA * self.rng.standard_normal((self.BATCH, 1)) - SIGMA**2 / 2)
        straggle = self.rng.random((self.BATCH, len(self.budgets))) < STRAGGLERS
        self.slownesses += (factors * np.where(straggle, SLOWER, 1)).tolist()

    def evaluation(self, config: int, s: int, rung: int) -> Evaluation:
        """Of a configuration in the rung of bracket s."""
        rungs = self.plan.bracket(s).rungs
        return Evaluation(config, s, rung, rungs[rung].budget, rungs[rung - 1].budget if rung else 0)

    def params(self, config: int) -> Params:
        while len(self.drawn) <= config:
            self._draw()
        return self.drawn[config]

    def loss(self, config: int, budget: float) -> float:
        if (config, budget) not in self.losses:
            self.losses[config, budget] = self.problem.evaluate(self.params(config), budget, self.seed)
        return self.losses[config, budget]

    def regret(self, config: int) -> float:
        return self.problem.score(self.params(config)) - self.problem.optimum

    def time(self, config: int, budget: float, trained: float) -> float:
        """What an evaluation takes that goes on from a budget already trained."""
        self.params(config)
        slowness = self.slownesses[config][self.budgets[budget]]
        return (budget - trained) / self.problem.max_budget * slowness


class Hyperband:
    """hyperband.suggest, asked for one evaluation at a time.

    Its space has one hyperparameter besides the budget: whatever it draws stands for the next configuration
    of the stream. `numbers` counts these, across runs where there are several.
    """

    def __init__(self, stream: Stream, numbers: Iterator[int] | None = None) -> None:
        self.stream, self.numbers = stream, itertools.count() if numbers is None else numbers
        budget = hyperband.budget("budget", stream.plan.min_budget, stream.plan.max_budget)
        self.domain = Domain(lambda _: 0.0, {"x": hp.uniform("x", 0, 1), "budget": budget})
        self.documents: list[Document] = []
        self.trials = trials_over(self.documents, asynchronous=True)
        self.configs: dict[int, int] = {}
        self.pending: dict[tuple[int, int], Document] = {}

    def ask(self) -> Evaluation:
        return self.take(self.suggest())

    def suggest(self) -> Document:
        """What suggest would do next; nothing has changed until it is taken."""
        tid = len(self.documents)
        [document] = hyperband.suggest([tid], self.domain, self.trials, tid, eta=ETA)
        return document

    def take(self, document: Document) -> Evaluation:
        begin(document)
        self.documents.append(document)
        stamp = document["misc"]["hyperband"]
        if stamp["rung"] == 0:
            self.configs[stamp["config"]] = next(self.numbers)
        config = self.configs[stamp["config"]]
        self.pending[config, stamp["rung"]] = document
        return self.stream.evaluation(config, stamp["bracket"], stamp["rung"])

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        finish(self.pending.pop((evaluation.config, evaluation.rung)), loss)


class FirstBracket:
    """Hyperband's first bracket again and again: hyperband.suggest with new Trials for each.

    Where it turns to the second bracket, the first one waits or is complete: that suggestion is not taken,
    the next Trials are asked, and these again when they have a result more.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.numbers = stream, itertools.count()
        self.open: dict[Hyperband, bool] = {}
        """From the oldest, and whether it may have something to do."""
        self.at_work: dict[Evaluation, Hyperband] = {}

    def ask(self) -> Evaluation:
        for run in [run for run, awake in self.open.items() if awake]:
            document = run.suggest()
            if document["misc"]["hyperband"]["bracket"] == self.stream.plan.brackets[0].s:
                return self._take(run, document)
            self.open[run] = False
            if not run.pending:
                del self.open[run]
        run = Hyperband(self.stream, self.numbers)
        return self._take(run, run.suggest())

    def _take(self, run: Hyperband, document: Document) -> Evaluation:
        evaluation = run.take(document)
        self.open[run], self.at_work[evaluation] = True, run
        return evaluation

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        run = self.at_work.pop(evaluation)
        run.tell(evaluation, loss)
        self.open[run] = True


class Synchronous:
    """Algorithm 1 as it stands: one bracket at a time, every rung complete before the next begins."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.queue: deque[Evaluation] = deque()
        self.running = 0
        self.losses: list[tuple[float, int]] = []
        self.rungs = self._rungs()

    def _rungs(self) -> Iterator[list[Evaluation]]:
        numbers = itertools.count()
        for bracket in itertools.cycle(self.stream.plan.brackets):
            configs = list(itertools.islice(numbers, bracket.rungs[0].configurations))
            for i, rung in enumerate(bracket.rungs):
                entering = configs[: rung.configurations]
                yield [self.stream.evaluation(config, bracket.s, i) for config in entering]
                configs = [config for _, config in sorted(self.losses)]
                self.losses = []

    def ask(self) -> Evaluation | None:
        if not self.queue and not self.running:
            self.queue.extend(next(self.rungs))
        if not self.queue:
            return None
        self.running += 1
        return self.queue.popleft()

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        self.running -= 1
        self.losses.append((loss, evaluation.config))


@dataclass(slots=True)
class AshaRung:
    """Finished evaluations by loss, and those of them that have not been promoted, a heap."""

    finished: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)


def promotable(rung: AshaRung) -> bool:
    """Whether the best that waits is in the top 1/eta of the rung (Li et al., MLSys 2020, Algorithm 2)."""
    if not rung.waiting:
        return False
    return bisect.bisect_left(rung.finished, rung.waiting[0]) < len(rung.finished) // ETA


class Asha:
    """ASHA's rule, in one bracket or in all of Hyperband's in turn.

    Each bracket keeps its rungs; the turn passes on when a bracket has spent what Hyperband's would.
    """

    def __init__(self, stream: Stream, brackets: bool) -> None:
        self.stream = stream
        self.brackets = stream.plan.brackets if brackets else stream.plan.brackets[:1]
        self.configs = itertools.count()
        self.turn, self.spent = 0, 0.0
        self.rungs = {bracket.s: [AshaRung() for _ in bracket.rungs] for bracket in self.brackets}

    def ask(self) -> Evaluation:
        if self.spent >= self.brackets[self.turn].total_budget:
            self.turn, self.spent = (self.turn + 1) % len(self.brackets), 0.0
        bracket = self.brackets[self.turn]
        rungs = self.rungs[bracket.s]
        below = next((i for i in reversed(range(bracket.s)) if promotable(rungs[i])), None)
        if below is None:
            evaluation = self.stream.evaluation(next(self.configs), bracket.s, 0)
        else:
            _, config = heapq.heappop(rungs[below].waiting)
            evaluation = self.stream.evaluation(config, bracket.s, below + 1)
        self.spent += evaluation.budget
        return evaluation

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        rung = self.rungs[evaluation.s][evaluation.rung]
        bisect.insort(rung.finished, (loss, evaluation.config))
        heapq.heappush(rung.waiting, (loss, evaluation.config))


ALGORITHMS: dict[str, Callable[[Stream], Algorithm]] = {
    "hyperband": Hyperband,
    "one bracket": FirstBracket,
    "synchronous": Synchronous,
    "asha": lambda stream: Asha(stream, brackets=False),
    "asha, brackets": lambda stream: Asha(stream, brackets=True),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run: the share of time that workers were busy, and the regret after each change."""

    utilisation: float
    evaluations: int
    times: list[float]
    regrets: list[float]

    def regret(self, moment: float) -> float:
        """Infinite before the first evaluation has finished."""
        index = bisect.bisect_right(self.times, moment)
        return [math.inf, *self.regrets][index]

    def reached(self, target: float) -> float:
        """When the incumbent was first as good; infinite where it never was."""
        return next((t for t, r in zip(self.times, self.regrets, strict=True) if r <= target), math.inf)


def simulate(stream: Stream, name: str, workers: int, horizon: float, continued: bool) -> Run:
    """One algorithm with so many workers, for so much time."""
    algorithm = ALGORITHMS[name](stream)
    running: list[tuple[float, int, Evaluation]] = []
    number = itertools.count()
    now = busy = 0.0
    incumbent = (0.0, math.inf)
    times: list[float] = []
    regrets: list[float] = []
    while True:
        while len(running) < workers and (evaluation := algorithm.ask()) is not None:
            trained = evaluation.trained if continued else 0
            end = now + stream.time(evaluation.config, evaluation.budget, trained)
            heapq.heappush(running, (end, next(number), evaluation))
            busy += min(end, horizon) - now
        now, _, evaluation = heapq.heappop(running)
        if now >= horizon:
            return Run(busy / horizon / workers, next(number), times, regrets)
        loss = stream.loss(evaluation.config, evaluation.budget)
        algorithm.tell(evaluation, loss)
        if (-evaluation.budget, loss) < (-incumbent[0], incumbent[1]):
            incumbent = (evaluation.budget, loss)
            times.append(now)
            regrets.append(stream.regret(evaluation.config))


def simulate_seed(
    name: str, seed: int, workers: Sequence[int], continued: bool
) -> dict[tuple[int, str], Run]:
    """All algorithms with all numbers of workers."""
    stream = Stream(load(name), seed)
    return {
        (count, algorithm): simulate(stream, algorithm, count, horizon_of(count), continued)
        for count, algorithm in itertools.product(workers, ALGORITHMS)
    }


def random_regrets(problem: Problem, count: int) -> list[float]:
    """Regrets of random configurations at max_budget, sorted."""
    return sorted(map(Stream(problem, 10**6).regret, range(count)))


def horizon_of(workers: int) -> float:
    """Five to ten evaluations at max_budget, one after another, and more where few workers need them."""
    return max(10.0 if workers < 256 else 5.0, 100.0 / workers)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of so many wins and losses, were either as likely."""
    n, k = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / (1 << n))


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Seeds in which ours is lower and higher, ties aside."""
    wins = sum(a < b for a, b in zip(ours, theirs, strict=True))
    losses = sum(a > b for a, b in zip(ours, theirs, strict=True))
    return {"lower": wins, "higher": losses, "p": round(sign_test(wins, losses), 5)}


def quartiles(values: Sequence[float]) -> list[float | None]:
    """Lower quartile, median and upper quartile; None where it is infinite."""
    found: list[float] = np.quantile(values, [0.25, 0.5, 0.75], method="higher").tolist()
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in found]


Runs = dict[str, list[Run]]


def summarize(problem: Problem, workers: int, runs: Runs, targets: dict[str, float]) -> dict[str, Any]:
    horizon = horizon_of(workers)
    measures: dict[str, Callable[[Run], float]] = {}
    for share in CHECKPOINTS:
        measures[f"regret at {share * horizon:g}"] = partial(Run.regret, moment=share * horizon)
    for name, regret in targets.items():
        measures[f"time to {name}"] = partial(Run.reached, target=regret)
    values = {
        m: {name: [f(run) for run in series] for name, series in runs.items()} for m, f in measures.items()
    }
    return {
        "problem": problem.name,
        "workers": workers,
        "horizon": horizon,
        "utilisation": {
            name: quartiles([run.utilisation for run in series]) for name, series in runs.items()
        },
        "evaluations": {
            name: quartiles([run.evaluations for run in series]) for name, series in runs.items()
        },
        **{m: {name: quartiles(v) for name, v in by_name.items()} for m, by_name in values.items()},
        "sign tests": {
            f"{ours} : {theirs}": {m: compare(v[ours], v[theirs]) for m, v in values.items()}
            for ours, theirs in COMPARED
        },
    }


def print_summary(row: dict[str, Any]) -> None:
    print(
        f"\n{row['problem']}, {row['workers']} workers, time {row['horizon']:g}: median (quartiles)",
        flush=True,
    )
    measures = [name for name in row if name.startswith(("regret", "time"))]
    print(f"{'':15} {'busy':>5} {'evaluations':>11} " + " ".join(f"{m:>24}" for m in measures))
    for name in row["utilisation"]:
        cells = " ".join(f"{_cell(row[m][name]):>24}" for m in measures)
        busy, evaluations = row["utilisation"][name][1], row["evaluations"][name][1]
        print(f"{name:15} {busy:5.0%} {evaluations:11,.0f} {cells}")
    for pair, tests in row["sign tests"].items():
        cells = " ".join(f"{t['lower']} : {t['higher']}  p {t['p']:.3f}".rjust(24) for t in tests.values())
        print(f"{pair:33} {cells}")


def _cell(values: list[float | None]) -> str:
    low, median, high = ("-" if v is None else f"{v:.3g}" for v in values)
    return f"{median} ({low}..{high})"


def draw(curves: dict[tuple[str, int], Runs], path: Path, seeds: int) -> None:
    """Median regret against time, the quartiles of two: problems across, workers down."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    problems = list(dict.fromkeys(problem for problem, _ in curves))
    shown = sorted({workers for _, workers in curves})[-3::2]
    figure, axes = plt.subplots(
        len(shown),
        len(problems),
        figsize=(3.4 * len(problems), 2.9 * len(shown)),
        layout="constrained",
        squeeze=False,
    )
    for ax, (workers, problem) in zip(axes.flat, itertools.product(shown, problems), strict=True):
        horizon = horizon_of(workers)
        grid = np.geomspace(horizon / 50, horizon, 100)
        for name, runs in curves[problem, workers].items():
            values = np.array([[run.regret(moment) for moment in grid] for run in runs])
            low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="higher")
            ax.plot(grid, median, color=COLORS[name], lw=1.6, label=name)
            if name in ("hyperband", "asha, brackets"):
                ax.fill_between(grid, low, high, color=COLORS[name], alpha=0.15, lw=0)
        ax.set(xscale="log", yscale="log")
        ax.grid(alpha=0.3)
        ax.set_title(f"{problem}, {workers} worker{'s' if workers > 1 else ''}", fontsize=9)
        ax.tick_params(labelsize=7, which="both")
    for ax in axes[-1]:
        ax.set_xlabel("time, in evaluations at max_budget", fontsize=8)
    for row in axes:
        row[0].set_ylabel("regret of the incumbent", fontsize=8)
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.suptitle(f"median of {seeds} seeds, with quartiles, simulated time", fontsize=10)
    figure.savefig(path, dpi=80)
    with Image.open(path) as image:  # a third of the bytes
        image.convert("RGB").quantize(64).save(path, optimize=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument(
        "--continued", action="store_true", help="promotions go on from what they have trained"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder; without: the stored one, if all is run")
    arguments = parser.parse_args(argv)
    out = destination(parser, arguments, RESULTS, indifferent={"processes"})
    rows, curves = [], {}
    with ProcessPoolExecutor(arguments.processes) as executor:
        for problem in map(load, arguments.problems):
            regrets = random_regrets(problem, 20_000)
            targets = {name: regrets[int(share * len(regrets)) - 1] for name, share in TARGETS.items()}
            task = partial(simulate_seed, workers=arguments.workers, continued=arguments.continued)
            seeds = range(arguments.seeds)
            results = list(executor.map(task, [problem.name] * len(seeds), seeds))
            for workers in arguments.workers:
                runs = {name: [result[workers, name] for result in results] for name in ALGORITHMS}
                rows.append(summarize(problem, workers, runs, targets))
                print_summary(rows[-1])
                curves[problem.name, workers] = runs
    record = {
        **environment(),
        "versions": versions(),
        "seeds": arguments.seeds,
        "continued": arguments.continued,
        "rows": rows,
    }
    if out:
        write_text(out / "parallel.json.gz", json.dumps(record, indent=1) + "\n")
        draw(curves, out / "parallel.png", arguments.seeds)


if __name__ == "__main__":
    main()
