"""Optuna: HyperbandPruner with TPESampler, step by step; a trial pruned at step r has cost r.

Reports come at the steps at which the pruner decides, eta^k, and at the end: between them it never prunes.
"""

from __future__ import annotations

from typing import Any

import optuna
from protocol import Task


def suggest(trial: Any, task: Task) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, spec in task.parameters.items():
        if spec["when"] is not None and params[spec["when"][0]] != spec["when"][1]:
            continue
        if spec["kind"] == "choice":
            params[name] = trial.suggest_categorical(name, spec["options"])
        elif spec["kind"] == "int":
            params[name] = trial.suggest_int(name, spec["low"], spec["high"], log=spec["log"])
        else:
            params[name] = trial.suggest_float(name, spec["low"], spec["high"], log=spec["log"])
    return params


def main() -> None:
    task = Task("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    steps = []
    step = task.min_budget
    while step < task.max_budget:
        steps.append(step)
        step *= 3
    steps.append(task.max_budget)

    def objective(trial: Any) -> float:
        params = suggest(trial, task)
        for step in steps:
            loss = task.evaluate(params, step, continued=True)
            trial.report(loss, step)
            if step < task.max_budget and trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study = optuna.create_study(
        study_name=f"suite {task.seed}",  # brackets depend on it
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.HyperbandPruner(task.min_budget, task.max_budget, reduction_factor=3),
    )
    study.optimize(objective)


if __name__ == "__main__":
    main()
