import itertools
import random
from collections import deque

import pytest

from hyperopt_hyperband import _promotion as promotion
from hyperopt_hyperband._promotion import FAILED, BracketState, Done, Promote, Retry, Sample, Wait
from hyperopt_hyperband._schedule import schedule

BRACKET = schedule(1, 9, 3).bracket(2)  # 9 x 1, 3 x 3, 1 x 9


def decide(bracket, state):
    """Here the evaluations are their losses."""
    return promotion.decide(bracket, state, outcome=lambda loss: loss)


def outcomes(*rungs, **kwargs):
    return BracketState(tuple(dict(enumerate(r)) if isinstance(r, list) else r for r in rungs), **kwargs)


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
    state = BracketState(tuple({} for _ in bracket.rungs))
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


def states(bracket, losses):
    """Every state that any order of issuing and finishing evaluations can bring about, and its action."""
    start = tuple({} for _ in bracket.rungs)
    seen, queue = set(), deque([start])
    while queue:
        rungs = queue.popleft()
        key = tuple(frozenset(rung.items()) for rung in rungs)
        if key in seen:
            continue
        seen.add(key)
        action = decide(bracket, BracketState(rungs))
        yield rungs, action
        following = [(config, i, losses[i][config]) for i, config in pending(rungs)]
        match action:
            case Sample():
                following.append((len(rungs[0]), 0, None))
            case Promote(config, i):
                assert config not in rungs[i], "goes up once"
                following.append((config, i, None))
        for config, i, loss in following:
            queue.append((*rungs[:i], {**rungs[i], config: loss}, *rungs[i + 1 :]))


def pending(rungs):
    return [(i, config) for i, rung in enumerate(rungs) for config, loss in rung.items() if loss is None]


SMALL = schedule(1, 4, 2).bracket(2)  # 4 x 1, 2 x 2, 1 x 4
LATER = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 0, 0], [FAILED, 0, FAILED, 0], [FAILED] * 4]


@pytest.mark.parametrize("later", LATER)
def test_every_order_of_completion_promotes_what_the_synchronous_rule_does(later):
    for first in itertools.product([0, 1, FAILED], repeat=4):
        losses = [first, later, [0] * 4]
        goes_up = synchronous(SMALL, losses)
        for rungs, action in states(SMALL, losses):
            assert all(set(rung) <= up for rung, up in zip(rungs, goes_up, strict=True))
            match action:
                case Done():
                    assert [set(rung) for rung in rungs] == goes_up
                    assert not pending(rungs)
                case Wait():
                    assert pending(rungs), "waits for nothing"


@pytest.mark.parametrize(
    "first",
    [range(9), [5, 0, 5, 1, 5, 0, 1, 5, 1], [FAILED] * 6 + [2, 1, 1], [FAILED, 3] * 4 + [0]],
)
def test_every_order_of_completion_of_nine_configurations_ends_alike(first):
    losses = [first, [4, 1, 1, FAILED, 4, 1, 3, 2, 1], [0] * 9]
    goes_up = synchronous(BRACKET, losses)
    ends = 0
    for rungs, action in states(BRACKET, losses):
        assert all(set(rung) <= up for rung, up in zip(rungs, goes_up, strict=True))
        if action == Done():
            assert [set(rung) for rung in rungs] == goes_up
            ends += 1
    assert ends


def sure(bracket, rungs):
    """Who goes up under the synchronous rule whatever the unknown losses are: each the best, or failed."""
    count = bracket.rungs[0].configurations
    unknown = [(i, c) for i, rung in enumerate(rungs[:-1]) for c in range(count) if rung.get(c) is None]
    always = [set(range(count)) for _ in bracket.rungs]
    for fates in itertools.product([-1, FAILED], repeat=len(unknown)):
        losses = [[rung.get(c) for c in range(count)] for rung in rungs]
        for (i, config), fate in zip(unknown, fates, strict=True):
            losses[i][config] = fate
        always = [a & b for a, b in zip(always, synchronous(bracket, losses), strict=True)]
    return always


@pytest.mark.parametrize("first", [[0, 1, 2, 3], [1, 1, 0, 0], [FAILED, 1, FAILED, 0]])
@pytest.mark.parametrize("later", LATER[1:4])
def test_who_is_sure_to_go_up_goes_up_at_once(first, later):
    for rungs, action in states(SMALL, [first, later, [0] * 4]):
        if len(rungs[0]) == 4:
            waiting = [set(s) - set(rung) for s, rung in zip(sure(SMALL, rungs), rungs, strict=True)]
            assert isinstance(action, Promote) == any(waiting)
            if isinstance(action, Promote):
                assert action.config in waiting[action.rung]
                assert not any(waiting[action.rung + 1 :]), "the highest rung first"
