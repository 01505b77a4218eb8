"""Where new configurations come from: random draws, a model, or any algorithm of Hyperopt."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import STATUS_OK, Domain, Trials, miscs_update_idxs_vals, trials_from_docs
from hyperopt.pyll.base import Apply

from hyperopt_hyperband._branches import configurations
from hyperopt_hyperband._documents import Document, Vals, vals_of
from hyperopt_hyperband._evaluations import Evaluation, Told, told_apart
from hyperopt_hyperband._lifecycle import begin, finish, new_document
from hyperopt_hyperband._promotion import FAILED
from hyperopt_hyperband._schedule import Budget, Schedule

Suggest = Callable[..., Sequence[Document]]
"""An algorithm of Hyperopt: (new_ids, domain, trials, seed) -> new documents."""

Drawn = tuple[Vals, bool]
"""A configuration, and whether a model has drawn it."""

FEW = 2000
"""In a space of up to so many configurations, none that has been at max_budget is drawn again while others
are left. To know that takes reading all evaluations at each draw."""
REDRAWS = (16, 256, 4096)
"""Sizes of the batches in which a new configuration is looked for once a draw has repeated an old one."""
TRIES = 3
"""How often a model is asked again where it repeats a configuration of the bracket, or a pending one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked for: one configuration.

    Attributes
    ----------
    evaluations : all that are known, pending ones too, in the order of the run, all with a known_at
    maxima : what each label of a budget holds at max_budget; empty: there is none
    start_budget, max_budget : what the configuration's first evaluation will spend, and its last one may
    seed : all of the draw's randomness
    """

    domain: Domain
    evaluations: Sequence[Evaluation]
    maxima: Mapping[str, Budget]
    start_budget: Budget
    max_budget: Budget
    seed: int


@dataclass(frozen=True, slots=True)
class Model:
    """A sampler that knows of budgets.

    Attributes
    ----------
    draw : returns a configuration's vals, None where it has none to offer and the draw is to be random
    check : raises ValueError where it can't draw from a space with these labels of budgets
    choose : returns the s of the bracket that opens next, given how many have opened; None: the paper's order
    """

    draw: Callable[[Request], Vals | None]
    check: Callable[[Domain, Collection[str]], object] = lambda *_: None
    choose: Callable[[Request, Schedule, int], int] | None = None


def model_of(sampler: Suggest | Model) -> Model:
    """The sampler as a model. Raises ValueError where it can't be called."""
    if isinstance(sampler, Model):
        return sampler
    if not callable(sampler):
        raise ValueError(f"sampler={sampler!r}: pass an algorithm of Hyperopt, such as tpe.suggest")
    return Model(functools.partial(_ask, sampler))


def model_draws(model: Model, request: Request, rng: np.random.Generator) -> Iterator[Drawn]:
    """A model's draws that are not pending, until it has no more or has been asked TRIES times."""
    pending = {told_apart(e.vals, request.maxima) for e in request.evaluations if e.status == "pending"}
    for _ in range(TRIES):
        drawn = model.draw(replace(request, seed=int(rng.integers(2**31 - 1))))
        if drawn is None:
            return
        if told_apart(_active(drawn), request.maxima) not in pending:
            yield drawn, True


def generator(seed: int, number: int) -> np.random.Generator:
    """The randomness of one draw, by the seed and its number: the same seed at every call repeats no draw."""
    return np.random.default_rng((seed, number) if number >= 0 else (seed, -number, 1))


def random_draws(domain: Domain, rng: np.random.Generator) -> Iterator[Drawn]:
    """Random configurations, the first as rand.suggest draws it with the same generator."""
    # In little more than half of rand's time: the idxs follow from the vals, which are drawn first, and
    # memo_gc would drop what lives for a moment only.
    _, vals = domain.s_idxs_vals.pos_args
    yield pyll.rec_eval(vals, memo={domain.s_new_ids: [0], domain.s_rng: rng}, memo_gc=False), False
    for size in REDRAWS:
        miscs: list[dict[str, Any]] = [{"tid": i} for i in range(size)]
        miscs_update_idxs_vals(miscs, *rand.suggest_batch(range(size), domain, None, rng))
        yield from ((vals_of({"misc": misc}), False) for misc in miscs)


@functools.lru_cache(maxsize=8)
def few_configurations(space: Apply, budgets: frozenset[str]) -> dict[Told, Vals] | None:
    """All configurations of a space; None where they are more than FEW, or can't be counted."""
    every = configurations(space, budgets)
    found = [] if every is None else list(itertools.islice(every, FEW + 1))
    return {told_apart(_active(vals), budgets): vals for vals in found} if 0 < len(found) <= FEW else None


def untried(
    few: Mapping[Told, Vals],
    draws: Iterable[Drawn],
    known: Iterable[Evaluation],
    budgets: Collection[str],
    max_budget: Budget,
) -> Iterator[Drawn]:
    """The draws that no known evaluation has at max_budget, each once; all draws where nothing else is left.

    What is too rare to be drawn comes last.
    """
    full = {told_apart(e.vals, budgets) for e in known if (e.known_at or 0) >= max_budget}
    left = few.keys() - full or set(few)
    for drawn in itertools.chain(draws, ((vals, False) for vals in few.values())):
        if (told := told_apart(_active(drawn[0]), budgets)) in left:
            left.remove(told)
            yield drawn
        if not left:
            return


def order(e: Evaluation) -> tuple[float, float, float]:
    """Sorts evaluations: a higher budget beats a lower one, then the loss; failures; last what is pending."""
    if e.status == "pending":
        return 2, 0, 0
    return e.loss is None, -e.reached, FAILED if e.loss is None else e.loss


def _ask(suggest: Suggest, request: Request) -> Vals | None:
    """Let an algorithm of Hyperopt draw.

    It sees one document a configuration, the evaluation at the highest budget that it has reached, and for
    its loss the rank: a higher budget beats a lower one, the loss decides within a budget, then comes what
    failed, and last what is pending. So every evaluation teaches it where good configurations lie (Optuna
    orders pruned trials alike), though losses at different budgets do not compare. Where it returns no
    document, the draw is random.

    Raises ValueError where it returns something else than documents of the space.
    """
    trials = _ranked(request)
    params = request.domain.params
    documents = suggest([len(trials.trials)], request.domain, trials, request.seed)
    try:
        drawn = [vals_of(document) for document in documents]
        if not drawn:
            return None
        [vals] = ({str(name): list(value) for name, value in each.items()} for each in drawn)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        vals = {}
    if vals.keys() != params.keys() or any(len(value) > 1 for value in vals.values()):
        raise ValueError(
            f"sampler={suggest!r} returned {documents!r} for one new id: return a list of one document, as "
            f"rand.suggest does, whose misc['vals'] has a list for each of {sorted(map(str, params))}"
        )
    return vals


def _ranked(request: Request) -> Trials:
    highest: dict[Hashable, Evaluation] = {}
    for e in request.evaluations:
        known = highest.get(e.config)
        if known is None or (
            e.status != "pending" and (known.status == "pending" or e.reached > known.reached)
        ):
            highest[e.config] = e
    found = list(highest.values())
    trials = Trials()
    documents: list[Document] = []
    for tid, e in enumerate(found):
        vals = {str(name): [e.vals[name]] if name in e.vals else [] for name in request.domain.params}
        for label, full in request.maxima.items():
            vals[label] = [full] * len(vals[label])  # no hyperparameter to the model
        documents.append(new_document(tid, vals, request.domain, trials))
    for rank, tid in enumerate(sorted(range(len(found)), key=lambda i: order(found[i]))):
        begin(documents[tid])  # atpe asks how long it took
        finish(documents[tid], {"status": STATUS_OK, "loss": float(rank)})
    return trials_from_docs(documents, validate=False)


def _active(vals: Vals) -> dict[str, Any]:
    return {name: value[0] for name, value in vals.items() if len(value)}
