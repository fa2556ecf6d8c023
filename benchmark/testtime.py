"""Milliseconds and peak memory that one frame between two takes, at sizes from Vimeo90K's to 720p.

python3 benchmark/testtime.py                                      the three sizes, on the best device there is
python3 benchmark/testtime.py --size 1920x1080 --scale 0.5 --fp16
python3 benchmark/testtime.py --model DIR --device cpu --runs 3

Measured is one call of RIFE.inference: padding, the features of both frames and the network, with the frames already
on the device; not reading, decoding or writing. The median counts, since other work on a machine only ever adds. Peak
memory is the allocator's on CUDA, of the whole process elsewhere (there it only rises from size to size). The last
line is JSON.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

# run as a script, this folder is on the path, not the repository's root where `model` lies
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model import RIFE, UserError, load_model, pick_device
from model.loading import TRAIN_LOG
from model.wrapper import SCALES

SIZES = ((448, 256), (640, 480), (1280, 720))
WARM_UP = 2  # calls before the clock: allocations, and the choice of convolution algorithms


def size(text: str) -> tuple[int, int]:
    """WxH, for argparse."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 1280x720") from e
    if min(width, height) < 16:
        raise argparse.ArgumentTypeError(f"{text}: sizes start at 16x16")
    return width, height


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
    try:
        import resource  # Windows has none
    except ImportError:
        return 0.0
    unit = 1 if platform.system() == "Darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(model: RIFE, width: int, height: int, *, runs: int, scale: float) -> dict[str, Any]:
    """The median, the fastest and the slowest of `runs` calls, in ms, and the peak memory in MiB."""
    generator = torch.Generator().manual_seed(0)
    img0, img1 = (torch.rand(1, 3, height, width, generator=generator).to(model.device) for _ in range(2))
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    times = []
    for i in range(WARM_UP + runs):
        synchronise(model.device)
        start = time.perf_counter()
        model.inference(img0, img1, scale=scale)
        synchronise(model.device)
        if i >= WARM_UP:
            times.append(1000 * (time.perf_counter() - start))
    figures = {"median_ms": statistics.median(times), "fastest_ms": min(times), "slowest_ms": max(times)}
    figures["peak_memory_mib"] = peak_memory(model.device)
    return {"width": width, "height": height, **{key: round(value, 2) for key, value in figures.items()}}


def run(args: argparse.Namespace) -> None:
    """Prints the table, a line a size, then the JSON."""
    dtype = torch.float16 if args.fp16 else torch.float32
    model = load_model(args.model, arch=args.arch, device=pick_device(args.device), dtype=dtype)
    cuda = model.device.type == "cuda"
    chip = torch.cuda.get_device_name(model.device) if cuda else f"{torch.get_num_threads()} threads"
    print(f"{model}\n{chip}, torch {torch.__version__}, scale {args.scale:g}, median of {args.runs}\n")
    print("      size   ms a frame  (fastest .. slowest)   peak memory")
    results = []
    for width, height in args.size:
        found = measure(model, width, height, runs=args.runs, scale=args.scale)
        results.append(found)
        spread = f"({found['fastest_ms']:.1f} .. {found['slowest_ms']:.1f})"
        line = f"{width:5}x{height:<4} {found['median_ms']:12.1f}  {spread:22} {found['peak_memory_mib']:7.0f} MiB"
        print(line, flush=True)
    setting = {"model": model.name, "weights": model.source, "device": str(model.device), "chip": chip}
    setting |= {"dtype": str(dtype).removeprefix("torch."), "scale": args.scale, "runs": args.runs}
    print(json.dumps({**setting, "torch": torch.__version__, "results": results}))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, default=TRAIN_LOG, help="folder or file of weights (default: train_log)")
    p.add_argument("--arch", help="only for weights whose shapes do not tell: rife_2r")
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument(
        "--size", type=size, nargs="+", default=SIZES, metavar="WxH", help="in pixels (default: %(default)s)"
    )
    p.add_argument("--runs", type=int, default=10, help="timed calls a size (default: 10)")
    p.add_argument("--scale", type=float, choices=SCALES, default=1.0, help="of the flow estimate (default: 1)")
    p.add_argument("--fp16", action="store_true", help="half-precision convolutions")
    args = p.parse_args(argv)
    if args.runs < 1:
        p.error("--runs is 1 or more")
    try:
        run(args)
    except (UserError, OSError) as e:
        print(f"testtime.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
