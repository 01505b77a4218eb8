"""What a space tells: bounds, options and their names."""

import math

import pytest
from hyperopt import hp
from hyperopt.pyll import scope

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._space import hyperparameters

X = hp.uniform("x", 0, 1)


def named(*options):
    return hyperparameters(hp.choice("c", list(options)))["c"].options


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["adam", "sgd"], ("adam", "sgd")),
        ([1, None, len], ("1", "None", "len")),
        ([{"type": "svm", "kernel": "rbf"}, {"type": "gp", "kernel": "rbf"}], ("svm", "gp")),
        ([{"kernel": "rbf", "type": "svm", "x": X}, {"kernel": "rbf", "type": "gp"}], ("svm", "gp")),
        ([{"type": "svm"}, {"type": "gp"}, "nothing"], ("svm", "gp", "nothing")),
        ([{"a": "1", "b": "u"}, {"a": "1", "b": "v"}, {"a": "2", "b": "w"}], ("u", "v", "w")),
        ([{"type": "svm"}, {"type": "svm", "x": X}], ("0: svm", "1: svm")),
        ([("svm", X), ("gp", 3)], ("svm", "('gp', 3)")),
        ([("rbf", "svm", X), ("rbf", "gp", hp.normal("y", 0, 1))], ("svm", "gp")),
        ([{"x": X}, {"y": 1}], ("0", "1")),
        ([X, 2], ("0", "2")),
    ],
)
def test_options_are_named_by_what_tells_them_apart(options, names):
    assert named(*options) == names


def test_a_distribution_tells_its_bounds_and_whether_it_is_log():
    known = hyperparameters(
        {
            "u": hp.uniform("u", -5, 5),
            "q": hp.quniform("q", 1, 9, 2),
            "r": hp.randint("r", 3, 30),
            "l": hp.loguniform("l", 0, math.log(27)),
            "n": hp.lognormal("n", 1, 2),
            "e": hp.uniform("e", 0, hp.uniform("f", 1, 2)),
        }
    )
    told = {
        label: (h.distribution.low, h.distribution.high, h.distribution.step, h.distribution.log)
        for label, h in known.items()
    }
    assert told == {
        "u": (-5, 5, None, False),
        "q": (1, 9, 2, False),
        "r": (3, 29, 1, False),
        "l": (1, 27, None, True),
        "n": (None, None, None, True),
        "e": (None, None, None, False),
        "f": (1, 2, None, False),
    }
    assert (known["n"].distribution.mean, known["n"].distribution.deviation) == (1, 2)


def test_what_a_switch_asks_decides():
    switch = scope.switch(scope.int(hp.quniform("u", 0, 1, 1)), hp.uniform("v", 0, 1), 3)
    known = hyperparameters([switch, hp.randint("r", 4), hp.choice("c", [0, 1]), hp.pchoice("p", [(1, 0)])])
    assert {label for label, h in known.items() if h.decides} == {"u", "c", "p"}
    assert {label for label, h in known.items() if h.is_choice} == {"c", "p"}
    assert {label for label, h in known.items() if h.options} == {"c", "p"}


def test_a_budget_node_is_a_hyperparameter_too():
    assert list(hyperparameters({"x": X, "n": hyperband.budget("n", 1, 9)})) == ["n", "x"]
