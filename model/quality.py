"""--quality: what fast, balanced and best mean, each by a measured table (benchmark/tradeoff.py).

PSNR on Middlebury OTHER and on 76 triplets of UCF101, ms of processors at 640x480, on two AVX-512 cores, by the default
weights before their last three trainings, without the sharp blend:

    scale 1       33.617   34.151    119    balanced
    scale 0.5     32.611   33.505     78    no preset: 1 dB for a third of the time
    tta           33.716   34.283    247    best: 0.1 dB more for twice the time
    scale 2       33.778   34.277   1059    no preset: nine times the time
    bf16          33.617   34.150    342    no preset on a CPU: the kernels of float32 are faster

The flow scale is a matter of size and motion, not of haste: --scale auto.
"""

from typing import NamedTuple

import torch

HALF = {"cuda": torch.float16}  # not measured yet; elsewhere float32 is as fast or faster


class Quality(NamedTuple):
    """A choice, and why."""

    half: bool  # convolutions in half precision
    tta: bool
    reason: str


QUALITIES = {
    "fast": Quality(True, False, "convolutions in half precision on CUDA, elsewhere as balanced"),
    "balanced": Quality(False, False, "the network as it was trained"),
    "best": Quality(False, True, "averaged with the turned frames, 0.1 dB better in twice the time"),
}


def convolution_dtype(device: torch.device, quality: str, fp16: bool = False) -> torch.dtype:
    """What convolutions compute in: float16 where --fp16 says so, else as the quality has it for that device."""
    if fp16:
        return torch.float16
    return HALF.get(device.type, torch.float32) if QUALITIES[quality].half else torch.float32
