"""What the package shows, and what it loads."""

import functools
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import places, run
from hyperopt import hp, tpe
from hyperopt.base import trials_from_docs

import hyperopt_hyperband
from hyperopt_hyperband import bohb, hyperband

PUBLIC = {"__init__", "__main__", "bohb", "hyperband", "plots"}


def test_all_other_modules_begin_with_an_underscore():
    names = {path.stem for path in Path(hyperopt_hyperband.__file__).parent.glob("*.py")}
    assert {name for name in names if not name.startswith("_")} | {"__init__", "__main__"} == PUBLIC


def test_the_version_is_that_of_the_installed_package():
    assert hyperopt_hyperband.__version__ == version("hyperopt-hyperband")


def test_plots_are_there_and_matplotlib_is_loaded_when_one_is_drawn():
    script = (
        "import sys, hyperopt_hyperband\n"
        "assert callable(hyperopt_hyperband.plots.evaluations)\n"
        "assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_bohb_is_hyperband_with_its_own_sampler_and_then_brackets_of_its_own(space):
    def loss(params):
        return params["x"] ** 2 + 1 / params["epochs"]

    by_name = run(loss, space, 60, algo=bohb.suggest)
    sampler = functools.partial(hyperband.suggest, sampler=bohb.gaussian_process)
    sampled = run(loss, space, 60, algo=sampler)
    iteration = hyperband.schedule(space).evaluations
    assert (
        trials_from_docs(by_name.trials[:iteration]).vals == trials_from_docs(sampled.trials[:iteration]).vals
    )
    assert [place[:3] for place in places(sampled)][iteration:] == [
        (i + 1, *place) for i, *place in [place[:3] for place in places(sampled)][:-iteration]
    ]
    assert by_name.trials[iteration]["misc"]["hyperband"]["turn"] == 3
    assert "turn" not in sampled.trials[iteration]["misc"]["hyperband"]


def test_bohb_refuses_another_sampler():
    def suggest(*args):
        return bohb.suggest(*args, sampler=tpe.suggest)

    with pytest.raises(ValueError, match=r"sampler=<function suggest .*: bohb.suggest draws by"):
        run(lambda p: 0.0, {"x": hp.uniform("x", 0, 1)}, 3, algo=suggest)
