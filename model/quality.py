"""--quality: what fast, balanced and best mean, each by a measured table (benchmark/tradeoff.py).

Default weights, one CPU thread, PSNR on Middlebury OTHER and on 76 triplets of UCF101, ms at 640x480:

    scale 1       32.944   33.976    327
    bf16          32.944   33.975    247    fast: a quarter of the time saved, nothing lost
    tta           33.121   34.099    650    best: 0.15 dB more for twice the time
    scale 0.5     31.790   33.257    230    no preset: 0.94 dB for little more than bf16 saves without loss
    scale 2       32.643   34.111   1049    no preset: three times the time, on average no better

The flow scale is a matter of size and motion, not of haste: --scale auto.
"""

from typing import NamedTuple

import torch

HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}  # on CUDA not measured


class Quality(NamedTuple):
    """A choice, and why."""

    half: bool  # convolutions in half precision
    tta: bool
    reason: str


QUALITIES = {
    "fast": Quality(True, False, "convolutions in half precision, 1.3 times as fast on a CPU, as good to 0.001 dB"),
    "balanced": Quality(False, False, "the network as it was trained"),
    "best": Quality(False, True, "averaged with the turned frames, 0.15 dB better in twice the time"),
}


def convolution_dtype(device: torch.device, quality: str, fp16: bool = False) -> torch.dtype:
    """What convolutions compute in: float16 where --fp16 says so, else as the quality has it for that device."""
    if fp16:
        return torch.float16
    return HALF.get(device.type, torch.float32) if QUALITIES[quality].half else torch.float32
