"""Wrong calls, told what the right one is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def shows_its_call(function: Callable[P, R]) -> Callable[P, R]:
    """Where a call does not fit a function, let the TypeError show how it is called."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    shown = f"{function.__name__}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
    by_name = [p.name for p in bare if p.kind is p.KEYWORD_ONLY]
    options = f", {' and '.join(by_name)} by name" if by_name else ""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as wrong:
                raise TypeError(f"{function.__name__}: {wrong}; call {shown}{options}") from None
            raise

    return call
