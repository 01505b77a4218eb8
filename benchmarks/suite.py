"""Hyperband and its model against peers, on many problems, at equal total budget.

    python benchmarks/suite.py --install optuna       make the environment of a peer
    python benchmarks/suite.py                        run what is not there yet, then print and draw
    python benchmarks/suite.py --no-runs              table, JSON and picture of the runs there are
    python benchmarks/suite.py --algorithms bohb --keep    what has no runs here stays as it is stored

A run is one algorithm on one problem with one seed. It is stored when it is done, and only a run that is not
stored is run. Algorithms of Hyperopt run through fmin; a peer runs in a process and an environment of its
own and asks for each evaluation over a pipe (peers/protocol.py), so that all see the same losses.

Total budget: the sum of the budgets of all evaluations, in multiples of max_budget. "Spent" charges a
promoted evaluation in full, but only the difference where the package itself goes on with the training
(Optuna, Syne Tune); "continued" charges everyone the difference. The incumbent is the lowest loss seen at
the largest budget evaluated so far; its score is its noise-free loss at max_budget.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import math
import os
import signal
import subprocess
import tempfile
import threading
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a run takes one core

import numpy as np
from problems import Params, all_problems, flat, load
from recording import destination, read_text, versions, write_text
from suite_report import UNITS, draw, markdown, merged, rounded, summarize

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "suite"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hyperopt_hyperband"
HYPEROPT = {
    "random": "hyperopt.rand:suggest",
    "tpe": "hyperopt.tpe:suggest",
    "hyperband": "hyperopt_hyperband.hyperband:suggest",
    "bohb": "hyperopt_hyperband.bohb:suggest",
}
TOTALS = (10, 30, 100)
TPE_LONGER = 2
"""TPE runs so many times longer than the others: its regrets at both totals are the speed-ups' targets."""


@dataclass(frozen=True)
class Peer:
    """Another package, its algorithm, and what its environment needs."""

    package: str
    label: str
    requirements: tuple[str, ...]
    note: str = ""


HPBANDSTER = ("hpbandster==0.7.4", "numpy==1.23.5", "ConfigSpace==0.6.1", "setuptools<70")
NEPS = ("neural-pipeline-search==0.17.0", "torch==2.14.1")
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
    cpu_seconds: float = 0.0
    suggest_ms: dict[str, float] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._problem = load(self.problem)
        self._reached: dict[str, float] = {}
        self._incumbent: tuple[float, float] = (0.0, math.inf)

    @property
    def done(self) -> bool:
        return bool(getattr(self, self.stop) >= self.total - 1e-9)

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
            score = float(f"{problem.score(params):.8g}")
            if not self.curve or self.curve[-1][2] != score:
                self.curve.append([round(self.spent, 3), round(self.continued, 3), score])
        return loss


def run(problem: str, algorithm: str, seed: int, total: float, stop: str, places: Places) -> dict[str, Any]:
    """One run, stored when it is done."""
    state = Run(problem, algorithm, seed, total, stop)
    start, cpu = time.perf_counter(), cpu_seconds()
    if algorithm in PEERS:
        run_peer(state, PEERS[algorithm], places)
    else:
        run_hyperopt(state)
    state.seconds = round(time.perf_counter() - start, 2)
    state.cpu_seconds = round(cpu_seconds() - cpu, 2)
    record = asdict(state) | {"spent": round(state.spent, 3), "continued": round(state.continued, 3)}
    write_text(places.run(problem, algorithm, seed), json.dumps(record, separators=(",", ":")) + "\n")
    return record


def cpu_seconds() -> float:
    """Of this process, and of the children that have ended."""
    return sum(os.times()[:4])


# Hyperopt's algorithms


def resolve(algorithm: str) -> Callable[..., Any]:
    """The suggest function of a name, or of "any label=module:function"."""
    module, _, name = HYPEROPT.get(algorithm, algorithm.partition("=")[2]).partition(":")
    suggest: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return suggest


def run_hyperopt(state: Run) -> None:
    from hyperopt import Trials, fmin, tpe

    from hyperopt_hyperband import hyperband

    suggest = resolve(state.algorithm)
    problem = load(state.problem)
    shadowed = state.algorithm not in ("random", "tpe")
    seconds: defaultdict[str, list[float]] = defaultdict(list)

    def timed(new_ids: Any, domain: Any, trials: Any, seed: int) -> Any:
        start = time.process_time()
        documents = suggest(new_ids, domain, trials, seed)
        end = time.process_time()
        seconds["suggest"].append(end - start)
        if shadowed and len(seconds["suggest"]) % 10 == 0:
            tpe.suggest(new_ids, domain, trials, seed)  # for its time on the same trials
            seconds["suggest_sample"].append(end - start)
            seconds["tpe_sample"].append(time.process_time() - end)
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
    state.suggest_ms = {key: round(1000 * float(np.mean(found)), 3) for key, found in seconds.items()}
    state.versions = versions("scikit-learn")


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
        late = threading.Timer(places.limit, kill, [process])
        late.start()
        try:
            answer = json.dumps(task)
            while not state.done:
                process.stdin.write(answer + "\n")
                process.stdin.flush()
                asked = json.loads(process.stdout.readline())
                if "versions" in asked:
                    state.versions = asked["versions"]
                    asked = json.loads(process.stdout.readline())
                answer = repr(state.evaluate(asked["params"], asked["budget"], asked["continued"]))
        except (OSError, ValueError) as error:
            if late.is_alive():
                errors.seek(0)
                raise RuntimeError(f"{script.name} ended early: {errors.read()[-2000:]}") from error
        finally:
            late.cancel()
            kill(process)
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()


def kill(process: subprocess.Popen[str]) -> None:
    """End a peer with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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
                score = record["curve"][-1][2] if record["curve"] else None
                news = f"{record['evaluations']} evaluations, {record['seconds']:.1f} s, score {score}"
            except Exception as error:
                news = f"failed: {error}"
            elapsed = time.monotonic() - start
            print(f"{count}/{len(jobs)} {elapsed:.0f} s: {problem} {algorithm} {seed}: {news}", flush=True)


def is_stored(path: Path, total: float, stop: str) -> bool:
    if not path.exists():
        return False
    stored = json.loads(path.read_text())
    return stored["total"] >= total and stored["stop"] in (stop, "continued")


def read_runs(options: argparse.Namespace, places: Places) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The stored runs of the wanted problems, algorithms and seeds, where there are enough to average."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for problem, algorithm in itertools.product(options.problems, options.algorithms):
        paths = [places.run(problem, algorithm, seed) for seed in options.seeds]
        found = [json.loads(path.read_text()) for path in paths if path.exists()]
        if len(found) >= options.fewest:
            runs.setdefault(problem, {})[algorithm.partition("=")[0]] = found
    return runs


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", metavar="PEER", help="make the environment of a peer, and stop")
    parser.add_argument("--algorithms", nargs="+", default=[*HYPEROPT, *PEERS])
    parser.add_argument("--problems", nargs="+", default=list(all_problems()))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--totals", nargs="+", type=float, default=list(TOTALS))
    parser.add_argument("--stop", choices=list(UNITS), default="continued", help="the total that ends a run")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that a peer's run may take")
    parser.add_argument("--environments", type=Path, default=CACHE, help="where peers' environments are")
    parser.add_argument("--runs", type=Path, default=CACHE / "suite", help="where runs are stored")
    parser.add_argument("--out", type=Path, help="a folder; without: the stored one, if no run is missing")
    parser.add_argument("--fewest", type=int, default=1, help="seeds of a problem that a table takes")
    parser.add_argument("--keep", action="store_true", help="take what has no runs from the stored summary")
    parser.add_argument("--no-runs", action="store_true", help="only summarise what is stored")
    options = parser.parse_args(argv)
    known = {*HYPEROPT, *PEERS}
    if unknown := [name for name in options.algorithms if name not in known and "=" not in name]:
        parser.error(f"--algorithms {' '.join(unknown)}: pass some of {', '.join(sorted(known))}")
    if unknown := [name for name in options.problems if name not in all_problems()]:
        parser.error(f"--problems {' '.join(unknown)}: pass some of {', '.join(all_problems())}")
    places = Places(options.environments.resolve(), options.runs.resolve(), options.limit)
    if options.install:
        install(options.install, places)
        return
    if not options.no_runs:
        run_all(options, places)
    runs = read_runs(options, places)
    if not runs:
        raise SystemExit(f"no runs in {places.runs}")
    targets = [max(options.totals), TPE_LONGER * max(options.totals)]
    summary = summarize(runs, all_problems(), options.totals, targets)
    if options.keep:
        stored = json.loads(read_text(RESULTS / "suite.json.gz"))
        summary = merged(summary, stored, all_problems())
    seen = {name for cells in runs.values() for name in cells}
    missing = [name for name in options.algorithms if name.partition("=")[0] not in seen]
    too_few = f"fewer than {options.fewest} runs of a problem are stored"
    left_out = {name: reason_left_out(name, places) or too_few for name in missing}
    if options.keep:
        left_out = {name: why for name, why in left_out.items() if name not in summary["time"]}
    labels = {name: peer.label for name, peer in PEERS.items()}
    tables = markdown(summary, labels, left_out)
    print(tables)
    complete = all(
        len(runs.get(problem, {}).get(algorithm, ())) == len(options.seeds)
        for problem, algorithm in itertools.product(options.problems, options.algorithms)
    )
    indifferent = {"workers", "limit", "environments", "runs", "no_runs"}
    if out := destination(parser, options, RESULTS, indifferent=indifferent, complete=complete):
        write_text(out / "suite.md", tables)
        write_text(out / "suite.json.gz", json.dumps(rounded(summary), separators=(",", ":")) + "\n")
        draw(summary, labels, out / "suite.png")


if __name__ == "__main__":
    main()
