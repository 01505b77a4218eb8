"""Syne Tune: its schedulers' own API, as its tuner calls it, with one trial at a time.

ASHA in this version stops trials: a trial trains on until it falls behind. Results are reported at the rungs,
eta^k, and at the end: between them the scheduler never stops a trial.
"""

from __future__ import annotations

import datetime
import itertools
import logging
from typing import Any

import numpy as np
from protocol import Task
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHA
from syne_tune.optimizer.scheduler import SchedulerDecision


def domain(spec: dict[str, Any]) -> Any:
    if spec["kind"] == "choice":
        return config_space.choice(list(spec["options"]))
    kinds = {
        ("float", False): config_space.uniform,
        ("float", True): config_space.loguniform,
        ("int", False): config_space.randint,
        ("int", True): config_space.lograndint,
    }
    return kinds[spec["kind"], spec["log"]](spec["low"], spec["high"])


def main() -> None:
    task = Task("syne-tune", "numpy")
    logging.disable(logging.CRITICAL)
    np.random.seed(task.seed)  # noqa: NPY002 # brackets are drawn from numpy's global state
    scheduler = ASHA(
        {name: domain(spec) for name, spec in task.parameters.items()},
        metric="loss",
        do_minimize=True,
        time_attr="budget",
        max_t=task.max_budget,
        grace_period=task.min_budget,
        reduction_factor=3,
        random_seed=task.seed,
    )
    steps = []
    step = task.min_budget
    while step < task.max_budget:
        steps.append(step)
        step *= 3
    for number in itertools.count():
        config = scheduler.suggest().config
        trial = Trial(number, config, datetime.datetime.now())
        scheduler.on_trial_add(trial)
        for step in [*steps, task.max_budget]:
            loss = task.evaluate(task.active(config), step, continued=True)
            if scheduler.on_trial_result(trial, {"loss": loss, "budget": step}) == SchedulerDecision.STOP:
                scheduler.on_trial_remove(trial)
                break


if __name__ == "__main__":
    main()
