import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import interrupted, killed, loss, places, run
from hyperopt import STATUS_OK, Trials, fmin
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_NEW, JOB_STATE_RUNNING
from hyperopt.early_stop import no_progress_loss
from hyperopt.fmin import pickler

from hyperopt_hyperband import ExecutorTrials, hyperband

pytestmark = pytest.mark.filterwarnings("ignore:max_evals=.* is too few")  # runs are cut short on purpose

PLAN = hyperband.schedule(1, 9)
ITERATIONS = 3


def planned(iterations):
    return sorted(
        (iteration, bracket.s, i, rung.budget)
        for iteration in range(iterations)
        for bracket in PLAN.brackets
        for i, rung in enumerate(bracket.rungs)
        for _ in range(rung.configurations)
    )


def work(space, file, log, begun):
    """What a user's script does; every start of an evaluation goes into the log."""

    def objective(params):
        os.write(log, f"{params['x']} {params['epochs']}\n".encode())
        begun()
        time.sleep(0.004)
        return {"loss": loss(params), "status": STATUS_OK, "payload": b"x" * 20_000}

    save, trials = hyperband.save_trials(file), hyperband.load_trials(file)
    fmin(
        objective,
        space,
        algo=hyperband.suggest,
        max_evals=ITERATIONS * PLAN.evaluations,
        trials=trials,
        rstate=np.random.default_rng(),
        verbose=False,
        early_stop_fn=save,
    )


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing_but_what_is_in_flight(space, tmp_path):
    file, log = tmp_path / "trials", os.open(tmp_path / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    rng = random.Random(0)
    kills = 0
    sessions = []
    going = True
    while going:
        before = len((tmp_path / "log").read_text().splitlines())
        going = killed(partial(work, space, file, log), rng.randint(0, 4), delay=rng.uniform(0, 0.006))
        sessions.append((tmp_path / "log").read_text().splitlines()[before:])
        kills += going
    os.close(log)

    trials = hyperband.load_trials(file)
    assert kills > 20
    started = [line for session in sessions for line in session]
    assert len(trials) == ITERATIONS * PLAN.evaluations
    assert len(started) <= len(trials) + kills
    kept = {f"{doc['misc']['vals']['x'][0]} {doc['misc']['budget']}" for doc in trials.trials}
    for i, session in enumerate(sessions):
        earlier = {line for other in sessions[:i] for line in other}
        assert not earlier & set(session[1:]), "only what was in flight is evaluated again"
        assert set(session[:-1]) <= kept, "no finished evaluation is lost"
    assert sorted(places(trials)) == planned(ITERATIONS)


class Kills:
    """Kills its process while it is pickled, in the middle of the file that is being written."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def saved_by_a_process_that_is_killed_inside_its_sixth_save(space, **options):
    child = os.fork()
    if child == 0:

        def objective(params):
            calls.append(params)
            last = [Kills()] if len(calls) == 6 else []
            return {"loss": loss(params), "status": STATUS_OK, "payload": [b"x" * 200_000, *last]}

        calls = []
        try:
            run(objective, space, 20, **options)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_kill_inside_the_write_costs_the_last_evaluation_alone(space, tmp_path):
    file = tmp_path / "trials"
    saved_by_a_process_that_is_killed_inside_its_sixth_save(space, early_stop_fn=hyperband.save_trials(file))
    assert len(hyperband.load_trials(file)) == 5
    trials = hyperband.load_trials(file)
    run(loss, space, PLAN.evaluations, trials=trials, early_stop_fn=hyperband.save_trials(file))
    assert [rung.evaluations for rung in hyperband.report(trials).rungs] == [9, 3, 1, 5, 1, 3]
    assert os.listdir(tmp_path) == ["trials"]


def test_hyperopt_s_own_file_does_not_survive_it_and_says_so_when_it_is_loaded(space, tmp_path):
    file = tmp_path / "trials"
    saved_by_a_process_that_is_killed_inside_its_sixth_save(space, trials_save_file=str(file))
    with pytest.raises(ValueError, match=r"path='.*trials' holds no trials, or not all of them: remove it"):
        hyperband.load_trials(file)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "trials").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(ValueError, match=r"path='.*trials' holds no trials"):
        hyperband.load_trials(tmp_path / "trials")


def test_where_no_file_can_be_is_said_before_the_run(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for nowhere in (tmp_path / "none" / "trials", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=r"path='.*': pass a file in a folder that exists"):
            hyperband.save_trials(nowhere)


def test_save_trials_goes_with_another_early_stop_fn(space, tmp_path):
    stop = hyperband.save_trials(tmp_path / "trials", no_progress_loss(5))
    trials = run(loss, space, 500, early_stop_fn=stop)
    assert len(trials) < 100
    assert places(hyperband.load_trials(tmp_path / "trials")) == places(trials)


def test_failures_and_attachments_are_kept_and_ids_stay_unique(space, tmp_path):
    def objective(params):
        if params["x"] < 0:
            raise RuntimeError
        return {"loss": params["x"], "status": STATUS_OK, "attachments": {"model": b"weights"}}

    file = tmp_path / "trials"
    for max_evals in (8, 15):
        trials = hyperband.load_trials(file)
        run(
            objective,
            space,
            max_evals,
            trials=trials,
            catch_eval_exceptions=True,
            early_stop_fn=hyperband.save_trials(file),
            seed=max_evals,
        )
    loaded = hyperband.load_trials(file)
    tids = [doc["tid"] for doc in loaded._dynamic_trials]
    assert tids == list(range(len(tids)))
    assert len(tids) > len(loaded.trials) > 0
    assert loaded.trial_attachments(loaded.trials[-1])["model"] == b"weights"


def test_load_trials_loads_what_fmin_saves_and_starts_anew_without_a_file(space, tmp_path):
    assert len(hyperband.load_trials(tmp_path / "none")) == 0
    trials = run(loss, space, 5, trials_save_file=str(tmp_path / "trials"))
    assert places(hyperband.load_trials(tmp_path / "trials")) == places(trials)


def test_the_file_is_a_plain_trials(space, tmp_path):
    run(loss, space, 3, early_stop_fn=hyperband.save_trials(tmp_path / "trials"))
    assert type(pickle.loads((tmp_path / "trials").read_bytes())) is Trials


# Evaluations that were under way when the file was written.


def two_iterations(trials, *args):
    """An early_stop_fn: whether all that two Hyperband iterations plan has finished."""
    done = [its for its in places_done(trials) if its[0] < 2]
    assert len(done) <= 2 * PLAN.evaluations
    return sorted(done) == planned(2), args


def places_done(trials):
    kept = Trials()
    kept._dynamic_trials = [doc for doc in trials._dynamic_trials if doc["state"] == JOB_STATE_DONE]
    return places(kept)


def parallel(space, file, log, begun):
    """A search in two processes, which outlive it where it is killed; what is saved goes into the log."""
    os.setsid()
    os.write(log, f"group {os.getpid()}\n".encode())

    def objective(params):
        begun()
        time.sleep(0.004)
        return loss(params)

    def saved(trials, *args):
        os.write(log, f"saved {trials.trials[-1]['tid']}\n".encode())
        return two_iterations(trials, *args)

    save = hyperband.save_trials(file, saved)
    seed = len(hyperband.load_trials(file))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        trials = ExecutorTrials(executor, trials=hyperband.load_trials(file))
        run(objective, space, 10**5, trials, seed=seed, early_stop_fn=save)


def alive(group):
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_a_search_in_processes_that_is_killed_goes_on_in_one(space, tmp_path, seed):
    file, log = tmp_path / "trials", os.open(tmp_path / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    rng = random.Random(seed)
    lines = []
    under_way = 0
    try:
        for _ in range(4):
            assert killed(partial(parallel, space, file, log), rng.randint(3, 8), delay=rng.uniform(0, 0.006))
            under_way += sum(doc["state"] == JOB_STATE_NEW for doc in hyperband.load_trials(file).trials)
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        groups = [int(number) for name, number in lines if name == "group"]
        assert any(map(alive, groups)), "its workers outlive a killed driver, and hold no lock"

        save, trials = hyperband.save_trials(file, two_iterations), hyperband.load_trials(file)
        finished = {doc["tid"]: doc["result"] for doc in trials.trials if doc["state"] == JOB_STATE_DONE}
        assert {int(number) for name, number in lines if name == "saved"} <= finished.keys()
        assert under_way
        assert not trials.asynchronous
        run(loss, space, 10**5, trials, seed=10**6, early_stop_fn=save)
    finally:
        for name, number in [line.split() for line in (tmp_path / "log").read_text().splitlines()]:
            if name == "group" and alive(int(number)):
                os.killpg(int(number), signal.SIGKILL)
        os.close(log)

    loaded = hyperband.load_trials(file)
    documents = loaded._dynamic_trials
    assert two_iterations(loaded) == (True, ())
    assert {doc["state"] for doc in documents} == {JOB_STATE_DONE}
    entries = [(doc["misc"]["hyperband"]["config"], doc["misc"]["hyperband"]["rung"]) for doc in documents]
    assert len(set(entries)) == len(entries), "no configuration twice at a rung"
    assert {doc["tid"]: doc["result"] for doc in documents if doc["tid"] in finished} == finished
    losses = dict(zip(entries, loaded.losses(), strict=True))
    for doc in documents:
        stamp = doc["misc"]["hyperband"]
        if stamp["rung"]:
            assert (stamp["config"], stamp["rung"] - 1) in losses
    for (iteration, s), rungs in by_bracket(documents).items():
        if iteration < 2:
            for i, below in enumerate(rungs[:-1]):
                best = sorted((losses[config, i], config) for config in below)
                places_above = PLAN.bracket(s).rungs[i + 1].configurations
                assert rungs[i + 1] == {config for _, config in best[:places_above]}, "the best go up"


def by_bracket(documents):
    """The configurations of every rung."""
    brackets = {}
    for doc in documents:
        stamp = doc["misc"]["hyperband"]
        key = stamp["iteration"], stamp["bracket"]
        rungs = brackets.setdefault(key, [set() for _ in PLAN.bracket(stamp["bracket"]).rungs])
        rungs[stamp["rung"]].add(stamp["config"])
    return brackets


def test_what_was_under_way_is_pending_in_a_live_report_and_is_evaluated_in_its_place(space, tmp_path):
    file, reports, reported = tmp_path / "trials", [], threading.Event()

    def objective(params):
        if threading.current_thread() is not first:
            reported.wait()
        return loss(params)

    def report(trials, *args):
        reports.append(hyperband.report(hyperband.load_trials(file)))
        reported.set()
        return True, args

    with ThreadPoolExecutor(3) as executor:
        first = executor.submit(threading.current_thread).result()
        run(objective, space, 10, ExecutorTrials(executor), early_stop_fn=hyperband.save_trials(file, report))
    assert [(each.evaluations, each.pending, each.interrupted) for each in reports] == [(1, 2, 0)]
    trials = hyperband.load_trials(file)
    issued = [(doc["tid"], doc["misc"]) for doc in trials._dynamic_trials]
    run(loss, space, PLAN.evaluations, trials, seed=1)
    assert [(doc["tid"], doc["misc"]) for doc in trials._dynamic_trials][:3] == issued
    assert sorted(places_done(trials)) == planned(1)


@pytest.mark.parametrize("continued", ["serial", "parallel"])
def test_an_interrupted_evaluation_that_was_issued_again_stays_as_it_is(space, tmp_path, continued):
    objective = interrupted(loss, 4)
    file, trials = tmp_path / "trials", Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 10, trials)
    run(objective, space, 10, trials, seed=1, early_stop_fn=hyperband.save_trials(file))
    trials = hyperband.load_trials(file)
    assert [doc["state"] for doc in trials._dynamic_trials].count(JOB_STATE_RUNNING) == 1
    evaluated = len(objective.calls)
    with ThreadPoolExecutor(1) as executor:
        trials = ExecutorTrials(executor, trials=trials) if continued == "parallel" else trials
        run(objective, space, PLAN.evaluations + 1, trials, seed=2)
    assert sorted(places_done(trials)) == planned(1)
    assert len(objective.calls) - evaluated == PLAN.evaluations + 1 - 10


# One process at a time.


def in_a_process(work):
    """What work returns in a process of its own, or the message of its ValueError."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(work()).encode())
        except ValueError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as heard:
        return heard.read()


def told(file):
    """What a process hears that asks to write the file; nothing where it may."""
    return in_a_process(lambda: hyperband.save_trials(file) and "")


IN_USE = r"path='.*trials' is in use by process {} on .*: wait for its end, or pass another file"


def test_a_second_process_is_told_at_once_that_the_file_is_in_use(tmp_path):
    file = tmp_path / "trials"
    save = hyperband.save_trials(file)
    assert re.match(IN_USE.format(os.getpid()), told(file))
    assert told(tmp_path / "other") == ""
    del save
    assert told(file) == ""


def test_fmin_s_own_option_of_trials_on_an_executor_is_told_before_an_evaluation(space, tmp_path):
    file = tmp_path / "trials"

    def search():
        with ThreadPoolExecutor(1) as executor:
            run(loss, space, 3, ExecutorTrials(executor), trials_save_file=str(file))

    save = hyperband.save_trials(file)
    assert re.match(IN_USE.format(os.getpid()), in_a_process(search))
    assert not file.exists()
    del save
    assert in_a_process(search) == "None"
    assert len(hyperband.load_trials(file)) == 3


def test_of_many_processes_that_start_together_one_writes(space, tmp_path):
    file = tmp_path / "trials"
    context = multiprocessing.get_context("fork")
    start, all_asked, answers = context.Barrier(8), context.Barrier(8), context.SimpleQueue()

    def search(seed):
        start.wait()
        try:
            save = hyperband.save_trials(file)
        except ValueError as error:
            answers.put(str(error))
            all_asked.wait()
        else:
            answers.put("")
            all_asked.wait()
            run(loss, space, 30, seed=seed, early_stop_fn=save)

    children = [context.Process(target=search, args=(seed,)) for seed in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert {child.exitcode for child in children} == {0}
    heard = sorted(answers.get() for _ in children)
    assert heard[0] == ""
    assert all("is in use by" in each for each in heard[1:])
    assert len(hyperband.load_trials(file)) == 30


def test_no_lock_and_no_half_file_stay_where_a_search_has_ended(space, tmp_path):
    def objective(params):
        if len(hyperband.load_trials(file)) == 5:
            return {"loss": 0, "status": STATUS_OK, "unpicklable": threading.Lock()}
        return loss(params)

    file = tmp_path / "trials"
    with pytest.raises(TypeError, match="pickle"):
        run(objective, space, 10, early_stop_fn=hyperband.save_trials(file))
    assert not list(tmp_path.glob("*.partial"))
    assert len(hyperband.load_trials(file)) == 5
    run(loss, space, 7, hyperband.load_trials(file), early_stop_fn=hyperband.save_trials(file))
    assert os.listdir(tmp_path) == ["trials"]


def test_a_cell_of_a_notebook_can_be_run_again(space, tmp_path):
    def objective(params):
        if params["x"] < 0:
            raise KeyboardInterrupt
        return loss(params)

    file, older = tmp_path / "trials", []
    for seed in range(3):  # what is raised is kept, and with it all that fmin was given
        older.append(hyperband.save_trials(file))
        trials = hyperband.load_trials(file)
        with pytest.raises(KeyboardInterrupt) as raised:
            run(objective, space, 30, trials, seed=seed, early_stop_fn=older[-1])
        older.append(raised)
    assert told(file) != ""
    save = hyperband.save_trials(file)
    run(loss, space, 30, hyperband.load_trials(file), seed=9, early_stop_fn=save)
    run(loss, space, 32, hyperband.load_trials(file), seed=10, early_stop_fn=save)
    del older
    assert told(file) != "", "an older one that is dropped does not let go of the file"
    assert len(hyperband.load_trials(file)) == 32


def test_a_copy_of_the_folder_does_not_let_go_of_the_file(tmp_path):
    folder = tmp_path / "from"
    folder.mkdir()
    save = hyperband.save_trials(folder / "trials")
    shutil.copytree(folder, tmp_path / "to")
    assert re.match(IN_USE.format(os.getpid()), told(folder / "trials"))
    del save


def test_of_two_threads_the_earlier_is_told_at_its_next_save(space, tmp_path):
    file, begun, go = tmp_path / "trials", threading.Event(), threading.Event()

    def objective(params):
        begun.set()
        go.wait()
        return loss(params)

    with ThreadPoolExecutor(1) as executor:
        search = executor.submit(run, objective, space, 30, early_stop_fn=hyperband.save_trials(file))
        begun.wait()
        save = hyperband.save_trials(file)
        go.set()
        with pytest.raises(ValueError, match=r"path='.*trials': a later save_trials .* writes this file now"):
            search.result()
    run(loss, space, 5, early_stop_fn=save)
    assert len(hyperband.load_trials(file)) == 5


def test_what_was_made_before_a_fork_saves_in_the_child_alone_once_the_parent_has_let_go(space, tmp_path):
    file = tmp_path / "trials"
    save = hyperband.save_trials(file)
    assert in_a_process(lambda: len(run(loss, space, 3, early_stop_fn=save))) == "3"
    travels = pickler.dumps(save)
    assert in_a_process(lambda: len(run(loss, space, 4, early_stop_fn=pickler.loads(travels)))) == "4"
    save = hyperband.save_trials(tmp_path / "other")
    assert in_a_process(lambda: len(run(loss, space, 5, early_stop_fn=pickler.loads(travels)))) == "5"

    def after_the_parent():
        copy = pickler.loads(travels)
        assert told(file) == ""
        run(loss, space, 6, early_stop_fn=copy)
        return told(file)

    assert "is in use" in in_a_process(after_the_parent)
    assert len(hyperband.load_trials(file)) == 6


def test_a_file_is_read_while_another_process_writes_it(space, tmp_path):
    file, enough = tmp_path / "trials", tmp_path / "enough"
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            save = hyperband.save_trials(file, lambda trials: (enough.exists(), []))
            run(loss, space, 10**5, early_stop_fn=save)
        os._exit(0)
    read = []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        read.append(hyperband.report(hyperband.load_trials(file)).evaluations)
        if len(set(read)) == 20:
            enough.touch()
    assert read == sorted(read)
    assert enough.exists()


def test_a_file_under_two_names_and_from_another_working_directory_is_one(space, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "trials")
    monkeypatch.chdir(tmp_path)

    def objective(params):
        os.chdir("/")
        return loss(params)

    save = hyperband.save_trials("elsewhere/../link")
    assert re.match(IN_USE.format(os.getpid()), told(tmp_path / "trials"))
    run(objective, space, 3, early_stop_fn=save)
    assert (tmp_path / "link").is_symlink()
    assert len(hyperband.load_trials(tmp_path / "trials")) == 3


def test_a_folder_that_is_not_to_be_written_to_is_told_before_the_run():
    def as_nobody(work):
        if os.geteuid() == 0:
            os.setuid(65534)
        return work()

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trials")
        file.touch(0o000)
        os.chmod(folder, 0o555)
        said = in_a_process(lambda: as_nobody(lambda: hyperband.save_trials(file)))
        assert re.match(
            r"path='.*trials': no file can be made there \(.*Permission.*\): pass one in a folder", said
        )
        said = in_a_process(lambda: as_nobody(lambda: hyperband.load_trials(file)))
        assert re.match(r"path='.*trials': pass a file that can be read \(.*Permission", said)
        os.chmod(folder, 0o755)


def test_a_folder_holds_no_trials(tmp_path):
    with pytest.raises(ValueError, match=r"path='.*': pass a file in a folder that exists"):
        hyperband.load_trials(tmp_path)
