"""--quality: what fast, balanced and best mean, each by a measured table (benchmark/tradeoff.py).

PSNR on Middlebury OTHER and on 76 triplets of UCF101, ms of processors at 640x480, by the default weights on two cores
with AVX512-BF16 (AMD, Zen 4):

    scale 1       35.395   34.603    158    balanced
    bf16          35.390   34.603    137    fast, where a CPU multiplies bfloat16 (with AMX: seven tenths of the time)
    scale 0.5     34.394   34.345     90    no preset: 0.6 dB for two fifths of the time
    tta           35.497   34.622    312    best: 0.1 dB more for twice the time
    scale 2       34.931   34.611   1026    no preset: no better, in six to seven times the time

The flow scale is a matter of size and motion, not of haste: --scale auto.
"""

from typing import NamedTuple

import torch

from model.inference.kernels import cpu_flags


class Quality(NamedTuple):
    """A choice, and why."""

    half: bool  # convolutions in half precision
    tta: bool
    reason: str


BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # what Linux calls units that multiply it
QUALITIES = {
    "fast": Quality(True, False, "half precision on CUDA and on CPUs with units for bfloat16, elsewhere as balanced"),
    "balanced": Quality(False, False, "the network as it was trained"),
    "best": Quality(False, True, "averaged with the turned frames, 0.1 dB better in twice the time"),
}


def convolution_dtype(device: torch.device, quality: str, fp16: bool = False) -> torch.dtype:
    """What convolutions compute in: float16 where --fp16 says so, else as the quality has it for that device."""
    if fp16:
        return torch.float16
    if QUALITIES[quality].half and device.type == "cuda":
        return torch.float16  # not measured yet
    if QUALITIES[quality].half and device.type == "cpu" and not BFLOAT16.isdisjoint(cpu_flags()):
        return torch.bfloat16
    return torch.float32  # as fast or faster elsewhere
