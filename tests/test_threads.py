"""The model's limit on the threads of BLAS ends with it, whatever runs beside it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from conftest import run
from hyperopt import hp
from threadpoolctl import threadpool_info

from hyperopt_hyperband import _gp as gp
from hyperopt_hyperband import bohb, hyperband
from hyperopt_hyperband._model import one_thread

SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 3)}
always = partial(bohb.suggest, random_share=0)


def loss(params):
    return (params["x"] - 1) ** 2 + 1 / params["epochs"]


def threads():
    """Of BLAS alone: what loads OpenMP later, such as scikit-learn, is not the model's."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def before():
    found = threads()
    if max(found) == 1:
        pytest.skip("one core")
    return found


@pytest.mark.slow
def test_searches_in_several_threads_leave_the_threads_as_they_were(before):
    for repeat in range(5):
        with ThreadPoolExecutor(3) as executor:
            list(executor.map(lambda seed: run(loss, SPACE, 20, seed=seed, algo=always), range(3)))
        assert threads() == before, repeat


def test_a_fit_has_one_thread_though_another_has_just_ended(before):
    """Many short limits that overlap."""
    inside = []

    def limit(_):
        with one_thread():
            inside.extend(threads())

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(limit, range(200)))
    assert set(inside) == {1}
    assert threads() == before


def test_a_fit_that_fails_ends_the_limit_and_lets_the_next_one_in(monkeypatch, before):
    trials = run(loss, SPACE, 8)

    def fails(*args):
        raise FloatingPointError("no fit")

    with monkeypatch.context() as broken:
        broken.setattr(gp, "fit", fails)
        for _ in range(2):
            with pytest.raises(FloatingPointError, match="no fit"):
                run(loss, SPACE, 30, trials=trials, algo=always)
            assert threads() == before
    assert len(run(loss, SPACE, 30, trials=trials, algo=always)) == 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_forked_meanwhile_has_all_threads_and_can_fit(before):
    entered, leave = threading.Event(), threading.Event()

    def limit():
        with one_thread():
            entered.set()
            leave.wait()

    other = threading.Thread(target=limit)
    other.start()
    entered.wait()
    threading.Timer(0.2, leave.set).start()  # the fork waits for it
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same = threads() == before
            with one_thread():
                status = not (same and set(threads()) == {1})
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    other.join()
    assert os.WEXITSTATUS(status) == 0
