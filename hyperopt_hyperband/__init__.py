"""Hyperband for Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`."""

from hyperopt_hyperband import hyperband

__all__ = ["hyperband"]
