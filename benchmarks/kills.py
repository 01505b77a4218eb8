"""What SIGKILL does to a run: a script that is killed again and again, and started again until it is done.

    python benchmarks/kills.py --processes 2      three ways to save, 1,000 kills each
    python benchmarks/kills.py --kills 100        fewer; printed alone

Stopped, it goes on where it stood. Every other kill falls at a random moment of the run, the others inside a
write of the file. Where a kill leaves a file that can't be loaded, the run starts anew. A run of three
Hyperband iterations that is done is compared with the schedule. Runs follow until there were as many kills.

two writers: save_trials, and the script is always started twice at the same time.

lost: evaluations that had been saved, and that the file does not hold after the kill.
repeated: evaluations that the file holds, and that were run again.
in flight: evaluations that a kill cut short, one a kill at most, and how many of them were run again. (The
others were draws: other configurations are drawn in their place.)
told: starts that ended at once since another process had the file; both: times that two went to work.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, Trials, fmin, hp
from recording import Rows, destination

from hyperopt_hyperband import hyperband

ITERATIONS = 3
PLAN = hyperband.schedule(1, 9)
SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}
WAYS = {"trials_save_file": 1, "save_trials": 1, "two writers": 2}
"""Ways to save, and how many scripts start at a time."""
TOLD = 3
"""The status of a script that was told that the file is in use."""
COLUMNS = ["kills", "inside a write", "unloadable", "lost", "repeated", "in flight", "in flight, repeated"]
COLUMNS += ["told", "both", "runs", "whole runs"]
RESULTS = Path(__file__).parent / "results" / "kills" / "kills.json"
Row = dict[str, Any]


def work(way: str, file: Path, log: int, payload: int) -> int:
    """What a user's script does. The log gets a line where an evaluation starts, and where it is saved."""
    me = os.getpid()

    def objective(params: dict[str, Any]) -> dict[str, Any]:
        os.write(log, f"{me} start {params['x']} {params['epochs']}\n".encode())
        time.sleep(0.004)
        loss = (params["x"] - 1) ** 2 + 1 / params["epochs"]
        return {"loss": loss, "status": STATUS_OK, "curve": os.urandom(payload)}

    def saved(trials: Trials, *_: Any) -> tuple[bool, list[Any]]:
        os.write(log, f"{me} saved {name(trials.trials[-1])}\n".encode())
        return False, []

    own = way == "trials_save_file"
    try:
        stop = saved if own else hyperband.save_trials(file, saved)
    except ValueError as error:
        if "is in use by" not in str(error):
            raise
        return TOLD
    fmin(
        objective,
        SPACE,
        algo=hyperband.suggest,
        max_evals=ITERATIONS * PLAN.evaluations,
        trials=hyperband.load_trials(file),
        rstate=np.random.default_rng(),
        verbose=False,
        trials_save_file=str(file) if own else "",
        early_stop_fn=stop,
    )
    return 0


def name(document: dict[str, Any]) -> str:
    """Tells an evaluation from all others, since no two configurations have the same x."""
    return f"{document['misc']['vals']['x'][0]} {document['misc']['budget']}"


def started(way: str, file: Path, log: int, payload: int) -> int:
    """Start the script in a process of its own; returns its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = work(way, file, log, payload)
        finally:
            os._exit(status)
    return child


def killed(children: list[int], file: Path, log: Path, inside: bool, rng: random.Random) -> tuple[int, int]:
    """Kill the one at work, at a random moment or inside a write, once all others have ended.

    Returns how many were killed, 0 where it is done before, and how many were told that the file is in use.
    """

    def at_work() -> int:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return sum(os.waitid(os.P_PID, child, options) is None for child in children)

    def wait_for(event: Callable[[], bool]) -> None:
        while at_work() and not event():
            pass

    logged = rng.randrange(1000)  # bytes, in some 20 evaluations
    wait_for(lambda: at_work() == 1 and log.stat().st_size > logged)
    if inside:
        wait_for(written(file))
    time.sleep(rng.uniform(0, 0.002 if inside else 0.02))
    for child in children:
        os.kill(child, signal.SIGKILL)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    kills = sum(map(os.WIFSIGNALED, statuses))
    ended = [os.WEXITSTATUS(status) for status in statuses if not os.WIFSIGNALED(status)]
    if not set(ended) <= {0, TOLD}:
        raise RuntimeError("the script has failed")
    return kills, ended.count(TOLD)


def written(file: Path) -> Callable[[], bool]:
    """Tells, called again and again, whether the file is being written."""
    largest = 0

    def being_written() -> bool:
        nonlocal largest
        size = file.stat().st_size if file.exists() else 0
        largest = max(largest, size)
        return size < largest or any(each.endswith(".partial") for each in os.listdir(file.parent))

    return being_written


def run(way: str, seed: int, payload: int) -> Row:
    """Kill the script until its run is done; returns what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        return {"way": way, "seed": seed, **_run(way, random.Random(seed), payload, Path(folder))}


def _run(way: str, rng: random.Random, payload: int, folder: Path) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    file, path = folder / "trials", folder / "log"
    log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    kept: set[str] = set()
    cut_short: set[str] = set()
    for inside in itertools.cycle((False, True)):
        children = [started(way, file, log, payload) for _ in range(WAYS[way])]
        kills, told = killed(children, file, path, inside, rng)
        counts["kills"] += kills
        counts["inside a write"] += inside * kills
        counts["told"] += told
        lines = [line.split(maxsplit=2) for line in path.read_text().splitlines()]
        os.truncate(path, 0)
        counts["both"] += len({process for process, event, _ in lines if event == "start"}) > 1
        begun = {which for _, event, which in lines if event == "start"}
        saved = {which for _, event, which in lines if event == "saved"} | kept
        counts["repeated"] += len(begun & kept)
        counts["in flight, repeated"] += len(begun & cut_short)
        try:
            trials = hyperband.load_trials(file)
        except ValueError:
            counts["unloadable"] += 1
            trials = Trials()
            file.unlink()
        kept = {name(document) for document in trials.trials}
        cut_short |= begun - kept
        counts["lost"] += len(saved - kept)
        counts["in flight"] += len(begun - kept - saved)
        if not kills:
            break
    os.close(log)
    counts["runs"] += 1
    counts["whole runs"] += whole(trials)
    return counts


def whole(trials: Trials) -> bool:
    """Whether what was done is what was planned."""
    planned = [
        (iteration, bracket.s, i, rung.budget)
        for iteration in range(ITERATIONS)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    ]
    done = [(r["iteration"], r["bracket"], r["rung"], r["budget"]) for r in hyperband.records(trials)]
    return sorted(done) == sorted(planned)


def total(rows: Sequence[Row], way: str) -> collections.Counter[str]:
    """The sums over the runs of a way."""
    counts = collections.Counter(dict.fromkeys(COLUMNS, 0))
    for row in rows:
        if row["way"] == way:
            counts.update({column: row.get(column, 0) for column in COLUMNS})
    return counts


def more_runs(way: str, kills: int, payload: int, processes: int, result: Rows) -> None:
    """Add runs of a way to the rows until they hold so many kills; what is under way then is added too."""
    had = {row["seed"] for row in result.rows if row["way"] == way}
    seeds = (seed for seed in itertools.count() if seed not in had)
    running: set[Future[Row]] = set()
    with ProcessPoolExecutor(processes) as executor:
        while True:
            while len(running) < processes and total(result.rows, way)["kills"] < kills:
                running.add(executor.submit(run, way, next(seeds), payload))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            result.rows += [future.result() for future in done]
            result.keep()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000, help="for each way to save, at least")
    parser.add_argument("--payload", type=int, default=20_000, help="bytes that an evaluation returns")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, help="a JSON file; without: the stored one, if all is run")
    options = parser.parse_args(argv)
    out = destination(parser, options, RESULTS, indifferent={"processes"})
    result, totals = Rows(out, payload=options.payload), {}
    print("way to save".ljust(16), *COLUMNS, sep="  ")
    for way in WAYS:
        more_runs(way, options.kills, options.payload, options.processes, result)
        counts = totals[way] = total(result.rows, way)
        cells = [str(counts[column]).rjust(len(column)) for column in COLUMNS]
        print(way.ljust(16), *cells, sep="  ", flush=True)
    result.rows.sort(key=lambda row: (list(WAYS).index(row["way"]), row["seed"]))
    result.finish(totals)


if __name__ == "__main__":
    main()
