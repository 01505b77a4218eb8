"""HpBandSter: BOHB with a name server and one worker on the loopback interface, as its examples have it."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from config_space import config_space
from hpbandster.core.nameserver import NameServer
from hpbandster.core.worker import Worker
from hpbandster.optimizers import BOHB
from protocol import Task


class SuiteWorker(Worker):  # type: ignore[misc]
    """Evaluates in the suite."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(**options)
        self.task = task

    def compute(self, config: dict[str, Any], budget: float, **_: Any) -> dict[str, Any]:
        return {"loss": self.task.evaluate(config, budget), "info": None}


def main() -> None:
    task = Task("hpbandster", "ConfigSpace", "numpy")
    np.random.seed(task.seed)  # noqa: NPY002 # its model draws from numpy's global state
    logging.disable(logging.CRITICAL)
    run_id = f"suite-{task.seed}"
    server = NameServer(run_id=run_id, host="127.0.0.1", port=0)
    host, port = server.start()
    where = {"run_id": run_id, "nameserver": host, "nameserver_port": port, "host": "127.0.0.1"}
    SuiteWorker(task, **where).run(background=True)
    optimizer = BOHB(
        configspace=config_space(task), min_budget=task.min_budget, max_budget=task.max_budget, eta=3, **where
    )
    # Each bracket costs more than max_budget: these last until the suite ends the run.
    optimizer.run(n_iterations=2 * math.ceil(task.total) + 10)


if __name__ == "__main__":
    main()
