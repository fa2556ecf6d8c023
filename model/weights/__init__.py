"""Reads weight files: checkpoints, ncnn models, and the configurations of the published networks."""

from torch import Tensor

State = dict[str, Tensor]  # the tensors of a network by their keys
