"""Networks and what surrounds them, on tensors: `load_model` gives a `RIFE`, whose methods interpolate."""

from model.checkpoint import WeightsError
from model.RIFE import RIFE, load_model

__all__ = ["RIFE", "WeightsError", "load_model"]
