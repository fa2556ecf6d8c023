"""Networks and what surrounds them, on tensors: `load_model` gives a `RIFE`, whose methods interpolate."""

from model.errors import UserError, WeightsError
from model.RIFE import RIFE, load_model, pick_device

__all__ = ["RIFE", "UserError", "WeightsError", "load_model", "pick_device"]
