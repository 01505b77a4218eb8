"""A point that a user has written down, nested as the space or flat, as Hyperopt writes it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperopt import pyll
from hyperopt.pyll.base import Apply

from hyperopt_hyperband._documents import Vals
from hyperopt_hyperband._space import (
    BudgetLabel,
    Distribution,
    Hyperparameter,
    hyperparameters,
    label_of,
    parameters,
)
from hyperopt_hyperband._values import plain
from hyperopt_hyperband._warn import warn

ABSENT: Any = object()
"""Where a nested point says nothing of a part of the space."""


def vals_of_point(space: Apply, point: Any, defaults: Mapping[str, Any]) -> Vals:
    """A point that a user has written down, as Hyperopt writes it.

    Parameters
    ----------
    space : hyperopt.pyll.Apply
    point : nested as the space is written, flat (a dict by label), or partly so
        An option of a choice is given as itself, where only one is like it (of a dict, the keys that tell);
        or by its name in reports; or by its index. A number that is both is the option, with a warning.
    defaults : dict of str
        The values of labels that the point may leave out.

    Raises
    ------
    ValueError
        It names the label, the value and the remedy.
    """
    known = hyperparameters(space)

    def vals(nested: Any, flat: Mapping[str, Any]) -> Vals:
        found = _Point(known, flat, defaults).read(space, nested)
        if idle := sorted(map(str, flat.keys() - found.keys())):
            raise ValueError(f"{idle} take no part in it: leave them out, or pass some of {sorted(found)}")
        return {label: [found[label]] if label in found else [] for label in known}

    if not isinstance(point, Mapping):
        return vals(point, {})
    if space.name == "dict" and not space.pos_args:
        keys = dict(space.named_args).keys()
        return vals(
            {key: value for key, value in point.items() if key in keys},
            {key: value for key, value in point.items() if key not in keys},
        )
    try:
        return vals(point, {})
    except ValueError:
        if not point.keys() <= known.keys():
            raise
    return vals(ABSENT, point)


class _OtherOptionError(ValueError):
    """A part of a point is nothing like that part of the space."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A point as it is read: the space's hyperparameters, what is given by label, what may be left out."""

    known: dict[str, Hyperparameter]
    flat: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def read(self, node: Apply, given: Any) -> dict[str, Any]:
        """The active hyperparameters of a part of the space; given is what the objective gets, or ABSENT."""
        match node.name:
            case "hyperopt_param":
                return self._number(node, given)
            case "switch":
                return self._option(node, given)
            case "int" | "float" if parameters(node):
                return self.read(node.pos_args[0], given)
            case "dict" if not node.pos_args:
                parts: dict[Any, Apply] = dict(node.named_args)
                if given is not ABSENT and not (isinstance(given, Mapping) and given.keys() <= parts.keys()):
                    raise _OtherOptionError(f"{given!r} is no dict of {sorted(parts)}")
                return self._parts(parts, {} if given is ABSENT else given)
            case "pos_args":
                parts = dict(enumerate(node.pos_args))
                if given is not ABSENT and not (isinstance(given, Sequence) and len(given) == len(parts)):
                    raise _OtherOptionError(f"{given!r} is no sequence of {len(parts)}")
                return self._parts(parts, {} if given is ABSENT else dict(enumerate(given)))
        if own := sorted(map(label_of, parameters(node))):
            if given is not ABSENT:
                raise ValueError(f"{given!r} is computed in the space: give {own} in its place, by label")
            return self._parts(dict(enumerate(node.inputs())), {})
        value = pyll.rec_eval(node)
        if given is not ABSENT and not _same(value, given):
            raise _OtherOptionError(f"{given!r} is {value!r} in the space: pass that, or leave it out")
        return {}

    def _parts(self, parts: dict[Any, Apply], given: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, part in parts.items():
            found |= self.read(part, given.get(key, ABSENT))
        return found

    def _number(self, node: Apply, given: Any) -> dict[str, Any]:
        name, label = node.arg["label"].obj, label_of(node)
        drawn = self.known[label].distribution
        if isinstance(name, BudgetLabel):
            drawn = Distribution("budget", log=False, low=name.min_budget, high=name.max_budget)
        value = self._value(label, given)
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise _OtherOptionError(f"{label!r}: {value!r} is no number: pass one")
        number = float(value)
        if not math.isfinite(number) or number not in drawn:
            bounds = "a finite one" if drawn.low is None else f"one from {drawn.low!r} to {drawn.high!r}"
            multiple = f", a multiple of {drawn.step!r}" if drawn.step else ""
            raise ValueError(f"{label!r}: {value!r} is none of its values: pass {bounds}{multiple}")
        return {label: int(number) if drawn.name == "randint" else value}

    def _option(self, node: Apply, given: Any) -> dict[str, Any]:
        """The choice, as the index of the option that is meant, and the hyperparameters inside that."""
        selector, *options = node.pos_args
        if selector.name != "hyperopt_param":
            found = self.read(selector, ABSENT)
            memo = {each: found[label_of(each)] for each in parameters(selector)}
            return found | self.read(options[int(pyll.rec_eval(selector, memo=memo))], given)
        label = label_of(selector)
        value = self._value(label, given)
        tried = [self._tried(option, value) for option in options]
        fits = {i: found for i, found in enumerate(tried) if isinstance(found, dict)}
        names = list(self.known[label].options or ())
        is_index = type(value) is int and 0 <= value < len(options)
        if len(fits) == 1:
            [(i, inside)] = fits.items()
            if is_index and value != i:
                warn(
                    f"{label!r}: {value!r} is taken as the option, not as the index of {names[value]}: to be "
                    f"clear, name an option by its text, such as {names[i]!r}"
                )
            return {label: i} | inside
        if value in names or is_index:
            i = value if is_index else names.index(value)
            return {label: i} | self.read(options[i], ABSENT)
        meant = [e for e in tried if isinstance(e, ValueError) and not isinstance(e, _OtherOptionError)]
        if len(meant) == 1:
            raise meant[0]
        raise ValueError(
            f"{label!r}: {value!r} is like {len(fits) or 'none'} of its options: pass one of {names}"
        )

    def _tried(self, option: Apply, value: Any) -> dict[str, Any] | ValueError:
        try:
            return self.read(option, value)
        except ValueError as error:
            return error

    def _value(self, label: str, given: Any) -> Any:
        value = self.flat.get(label, self.defaults.get(label, ABSENT)) if given is ABSENT else given
        if value is ABSENT:
            raise ValueError(f"{label!r} is missing: give it a value")
        return plain(value)


def _same(own: Any, given: Any) -> bool:
    """Whether an option is what is given; True is no 1."""
    own, given = plain(own), plain(given)
    try:
        return own is given or (isinstance(own, bool) == isinstance(given, bool) and bool(own == given))
    except ValueError:  # of arrays
        return False
