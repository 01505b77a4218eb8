import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import loss, run

from hyperopt_hyperband import hyperband
from hyperopt_hyperband.__main__ import main


def test_plan_prints_the_schedule(capsys):
    main(["plan", "--max-budget", "81", "--eta", "3"])
    assert capsys.readouterr().out == f"{hyperband.schedule(1, 81, 3)}\n"
    main(["plan", "--min-budget", "0.5", "--max-budget", "8"])
    assert capsys.readouterr().out == f"{hyperband.schedule(0.5, 8)}\n"


def test_plan_tells_the_duration(capsys):
    main(["plan", "--max-budget", "81", "--seconds", "81"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "expected duration on 1 worker: 31 min 42 s; with continued training 26 min 21 s"
    )
    main(["plan", "--max-budget", "81", "--seconds", "81", "--workers", "1000"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "expected duration on 1000 workers: 2 min 1 s; with continued training 1 min 21 s"
    )


def last_lines(capsys, *options):
    main(["plan", *options])
    lines = capsys.readouterr().out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("expected duration")) + 1 :]


def test_plan_tells_how_many_iterations_fit_into_the_hours(capsys):
    each = ["--max-budget", "81", "--seconds", "60"]
    assert last_lines(capsys, *each, "--hours", "8", "--workers", "4") == [
        "8 h hold 78 iterations, 16068 evaluations; with continued training 92 iterations, 18952 evaluations"
    ]
    assert last_lines(capsys, *each, "--hours", "0.35") == [
        "0.35 h hold no iteration; with continued training 1 iteration, 206 evaluations",
        "one iteration fits with --min-budget 1 --max-budget 27 --seconds 20 (5 min 13 s), or with "
        "--min-budget 3 --max-budget 81 --seconds 60 (15 min 40 s)",
    ]
    # As long as the plan takes: 1902 s.
    assert last_lines(capsys, "--max-budget", "81", "--seconds", "81", "--hours", str(1902 / 3600)) == [
        "0.528333 h hold 1 iteration, 206 evaluations; with continued training 1 iteration, 206 evaluations"
    ]


@pytest.mark.parametrize("low", ["1", "2", "0.3"])
@pytest.mark.parametrize("eta", ["2", "2.5", "3"])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_what_plan_says_would_fit_does(capsys, low, eta, workers):
    given = ["--eta", eta, "--workers", workers]
    plan = hyperband.schedule(float(low) if low == "0.3" else int(low), 100, float(eta))
    whole = plan.duration(60, int(workers)).total_seconds() / 3600
    for share in (0.9, 0.5, 0.2, 0.1, 0.05):
        hours = str(whole * share)
        each = ["--min-budget", low, "--max-budget", "100", "--seconds", "60", "--hours", hours]
        told, what_fits = last_lines(capsys, *each, *given)
        assert "h hold no iteration" in told
        for options in re.findall(r"--min-budget [^(]*", what_fits):
            told, *others = last_lines(capsys, *options.split(), "--hours", hours, *given)
            assert re.search("h hold [1-9]", told)
            assert others == []
        assert what_fits.count("--min-budget") >= 1


def test_plan_says_so_where_no_two_budgets_fit(capsys):
    each = ["--max-budget", "81", "--seconds", "6000"]
    assert last_lines(capsys, *each, "--hours", "0.01")[1:] == [
        "no iteration of two budgets or more fits: take more hours or workers"
    ]
    assert last_lines(capsys, "--min-budget", "81", *each, "--hours", "1")[1:] == [
        "no iteration of two budgets or more fits: take more hours or workers"
    ]


@pytest.mark.parametrize("saved_by", ["fmin", "save_trials"])
@pytest.mark.slow
def test_report_reads_a_file_in_a_process_of_its_own(space, tmp_path, saved_by):
    file = tmp_path / "trials"
    options = {
        "fmin": {"trials_save_file": str(file)},
        "save_trials": {"early_stop_fn": hyperband.save_trials(file)},
    }
    trials = run(loss, space, 30, **options[saved_by])
    shown = subprocess.run(
        [sys.executable, "-m", "hyperopt_hyperband", "report", file],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert shown.stdout == f"{hyperband.report(trials)}\n"


def test_report_names_options_by_the_space_in_the_current_folder(space, tmp_path, monkeypatch, capsys):
    trials = run(loss, space, 30, trials_save_file=str(tmp_path / "trials"))
    (tmp_path / "training.py").write_text(
        "from hyperopt import hp\n"
        "from hyperopt_hyperband import hyperband\n"
        "class Settings:\n"
        "    space = {\n"
        "        'x': hp.uniform('x', -5, 5),\n"
        "        'branch': hp.choice('branch', [{'kind': 'a', 'y': hp.normal('y', 0, 1)}, {'kind': 'b'}]),\n"
        "        'epochs': hyperband.budget('epochs', 1, 9),\n"
        "    }\n"
        "space = Settings.space\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("space", "Settings.space"):
        main(["report", "trials", "--space", f"training:{name}"])
        shown = capsys.readouterr().out
        assert shown == f"{hyperband.report(trials, space=space)}\n"
        assert re.search("^branch  [ab]$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("training", "--space training: pass module:name, as in train:space"),
        (":space", "--space :space: pass module:name"),
        ("missing_module:space", "No module named 'missing_module'"),
        ("broken:space", "ZeroDivisionError: division by zero"),
        ("empty:space", "module 'empty' has no attribute 'space'"),
    ],
)
def test_a_space_that_cant_be_imported_is_told(reference, message, space, tmp_path, monkeypatch, capsys):
    run(loss, space, 3, trials_save_file=str(tmp_path / "trials"))
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit, match="2"):
        main(["report", "trials", "--space", reference])
    assert message in capsys.readouterr().err


def test_the_help_warns_of_pickles(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--help"])
    assert "comes from a source you trust" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--max-budget", "81", "--eta", "1"], "eta=1: a rung keeps 1/eta"),
        (["plan", "--max-budget", "many"], "argument --max-budget: invalid"),
        (["plan", "--max-budget", "9", "--seconds", "1", "--workers", "0"], "workers=0: pass a whole number"),
        (["plan", "--max-budget", "9", "--hours", "1"], "hours=1: pass --seconds too, what one evaluation"),
        (["plan", "--max-budget", "9", "--seconds", "1", "--hours", "0"], "hours=0: pass a positive, finite"),
        (["report", "missing"], "missing: no such file"),
        (["report", __file__], "holds no trials"),
    ],
)
def test_mistakes_end_with_a_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x04].", "holds no trials"),
        (b"cgone\nObjective\n.", "can't be read: No module named 'gone'"),
    ],
)
def test_a_pickle_of_something_else_is_told(tmp_path, capsys, pickled, message):
    file = tmp_path / "pickled"
    file.write_bytes(pickled)
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(file)])
    assert message in capsys.readouterr().err
