"""Whatever a run can leave behind is read, and what other programs have made of its documents."""

import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial

import bson
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bson.codec_options import CodecOptions
from bson.son import SON
from conftest import loss, places, run
from hyperopt import STATUS_OK, hp, rand, tpe
from hyperopt.base import JOB_STATE_DONE, Domain, trials_from_docs
from hyperopt.fmin import generate_trials_to_calculate

from hyperopt_hyperband import bohb, hyperband, plots
from hyperopt_hyperband.__main__ import main

PLAN = hyperband.schedule(1, 9)
ITERATION = PLAN.evaluations
CHOICES = {
    "kind": hp.choice("kind", ["knn", "svm", {"kind": "forest", "depth": hp.randint("depth", 3, 9)}]),
    "layers": hp.choice("layers", [(32,), (64, 64), None]),
    "x": hp.uniform("x", -5, 5),
    "epochs": hyperband.budget("epochs", 1, 9),
}
AWARE = CodecOptions(document_class=SON, tz_aware=True, tzinfo=timezone(timedelta(hours=5, minutes=30)))

READ_BACK = {
    "JSON": lambda doc: json.loads(json.dumps(doc, default=str)),
    "BSON": lambda doc: bson.decode(bson.encode(doc)),
    "BSON, SON objects and times in India": lambda doc: bson.decode(bson.encode(doc), AWARE),
    "JSON of times with a zone": lambda doc: json.loads(
        json.dumps(
            doc, default=lambda time: f"{time.isoformat()}Z" if isinstance(time, datetime) else str(time)
        )
    ),
}


@pytest.fixture(autouse=True)
def every_figure_is_closed():
    yield
    plt.close("all")


def read_everywhere(trials, space=CHOICES):
    """All that reads a run reads this one; returns the report's text."""
    for given in (None, space):
        report = hyperband.report(trials, space=given)
        assert report._repr_html_()
        assert len(hyperband.records(trials, space=given)) == len(trials._dynamic_trials)
    assert hyperband.incumbent(trials)["tid"] == report.incumbent.tid
    hyperband.no_progress()(trials)
    drawn_everywhere(trials, space)
    return str(report)


def drawn_everywhere(trials, space):
    labels = list(dict.fromkeys(name for doc in trials._dynamic_trials for name in doc["misc"]["vals"] or ()))
    label = next((name for name in labels if name in ("kind", "x")), None)
    for ax, plot in zip(
        plt.figure().subplots(1, 6),
        [
            plots.evaluations,
            plots.budgets,
            plots.incumbent,
            partial(plots.incumbent, against="seconds"),
            partial(plots.hyperparameters, labels=[label]),
            partial(plots.hyperparameters, labels=[label], space=space),
        ],
        strict=True,
    ):
        plot(trials, ax=ax)
    plt.close()


def read_back(trials, how):
    return trials_from_docs([READ_BACK[how](doc) for doc in trials._dynamic_trials], validate=False)


def failing(params):
    if int(params["x"] * 100) % 4 == 0:
        raise RuntimeError("diverged")
    return {"loss": loss(params), "status": STATUS_OK, "curve": np.ones(3), "of": {"tuple": (1, 2)}}


@pytest.mark.parametrize("how", READ_BACK)
def test_a_run_that_was_stored_is_read_as_it_was(how):
    trials = run(loss, CHOICES, ITERATION + 7)
    stored = read_back(trials, how)
    assert hyperband.report(stored, space=CHOICES) == hyperband.report(trials, space=CHOICES)
    assert hyperband.records(stored, space=CHOICES) == hyperband.records(trials, space=CHOICES)
    assert read_everywhere(stored) == read_everywhere(trials)


def test_failures_and_results_that_json_has_no_form_for_are_read():
    trials = run(failing, CHOICES, ITERATION, catch_eval_exceptions=True)
    stored = read_back(trials, "JSON")
    assert hyperband.report(stored).failed == hyperband.report(trials).failed > 0
    read_everywhere(stored)


def test_the_command_line_reads_a_run_that_was_stored(tmp_path, capsys):
    trials = run(loss, CHOICES, ITERATION)
    hyperband.save_trials(tmp_path / "trials")(read_back(trials, "JSON"))
    main(["report", str(tmp_path / "trials")])
    assert capsys.readouterr().out == f"{hyperband.report(trials)}\n"


@pytest.mark.parametrize("how", READ_BACK)
@pytest.mark.parametrize(
    "algo", [hyperband.suggest, bohb.suggest, partial(hyperband.suggest, sampler=tpe.suggest)]
)
def test_a_run_that_was_stored_goes_on_as_if_it_had_not_been(how, algo):
    trials = run(loss, CHOICES, 30, algo=algo)
    stored = read_back(trials, how)
    for each in (trials, stored):
        run(loss, CHOICES, 2 * ITERATION, trials=each, algo=algo, seed=1)
    assert places(stored) == places(trials)
    vals = [[doc["misc"]["vals"] for doc in each.trials] for each in (stored, trials)]
    assert vals[0] == vals[1]
    read_everywhere(stored)


def test_times_with_a_zone_and_without_stand_side_by_side():
    trials = run(loss, CHOICES, ITERATION)
    mixed = read_back(trials, "BSON, SON objects and times in India")
    mixed._dynamic_trials[::2] = trials._dynamic_trials[::2]
    mixed.refresh()
    assert hyperband.records(mixed) == hyperband.records(trials)
    assert hyperband.report(mixed).wall_seconds == hyperband.report(trials).wall_seconds


@pytest.mark.parametrize("time", ["yesterday", "", 1700000000.0, {"$date": 0}, None])
def test_a_time_that_can_t_be_understood_is_unknown(time):
    trials = run(loss, CHOICES, ITERATION)
    for doc in trials._dynamic_trials[:5]:
        doc["book_time"] = time
    del trials._dynamic_trials[5]["book_time"], trials._dynamic_trials[6]["refresh_time"]
    seconds = [record["seconds"] for record in hyperband.records(trials)]
    assert seconds[:7] == [None] * 7
    assert None not in seconds[7:]
    read_everywhere(trials)


def test_where_no_time_is_known_nothing_is_drawn_against_it():
    trials = run(loss, CHOICES, ITERATION)
    for doc in trials._dynamic_trials:
        doc["book_time"] = doc["refresh_time"] = "?"
    report = hyperband.report(trials)
    assert (report.wall_seconds, report.evaluation_seconds) == (None, 0)
    assert [len(line.get_xdata()) for line in plots.incumbent(trials, against="seconds").get_lines()] == []
    assert len(plots.incumbent(trials).get_lines()) > 0


POINTS = [
    {"kind": "svm", "layers": 0, "x": 1.0, "epochs": 9},
    {"kind": "forest", "depth": 4, "layers": 1, "x": 1.5, "epochs": 9},
    {"kind": 1, "layers": (64, 64), "x": 2.0, "epochs": 9},
    {"kind": 0, "layers": None, "x": 2.5, "epochs": 9},
    {"kind": "tree", "layers": 2, "x": 3.0, "epochs": 9},
    {"kind": 7, "layers": 2, "x": 3.5, "epochs": 9},
]
NAMES = [
    ("svm", "(32,)"),
    ("forest", "(64, 64)"),
    ("svm", "(64, 64)"),
    ("knn", "None"),
    ("tree", "None"),
    (7, "None"),
]


@pytest.fixture
def named():
    """Points that name options in place of indices, which Hyperopt can't evaluate; then a run goes on."""
    trials = generate_trials_to_calculate(POINTS)
    return run(loss, CHOICES, len(POINTS) + ITERATION, trials=trials, catch_eval_exceptions=True)


@pytest.mark.parametrize("how", ["as it is", *READ_BACK])
def test_an_option_by_its_name_is_that_option(named, how):
    trials = named if how == "as it is" else read_back(named, how)
    records = hyperband.records(trials, space=CHOICES)[: len(POINTS)]
    assert [(r["param_kind"], r["param_layers"]) for r in records] == NAMES
    assert {r["status"] for r in records} == {"failed"}
    assert [r["param_kind"] for r in hyperband.records(trials)[:5]] == ["svm", "forest", 1, 0, "tree"]
    read_everywhere(trials)


def crosses(ax):
    """Where the failed evaluations stand, to the nearest option."""
    [marks] = [c for c in ax.collections if c.get_label() == "failed"]
    return sorted(round(x) for x, _ in marks.get_offsets().tolist())


def test_a_plot_shows_an_option_by_its_name_where_the_option_is(named):
    kind, layers = plots.hyperparameters(named, space=CHOICES, labels=["kind", "layers"])
    assert crosses(kind) == [0, 1, 1, 2], "'tree' and 7 are no options"
    assert crosses(layers) == [0, 1, 1, 2, 2, 2]
    [kind] = plots.hyperparameters(named, labels=["kind"])
    assert crosses(kind) == [0, 1, 7], "without the space, names have no place"


def test_the_incumbent_s_option_may_be_given_by_its_name():
    trials = run(loss, CHOICES, ITERATION)
    best = hyperband.incumbent(trials)
    best["misc"]["vals"] |= {"kind": ["forest"], "depth": [4], "layers": [[64, 64]]}
    parameters = hyperband.report(trials, space=CHOICES).parameters
    assert parameters["kind"] == {"kind": "forest", "depth": 4}
    assert parameters["layers"] == (64, 64)
    assert hyperband.report(trials).parameters["kind"] == "forest"


@pytest.mark.parametrize("outside", [{"kind": ["tree"]}, {"kind": [7]}, {"kind": [2], "depth": []}])
def test_what_the_space_does_not_have_is_shown_by_label(outside):
    trials = run(loss, CHOICES, ITERATION)
    hyperband.incumbent(trials)["misc"]["vals"] |= outside
    assert hyperband.report(trials, space=CHOICES).parameters["kind"] == outside["kind"][0]
    read_everywhere(trials)


def test_the_space_of_another_run_names_nothing():
    trials = run(loss, CHOICES, ITERATION)
    for space in ({"other": hp.choice("other", ["a", "b"])}, 3, "space"):
        assert hyperband.report(trials, space=space).parameters == hyperband.report(trials).parameters
        assert hyperband.records(trials, space=space) == hyperband.records(trials)


def test_a_text_is_a_number_where_that_is_certain():
    space = {"size": hp.choice("size", [1, 2, 64]), "x": hp.uniform("x", 0, 1)}
    trials = run(lambda _: 0, space, 6, algo=rand.suggest)
    given = ["64", 64, "0", "2", 2, np.int64(1)]  # "2" is the third by index, and the second by name
    for doc, size in zip(trials.trials, given, strict=True):
        doc["misc"]["vals"] = {"size": [size], "x": ["0.5"]}
    records = hyperband.records(trials, space=space)
    assert [r["param_size"] for r in records] == ["64", "64", "1", "2", "64", "2"]
    [size, x] = plots.hyperparameters(trials, space=space, labels=["size", "x"])
    assert [
        sum(len(c.get_offsets()) for c in ax.collections if c.get_label() == "evaluated") for ax in (size, x)
    ] == [
        5,
        6,
    ]


def test_a_budget_that_is_a_text_is_that_budget():
    space = {"x": hp.uniform("x", -5, 5), "n": hp.randint("n", 1, 10)}
    trials = run(lambda p: p["x"] ** 2, space, 5, algo=rand.suggest)
    budgets = [doc["misc"]["vals"]["n"][0] for doc in trials.trials]
    for doc in trials.trials:
        doc["misc"]["vals"]["n"] = [str(doc["misc"]["vals"]["n"][0])]  # a numpy integer, through JSON
    run(lambda p: p["x"] ** 2, space, 9, trials=trials, algo=partial(hyperband.suggest, budget="n"))
    assert [record["budget"] for record in hyperband.records(trials)[:5]] == budgets


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(0.25), 0.25),
        (7, 7.0),
        (Decimal("1.5"), 1.5),
        ("0.75", 0.75),
        (None, None),
        (math.nan, None),
        ("nan", None),
        (-math.inf, None),
        ("low", None),
        ([0.5], None),
        (1j, None),
        pytest.param(10**400, None, id="huge"),
    ],
)
def test_a_loss_is_what_float_makes_of_it(given, read):
    trials = run(loss, CHOICES, ITERATION)
    trials._dynamic_trials[3]["result"]["loss"] = given
    record = hyperband.records(trials)[3]
    assert (record["loss"], record["status"]) == (read, "failed" if read is None else "ok")
    assert hyperband.suggest([ITERATION], Domain(loss, CHOICES), trials, 0)


@pytest.mark.parametrize("result", [{}, None, {"loss": 0.1}, {"status": "fail"}, {"status": "ok"}])
def test_a_result_without_status_or_loss_has_failed(result):
    trials = run(loss, CHOICES, ITERATION)
    doc = trials._dynamic_trials[3]
    doc["result"] = result
    assert hyperband.records(trials)[3]["status"] == "failed"
    del doc["result"]
    assert hyperband.records(trials)[3]["status"] == "failed"
    assert hyperband.report(trials).failed == 1


@pytest.mark.parametrize("stamp", ["yes", 3, None, [], {}, {"epoch": 3, "bracket": 1}])
def test_what_another_package_calls_hyperband_makes_a_foreign_trial(stamp):
    trials = run(loss, CHOICES, 5, algo=rand.suggest)
    for doc in trials.trials:
        doc["misc"] |= {"hyperband": stamp, "budget": "low"}
    run(loss, CHOICES, 5 + ITERATION, trials=trials)
    report = hyperband.report(trials)
    assert (report.foreign, report.evaluations) == (5, ITERATION)
    read_everywhere(trials)


@pytest.mark.parametrize(
    "vals",
    [
        {},
        None,
        {"kind": 1, "x": None},
        {"kind": (1,), "x": np.array([0.5])},
        {"kind": [np.array(1)], "x": [[0.5]]},
        {"kind": [{"kind": "svm"}], "x": [len], "layers": [["a", {}]]},
        {"new": [datetime(2024, 1, 1)], "x": [Decimal(1)], "b": [b"raw"]},
    ],
)
def test_hyperparameters_of_any_form_are_read(vals):
    trials = run(loss, CHOICES, ITERATION)
    other = trials.new_trial_docs([99], [None], [{"status": "ok", "loss": -9.0}], [{"tid": 99, "vals": vals}])
    other[0]["state"] = JOB_STATE_DONE
    trials._insert_trial_docs(other)
    trials.refresh()
    assert hyperband.incumbent(trials)["tid"] == 99
    for record in hyperband.records(trials):
        assert {type(value) for value in record.values()} <= {int, float, str, bool, type(None)}
    read_everywhere(trials)


def test_documents_with_ids_of_their_own_are_gone_on_from():
    trials = run(loss, CHOICES, 4, algo=rand.suggest)
    for doc, tid in zip(trials.trials, ["5f1a", "5f1b", "5f1c", "5f1d"], strict=True):
        doc["tid"] = doc["misc"]["tid"] = tid
    trials = trials_from_docs(list(trials))
    run(loss, CHOICES, 4 + ITERATION, trials=trials)
    report = hyperband.report(trials)
    assert (report.foreign, report.evaluations) == (4, ITERATION)
    assert [rung.evaluations for rung in report.rungs] == [rung.planned for rung in report.rungs]
    read_everywhere(trials)


def test_the_star_is_at_the_incumbent_where_another_trial_has_its_id():
    space = {"x": hp.uniform("x", -5, 5), "epochs": hyperband.budget("epochs", 1, 9)}
    first, second = run(loss, space, 3, algo=rand.suggest), run(loss, space, 3, algo=rand.suggest, seed=1)
    joined = trials_from_docs([*first, *second])
    best = hyperband.incumbent(joined)
    [ax] = plots.hyperparameters(joined, labels=["x"])
    [star] = [c for c in ax.collections if c.get_label() == "incumbent"]
    assert star.get_offsets().tolist() == [[best["misc"]["vals"]["x"][0], best["result"]["loss"]]]
    assert len(plots.incumbent(joined).get_lines()[0].get_xdata()) > 0
