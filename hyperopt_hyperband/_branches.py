"""All ways to choose in a space: its configurations, and which budgets are active in them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hyperopt import pyll
from hyperopt.pyll.base import Apply

from hyperopt_hyperband._space import as_text, distribution, hyperparameters, label_of, parameters

MOST_BRANCHES = 10_000
"""So many ways to choose between budgets are looked at."""

Multiples = tuple[Sequence[int], float]
"""The values of a hyperparameter: these numbers, times the step."""


def configurations(space: Apply, budgets: Collection[str]) -> Iterator[dict[str, list[Any]]] | None:
    """All configurations that a space can draw, as Hyperopt's vals; None where they can't be counted.

    Choices can, and numbers with bounds and a step. What holds the budget, where it is active, holds 0.
    """
    known = {
        node: (range(1), 1) if label_of(node) in budgets else _values(node.arg["obj"])
        for node in sorted(parameters(space), key=label_of)
    }
    values = {node: found for node, found in known.items() if found is not None}
    selectors = [node.pos_args[0] for node in pyll.dfs(space) if node.name == "switch"]
    if len(values) < len(known) or any(n.name == "switch" for s in selectors for n in pyll.dfs(s)):
        return None
    return (
        {label_of(node): [held[node]] if node in held else [] for node in known}
        for held in _assignments([space], {}, values)
    )


@functools.lru_cache(maxsize=8)
def budgets_together(space: Apply, budgets: frozenset[str]) -> tuple[str, ...]:
    """Labels of two budgets that a configuration has active at once; empty where none has."""
    return next((tuple(sorted(found)[:2]) for _, found in _branches(space, budgets) if len(found) > 1), ())


@functools.lru_cache(maxsize=8)
def lacks_budget(space: Apply, budgets: frozenset[str]) -> bool:
    """Whether a configuration may have none of these budgets active."""
    return bool(budgets) and any(not found for _, found in _branches(space, budgets))


def options_without_budget(space: Apply, budgets: frozenset[str]) -> list[str]:
    """The options of choices that have numbers which could be a budget, but none of these labels, as text."""
    known = hyperparameters(space)
    options = {node.pos_args[0]: node.pos_args[1:] for node in pyll.dfs(space) if node.name == "switch"}
    has: dict[tuple[Apply, int], bool] = {}
    for chosen, found in _branches(space, budgets):
        for choice in chosen.items():
            has[choice] = has.get(choice, False) or bool(found)
    return [
        f"{as_text(selector)}={known[label].shown(i) if (label := as_text(selector)) in known else i}"
        for (selector, i), active in has.items()
        if not active
        and any(known[label_of(each)].could_be_budget for each in parameters(options[selector][i]))
    ]


def _branches(space: Apply, budgets: Collection[str]) -> Iterator[tuple[dict[Apply, int], set[str]]]:
    """Every way to choose where it decides on budgets: the options by selector, the budgets then active.

    Choices without a budget below them are passed over. Beyond MOST_BRANCHES ways, two budgets that are
    active together are found only where they are drawn.
    """
    holding: set[Apply] = set()
    for node in pyll.dfs(space):  # what a node is made of comes before it
        own = node.name == "hyperopt_param" and label_of(node) in budgets
        if own or holding.intersection(node.inputs()):
            holding.add(node)

    def ways(
        waiting: Sequence[Apply], chosen: dict[Apply, int], found: set[str]
    ) -> Iterator[tuple[dict[Apply, int], set[str]]]:
        waiting = [node for node in waiting if node in holding]
        while waiting:
            node = waiting.pop()
            if node.name == "hyperopt_param":
                found = found | {label_of(node)}
            elif node.name != "switch":
                waiting += holding.intersection(node.inputs())
            else:
                selector, *options = node.pos_args
                for i in [chosen[selector]] if selector in chosen else range(len(options)):
                    yield from ways([*waiting, options[i]], chosen | {selector: i}, found)
                return
        yield chosen, found

    return itertools.islice(ways([space], {}, set()), MOST_BRANCHES)


def _assignments(
    waiting: Sequence[Apply], held: dict[Apply, Any], values: Mapping[Apply, Multiples]
) -> Iterator[dict[Apply, Any]]:
    """The values of the active hyperparameters, in every way to go on from those held."""
    waiting = list(waiting)
    while waiting:
        node = waiting.pop()
        if node in held:
            continue
        if node in values:
            numbers, step = values[node]
            for number in numbers:
                yield from _assignments(waiting, held | {node: number * step}, values)
            return
        if node.name != "switch":
            waiting += node.inputs()
            continue
        selector, *options = node.pos_args
        if selector in held:
            option = held[selector]
        elif held.keys() >= set(parameters(selector)):
            option = int(pyll.rec_eval(selector, memo=dict(held)))
        else:
            waiting += [node, selector]
            continue
        if not 0 <= option < len(options):
            return
        waiting.append(options[option])
    yield held


def _values(node: Apply) -> Multiples | None:
    """What a distribution can draw; None where that is no finite number of values, or not known."""
    if node.name == "categorical":
        share = node.arg["p"]
        return None if parameters(share) else ([i for i, p in enumerate(pyll.rec_eval(share)) if p > 0], 1)
    drawn = distribution(node)
    low, high, step = drawn.low, drawn.high, drawn.step
    if low is None or high is None or step is None or not (step > 0 and math.isfinite(high - low)):
        return None
    # Numbers half-way between two multiples, at the ends, are drawn almost never.
    first, last = math.floor(low / step + 0.5), math.ceil(high / step - 0.5)
    return range(first, last + 1), 1 if drawn.name == "randint" else float(step)
