"""Defines the flags of the network, the same for all commands: weights, device, way of running; and loads it."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from commands.arguments import argument_type
from model import RIFE, load_model
from model.devices import half_precision, pick_device
from model.errors import UserError
from model.frames import FLOW_SCALES
from model.inference.engines import ENGINES, accelerate
from model.inference.memory import available_bytes
from model.inference.tile_engine import SMALLEST, tile_size, tiled
from model.loading import TRAIN_LOG

# Least memory for a pixel, in the smallest tiles: resident memory grows by 137 from 1024x1024 to 2048x2048.
LEAST_BYTES = 130


def add_weights_flags(parser: argparse._ActionsContainer) -> None:
    """Adds --model, --arch and --device."""
    add = parser.add_argument
    add("--model", type=Path, default=TRAIN_LOG, help="folder or file of weights (default: train_log)")
    add("--arch", help="name of the network, needed only for rife_2r (default: found from the shapes of the weights)")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")


def add_network_flags(parser: argparse._ActionsContainer) -> None:
    """Adds --model, --arch, --device and the flags of how the network runs, for `load_tiled` and `options`."""
    add_weights_flags(parser)
    add = parser.add_argument
    add("--fp16", action="store_true",
        help="compute convolutions in half precision: float16 on GPUs, bfloat16 on CPUs with instructions for it "
             "(default: off)")  # fmt: skip
    add("--engine", choices=ENGINES, help="run the network by CUDA graphs (small frames), torch.compile, TensorRT, "
        "ONNX Runtime, OpenVINO (on a CPU, or an Intel GPU or NPU), or PyTorch alone (default: PyTorch, on a CPU the "
        "project's kernels)")  # fmt: skip
    add("--scale", type=flow_scale, default=1.0, metavar="SCALE", help="size at which flow is estimated: 0.25 0.5 1 2 "
        "4, smaller for large motion; auto: 1, for 4K 0.5, for 8K 0.25 (default: 1)")  # fmt: skip
    add("--tile", type=tile_side, metavar="PX", help="run the network on blended tiles of PX a side, for less "
        f"memory; 0: never; auto: the largest that fit, from {SMALLEST}, if the frame does not "
        "(default: auto)")  # fmt: skip
    add(
        "--tta",
        action="store_true",
        help="average with the result of the frames rotated by 180 degrees, in twice the time (default: off)",
    )
    add(
        "--ensemble",
        action="store_true",
        help="run each block in both directions, in nearly twice the time; for 3.9-4.20 and 4.24 (default: off)",
    )
    add("--refine", action="store_true", help="add the refinement of the full files of 3.9 and 4.0-4.4 (default: off)")


def options(args: argparse.Namespace) -> dict[str, bool]:
    """Returns the options of RIFE.between that are switched on."""
    wanted = {"tta": args.tta, "ensemble": args.ensemble, "refine": args.refine}
    return {name: True for name, on in wanted.items() if on}


def load_tiled(
    args: argparse.Namespace,
    device: str | None,
    height: int,
    width: int,
    *,
    report: Callable[[str], None] | None = None,
) -> RIFE:
    """Loads the network for frames of a size; runs it on tiles of --tile, or on tiles that fit into the free memory.

    `args.scale` is a number here, not None. `report` is called with a line if tiles become smaller later (TileEngine).
    """
    check_memory(pick_device(device), height, width)
    return fit_network(args, model_from_flags(args, device), height, width, report=report)


def model_from_flags(args: argparse.Namespace, device: str | None, *, many: bool = False) -> RIFE:
    """Returns the network on a device, for frames of any size; `many`: for the frames of a video (see `accelerate`)."""
    place = pick_device(device)
    dtype = half_precision(place) if args.fp16 else torch.float32
    model = load_model(args.model, arch=args.arch, device=place, dtype=dtype, engine=args.engine)
    if args.engine or not many or model.engine is not model.net:  # it runs by the kernels already
        return model
    return RIFE(model.net, name=model.name, source=model.source, engine=accelerate(model.net, many=True))


def fit_network(
    args: argparse.Namespace,
    model: RIFE,
    height: int,
    width: int,
    *,
    report: Callable[[str], None] | None = None,
) -> RIFE:
    """Returns a loaded network in tiles that fit frames of a size; the arguments are those of `load_tiled`."""
    tile = tile_size(model, height, width, args.scale) if args.tile is None else args.tile
    return tiled(model, tile, report=report)


def check_memory(device: torch.device, height: int, width: int) -> None:
    """Raises UserError if two frames of a size, and the frame between them, exceed the free memory even in tiles."""
    free, needed = available_bytes(device), LEAST_BYTES * height * width
    if free is not None and needed > free:
        raise UserError(
            f"{width}x{height} frames take {needed / 2**30:.1f} GB of memory on {device} at least, and only "
            f"{free / 2**30:.1f} GB are free; make the frames smaller, or free memory"
        )


def parse_scale(text: str) -> float | None:
    """Reads a flow scale, one of FLOW_SCALES; returns None for "auto", which `pick_scale` replaces by a number."""
    if text == "auto":
        return None
    scale = float(text)
    if scale not in FLOW_SCALES:
        raise ValueError(f"{text!r} is no flow scale")
    return scale


def parse_tile(text: str) -> int | None:
    """Reads the side of a tile in px, 0 for whole frames; returns None for "auto". Raises ValueError for others."""
    if text == "auto":
        return None
    if not text.isdecimal() or 0 < int(text) < SMALLEST:
        raise ValueError(f"{text!r} is no side of a tile")
    return int(text)


flow_scale = argument_type(parse_scale, f"one of {', '.join(f'{s:g}' for s in FLOW_SCALES)}, auto")
tile_side = argument_type(parse_tile, f"auto, 0 or a number of pixels from {SMALLEST}")


def pick_scale(height: int, width: int) -> float:
    """Returns the flow scale for a frame size: 1 up to a short side of 1600 px, 0.5 up to 3200 (4K), then 0.25 (8K).

    Networks are trained on crops of 224 px: motion that is usual in 4K is larger than in training. Upstream
    advises 0.5 for 4K; EMA-VFI's protocol for X4K1000FPS, with extreme motion, uses 0.5 at 2K and 0.25 at 4K; other
    front ends also change at 1600 px.
    """
    short = min(height, width)
    return 1.0 if short <= 1600 else 0.5 if short <= 3200 else 0.25
