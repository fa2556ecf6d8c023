"""Networks and what surrounds them, on tensors: `load_model` gives a `RIFE`, whose methods interpolate."""

from model.devices import pick_device
from model.errors import UserError, WeightsError
from model.loading import load_model

# Before the class RIFE: importing the module model.RIFE later would put the module in the place of the class.
from model.RIFE import Model
from model.wrapper import RIFE

__all__ = ["RIFE", "Model", "UserError", "WeightsError", "load_model", "pick_device"]
