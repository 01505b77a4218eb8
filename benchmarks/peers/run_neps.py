"""NePS: hyperband and priorband through AskAndTell. The problems come without priors: priorband has none."""

from __future__ import annotations

import logging
import random
from typing import Any

import neps
import numpy as np
import torch
from protocol import Task

BUDGET = "budget"


def domain(spec: dict[str, Any]) -> Any:
    if spec["kind"] == "choice":
        return neps.Categorical(choices=tuple(spec["options"]))
    kind = {"float": neps.Float, "int": neps.Integer}[spec["kind"]]
    return kind(lower=spec["low"], upper=spec["high"], log=spec["log"])


def main() -> None:
    task = Task("neural-pipeline-search", "torch", "numpy")
    logging.disable(logging.CRITICAL)
    torch.manual_seed(task.seed)
    torch.set_num_threads(1)
    np.random.seed(task.seed)  # noqa: NPY002 # NePS draws from the global states
    random.seed(task.seed)
    parameters = {name: domain(spec) for name, spec in task.parameters.items()}
    parameters[BUDGET] = neps.IntegerFidelity(lower=task.min_budget, upper=task.max_budget)
    space = type("Space", (neps.PipelineSpace,), parameters)()
    algorithm = {"hyperband": neps.algorithms.hyperband, "priorband": neps.algorithms.priorband}[task.mode]
    optimizer = neps.AskAndTell(algorithm(space, eta=3))
    while True:
        trial = optimizer.ask()
        config = dict(trial.config)
        budget = config.pop(BUDGET)
        optimizer.tell(trial, task.evaluate(task.active(config), budget))


if __name__ == "__main__":
    main()
