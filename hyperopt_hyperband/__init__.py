"""Hyperband for Hyperopt: `fmin(..., algo=hyperband.suggest, ...)`, or with a model, `algo=bohb.suggest`."""

from hyperopt_hyperband import bohb, hyperband

__all__ = ["bohb", "hyperband"]
