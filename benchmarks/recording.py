"""How the scripts keep a result: what it was measured with, its file, and when it replaces the stored one."""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import json
import os
import platform
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hyperopt_hyperband


def environment() -> dict[str, str]:
    """When, and on what machine."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    return {"date": datetime.date.today().isoformat(), "machine": machine}


def versions(*packages: str) -> dict[str, str]:
    """Python's, those of what every script measures, and those of more packages."""
    names = ("hyperopt", "hyperopt-hyperband", "numpy", *packages)
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def code() -> str:
    """A digest of the package's modules, which change more often than its version."""
    modules = sorted(Path(hyperopt_hyperband.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()[:12]


def write_text(path: Path, text: str) -> None:
    """Make or replace a file, compressed if its name says so (.gz); a kill leaves the old one or the new."""
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # the same bytes for the same text
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    partial.replace(path)


def read_text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


class Rows:
    """A result that grows row by row, and is gone on with where it was cut short.

    Until it is finished, it lies beside its file. There it is taken up if all that it says of itself is the
    same, but for when and where it was measured.
    """

    def __init__(self, out: Path | None, **settings: Any) -> None:
        self.out = out
        self.rows: list[dict[str, Any]] = []
        self.settings = {"versions": versions(), "code": code(), **settings}
        self._unfinished = out and out.with_suffix(".unfinished")
        if self._unfinished and self._unfinished.exists():
            earlier = json.loads(read_text(self._unfinished))
            if earlier["settings"] == self.settings:
                self.rows = earlier["rows"]

    def keep(self) -> None:
        """Write the rows so far, where the result goes to a file."""
        if self._unfinished:
            write_text(self._unfinished, json.dumps({"settings": self.settings, "rows": self.rows}))

    def finish(self, totals: dict[str, Any]) -> None:
        """Write the result, a row to a line."""
        if self.out and self._unfinished:
            head = json.dumps({**environment(), **self.settings, "totals": totals}, indent=1)
            rows = ",\n".join(map(json.dumps, self.rows))
            write_text(self.out, f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')
            self._unfinished.unlink(missing_ok=True)
            print(self.out)


def destination(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    stored: Path,
    *,
    indifferent: Collection[str] = (),
    complete: bool = True,
) -> Path | None:
    """Where a result goes: where --out says, else to the stored result, or nowhere.

    It replaces the stored result only if it is complete, and the options are those of the stored one, which
    are the defaults. Those named as indifferent, such as the number of processes, do not matter.
    """
    if options.out is not None:
        return Path(options.out)
    wanted = {name: value for name, value in vars(options).items() if name not in indifferent}
    if complete and all(value == parser.get_default(name) for name, value in wanted.items()):
        return stored
    print(f"printed, not written: the result at {stored} holds more, or other things; --out keeps this one")
    return None
