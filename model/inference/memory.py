"""Computes the memory that a network needs for a frame size, and reads how much is free and how much was used.

The need is computed by running the network on tensors without data. `keep_freed_memory` makes the process reuse memory.
"""

import copy
import ctypes
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from model.contract import Network
from model.IFNet_v4 import IFNet_v4
from model.image import padder_for
from model.inference.engine import Engine
from model.inference.kernel_engine import KernelEngine

# Resident memory to computed memory, on a CPU: 1.48 of 4.25's own forward at 720p (733 MB to 495), 1.43 of the paper's;
# by the kernels 1.31 at 720p, 1.12 at 1080p, 1.03 at 4K (1295 MB to 1252).
LIBRARIES = 1.5
PROBE = 1024  # px; the need of a pixel is the difference between a frame of this side and one of twice the width
ROOT = Path("/")
# Parameters of glibc's mallopt: the number of blocks mapped one by one, and the free bytes from which some are returned
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
NEVER = 2**31 - 1


class LiveBytes(TorchDispatchMode):
    """Adds up the storage of every tensor made inside the context, until the tensor is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}  # bytes by storage
        self.peak = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_iter(out):
            if isinstance(made, Tensor):
                self._count(made.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.peak = max(self.peak, sum(self.alive.values()))


@torch.no_grad()
def peak_bytes(network: Network, height: int, width: int, scale: float = 1.0) -> int:
    """Returns the bytes of the weights, two frames and the most tensors alive at once between them.

    In the dtype of the weights; for a KernelEngine with its packed weights.
    Not counted: the workspace of convolutions and the reserve of an allocator, which depend on the machine.
    """
    module: Any = network.net if isinstance(network, Engine) else network
    net = copy.deepcopy(module).to("meta")
    if isinstance(net, IFNet_v4):  # a restart depends on the flow, which has no values here
        net.config = replace(net.config, auto_scale=False)
    weights = sum(p.numel() * p.element_size() for p in (*net.parameters(), *net.buffers()))
    engine: Any = KernelEngine(net) if isinstance(network, KernelEngine) else net
    padder = padder_for(net, height, width, scale)
    with LiveBytes() as live:
        frames = [padder.pad(torch.empty(1, 3, height, width, device="meta")) for _ in range(2)]
        features = [engine.frame_features(frame) for frame in frames]
        engine(*frames, 0.5, *features, scale=scale)
    return weights + live.peak


def bytes_per_pixel(network: Network, scale: float = 1.0) -> float:
    """Returns the bytes that each pixel of a large frame adds to the peak, libraries included, as in peak_bytes."""
    one, two = (peak_bytes(network, PROBE, n * PROBE, scale) for n in (1, 2))
    return LIBRARIES * (two - one) / PROBE**2


def available_bytes(device: torch.device, root: Path = ROOT) -> int | None:
    """Returns the free bytes of a device; None where they are unknown (MPS, and the CPU on systems other than Linux).

    On a CPU: the least that the system and the limits of the process's control groups (containers) leave.
    """
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    if device.type != "cpu":
        return None
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        for folder in (root / mount / path.lstrip("/"), root / mount):  # within a container the path is the host's
            try:
                most = (folder / limit).read_text().strip()
                if most != "max":
                    free.append(int(most) - int((folder / usage).read_text()))
                break
            except OSError:
                continue
    return max(min(free), 0) if free else None


def peak_resident_bytes(root: Path = ROOT) -> int | None:
    """Returns the largest resident memory of this process so far; None if the system does not report it."""
    try:  # Linux, where ru_maxrss begins with the memory of the parent process
        lines = (root / "proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory() -> bool:
    """Makes the process keep the memory of freed tensors for new ones; returns whether it does (glibc: Linux).

    By default glibc returns large tensors to the system at once and gets every page again, zeroed: a sixth of the time
    at 720p, a third at 4K. It concerns the whole process and cannot be undone: only commands call it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
