from collections import deque

import pytest
from hyperopt import STATUS_OK, Trials, hp
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_RUNNING, Domain

from hyperopt_hyperband import hyperband

PLAN = hyperband.schedule(1, 9)
DOMAIN = Domain(lambda _: 0.0, {"x": hp.uniform("x", 0, 1), "b": hyperband.budget("b", 1, 9)})


class CountedList(list):
    """Counts the documents that are looked at."""

    looked_at = 0

    def __iter__(self):
        return self._counted(super().__iter__())

    def __reversed__(self):
        return self._counted(super().__reversed__())

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.looked_at += len(found) if isinstance(index, slice) else 1
        return found

    def _counted(self, documents):
        for document in documents:
            self.looked_at += 1
            yield document


class AsyncTrials(Trials):
    asynchronous = True


def looks(evaluations, workers=1, ids=1, exp_key=None):
    """For each call of suggest in a run: how many documents it looked at. The oldest pending ends first."""
    trials = (AsyncTrials if workers > 1 else Trials)(exp_key)
    trials._dynamic_trials = documents = CountedList()
    pending, counts = deque(), []
    while len(documents) < evaluations:
        while len(pending) + ids > workers:
            doc = pending.popleft()
            loss = (doc["misc"]["hyperband"]["config"] * 7919 % 101) / doc["misc"]["budget"]
            doc["state"], doc["result"] = JOB_STATE_DONE, {"status": STATUS_OK, "loss": loss}
        documents.looked_at = 0
        tid = len(documents)
        new = hyperband.suggest(range(tid, tid + ids), DOMAIN, trials, tid)
        counts.append(documents.looked_at)
        for doc in new:
            doc["state"] = JOB_STATE_RUNNING
        documents += new
        pending += new
    return counts


@pytest.mark.parametrize("exp_key", [None, "key"])
def test_suggest_looks_at_no_more_documents_the_longer_the_run_is(exp_key):
    counts = looks(20 * PLAN.evaluations, exp_key=exp_key)
    third, last = counts[2 * PLAN.evaluations : 3 * PLAN.evaluations], counts[-PLAN.evaluations :]
    assert last == third
    assert max(last) <= 2 * max(bracket.evaluations for bracket in PLAN.brackets)


@pytest.mark.parametrize("ids", [1, 5])
def test_nor_does_it_with_many_workers(ids):
    counts = looks(60 * PLAN.evaluations, workers=20, ids=ids)
    half = len(counts) // 2
    assert max(counts[half:]) <= max(counts[:half])
    assert max(counts) < 6 * PLAN.evaluations


def test_several_ids_read_the_documents_once():
    one, five = looks(10 * PLAN.evaluations, workers=20), looks(10 * PLAN.evaluations, workers=20, ids=5)
    assert sum(five) < sum(one) / 3
