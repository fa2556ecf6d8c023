"""How much memory a network needs for a frame size, computed by running tensors without data through it; how much
there is; and how what one tensor leaves serves the next."""

import copy
import ctypes
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from model.IFNet_v4 import IFNet_v4
from model.image import padder_for
from model.inference.engines import Compiled
from model.inference.fast import Fast
from model.inference.graphs import Graphed

# Resident memory to computed memory, on a CPU: 1.48 of 4.25's own forward at 720p (733 MB to 495), 1.43 of the paper's;
# by the kernels 1.31 at 720p, 1.12 at 1080p, 1.03 at 4K (1295 MB to 1252).
LIBRARIES = 1.5
PROBE = 1024  # px, the side of the frame from which, and from two side by side, the need of a pixel is told
ROOT = Path("/")
Called = nn.Module | Fast | Graphed | Compiled  # a network, or what is called in its place
# Of glibc's mallopt: how many blocks are got from the system one by one, and how much is free before some goes back
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
NEVER = 2**31 - 1


class LiveBytes(TorchDispatchMode):
    """Adds up the storage of every tensor made within it, for as long as it lives."""

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
def peak_bytes(network: Called, height: int, width: int, scale: float = 1.0, *, mapped: bool = False) -> int:
    """Weights, two frames and the most that is alive at once between them, in the dtype of the weights.

    Of a Fast also what it keeps beside the weights. `mapped`: at a timestep for every pixel. Not counted: what
    convolutions borrow while they run and what an allocator keeps, which depend on the machine.
    """
    net: Any = copy.deepcopy(network if isinstance(network, nn.Module) else network.net).to("meta")
    if isinstance(net, IFNet_v4):  # whether to start again depends on the flow, which has no values here
        net.config = replace(net.config, auto_scale=False)
    weights = sum(p.numel() * p.element_size() for p in (*net.parameters(), *net.buffers()))
    called: Any = Fast(net) if isinstance(network, Fast) else net
    padder = padder_for(net, height, width, scale)
    with LiveBytes() as live:
        frames = [padder.pad(torch.empty(1, 3, height, width, device="meta")) for _ in range(2)]
        features = [called.frame_features(frame) for frame in frames]
        time = torch.empty_like(frames[0][:, :1]) if mapped else 0.5
        called(*frames, time, *features, scale=scale)
    return weights + live.peak


def bytes_per_pixel(network: Called, scale: float = 1.0, *, mapped: bool = False) -> float:
    """What each pixel of a large frame adds to the peak, with what libraries take on top; `mapped` as in peak_bytes."""
    one, two = (peak_bytes(network, PROBE, n * PROBE, scale, mapped=mapped) for n in (1, 2))
    return LIBRARIES * (two - one) / PROBE**2


def available_bytes(device: torch.device, root: Path = ROOT) -> int | None:
    """Memory that is free on a device; None where nothing says so (MPS, and the CPU on other systems than Linux).

    On a CPU the least of what the system and the limits of the process's control groups (containers) leave.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
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


def keep_freed_memory() -> bool:
    """Has the process keep what tensors free for the next ones; whether it can (glibc: Linux) and now does.

    By itself glibc gives large tensors back at once and gets every page anew, zeroed: a sixth of the time at 720p, a
    third at 4K. It concerns all of the process and cannot be undone, so commands call it, and no library function.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
