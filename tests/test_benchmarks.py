"""What the benchmarks promise beside their figures: that no result is lost, and what is compared."""

import argparse
import json
import random
import re
from pathlib import Path

import article
import faults
import models
import numpy as np
import overhead
import parallel
import pytest
import seconds
import suite
from conftest import killed, run
from hyperopt import hp
from problems import load
from recording import Rows, destination, read_text, write_text

from hyperopt_hyperband import hyperband

BENCHMARKS = Path(article.__file__).parent


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--heavy-tail", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "stored"),
        ("--sizes 1 2 --processes 4", "stored"),
        ("--sizes 1", None),
        ("--heavy-tail", None),
        ("--sizes 1 --out elsewhere", "elsewhere"),
    ],
)
def test_a_result_replaces_the_stored_one_only_with_the_options_of_that(parser, options, expected):
    found = destination(parser, parser.parse_args(options.split()), Path("stored"), indifferent={"processes"})
    assert found == (expected and Path(expected))


def test_an_incomplete_result_replaces_no_stored_one(parser, capsys):
    assert destination(parser, parser.parse_args([]), Path("stored"), complete=False) is None
    assert "printed, not written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "options", "file"),
    [
        (overhead, "--sizes 50 --max-budgets 9 --hyperparameters 2 --repeats 1 --tpe-to 0", ""),
        (parallel, "--problems counting_ones --workers 4 --seeds 1", "parallel.json.gz"),
        (suite, "--problems counting_ones --algorithms random --totals 1 3 --runs runs", "suite.json.gz"),
    ],
    ids=["overhead", "parallel", "suite"],
)
@pytest.mark.slow
def test_a_script_that_measures_less_leaves_the_stored_result_alone(
    script, options, file, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    stored, elsewhere = tmp_path / "stored", tmp_path / "elsewhere"
    monkeypatch.setattr(script, "RESULTS", stored)
    script.main(options.split())
    assert "printed, not written" in capsys.readouterr().out
    script.main([*options.split(), "--out", "elsewhere"])
    assert not stored.exists()
    assert json.loads(read_text(elsewhere / file)).keys() > {"date", "machine", "versions"}


def test_a_compressed_file_is_the_same_whenever_it_is_written(tmp_path, monkeypatch):
    one, other = tmp_path / "one.json.gz", tmp_path / "other.json.gz"
    for path, now in ((one, 10**9), (other, 2 * 10**9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_text(path, "text" * 100)
    assert one.read_bytes() == other.read_bytes()
    assert len(one.read_bytes()) < 100
    assert read_text(one) == "text" * 100


def test_rows_that_were_cut_short_are_gone_on_with_where_they_measure_the_same(tmp_path):
    out = tmp_path / "result.json"
    cut = Rows(out, payload=1)
    cut.rows.append({"seed": 0})
    cut.keep()
    assert Rows(out, payload=2).rows == Rows(None, payload=1).rows == []
    again = Rows(out, payload=1)
    again.rows.append({"seed": 1})
    again.finish({"seeds": 2})
    result = json.loads(read_text(out))
    assert (result["payload"], result["totals"], result["rows"]) == (1, {"seeds": 2}, again.rows)
    assert again.rows == [{"seed": 0}, {"seed": 1}]
    assert list(tmp_path.iterdir()) == [out]
    assert Rows(out, payload=1).rows == []


@pytest.mark.slow
def test_the_faults_go_on_where_they_were_cut_short(tmp_path):
    out = tmp_path / "faults.json"
    first = Rows(out)
    first.rows.append({"seeds": [0, 9], "documents": 100, "runs": {}, "faults": {"earlier": 7}, "broken": []})
    first.keep()
    faults.main(["--documents", "200", "--out", str(out)])
    result = json.loads(read_text(out))
    assert [row["seeds"] for row in result["rows"]][:2] == [[0, 9], [10, 19]]
    assert result["totals"]["by fault"]["earlier"] == 7 < result["totals"]["faults"]
    assert result["totals"]["broken promises"] == 0
    assert result["totals"]["documents"] >= 200


def test_a_broken_promise_fails_the_script(tmp_path):
    out = tmp_path / "faults.json"
    first = Rows(out)
    broken = [{"seed": 3, "error": "AssertionError()", "at": "simulator.py:1"}]
    first.rows.append({"seeds": [0, 9], "documents": 100, "runs": {}, "faults": {}, "broken": broken})
    first.keep()
    with pytest.raises(SystemExit):
        faults.main(["--documents", "100", "--out", str(out)])
    assert json.loads(read_text(out))["totals"]["broken promises"] == 1


@pytest.fixture
def stored():
    return article.FULL.directory


def test_every_stored_run_is_complete_and_compressed(stored):
    assert not list(stored.glob("*.jsonl"))
    for algorithm in article.STYLES:
        lengths = {len(article.read_records(path)) for path in article.recorded_runs(article.FULL, algorithm)}
        assert len(lengths) == 1


def test_the_stored_runs_give_the_stored_summary(stored):
    curves = {
        name: [article.read_curve(article.FULL, path) for path in article.recorded_runs(article.FULL, name)]
        for name in article.STYLES
    }
    summary = json.loads(json.dumps(article.summarize(article.FULL, curves)))
    kept = json.loads((stored / "summary.json").read_text())
    assert {key: summary[key] for key in ("best", "speedup_over_tpe")} == {
        key: kept[key] for key in ("best", "speedup_over_tpe")
    }


def asked(count):
    """So many configurations of an article's run, each with its accuracy."""
    rng = random.Random(0)
    for _ in range(count):
        params = {
            "learning_rate_init": rng.random(),
            "hidden_layer_sizes": (32, 32),
            "alpha": rng.random(),
            "activation": "relu",
        }
        yield params, {"accuracy": rng.random()}


def play(path, count, begun=lambda: None):
    """Begin a run, or go on with it; returns how many evaluations were trained."""
    recorder = article.Recorder(article.QUICK, path)
    trained = 0
    for params, result in asked(count):

        def train(result=result):
            nonlocal trained
            trained += 1
            begun()
            return result

        assert recorder.record(params, 27, train) == result["accuracy"]
    article.compress(path)
    return trained


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_first_evaluation_that_is_not_recorded(tmp_path):
    whole, path = tmp_path / "whole-0.jsonl", tmp_path / "killed-0.jsonl"
    assert play(whole, 400) == 400
    recorded, kills = 0, 0
    while killed(lambda begun: play(path, 400, begun), 20, random.Random(kills).uniform(0, 0.01)):
        kills += 1
        records = article.read_records(path)
        assert records == article.read_records(whole)[: len(records)]
        assert len(records) >= recorded + 19
        recorded = len(records)
    assert kills > 2
    assert article.compressed(path).read_bytes() == article.compressed(whole).read_bytes()
    assert not path.exists()


def test_a_complete_run_goes_on_where_more_is_asked(tmp_path):
    path = tmp_path / "bohb-0.jsonl"
    play(path, 10)
    before = article.compressed(path).read_bytes()
    assert play(path, 10) == 0
    assert article.compressed(path).read_bytes() == before
    assert play(path, 15) == 5
    assert len(article.read_records(path)) == 15
    assert [file.name for file in tmp_path.iterdir()] == ["bohb-0.jsonl.gz"]


def evaluations(algorithm, stream, count, workers):
    """The first so many evaluations of an algorithm, the oldest at work finishing first; none may wait."""
    found = []
    for i in range(count):
        if i >= workers:
            done = found[i - workers]
            algorithm.tell(done, stream.loss(done.config, done.budget))
        found.append(algorithm.ask())
    return found


@pytest.fixture
def stream():
    return parallel.Stream(load("curves"), 0)


def test_suggest_with_one_worker_evaluates_what_the_synchronous_hyperband_does(stream):
    count = stream.plan.evaluations
    ours, theirs = (
        evaluations(algorithm(stream), stream, count, workers=1)
        for algorithm in (parallel.Hyperband, parallel.Synchronous)
    )
    assert ours != theirs  # it promotes as soon as it is certain
    assert set(ours) == set(theirs)


@pytest.mark.parametrize("workers", [1, 16])
def test_the_first_bracket_alone_is_hyperbands_again_and_again(stream, workers):
    bracket = stream.plan.brackets[0]
    found = evaluations(parallel.FirstBracket(stream), stream, 8 * bracket.evaluations, workers)
    assert {evaluation.s for evaluation in found} == {bracket.s}
    assert len(set(found)) == len(found)
    first, size = parallel.Synchronous(stream), bracket.rungs[0].configurations
    expected = evaluations(first, stream, bracket.evaluations, workers=1)
    assert {e for e in found if e.config < size} == set(expected)
    drawn = [e.config for e in found if e.rung == 0]
    assert drawn == list(range(len(drawn)))


@pytest.mark.slow
def test_in_simulated_time_suggest_keeps_all_workers_busy_and_a_synchronous_hyperband_does_not(stream):
    busy = {
        name: parallel.simulate(stream, name, 16, 10, continued=False).utilisation
        for name in ("hyperband", "one bracket", "synchronous")
    }
    assert [busy["hyperband"], busy["one bracket"]] == pytest.approx([1, 1])
    assert busy["synchronous"] < 0.5


@pytest.mark.parametrize("algo", [models.gaussian_process, models.forest])
@pytest.mark.slow
def test_models_of_a_library_draw_after_the_first_iteration_too(algo):
    space = {"x": hp.uniform("x", -5, 5), "b": hyperband.budget("b", 1, 9)}
    trials = run(lambda params: params["x"] ** 2 + 1 / params["b"], space, 30, algo=algo)
    stamps = [doc["misc"]["hyperband"] for doc in trials.trials]
    assert stamps[-1]["turn"] > 3
    assert any("by_model" in its for its in stamps[22:])


@pytest.mark.slow
def test_in_equal_time_the_regret_is_known_at_every_total():
    assert seconds.CASES[2].problem == "hartmann3_bad"
    for per_second in (False, True):
        regrets = seconds.run(2, 0, per_second)
        assert len(regrets) == len(seconds.TOTALS)
        assert np.isfinite(regrets).all()
        assert regrets[-1] < regrets[0]


def test_the_index_names_every_script_and_what_it_links_is_there():
    links = re.findall(r"\]\((.*?)\)", (BENCHMARKS / "README.md").read_text())
    assert all((BENCHMARKS / link).exists() for link in links)
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert scripts <= set(links)
