"""The stamps of a run's documents: how they are followed, and which are believed.

How the stamps lead to what counts. Reading all documents at each suggestion would make a long run slower and
slower. So each stamp says where to go on from it, by positions among the documents: "before" is the document
before it in its bracket, "since" the oldest there that still counts, and "open" lists the other brackets that
were open, each with its newest document. From the newest stamp one gets to the newest document of every open
bracket, and from there, by "before", back to "since". What is not reached belongs to brackets that were
complete, or lies two rungs below a full one: the last promotion into a rung waits until all of the rung below
has finished. A range of positions in place of the links fails where one evaluation takes much longer than all
others.

Which stamps are believed. Each has its own "position": where a document is not at it (documents were deleted,
reordered, joined with others), the links lead to another run, or the newest is of another space, all
documents are read and judged: one is of the run where what its stamp names is there (the first evaluation of
its configuration, the one at the rung below), with the same hyperparameters, inside the space. What is not is
a misfit, and becomes foreign.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from hyperopt.base import Domain, Trials

from hyperopt_hyperband._documents import (
    Document,
    Vals,
    active_of,
    documents,
    everyones,
    in_order,
    known_at,
    left_behind,
    newest_first,
    stamp_of,
    vals_of,
)
from hyperopt_hyperband._promotion import BracketState, is_known
from hyperopt_hyperband._schedule import Budget, Schedule, schedule
from hyperopt_hyperband._space import BudgetLabel, contains, name_of, option_names

BracketKey = tuple[int, int]
"""Hyperband iteration and bracket s."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a stamp is held against.

    Attributes
    ----------
    name : short for all that the space says; documents that were drawn from the same space need no look
    has : whether the space could have drawn these hyperparameters
    labels : of its hyperparameters
    options : of each choice, the names of its options
    """

    name: int
    has: Callable[[Vals], bool]
    labels: Set[str] = frozenset()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def chosen(self, vals: Vals) -> int | None:
        """A number for the names of the options chosen: their indices are others where the space changes.

        None where nothing is chosen.
        """
        names = [(label, of[int(vals[label][0])]) for label, of in self.options.items() if vals.get(label)]
        return zlib.crc32(repr(sorted(names)).encode()) if names else None

    def holds(self, document: Document) -> bool:
        """Whether the space could have drawn a document's hyperparameters, each option by the same name.

        Those of other labels are another matter.
        """
        its, vals = document["misc"]["hyperband"], vals_of(document)
        if its["space"] == self.name or set(vals) != self.labels:  # keys() is a list in BSON
            return True
        return self.has(vals) and (not self.options or self.chosen(vals) == its.get("options"))


NOWHERE = -1
"""A position that no stamp has."""


def space_of(domain: Domain, budgets: Collection[str]) -> Space:
    """The space of a run, with the labels that hold its budget."""
    has = functools.partial(contains, domain.expr, budgets=budgets)
    return Space(name_of(domain.expr), has, domain.params.keys(), option_names(domain.expr))


def check_labels(labels: Set[str] | None, domain: Domain) -> None:
    """Raise ValueError where a run has hyperparameters of other names than the space. None: none yet."""
    if labels is not None and labels != domain.params.keys():
        raise ValueError(
            f"trials hold a run over another space, {sorted(labels)}, not "
            f"{sorted(map(str, domain.params))}: pass new Trials(), or the space of that run"
        )


def could_draw(domain: Domain, document: Document) -> bool:
    """Whether the space could have drawn a document's hyperparameters, where it has those labels."""
    its = stamp_of(document)
    if its is not None:
        return space_of(domain, {its["label"]} if "label" in its else ()).holds(document)
    vals = vals_of(document)
    nodes = {str(name) for name in domain.params if isinstance(name, BudgetLabel)}
    return set(vals) != domain.params.keys() or contains(domain.expr, vals, nodes)


ANY = Space(0, lambda _: True)
"""What those read with who do not know the space."""


@dataclass(slots=True)
class Followed:
    """The documents of a run that still count.

    Attributes
    ----------
    chains : by bracket, oldest first, each in the order of the run
    ends : for each bracket, the positions of its oldest document that still counts, and of its newest
    run : what tells the run from others; None where it has not begun
    linked : the newest document is of the run, and links led to all: no document has moved
    foreign : how many documents of other schedules have come since
    misfits : documents of this schedule that are not of the run
    """

    chains: dict[BracketKey, list[Document]] = field(default_factory=dict)
    ends: dict[BracketKey, tuple[int, int]] = field(default_factory=dict)
    run: int | None = None
    linked: bool = False
    foreign: int = 0
    misfits: list[Document] = field(default_factory=list)


def follow(trials: Trials, schedule: Schedule, space: Space) -> Followed:
    """Follow the stamps of a schedule, from the newest, to the documents that still count."""
    everything = everyones(trials)
    found = Followed()
    chains: dict[BracketKey, list[Document]] = {}
    moved: dict[int, int] = {}  # where documents are that may not be at their own positions
    behind: list[int] = []  # the positions of what is passed over on the way to the newest of the run
    for position in newest_first(trials):
        newest = stamp_of(everything[position])
        if newest is None or "foreign" in newest:
            behind.append(position)
            continue
        if is_of(schedule, newest):
            try:
                if any(_is_out_of_order(everything, position, other) for other in behind):
                    raise LookupError("documents have moved: the newest of the run may lie anywhere")
                chains = _linked(everything, position, space)
                found.linked = not behind
            except (LookupError, TypeError, ValueError):
                chains, found.misfits = _counting(trials, schedule, space)
                moved = {id(document): i for i, document in enumerate(everything)}
            break
        behind.append(position)
        found.foreign += 1
    for key in sorted(chains, key=order):
        chain = found.chains[key] = chains[key]
        oldest, newest = (document["misc"]["hyperband"] for document in (chain[0], chain[-1]))
        found.run = newest["run"]
        found.ends[key] = oldest["position"], newest["position"]
        if moved:
            found.ends[key] = _ends(chain, [moved[id(document)] for document in chain])
    return found


def newest_schedule(trials: Trials) -> Schedule | None:
    """The schedule of the newest stamped document, but for a step of its budgets; None without a stamp."""
    for document in reversed(documents(trials)):
        found = stamp_of(document)
        if found and "foreign" not in found:
            return schedule_of(found)
    return None


def schedule_of(stamp: Mapping[str, Any]) -> Schedule:
    """The schedule that a stamp tells of, but for a step of its budgets."""
    plan = schedule(stamp["min_budget"], stamp["max_budget"], stamp["eta"])
    return replace(plan, shares_of=_shares_of(stamp))


def _shares_of(stamp: Mapping[str, Any]) -> tuple[tuple[str, Budget, Budget], ...]:
    return tuple((label, low, high) for label, low, high in stamp.get("shares_of", ()))


def fitting(trials: Trials, schedule: Schedule, space: Space = ANY) -> list[Document]:
    """All documents of the run of a schedule, in the order of the run.

    Several runs may have been joined: the run is that of the newest document that fits.
    """
    own = in_order(d for d in documents(trials) if is_of(schedule, stamp_of(d)))
    places: dict[tuple[Any, BracketKey], BracketState] = {}
    fit: list[Document] = []
    for document in own:
        its = document["misc"]["hyperband"]
        if its["bracket"] >= len(schedule.brackets):
            continue
        key = its["run"], (its["iteration"], its["bracket"])
        state = places.setdefault(key, BracketState(tuple({} for _ in range(its["bracket"] + 1))))
        rungs = schedule.bracket(its["bracket"]).rungs
        rung = state.rungs[its["rung"]]
        if (before := rung.get(its["config"])) is not None:  # issued again after an interruption
            fits = left_behind(before) and before["tid"] != document["tid"] and _alike(before, document)
        elif len(rung) == rungs[its["rung"]].configurations:
            fits = False
        elif its["rung"] == 0:
            fits = its["config"] == document["tid"]
        else:
            below = state.below(its["config"], its["rung"])
            fits = below is not None and below["tid"] == its.get("below") and _alike(below, document)
            if fits and below["misc"]["hyperband"]["rung"] < its["rung"] - 1:  # known at the rungs between
                fits = is_known(below, rungs[its["rung"] - 1].budget, known_at)
        fits = fits and space.holds(document)
        if fits:
            rung[its["config"]] = document
            fit.append(document)
    if not fit:
        return []
    found = set(map(id, fit))
    newest = next(d for d in reversed(documents(trials)) if id(d) in found)
    run = newest["misc"]["hyperband"]["run"]
    return [document for document in fit if document["misc"]["hyperband"]["run"] == run]


def issued_again(trials: Trials) -> list[Document]:
    """The interrupted evaluations that a later document repeats. They count no more."""
    left = list(filter(left_behind, documents(trials)))
    if not left:
        return []
    newest = {_identity(document): document for document in in_order(documents(trials))}
    return [document for document in left if newest[_identity(document)] is not document]


def _identity(document: Document) -> tuple[Any, ...]:
    """What a document and the one that repeats it have in common: their place, or a point of the user's."""
    if (its := stamp_of(document)) is None:
        return (repr(sorted(active_of(document).items())),)
    return tuple(its[name] for name in ("run", "iteration", "bracket", "rung", "config"))


def _is_out_of_order(everything: list[Document], one: int, other: int) -> bool:
    """Whether a document is at another position than its own, or was there before one that lies before it."""
    its = stamp_of(everything[other])
    if its is not None:
        return bool(its["position"] != other)
    earlier, later = everything[one]["tid"], everything[other]["tid"]
    return isinstance(earlier, int) and isinstance(later, int) and later < earlier


def _linked(everything: list[Document], newest: int, space: Space) -> dict[BracketKey, list[Document]]:
    """The documents that the one at a position leads to, by bracket, in the order of the run.

    Raises LookupError or TypeError where a link leads to no document of the run.
    """
    exp_key, stamp = everything[newest]["exp_key"], everything[newest]["misc"]["hyperband"]
    if space is not ANY and stamp["space"] != space.name:
        raise LookupError("the space has changed: what is complete is to be judged too, once")
    run, chains = stamp["run"], {}
    starts = [[stamp["iteration"], stamp["bracket"], newest], *stamp["open"]]
    for iteration, bracket, position in starts:
        chain: list[Document] = []
        since, after = None, position + 1
        while True:
            document = everything[position]
            its = document["misc"]["hyperband"]
            if (
                its["position"] != position
                or position >= after
                or its["run"] != run
                or document["exp_key"] != exp_key
                or "foreign" in its
                or not 0 <= its["rung"] <= bracket
            ):
                raise LookupError(f"no document of the run at position {position}")
            if its["space"] != space.name and not space.holds(document):
                raise LookupError(f"the document at position {position} is outside the space")
            if since is None:
                since = its["since"]
            chain.append(document)
            if position == since:
                break
            after, position = position, its["before"]
        chains[iteration, bracket] = chain[::-1]
    return chains


def _ends(chain: list[Document], positions: list[int]) -> tuple[int, int]:
    """Where the documents of a bracket, now at these positions, begin and end.

    If links no longer lead from the last one through all of them, those that are written now lead nowhere:
    all documents are judged again.
    """
    stamps = [document["misc"]["hyperband"] for document in chain]
    lead = [its["position"] for its in stamps] == positions
    lead = lead and [its.get("before") for its in stamps[1:]] == positions[:-1]
    return positions[0], positions[-1] if lead else NOWHERE


def _counting(
    trials: Trials, schedule: Schedule, space: Space
) -> tuple[dict[BracketKey, list[Document]], list[Document]]:
    """The run's documents that count, by bracket, in the order of the run; and the schedule's misfits.

    A bracket that was complete by the newest stamp is left out: where documents of it are missing, it would
    look open again. The last that the run has documents of is not: the next one opens after it.
    """
    own = fitting(trials, schedule, space)
    found = set(map(id, own))
    misfits = [d for d in documents(trials) if is_of(schedule, stamp_of(d)) and id(d) not in found]
    chains: dict[BracketKey, list[Document]] = {}
    for document in own:
        its = document["misc"]["hyperband"]
        chains.setdefault((its["iteration"], its["bracket"]), []).append(document)
    if own:
        newest = own[-1]["misc"]["hyperband"]
        counting = {(newest["iteration"], newest["bracket"]), *((i, s) for i, s, _ in newest["open"])}
        last = max(order(key) for key in counting if key in chains)
        chains = {key: chain for key, chain in chains.items() if key in counting or order(key) > last}
    return chains, misfits


def _alike(one: Document, other: Document) -> bool:
    """Whether two documents have the same hyperparameters, the budget aside."""
    label = other["misc"]["hyperband"].get("label")
    ours, theirs = vals_of(one), vals_of(other)
    return set(ours) == set(theirs) and all(ours[name] == theirs[name] for name in ours if name != label)


def is_of(schedule: Schedule, stamp: dict[str, Any] | None) -> bool:
    return (
        stamp is not None
        and "foreign" not in stamp
        and (stamp["min_budget"], stamp["max_budget"], stamp["eta"])
        == (schedule.min_budget, schedule.max_budget, schedule.eta)
        and ("shares_of" not in stamp if not schedule.shares_of else _shares_of(stamp) == schedule.shares_of)
    )


def turn_of(stamp: Mapping[str, Any], plan: Schedule) -> int:
    """How many brackets opened before that of a stamp."""
    by_the_paper = (stamp["iteration"] + 1) * len(plan.brackets) - 1 - stamp["bracket"]
    return stamp.get("turn", by_the_paper)  # type: ignore[no-any-return]


def order(key: BracketKey) -> tuple[int, int]:
    """Orders brackets by when they open."""
    return key[0], -key[1]
