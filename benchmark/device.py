"""Measures the time of calls, and memory, on any device."""

import math
import time
from collections.abc import Callable, Mapping

import torch

from model.inference.memory import peak_resident_bytes

LEAST_CALLS = 2  # timed calls of each, however long they take


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished its work; on a CPU it returns at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> float:
    """Returns peak memory in MiB: of tensors since the last reset on CUDA, else of the process; 0 on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return (peak_resident_bytes() or 0) / 2**20


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    runs: int,
    clock: Callable[[], float],
    seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Returns milliseconds of up to `runs` calls of each, in turn: other work on the machine then affects all alike.

    One call of each before those is not counted, because it allocates memory and chooses algorithms. After `seconds` by
    the wall clock, that call included, no further round begins; LEAST_CALLS rounds are always made if `runs` allows it.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    for i in range(1 + runs):
        if i > LEAST_CALLS and time.perf_counter() > end:
            break
        for name, call in calls.items():
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if i:
                times[name].append(1000 * (clock() - start))
    return times
