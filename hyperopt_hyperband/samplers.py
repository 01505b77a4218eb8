"""Where new configurations come from: random draws, or any algorithm of Hyperopt, shown what is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import STATUS_OK, Domain, Trials, miscs_update_idxs_vals, trials_from_docs

from hyperopt_hyperband.history import Document, Evidence, Vals, begin, finish, hyperparameters, new_document
from hyperopt_hyperband.promotion import FAILED
from hyperopt_hyperband.schedule import Budget

Suggest = Callable[..., Sequence[Document]]
"""An algorithm of Hyperopt: (new_ids, domain, trials, seed) -> new documents."""
Model = Callable[[Domain, list[Evidence], str | None, Budget, Budget, int], Vals | None]
"""Draws a configuration: (domain, evidence, the budget's label, the budget that the configuration starts at,
max_budget, seed) -> its vals, None for a random one."""

REDRAWS = (16, 256, 4096)
"""Sizes of the batches in which a new configuration is looked for once a draw has repeated an old one."""
TRIES = 3
"""How often a model is asked again where it repeats a configuration of the bracket, or a pending one."""


def model_draws(
    model: Model,
    domain: Domain,
    known: list[Evidence],
    label: str | None,
    start: Budget,
    full: Budget,
    rng: np.random.Generator,
) -> Iterator[Vals]:
    """A model's draws that are not pending, until it has no more or has been asked TRIES times."""
    pending = [_without(label, each.vals) for each in known if each.loss is None]
    for _ in range(TRIES):
        drawn = model(domain, known, label, start, full, int(rng.integers(2**31 - 1)))
        if drawn is None:
            return
        if _without(label, drawn) not in pending:
            yield drawn


def random_draws(domain: Domain, rng: np.random.Generator) -> Iterator[Vals]:
    """Random configurations, the first as rand.suggest draws it with the same generator."""
    # In little more than half of rand's time: the idxs follow from the vals, which are drawn first, and
    # memo_gc would drop what lives for a moment only.
    _, vals = domain.s_idxs_vals.pos_args
    yield pyll.rec_eval(vals, memo={domain.s_new_ids: [0], domain.s_rng: rng}, memo_gc=False)
    for size in REDRAWS:
        miscs: list[dict[str, Any]] = [{"tid": i} for i in range(size)]
        miscs_update_idxs_vals(miscs, *rand.suggest_batch(range(size), domain, None, rng))
        yield from map(hyperparameters, ({"misc": misc} for misc in miscs))


def order(evidence: Evidence) -> tuple[float, float, float]:
    """Sorts evaluations: a higher budget beats a lower one, then the loss; failures; last what is pending."""
    if evidence.loss is None:
        return 2, 0, 0
    return evidence.loss == FAILED, -evidence.budget, evidence.loss


def of_hyperopt(suggest: Suggest) -> Model:
    """Let an algorithm of Hyperopt draw.

    It sees one document a configuration, the evaluation at the highest budget that it has reached, and for
    its loss the rank: a higher budget beats a lower one, the loss decides within a budget, then comes what
    failed, and last what is pending. So every evaluation teaches it where good configurations lie (Optuna
    orders pruned trials alike), though losses at different budgets do not compare. Where it returns no
    document, the draw is random.

    Raises
    ------
    ValueError
        It can't be called, or, when it is, returns something else than documents of the space.
    """
    if not callable(suggest):
        raise ValueError(f"sampler={suggest!r}: pass an algorithm of Hyperopt, such as tpe.suggest")
    return functools.partial(_ask, suggest)


def _ask(
    suggest: Suggest,
    domain: Domain,
    evidence: list[Evidence],
    label: str | None,
    _start: Budget,
    full: Budget,
    seed: int,
) -> Vals | None:
    trials = _ranked(domain, evidence, label, full)
    documents = suggest([len(trials.trials)], domain, trials, seed)
    try:
        drawn = [hyperparameters(document) for document in documents]
        if not drawn:
            return None
        [vals] = ({str(name): list(value) for name, value in each.items()} for each in drawn)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        vals = {}
    if vals.keys() != domain.params.keys() or any(len(value) > 1 for value in vals.values()):
        raise ValueError(
            f"sampler={suggest!r} returned {documents!r} for one new id: return a list of one document, as "
            f"rand.suggest does, whose misc['vals'] has a list for each of {sorted(map(str, domain.params))}"
        )
    return vals


def _ranked(domain: Domain, evidence: list[Evidence], label: str | None, full: Budget) -> Trials:
    highest: dict[Hashable, Evidence] = {}
    for each in evidence:
        known = highest.get(each.config)
        if known is None or (each.loss is not None and (known.loss is None or each.budget > known.budget)):
            highest[each.config] = each
    found = list(highest.values())
    trials = Trials()
    documents: list[Document] = []
    for tid, each in enumerate(found):
        vals = {str(name): list(each.vals.get(name, ())) for name in domain.params}
        if label is not None and vals[label]:
            vals[label] = [full]  # no hyperparameter to the model
        documents.append(new_document(tid, vals, domain, trials))
    for rank, tid in enumerate(sorted(range(len(found)), key=lambda i: order(found[i]))):
        begin(documents[tid])  # atpe asks how long it took
        finish(documents[tid], {"status": STATUS_OK, "loss": float(rank)})
    return trials_from_docs(documents, validate=False)


def _without(label: str | None, vals: Vals) -> Vals:
    return {name: value for name, value in vals.items() if name != label}
