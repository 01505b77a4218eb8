"""Documents of several runs in one Trials: one of them goes on, and each document counts once."""

import json
import warnings

import numpy as np
import pytest
from conftest import loss, run
from hyperopt import STATUS_OK, Trials, fmin, tpe
from hyperopt.base import trials_from_docs

from hyperopt_hyperband import hyperband

NOT_OF_THE_RUN = "trials are not of the run that goes on"


def renumbered(docs):
    for tid, doc in enumerate(docs):
        doc["tid"] = doc["misc"]["tid"] = tid
        doc["misc"]["idxs"] = {label: [tid] * len(value) for label, value in doc["misc"]["vals"].items()}
    return docs


def joined(*runs):
    return [json.loads(json.dumps(doc, default=str)) for trials in runs for doc in trials._dynamic_trials]


def told(caught):
    return [str(warning.message) for warning in caught if NOT_OF_THE_RUN in str(warning.message)]


def gone_on(docs, space, more=30, **options):
    """Trials of these documents after some evaluations more, the new documents, and what was told."""
    trials = trials_from_docs(docs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(loss, space, len(trials.trials) + more, trials, seed=99, **options)
    return trials, trials._dynamic_trials[len(docs) :], told(caught)


def counted_once(trials):
    report = hyperband.report(trials)
    rows = hyperband.records(trials)
    assert report.evaluations + report.pending + report.interrupted + report.foreign == len(rows)
    assert all(rung.evaluations + rung.pending <= rung.planned for rung in report.rungs)
    own = [row for row in rows if row["rung"] is not None and row["status"] != "interrupted"]
    assert report.configurations == len({row["config"] for row in own})
    return own


def promoted_from_the_rung_below(new, own):
    """Each promotion among the new documents, and where its hyperparameters come from."""
    at = {(row["iteration"], row["bracket"], row["rung"], row["config"]): row for row in own}
    promotions = [doc for doc in new if doc["misc"]["hyperband"]["rung"] > 0]
    for doc in promotions:
        its = doc["misc"]["hyperband"]
        below = at[its["iteration"], its["bracket"], its["rung"] - 1, its["config"]]
        assert below["status"] == "ok"
        assert {label: below[f"param_{label}"] for label in ("x", "branch", "y")} == {
            label: next(iter(doc["misc"]["vals"][label]), None) for label in ("x", "branch", "y")
        }
    return len(promotions)


@pytest.mark.parametrize("number", [list, renumbered], ids=["ids as they are", "new ids"])
@pytest.mark.parametrize("seeds", [(0, 1), (0, 0), (0, 1, 2), (0, 1, 0)])
@pytest.mark.parametrize("lengths", [(22, 15), (5, 30), (30, 4), (9, 9)])
def test_one_of_the_joined_runs_goes_on_and_the_others_are_foreign(space, number, seeds, lengths):
    runs = [run(loss, space, lengths[i % 2], seed=seed) for i, seed in enumerate(seeds)]
    docs = number(joined(*runs))
    hyperband.no_progress()(trials_from_docs(docs))
    trials, new, warned = gone_on(docs, space)
    assert len(warned) == 1
    own = counted_once(trials)
    assert promoted_from_the_rung_below(new, own) > 0
    assert len({doc["tid"] for doc in new} | {doc["tid"] for doc in docs}) == len(new) + len(
        {doc["tid"] for doc in docs}
    ), "new documents have new ids"
    hyperband.no_progress()(trials)
    foreign = [
        doc for doc in docs if trials._dynamic_trials[docs.index(doc)]["misc"]["hyperband"].get("foreign")
    ]
    assert hyperband.report(trials).foreign >= len(foreign) > 0


def test_the_newest_of_the_joined_runs_is_the_one_that_goes_on(space):
    first, second = run(loss, space, 22), run(loss, space, 15, seed=1)
    trials, new, warned = gone_on(joined(first, second), space, more=7)
    [run_id] = {doc["misc"]["hyperband"]["run"] for doc in second.trials}
    assert {doc["misc"]["hyperband"]["run"] for doc in new} == {run_id}
    assert len(counted_once(trials)) == 15 + 7
    assert warned == [
        "22 trials are not of the run that goes on: they come from another one, lie outside the space, or "
        "what they were promoted from is gone; they take no place in the schedule"
    ]


def test_the_run_that_fits_goes_on_as_it_would_have_alone(space):
    alone = run(loss, space, 9, seed=1)
    docs = joined(run(loss, space, 22), alone)
    _, new, _ = gone_on(docs, space, more=4)
    run(loss, space, 13, alone, seed=99)
    stamped, expected = (
        [(*(doc["misc"]["hyperband"][name] for name in names), doc["misc"]["vals"]) for doc in documents]
        for names in [("bracket", "rung", "config")]
        for documents in (new, alone.trials[9:])
    )
    assert stamped == expected
    assert [rung for _, rung, _, _ in stamped] == [1, 1, 1, 2]


def test_runs_with_tpe_trials_among_them_go_on_and_the_foreign_ones_stay_foreign(space):
    others = Trials()
    fmin(loss, space, tpe.suggest, 10, trials=others, rstate=np.random.default_rng(0), verbose=False)
    docs = joined(run(loss, space, 12), others)
    trials, new, warned = gone_on(docs, space, more=20)
    assert warned == []
    own = counted_once(trials)
    assert len(own) == 32
    assert promoted_from_the_rung_below(new, own) > 0
    assert hyperband.report(trials).foreign == 10


def test_the_warning_comes_once_for_all_that_follow(space):
    docs = joined(run(loss, space, 22), run(loss, space, 15, seed=1))
    trials, _, warned = gone_on(docs, space, more=1)
    assert len(warned) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for more in range(1, 30):
            run(loss, space, len(docs) + 1 + more, trials, seed=more)
    assert told(caught) == []


def test_what_a_lost_trial_was_promoted_to_takes_no_place(space):
    docs = joined(run(loss, space, 14))
    ups = [doc for doc in docs if doc["misc"]["hyperband"]["rung"] == 1]
    lost = next(doc for doc in docs if doc["tid"] == ups[0]["misc"]["hyperband"]["below"])
    docs.remove(lost)
    trials, _, warned = gone_on(docs, space, more=20)
    assert len(warned) == 1
    own = counted_once(trials)
    assert lost["tid"] not in {row["config"] for row in own}


def test_a_stamp_that_is_only_like_ours_is_foreign(space):
    trials = run(loss, space, 12)
    forged = json.loads(json.dumps(trials._dynamic_trials[9], default=str))
    forged["tid"] = forged["misc"]["tid"] = 40
    forged["misc"]["vals"]["x"] = [4.9]
    forged["result"] = {"status": STATUS_OK, "loss": -100.0}
    docs = [*joined(trials), forged]
    trials, new, warned = gone_on(docs, space, more=20)
    assert len(warned) == 1
    own = counted_once(trials)
    assert 40 not in {row["tid"] for row in own}
    assert promoted_from_the_rung_below(new, own) > 0
