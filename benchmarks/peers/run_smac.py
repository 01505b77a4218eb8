"""SMAC: MultiFidelityFacade with its Hyperband intensifier, as its multi-fidelity example has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from config_space import config_space
from protocol import Task
from smac import MultiFidelityFacade, Scenario
from smac.intensifier.hyperband import Hyperband
from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity


def main() -> None:
    task = Task("smac", "ConfigSpace", "numpy")
    # The suite ends the run; twice as many trials as the total budget buys last until then.
    trials = get_n_trials_for_hyperband_multifidelity(
        total_budget=2 * task.total * task.max_budget,
        min_budget=task.min_budget,
        max_budget=task.max_budget,
        eta=3,
        print_summary=False,
    )
    scenario = Scenario(
        config_space(task),
        n_trials=math.ceil(trials),
        min_budget=task.min_budget,
        max_budget=task.max_budget,
        seed=task.seed,
        output_directory=Path("smac"),
    )

    def objective(config: Any, seed: int = 0, budget: float = task.max_budget) -> float:  # noqa: ARG001
        return task.evaluate(dict(config), budget)

    facade = MultiFidelityFacade(
        scenario,
        objective,
        intensifier=Hyperband(scenario, eta=3, incumbent_selection="highest_budget"),
        logging_level=False,
        overwrite=True,
    )
    facade.optimize()


if __name__ == "__main__":
    main()
