"""Hyperband for Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`, or with a model, `algo=bohb.suggest`."""

from hyperopt_hyperband import bohb, hyperband
from hyperopt_hyperband.executor import ExecutorTrials

__all__ = ["ExecutorTrials", "bohb", "hyperband"]
