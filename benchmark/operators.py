"""Measures the time of a call by PyTorch's operators, the compiled kernels among them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmark.device import synchronise


class Operator(NamedTuple):
    """Holds the time of one operator in a call, without the operators that it calls."""

    name: str  # as PyTorch's profiler has it: aten::..., kernels::...; on CUDA the device's own names
    ms: float
    calls: float


def operators(call: Callable[[], object], device: torch.device, runs: int = 5) -> list[Operator]:
    """Returns the operators of a call, longest first, as means of `runs`: device time on CUDA, else the caller's."""
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
