"""Hyperband for Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`, or with a model, `algo=bohb.suggest`."""

from hyperopt_hyperband import bohb, hyperband, plots
from hyperopt_hyperband._executor import ExecutorTrials
from hyperopt_hyperband._trials import Trials

__all__ = ["ExecutorTrials", "Trials", "bohb", "hyperband", "plots"]
__version__ = "0.1.0"
