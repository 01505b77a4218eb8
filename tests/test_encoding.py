import math

import numpy as np
import pytest
from hyperopt import hp, rand, space_eval
from hyperopt.base import Domain
from hyperopt.pyll import scope

from hyperopt_hyperband import _encoding as encoding
from hyperopt_hyperband import hyperband
from hyperopt_hyperband._space import contains

SHARED = hp.uniform("shared", 0, 1)
SPACES = {
    "uniform": hp.uniform("x", -5, 5),
    "quniform": hp.quniform("x", 1, 10, 4),
    "uniformint": hp.uniformint("x", 1, 9),
    "randint": hp.randint("x", 7),
    "randint of two bounds": hp.randint("x", 5, 9),
    "loguniform": hp.loguniform("x", -7, 0),
    "qloguniform": hp.qloguniform("x", -3, 3, 1),
    "normal": hp.normal("x", 3, 2),
    "qnormal": hp.qnormal("x", 0, 5, 2),
    "lognormal": hp.lognormal("x", 0, 1),
    "qlognormal": hp.qlognormal("x", 0, 2, 1),
    "choice": hp.choice("x", ["a", "b", "c"]),
    "pchoice": hp.pchoice("x", [(0.2, "a"), (0.8, "b")]),
    "keywords": hp.uniform("x", low=1, high=np.float64(3)),
    "one integer": hp.randint("x", 5, 6),
    "one option": hp.choice("x", ["only"]),
    "no width": hp.uniform("x", 0, 0),
    "no width, log": hp.loguniform("x", low=0.1, high=0.1 + 1e-17),
    "no spread": hp.normal("x", 1, 0),
    "underflow": hp.loguniform("x", -800, 0),
    "nested": {
        "a": hp.choice(
            "a",
            [
                {"b": hp.choice("b", [hp.normal("c", 0, 1), {"d": hp.randint("d", 3)}])},
                {"e": hp.pchoice("e", [(0.4, 1), (0.6, hp.quniform("f", 0, 9, 3))])},
                7,
            ],
        ),
        "g": hp.uniform("g", 0, 1),
    },
    "switch over an expression": scope.switch(
        scope.int(hp.uniform("u", 0, 1) * 2.999), hp.uniform("p", 0, 1), hp.randint("q", 4), 3
    ),
    "switch over a rounded number": scope.switch(
        scope.int(hp.quniform("u", 0, 2, 1)), hp.uniform("p", 0, 1), hp.choice("q", [1, 2]), 3
    ),
    "switch over two": scope.switch(
        hp.randint("u", 2) + hp.randint("v", 2), hp.uniform("p", 0, 1), hp.uniform("q", 0, 1), 3
    ),
    "shared by two choices": [hp.choice("u", [SHARED, 1]), hp.choice("v", [SHARED, 2])],
    "budget in a branch": hp.choice(
        "m", [{"epochs": hyperband.budget("epochs", 1, 9)}, {"x": hp.uniform("x", 0, 1)}]
    ),
}


def domain_of(space):
    return Domain(lambda _: 0.0, space)


def drawn(space, size, seed=0):
    domain = domain_of(space)
    axes = encoding.axes(domain, {"epochs"})
    return domain, axes, encoding.random_rows(axes, domain, np.random.default_rng(seed), size)


def evaluates(domain, given):
    try:
        space_eval(domain.expr, given)
    except Exception:
        return False
    return True


def active(domain, vals):
    """The labels that Hyperopt can't do without when it evaluates the space."""
    given = {label: value[0] for label, value in vals.items() if value}
    assert evaluates(domain, given)
    return {label for label in given if not evaluates(domain, {k: given[k] for k in given if k != label})}


@pytest.mark.parametrize("name", SPACES)
def test_rows_are_hyperopt_s_own_draws_and_back(name):
    domain, axes, rows = drawn(SPACES[name], 30)
    idxs, vals = rand.suggest_batch(range(30), domain, None, np.random.default_rng(0))
    for i, row in enumerate(rows):
        ours = encoding.assignment(axes, row)
        for axis in axes:
            theirs = [v for at, v in zip(idxs[axis.label], vals[axis.label], strict=True) if at == i]
            if not axis.budget:
                assert ours[axis.label] == theirs
                assert [type(v) for v in ours[axis.label]] == [type(v.item()) for v in theirs]
        held = {label: value[0] for label, value in ours.items() if value}
        np.testing.assert_array_equal(encoding.matrix(axes, [held])[0], row)


@pytest.mark.parametrize("name", SPACES)
def test_a_variation_that_counts_as_valid_is_one_of_the_space(name):
    domain, axes, rows = drawn(SPACES[name], 60)
    rng = np.random.default_rng(1)
    children = encoding.mutated(axes, rows[rng.integers(60, size=60)], rows, rng)
    valid = 0
    for child in children:
        vals = encoding.assignment(axes, child)
        given = {label for label, value in vals.items() if value}
        if contains(domain.expr, vals, {"epochs"}):
            valid += 1
            assert active(domain, vals) == given
        else:
            assert name in ("switch over two", "shared by two choices")
    assert valid > 30


@pytest.mark.parametrize("name", SPACES)
def test_features_are_finite_and_numbers_lie_within_the_range(name):
    _, axes, rows = drawn(SPACES[name], 50)
    features, owners = encoding.features(axes, rows, encoding.options(axes, rows))
    assert features.shape == (50, len(owners))
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 4


def test_what_rounds_to_nothing_is_the_low_end_of_a_log_range():
    [axis] = encoding.axes(domain_of(SPACES["qloguniform"]), ())
    units = axis.unit(np.array([0.0, math.exp(-3), 1.0, math.exp(3), np.nan]))
    np.testing.assert_allclose(units, [0, 0, 0.5, 1, np.nan], atol=1e-12)


def test_two_options_lie_one_apart_whichever_they_are():
    _, axes, _ = drawn(SPACES["choice"], 1)
    rows = np.array([[0.0], [1.0], [2.0]])
    features, owners = encoding.features(axes, rows, encoding.options(axes, rows))
    assert [sum((a - b) ** 2) for a in features for b in features] == pytest.approx(
        [0, 1, 1, 1, 0, 1, 1, 1, 0]
    )
    assert owners.tolist() == [0, 0, 0]


def test_equal_configurations_are_equal_bytes():
    _, axes, _ = drawn(SPACES["budget in a branch"], 1)
    spellings = [
        {"m": 0, "epochs": 9},
        {"m": -0.0, "epochs": 1.0},
        {"m": 0, "epochs": 3, "x": -math.nan},
    ]
    assert len({row.tobytes() for row in encoding.matrix(axes, spellings)}) == 1
    assert encoding.matrix(axes, [{"m": 1, "x": 0.5}]).tobytes() not in {
        row.tobytes() for row in encoding.matrix(axes, spellings)
    }


@pytest.mark.parametrize(
    ("name", "vals"),
    [
        ("uniform", {"x": [5.5]}),
        ("randint", {"x": [7]}),
        ("loguniform", {"x": [2.0]}),
        ("choice", {"x": [3]}),
        ("choice", {"x": [-1]}),
        ("uniform", {"x": []}),
        ("nested", {"a": [2], "b": [], "c": [0.1], "d": [], "e": [], "f": [], "g": [0.5]}),
        ("nested", {"a": [0], "b": [], "c": [], "d": [], "e": [], "f": [], "g": [0.5]}),
        ("switch over two", {"u": [1], "v": [], "p": [], "q": [0.5]}),
        ("shared by two choices", {"u": [1], "v": [1], "shared": [0.5]}),
    ],
)
def test_what_the_space_can_t_draw_is_not_valid(name, vals):
    assert not contains(domain_of(SPACES[name]).expr, vals, ())


@pytest.mark.parametrize("name", SPACES)
def test_what_the_space_draws_is_valid(name):
    domain, axes, rows = drawn(SPACES[name], 50)
    for row in rows:
        vals = encoding.assignment(axes, row)
        assert contains(domain.expr, vals, {"epochs"})


def test_parameters_that_are_expressions_are_refused():
    domain = domain_of({"x": hp.uniform("x", 0, hp.uniform("y", 1, 2))})
    with pytest.raises(
        ValueError, match="uniform of 'x' has parameters that are expressions: give it numbers"
    ):
        encoding.axes(domain, ())
