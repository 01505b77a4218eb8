import subprocess
import sys
from collections import Counter
from functools import partial

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import interrupted, loss, run
from hyperopt import STATUS_FAIL, Trials, hp, tpe
from hyperopt.exceptions import AllTrialsFailed
from matplotlib.colors import to_rgb

from hyperopt_hyperband import hyperband, plots

PLAN = hyperband.schedule(1, 9)
ITERATION = PLAN.evaluations


@pytest.fixture(autouse=True)
def every_figure_is_rendered():
    plt.close("all")  # what other modules' tests have left
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.fixture
def failing(space):
    """Two Hyperband iterations, a third of whose configurations fail."""

    def objective(params):
        return {"status": STATUS_FAIL} if int(params["x"] * 1000) % 3 == 0 else loss(params)

    return run(objective, space, 2 * ITERATION)


def losses(trials):
    """Budget and loss of every evaluation that has not failed."""
    return [
        (doc["misc"]["budget"], doc["result"]["loss"])
        for doc in trials._dynamic_trials
        if "loss" in doc["result"] and np.isfinite(doc["result"]["loss"])
    ]


def dots(collection):
    return [tuple(xy) for xy in collection.get_offsets().tolist()]


def labelled(ax):
    handles, labels = ax.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def test_evaluations_has_a_line_for_every_configuration(failing):
    ax = plots.evaluations(failing)
    lines = {}
    for doc in failing.trials:
        if "loss" in doc["result"]:
            config = doc["misc"]["hyperband"]["config"]
            lines.setdefault(config, []).append((doc["misc"]["budget"], doc["result"]["loss"]))
    drawn = [[*zip(*line.get_data(), strict=True)] for line in ax.get_lines()]
    assert sorted(drawn) == sorted(lines.values())
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "3", "9"]


def test_evaluations_lets_survivors_stand_out_and_marks_incumbent_and_failures(failing):
    ax = plots.evaluations(failing)
    kinds = Counter(line.get_label().lstrip("_") for line in ax.get_lines())
    assert kinds["reached max_budget"] == sum(budget == 9 for budget, _ in losses(failing))
    assert set(kinds) == {"not promoted", "promoted", "reached max_budget"}
    colors = {line.get_label().lstrip("_"): line.get_color() for line in ax.get_lines()}
    assert (
        sum(to_rgb(colors["not promoted"]))
        > sum(to_rgb(colors["promoted"]))
        > sum(to_rgb(colors["reached max_budget"]))
    )
    best = hyperband.incumbent(failing)
    assert dots(labelled(ax)["incumbent"]) == [(9, best["result"]["loss"])]
    failures = Counter(x for x, _ in dots(labelled(ax)["failed"]))
    assert failures == Counter(d["misc"]["budget"] for d in failing.trials if "loss" not in d["result"])


def test_losses_that_dwarf_the_others_are_out_of_view_and_counted(space):
    trials = run(lambda p: 1e9 if p["x"] > 4.5 else loss(p) - 5, space, 2 * ITERATION)
    ax = plots.evaluations(trials)
    top = ax.get_ylim()[1]
    above = sum(value > top for _, value in losses(trials))
    assert above >= sum(value == 1e9 for _, value in losses(trials)) > 0
    assert [text.get_text() for text in ax.texts] == [f"{above} above"]
    assert top < 100


def test_losses_far_apart_have_a_log_axis(space):
    assert plots.evaluations(run(lambda p: 10 ** p["x"], space, ITERATION)).get_yscale() == "log"
    assert plots.evaluations(run(lambda p: p["x"], space, ITERATION)).get_yscale() == "linear"


def test_incumbent_against_the_total_budget(space):
    trials = run(loss, space, 2 * ITERATION)
    ax = plots.incumbent(trials)
    low, full = ax.get_lines()
    spent, best, expected = 0, None, []
    for budget, value in losses(trials):
        spent += budget
        if best is None or (-budget, value) < (-best[0], best[1]):
            best = (budget, value)
        expected.append((spent, best))
    below = [(x, value) for x, (budget, value) in expected if budget < 9]
    at_full = [(x, value) for x, (budget, value) in expected if budget == 9]
    assert [*zip(*low.get_data(), strict=True)] == [*below, at_full[0]]
    assert [*zip(*full.get_data(), strict=True)] == at_full
    assert at_full[-1] == (2 * PLAN.total_budget, hyperband.incumbent(trials)["result"]["loss"])
    assert (low.get_linestyle(), full.get_linestyle()) == ("--", "-")
    assert ax.get_legend().get_title().get_text() == "dashed: below budget 9"


def test_incumbent_compares_runs_by_name(space):
    runs = {"hyperband": run(loss, space, ITERATION), "tpe": run(loss, space, 12, algo=tpe.suggest)}
    ax = plots.incumbent(runs)
    named = labelled(ax)
    assert list(named) == ["hyperband", "tpe"]
    # TPE knows no budgets: its trials count as evaluated at the other run's largest.
    assert named["tpe"].get_xdata().tolist() == [9 * k for k in range(1, 13)]
    assert named["tpe"].get_ydata().tolist() == np.minimum.accumulate(runs["tpe"].losses()).tolist()
    assert named["hyperband"].get_xdata()[-1] == PLAN.total_budget
    assert named["hyperband"].get_color() != named["tpe"].get_color()
    assert named["hyperband"].get_marker() != named["tpe"].get_marker()


def test_incumbent_against_evaluations_counts_the_failed_ones(failing):
    ax = plots.incumbent(failing, against="evaluations")
    assert ax.get_lines()[-1].get_xdata()[-1] == 2 * ITERATION
    assert ax.get_xlabel() == "evaluations"


def test_incumbent_against_seconds_goes_by_the_time_of_ending(space):
    trials = run(loss, space, 4)
    for doc, minute in zip(trials._dynamic_trials, [30, 10, 20, 40], strict=True):
        doc["book_time"] = doc["book_time"].replace(2024, 1, 1, 0, 0, 0, 0)
        doc["refresh_time"] = doc["book_time"].replace(minute=minute)
    [line] = plots.incumbent(trials, against="seconds").get_lines()
    assert line.get_xdata().tolist() == [600, 1200, 1800, 2400]
    values = [trials.losses()[k] for k in (1, 2, 0, 3)]
    assert line.get_ydata().tolist() == np.minimum.accumulate(values).tolist()


def test_incumbent_says_what_it_can_be_drawn_against(failing):
    with pytest.raises(
        ValueError, match=r"against='epochs': pass one of \['evaluations', 'seconds', 'total_budget'\]"
    ):
        plots.incumbent(failing, against="epochs")


def test_budgets_adds_up_to_the_schedule(space):
    ax = plots.budgets(run(loss, space, 2 * ITERATION))
    bars = {
        label: [(round(p.get_x() + p.get_width() / 2), p.get_y(), p.get_height()) for p in bar]
        for label, bar in labelled(ax).items()
    }
    assert bars == {
        "1": [(0, 0, 18)],
        "3": [(0, 18, 18), (1, 0, 30)],
        "9": [(0, 36, 18), (1, 30, 18), (2, 0, 54)],
    }
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "1", "0"]
    assert {text.get_text() for text in ax.texts} == {"18 x 1", "6 x 3", "2 x 9", "10 x 3", "6 x 9"}
    shades = [sum(bar.patches[0].get_facecolor()[:3]) for bar in labelled(ax).values()]
    assert shades == sorted(shades, reverse=True)


def test_budgets_has_a_bar_for_foreign_trials(space):
    trials = run(loss, space, 4, algo=tpe.suggest)
    run(loss, space, 4 + ITERATION, trials=trials)
    ax = plots.budgets(trials)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "1", "0", "foreign"]
    assert labelled(ax)["9"].patches[-1].get_height() == 4 * 9


SPACE = {
    "rate": hp.loguniform("rate", -7, 0),
    "width": hp.qlognormal("width", 3, 1, 1),
    "momentum": hp.uniform("momentum", 0, 1),
    "kernel": hp.choice(
        "kernel", [{"kind": "rbf", "gamma": hp.lognormal("gamma", 0, 1)}, {"kind": "linear"}]
    ),
    "depth": hp.randint("depth", 10),
    "epochs": hyperband.budget("epochs", 1, 9),
}


@pytest.fixture(scope="module")
def varied():
    return run(lambda p: p["momentum"] + 1 / p["epochs"], SPACE, 2 * ITERATION)


def test_hyperparameters_shows_every_one_but_the_budget(varied):
    panels = {ax.get_xlabel(): ax for ax in plots.hyperparameters(varied, space=SPACE)}
    assert set(panels) == {"rate", "width", "momentum", "kernel", "gamma", "depth"}
    for label, ax in panels.items():
        for budget in (1, 3, 9):
            expected = [
                (doc["misc"]["vals"][label][0], doc["result"]["loss"])
                for doc in varied.trials
                if doc["misc"]["budget"] == budget and doc["misc"]["vals"][label]
            ]
            drawn = dots(labelled(ax)[str(budget)])
            if label == "kernel":  # an option's dots are spread about its place
                drawn = [(round(x), y) for x, y in drawn]
            assert drawn == expected


def test_hyperparameters_takes_scales_and_names_from_the_space(varied):
    panels = {ax.get_xlabel(): ax for ax in plots.hyperparameters(varied, space=SPACE)}
    scales = {label: ax.get_xscale() for label, ax in panels.items()}
    logarithmic = {label for label, scale in scales.items() if scale == "log"}
    assert logarithmic == {"rate", "width", "gamma"}
    assert [tick.get_text() for tick in panels["kernel"].get_xticklabels()] == ["rbf", "linear"]


def test_hyperparameters_guesses_scales_without_the_space(varied):
    panels = {ax.get_xlabel(): ax for ax in plots.hyperparameters(varied)}
    assert panels["rate"].get_xscale() == "log"
    assert panels["momentum"].get_xscale() == panels["depth"].get_xscale() == "linear"
    assert {x for x, _ in dots(labelled(panels["kernel"])["1"])} == {0, 1}


def test_hyperparameters_are_lighter_and_smaller_at_lower_budgets(varied):
    [ax] = plots.hyperparameters(varied, labels=["rate"])
    drawn = [labelled(ax)[budget] for budget in ("1", "3", "9")]
    assert [d.get_sizes()[0] for d in drawn] == sorted(d.get_sizes()[0] for d in drawn)
    light = [sum(d.get_facecolor()[0][:3]) for d in drawn]
    assert light == sorted(light, reverse=True)


def test_hyperparameters_marks_the_incumbent(varied):
    best = hyperband.incumbent(varied)
    [ax] = plots.hyperparameters(varied, labels=["rate"])
    assert dots(labelled(ax)["incumbent"]) == [(best["misc"]["vals"]["rate"][0], best["result"]["loss"])]


def test_hyperparameters_of_another_algorithm(space):
    panels = plots.hyperparameters(run(loss, space, 10, algo=tpe.suggest), space=space, labels=["x", "y"])
    assert [ax.get_xlabel() for ax in panels] == ["x", "y"]
    assert len(dots(labelled(panels[0])["evaluated"])) == 10


def test_hyperparameters_names_what_it_does_not_find(varied):
    with pytest.raises(ValueError, match=r"labels=\['speed'\] are in no evaluation: pass some of \['depth'"):
        plots.hyperparameters(varied, labels=["speed"])
    with pytest.raises(ValueError, match="ax holds 1 Axes: pass 2, one for each hyperparameter"):
        plots.hyperparameters(varied, labels=["rate", "depth"], ax=plt.subplot())


@pytest.mark.parametrize("plot", [plots.evaluations, plots.incumbent, plots.budgets])
def test_a_plot_is_drawn_where_it_is_asked_for(failing, plot):
    _, axes = plt.subplots(1, 2)
    assert plot(failing, ax=axes[1]) is axes[1]
    assert not axes[0].has_data()
    assert len(plt.get_fignums()) == 1


def test_hyperparameters_are_drawn_where_they_are_asked_for(varied):
    _, axes = plt.subplots(1, 2)
    assert plots.hyperparameters(varied, labels=["rate", "depth"], ax=axes) == list(axes)
    assert plots.hyperparameters(varied, labels=["rate"], ax=axes[1]) == [axes[1]]
    assert len(plt.get_fignums()) == 1


def everything(trials, space):
    plots.evaluations(trials)
    for against in ("evaluations", "total_budget", "seconds"):
        plots.incumbent({"it": trials, "another": Trials()}, against=against)
    plots.budgets(trials)
    plots.hyperparameters(trials)
    plots.hyperparameters(trials, space=space)
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.mark.parametrize("evaluations", [0, 2, 13])
@pytest.mark.slow
def test_all_can_be_drawn_in_mid_run(space, evaluations):
    drawn = []

    def objective(params):
        if len(trials) == evaluations + 1:  # while the last one runs
            everything(trials, space)
            drawn.append(True)
        return loss(params)

    trials = Trials()
    everything(trials, space)
    run(objective, space, evaluations + 1, trials=trials)
    assert drawn


@pytest.mark.slow
def test_all_can_be_drawn_where_nothing_has_succeeded(space):
    objective = interrupted(lambda params: {"status": STATUS_FAIL}, 5)
    trials = Trials()
    with pytest.raises(KeyboardInterrupt):
        run(objective, space, 9, trials=trials)
    everything(trials, space)
    with pytest.raises(AllTrialsFailed):
        run(objective, space, 9, trials=trials)
    everything(trials, space)


@pytest.mark.slow
def test_all_can_be_drawn_with_float_budgets_and_no_label(space):
    del space["epochs"]
    algo = partial(hyperband.suggest, min_budget=0.1, max_budget=0.9)
    with pytest.warns(UserWarning, match="can't see its budget"):
        trials = run(lambda p: p["x"], space, ITERATION, algo=algo)
    everything(trials, space)
    assert [t.get_text() for t in plots.evaluations(trials).get_xticklabels()] == ["0.1", "0.3", "0.9"]


@pytest.mark.slow
def test_matplotlib_is_imported_by_a_plot_alone():
    script = (
        "import sys\n"
        "from hyperopt import Trials\n"
        "from hyperopt_hyperband import hyperband, plots\n"
        "hyperband.report(Trials())\n"
        "assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = sys.modules['matplotlib.pyplot'] = None\n"
        "try:\n"
        "    plots.evaluations(Trials())\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'hyperopt-hyperband[plots]'\" in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
