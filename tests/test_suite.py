import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import suite
import suite_report
from hyperopt.pyll.stochastic import sample
from problems import Choice, Int, all_problems, flat, load, loss_of_training
from recording import read_text

HARTMANN_BEST = {
    3: (0.114614, 0.555649, 0.852547),
    6: (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573),
}
NETWORK_BEST = {"weight_decay": 10**-3.59727, "width": 169, "dropout": 0.28548, "learning_rate": 10**-2.30545}
BEST = {
    "counting_ones": {f"bit_{i}": 1 for i in range(8)} | {f"coin_{i}": 1.0 for i in range(8)},
    "curves": {
        "optimizer": "sgd",
        "learning_rate": 10**-2.5,
        "weight_decay": 10**-3.5,
        "width": 181,
        "dropout": 0.3,
    },
    "curves_crossing": NETWORK_BEST | {"optimizer": "sgd"},
    "conditional": {
        "family": "network",
        "network_rate": 10**-2.7,
        "network_decay": 1e-4,
        "network_layers": 3,
        "network_activation": "relu",
    },
    "digits_surrogate": {
        "learning_rate_init": 0.03058029852921873,
        "hidden": "256-256",
        "alpha": 0.0008374881523978143,
        "activation": "logistic",
    },
    "digits_mlp": {
        "activation": "tanh",
        "alpha": 0.001517400666452446,
        "batch_size": 20,
        "learning_rate_init": 0.025348948180996676,
        "width": 43,
    },
    "boosting": {
        "learning_rate": 0.0625727673902414,
        "loss": "squared_error",
        "max_depth": 2,
        "max_features": 0.17312577012528785,
        "min_samples_leaf": 3,
        "subsample": 0.655083061339746,
    },
    "sgd": {
        "alpha": 4.584593380861686e-06,
        "eta0": 0.5462229742103044,
        "learning_rate": "invscaling",
        "loss": "modified_huber",
        "penalty": "elasticnet",
        "power_t": 0.4057768494475939,
    },
} | {
    f"hartmann{dimensions}_{quality}": {f"x{i}": x for i, x in enumerate(point)}
    for dimensions, point in HARTMANN_BEST.items()
    for quality in ("good", "moderate", "bad")
}
every_problem = pytest.mark.parametrize("problem", all_problems().values(), ids=list(all_problems()))


def draws(problem, count):
    space, rng = problem.space, np.random.default_rng(0)
    return [flat(sample(space, rng)) for _ in range(count)]


@every_problem
@pytest.mark.slow
def test_the_optimum_is_reached_where_the_problem_says_and_nowhere_undercut(problem):
    # What training reaches depends a little on scikit-learn's version.
    tolerance = 0.02 if problem.trains else 1e-5
    assert problem.score(BEST[problem.name]) == pytest.approx(problem.optimum, abs=tolerance)
    scores = [problem.score(params) for params in draws(problem, 3 if problem.trains else 1000)]
    assert min(scores) >= problem.optimum - (tolerance if problem.trains else 1e-9)
    assert len(set(scores)) > 2


@every_problem
def test_an_evaluation_repeats_and_its_noise_is_the_seeds(problem):
    [params] = draws(problem, 1)
    budget = problem.min_budget
    losses = [problem.evaluate(params, budget, seed) for seed in range(5)]
    assert problem.evaluate(params, budget, 0) == losses[0]
    assert len(set(losses)) == 1 if problem.name == "digits_surrogate" else len(set(losses)) > 1


def test_where_a_model_is_trained_the_noise_is_its_random_state():
    loss = loss_of_training(lambda params, budget, state: float(state))
    assert loss({}, 1, None) == 2  # the mean of 0 to 4
    assert all(loss({}, 1, np.random.default_rng(seed)) > 4 for seed in range(20))


@every_problem
def test_what_hyperopt_draws_lies_in_the_declared_space(problem):
    for params in draws(problem, 200):
        active = {
            name
            for name, parameter in problem.parameters.items()
            if parameter.when is None or params[parameter.when[0]] == parameter.when[1]
        }
        assert params.keys() == active
        for name, value in params.items():
            parameter = problem.parameters[name]
            if isinstance(parameter, Choice):
                assert value in parameter.options
            else:
                assert parameter.low * (1 - 1e-9) <= value <= parameter.high * (1 + 1e-9)
                assert isinstance(value, int if isinstance(parameter, Int) else float)


def test_low_budgets_are_worth_what_the_names_of_the_hartmann_problems_say():
    def agreement(name):
        problem = load(name)
        points = draws(problem, 400)
        losses = [[problem.evaluate(params, budget) for params in points] for budget in (3, 27)]
        return np.corrcoef(*np.argsort(np.argsort(losses)))[0, 1]

    good, moderate, bad = (agreement(f"hartmann6_{quality}") for quality in ("good", "moderate", "bad"))
    assert good > 0.9 > 0.8 > moderate > 0.5 > 0.3 > bad


def test_a_promotion_is_charged_in_full_and_continued_training_by_the_difference():
    run = suite.Run("counting_ones", "hyperband", 0, 100)
    one, other = draws(load("counting_ones"), 2)
    for params, budget, continued in [
        (one, 27, False),
        (one, 81, False),
        (other, 27, True),
        (other, 81, True),
        (other, 81, False),
    ]:
        run.evaluate(params, budget, continued)
    assert run.spent == pytest.approx(1 / 3 + 1 + 1 / 3 + 2 / 3 + 1)
    assert run.continued == pytest.approx(1 + 1 + 1)


def test_the_incumbent_is_the_lowest_loss_at_the_largest_budget_so_far():
    problem = load("conditional")
    good, bad = BEST["conditional"], {"family": "linear", "linear_c": 1e-3}
    run = suite.Run("conditional", "hyperband", 0, 100)
    for params, budget in [(good, 9), (bad, 9), (bad, 81), (good, 27), (good, 81)]:
        run.evaluate(params, budget)
    scores = [score for _, _, score in run.curve]
    first = [good, bad, good] if problem.evaluate(good, 9) < problem.evaluate(bad, 9) else [bad, good]
    assert scores == pytest.approx([problem.score(params) for params in first], rel=1e-5)
    assert run.curve[-1][0] == pytest.approx(sum([9, 9, 81, 27, 81]) / 81, abs=1e-3)


@pytest.fixture
def smallest(tmp_path):
    """Arguments of a run of seconds."""
    return [
        *("--algorithms", "random", "tpe", "hyperband"),
        *("--problems", "counting_ones", "conditional"),
        *("--seeds", "0", "1", "--totals", "1", "3"),
        *("--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "results")),
    ]


@pytest.mark.slow
def test_the_smallest_suite_runs_once_and_makes_table_json_and_picture(smallest, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    suite.main(smallest)
    assert "12/12" in capsys.readouterr().out
    summary = json.loads(read_text(tmp_path / "results" / "suite.json.gz"))
    assert summary["seeds"]["conditional"] == {"random": 2, "tpe": 2, "hyperband": 2}
    assert summary["spent"]["regret"]["counting_ones"]["hyperband"][1][0] > 0
    assert summary["spent"]["speed_up"]["conditional"]["tpe"] == [1, 1]
    for ranks in summary["spent"]["rank"]:
        assert sum(rank for rank, _ in ranks.values()) == 1 + 2 + 3
    assert summary["time"]["hyperband"]["tpe_sample"] > 0
    assert (tmp_path / "results" / "suite.png").stat().st_size > 10_000
    assert "| hyperband |" in (tmp_path / "results" / "suite.md").read_text()

    suite.main(smallest)  # everything is stored
    again = capsys.readouterr().out
    assert "/12" not in again
    assert again == (tmp_path / "results" / "suite.md").read_text() + "\n"

    for path in (tmp_path / "runs").glob("*/random-1.json"):
        path.unlink()
    suite.main([*smallest, "--no-runs", "--fewest", "2"])
    summary = json.loads(read_text(tmp_path / "results" / "suite.json.gz"))
    assert summary["seeds"]["conditional"] == {"tpe": 2, "hyperband": 2}
    assert "random is left out: fewer than 2 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_random_search_and_hyperband_spend_the_same(smallest, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "draw", lambda *_: None)
    suite.main(smallest)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("*.json")]
    assert len(runs) == 12
    for run in runs:
        total = 6 if run["algorithm"] == "tpe" else 3
        assert total <= run["continued"] < total + 1
        assert run["continued"] == run["spent"] if run["algorithm"] != "hyperband" else run["spent"] > 3


@pytest.mark.slow
def test_what_has_no_runs_stays_as_it_is_stored(smallest, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "draw", lambda *_: None)
    monkeypatch.setattr(suite, "RESULTS", tmp_path / "results")
    suite.main(smallest)
    whole = json.loads(read_text(tmp_path / "results" / "suite.json.gz"))
    for path in (tmp_path / "runs").glob("*/[rt]*.json"):
        path.unlink()
    suite.main(["--algorithms", "hyperband", *smallest[4:], "--keep"])
    kept = json.loads(read_text(tmp_path / "results" / "suite.json.gz"))
    versions = kept.pop("versions")
    assert versions == {
        name: {"run": whole["date"], **numbers} for name, numbers in whole.pop("versions").items()
    }
    assert kept == whole


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A peer of the given code, in an environment that is this Python."""

    def make(code, limit=60.0):
        (tmp_path / "peers").mkdir()
        shutil.copy(Path(suite.__file__).parent / "peers" / "protocol.py", tmp_path / "peers")
        (tmp_path / "peers" / "run_fake.py").write_text("from protocol import Task\n" + code)
        binaries = tmp_path / "venv-fake" / "bin"
        binaries.mkdir(parents=True)
        (binaries / "python").symlink_to(sys.executable)
        monkeypatch.setattr(suite, "HERE", tmp_path)
        monkeypatch.setitem(suite.PEERS, "fake_twice", suite.Peer("fake", "Fake", ()))
        return suite.Places(tmp_path, tmp_path / "runs", limit)

    return make


def test_a_peer_sees_the_suites_losses_and_ends_with_its_total(peer):
    places = peer("""
task = Task()
print("chatter of a package")
rates = {name: 0.5 for name in task.parameters}
while True:
    params = {n: 1 if s["kind"] == "choice" else rates[n] for n, s in task.parameters.items()}
    loss = task.evaluate(params, task.max_budget)
    assert task.mode == "twice" and -13 < loss < -11, loss
""")
    record = suite.run("counting_ones", "fake_twice", 3, 5, "continued", places)
    assert record["evaluations"] == record["spent"] == 5
    assert record["curve"] == [[1, 1, -12]]
    assert record["versions"]["python"]
    assert suite.is_stored(places.run("counting_ones", "fake_twice", 3), 5, "spent")


def test_a_peer_that_breaks_tells_why_and_stores_nothing(peer):
    places = peer("task = Task()\nraise RuntimeError('no such space')")
    with pytest.raises(RuntimeError, match="no such space"):
        suite.run("counting_ones", "fake_twice", 0, 5, "continued", places)
    assert not places.runs.exists()


def test_a_peer_that_hangs_is_ended_and_what_it_did_counts(peer):
    places = peer(
        """
import time
task = Task()
task.evaluate({"x0": 0.1, "x1": 0.2, "x2": 0.3}, 9)
time.sleep(600)
""",
        limit=2,
    )
    record = suite.run("hartmann3_good", "fake_twice", 0, 5, "continued", places)
    assert record["evaluations"] == 1
    assert record["seconds"] < 60


def test_a_speed_up_compares_when_the_same_regret_was_first_reached():
    grid = suite_report.GRID
    own = [1 / total for total in grid]
    tpe = [10 / total for total in grid]
    assert suite_report.speed_up(own, tpe, 100) == pytest.approx(10, rel=0.08)
    assert suite_report.speed_up([1.0] * len(grid), tpe, 100) is None


def test_ties_share_their_ranks_and_a_problem_counts_where_all_got_so_far():
    regret = {
        "one": {"x": [[1.0, 0.0]], "y": [[1.0, 0.0]], "z": [[2.0, 0.0]]},
        "two": {"x": [[3.0, 0.0]], "y": [[1.0, 0.0]]},
        "three": {"x": [[3.0, 0.0]], "y": [None]},
    }
    ranks = suite_report.average_ranks(regret, ["x", "y", "z", "w"], 0)
    assert ranks == {"x": [1.75, 2], "y": [1.25, 2], "z": [3, 1], "w": None}


def test_the_table_of_ranks_has_no_column_for_a_total_that_is_out_of_reach():
    ranks = {"spent": [[2.0, 3], [1.0, 3]], "continued": [[1.5, 2], None]}
    summary = {
        "totals": [10, 30],
        "targets": [30, 60],
        **{unit: {"regret": {}, "rank": [{"x": each} for each in found]} for unit, found in ranks.items()},
    }
    _, _, head, _, row = suite_report.rank_table(summary, {"x": "X"})
    assert head.split(" | ")[:-1] == ["| ", "10 x", "30 x", "10 x, continued"]
    assert row.split(" | ")[:-1] == ["| X", "2.00 (3)", "1.00 (3)", "1.50 (2)"]
