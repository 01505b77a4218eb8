"""What faults do to a run: simulated evaluations that fail, processes that die, documents that are disturbed.

    python benchmarks/faults.py                     300,000 documents, half an hour of CPU time
    python benchmarks/faults.py --seeds 145         one simulation again, with its traceback

A simulation is drawn by its seed: a schedule, a driver (an asynchronous backend with some workers, fmin's
serial loop, or ask and tell), an algorithm, and how often what goes wrong. The simulator (tests/simulator.py)
checks the promises at every suggestion: a run ends; each document counts once; no rung is larger than
planned; what is promoted is among the best of the rung below; nothing outside the present space is issued; a
disruption is told once; reports and records can always be read.

Half of the spaces have branches, with one budget, with several and with none; in half of the simulations
configurations stop early, so that their results are final.

Faults: evaluations that fail in one of eight ways, restarts (the run goes on with pickled or BSON documents),
interrupted evaluations, lost documents, disorder, runs that are joined with this one, documents read back
through JSON or BSON, and changes of the space.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import logging
import multiprocessing
import random
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperopt import tpe
from recording import Rows, destination

from hyperopt_hyperband import bohb, hyperband

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from simulator import Disrupted

RESULTS = Path(__file__).parent / "results" / "faults" / "faults.json"
BLOCK = 10
"""Seeds that are run and written at a time."""
ALGORITHMS = {
    "hyperband": hyperband.suggest,
    "bohb": bohb.suggest,
    "tpe": functools.partial(hyperband.suggest, sampler=tpe.suggest),
}
PROGRESS = ("documents", "faults", "broken promises")
Block = dict[str, Any]


def drawn(seed: int) -> tuple[str, Disrupted]:
    """The simulation of a seed, and its driver and algorithm in words."""
    rng = random.Random(seed)
    driver = rng.choice(["asynchronous", "serial", "ask and tell"])
    algorithm = rng.choice(["hyperband"] * 6 + ["bohb", "tpe"])
    simulation = Disrupted(
        max_budget=rng.choice([3, 9, 9, 16, 27]),
        eta=rng.choice([2, 3, 3, 4]),
        workers=1 if driver == "serial" else rng.randint(1, 12),
        ids=rng.randint(1, 5),
        faults=rng.choice([0.05, 0.2, 0.5]),
        restarts=rng.choice([0.02, 0.05, 0.2]),
        serial=driver == "serial",
        asks=driver == "ask and tell",
        disruptions=rng.randint(2, 8),
        finals=rng.choice([0.0, 0.0, 0.3, 1.0]),
        knobs=rng.choice([0, 0, 1, 2]),
        algo=ALGORITHMS[algorithm],
        iterations=rng.choice([1, 2]),
        seed=seed,
    )
    return f"{driver}, {algorithm}", simulation


def measured(start: int) -> Block:
    """Run a block of simulations."""
    logging.disable(logging.WARNING)  # that an evaluation is given up, again and again
    warnings.simplefilter("ignore")
    faults: collections.Counter[str] = collections.Counter()
    runs: collections.Counter[str] = collections.Counter()
    documents, broken = 0, []
    for seed in range(start, start + BLOCK):
        kind, simulation = drawn(seed)
        try:
            simulation.run().check()
        except Exception as error:
            [*_, at] = traceback.extract_tb(error.__traceback__)
            broken.append({"seed": seed, "error": repr(error), "at": f"{Path(at.filename).name}:{at.lineno}"})
        documents += len(simulation.docs)
        faults.update(simulation.injected)
        runs[kind] += 1
    return {
        "seeds": [start, start + BLOCK - 1],
        "documents": documents,
        "runs": runs,
        "faults": faults,
        "broken": broken,
    }


def totals(blocks: Sequence[Block]) -> dict[str, Any]:
    """Sums over the blocks."""
    faults: collections.Counter[str] = collections.Counter()
    runs: collections.Counter[str] = collections.Counter()
    for block in blocks:
        faults.update(block["faults"])
        runs.update(block["runs"])
    return {
        "documents": sum(block["documents"] for block in blocks),
        "simulations": sum(runs.values()),
        "faults": faults.total(),
        "broken promises": sum(len(block["broken"]) for block in blocks),
        "by fault": dict(sorted(faults.items())),
        "by driver and algorithm": dict(sorted(runs.items())),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=300_000, help="at least; those of joined runs too")
    parser.add_argument("--processes", type=int, default=1, help="blocks at a time")
    parser.add_argument("--seeds", type=int, nargs="+", help="run these alone, here, until a promise breaks")
    parser.add_argument("--out", type=Path, help="a JSON file; without: the stored one, if all is run")
    options = parser.parse_args(argv)
    if options.seeds:
        for seed in options.seeds:
            kind, simulation = drawn(seed)
            print(f"seed {seed}: {kind}", flush=True)
            simulation.run().check()
        return
    out = destination(parser, options, RESULTS, indifferent={"processes"})
    result = Rows(out)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        while sum(block["documents"] for block in result.rows) < options.documents:
            starts = [(len(result.rows) + i) * BLOCK for i in range(8 * options.processes)]
            for block in pool.imap(measured, starts):  # in order, so that the blocks have no gaps
                result.rows.append(block)
                for each in block["broken"]:
                    print("broken:", each, flush=True)
                so_far = totals(result.rows)
                print(*(f"{so_far[what]} {what}" for what in PROGRESS), sep=", ", flush=True)
                result.keep()
    print(json.dumps(totals(result.rows), indent=1))
    result.finish(totals(result.rows))
    if any(block["broken"] for block in result.rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
