import itertools
import random

import pytest

from hyperopt_hyperband import promotion
from hyperopt_hyperband.promotion import FAILED, Done, Outcomes, Promote, Retry, Sample, Wait
from hyperopt_hyperband.schedule import schedule

BRACKET = schedule(1, 9, 3).bracket(2)  # 9 x 1, 3 x 3, 1 x 9


def decide(bracket, outcomes):
    """Here the evaluations are their losses."""
    return promotion.decide(bracket, outcomes, loss=lambda loss: loss)


def outcomes(*rungs, **kwargs):
    return Outcomes(tuple(dict(enumerate(r)) if isinstance(r, list) else r for r in rungs), **kwargs)


def test_rung_0_is_filled_first():
    assert decide(BRACKET, outcomes([], {}, {})) == Sample()
    assert decide(BRACKET, outcomes([0.0] * 8, {}, {})) == Sample()


def test_a_full_rung_waits_for_its_outcome():
    assert decide(BRACKET, outcomes([None] * 9, {}, {})) == Wait()


def test_the_best_goes_up_first_and_ties_go_to_the_earlier():
    assert decide(BRACKET, outcomes([3, 2, 1, 1, 5, 6, 7, 8, 9], {}, {})) == Promote(2, 1)
    assert decide(BRACKET, outcomes([3, 2, 1, 1, 5, 6, 7, 8, 9], {2: None}, {})) == Promote(3, 1)
    assert decide(BRACKET, outcomes([3, 2, 1, 1, 5, 6, 7, 8, 9], {2: None, 3: None}, {})) == Promote(1, 1)
    assert decide(BRACKET, outcomes([3, 2, 1, 1, 5, 6, 7, 8, 9], {2: None, 3: None, 1: None}, {})) == Wait()


def test_a_configuration_goes_up_early_once_no_pending_one_can_push_it_out():
    two_pending = [3, 2, 1, None, None, 6, 7, 8, 9]
    assert decide(BRACKET, outcomes(two_pending, {}, {})) == Promote(2, 1)
    assert decide(BRACKET, outcomes(two_pending, {2: None}, {})) == Wait()


def test_failures_are_never_promoted_and_are_not_replaced():
    only_one = [FAILED] * 8 + [1.0]
    assert decide(BRACKET, outcomes(only_one, {}, {})) == Promote(8, 1)
    assert decide(BRACKET, outcomes(only_one, {8: 1.0}, {})) == Promote(8, 2)
    assert decide(BRACKET, outcomes(only_one, {8: 1.0}, {8: None})) == Wait()
    assert decide(BRACKET, outcomes(only_one, {8: 1.0}, {8: FAILED})) == Done()


def test_a_bracket_without_survivors_ends():
    assert decide(BRACKET, outcomes([FAILED] * 9, {}, {})) == Done()
    assert decide(BRACKET, outcomes([FAILED] * 8 + [1.0], {8: FAILED}, {})) == Done()


def test_an_interrupted_evaluation_is_repeated_first():
    assert decide(BRACKET, outcomes([1.0] * 5, {}, {}, interrupted={7: None})) == Retry(7)


def test_a_closed_rung_goes_on_with_what_it_has():
    assert decide(BRACKET, outcomes([2.0, 1.0], {}, {}, closed=True)) == Promote(1, 1)
    everything = outcomes([2.0, 1.0], {1: 1.0, 0: 0.5}, {0: 1.0}, closed=True)
    assert decide(BRACKET, everything) == Done()


def synchronous(bracket, losses):
    """Algorithm 1 as it stands: every rung complete, the best go up. losses: per rung, by configuration."""
    entered = [set(range(bracket.rungs[0].configurations))]
    for i in range(bracket.s):
        survivors = sorted((losses[i][c], c) for c in entered[i] if losses[i][c] < FAILED)
        entered.append({c for _, c in survivors[: bracket.rungs[i + 1].configurations]})
    return entered


@pytest.mark.parametrize("seed", range(200))
def test_any_order_of_completion_promotes_what_the_synchronous_rule_does(seed):
    rng = random.Random(seed)
    bracket = schedule(1, rng.choice([4, 9, 27]), rng.choice([2, 3])).brackets[0]
    failures = rng.choice([0, 0.3, 0.9])
    losses = [
        [
            FAILED if rng.random() < failures else rng.randrange(6)
            for _ in range(bracket.rungs[0].configurations)
        ]
        for _ in bracket.rungs
    ]
    state = Outcomes(tuple({} for _ in bracket.rungs))
    pending = []
    new = itertools.count()
    workers = rng.choice([1, 3, 100])
    while (action := decide(bracket, state)) != Done():
        if action != Wait() and len(pending) < workers:
            config, rung = (next(new), 0) if isinstance(action, Sample) else (action.config, action.rung)
            assert config not in state.rungs[rung]
            state.rungs[rung][config] = None
            pending.append((config, rung))
        else:
            assert pending, "waits for nothing"
            config, rung = pending.pop(rng.randrange(len(pending)))
            state.rungs[rung][config] = losses[rung][config]
    assert [set(rung) for rung in state.rungs] == synchronous(bracket, losses)
