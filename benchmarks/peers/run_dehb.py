"""DEHB: differential evolution in Hyperband's brackets, through ask and tell."""

from __future__ import annotations

from config_space import config_space
from dehb import DEHB
from protocol import Task


def main() -> None:
    task = Task("dehb", "ConfigSpace", "numpy")
    space = config_space(task)
    optimizer = DEHB(
        cs=space,
        dimensions=len(space),
        min_fidelity=task.min_budget,
        max_fidelity=task.max_budget,
        eta=3,
        n_workers=1,
        seed=task.seed,
        output_path="dehb",
        log_level="ERROR",
    )
    while True:
        job = optimizer.ask()
        budget = float(job["fidelity"])
        loss = task.evaluate(dict(job["config"]), budget)
        optimizer.tell(job, {"fitness": loss, "cost": budget})


if __name__ == "__main__":
    main()
