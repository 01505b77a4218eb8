"""What a suggestion costs: time inside suggest per evaluation, for rand, tpe and hyperband.

    python benchmarks/overhead.py                                   every schedule, space and size, minutes
    python benchmarks/overhead.py --sizes 10000 --max-budgets 81 --hyperparameters 6     one cell, seconds
    python benchmarks/overhead.py --workers 64 --ids 8              with 64 pending, eight ids a call
    python benchmarks/overhead.py --workers 64 --heavy-tail         some evaluations outlast many others
    python benchmarks/overhead.py --workers 64 --heavy-tail --stuck         and the first one never ends

Hyperopt's own loop takes time with the square of the run's length, so the documents are made beforehand:
real suggestions for three Hyperband iterations, copies of the last one up to a little below the size, and
real ones again from there. Then one more Hyperband iteration is timed, results filled in as it goes, so
that the mix of draws and promotions is the real one; rand.suggest is called at each step on the same
trials, its documents thrown away. The same iteration is repeated from the same documents: each call counts
with its median over repeats, in CPU time, less what reading the clock costs; the ratio is the median of the
repeats' ratios.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import math
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from documents import Document, begin, finish, trials_over
from hyperopt import hp, rand, tpe
from hyperopt.base import Domain
from recording import destination, environment, versions, write_text

from hyperopt_hyperband import hyperband

Suggest = Callable[..., list[Document]]
RESULTS = Path(__file__).parent / "results" / "overhead" / "overhead.json"
ETA = 3


def space(hyperparameters: int, max_budget: int) -> dict[str, Any]:
    """So many hyperparameters of the usual kinds, and the budget."""
    kinds: list[Callable[[str], Any]] = [
        lambda label: hp.loguniform(label, -7, 0),
        lambda label: hp.uniform(label, 0, 1),
        lambda label: hp.choice(label, ["a", "b", "c", "d"]),
        lambda label: hp.quniform(label, 1, 100, 1),
    ]
    nodes = {f"x{i}": kinds[i % len(kinds)](f"x{i}") for i in range(hyperparameters)}
    return nodes | {"budget": hyperband.budget("budget", 1, max_budget)}


class Run:
    """A Hyperband run without an objective: a configuration's losses are set by its place in the iteration.

    With one worker, every Hyperband iteration is then the one before it, shifted. Of several pending
    evaluations the oldest finishes first; with a heavy tail, an evaluation takes its budget times a
    lognormal factor, and ten times that in one of fifty. If it is stuck, the very first one never ends.
    """

    def __init__(
        self, hyperparameters: int, max_budget: int, workers: int, ids: int, heavy_tail: bool, stuck: bool
    ) -> None:
        self.plan = hyperband.schedule(1, max_budget, ETA)
        self.period = self.plan.evaluations
        self.domain = Domain(lambda _: 0.0, space(hyperparameters, max_budget))
        self.suggest: Suggest = partial(hyperband.suggest, eta=ETA)
        self.workers, self.ids, self.heavy_tail, self.stuck = workers, ids, heavy_tail, stuck
        rng = np.random.default_rng(0)
        self.slowness = np.exp(0.6 * rng.standard_normal(9973)) * np.where(rng.random(9973) < 0.02, 10, 1)
        self.losses = rng.random((self.period, len(self.plan.brackets))).tolist()
        self.now = 0.0
        self.pending: list[tuple[float, int, Document]] = []
        self.documents: list[Document] = []
        self.trials = trials_over(self.documents, asynchronous=False)

    def grow(self, size: int) -> None:
        """Go on to so many documents."""
        copied = size // self.period - (10 if self.heavy_tail else 1)
        if copied > 3 and not self.stuck:
            while len(self.documents) < 3 * self.period:
                self.step(self.suggest, ids=1, workers=1)
            self._extrapolate(copied)
        if self.workers > 1:
            self.trials = trials_over(self.documents, asynchronous=True)
        while len(self.documents) < size:
            self.step(self.suggest, min(self.ids, size - len(self.documents)), self.workers)

    def step(self, suggest: Suggest, ids: int, workers: int) -> list[Document]:
        """One call of suggest, after as many evaluations have finished as it takes to have free workers."""
        while self.pending and len(self.pending) + ids > workers:
            self._finish()
        tid = len(self.documents)
        new = suggest(range(tid, tid + ids), self.domain, self.trials, tid)
        for document in new:
            begin(document)
            heapq.heappush(self.pending, (self._end(document), document["tid"], document))
        self.documents += new
        return new

    def replay(self, evaluations: int, suggest: Suggest) -> None:
        """Go on for so many evaluations, then take them back."""
        size, now, pending = len(self.documents), self.now, list(self.pending)
        before = [(document["state"], document["result"]) for _, _, document in pending]
        for done in range(0, evaluations, self.ids):
            self.step(suggest, min(self.ids, evaluations - done), self.workers)
        del self.documents[size:]
        for (_, _, document), (state, result) in zip(pending, before, strict=True):
            document["state"], document["result"] = state, result
        self.now, self.pending = now, pending

    def _end(self, document: Document) -> float:
        if self.stuck and document["tid"] == 0:
            return math.inf
        if not self.heavy_tail:
            return float(document["tid"])
        budget: float = document["misc"]["budget"]
        return self.now + budget * float(self.slowness[document["tid"] % len(self.slowness)])

    def _finish(self) -> None:
        self.now, _, document = heapq.heappop(self.pending)
        stamp = document["misc"]["hyperband"]
        finish(document, self.losses[stamp["config"] % self.period][stamp["rung"]])

    def _extrapolate(self, iterations: int) -> None:
        """Copy the last Hyperband iteration until there are so many; its stamps go on counting."""
        self._finish()
        for tid in range(len(self.documents), iterations * self.period):
            last, earlier = self.documents[tid - self.period], self.documents[tid - 2 * self.period]
            misc, stamps = last["misc"], [d["misc"]["hyperband"] for d in (last, earlier)]
            copy = {
                **misc,
                "tid": tid,
                "idxs": {label: [tid] for label in misc["idxs"]},
                "vals": {label: list(value) for label, value in misc["vals"].items()},
                "hyperband": {name: _next(stamps[1][name], value) for name, value in stamps[0].items()},
            }
            self.documents.append({**last, "tid": tid, "misc": copy, "result": dict(last["result"])})


def _next(earlier: Any, last: Any) -> Any:
    """Go on as from one to the other: numbers, or lists of them; a text stays."""
    if isinstance(last, list):
        return list(map(_next, earlier, last))
    return last if isinstance(last, str) else 2 * last - earlier


def clock_cost() -> float:
    """Seconds that one pair of clock readings adds to what lies between."""
    differences = []
    for _ in range(10_000):
        start = time.thread_time()
        differences.append(time.thread_time() - start)
    return statistics.median(differences)


def measure_time(run: Run, repeats: int) -> Document:
    """Seconds per evaluation of rand and hyperband over one Hyperband iteration."""
    clock = clock_cost()
    kinds: list[str] = []
    times: dict[str, list[list[float]]] = {"rand": [], "hyperband": []}

    def timed(*args: Any) -> list[Document]:
        new: list[Document] = []
        order: list[tuple[str, Suggest]] = [("rand", rand.suggest), ("hyperband", run.suggest)]
        for name, suggest in order if len(kinds) % 2 else reversed(order):
            start = time.thread_time()
            documents = suggest(*args)
            times[name][-1].append(time.thread_time() - start - clock)
            new = documents if name == "hyperband" else new
        rungs = [document["misc"]["hyperband"]["rung"] for document in new]
        kinds.append("promotion" if all(rungs) else "draw" if not any(rungs) else "both")
        return new

    gc.collect()
    gc.disable()
    for _ in range(repeats + 1):
        kinds.clear()
        for series in times.values():
            series.append([])
        run.replay(run.period, timed)
    gc.enable()
    calls = {name: np.array(series[1:]) for name, series in times.items()}  # the first warms up
    per_evaluation = {name: float(np.median(a, axis=0).sum()) / run.period for name, a in calls.items()}
    ratios = (calls["hyperband"].sum(axis=1) / calls["rand"].sum(axis=1)).tolist()
    medians = np.median(calls["hyperband"], axis=0)
    return {
        **{f"{name}_us": 1e6 * seconds for name, seconds in per_evaluation.items()},
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        **{
            f"{kind}_us": 1e6 * float(np.mean(medians[np.array(kinds) == kind])) / run.ids
            for kind in sorted(set(kinds))
        },
    }


def measure_memory(run: Run) -> Document:
    """The most that one call allocates at a time, in KiB, over one Hyperband iteration."""
    peaks: dict[str, list[int]] = {"rand": [], "hyperband": []}

    def traced(*args: Any) -> list[Document]:
        new: list[Document] = []
        for name, suggest in (("rand", rand.suggest), ("hyperband", run.suggest)):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            new = suggest(*args)
            peaks[name].append(tracemalloc.get_traced_memory()[1] - before)
        return new

    tracemalloc.start()
    run.replay(run.period, traced)
    tracemalloc.stop()
    return {f"{name}_peak_kib": max(peak) / 1024 for name, peak in peaks.items()}


def measure_tpe(hyperparameters: int, max_budget: int, size: int, calls: int) -> float:
    """Microseconds of tpe.suggest per evaluation, on random documents with results."""
    documents: list[Document] = []
    trials, rng = trials_over(documents, asynchronous=False), random.Random(0)
    domain = Domain(lambda _: 0.0, space(hyperparameters, max_budget))
    documents += rand.suggest(range(size), domain, trials, 0)
    for document in documents:
        finish(document, rng.random())
    seconds = []
    for call in range(calls):
        start = time.thread_time()
        tpe.suggest([size], domain, trials, call, verbose=False)
        seconds.append(time.thread_time() - start)
    return 1e6 * statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1_000, 10_000, 100_000])
    parser.add_argument("--max-budgets", type=int, nargs="+", default=[81, 243, 729], help="from 1, eta 3")
    parser.add_argument("--hyperparameters", type=int, nargs="+", default=[2, 6, 20])
    parser.add_argument("--workers", type=int, default=1, help="evaluations pending at a time")
    parser.add_argument("--ids", type=int, default=1, help="ids a call, up to --workers")
    parser.add_argument("--heavy-tail", action="store_true", help="for --workers: not the oldest ends first")
    parser.add_argument("--stuck", action="store_true", help="for --workers: the first evaluation never ends")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tpe-to", type=int, default=1_000, help="largest size for TPE; 0: without TPE")
    parser.add_argument("--out", type=Path, help="a JSON file; without: the stored one, if all is measured")
    arguments = parser.parse_args(argv)
    out = destination(parser, arguments, RESULTS)
    rows = []
    print("microseconds per evaluation; peak: KiB that one call allocates at most")
    print(
        f"{'budgets':>8} {'labels':>6} {'documents':>9} {'tpe':>8} {'rand':>7} {'hyperband':>9} "
        f"{'ratio':>6} {'(range)':>14} {'draw':>6} {'promotion':>9} {'peak rand':>9} {'hyperband':>9}"
    )
    for hyperparameters in arguments.hyperparameters:
        for max_budget in arguments.max_budgets:
            for size in arguments.sizes:
                workers = max(arguments.workers, arguments.ids)
                heavy_tail, stuck = arguments.heavy_tail, arguments.stuck
                run = Run(hyperparameters, max_budget, workers, arguments.ids, heavy_tail, stuck)
                run.grow(size)
                row = {
                    "max_budget": max_budget,
                    "hyperparameters": hyperparameters,
                    "documents": size,
                    **measure_time(run, arguments.repeats),
                    **measure_memory(run),
                }
                if size <= arguments.tpe_to:
                    row["tpe_us"] = measure_tpe(hyperparameters, max_budget, size, calls=5)
                rows.append(row)
                print_row(row)
    record = {
        **environment(),
        "versions": versions(),
        "workers": arguments.workers,
        "ids": arguments.ids,
        "heavy_tail": arguments.heavy_tail,
        "stuck": arguments.stuck,
        "repeats": arguments.repeats,
        "rows": rows,
    }
    if out:
        write_text(out, json.dumps(record, indent=1) + "\n")
        print(out)


def print_row(row: Document) -> None:
    def cell(name: str, width: int) -> str:
        return f"{row[name]:{width},.0f}" if name in row else "-".rjust(width)

    low, high = row["ratio_range"]
    print(
        f"{'1..' + str(row['max_budget']):>8} {row['hyperparameters']:6} {row['documents']:9,} "
        f"{cell('tpe_us', 8)} {cell('rand_us', 7)} {cell('hyperband_us', 9)} {row['ratio']:6.2f} "
        f"{f'({low:.2f}..{high:.2f})':>14} {cell('draw_us', 6)} {cell('promotion_us', 9)} "
        f"{cell('rand_peak_kib', 9)} {cell('hyperband_peak_kib', 9)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
