"""Values as Python has them, whoever wrote them: Hyperopt, numpy, JSON, a database."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np

FLAT = {bool, int, float, str, type(None)}
SEQUENCES = (list, tuple, np.ndarray)


def plain(value: Any) -> Any:
    """The same number as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def as_number(value: Any) -> Any:
    """A value as the number that it is or that its text says; any other as it is."""
    value = plain(value)
    found = number(value)
    return value if found is None else found


def number(value: Any) -> int | float | None:
    """The number that a value is, or that its text says, as JSON leaves numpy's; None where there is none."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                value = kind(value)
                break
            except ValueError:
                pass
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def flag(value: Any) -> bool:
    """Whether a value is True, numpy's too, or the text that JSON leaves of that; no number is."""
    return value in ("True", "true") if isinstance(value, str) else plain(value) is True


def flat(value: Any) -> Any:
    """A value that can be compared, hashed and shown: a sequence as the text of a tuple, others as texts."""
    if isinstance(value, np.generic | np.ndarray) and value.size == 1:
        return value.item()
    if isinstance(value, int | float | str):  # of a database's own kind
        return value
    if isinstance(value, SEQUENCES):
        return str(tuple(value))
    return getattr(value, "__name__", None) or str(value)


def time_of(value: Any) -> datetime | None:
    """Hyperopt writes times in UTC, without a zone. A database may add the zone; JSON makes texts of them."""
    if value is None or (type(value) is datetime and value.tzinfo is None):
        return value
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if not isinstance(value, datetime) or value != value:  # pandas has a time that is none
            return None
        return value if value.utcoffset() is None else value.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
