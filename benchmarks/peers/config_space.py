"""The suite's spaces in terms of ConfigSpace, 0.6 and 1.x."""

from __future__ import annotations

from typing import Any

import ConfigSpace
from protocol import Task


def config_space(task: Task) -> Any:
    """The space, its conditions, and the seed of its draws."""
    space = ConfigSpace.ConfigurationSpace(seed=task.seed)
    for name, spec in task.parameters.items():
        if spec["kind"] == "choice":
            parameter = ConfigSpace.CategoricalHyperparameter(name, spec["options"])
        else:
            kind = {
                "float": ConfigSpace.UniformFloatHyperparameter,
                "int": ConfigSpace.UniformIntegerHyperparameter,
            }[spec["kind"]]
            parameter = kind(name, spec["low"], spec["high"], log=spec["log"])
        _add(space, parameter)
        if spec["when"] is not None:
            parent, option = spec["when"]
            _add(space, ConfigSpace.EqualsCondition(space[name], space[parent], option))
    return space


def _add(space: Any, part: Any) -> None:
    if hasattr(space, "add"):
        space.add(part)
    elif isinstance(part, ConfigSpace.EqualsCondition):
        space.add_condition(part)
    else:
        space.add_hyperparameter(part)
