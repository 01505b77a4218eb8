# %% [markdown]
# # Hyperband for Hyperopt, from plan to pictures
#
# Every cell also runs in a notebook. `python examples/walkthrough.py [DIRECTORY]` puts the pictures into a
# directory, or the current one. Needs scikit-learn and matplotlib.

# %%
import sys
import warnings
from pathlib import Path

import numpy as np
from hyperopt import fmin, hp, tpe
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from hyperopt_hyperband import Trials, hyperband, plots

directory = Path(sys.argv[1] if len(sys.argv) > 1 and __name__ == "__main__" else ".")
warnings.simplefilter("ignore", ConvergenceWarning)  # at low budgets training ends early by intention

# %% [markdown]
# The objective trains a small network on digits. The budget is its number of epochs.

# %%
features, target = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=0.4, random_state=0)

space = {
    "learning_rate_init": hp.loguniform("learning_rate_init", np.log(0.0003), np.log(0.3)),
    "alpha": hp.loguniform("alpha", np.log(0.0001), np.log(1)),
    "activation": hp.choice("activation", ["identity", "logistic", "tanh", "relu"]),
    "hidden_layer_sizes": hp.choice("hidden_layer_sizes", [(16,), (32,), (32, 32)]),
    "solver": hp.choice("solver", ["adam", {"solver": "sgd", "momentum": hp.uniform("momentum", 0, 0.99)}]),
    "max_iter": hyperband.budget("max_iter", 1, 27),
}


def objective(params):
    if isinstance(params["solver"], dict):
        params = params | params["solver"]
    model = MLPClassifier(random_state=0, **params).fit(train_x, train_y)
    return log_loss(test_y, model.predict_proba(test_x))


# %% [markdown]
# ## The plan
# What one Hyperband iteration will evaluate, and how long it would take if 27 epochs took 27 seconds. On a
# command line: `python -m hyperopt_hyperband plan --max-budget 27 --seconds 27 --workers 4`.

# %%
plan = hyperband.schedule(1, 27)
print(plan)
print("on one worker:", plan.duration(27), " on four:", plan.duration(27, workers=4))

# %% [markdown]
# ## The run
# At most five Hyperband iterations; it stops when a whole one has not improved the incumbent. A training that
# diverges raises: it counts as a failure.

# %%
trials = Trials()
fmin(
    objective,
    space,
    algo=hyperband.suggest,
    max_evals=5 * plan.evaluations,
    trials=trials,
    early_stop_fn=hyperband.no_progress(iterations=1),
    catch_eval_exceptions=True,
    rstate=np.random.default_rng(0),
    show_progressbar=False,
)

# %% [markdown]
# ## The report
# In a notebook it shows as tables. It can be asked for at any moment of a run.

# %%
report = hyperband.report(trials, space=space)
print(report)

# %% [markdown]
# Every evaluation as a flat dict: `pandas.DataFrame(hyperband.records(trials, space=space))`.

# %%
print(hyperband.records(trials, space=space)[0])

# %% [markdown]
# ## The pictures
# Each configuration through its rungs; where the budget went; which hyperparameters matter.

# %%
evaluations = plots.evaluations(trials)
budgets = plots.budgets(trials)
hyperparameters = plots.hyperparameters(trials, space=space)

# %% [markdown]
# The same search by TPE, at the same total budget: under TPE the budget of the space is always 27.

# %%
tpe_trials = Trials()
fmin(
    objective,
    space,
    algo=tpe.suggest,
    max_evals=round(report.total_budget / 27),
    trials=tpe_trials,
    catch_eval_exceptions=True,
    rstate=np.random.default_rng(0),
    show_progressbar=False,
)
incumbent = plots.incumbent({"hyperband": trials, "tpe": tpe_trials})

# %%
for name, axes in {
    "evaluations": evaluations,
    "budgets": budgets,
    "hyperparameters": hyperparameters[0],
    "incumbent": incumbent,
}.items():
    axes.figure.savefig(directory / f"{name}.png", dpi=90)
