"""The compiled kernels of kernels.cpp: built on first use, kept in a cache, never required.

Only on Linux CPUs with AVX2 or more, and only if there is a compiler ($CXX or g++); `available()` tells. One call of it
(two seconds, once a machine) builds them into the cache that PyTorch keeps its extensions in, $TORCH_EXTENSIONS_DIR or
~/.cache/torch_extensions. They use none of PyTorch's headers: its extension loader, which wants ninja, is not needed.
All work on float32 in memory order (B,H,W,C), torch's channels_last, on as many threads as torch has.
"""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.profiler import record_function

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
BUILD_SECONDS = 120  # it takes two; a compiler that hangs is done without
VECTORS = ("AVX2", "AVX512")  # of torch's names for what a CPU can do: those the kernels were measured on
POINTS = (11 / 16, 3 / 2)  # of the Winograd transform, as in the source


def available() -> bool:
    """Whether the kernels can be used here; the first call may build them."""
    return _library() is not None


@lru_cache(1)
def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux" or torch.backends.cpu.get_cpu_capability() not in VECTORS:
        return None
    try:
        return _load()
    except (OSError, subprocess.SubprocessError) as e:
        why = " ".join(str(e).split())[:80]
        remedy = "g++ on the PATH builds it"
        warnings.warn(
            f"{SOURCE.name} was not built, plain PyTorch takes 2 to 3 times as long ({remedy}): {why}", stacklevel=2
        )
        return None


@lru_cache(1)
def cpu_flags() -> tuple[str, ...]:
    """What this CPU can do, in Linux's names; nothing where those cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    return tuple(next((line for line in lines if line.startswith("flags")), "").split())


def _load() -> ctypes.CDLL:
    """The shared library of this source for this CPU and torch, from the cache or built."""
    of_this = SOURCE.read_text(), torch.__version__, *cpu_flags(), *FLAGS
    key = hashlib.sha256("\n".join(of_this).encode()).hexdigest()[:16]
    name = f"rife_kernels_{key}"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache) / "torch_extensions") / f"{name}.so"
    if kept.exists():
        return ctypes.CDLL(str(kept))
    # Built in a folder of its own and moved: two processes may build at once, and one that is killed leaves no lock.
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        made = Path(folder) / kept.name
        command = [os.environ.get("CXX") or "g++", *FLAGS, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
        library = ctypes.CDLL(str(made))
        with suppress(OSError):  # nowhere to keep it: this process has it all the same
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f"{Path(folder).name}.part")
            part.write_bytes(made.read_bytes())
            part.replace(kept)
    return library


def lanes() -> int:
    """How many floats a vector of this CPU has: 8 or 16."""
    library = _library()
    assert library is not None
    return int(library.vector_width())


def _longs(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _plain(argument: object) -> object:
    """A tensor as a pointer, None as none, numbers as the kernels take them."""
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def _call(name: str, *args: object) -> None:
    if any(isinstance(a, Tensor) and a.is_meta for a in args):
        return  # tensors without data: what counts is how many there are and how large (memory.py)
    library = _library()
    assert library is not None
    with record_function(f"kernels::{name}") if torch.autograd._profiler_enabled() else nullcontext():
        getattr(library, name)(*map(_plain, args), ctypes.c_int64(torch.get_num_threads()))


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """(B,C,H,W) in the memory order of the kernels; batch, device and dtype are those of `like`."""
    shape = like.shape[0], channels, height, width
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Winograd:
    """A 3x3 convolution of stride 1 and its activation, v > 0 ? v : slope * v, in a quarter of the multiplications."""

    def __init__(self, weight: Tensor, bias: Tensor, slope: Tensor, *, step: int = 1) -> None:
        """weight (O,C,3,3), bias (O), slope (O); both C and O from 16 to 4096.

        step 2: the outputs are those of four sub-pixels, (2,2,O/4), O/4 a multiple of `lanes()`, and come shuffled.
        """
        transform = _weight_transform().to(weight.device)
        panels = [
            torch.einsum("ij,ocjl,kl->ikco", transform, part.double(), transform).flatten(0, 1).float()
            for part in F.pad(weight, (0, 0) * 3 + (0, -len(weight) % lanes())).split(lanes())
        ]
        self.weight = torch.stack(panels, 1)  # (36,panels,C,lanes)
        self.bias, self.slope, self.outputs = bias.float().contiguous(), slope.float().contiguous(), len(weight)
        self.step = step

    def __call__(
        self, x: Tensor, residual: Tensor | None = None, *, after: bool = False, out: Tensor | None = None
    ) -> Tensor:
        """x (B,C,H,W) -> (B,O,H,W), or into `out`; the residual is added before the activation, or `after` it.

        step 2: -> (B,O/4,2*H,2*W), without a residual.
        """
        b, c, h, w = x.shape
        x = x.float().contiguous(memory_format=torch.channels_last)
        residual = None if residual is None else residual.float()
        channels = self.outputs // self.step**2
        y = empty(x, channels, self.step * h, self.step * w) if out is None else out
        pitch = channels if out is None else out.stride(3)
        tensors = (x, self.weight, self.bias, self.slope, residual, y)
        _call("winograd", *tensors, b, h, w, c, self.outputs, self.step, pitch, int(after))
        return y


def _weight_transform() -> Tensor:
    """G of the transform, (6,3) float64: one row for 0, +-A, +-B and infinity."""
    a, b = POINTS
    rows = [[1 / (a * b) ** 2, 0.0, 0.0]]
    for p, q in ((a, b), (b, a)):
        scale = 2 * p**2 * (p**2 - q**2)
        rows += [[1 / scale, sign * p / scale, p**2 / scale] for sign in (1, -1)]
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


class Change(ctypes.Structure):
    """What one block said, as the kernels read it: (B,C,h,w) whose first channels are 4 of flow, then the mask."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("channels", ctypes.c_int64),
        ("factor", ctypes.c_int64),
        ("gain", ctypes.c_float),
        ("packed", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
    )


Said = tuple[tuple[Tensor, int, int], ...]  # what blocks said, as Estimate.add takes it


class Estimate:
    """The flow and mask so far: the sum of what the blocks said, each kept at the size it was said in."""

    def __init__(self, side0: Tensor, side1: Tensor, *, sum_masks: bool, said: Said = ()) -> None:
        """Sides (B,C,H,W): 3 of colour, features, and zeros up to C = 4, 8, 16 or 32."""
        self.sides, self.sum_masks = (side0, side1), sum_masks
        self.said = list(said)

    def add(self, tail: Tensor, factor: int, packed: int) -> None:
        """A block's output; the frame is `factor` times larger, which is also what its flow is multiplied by.

        packed 2 or 4: (B,packed**2*C,h,w), still to be shuffled, with the sub-pixels, row by row, before the channels;
        1: (B,C,h,w).
        """
        self.said.append((tail, factor, packed))

    def _arguments(self) -> tuple[object, ...]:
        b, stride, height, width = self.sides[0].shape
        changes = [
            Change(tail.data_ptr(), tail.shape[1] // packed**2, f, float(f), packed, height // f, width // f)
            for tail, f, packed in self.said
        ]
        return *self.sides, _longs(b, height, width, stride), (Change * len(changes))(*changes), len(changes)

    def inputs(
        self, *, colours: int, factor: int, again: bool, time: float | None, rest: int, rows: tuple[int, int]
    ) -> Tensor:
        """Rows of what a block sees at 1/factor of the frame's size, factor 1 or even; zeros outside: (B,C,rows,W).

        `colours` of each warped side, both frames if `again`, the time, `rest` (mask and features), 4 of flow.
        """
        width = self.sides[0].shape[3]
        began = bool(self.said)
        channels = 2 * colours + 6 * (again and began) + (time is not None) + (rest + 4) * began
        out = empty(self.sides[0], channels, rows[1] - rows[0], width // factor)
        shape = _longs(colours, factor, again and began, rest if began else 0, self.sum_masks, channels)
        arguments = (*self._arguments(), shape, -1.0 if time is None else time, *rows)
        _call("block_inputs", out, *arguments)
        return out

    def finish(self, *, sharp: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The blended image (B,3,H,W), the flow (B,4,H,W) px and the mask (B,1,H,W) in 0..1.

        `sharp`: the last tail has eight channels more, how each side is sampled (sharp.py, sharpened) and how far
        the blend is smoothed (`smoothed`).
        """
        b, _, height, width = self.sides[0].shape
        image, flow, mask = (self.sides[0].new_empty(b, channels, height, width) for channels in (3, 4, 1))
        _call("finish", image, flow, mask, *self._arguments(), int(self.sum_masks), int(sharp))
        if sharp:
            blended, image = image, torch.empty_like(image)
            _call("smooth", image, blended, *self._arguments()[2:])
        return image, flow, mask


def make_side(image: Tensor, features: Tensor | None) -> Tensor:
    """image (B,3,H,W) and features (B,4*E,H/2,W/2), sub-pixels before channels -> a side of an Estimate."""
    b, _, height, width = image.shape
    channels = 0 if features is None else features.shape[1] // 4
    side = empty(image, 4 if not channels else next(n for n in (8, 16, 32) if n >= 3 + channels), height, width)
    image = image.contiguous(memory_format=torch.channels_last)
    size = _longs(b, height, width, side.shape[1])
    _call("make_side", side, image, features, size, channels)
    return side


def to_bytes(image: Tensor) -> Tensor:
    """(C,H,W) in 0..1 -> (H,W,C) uint8: clamped, rounded to nearest, in one pass; what is not a number becomes 0."""
    channels, height, width = image.shape
    image = image if image.stride(2) == 1 else image.contiguous()
    out = image.new_empty(height, width, channels, dtype=torch.uint8)
    _call("to_bytes", out, image, _longs(channels, height, width), image.stride(0), image.stride(1))
    return out


def warp(image: Tensor, flow: Tensor, out: Tensor) -> None:
    """Puts warp.warp of an image (B,C,H,W), C a multiple of 16, into `out`, which may be channels of a wider tensor."""
    b, channels, height, width = image.shape
    image, flow = image.contiguous(memory_format=torch.channels_last), flow.contiguous()
    size = _longs(b, height, width, channels)
    _call("warp", out, image, flow, size, 2 * height * width, out.stride(3))


def warp_planes(planes: Tensor, flow: Tensor) -> Tensor:
    """warp.warp of planes (B,C,H,W) in their usual order, H and W at least 2, with its gradients: for training."""
    made: Tensor = _Warp.apply(planes, flow)
    return made


class _Warp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, flow: Tensor) -> Tensor:
        planes, flow = planes.contiguous(), flow.contiguous()
        ctx.save_for_backward(planes, flow)
        out = torch.empty_like(planes)
        _call("warp_planes", out, planes, flow, _longs(*planes.shape))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, Tensor]:
        planes, flow = ctx.saved_tensors
        of_flow, of_planes = torch.empty_like(flow), torch.empty_like(planes) if ctx.needs_input_grad[0] else None
        _call("warp_planes_backward", of_flow, of_planes, of_out.contiguous(), planes, flow, _longs(*planes.shape))
        return of_planes, of_flow


def activate(x: Tensor, slope: Tensor) -> Tensor:
    """x > 0 ? x : slope * x, a slope a channel, in place."""
    b, channels, height, width = x.shape
    _call("activate", x, slope, b * height * width, channels)
    return x
