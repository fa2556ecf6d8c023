"""How much memory a network needs for a frame size, computed by running tensors without data through it."""

import copy
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from model.IFNet_v4 import IFNet_v4
from model.image import Padder


class _LiveBytes(TorchDispatchMode):
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
def peak_bytes(network: nn.Module, height: int, width: int) -> int:
    """Weights, two frames and the most that is alive at once between them, in float32 at scale 1.

    Not counted: what convolutions borrow while they run and what an allocator keeps, which depend on the machine.
    """
    net: Any = copy.deepcopy(network).to("meta")
    multiple = net.pad_multiple
    if isinstance(net, IFNet_v4):  # whether to start again depends on the flow, which has no values here
        net.config = replace(net.config, auto_scale=False)
    weights = sum(p.numel() * p.element_size() for p in (*net.parameters(), *net.buffers()))
    padder = Padder(height, width, multiple)
    with _LiveBytes() as live:
        frames = [padder.pad(torch.empty(1, 3, height, width, device="meta")) for _ in range(2)]
        features = [net.frame_features(frame) for frame in frames]
        net(*frames, 0.5, *features)
    return weights + live.peak
