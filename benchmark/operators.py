"""Where the time of a call goes: by PyTorch's operators, and by the compiled kernels, which it sees as such."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmark.device import synchronise


class Operator(NamedTuple):
    """What one operator takes of a call, without those that it calls itself."""

    name: str  # as PyTorch's profiler has it: aten::..., kernels::...; on CUDA the device's own names
    ms: float
    calls: float


def operators(call: Callable[[], object], device: torch.device, runs: int = 5) -> list[Operator]:
    """Of one call on the average of `runs`, longest first: the device's time on CUDA, the caller's elsewhere."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(runs):
            call()
        synchronise(device)
    found = [
        Operator(
            event.key,
            (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000 / runs,
            event.count / runs,
        )
        for event in profiler.key_averages()
    ]
    return sorted(found, key=lambda operator: -operator.ms)
