"""Provides networks on tensors, and what surrounds them: `load_model` returns a `RIFE`, whose methods interpolate."""

from model.devices import pick_device
from model.errors import UserError, WeightsError
from model.RIFE import RIFE, Model, load_model

__all__ = ["RIFE", "Model", "UserError", "WeightsError", "load_model", "pick_device"]
