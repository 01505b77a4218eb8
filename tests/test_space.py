"""What a space tells: bounds, options and their names."""

import math

import numpy as np
import pytest
from hyperopt import hp, rand
from hyperopt.base import Domain
from hyperopt.pyll import as_apply, scope

from hyperopt_hyperband import hyperband
from hyperopt_hyperband._branches import configurations
from hyperopt_hyperband._space import contains, hyperparameters

X = hp.uniform("x", 0, 1)
BUDGET = hyperband.budget("n", 1, 9)


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


def test_a_number_is_no_index_of_an_option():
    space = as_apply(hp.choice("c", ["a", "b", "c"]))
    assert contains(space, {"c": [1]}, ())
    assert not any(contains(space, {"c": [value]}, ()) for value in (1.0, 0.5, "b", 3, -1))


def test_what_a_switch_asks_decides():
    switch = scope.switch(scope.int(hp.quniform("u", 0, 1, 1)), hp.uniform("v", 0, 1), 3)
    known = hyperparameters([switch, hp.randint("r", 4), hp.choice("c", [0, 1]), hp.pchoice("p", [(1, 0)])])
    assert {label for label, h in known.items() if h.decides} == {"u", "c", "p"}
    assert {label for label, h in known.items() if h.is_choice} == {"c", "p"}
    assert {label for label, h in known.items() if h.options} == {"c", "p"}


SHARED = hp.randint("shared", 3)
COUNTED = [
    (BUDGET, 1),
    (hp.randint("x", 7), 7),
    (hp.randint("x", 3, 9), 6),
    (hp.uniformint("x", 1, 9), 9),
    (hp.quniform("x", 0.25, 3.5, 0.5), 7),
    (hp.quniform("x", 0, 1, 0.1), 11),
    (hp.quniform("x", -2.5, 2.5, 1), 5),
    (hp.qloguniform("x", -1, math.log(30), 1), 31),
    (hp.pchoice("c", [(0.5, 1), (0.0, 2), (0.5, hp.randint("y", 4))]), 5),
    (hp.choice("a", [{"b": hp.choice("b", [1, 2, 3])}, {"c": hp.randint("c", 4), "n": BUDGET}, 5]), 8),
    ([hp.randint("x", 4), (hp.choice("c", "ab"), {"n": BUDGET})], 8),
    ([hp.choice("u", [SHARED, 1]), hp.choice("v", [SHARED, 2])], 10),
    (scope.switch(hp.randint("u", 2) + hp.randint("v", 2), hp.randint("p", 2), 4, hp.randint("r", 3)), 7),
]


def told(vals):
    return tuple((label, type(value[0]), value[0]) if value else label for label, value in vals.items())


@pytest.mark.parametrize(("space", "size"), COUNTED)
def test_configurations_are_counted_as_they_are_drawn(space, size):
    domain = Domain(len, space)
    counted = [told(vals) for vals in configurations(domain.expr, {"n"})]
    assert len(counted) == len(set(counted)) == size
    idxs, vals = rand.suggest_batch(range(5000), domain, None, np.random.default_rng(0))
    drawn = [dict.fromkeys(map(str, vals)) for _ in range(5000)]
    for label in vals:
        for i, value in zip(idxs[label], vals[label], strict=True):
            drawn[i][str(label)] = [0 if label == "n" else value.item()]
    assert {told(each) for each in drawn} == set(counted)


@pytest.mark.parametrize(
    "space",
    [
        X,
        hp.choice("c", [0, {"x": X}]),
        [hp.randint("r", 3), hp.qnormal("q", 0, 1, 1)],
        hp.qlognormal("q", 0, 1, 1),
        hp.quniform("q", 0, hp.randint("r", 1, 4), 1),
        scope.switch(hp.choice("c", [hp.randint("r", 2), 1]), 1, 2),
    ],
)
def test_what_has_no_number_of_configurations_is_not_counted(space):
    assert configurations(Domain(len, space).expr, ()) is None


def test_a_budget_node_is_a_hyperparameter_too():
    assert list(hyperparameters({"x": X, "n": hyperband.budget("n", 1, 9)})) == ["n", "x"]
