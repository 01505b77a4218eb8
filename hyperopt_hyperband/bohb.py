"""Hyperband with a model that draws its configurations: `fmin(..., algo=bohb.suggest, ...)`."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from hyperopt.base import Domain, Trials

from hyperopt_hyperband import _brackets, _encoding, _model, hyperband
from hyperopt_hyperband._documents import Document
from hyperopt_hyperband._samplers import Model

__all__ = ["gaussian_process", "suggest"]

gaussian_process = Model(_model.draw, check=_encoding.axes)
"""What draws here, as a `sampler` of `hyperband.suggest`, which keeps to the paper's brackets."""


_choosing = replace(gaussian_process, choose=_brackets.choose)
_per_second = replace(_choosing, draw=functools.partial(_model.draw, per_second=True))


def suggest(
    new_ids: Sequence[Hashable],
    domain: Domain,
    trials: Trials,
    seed: int,
    *,
    per_second: bool = False,
    **options: Any,
) -> list[Document]:
    """Suggest the next evaluations by Hyperband, its configurations drawn by a model (BOHB).

    The promotions, the options and the first iteration's brackets are those of `hyperband.suggest`. Once a
    configuration has succeeded at max_budget, three new configurations in four are drawn by a Gaussian
    process. It is fitted to the losses of evaluations, with the log budget as one more input and noise that
    may grow towards low budgets, and predicts the loss at max_budget. The better half of the losses counts as
    it is, the worse half by rank, failures as the worst. Of random configurations and variations of the best,
    it draws that of the lowest mean minus k standard deviations, k between 0 and 2 anew for each draw;
    pending evaluations lower the deviation around them. Until then, and for the other quarter, draws are
    random.

    Low budgets may mislead. So only a part of these draws learns from all evaluations: as large a part as the
    rank correlation between the losses at neighbouring budgets (the mean over all such pairs, weighted by
    configurations), none where it is negative or hardly any configuration has been at two budgets. It is that
    of configurations that went up, and so rather too low. The other draws trust no budget lower than the one
    at which their bracket starts, as Hyperband's brackets do.

    After the first iteration, the model chooses the brackets too. It plays each one through, on
    configurations that it would draw and random ones, with losses at every rung's budget as it expects them,
    and opens the one that lowers the loss at max_budget most for its total budget: a deep one only where low
    budgets can still tell such configurations apart. (What it can't explain of a loss counts as the
    configuration's own, at all budgets, as far as it correlates at neighbouring ones.) In bracket 0, each
    draw knows the results at max_budget of those before it, which this leaves out: others have to promise 1.5
    times as much. Each sixteenth bracket is the next one of the paper's order. A new iteration begins with
    each bracket that is not below the one before.

    So most later evaluations are at max_budget: end a run by `hyperband.stop_after`, at a total budget or
    after iterations, rather than by max_evals. For the paper's brackets throughout, pass
    `sampler=bohb.gaussian_process` to `hyperband.suggest`.

    Parameters
    ----------
    new_ids, domain, trials, seed
        Hyperopt's own.
    min_budget, max_budget, eta, budget, random_share
        As in `hyperband.suggest`. The brackets are the model's choice whatever the random share.
    per_second : bool
        Draw the configuration that promises most for its time, where configurations differ in that: how far
        the bound above lies below the lowest mean, over the seconds to expect by those measured so far. Draws
        then depend on times, and a run with the same rstate is no longer the same. Default False.

    Returns
    -------
    list of dict
        One new trial document for each of new_ids.

    Raises
    ------
    ValueError
        As `hyperband.suggest`; or a `sampler`, since this one has its own; a `per_second` that is no bool; or
        a distribution whose parameters are expressions.

    Source: Falkner et al., BOHB, ICML 2018, for a model inside Hyperband's brackets; the model here, and the
    choice of brackets, are others, chosen by their regret over benchmarks/suite.py.
    """
    if "sampler" in options:
        raise ValueError(
            f"sampler={options['sampler']!r}: bohb.suggest draws by its own model; pass the sampler to "
            "hyperband.suggest"
        )
    if not isinstance(per_second, bool):
        raise ValueError(f"per_second={per_second!r}: pass True or False")
    model = _per_second if per_second else _choosing
    return hyperband.suggest(new_ids, domain, trials, seed, sampler=model, **options)
