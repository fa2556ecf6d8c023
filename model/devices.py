"""Chooses the device on which a network runs, and the half precision that is fast on it."""

import torch

from model.errors import UserError
from model.inference.kernels import cpu_flags

BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16"}  # Linux's names of the units of a CPU that multiply bfloat16


def pick_device(name: str | None = None) -> torch.device:
    """Returns the named device, or the fastest available one: CUDA, then Apple's MPS, then the CPU.

    Raises UserError if the named device is not available.
    """
    available = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    try:
        device = torch.device(name or available[0])
    except RuntimeError as e:
        raise UserError(f"device {name}: no such device; available here: {', '.join(available)}") from e
    if device.type not in available or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"device {name}: not on this machine or not in this build of torch; available here: {', '.join(available)}"
        )
    return device


def half_precision(device: torch.device) -> torch.dtype:
    """Returns the half precision in which convolutions are fast on a device, for `load_model`'s dtype.

    float16 on GPUs, bfloat16 on CPUs that have units for it, float32 on other CPUs, where half precision is slower.
    """
    if device.type != "cpu":
        return torch.float16
    return torch.float32 if BFLOAT16_UNITS.isdisjoint(cpu_flags()) else torch.bfloat16
