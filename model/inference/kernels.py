"""Compiles and calls the CPU kernels in cpp/: built on first use, kept in a cache, never required.

For Linux on CPUs with AVX2 or AVX-512 and a compiler ($CXX or g++); `available()` returns whether they can be used. Its
first call (two seconds, once a machine) builds them into PyTorch's cache of extensions, $TORCH_EXTENSIONS_DIR or
~/.cache/torch_extensions. The kernels need no headers of PyTorch, and so not its extension loader, which needs ninja.
All kernels compute in float32 in memory order (B,H,W,C), torch's channels_last, on as many threads as torch uses.
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

from model.files import user_cache

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
BUILD_SECONDS = 120  # limit of a build, which takes two: after it the network runs without the kernels
VECTORS = ("AVX2", "AVX512")  # torch's names of the vector instructions that the kernels were measured on
POINTS = (11 / 16, 3 / 2)  # of the Winograd transform, A and B in cpp/winograd.h


def available() -> bool:
    """Returns whether the kernels can be used here; the first call may build them."""
    return _library() is not None


@lru_cache(1)
def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux" or torch.backends.cpu.get_cpu_capability() not in VECTORS:
        return None
    try:
        return _load()
    except (OSError, subprocess.SubprocessError) as e:
        reason = " ".join(str(e).split())[:80]
        warnings.warn(
            "the CPU kernels were not built, plain PyTorch takes 2 to 3 times as long "
            f"(install g++ to build them): {reason}",
            stacklevel=2,
        )
        return None


@lru_cache(1)
def cpu_flags() -> tuple[str, ...]:
    """Returns the instruction sets of this CPU, in Linux's names; () where they cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    return tuple(next((line for line in lines if line.startswith("flags")), "").split())


def _load() -> ctypes.CDLL:
    """Returns the shared library for these sources, this CPU and this torch, from the cache or newly built."""
    sources = [file.read_text() for file in sorted(SOURCES.iterdir())]
    identity = *sources, torch.__version__, *cpu_flags(), *FLAGS
    key = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
    name = f"rife_kernels_{key}"
    kept = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or user_cache() / "torch_extensions") / f"{name}.so"
    if os.path.exists(kept):  # False too where the folder cannot be read
        return ctypes.CDLL(str(kept))
    # Built in a temporary folder and moved: two processes may build at once, and a killed one leaves no lock.
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        made = Path(folder) / kept.name
        command = [os.environ.get("CXX") or "g++", *FLAGS, str(SOURCES / "kernels.cpp"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
        library = ctypes.CDLL(str(made))
        with suppress(OSError):  # without a writable cache, this process uses the library all the same
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f"{Path(folder).name}.part")
            part.write_bytes(made.read_bytes())
            part.replace(kept)
    return library


def lanes() -> int:
    """Returns the number of floats in a vector of this CPU: 8 or 16."""
    library = _library()
    assert library is not None
    return int(library.vector_width())


def longs(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """Returns the values as an array of int64, as the kernels take sizes."""
    return (ctypes.c_int64 * len(values))(*values)


def _plain(argument: object) -> object:
    """Returns an argument as ctypes passes it to a kernel: a tensor as a pointer, None as a null pointer."""
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def call(name: str, *args: object) -> None:
    """Calls a kernel by its name; the number of threads is added as the last argument."""
    if any(isinstance(a, Tensor) and a.is_meta for a in args):
        return  # tensors without data: memory.py counts their number and size only
    library = _library()
    assert library is not None
    with record_function(f"kernels::{name}") if torch.autograd._profiler_enabled() else nullcontext():
        getattr(library, name)(*map(_plain, args), ctypes.c_int64(torch.get_num_threads()))


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Returns a tensor (B,C,H,W) in the memory order of the kernels, with the batch, device and dtype of `like`."""
    shape = like.shape[0], channels, height, width
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Winograd:
    """Runs a 3x3 convolution of stride 1 and its activation, v > 0 ? v : slope * v, with a quarter of the products."""

    def __init__(self, weight: Tensor, bias: Tensor, slope: Tensor, *, step: int = 1) -> None:
        """Packs weight (O,C,3,3), bias (O) and slope (O); both C and O from 16 to 4096.

        step 2: the outputs are four sub-pixels, (2,2,O/4) with O/4 a multiple of `lanes()`, and are pixel-shuffled.
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
        """Convolves x (B,C,H,W) to (B,O,H,W), or into `out`; adds the residual before the activation, or `after` it.

        With step 2 the result is (B,O/4,2*H,2*W), without a residual.
        """
        b, c, h, w = x.shape
        x = x.float().contiguous(memory_format=torch.channels_last)
        residual = None if residual is None else residual.float()
        channels = self.outputs // self.step**2
        y = empty(x, channels, self.step * h, self.step * w) if out is None else out
        pitch = channels if out is None else out.stride(3)
        tensors = (x, self.weight, self.bias, self.slope, residual, y)
        call("winograd", *tensors, b, h, w, c, self.outputs, self.step, pitch, int(after))
        return y


def _weight_transform() -> Tensor:
    """Returns G of the transform, (6,3) float64: one row each for 0, +-A, +-B and infinity."""
    a, b = POINTS
    rows = [[1 / (a * b) ** 2, 0.0, 0.0]]
    for p, q in ((a, b), (b, a)):
        scale = 2 * p**2 * (p**2 - q**2)
        rows += [[1 / scale, sign * p / scale, p**2 / scale] for sign in (1, -1)]
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def to_bytes(image: Tensor) -> Tensor:
    """Converts (C,H,W) in 0..1 to (H,W,C) uint8: clamps and rounds to nearest in one pass; NaN becomes 0."""
    channels, height, width = image.shape
    image = image if image.stride(2) == 1 else image.contiguous()
    out = image.new_empty(height, width, channels, dtype=torch.uint8)
    call("to_bytes", out, image, longs(channels, height, width), image.stride(0), image.stride(1))
    return out


def warp(image: Tensor, flow: Tensor, out: Tensor) -> None:
    """Warps an image (B,C,H,W), C a multiple of 16, into `out`, which may be channels of a wider tensor."""
    b, channels, height, width = image.shape
    image, flow = image.contiguous(memory_format=torch.channels_last), flow.contiguous()
    size = longs(b, height, width, channels)
    call("warp", out, image, flow, size, 2 * height * width, out.stride(3))


def warp_planes(planes: Tensor, flow: Tensor) -> Tensor:
    """Warps planes (B,C,H,W) in contiguous order, H and W at least 2, with gradients: for training."""
    made: Tensor = _Warp.apply(planes, flow)
    return made


class _Warp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, flow: Tensor) -> Tensor:
        planes, flow = planes.contiguous(), flow.contiguous()
        ctx.save_for_backward(planes, flow)
        out = torch.empty_like(planes)
        call("warp_planes", out, planes, flow, longs(*planes.shape))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, Tensor]:
        planes, flow = ctx.saved_tensors
        of_flow, of_planes = torch.empty_like(flow), torch.empty_like(planes) if ctx.needs_input_grad[0] else None
        call("warp_planes_backward", of_flow, of_planes, of_out.contiguous(), planes, flow, longs(*planes.shape))
        return of_planes, of_flow


def activate(x: Tensor, slope: Tensor) -> Tensor:
    """Applies x > 0 ? x : slope * x in place, with one slope for each channel."""
    b, channels, height, width = x.shape
    call("activate", x, slope, b * height * width, channels)
    return x
