"""Where new configurations come from: random draws, or any algorithm of Hyperopt, shown what is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from hyperopt import pyll, rand
from hyperopt.base import (
    JOB_STATE_DONE,
    JOB_STATE_NEW,
    STATUS_OK,
    Domain,
    Trials,
    miscs_update_idxs_vals,
    trials_from_docs,
)

from hyperopt_hyperband.history import Document, Evidence, Vals, new_document
from hyperopt_hyperband.promotion import FAILED
from hyperopt_hyperband.schedule import Budget

Suggest = Callable[..., Sequence[Document]]
"""An algorithm of Hyperopt: (new_ids, domain, trials, seed) -> new documents."""
Model = Callable[[Domain, list[Evidence], str | None, Budget, int], Vals | None]
"""Draws a configuration: (domain, evidence, the budget's label, max_budget, seed) -> its vals, None for a
random one."""

REDRAWS = (16, 256, 4096)
"""Sizes of the batches in which a new configuration is looked for once a draw has repeated an old one."""
TRIES = 3
"""How often a model is asked again where it repeats a configuration of the bracket."""


def random_vals(domain: Domain, rng: np.random.Generator) -> Vals:
    """A random configuration, as rand.suggest draws it with the same generator."""
    # In two thirds of its time: memo_gc would drop what lives for a moment only.
    memo = {domain.s_new_ids: [0], domain.s_rng: rng}
    _, vals = pyll.rec_eval(domain.s_idxs_vals, memo=memo, memo_gc=False)
    return {str(label): list(value) for label, value in vals.items()}


def random_batch(domain: Domain, rng: np.random.Generator, size: int) -> list[Vals]:
    """Random configurations, drawn together."""
    miscs: list[dict[str, Any]] = [{"tid": i} for i in range(size)]
    miscs_update_idxs_vals(miscs, *rand.suggest_batch(range(size), domain, None, rng))
    return [misc["vals"] for misc in miscs]


def of_hyperopt(suggest: Suggest) -> Model:
    """Let an algorithm of Hyperopt draw.

    It sees one document a configuration, the evaluation at the highest budget that it has reached, and for
    its loss the rank: a higher budget beats a lower one, the loss decides within a budget, and what failed
    comes last. So every evaluation teaches it where good configurations lie (Optuna orders pruned trials
    alike), though losses at different budgets do not compare.
    """
    return functools.partial(_ask, suggest)


def _ask(
    suggest: Suggest, domain: Domain, evidence: list[Evidence], label: str | None, full: Budget, seed: int
) -> Vals | None:
    trials = _ranked(domain, evidence, label, full)
    documents = suggest([len(trials.trials)], domain, trials, seed)
    if not documents:
        return None
    vals: Vals = documents[0]["misc"]["vals"]
    if vals.keys() != domain.params.keys():
        raise ValueError(
            f"sampler={suggest!r} draws {sorted(vals)}, not the hyperparameters of the space: pass an "
            "algorithm of Hyperopt, such as tpe.suggest"
        )
    return vals


def _ranked(domain: Domain, evidence: list[Evidence], label: str | None, full: Budget) -> Trials:
    highest: dict[Hashable, Evidence] = {}
    for each in evidence:
        known = highest.get(each.config)
        if known is None or (each.loss is not None and (known.loss is None or each.budget > known.budget)):
            highest[each.config] = each
    found = list(highest.values())
    finished = [
        (each.loss == FAILED, -each.budget, each.loss, i)
        for i, each in enumerate(found)
        if each.loss is not None
    ]
    rank = {i: place for place, (*_, i) in enumerate(sorted(finished))}
    trials = Trials()
    documents = []
    for tid, each in enumerate(found):
        vals = {str(name): list(each.vals.get(name, ())) for name in domain.params}
        if label is not None and vals[label]:
            vals[label] = [full]  # no hyperparameter to the model
        document = new_document(tid, vals, domain, trials)
        if tid in rank:
            document["state"] = JOB_STATE_DONE
            document["result"] = {"status": STATUS_OK, "loss": float(rank[tid])}
        else:
            document["state"] = JOB_STATE_NEW
        documents.append(document)
    return trials_from_docs(documents, validate=False)
