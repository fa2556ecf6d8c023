"""Milliseconds and peak memory that one frame between two takes, at sizes from Vimeo90K's to 720p.

python3 benchmark/testtime.py                                      the three sizes, on the best device there is
python3 benchmark/testtime.py --size 1920x1080 --scale 0.5 --fp16
python3 benchmark/testtime.py --model DIR --device cpu --runs 3
python3 benchmark/testtime.py --compare model=train_log stream scale=0.5 baseline          side by side, in turn
python3 benchmark/testtime.py --compare model=A model=B,fp16 --sweep --plot cost.png --loop 12
python3 benchmark/testtime.py --compare stream baseline --sweep --plot cost.png            a few minutes

Measured is one call of RIFE.inference: padding, the features of both frames and the network, with the frames already
on the device; not reading, decoding or writing. The median counts, since other work on a machine only ever adds: of
--runs calls, of fewer where they do not fit into --seconds, but of two at least, after one that is not timed. Peak
memory is the allocator's on CUDA, of the whole process elsewhere (there it only rises from size to size). The last
line is JSON.

--compare takes two or more settings, each what differs from the defaults, joined by commas: model=DIR, arch=NAME,
scale=S, tile=PX, fp32, fp16, bf16, tta, stream (each frame prepared once, as in a video), graphs, compile, tensorrt
(--engine; the last two take a minute or two before anything is timed), baseline (upstream's path), openvino (the same
network by that where it is installed, float32, once its picture is known to be ours). They are timed in turn; ratios
are to the first. FLOPs are those of the convolutions, and their share is of what one large 3x3 convolution reaches here
in the same dtype. Peak memory is then of a process of its own a setting. --profile adds the operators that take a
hundredth of a call or more, by PyTorch's profiler, with how often they are called.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

# run as a script, this folder is on the path, not the repository's root where `model` lies
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.compare import LEAST, compare, interleaved, pair, parse_setting
from benchmark.device import peak_memory
from benchmark.plots import check, cost, save
from commands.network_flags import add_weights_flags
from model import RIFE, UserError, load_model, pick_device
from model.frames import FLOW_SCALES
from model.inference.memory import keep_freed_memory

SWEEP = ((256, 256), (448, 256), (640, 480), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
SECONDS = 20  # a size: a sweep of ours against upstream's way then takes four minutes on two cores
PART_SHOWN = 0.01  # of a call's time, by --profile
SIZES = ((448, 256), (640, 480), (1280, 720))


def size(text: str) -> tuple[int, int]:
    """WxH, for argparse."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 1280x720") from e
    if min(width, height) < 16:
        raise argparse.ArgumentTypeError(f"{text}: sizes start at 16x16")
    return width, height


def measure(model: RIFE, size: tuple[int, int], *, runs: int, seconds: float, scale: float) -> dict[str, Any]:
    """The median, the fastest and the slowest of up to `runs` calls, in ms, and the peak memory in MiB."""
    images = pair(size, model.device)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    call = {"": partial(model.inference, *images, scale=scale)}
    (times,) = interleaved(call, model.device, runs, time.perf_counter, seconds).values()
    figures = {"median_ms": statistics.median(times), "fastest_ms": min(times), "slowest_ms": max(times)}
    figures["peak_memory_mib"] = peak_memory(model.device)
    return {
        "width": size[0],
        "height": size[1],
        "runs": len(times),
        **{key: round(value, 2) for key, value in figures.items()},
    }


def run(args: argparse.Namespace) -> None:
    """Prints the table, a line a size, then the JSON."""
    dtype = torch.float16 if args.fp16 else torch.float32
    model = load_model(args.model, arch=args.arch, device=pick_device(args.device), dtype=dtype)
    cuda = model.device.type == "cuda"
    chip = torch.cuda.get_device_name(model.device) if cuda else f"{torch.get_num_threads()} threads"
    print(f"{model}\n{chip}, torch {torch.__version__}, scale {args.scale:g}, median of up to {args.runs}\n")
    print("      size   ms a frame  (fastest .. slowest)    runs   peak memory")
    results = []
    for size in args.size:
        found = measure(model, size, runs=args.runs, seconds=args.seconds, scale=args.scale)
        results.append(found)
        spread = f"({found['fastest_ms']:.1f} .. {found['slowest_ms']:.1f})"
        line = f"{found['width']:5}x{found['height']:<4} {found['median_ms']:12.1f}  {spread:22} {found['runs']:5}"
        print(f"{line} {found['peak_memory_mib']:9.0f} MiB", flush=True)
    setting = {"model": model.name, "weights": model.source, "device": str(model.device), "chip": chip}
    setting |= {"dtype": str(dtype).removeprefix("torch."), "scale": args.scale, "runs": args.runs}
    print(json.dumps({**setting, "torch": torch.__version__, "results": results}))


def run_comparison(args: argparse.Namespace) -> None:
    """Prints a line a size and setting, then the JSON; draws if asked to."""
    device = pick_device(args.device)
    if args.plot:
        check(args.plot)
    width = max(len(setting.text) for setting in args.compare)
    where = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{where}, medians of up to {args.runs}, in turn\n")
    head = "ms a frame  runs   times the first    GFLOP  of limit  parameters  peak memory  whole loop"
    print(f"      size  {'setting':{width}}  {head}")
    records = []
    for size in args.size:
        found = compare(
            args.compare,
            size,
            device,
            runs=args.runs,
            seconds=args.seconds,
            loop=args.loop,
            cpu_time=args.cpu_time,
            profile=args.profile,
        )
        records += found
        for r in found:
            loop = "" if r["loop_fps"] is None else f"{r['loop_fps']:.3g} frames/s"
            print(
                f"{r['width']:5}x{r['height']:<4}  {r['setting']:{width}}  {r['median_ms']:10.1f}  {r['runs']:4}"
                f"  {r['ratio']:15.2f}x  {r['gflop']:7.1f}  {r['share_of_limit']:8.0%}"
                f"  {r['parameters'] / 1e6:8.2f} M  {r['peak_memory_mib']:7.0f} MiB  {loop}".rstrip(),
                flush=True,
            )
            for part in r["operators"]:
                if part["ms"] >= PART_SHOWN * r["median_ms"]:
                    print(f"{part['ms']:{25 + width}.1f}  {part['calls']:4.0f}  {part['name']}")
    if args.plot:
        save(cost(records), args.plot)
        print(f"Wrote {args.plot}")
    setting = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**setting, "runs": args.runs, "cpu_time": args.cpu_time, "results": records}))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_flags(p)
    p.add_argument(
        "--size", type=size, nargs="+", default=SIZES, metavar="WxH", help="in pixels (default: %(default)s)"
    )
    p.add_argument("--runs", type=int, default=10, help="timed calls a size, at most (default: 10)")
    p.add_argument("--seconds", type=float, default=SECONDS, metavar="S",
                   help=f"a size, after which no call follows once there are {LEAST} (default: {SECONDS})")  # fmt: skip
    p.add_argument("--scale", type=float, choices=FLOW_SCALES, default=1.0, help="of the flow estimate (default: 1)")
    p.add_argument("--fp16", action="store_true", help="half-precision convolutions")
    p.add_argument("--compare", type=parse_setting, nargs="+", metavar="SETTING", help="time these in turn, see above")
    p.add_argument("--sweep", action="store_true", help="sizes from 256x256 to 3840x2160 instead of --size")
    p.add_argument("--plot", type=Path, metavar="FILE", help="with --compare: draw cost against size (matplotlib)")
    p.add_argument("--loop", type=int, default=0, metavar="N", help="with --compare: also the whole loop on N frames")
    p.add_argument("--profile", action="store_true", help="with --compare: also the operators that take the time")
    p.add_argument("--cpu-time", action="store_true", help="with --compare: processor time, for a machine under load")
    args = p.parse_args(argv)
    if args.sweep:
        args.size = SWEEP
    if not args.compare and (args.plot or args.loop or args.cpu_time or args.profile):
        p.error("--plot, --loop, --profile and --cpu-time go with --compare")
    if args.compare and len({setting.text for setting in args.compare}) < len(args.compare):
        p.error("--compare: one setting is there twice")
    if args.runs < 1:
        p.error("--runs is 1 or more")
    keep_freed_memory()
    try:
        run_comparison(args) if args.compare else run(args)
    except (UserError, OSError) as e:
        print(f"testtime.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
