"""Hyperopt's Trials, whose answers, bar and threshold know of budgets."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import hyperopt
from hyperopt import base, tpe
from hyperopt.base import Domain, validate_loss_threshold

from hyperopt_hyperband._best_model import keep_best
from hyperopt_hyperband._branches import lacks_budget
from hyperopt_hyperband._budget import find_budget
from hyperopt_hyperband._documents import (
    Document,
    Vals,
    copy_of,
    documents,
    in_full,
    in_shares,
    is_outside,
    is_unfinished,
    left_behind,
    maxima_of,
    outcome,
    own_options,
    stamp_of,
    tid_of,
    vals_of,
)
from hyperopt_hyperband._evaluations import argmin, evaluations, incumbent, incumbent_of
from hyperopt_hyperband._history import first_full
from hyperopt_hyperband._lifecycle import begin_again, fail, give_up, new_document, unused
from hyperopt_hyperband._objective import wants_of
from hyperopt_hyperband._points import vals_of_point
from hyperopt_hyperband._progress import Bar
from hyperopt_hyperband._schedule import Budget, Schedule, shown
from hyperopt_hyperband._space import BudgetLabel
from hyperopt_hyperband._stamps import check_labels, could_draw, issued_again, newest_schedule, schedule_of
from hyperopt_hyperband._warn import warn

logger = logging.getLogger("hyperopt_hyperband")

Algorithm = Callable[..., Sequence[Document]]
EarlyStop = Callable[..., tuple[bool, Any]]


class Trials(base.Trials):  # type: ignore[misc]  # Hyperopt has no types
    """Hyperopt's Trials, in which the best is the incumbent; pass them to fmin as `trials`.

    Losses at different budgets do not compare, and Hyperopt's own Trials compares them. Here `best_trial`
    and `argmin`, and so what fmin returns, are those of `hyperband.incumbent`; `loss_threshold` is met by an
    evaluation at max_budget alone; the progress bar counts budget; and a run whose max_evals is too small for
    a result at max_budget says so before it starts. While no trial is Hyperband's, all is as in
    Hyperopt.

    Parameters
    ----------
    exp_key, refresh : optional
        Hyperopt's own.
    trials : hyperopt.Trials, optional
        Trials of any kind to go on with, their points_to_evaluate among them.
    points_to_evaluate : list, optional
        Points that are evaluated first, each once, also where fmin is called again. A point is nested as the
        space is written, or flat (a dict by label), or partly so. The budget may be left out, and is
        max_budget then. An option of a choice is given as itself, where only one is like it (of a dict, the
        keys that tell: {"kind": "svm", "C": 1.0}); or by the name that `hyperband.report` shows; or by its
        index. A number that is both an option and an index is the option, with a warning. Points take no
        place in the schedule, but count towards max_evals.
    keep_model : bool, optional
        Keep what a result holds under the key "model" with the incumbent alone, for `hyperband.best_model`;
        the others are dropped after each evaluation. Objectives of `hyperband.with_budget` have the same
        option. Default: False, results are left as they are.

    Raises
    ------
    ValueError
        points_to_evaluate is no list; in fmin, before anything is evaluated: a point does not fit the space.
    """

    points_to_evaluate: Sequence[Any] = ()
    keep_model = False

    def __init__(
        self,
        exp_key: Any = None,
        refresh: bool = True,
        *,
        trials: base.Trials | None = None,
        points_to_evaluate: Sequence[Any] | None = None,
        keep_model: bool = False,
    ) -> None:
        if isinstance(exp_key, base.Trials):
            raise ValueError("Trials(old) takes old for an experiment's key: pass Trials(trials=old)")
        super().__init__(exp_key=exp_key, refresh=False)
        if trials is not None:
            copy_of(trials, into=self)
        if keep_model:
            self.keep_model = True
        if points_to_evaluate is not None:
            if not isinstance(points_to_evaluate, list | tuple):
                raise ValueError(f"points_to_evaluate={points_to_evaluate!r}: pass a list of points")
            self.points_to_evaluate = list(points_to_evaluate)
        if refresh:
            self.refresh()

    @property
    def best_trial(self) -> Document:
        """The incumbent's document. Raises AllTrialsFailed where no trial has succeeded."""
        return super().best_trial if newest_schedule(self) is None else incumbent(self)

    @property
    def argmin(self) -> dict[str, Any]:
        """The incumbent's hyperparameters, as `hyperband.argmin` gives them."""
        return super().argmin if newest_schedule(self) is None else argmin(self)

    def fmin(
        self,
        fn: Callable[..., Any],
        space: Any,
        algo: Algorithm | None = None,
        max_evals: int | None = None,
        timeout: float | None = None,
        loss_threshold: float | None = None,
        *,
        verbose: bool = False,
        show_progressbar: bool | Callable[..., Any] = True,
        early_stop_fn: EarlyStop | None = None,
        **options: Any,
    ) -> Any:
        """Minimize fn over space. `hyperopt.fmin` calls it; the options are documented there."""
        validate_loss_threshold(loss_threshold)
        run = Run(self, tpe.suggest if algo is None else algo, max_evals)
        if loss_threshold is not None:
            early_stop_fn = _stop(run, loss_threshold, early_stop_fn)
        wants = wants_of(fn)
        if self.keep_model or (wants and wants.keep_model):
            early_stop_fn = _keep_best(self, early_stop_fn)
        _sort_out(self, Domain(fn, space, pass_expr_memo_ctrl=options.get("pass_expr_memo_ctrl")))
        answer = self._minimize(
            fn,
            space,
            algo=run.suggest,
            max_evals=max_evals,
            timeout=timeout,
            verbose=verbose,
            show_progressbar=run.progress if show_progressbar is True else show_progressbar,
            early_stop_fn=early_stop_fn,
            **options,
        )
        run.warn_if_low()
        return answer

    def view(self, exp_key: Any = None, refresh: bool = True) -> Trials:
        """Another view of these trials, with their options."""
        seen = super().view(exp_key, refresh)
        vars(seen).update(own_options(self))
        return seen  # type: ignore[no-any-return]

    def _minimize(self, *args: Any, **options: Any) -> Any:
        return hyperopt.fmin(*args, trials=self, allow_trials_fmin=False, **options)


def _sort_out(trials: Trials, domain: Domain) -> None:
    """Before a run: what an executor has cut short is new; what lies outside the space is not evaluated."""
    begin_again(trials)
    for document in [each for each in documents(trials) if is_unfinished(each, trials)]:
        if stamp_of(document) is not None:
            check_labels(set(vals_of(document)), domain)
        if not could_draw(domain, document):
            fail(document, ValueError("outside the space of this fmin"))
            logger.warning("trial %s lies outside the space, and is not evaluated", tid_of(document))
    trials.refresh()


def or_never(early_stop_fn: EarlyStop | None) -> EarlyStop:
    """The early_stop_fn, or one that never stops. Raises ValueError where it can't be called."""
    if early_stop_fn is None:
        return lambda _, *args: (False, args)
    if not callable(early_stop_fn):
        raise ValueError(f"early_stop_fn={early_stop_fn!r}: pass a function, such as no_progress()")
    return early_stop_fn


def _stop(run: Run, loss_threshold: float, early_stop_fn: EarlyStop | None) -> EarlyStop:
    """An early_stop_fn that stops at the threshold too."""
    other = or_never(early_stop_fn)

    def stop(trials: base.Trials, *args: Any) -> tuple[bool, Any]:
        stopped, kept = other(trials, *args)
        return stopped or _reached(run, trials, loss_threshold), kept

    return stop


def _keep_best(own: Trials, early_stop_fn: EarlyStop | None) -> EarlyStop:
    """An early_stop_fn that drops models, once one that saves the trials has saved what outdoes them."""
    other = or_never(early_stop_fn)

    def stop(trials: base.Trials, *args: Any) -> tuple[bool, Any]:
        answer = other(trials, *args)
        keep_best(own)
        return answer

    return stop


def _reached(run: Run, trials: base.Trials, loss_threshold: float) -> bool:
    """Whether an evaluation at max_budget is below the threshold; without Hyperband, whether any is."""
    plan = newest_schedule(trials) or run.plan
    if plan is None:
        return any(loss is not None and loss < loss_threshold for loss in trials.losses())
    full = plan.max_budget
    if not any(
        (loss := outcome(document)) is not None and loss < loss_threshold
        for document in documents(trials)
        if in_full(document) and not is_outside(stamp_of(document))
    ):
        return False  # as a rule, and without reading all evaluations
    return any(
        e.loss is not None and e.loss < loss_threshold and (e.known_at or 0) >= full
        for e in evaluations(trials, schedule=plan, maxima=run.maxima)
        if not e.outside
    )


@dataclass
class Run:
    """One call of fmin, or of ask: its algorithm, the points to evaluate first, its progress bar.

    Attributes
    ----------
    points : those that are still to be suggested; None before the first suggestion
    plan : Hyperband's schedule; None: not known yet, or there is none
    maxima : what each label of its budgets holds at max_budget
    short : it was said that max_evals is too few for a result at max_budget
    """

    trials: Trials
    algo: Algorithm
    max_evals: int | None = None
    points: deque[Vals] | None = None
    bar: Bar | None = None
    plan: Schedule | None = None
    maxima: dict[str, Budget] = field(default_factory=dict)
    short: bool = False

    def suggest(
        self, new_ids: Sequence[Hashable], domain: Domain, trials: base.Trials, seed: int
    ) -> Sequence[Document]:
        """The points, then what the algorithm suggests.

        It is asked before the points too, its answer dropped: what is wrong shows before the run starts.
        """
        suggested = () if self.points else self.algo(new_ids, domain, trials, seed)
        if self.points is None:
            self.points = self._start(suggested, domain)
        if not self.points:
            return suggested
        ids = unused(new_ids[: len(self.points)], trials, ascending=False)
        return [new_document(tid, self.points.popleft(), domain, trials) for tid in ids]

    @contextmanager
    def progress(self, initial: int, total: int) -> Iterator[Bar]:
        """Hyperopt's progress callback."""
        with ExitStack() as stack:
            self.bar = Bar(self.trials, stack, initial, total)
            yield self.bar
            self.bar.finish()

    def warn_if_low(self) -> None:
        """Say that what fmin returns is of a low budget, unless that was said before it started."""
        plan = newest_schedule(self.trials)
        if plan is None or self.short or (best := incumbent_of(evaluations(self.trials))) is None:
            return
        if best.known_at is not None and best.known_at < plan.max_budget:
            warn(
                f"fmin has ended before a result at max_budget={shown(plan.max_budget)}: what it returns is "
                f"the best at budget {shown(best.known_at)}; go on with these trials, to "
                f"max_evals={first_full(self.trials, plan)} at least"
            )

    def _start(self, suggested: Sequence[Document], domain: Domain) -> deque[Vals]:
        stamp = next(filter(None, map(stamp_of, suggested)), None)
        self.plan = plan = schedule_of(stamp) if stamp else None
        points = deque(_due(self.trials, self._points(domain, stamp)))
        if plan is not None and self.max_evals is not None and not self._may_be_final(domain):
            self.short = _warn_if_short(self.trials, plan, self.max_evals, len(points))
        if self.bar is not None:
            others = range(self.bar.total)  # another algorithm's go on at max_budget
            self.bar.open(plan or newest_schedule(self.trials), points if plan else others)
        return points

    def _may_be_final(self, domain: Domain) -> bool:
        """Whether a configuration may have no budget, so that its first evaluation is at max_budget."""
        return lacks_budget(domain.expr, frozenset(self.maxima))

    def _points(self, domain: Domain, stamp: dict[str, Any] | None) -> Iterator[Vals]:
        """The points in Hyperopt's form. Raises ValueError where one does not fit the space."""
        full = {str(name): name.max_budget for name in domain.params if isinstance(name, BudgetLabel)}
        if stamp is not None:
            # The draw has a label only where its branch is active; shares name all, and so does a partial.
            named = getattr(self.algo, "keywords", {}).get("budget", stamp.get("label"))
            self.maxima = maxima_of(stamp) if in_shares(stamp) else find_budget(domain, named).maxima
            full |= self.maxima
        for i, point in enumerate(self.trials.points_to_evaluate):
            try:
                vals = vals_of_point(domain.expr, point, full)
            except ValueError as error:
                raise ValueError(f"points_to_evaluate[{i}]={point!r}: {error}") from None
            yield vals


def _due(trials: Trials, points: Iterable[Vals]) -> list[Vals]:
    """The points that have not been evaluated, nor are under way. Twice interrupted, one has failed."""
    own = [document for document in documents(trials) if stamp_of(document) is None]
    left = [] if trials.asynchronous else list(filter(left_behind, own))
    interrupted = [vals_of(document) for document in left]
    repeated = set(map(id, issued_again(trials)))
    for document in left:
        if id(document) not in repeated and interrupted.count(vals_of(document)) > 1:
            give_up(document)
    held = [vals_of(document) for document in own if trials.asynchronous or not left_behind(document)]
    due: list[Vals] = []
    for point in points:
        if point not in held and point not in due:
            due.append(point)
    return due


def _warn_if_short(trials: Trials, plan: Schedule, max_evals: int, points: int) -> bool:
    full = plan.max_budget
    if any(e.place and e.known_at == full and e.status == "ok" for e in evaluations(trials, schedule=plan)):
        return False
    first = first_full(trials, plan) + points
    if max_evals < first:
        warn(
            f"max_evals={max_evals} is too few for a result at max_budget={shown(full)}: the first takes "
            f"max_evals={first}, a whole Hyperband iteration {plan.evaluations} evaluations; pass more, or "
            "raise min_budget"
        )
    return max_evals < first
