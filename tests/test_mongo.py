"""Hyperopt's MongoTrials and its own workers; mongomock plays the server."""

import importlib
import random
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import BRANCHES, places, run, stops_in_a_branch
from hyperopt import STATUS_OK, hp, mongoexp, space_eval, tpe
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR, JOB_STATE_NEW, Domain

from hyperopt_hyperband import ExecutorTrials, _stamps, bohb, hyperband

mongomock = pytest.importorskip("mongomock", reason="it plays the server")
pymongo = pytest.importorskip("pymongo", reason="MongoTrials needs it")
if pymongo.version_tuple[0] > 3:
    pytest.skip("Hyperopt's MongoTrials need PyMongo 3", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Hyperopt's calls of PyMongo
bson = pytest.importorskip("bson")
importlib.import_module("mongomock.gridfs").enable_gridfs_integration()

SERVER = "mongo://localhost:27017/search/jobs"
SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}
PLAN = hyperband.schedule(1, 9)
PLANNED = [
    (0, bracket.s, i, rung.budget)
    for bracket in PLAN.brackets
    for i, rung in enumerate(bracket.rungs)
    for _ in range(rung.configurations)
]
RESERVING = threading.Lock()


class Jobs(mongoexp.MongoJobs):
    def reserve(self, *args, **kwargs):
        with RESERVING:  # a step of its own on a server
            return super().reserve(*args, **kwargs)


class Worker(mongoexp.MongoWorker):
    """Hyperopt's, which ends at an exception of the objective and is then started again."""

    def __init__(self, exp_key=None):
        jobs = Jobs.new_from_connection_str(SERVER)
        super().__init__(jobs, poll_interval=0.01, workdir=str(Path.cwd()), exp_key=exp_key, logfilename=None)

    def work(self):
        """Evaluate one document, if one is new."""
        with suppress(mongoexp.ReserveTimeout, ArithmeticError):
            self.run_one(reserve_timeout=0.01)


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    """A new one for each test; its clients see the same documents, each as it comes out of BSON."""
    fetch = mongomock.collection.Cursor.next

    def as_served(cursor):
        return bson.decode(bson.encode(fetch(cursor)), bson.CodecOptions(document_class=bson.SON))

    monkeypatch.setattr(mongomock.collection.Cursor, "next", as_served)
    monkeypatch.setattr(mongomock.collection.Cursor, "__next__", as_served)
    monkeypatch.chdir(tmp_path)  # a worker changes the folder of the whole process
    monkeypatch.setattr(mongoexp, "time", SimpleNamespace(time=time.time, sleep=lambda _: time.sleep(0.001)))
    with mongomock.patch(servers=(("localhost", 27017),)):
        yield


@pytest.fixture
def by_hand(monkeypatch):
    """Whenever fmin waits, one worker evaluates the oldest document, or one that `choose` says."""

    def choosing(choose=None, exp_key=None):
        worker = Worker(exp_key)
        if choose is not None:
            reserve = worker.mj.reserve

            def reserve_chosen(host, cond=None, exp_key=None):
                new = [document["_id"] for document in worker.mj.jobs.find({"state": JOB_STATE_NEW})]
                return reserve(host, {"_id": choose(new)} if new else cond, exp_key)

            worker.mj.reserve = reserve_chosen
        monkeypatch.setattr(
            importlib.import_module("hyperopt.fmin"), "time", SimpleNamespace(sleep=lambda _: worker.work())
        )

    choosing()
    return choosing


@contextmanager
def workers(monkeypatch, number):
    """So many at work in threads, while fmin polls a hundred times a second."""
    ended = threading.Event()

    def work():
        worker = Worker()
        while not ended.is_set():
            worker.work()

    threads = [threading.Thread(target=work) for _ in range(number)]

    def poll(_):
        assert all(thread.is_alive() for thread in threads)  # or else fmin waits for ever
        time.sleep(0.01)

    monkeypatch.setattr(importlib.import_module("hyperopt.fmin"), "time", SimpleNamespace(sleep=poll))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def mongo_trials(exp_key=None):
    return mongoexp.MongoTrials(SERVER, exp_key=exp_key)


def stored(exp_key=None):
    """All documents, from the server."""
    query = {} if exp_key is None else {"exp_key": exp_key}
    return sorted(mongo_trials().handle.jobs.find(query), key=lambda document: document["tid"])


def insert(trials, number, space=SPACE):
    """What a driver leaves that is stopped with a full queue."""
    domain = Domain(loss, space)
    domain.cmd = ("domain_attachment", "FMinIter_Domain")
    trials.insert_trial_docs(hyperband.suggest(trials.new_trial_ids(number), domain, trials, 1))


def as_trials(documents):
    return SimpleNamespace(_dynamic_trials=documents)


def loss(params):
    return (params["x"] - 1) ** 2 + 1 / params["epochs"]


def failing_at_the_foot(params):
    if params["x"] > 3:
        raise ArithmeticError
    return loss(params)


def failing_at_the_top(params):
    if params["epochs"] == 9 and params["x"] < 3:
        raise ArithmeticError
    return loss(params)


def level(params):
    return 100 + 1 / params["epochs"]


@pytest.mark.parametrize("objective", [loss, failing_at_the_foot, failing_at_the_top])
def test_a_run_is_the_planned_one_whatever_fails(by_hand, objective):
    run(objective, SPACE, PLAN.evaluations, mongo_trials())
    assert sorted(places(as_trials(stored()))) == sorted(PLANNED)
    failed = sum(document["state"] == JOB_STATE_ERROR for document in stored())
    assert (failed > 0) == (objective is not loss)
    report = hyperband.report(mongo_trials())
    assert (report.evaluations, report.configurations, report.failed) == (22, 17, failed)
    assert [rung.evaluations for rung in report.rungs] == [9, 3, 1, 5, 1, 3]
    assert sum(rung.failed for rung in report.rungs) == failed
    if objective is not failing_at_the_top:
        assert space_eval(SPACE, hyperband.argmin(mongo_trials()))["x"] == report.incumbent.vals["x"]


def test_a_failed_evaluation_is_the_same_in_every_reader(by_hand):
    trials = run(failing_at_the_foot, SPACE, PLAN.evaluations, mongo_trials())
    records = hyperband.records(trials)
    assert [record["tid"] for record in records] == [document["tid"] for document in stored()]
    for record, document in zip(records, stored(), strict=True):
        assert record["status"] == ("failed" if document["state"] == JOB_STATE_ERROR else "ok")
        assert (record["param_x"] > 3) == (record["status"] == "failed")
    best = hyperband.incumbent(trials)
    assert best["misc"]["budget"] == 9
    at_the_top = [record["loss"] for record in records if record["budget"] == 9 and record["status"] == "ok"]
    assert best["result"]["loss"] == min(at_the_top)


@pytest.mark.parametrize("order", range(3))
def test_results_come_in_any_order(by_hand, order):
    by_hand(random.Random(order).choice)
    run(failing_at_the_foot, SPACE, 2 * PLAN.evaluations, mongo_trials(), max_queue_len=4)
    documents = stored()
    assert len(documents) == 2 * PLAN.evaluations
    assert sorted(place for place in places(as_trials(documents)) if place[0] == 0) == sorted(PLANNED)
    assert_promoted_are_the_best(documents)


@pytest.mark.parametrize(("number", "queue"), [(3, 1), (4, 8)])
def test_several_workers(monkeypatch, number, queue):
    with workers(monkeypatch, number):
        run(failing_at_the_foot, SPACE, 2 * PLAN.evaluations, mongo_trials(), max_queue_len=queue)
    documents = stored()
    assert {document["state"] for document in documents} == {JOB_STATE_DONE, JOB_STATE_ERROR}
    assert_promoted_are_the_best(documents)


def assert_promoted_are_the_best(documents):
    """None has gone up but from among the best of the rung below, and no place is filled twice."""
    rungs = {}
    for document in documents:
        its = document["misc"]["hyperband"]
        inside = rungs.setdefault((its["iteration"], its["bracket"], its["rung"]), {})
        assert its["config"] not in inside
        inside[its["config"]] = document["result"].get("loss", np.inf)
    for (iteration, s, i), inside in rungs.items():
        places = [rung.configurations for rung in PLAN.bracket(s).rungs]
        assert len(inside) <= places[i]
        if i > 0:
            below = rungs[iteration, s, i - 1]
            best = sorted((value, config) for config, value in below.items() if value < np.inf)[: places[i]]
            assert inside.keys() <= {config for _, config in best}


@pytest.mark.parametrize("first", [1, 7, 10, 13, 20])
def test_a_run_goes_on_with_new_trials_on_the_same_store(by_hand, first):
    run(failing_at_the_foot, SPACE, first, mongo_trials())
    before = stored()
    # Hyperopt counts towards max_evals what has not failed.
    failed = sum(document["state"] == JOB_STATE_ERROR for document in before)
    run(failing_at_the_foot, SPACE, PLAN.evaluations - failed, mongo_trials(), seed=1)
    assert stored()[:first] == before
    assert sorted(places(as_trials(stored()))) == sorted(PLANNED)
    assert_promoted_are_the_best(stored())


def test_a_run_stops_after_an_iteration_and_where_the_next_has_brought_nothing(by_hand):
    trials = mongo_trials()
    stop = hyperband.stop_after(iterations=1)
    run(failing_at_the_foot, SPACE, 100, trials, early_stop_fn=stop)
    assert len(stored()) == PLAN.evaluations
    run(level, SPACE, 100, trials, early_stop_fn=hyperband.no_progress())
    assert len(stored()) == 2 * PLAN.evaluations
    assert hyperband.incumbent(trials)["misc"]["hyperband"]["iteration"] == 0


def test_an_evaluation_whose_worker_has_died_holds_up_its_own_bracket_alone(by_hand):
    run(loss, SPACE, 1, mongo_trials())
    insert(mongo_trials(), 1)
    jobs = Worker().mj
    dead = jobs.reserve("dead")

    def notice(trials, *_):
        if trials.count_by_state_unsynced(JOB_STATE_DONE) == 40:  # as its user may
            jobs.update(dead, {"state": JOB_STATE_ERROR})
        return False, ()

    run(loss, SPACE, 2 * PLAN.evaluations, mongo_trials(), early_stop_fn=notice)
    assert sorted(place for place in places(as_trials(stored())) if place[0] == 0) == sorted(PLANNED)
    assert_promoted_are_the_best(stored())
    [rung] = [rung for rung in hyperband.report(mongo_trials()).rungs if rung.failed]
    assert (rung.iteration, rung.bracket, rung.rung, rung.evaluations) == (0, 2, 0, 9)


def test_a_budget_for_each_branch_and_final_results(by_hand):
    run(stops_in_a_branch, BRANCHES, 60, mongo_trials())
    calls = [document["result"]["params"] for document in stored()]
    assert len(set(calls)) == len(calls) == 60
    report = hyperband.report(mongo_trials())
    assert report.foreign == 0
    assert report.saved_evaluations > 0
    assert report.incumbent.known_at == 1


def test_views_of_one_store_do_not_meet(by_hand):
    for exp_key, objective in (("one", failing_at_the_foot), ("two", failing_at_the_top)):
        by_hand(exp_key=exp_key)
        run(objective, SPACE, 5, mongo_trials(exp_key))
    for exp_key, objective in (("one", failing_at_the_foot), ("two", failing_at_the_top)):
        by_hand(exp_key=exp_key)
        failed = sum(document["state"] == JOB_STATE_ERROR for document in stored(exp_key))
        run(objective, SPACE, PLAN.evaluations - failed, mongo_trials(exp_key))
        assert sorted(places(as_trials(stored(exp_key)))) == sorted(PLANNED)
        assert hyperband.report(mongo_trials(exp_key)).evaluations == PLAN.evaluations


def test_failed_evaluations_cost_one_query_a_refresh_and_keep_every_position(by_hand, monkeypatch):
    trials, queries, suggested = mongo_trials(), [], []
    find = trials.handle.jobs.find
    counting = SimpleNamespace(find=lambda *args, **kwargs: queries.append(args) or find(*args, **kwargs))

    def suggest(new_ids, domain, trials, seed):
        jobs, trials.handle.jobs = trials.handle.jobs, counting
        try:
            return bohb.suggest(new_ids, domain, trials, seed)
        finally:
            trials.handle.jobs = jobs
            suggested.append(len(queries))

    def forbidden(*args):
        pytest.fail("reads all documents")

    monkeypatch.setattr(_stamps, "_counting", forbidden)
    run(failing_at_the_foot, SPACE, 40, trials, algo=suggest)
    assert suggested == list(range(1, 41))


@pytest.mark.parametrize(
    "algo", [bohb.suggest, lambda *args: hyperband.suggest(*args, sampler=tpe.suggest)], ids=["bohb", "tpe"]
)
def test_a_model_draws_the_configurations(by_hand, algo):
    run(failing_at_the_foot, SPACE, 2 * PLAN.evaluations, mongo_trials(), algo=algo)
    assert sorted(place for place in places(as_trials(stored())) if place[0] == 0) == sorted(PLANNED)
    assert_promoted_are_the_best(stored())


def test_what_is_foreign_is_written_to_the_store_and_no_worker_begins_it(by_hand):
    run(loss, SPACE, 6, mongo_trials())
    insert(mongo_trials(), 3)
    queued = {document["tid"] for document in stored() if document["state"] == JOB_STATE_NEW}
    narrow = SPACE | {"x": hp.uniform("x", 0, 1)}
    foreign = {document["tid"] for document in stored() if not 0 <= document["misc"]["vals"]["x"][0] <= 1}
    assert queued & foreign
    with pytest.warns(UserWarning, match="are not of the run that goes on"):
        run(loss, narrow, 30, mongo_trials(), max_queue_len=4)  # so that fmin does not wait for the queue
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # once is enough
        run(loss, narrow, 36, mongo_trials())
    for document in stored():
        assert ("foreign" in document["misc"]["hyperband"]) == (document["tid"] in foreign)
        if document["tid"] in foreign & queued:
            assert (document["state"], document["owner"]) == (JOB_STATE_ERROR, None)
            assert "foreign" in document["misc"]["error"][1]
    assert all(0 <= document["misc"]["vals"]["x"][0] <= 1 for document in stored()[9:])
    assert hyperband.report(mongo_trials()).foreign == len(foreign)


def test_a_worker_that_is_at_a_foreign_evaluation_ends_it_in_peace(by_hand):
    run(loss, SPACE, 6, mongo_trials())
    insert(mongo_trials(), 2)
    jobs = Worker().mj
    job, other = jobs.reserve("worker"), stored()[7]
    with pytest.warns(UserWarning, match="are not of the run"):
        insert(mongo_trials(), 1, SPACE | {"x": hp.uniform("x", 6, 7)})
    mongoexp.MongoCtrl(mongo_trials(), job, read_only=False).checkpoint({"status": STATUS_OK, "loss": 1.0})
    jobs.update(job, {"state": JOB_STATE_DONE})
    [ended] = [document for document in stored() if document["tid"] == job["tid"]]
    assert (ended["state"], ended["result"]["loss"]) == (JOB_STATE_DONE, 1.0)
    assert ended["misc"]["hyperband"]["foreign"] == "space"
    [never_begun] = [document for document in stored() if document["tid"] == other["tid"]]
    assert (never_begun["state"], never_begun["owner"]) == (JOB_STATE_ERROR, None)


@pytest.mark.parametrize("in_folder", [False, True], ids=["database", "folder"])
def test_a_promotion_takes_up_the_checkpoint(by_hand, tmp_path, in_folder):
    folder = tmp_path / "checkpoints" if in_folder else None

    @hyperband.with_budget(checkpoint_dir=folder)
    def train(params, budget=9, checkpoint=None):
        if params["x"] > 3:
            raise ArithmeticError
        trained = checkpoint.state if checkpoint else []
        return {"loss": (params["x"] - 1) ** 2 + 1 / budget, "status": STATUS_OK, "trained": trained} | {
            "checkpoint": [*trained, budget]
        }

    run(train, {"x": SPACE["x"]}, PLAN.evaluations, mongo_trials())
    assert sorted(places(as_trials(stored()))) == sorted(PLANNED)
    budgets = {b.s: [rung.budget for rung in b.rungs] for b in PLAN.brackets}
    for document in stored():
        its = document["misc"]["hyperband"]
        if document["state"] == JOB_STATE_DONE:
            assert document["result"]["trained"] == budgets[its["bracket"]][: its["rung"]]

    # Once the next iteration is under way, what is left is that of its own bracket.
    run(train, {"x": SPACE["x"]}, PLAN.evaluations + 4, mongo_trials())
    handle = mongo_trials().handle
    left = [document for document in stored() if "checkpoint" in handle.attachment_names(document)]
    assert left
    assert {document["misc"]["hyperband"]["iteration"] for document in left} == {1}
    attached = [name for name in handle.gfs.list() if name.endswith("_checkpoint")]
    assert sorted(attached) == sorted(f"{document['_id']}_checkpoint" for document in left)
    if in_folder:
        assert len(list(folder.rglob("*.pkl"))) == len(list(folder.iterdir())) == len(left)


def test_what_mongo_trials_can_not_do_is_refused_with_the_way_out(by_hand, tmp_path):
    with pytest.raises(ValueError, match=r"ExecutorTrials"):
        hyperband.ask(mongo_trials(), SPACE, algo=hyperband.suggest)
    assert stored() == []
    save = hyperband.save_trials(tmp_path / "trials.pkl")
    with pytest.raises(ValueError, match=r"leave out save_trials.*ExecutorTrials"):
        run(loss, SPACE, 5, mongo_trials(), early_stop_fn=save)
    assert len(stored()) <= 1, "said at the first"
    with pytest.raises(ValueError, match=r"begin with new ExecutorTrials"):
        ExecutorTrials(trials=mongo_trials())
