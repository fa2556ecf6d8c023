"""What timing needs to know of a device: when it is done, and how much memory it took."""

import platform
from pathlib import Path

import torch


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given; CPUs always have."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> float:
    """MiB: of tensors since the last reset on CUDA, of the process since it began elsewhere; 0 on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss begins with what the parent process had taken
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    try:
        import resource  # Windows has none
    except ImportError:
        return 0.0
    unit = 1 if platform.system() == "Darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
