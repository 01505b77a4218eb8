import math
import re
from datetime import timedelta

import numpy as np
import pytest

from hyperopt_hyperband._promotion import BracketState, Promote, Sample, decide
from hyperopt_hyperband._schedule import schedule


def table(plan):
    return [[(rung.configurations, rung.budget) for rung in bracket.rungs] for bracket in plan.brackets]


def test_the_paper_s_example():
    assert table(schedule(1, 81, 3)) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    plan = schedule(1, 81, 3)
    assert (plan.configurations, plan.evaluations, plan.total_budget) == (143, 206, 1902)


def test_continued_training_pays_only_the_difference():
    plan = schedule(1, 9, 3)
    assert table(plan) == [[(9, 1), (3, 3), (1, 9)], [(5, 3), (1, 9)], [(3, 9)]]
    assert plan.total_budget == 9 + 9 + 9 + 15 + 9 + 27
    assert plan.total_budget_continued == 9 + 3 * 2 + 6 + 15 + 6 + 27


@pytest.mark.parametrize(
    ("arguments", "feet", "budgets"),
    [
        ((1, 243, 3), [243, 98, 41, 18, 9, 6], [1, 3, 9, 27, 81, 243]),
        ((1, 2, 8), [1], [2]),
        ((1, 1, 3), [1], [1]),
        ((1, 8, 2), [8, 6, 4, 4], [1, 2, 4, 8]),
        ((1, 100, 3), [81, 34, 15, 8, 5], [1, 4, 11, 33, 100]),
        ((1, 50, 3), [27, 12, 6, 4], [2, 6, 17, 50]),
        ((1, 1000, 10), [1000, 134, 20, 4], [1, 10, 100, 1000]),
        ((16, 1024, 4), [64, 22, 8, 4], [16, 64, 256, 1024]),
        ((1, 40, 2.5), [40, 20, 11, 7, 5], [1, 3, 6, 16, 40]),
    ],
)
def test_integer_schedules(arguments, feet, budgets):
    plan = schedule(*arguments)
    assert [bracket.rungs[0].configurations for bracket in plan.brackets] == feet
    assert [rung.budget for rung in plan.brackets[0].rungs] == budgets
    assert all(type(budget) is int for budget in budgets)


@pytest.mark.parametrize("arguments", [(0.1, 8.1, 3), (1 / 81, 1, 3), (1, 81, math.e), (0.1, 24.3, 3)])
def test_float_schedules(arguments):
    low, high, eta = arguments
    plan = schedule(*arguments)
    assert len(plan.brackets) == (6 if high == 24.3 else 5)
    for bracket in plan.brackets:
        assert bracket.rungs[-1].budget == high
        exact = [high / eta ** (bracket.s - i) for i in range(bracket.s + 1)]
        if low != 1:
            assert [rung.budget for rung in bracket.rungs] == pytest.approx(exact)


@pytest.mark.parametrize("eta", range(2, 12))
def test_no_power_of_eta_loses_a_bracket(eta):
    power = 0
    while eta**power <= 10**6:
        assert len(schedule(1, eta**power, eta).brackets) == power + 1
        assert len(schedule(0.1, 0.1 * eta**power, eta).brackets) == power + 1
        if power:
            assert len(schedule(1, eta**power - 1, eta).brackets) == power
        power += 1


@pytest.mark.parametrize("eta", [2, 2.5, 3, 4])
@pytest.mark.parametrize("low", [1, 2, 3, 7])
def test_integer_budgets_are_distinct_and_rise_to_the_maximum(low, eta):
    for high in range(low, 300):
        for bracket in schedule(low, high, eta).brackets:
            budgets = [rung.budget for rung in bracket.rungs]
            assert low <= budgets[0]
            assert budgets == sorted(set(budgets))
            assert budgets[-1] == high


def test_budgets_keep_to_a_step():
    assert [rung.budget for rung in schedule(5, 100, 3, step=5).brackets[0].rungs] == [10, 35, 100]


def test_numpy_numbers_become_plain():
    plan = schedule(np.int64(1), np.int64(9), np.float64(3))
    assert plan == schedule(1, 9, 3)
    assert type(plan.max_budget) is int


def test_a_schedule_prints_as_a_table():
    assert str(schedule(1, 9, 3)) == (
        "Hyperband, budgets 1 to 9, eta 3: configurations x budget\n"
        "rung  s = 2  s = 1  s = 0\n"
        "   0  9 x 1  5 x 3  3 x 9\n"
        "   1  3 x 3  1 x 9\n"
        "   2  1 x 9\n"
        "one iteration: at most 22 evaluations of 17 configurations,\n"
        "total budget 78 (8.67 x max_budget); with continued training 69 (7.67 x max_budget)"
    )


@pytest.mark.parametrize("wrong", [True, "9", math.nan, math.inf, 0, -1, None])
@pytest.mark.parametrize("name", ["min_budget", "max_budget", "eta"])
def test_what_is_no_budget_is_refused_by_name_and_value(name, wrong):
    arguments = {"min_budget": 1, "max_budget": 9, "eta": 3, name: wrong}
    with pytest.raises(ValueError, match=rf"{name}={wrong!r}: pass a positive, finite number"):
        schedule(**arguments)


def test_contradictions_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"min_budget=10 is above max_budget=9: pass 9 or less"):
        schedule(10, 9)
    for eta in (1, 1.5):
        with pytest.raises(ValueError, match=rf"eta={eta}: .* pass 2 or more"):
            schedule(1, 9, eta)


def played_through(plan, workers, rng):
    """The duration of an iteration, in full budgets, with real decisions about random losses."""
    outcomes = []
    running = []
    now = 0.0
    while True:
        while len(running) < workers:
            for bracket, known in zip(plan.brackets, outcomes, strict=False):
                action = decide(bracket, known, outcome=lambda number: number)
                if isinstance(action, Sample | Promote):
                    break
            else:
                if len(outcomes) == len(plan.brackets):
                    break
                bracket = plan.brackets[len(outcomes)]
                outcomes.append(known := BracketState(tuple({} for _ in bracket.rungs)))
                action = Sample()
            rung = action.rung if isinstance(action, Promote) else 0
            config = action.config if isinstance(action, Promote) else len(known.rungs[0])
            known.rungs[rung][config] = None
            running.append((now + bracket.rungs[rung].budget, bracket.s, rung, config))
        if not running:
            return now / plan.max_budget
        running.sort()
        now, s, rung, config = running.pop(0)
        outcomes[plan.brackets[0].s - s].rungs[rung][config] = rng.random()


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 50, 1000])
@pytest.mark.parametrize("arguments", [(1, 81, 3), (1, 20, 2.5), (0.1, 8.1, 3), (5, 5, 3)])
def test_the_duration_is_that_of_the_real_decisions_whatever_the_losses(arguments, workers):
    plan = schedule(*arguments)
    for seed in range(3):
        expected = played_through(plan, workers, np.random.default_rng(seed)) * 60
        assert plan.duration(60, workers).total_seconds() == pytest.approx(expected, abs=1e-5)


def test_one_worker_takes_the_total_budget_and_any_number_the_longest_bracket():
    plan = schedule(1, 81)
    assert plan.duration(81) == timedelta(seconds=plan.total_budget)
    assert plan.duration(81, continued=True) == timedelta(seconds=plan.total_budget_continued)
    assert plan.duration(81, 1000) == timedelta(seconds=1 + 3 + 9 + 27 + 81)
    assert plan.duration(81, 1000, continued=True) == timedelta(seconds=81)


def test_more_workers_take_no_longer_than_one_and_share_the_work_well():
    plan = schedule(1, 81)
    for workers in (2, 4, 8):
        ideal = plan.duration(81) / workers
        assert ideal <= plan.duration(81, workers) < 1.2 * ideal + timedelta(seconds=81)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None])
def test_workers_are_whole_and_positive(wrong):
    with pytest.raises(ValueError, match=f"workers={wrong}: pass a whole number, 1 or more"):
        schedule(1, 9).duration(60, wrong)


def test_the_seconds_of_a_duration_are_positive():
    with pytest.raises(ValueError, match="seconds_at_full_budget=0: pass a positive, finite number"):
        schedule(1, 9).duration(0)


def test_its_repr_is_one_line():
    assert repr(schedule(1, 81)) == "<Schedule: budgets 1 to 81, eta 3, 5 brackets, 206 evaluations>"
    assert repr(schedule(0.5, 1, 4)) == "<Schedule: budgets 0.5 to 1, eta 4, 1 bracket, 1 evaluation>"


def test_a_notebook_shows_the_same_as_print():
    plan = schedule(1, 9)
    shown = plan._repr_html_()
    cells = re.findall("<t[hd]>(.*?)</t[hd]>", shown)
    title, _, *rows, first, second = str(plan).splitlines()
    assert f"<h4>{title}</h4>" in shown
    assert cells[:4] == ["rung", "s = 2", "s = 1", "s = 0"]
    assert [cell for cell in cells[4:] if cell] == re.findall(r"\d+ x \d+|\d+", "\n".join(rows))
    assert shown.endswith(f"<p>{first} {second}</p>")


def test_budgets_are_written_in_full_where_they_are_whole():
    assert str(schedule(1, 59049).brackets[-1].rungs[0]) == "11 x 59049"
    assert str(schedule(0.1, 1).brackets[0].rungs[0]) == "9 x 0.1111"
