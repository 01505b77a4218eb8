"""The walk-through runs as it stands there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperopt_hyperband import hyperband

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_walk_through(tmp_path):
    shown = subprocess.run(
        [sys.executable, ROOT / "examples" / "walkthrough.py", tmp_path],
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    plan = hyperband.schedule(1, 27)
    assert shown.startswith(f"{plan}\non one worker: 0:07:03  on four: 0:0")
    assert "Incumbent: loss" in shown
    assert "1 and 3" in shown
    pictures = {file.name for file in tmp_path.iterdir()}
    assert pictures == {"evaluations.png", "budgets.png", "hyperparameters.png", "incumbent.png"}
