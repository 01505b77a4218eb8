"""Problems of the suite: a space, a budget, a loss, and the loss of the best configuration.

problem = load("counting_ones")
problem.space                               Hyperopt's space, without the budget
problem.evaluate(params, budget, seed=0)    what a user would see; the same arguments give the same loss
problem.score(params)                       the loss at max_budget, without noise
problem.optimum                             the lowest score there is, or the lowest that is known
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Params = dict[str, Any]
Loss = Callable[[Params, float, np.random.Generator | None], float]
When = tuple[str, Any] | None
"""The choice and the option of it under which a parameter is active; None: always."""


@dataclass(frozen=True)
class Float:
    """A number between two, or its logarithm."""

    low: float
    high: float
    log: bool = False
    when: When = None


@dataclass(frozen=True)
class Int:
    """A whole number, both bounds included."""

    low: int
    high: int
    log: bool = False
    when: When = None


@dataclass(frozen=True)
class Choice:
    """One of some options."""

    options: tuple[Any, ...]
    when: When = None


Parameter = Float | Int | Choice


@dataclass(frozen=True)
class Problem:
    """A tuning problem.

    Attributes
    ----------
    parameters : the space, by name
    loss : of the parameters at a budget, with noise from a generator, or without noise (None)
    optimum : the lowest noise-free loss at max_budget
    exact : whether the optimum is known, not only the best that was ever found
    trains : whether an evaluation trains a model (a second, not a tenth of a millisecond)
    """

    name: str
    parameters: Mapping[str, Parameter]
    min_budget: int
    max_budget: int
    loss: Loss
    optimum: float
    exact: bool = True
    trains: bool = False

    @property
    def space(self) -> dict[str, Any]:
        """The space in Hyperopt's terms. What depends on a choice stands in the choice's options."""
        return hyperopt_space(self.parameters)

    def evaluate(self, params: Params, budget: float, seed: int = 0) -> float:
        """The loss that a user would see. Its noise depends on all three arguments, and on nothing else."""
        params = flat(params)
        key = repr((sorted(params.items()), float(budget), seed)).encode()
        noise = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        return float(self.loss(params, budget, np.random.default_rng(noise)))

    def score(self, params: Params) -> float:
        """The loss at max_budget, without noise."""
        return float(self.loss(flat(params), self.max_budget, None))

    def description(self) -> dict[str, Any]:
        """The space and the budgets as plain JSON, for a peer in another process."""
        parameters = {
            name: {"kind": type(parameter).__name__.lower(), **asdict(parameter)}
            for name, parameter in self.parameters.items()
        }
        return {
            "name": self.name,
            "parameters": parameters,
            "min_budget": self.min_budget,
            "max_budget": self.max_budget,
        }


def loss_of_training(train: Callable[[Params, float, int], float]) -> Loss:
    """A problem's loss, where `train` gives that of parameters at a budget, under a random state.

    Its noise is the random state; without noise, it is the mean over five of them.
    """

    def loss(params: Params, budget: float, rng: np.random.Generator | None) -> float:
        if rng is None:
            return float(np.mean([train(params, budget, state) for state in range(5)]))
        return train(params, budget, int(rng.integers(5, 2**31)))

    return loss


def flat(params: Params) -> Params:
    """The active parameters side by side, whatever the nesting of Hyperopt's space."""
    found: Params = {}
    for name, value in params.items():
        found.update(flat(value) if isinstance(value, dict) else {name: _plain(value)})
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def hyperopt_space(parameters: Mapping[str, Parameter], when: When = None) -> dict[str, Any]:
    from hyperopt import hp
    from hyperopt.pyll import scope

    space: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.when != when:
            continue
        match parameter:
            case Float(low, high, log=False):
                space[name] = hp.uniform(name, low, high)
            case Float(low, high, log=True):
                space[name] = hp.loguniform(name, math.log(low), math.log(high))
            case Int(low, high, log=False):
                space[name] = scope.int(hp.quniform(name, low - 0.5, high + 0.5, 1))
            case Int(low, high, log=True):
                space[name] = scope.int(hp.qloguniform(name, math.log(low), math.log(high), 1))
            case Choice(options):
                under = {option: hyperopt_space(parameters, (name, option)) for option in options}
                nested = [{name: option, **under[option]} if under[option] else option for option in options]
                space[name] = hp.choice(name, nested)
    return space


MODULES = (
    "counting_ones",
    "hartmann",
    "curves",
    "conditional",
    "digits_surrogate",
    "digits_mlp",
    "boosting",
    "sgd",
)


@functools.cache
def all_problems() -> dict[str, Problem]:
    """All problems by name, the cheap ones first."""
    found = [problem for name in MODULES for problem in importlib.import_module(f"problems.{name}").PROBLEMS]
    return {problem.name: problem for problem in found}


def load(name: str) -> Problem:
    problems = all_problems()
    if name not in problems:
        raise ValueError(f"problem {name!r} is not known: pass one of {', '.join(problems)}")
    return problems[name]
