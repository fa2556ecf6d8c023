"""Choosing the device a network runs on."""

import torch

from model.errors import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device named, or the best there is: CUDA, then Apple's MPS, then the CPU. UserError if it is not there."""
    there = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    try:
        device = torch.device(name or there[0])
    except RuntimeError as e:
        raise UserError(f"--device {name}: no such device; here there are: {', '.join(there)}") from e
    if device.type not in there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"--device {name}: this machine, or this build of torch, has only: {', '.join(there)}")
    return device
