"""What SIGKILL does to a run: a script that is killed again and again, and started again until it is done.

    python benchmarks/kills.py                      both ways to save, 300 kills each, minutes

Every other kill falls at a random moment of the run, the others inside a write of the file. Where a kill
leaves a file that can't be loaded, the run starts anew. A run of three Hyperband iterations that is done is
compared with the schedule, and the next one begins, until there were as many kills.

lost: evaluations that had been saved, and that the file does not hold after the kill.
repeated: evaluations that the file holds, and that were run again.
in flight: evaluations that a kill cut short, one a kill at most, and how many of them were run again. (The
others were draws: other configurations are drawn in their place.)
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, Trials, fmin, hp

from hyperopt_hyperband import hyperband

ITERATIONS = 3
PLAN = hyperband.schedule(1, 9)
SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}


def work(way: str, file: Path, log: int, payload: int) -> None:
    """What a user's script does. The log gets a line where an evaluation starts, and where it is saved."""

    def objective(params: dict[str, Any]) -> dict[str, Any]:
        os.write(log, f"start {params['x']} {params['epochs']}\n".encode())
        time.sleep(0.004)
        loss = (params["x"] - 1) ** 2 + 1 / params["epochs"]
        return {"loss": loss, "status": STATUS_OK, "curve": os.urandom(payload)}

    def saved(trials: Trials, *_: Any) -> tuple[bool, list[Any]]:
        os.write(log, f"saved {name(trials.trials[-1])}\n".encode())
        return False, []

    own = way == "trials_save_file"
    fmin(
        objective,
        SPACE,
        algo=hyperband.suggest,
        max_evals=ITERATIONS * PLAN.evaluations,
        trials=hyperband.load_trials(file),
        rstate=np.random.default_rng(),
        verbose=False,
        trials_save_file=str(file) if own else "",
        early_stop_fn=saved if own else hyperband.save_trials(file, saved),
    )


def name(document: dict[str, Any]) -> str:
    """Tells an evaluation from all others, since no two configurations have the same x."""
    return f"{document['misc']['vals']['x'][0]} {document['misc']['budget']}"


def started(way: str, file: Path, log: int, payload: int) -> int:
    """Start the script in a process of its own; returns its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(way, file, log, payload)
            status = 0
        finally:
            os._exit(status)
    return child


def killed(child: int, file: Path, log: Path, inside: bool, rng: random.Random) -> bool:
    """Kill the child at work, at a random moment or inside a write. Returns False where it is done before."""

    def wait_for(event: Callable[[], bool]) -> None:
        while not event() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            pass

    logged = rng.randrange(1000)  # bytes, in some 20 evaluations
    wait_for(lambda: log.stat().st_size > logged)
    if inside:
        wait_for(written(file))
    time.sleep(rng.uniform(0, 0.002 if inside else 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("the script has failed")
    return os.WIFSIGNALED(status)


def written(file: Path) -> Callable[[], bool]:
    """Tells, called again and again, whether the file is being written."""
    partial = file.with_name(file.name + ".partial")
    largest = 0

    def being_written() -> bool:
        nonlocal largest
        size = file.stat().st_size if file.exists() else 0
        largest = max(largest, size)
        return partial.exists() or size < largest

    return being_written


def measure(way: str, kills: int, payload: int, folder: Path) -> collections.Counter[str]:
    """Kill the script so many times; returns what came of it."""
    rng = random.Random(0)
    counts: collections.Counter[str] = collections.Counter()
    file, path = folder / "trials", folder / "log"
    log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    kept: set[str] = set()
    cut_short: set[str] = set()
    while counts["kills"] < kills:
        inside = counts["kills"] % 2 == 1
        done = not killed(started(way, file, log, payload), file, path, inside, rng)
        counts["kills"] += not done
        counts["inside a write"] += inside and not done
        lines = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
        os.truncate(path, 0)
        begun = {which for event, which in lines if event == "start"}
        saved = {which for event, which in lines if event == "saved"} | kept
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
        if done:
            counts["runs"] += 1
            counts["whole runs"] += whole(trials)
            file.unlink()
            kept, cut_short = set(), set()
    os.close(log)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300, help="for each way to save")
    parser.add_argument("--payload", type=int, default=20_000, help="bytes that an evaluation returns")
    arguments = parser.parse_args()
    columns = ["kills", "inside a write", "unloadable", "lost", "repeated"]
    columns += ["in flight", "in flight, repeated", "runs", "whole runs"]
    print("way to save".ljust(16), *columns, sep="  ")
    for way in ("trials_save_file", "save_trials"):
        with tempfile.TemporaryDirectory() as folder:
            counts = measure(way, arguments.kills, arguments.payload, Path(folder))
        cells = [str(counts[column]).rjust(len(column)) for column in columns]
        print(way.ljust(16), *cells, sep="  ", flush=True)


if __name__ == "__main__":
    main()
