"""Hyperband for Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`."""

from hyperopt_hyperband import hyperband
from hyperopt_hyperband.executor import ExecutorTrials

__all__ = ["ExecutorTrials", "hyperband"]
