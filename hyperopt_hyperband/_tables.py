"""Tables for people, as lines of text and as HTML for a notebook; numbers and durations in words."""

from __future__ import annotations

import html
from collections.abc import Sequence

Row = Sequence[str]


def text(header: Row, rows: Sequence[Row]) -> list[str]:
    """A table's lines: figures flush right under a header, names and texts flush left without one."""
    cells = [header, *rows] if header else rows
    justify = str.rjust if header else str.ljust
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(justify, row, widths)).rstrip() for row in cells]


def markup(title: str, header: Row, rows: Sequence[Row]) -> str:
    """A title and its table as HTML, everything escaped."""
    cells = [*([("th", header)] if header else []), *(("td", row) for row in rows)]
    lines = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in cells)
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<h4>{html.escape(title)}</h4>" + (f"<table>{table}</table>" if table else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    largest = next(i for i, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[largest : largest + 2])


def cell(value: object) -> str:
    """A value as text, a float in six digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
