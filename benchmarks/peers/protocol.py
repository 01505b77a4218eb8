"""What a peer says to the suite, in lines of JSON over standard input and output. Standard library only.

The suite sends one line that describes the problem; the peer answers with the versions of its packages. Then
the peer asks for one evaluation a line and gets its loss, until the suite has spent its total budget and
closes the pipe: that ends the peer.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from importlib.metadata import version
from typing import Any

Params = dict[str, Any]


class Task:
    """The problem of a run, and the way to evaluate it.

    Attributes
    ----------
    mode : which of its algorithms the peer is to run
    seed, total : of the run; total is in multiples of max_budget
    parameters : by name, each with a kind (float, int, choice), its bounds or options, log, and when: the
        choice and the option of it under which the parameter is active, or None
    min_budget, max_budget : of one evaluation
    """

    mode: str
    seed: int
    total: float
    parameters: dict[str, dict[str, Any]]
    min_budget: int
    max_budget: int

    def __init__(self, *packages: str) -> None:
        # What a package prints must not reach the suite.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.__dict__.update(json.loads(sys.stdin.readline()))
        versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
        self._send({"versions": versions})

    def evaluate(self, params: Params, budget: float, continued: bool = False) -> float:
        """The loss of the active parameters at a budget.

        continued: the peer goes on with the training of the same configuration, and pays the difference.
        """
        with self._lock:
            self._send({"params": params, "budget": float(budget), "continued": continued})
            answer = sys.stdin.readline()
        if not answer:
            os._exit(0)  # no package could catch this
        return float(json.loads(answer))

    def active(self, params: Params) -> Params:
        """Leave out the parameters that the choices make idle, for peers whose spaces know no conditions."""
        return {
            name: value
            for name, value in params.items()
            if (when := self.parameters[name]["when"]) is None or params[when[0]] == when[1]
        }

    def _send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message, default=lambda number: number.item()) + "\n")
        self._out.flush()
