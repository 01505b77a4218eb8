"""What a space tells of its hyperparameters, to those who show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperopt import pyll
from hyperopt.pyll.base import Apply, Literal

LOGARITHMIC = {"loguniform", "qloguniform", "lognormal", "qlognormal"}


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One label of a space: whether its distribution is log, and its options' names where it is a choice."""

    log: bool
    names: tuple[str, ...] | None

    def name(self, value: Any) -> Any:
        """The name of a choice's option; any other value as it is."""
        return value if self.names is None else self.names[value]


def hyperparameters(space: Any) -> dict[str, Hyperparameter]:
    """The hyperparameters of a space, by label.

    A choice's options are named by what they are; dicts, and what holds hyperparameters, by the first text
    right inside ({"kind": "svm", "C": ...}), or else by index.
    """
    nodes = pyll.dfs(pyll.as_apply(space))
    options = {
        node.pos_args[0].arg["label"].obj: node.pos_args[1:]
        for node in nodes
        if node.name == "switch" and node.pos_args[0].name == "hyperopt_param"
    }
    found = {}
    for node in nodes:
        if node.name == "hyperopt_param":
            label = node.arg["label"].obj
            names = _names(options[label]) if label in options else None
            found[str(label)] = Hyperparameter(node.arg["obj"].name in LOGARITHMIC, names)
    return found


def _names(options: list[Apply]) -> tuple[str, ...]:
    names = tuple(_name(option, i) for i, option in enumerate(options))
    distinct = len(set(names)) == len(names)
    return names if distinct else tuple(f"{i}: {name}" for i, name in enumerate(names))


def _name(option: Apply, index: int) -> str:
    plain = all(node.name != "hyperopt_param" for node in pyll.dfs(option))
    if plain and option.name != "dict":
        value = pyll.rec_eval(option)
        return getattr(value, "__name__", None) or str(value)
    inside = option.inputs() if option.name in ("dict", "pos_args") else []
    texts = [node.obj for node in inside if isinstance(node, Literal) and isinstance(node.obj, str)]
    return texts[0] if texts else str(index)
