"""Continued training through real fmin: what is handed on, what is dropped, and what a kill leaves behind."""

import hashlib
import math
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
from conftest import killed, run
from continued_mlp import train_on, untrained
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp, rand
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR, Ctrl, Domain, spec_from_misc
from simulator import AsyncTrials, Simulation
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from hyperopt_hyperband import hyperband

SPACE = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}
ITERATION = hyperband.schedule(1, 9).evaluations
FEATURES, TARGET = (array[:500] for array in load_digits(return_X_y=True))


def train(x, epochs, state=None):
    """A trainer that forgives nothing: each epoch hashes all those before it."""
    start, digest = state or (0, repr(x).encode())
    for epoch in range(start, epochs):
        digest = hashlib.sha256(digest + bytes([epoch])).digest()
    return epochs, digest


def result(x, state):
    return {"loss": (x - 1) ** 2 + 1 / state[0], "status": STATUS_OK, "digest": state[1], "checkpoint": state}


def objective(params, budget, checkpoint=None):
    return result(params["x"], train(params["x"], budget, checkpoint and checkpoint.state))


def below(trials, doc):
    """The document of the same configuration at the rung below, found without the stamp's help."""
    stamp = doc["misc"]["hyperband"]
    same = {"config": stamp["config"], "bracket": stamp["bracket"], "rung": stamp["rung"] - 1}
    [found] = [
        other
        for other in trials._dynamic_trials
        if same.items() <= other["misc"]["hyperband"].items() and other["state"] == JOB_STATE_DONE
    ]
    return found


def check_digests(trials):
    """Every evaluation is the one that trains from scratch."""
    for doc in trials.trials:
        assert doc["result"]["digest"] == train(doc["misc"]["vals"]["x"][0], doc["misc"]["budget"])[1]


def attached(trials):
    return {int(name.split("::")[1]) for name in trials.attachments if name.endswith("::checkpoint")}


@pytest.fixture(params=["attachments", "folder"])
def options(request, tmp_path):
    return {} if request.param == "attachments" else {"checkpoint_dir": tmp_path / "checkpoints"}


def test_a_promotion_takes_up_what_the_rung_below_returned(options):
    seen = []

    @hyperband.with_budget(**options)
    def objective(params, budget=9, checkpoint=None):
        seen.append(checkpoint)
        return {
            "loss": params["x"] ** 2,
            "status": STATUS_OK,
            "checkpoint": {"weights": (budget, params["x"])},
        }

    trials = run(objective, SPACE, 2 * ITERATION)
    trained = sum(
        doc["misc"]["budget"] - (checkpoint.budget if checkpoint else 0)
        for doc, checkpoint in zip(trials.trials, seen, strict=True)
    )
    assert trained == 2 * hyperband.schedule(1, 9).total_budget_continued
    for doc, checkpoint in zip(trials.trials, seen, strict=True):
        if doc["misc"]["hyperband"]["rung"] == 0:
            assert checkpoint is None
            assert "below" not in doc["misc"]["hyperband"]
        else:
            lower = below(trials, doc)
            assert doc["misc"]["hyperband"]["below"] == lower["tid"]
            assert checkpoint.budget == lower["misc"]["budget"]
            assert checkpoint.state == {"weights": (checkpoint.budget, doc["misc"]["vals"]["x"][0])}
    assert all(doc["result"].keys() == {"loss", "status"} for doc in trials.trials)


def test_every_evaluation_equals_training_in_one_go(options):
    trials = run(hyperband.with_budget(**options)(objective), SPACE, 3 * ITERATION)
    check_digests(trials)
    assert not attached(trials), "the top rung leaves none, and nothing is open"


def test_bytes_stay_bytes_and_a_model_comes_back_as_a_model(options):
    seen = []

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        seen.append(checkpoint and checkpoint.state)
        state = b"weights" if budget == 1 else np.arange(3)
        return {"loss": params["x"], "status": STATUS_OK, "checkpoint": state}

    run(objective, SPACE, 13)
    assert seen[9:12] == [b"weights"] * 3
    assert np.array_equal(seen[12], np.arange(3))


def test_without_a_checkpoint_in_the_result_training_starts_anew(options):
    seen = []

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        seen.append(checkpoint)
        return params["x"] if len(seen) % 2 else {"loss": params["x"], "status": STATUS_OK}

    trials = run(objective, SPACE, ITERATION)
    assert seen == [None] * ITERATION
    assert not trials.attachments


def test_other_algorithms_and_direct_calls_see_none_and_keep_nothing(options):
    seen = []

    @hyperband.with_budget(**options)
    def objective(params, budget=81, checkpoint=None):
        seen.append((budget, checkpoint))
        return {"loss": params["x"], "status": STATUS_OK, "checkpoint": b"weights"}

    trials = run(objective, {"x": hp.uniform("x", 0, 1)}, 5, algo=rand.suggest)
    assert seen == [(81, None)] * 5
    assert not trials.attachments
    assert objective({"x": 1})["checkpoint"] == b"weights"


def test_attachments_of_the_objective_s_own_stay(options):
    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        returned = {"loss": params["x"], "status": STATUS_OK, "checkpoint": b"weights"}
        return returned | {"attachments": {"model": budget}}

    trials = run(objective, SPACE, 2 * ITERATION)
    models = [trials.trial_attachments(doc)["model"] for doc in trials.trials]
    assert models == [doc["misc"]["budget"] for doc in trials.trials]


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [4, 9, 10, 12, 13, 16])
def test_a_retry_starts_from_the_rung_below_and_never_from_its_own_half(options, how, at):
    calls = []

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        state = [*checkpoint.state] if checkpoint else []
        calls.append((params["x"], budget, list(state)))
        reached = checkpoint.state if checkpoint else state
        while len(reached) < budget:
            reached.append(params["x"])  # in the very object that was handed over
            if len(calls) == at and len(reached) * 2 > budget:
                raise how
        return {"loss": params["x"] ** 2, "status": STATUS_OK, "checkpoint": reached}

    trials = Trials()
    with pytest.raises(how):
        run(objective, SPACE, ITERATION + 1, trials=trials)
    run(objective, SPACE, ITERATION + 1, trials=trials, seed=1)
    docs = trials._dynamic_trials
    if how is KeyboardInterrupt:
        assert calls[at] == calls[at - 1]
        first, again = (docs[i]["misc"]["hyperband"].get("below") for i in (at - 1, at))
        assert first == again
    for doc, (x, budget, state) in zip(docs, calls, strict=True):
        assert state == [x] * (
            below(trials, doc)["misc"]["budget"] if "below" in doc["misc"]["hyperband"] else 0
        )
        assert budget == doc["misc"]["budget"]


class Training(Simulation):
    """The simulator's disorder, failures and restarts, with evaluations that train on."""

    def run(self, **options):
        self.folder = options.get("checkpoint_dir")
        self.domain = Domain(hyperband.with_budget(**options)(self.evaluate), self.space)
        self.counts = []
        return super().run()

    def evaluate(self, params, budget, checkpoint=None):
        self.handed = checkpoint
        state = train(params["x"], budget, checkpoint and checkpoint.state)
        assert state == train(params["x"], budget)
        match self.outcome(self.at_work):
            case "raise":
                raise RuntimeError
            case "fail":
                return {"status": STATUS_FAIL, "checkpoint": state}
            case loss:
                loss = math.nan if isinstance(loss, str) else loss
                return {"status": STATUS_OK, "loss": loss, "checkpoint": state}

    def finish(self, doc):
        self.at_work = doc
        try:
            doc["result"] = self.result(doc)
            doc["state"] = JOB_STATE_DONE
        except RuntimeError:
            doc["state"] = JOB_STATE_ERROR
        first = doc["misc"]["hyperband"]["rung"] == 0
        # In a small space, another bracket may have trained the same parameters.
        assert (self.handed is None) == first or (first and self.points is not None)
        self.trials.refresh()

    def result(self, doc):
        return self.domain.evaluate(spec_from_misc(doc["misc"]), Ctrl(self.trials, doc))

    def restart(self):
        self.trials = pickle.loads(pickle.dumps(self.trials))

    def issue(self):
        issued = super().issue()
        self.count()
        return issued

    def count(self):
        live = attached(self.trials)
        rungs = Counter()
        for doc in self.docs:
            stamp = doc["misc"]["hyperband"]
            rungs[stamp["iteration"], stamp["bracket"], stamp["rung"]] += doc["tid"] in live
        for (_, s, i), count in rungs.items():
            assert count <= (self.plan.bracket(s).rungs[i + 1].configurations if i < s else 0)
        self.counts.append(rungs.total())
        if self.folder is not None:
            assert len(list(self.folder.glob("*/*"))) == rungs.total()
            assert len(list(self.folder.glob("*"))) <= rungs.total()


class BlindTrials(AsyncTrials):
    _spark = None


class Blind(Training):
    """As under SparkTrials, evaluations see their parameters alone."""

    def run(self, folder):
        self.trials = BlindTrials()
        return super().run(checkpoint_dir=folder)

    def result(self, doc):
        vals = pickle.loads(pickle.dumps(spec_from_misc(doc["misc"])))
        returned = self.domain.evaluate(vals, ctrl=None, attach_attachments=False)
        assert "checkpoint" not in returned
        return returned

    def count(self):
        files = list(self.folder.glob("*/*"))
        if self.points is None:
            assert len(list(self.folder.iterdir())) == 1 + len(files)
        self.counts.append(len(files))


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_memory_holds_what_can_still_go_up_and_nothing_else(options, workers, faults):
    simulation = Training(
        max_budget=27, workers=workers, ids=4, faults=faults, restarts=0.05, iterations=2, seed=workers
    )
    simulation.run(**options).check()
    evaluations = simulation.iterations * simulation.plan.evaluations
    assert len(simulation.docs) == evaluations or faults
    assert 0 < max(simulation.counts) <= 12 * (1 + (workers > 1))
    assert simulation.counts[-1] == 0


@pytest.mark.filterwarnings("ignore:the space has .* distinct")
@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("points", [None, 9, 100])
def test_a_folder_holds_only_what_can_still_go_up_where_evaluations_see_no_trial(tmp_path, workers, points):
    simulation = Blind(max_budget=27, workers=workers, ids=4, faults=0.2, restarts=0.05, points=points)
    simulation.run(tmp_path / "checkpoints").check()
    assert 0 < max(simulation.counts) <= 12 * (1 + (workers > 1))
    assert [path.name for path in simulation.folder.iterdir()] == ["one-spark-run"]


@pytest.mark.parametrize("max_queue_len", [1, 4])
def test_few_checkpoints_are_held_over_a_whole_run_of_fmin(options, max_queue_len):
    counts = []

    @hyperband.with_budget(**options)
    def failing(params, budget, checkpoint=None):
        counts.append(len(attached(trials)))
        if params["x"] < -3:
            raise RuntimeError
        return objective(params, budget, checkpoint)

    trials = Trials()
    run(failing, SPACE, 5 * ITERATION, trials, catch_eval_exceptions=True, max_queue_len=max_queue_len)
    check_digests(trials)
    assert max(counts) <= 4 + max_queue_len


def test_two_runs_in_one_folder_never_meet_and_leave_other_files_alone(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")

    def session(offset):
        def objective(params, budget, checkpoint=None):
            state = train(params["x"] + offset, budget, checkpoint and checkpoint.state)
            return result(params["x"], state)

        return hyperband.with_budget(objective, checkpoint_dir=folder)

    runs = [Trials(), Trials()]
    for max_evals in range(3, 2 * ITERATION, 3):
        for offset, trials in enumerate(runs):  # the same configurations, ids and files, in turns
            rstate = np.random.default_rng(0)
            rstate.integers(2**31 - 1, size=len(trials))
            fmin(
                session(offset),
                SPACE,
                hyperband.suggest,
                max_evals,
                trials=trials,
                rstate=rstate,
                verbose=False,
            )
    assert runs[0].vals == runs[1].vals
    for offset, trials in enumerate(runs):
        for doc in trials.trials:
            x = doc["misc"]["vals"]["x"][0] + offset
            assert doc["result"]["digest"] == train(x, doc["misc"]["budget"])[1]
    assert (folder / "notes.txt").read_text() == "mine"


half_saved = multiprocessing.Event()


class Stuck:
    """It is never pickled, and what is saved together with it is half saved."""

    def __reduce__(self):
        half_saved.set()
        time.sleep(600)


def killed_in(work):
    """Kill a process that does the work with SIGKILL, once it has half saved a checkpoint."""
    half_saved.clear()
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert half_saved.wait(60)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def saves_half(at):
    def stuck(params, budget, checkpoint=None):
        returned = objective(params, budget, checkpoint)
        return returned | ({"checkpoint": [bytes(10**7), Stuck()]} if budget == at else {})

    return stuck


@pytest.mark.parametrize("at", [1, 3])
def test_a_checkpoint_whose_saving_was_killed_is_never_handed_out(tmp_path, at):
    folder, file = tmp_path / "checkpoints", tmp_path / "trials"

    def session(function):
        return run(
            hyperband.with_budget(function, checkpoint_dir=folder),
            SPACE,
            ITERATION + 1,
            trials=hyperband.load_trials(file),
            early_stop_fn=hyperband.save_trials(file),
            seed=at,
        )

    killed_in(lambda: session(saves_half(at)))
    [partial] = folder.glob("*/*.partial")
    assert partial.stat().st_size > 10**6
    trials = session(objective)
    check_digests(trials)
    assert len(trials) == ITERATION + 1
    # It goes with its configuration, where that had a checkpoint before.
    assert partial.exists() == (at == 1)


def test_a_half_saved_checkpoint_is_never_read_where_the_objective_sees_no_trial(tmp_path):
    folder = tmp_path / "checkpoints"

    def evaluate(budget, function=objective):
        domain = Domain(hyperband.with_budget(function, checkpoint_dir=folder), SPACE)
        return domain.evaluate({"x": 0.5, "epochs": budget}, ctrl=None, attach_attachments=False)

    seen = []

    def watched(params, budget, checkpoint=None):
        seen.append(checkpoint and checkpoint.budget)
        return objective(params, budget, checkpoint)

    evaluate(1, watched)
    killed_in(lambda: evaluate(3, saves_half(3)))
    evaluate(3, watched)
    evaluate(3, watched)
    returned = evaluate(9, watched)
    assert seen == [None, 1, 1, 3]
    assert returned["digest"] == train(0.5, 9)[1]
    assert "checkpoint" not in returned
    assert sorted(path.name for path in folder.glob("*/*.pkl")) == ["1.0.pkl", "3.0.pkl"]


@pytest.mark.slow
def test_kill_9_and_resume_give_the_undisturbed_run(options, tmp_path):
    file = tmp_path / "trials"

    def session(trials, begun=lambda: None, **saving):
        def slow(params, budget, checkpoint=None):
            begun()
            time.sleep(0.003)
            return objective(params, budget, checkpoint)

        rstate = np.random.default_rng(0)
        rstate.integers(2**31 - 1, size=len(trials))  # the same draws as in one go
        return fmin(
            hyperband.with_budget(slow, **options),
            SPACE,
            algo=hyperband.suggest,
            max_evals=2 * ITERATION,
            trials=trials,
            rstate=rstate,
            verbose=False,
            **saving,
        )

    def work(begun):
        session(hyperband.load_trials(file), begun, early_stop_fn=hyperband.save_trials(file))

    undisturbed = Trials()
    session(undisturbed)
    rng = random.Random(0)
    kills = 0
    while killed(work, evaluations=rng.randint(0, 6), delay=rng.uniform(0, 0.01)):
        kills += 1
    trials = hyperband.load_trials(file)
    assert kills > 5
    assert [doc["result"] for doc in trials.trials] == [doc["result"] for doc in undisturbed.trials]
    assert [doc["misc"] for doc in trials.trials] == [doc["misc"] for doc in undisturbed.trials]
    assert attached(trials) == attached(undisturbed)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.slow
def test_an_mlp_continued_is_the_mlp_of_one_longer_fit(options, solver):
    fixed = {"hidden_layer_sizes": (16,), "solver": solver, "random_state": 1}
    stopped = []

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        settings = fixed | {"learning_rate_init": params["rate"]}
        model = checkpoint.state if checkpoint else untrained(**settings)
        train_on(model, budget, FEATURES, TARGET)
        whole = MLPClassifier(max_iter=budget, **settings).fit(FEATURES, TARGET)
        for continued, in_one_go in zip(
            model.coefs_ + model.intercepts_, whole.coefs_ + whole.intercepts_, strict=True
        ):
            assert np.array_equal(continued, in_one_go)
        assert model.loss_curve_ == whole.loss_curve_
        assert model.n_iter_ == whole.n_iter_
        stopped.append(whole.n_iter_ < budget)
        return {"loss": -model.score(FEATURES, TARGET), "status": STATUS_OK, "checkpoint": model}

    space = {"rate": hp.loguniform("rate", -4, 2)}
    run(objective, space, 23, algo=partial(hyperband.suggest, min_budget=9, max_budget=81))
    assert any(stopped)
    assert not all(stopped)


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_gradient_boosting_continued_is_that_of_one_longer_fit(options, subsample):
    fixed = {"random_state": 0, "subsample": subsample, "max_depth": 2}
    features, target = FEATURES[:150], TARGET[:150] < 5

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        settings = fixed | {"learning_rate": params["rate"], "n_estimators": budget}
        model = checkpoint.state if checkpoint else GradientBoostingClassifier(warm_start=True)
        model.set_params(**settings).fit(features, target)
        whole = GradientBoostingClassifier(**settings).fit(features, target)
        assert np.array_equal(model.decision_function(features), whole.decision_function(features))
        return {"loss": model.train_score_[-1], "status": STATUS_OK, "checkpoint": model}

    space = {"rate": hp.loguniform("rate", -4, 0)}
    run(objective, space, ITERATION, algo=partial(hyperband.suggest, max_budget=9))


def test_a_torch_loop_continued_is_one_longer_loop(options):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    features, target = torch.tensor(FEATURES, dtype=torch.float32), torch.tensor(TARGET)

    def train(rate, epochs, checkpoint=None):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        start = 0
        if checkpoint:
            model.load_state_dict(checkpoint.state["model"])
            optimizer.load_state_dict(checkpoint.state["optimizer"])
            torch.set_rng_state(checkpoint.state["rng"])
            start = checkpoint.budget
        for _ in range(start, epochs):
            for batch in torch.randperm(len(features)).split(250):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(features[batch]), target[batch])
                loss.backward()
                optimizer.step()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        return loss.item(), state

    @hyperband.with_budget(**options)
    def objective(params, budget, checkpoint=None):
        loss, state = train(params["rate"], budget, checkpoint)
        whole_loss, whole = train(params["rate"], budget)
        assert loss == whole_loss
        assert all(torch.equal(state["model"][name], whole["model"][name]) for name in whole["model"])
        return {"loss": loss, "status": STATUS_OK, "checkpoint": state}

    space = {"rate": hp.loguniform("rate", -8, -2)}
    run(objective, space, ITERATION, algo=partial(hyperband.suggest, max_budget=9))


def test_mistakes_name_the_option_the_value_and_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint_dir='here', but objective\(params, budget\) takes no"):

        @hyperband.with_budget(checkpoint_dir="here")
        def objective(params, budget): ...


def test_a_file_that_is_gone_means_training_anew_and_a_warning(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    evaluate = hyperband.with_budget(objective, checkpoint_dir=folder)
    trials = run(evaluate, SPACE, 9)
    for path in folder.glob("*/*.pkl"):
        path.unlink()
    run(evaluate, SPACE, 10, trials=trials)
    check_digests(trials)
    assert [record.getMessage().split()[-1] for record in caplog.records] == ["anew"]
