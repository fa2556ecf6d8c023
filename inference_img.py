"""Interpolates between two pictures: writes the pictures between them, their optical flow, or both views stitched.

    python3 inference_img.py --img img0.png img1.png --exp 4         15 pictures between: output/img0.png .. img16.png
    python3 inference_img.py --img img0.png img1.png --count 9       9 pictures between, at equal distances in time
    python3 inference_img.py --img img0.png img1.png --ratio 0.3     one picture, at 0.3 of the way: output/img1.png
    python3 inference_img.py --img img0.png img1.png --gif slow.gif --mp4 slow.mp4 --fps 24
    python3 inference_img.py --img img0.png img1.png --flow          the flow both ways: output/flow01.flo, .png ..
    python3 inference_img.py --stitch left.png right.png             two views blended: output/stitched.png

The result has the depth and the channels of the inputs: 8 or 16 bits, grey, colour or alpha as .png, floats as .exr.
The first and the last picture are copies of the inputs, pixel for pixel. No output ever replaces an input.

Exit status: 0 done; 1 an error, reported in one line; 2 wrong arguments; 130 interrupted.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from commands.arguments import number, whole
from commands.errors import run_command
from commands.network_flags import add_network_flags, load_tiled, options, pick_scale
from model import RIFE
from model.errors import UserError
from model.halving import HALVING_TOLERANCE, reachable
from model.image import from_layers, to_layers
from model.inference.end_flow import end_flow
from model.inference.memory import keep_freed_memory
from model.inference.tile_engine import describe_tiles
from video.pictures.flow import write_flows
from video.pictures.picture import MediaError, alike, check_alike, natural_key, read_picture, write_picture
from video.pictures.picture_header import describe_colours, read_header
from video.pictures.stitch import stitch
from video.safe_file import check_not_input, check_output
from video.writing.slow_motion import write_animation

DEFAULT_EXP = 4
MAX_EXP, MAX_COUNT = 13, 9999
MAX_CYCLES = 16  # halvings; RIFE.between goes no further
GIF_RATE = 50  # frames/s; browsers play faster GIFs at 10


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all flags, in groups: upstream's flags keep their names and meanings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group("input (one of the two)")
    inputs = group.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--img", nargs=2, metavar=("A", "B"), help="interpolate between these two pictures of one size")
    inputs.add_argument("--stitch", nargs=2, metavar=("LEFT", "RIGHT"), help="blend two views of one scene into one "
                        "picture, from the left view at its left edge to the right view")  # fmt: skip
    add = parser.add_argument_group("which pictures between").add_argument
    add("--exp", type=whole, help=f"make 2^EXP - 1 pictures, 0 to {MAX_EXP} (default: {DEFAULT_EXP})")
    add("--count", type=whole, metavar="N", help=f"make N pictures at equal distances, 0 to {MAX_COUNT} "
        "(default: by --exp)")  # fmt: skip
    add("--ratio", type=number, default=Fraction(0),
        help="make one picture, at this share of the way from A to B, between 0 and 1 (default: 0, off)")  # fmt: skip
    add("--rthreshold", type=number, default=Fraction("0.02"), help="a ratio within half of this from 0 or 1 "
        "gives the input; halving comes within half of this (default: 0.02)")  # fmt: skip
    add("--rmaxcycles", type=whole, default=8,
        help=f"largest number of halvings for --ratio, 1 to {MAX_CYCLES} (default: 8)")  # fmt: skip
    add("--flow", action="store_true",
        help="write the optical flow from A to B and from B to A instead of pictures (default: off)")  # fmt: skip
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, default=Path("output"), metavar="DIR", help="folder of the pictures (default: output)")
    add("--gif", type=Path, metavar="FILE", help="also write the pictures as an animated GIF (default: none)")
    add("--mp4", type=Path, metavar="FILE", help="also write the pictures as an H.264 video (default: none)")
    add("--fps", type=number, default=Fraction(24), help="frames/s of the GIF and the video (default: 24)")
    add("--overwrite", action="store_true", help="replace an existing GIF or video (default: refuse)")
    add_network_flags(parser.add_argument_group("network"))
    return parser


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if arguments are out of range or exclude each other."""
    animations = [file for file in (args.gif, args.mp4) if file]
    if not 0 <= args.ratio <= 1:
        parser.error(f"--ratio {float(args.ratio):g} is not between 0 and 1")
    if args.ratio and (args.exp is not None or args.count is not None or animations):
        parser.error("--ratio makes one picture: leave out --exp, --count, --gif and --mp4")
    if (args.flow or args.stitch) and (args.ratio or args.exp is not None or args.count is not None or animations):
        parser.error("--flow and --stitch make no pictures between: leave out --exp, --count, --ratio, --gif and --mp4")
    if args.flow and args.stitch:
        parser.error("--flow needs --img")
    if args.exp is not None and args.count is not None:
        parser.error("--exp and --count both set the number of pictures: give one of them")
    if not 0 <= (args.exp or 0) <= MAX_EXP or not 0 <= (args.count or 0) <= MAX_COUNT:
        parser.error(f"--exp is 0 to {MAX_EXP}, --count is 0 to {MAX_COUNT}")
    if args.rthreshold < 0 or not 1 <= args.rmaxcycles <= MAX_CYCLES or args.fps <= 0:
        parser.error(f"--rthreshold is 0 or more, --rmaxcycles 1 to {MAX_CYCLES}, --fps above 0")
    if args.gif and args.fps > GIF_RATE:
        parser.error(f"--fps {float(args.fps):g}: a GIF plays at {GIF_RATE} frames a second at most")


def halved(ratio: Fraction, threshold: Fraction, cycles: int) -> Fraction:
    """Returns the timestep that halving reaches: the first within threshold/2 of the ratio, or that after `cycles`."""
    low, high = Fraction(0), Fraction(1)
    middle = Fraction(1, 2)
    for _ in range(cycles):
        middle = (low + high) / 2
        if abs(middle - ratio) <= threshold / 2:
            break
        low, high = (middle, high) if ratio > middle else (low, middle)
    return middle


def choose_timesteps(model: RIFE, args: argparse.Namespace) -> list[Fraction]:
    """Returns the timesteps of the pictures between; [0] or [1] is a copy of an input.

    Prints a line for each timestep that a network for the middle frame reaches only approximately.
    """
    if args.ratio:
        if not args.rthreshold / 2 < args.ratio < 1 - args.rthreshold / 2:
            return [Fraction(round(args.ratio))]
        exact = [args.ratio]
        reached = exact if model.arbitrary_time else [halved(args.ratio, args.rthreshold, args.rmaxcycles)]
    else:
        exp = DEFAULT_EXP if args.exp is None else args.exp
        steps = 2**exp if args.count is None else args.count + 1
        exact = [Fraction(i, steps) for i in range(1, steps)]
        tolerance = min(HALVING_TOLERANCE, Fraction(1, 3 * steps))  # less than half a step: no two coincide
        reached = exact if model.arbitrary_time else [reachable(t, tolerance) for t in exact]
    for wanted, t in zip(exact, reached, strict=True):
        if wanted != t:
            print(f"{float(wanted):.4g} of the way becomes {float(t):.4g}: this network computes times by halving")
    return reached


def between(model: RIFE, pictures: list[np.ndarray], times: list[Fraction], **options: Any) -> Iterator[np.ndarray]:
    """Yields the pictures to write: the first input, those at `times`, the last input; time 0 or 1 is an input."""
    yield pictures[0]
    if times in ([0], [1]):
        yield pictures[int(times[0])]
    elif times:
        same = alike(*pictures)
        dtype = np.float16 if same[0].dtype == np.float32 else same[0].dtype.type
        for image in model.between(to_layers(same[0]), to_layers(same[1]), times, tolerance=0, **options):
            yield from_layers(image, same[0].shape[2], dtype)
    yield pictures[1]


def check_outputs(args: argparse.Namespace, outputs: list[Path], inputs: list[Path]) -> None:
    """Makes the output folder. Raises UserError if an output cannot be written or is an input."""
    for file in (file for file in (args.gif, args.mp4) if file):
        check_output(file, inputs, overwrite=args.overwrite)
    for path in outputs:
        check_not_input(path, inputs)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MediaError(f"{args.output}: cannot be made a folder ({e.strerror}); choose another --output") from e
    if not os.access(args.output, os.W_OK):
        raise MediaError(f"{args.output}: cannot be written to; choose another --output")


def colour_of_pair(inputs: list[Path]) -> bytes:
    """Returns the PNG chunks with the colour profile of the first picture; prints a line if the other has another."""
    headers = {path: header for path in inputs if (header := read_header(path)) is not None}
    for note in describe_colours(headers):
        print(note)
    return headers[inputs[0]].colour if inputs[0] in headers else b""


def older_pictures(folder: Path, written: list[Path]) -> list[str]:
    """Returns the names of numbered pictures in the folder that this run did not write."""
    names = [path.name for path in folder.iterdir() if re.fullmatch(r"img\d+\.(png|exr)", path.name)]
    return sorted({*names} - {path.name for path in written}, key=natural_key)


def run_between(args: argparse.Namespace, model: RIFE, pictures: list[np.ndarray], suffix: str) -> str:
    """Writes the pictures between, and GIF and video if wanted; returns what was written, for the last line."""
    inputs = [Path(name) for name in args.img]
    times = choose_timesteps(model, args)
    written = [args.output / f"img{i}{suffix}" for i in range(len(times) + 2)]
    check_outputs(args, written, inputs)
    images = between(model, pictures, times, scale=args.scale, **options(args))
    progress = tqdm(images, total=len(written), unit="picture", disable=None, leave=False)
    colour = colour_of_pair(inputs)
    for path, picture in zip(written, progress, strict=True):
        write_picture(path, picture, inputs, colour)
    if older := older_pictures(args.output, written):
        print(f"{args.output}: left from an earlier run: {', '.join(older)}", file=sys.stderr)
    animations = [file for file in (args.gif, args.mp4) if file]
    for file in animations:
        write_animation(file, written, args.fps, args.overwrite)
    pictures_written = f"{args.output}: {written[0].name} .. {written[-1].name} ({len(written)} pictures)"
    return " and ".join([pictures_written, *map(str, animations)])


def run_flow(args: argparse.Namespace, model: RIFE, pictures: list[np.ndarray]) -> str:
    """Writes the optical flow in both directions; returns what was written, for the last line."""
    inputs = [Path(name) for name in args.img]
    names = [f"flow{way}{end}" for way in ("01", "10") for end in (".flo", ".png", "_consistent.png")]
    check_outputs(args, [args.output / name for name in names], inputs)
    first, second = (to_layers(picture)[:, :3] for picture in alike(*pictures))
    write_flows(args.output, end_flow(model, first, second, scale=args.scale))
    return ", ".join(str(args.output / name) for name in names)


def run_stitch(args: argparse.Namespace, model: RIFE, pictures: list[np.ndarray], suffix: str) -> str:
    """Writes both views blended into one picture; returns what was written, for the last line."""
    inputs, path = [Path(name) for name in args.stitch], args.output / f"stitched{suffix}"
    check_outputs(args, [path], inputs)
    write_picture(path, stitch(*alike(*pictures), model, args.scale), inputs, colour_of_pair(inputs))
    return str(path)


def run(args: argparse.Namespace) -> int:
    """Reads the pictures, loads the network, writes the results and prints what was written."""
    start = time.monotonic()
    names = args.img or args.stitch
    pictures = [read_picture(path) for path in names]
    check_alike(pictures[0], pictures[1], *names)
    suffix = ".exr" if pictures[0].dtype.kind == "f" else ".png"
    if suffix == ".exr" and (args.gif or args.mp4):
        raise UserError(f"{names[0]}: holds floats, which --gif and --mp4 cannot show; convert both to PNG first")
    height, width = pictures[0].shape[:2]
    if args.scale is None:
        args.scale = pick_scale(height, width)
    model = load_tiled(args, args.device, height, width)
    tiles = describe_tiles(model, height, width, args.scale)
    print(f"{model}\n{width}x{height}, flow at scale {args.scale:g}{tiles}")
    if args.flow:
        written = run_flow(args, model, pictures)
    elif args.stitch:
        written = run_stitch(args, model, pictures, suffix)
    else:
        written = run_between(args, model, pictures, suffix)
    print(f"Wrote {written} in {time.monotonic() - start:.1f} s")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    keep_freed_memory()
    return run_command("inference_img.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
