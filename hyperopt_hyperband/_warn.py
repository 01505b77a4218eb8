"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings

HOSTS = {"hyperopt", "hyperopt_hyperband"}


def warn(message: str) -> None:
    """Warn at the nearest line outside of Hyperopt and of this package, such as the call of fmin."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in HOSTS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
