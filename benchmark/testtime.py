"""Measures milliseconds and peak memory of one frame between two, for one or more settings, timed in turn.

python3 benchmark/testtime.py                                      the default weights, from Vimeo90K's size to 720p
python3 benchmark/testtime.py --compare scale=0.5,fp16 --size 1920x1080
python3 benchmark/testtime.py --compare model=train_log stream scale=0.5 baseline
python3 benchmark/testtime.py --compare model=A model=B,fp16 --sweep --plot cost.png --loop 12
python3 benchmark/testtime.py --compare stream baseline --sweep --plot cost.png            a few minutes

One call of RIFE.inference is measured: padding, the features of both frames and the network, with the frames already
on the device; reading, decoding and writing are not part of it. The result is the median, since other work on a
machine only adds time: of --runs calls, or of fewer if they do not fit into --seconds, but of two or more, after one
call that is not timed. Peak memory is that of the model's tensors on CUDA, elsewhere that of a process of its own.
The last line is JSON.

A setting lists what differs from the defaults, separated by commas: model=DIR, arch=NAME, scale=S, tile=PX, fp32, fp16,
bf16, tta, stream (each frame is prepared once, as in a video), an engine (--engine: pytorch, onnxruntime, openvino,
graphs, compile, tensorrt; some need a minute or two before the first timed call), baseline (upstream's path).
Ratios are to the first setting. FLOPs are those of the convolutions; "of limit" compares them with one large 3x3
convolution on the device in the same dtype. --profile adds the operators that take a hundredth of a call or more,
by PyTorch's profiler, with the number of their calls.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

# run as a script, this folder is on the path, not the repository's root where `model` lies
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.compare import compare, parse_setting
from benchmark.device import LEAST_CALLS
from benchmark.plots import check_plot, cost, save
from commands.arguments import argument_type
from commands.errors import run_command
from model import pick_device
from model.inference.memory import keep_freed_memory

SWEEP = ((256, 256), (448, 256), (640, 480), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
SIZE_SECONDS = 20  # a size: a sweep of both ways then takes four minutes on two cores
PART_SHOWN = 0.01  # of a call's time, by --profile
DEFAULT_SETTING = "stream"  # the default weights, as in a video
SIZES = ((448, 256), (640, 480), (1280, 720))


def parse_size(text: str) -> tuple[int, int]:
    """Reads width and height from a text such as 1280x720. Raises ValueError for another text or a smaller size."""
    width, height = (int(part) for part in text.lower().split("x"))
    if min(width, height) < 16:
        raise ValueError(f"{text!r} is too small")
    return width, height


size = argument_type(parse_size, "a size of 16x16 or more, such as 1280x720")


def run(args: argparse.Namespace) -> None:
    """Prints a line for each size and setting, then the JSON; draws the plot of --plot."""
    device = pick_device(args.device)
    if args.plot:
        check_plot(args.plot)
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


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [parse_setting(DEFAULT_SETTING)]
    p.add_argument("--compare", type=parse_setting, nargs="+", default=default, metavar="SETTING",
                   help=f"settings that are timed in turn, see above (default: {DEFAULT_SETTING})")  # fmt: skip
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument("--size", type=size, nargs="+", default=SIZES, metavar="WxH",
                   help="sizes in pixels (default: 448x256 640x480 1280x720)")  # fmt: skip
    p.add_argument("--sweep", action="store_true", help="measure sizes from 256x256 to 3840x2160 (default: --size)")
    p.add_argument("--runs", type=int, default=10, help="timed calls of a setting at a size, at most (default: 10)")
    p.add_argument("--seconds", type=float, default=SIZE_SECONDS, metavar="S", help="begin no further round of calls "
                   f"at a size after S seconds, but make {LEAST_CALLS} (default: {SIZE_SECONDS})")  # fmt: skip
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw cost against size, by matplotlib (default: none)")
    p.add_argument("--loop", type=int, default=0, metavar="N", help="run the whole video loop on N frames (default: 0)")
    p.add_argument("--profile", action="store_true", help="print the operators that take most time (default: off)")
    p.add_argument("--cpu-time", action="store_true", help="measure processor time, on a busy machine (default: off)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = build_parser()
    args = p.parse_args(argv)
    if args.sweep:
        args.size = SWEEP
    if len({setting.text for setting in args.compare}) < len(args.compare):
        p.error("--compare: one setting is there twice")
    if args.runs < 1:
        p.error("--runs is 1 or more")
    keep_freed_memory()
    return run_command("testtime.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
