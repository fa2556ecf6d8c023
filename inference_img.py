"""Two pictures -> the pictures between them.

python3 inference_img.py --img img0.png img1.png --exp 4             15 between: output/img0.png .. img16.png
python3 inference_img.py --img img0.png img1.png --count 9           9 between, evenly spaced
python3 inference_img.py --img img0.png img1.png --ratio 0.3         one, at 0.3 of the way: output/img1.png
python3 inference_img.py --img img0.png img1.png --gif slow.gif --mp4 slow.mp4 --fps 24
python3 inference_img.py --img img0.png img1.png --flow              the flow both ways: output/flow01.flo, .png ..
python3 inference_img.py --stitch left.png right.png                 two views blended: output/stitched.png

8 and 16 bits, grey and alpha go in and come out as they are, as .png; EXR comes out as half-float .exr. The first and
the last picture are the given ones, untouched.
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

from commands.network_flags import add_network_flags, load_tiled, options, pick_scale
from model import RIFE, UserError
from model.image import from_layers, to_layers
from model.inference.memory import keep_freed_memory
from model.RIFE import HALVING_TOLERANCE, reachable
from video.flow import flow_picture, write_flo
from video.frame import Frame
from video.picture import MediaError, alike, check_pair, natural_key, read_picture, with_channels, write_picture
from video.reader import Source
from video.stitch import stitch
from video.writer import VideoWriter

DEFAULT_EXP = 4
MAX_EXP, MAX_COUNT = 13, 9999  # more would be a mistake
MAX_CYCLES = 16  # halvings, as far as RIFE.between goes
GIF_RATE = 50  # frames a second; browsers play anything faster at 10


def fraction(text: str) -> Fraction:
    """An exact number, for argparse: 0.3, 59.94 or 60000/1001."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no number like 0.3 or 60000/1001") from e


def build_parser() -> argparse.ArgumentParser:
    """Every flag: upstream's with their meaning, and ours."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pair = p.add_mutually_exclusive_group(required=True)
    pair.add_argument("--img", nargs=2, metavar=("A", "B"), help="the two pictures, of one size")
    pair.add_argument("--stitch", nargs=2, metavar=("LEFT", "RIGHT"), help="two views to blend into one from left to "
                      "right, instead of pictures between")  # fmt: skip
    p.add_argument("--flow", action="store_true", help="write the flow from A to B and from B to A instead")
    p.add_argument("--exp", type=int, help=f"2^EXP - 1 pictures between (default: {DEFAULT_EXP})")
    p.add_argument("--count", type=int, metavar="N", help="N pictures between, at i/(N+1) of the way, instead of --exp")
    p.add_argument("--ratio", type=fraction, default=Fraction(0), help="one picture, this far between 0 and 1; 0: off")
    p.add_argument("--rthreshold", type=fraction, default=Fraction("0.02"), help="--ratio is met within half of this "
                   "by a network that halves, and an input this near is the answer (default: 0.02)")  # fmt: skip
    p.add_argument("--rmaxcycles", type=int, default=8, help="halvings at most for --ratio (default: 8)")
    p.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="for img%%d (default: output)")
    p.add_argument("--gif", type=Path, metavar="FILE", help="also write the slow motion as an animated GIF")
    p.add_argument("--mp4", type=Path, metavar="FILE", help="also write the slow motion as an H.264 video")
    p.add_argument("--fps", type=fraction, default=Fraction(24), help="frames a second of those two (default: 24)")
    p.add_argument("--overwrite", action="store_true", help="replace an existing GIF or video")
    add_network_flags(p)
    return p


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends in parser.error if the arguments do not go together."""
    films = [file for file in (args.gif, args.mp4) if file]
    if not 0 <= args.ratio <= 1:
        parser.error(f"--ratio {float(args.ratio):g} is not between 0 and 1")
    if args.ratio and (args.exp is not None or args.count is not None or films):
        parser.error("--ratio makes one picture: leave out --exp, --count, --gif and --mp4")
    if (args.flow or args.stitch) and (args.ratio or args.exp is not None or args.count is not None or films):
        parser.error("--flow and --stitch make no pictures between: leave out --exp, --count, --ratio, --gif and --mp4")
    if args.flow and args.stitch:
        parser.error("--flow goes with --img")
    if args.exp is not None and args.count is not None:
        parser.error("--exp and --count both say how many pictures: give one of them")
    if not 0 <= (args.exp or 0) <= MAX_EXP or not 0 <= (args.count or 0) <= MAX_COUNT:
        parser.error(f"--exp is 0 to {MAX_EXP}, --count is 0 to {MAX_COUNT}")
    if args.rthreshold < 0 or not 1 <= args.rmaxcycles <= MAX_CYCLES or args.fps <= 0:
        parser.error(f"--rthreshold is 0 or more, --rmaxcycles 1 to {MAX_CYCLES}, --fps above 0")
    if args.gif and args.fps > GIF_RATE:
        parser.error(f"--fps {float(args.fps):g}: a GIF plays at {GIF_RATE} frames a second at most")


def halved(ratio: Fraction, threshold: Fraction, cycles: int) -> Fraction:
    """The timestep that halving arrives at: the first within threshold/2 of the ratio, or that of the last cycle."""
    low, high = Fraction(0), Fraction(1)
    middle = Fraction(1, 2)
    for _ in range(cycles):
        middle = (low + high) / 2
        if abs(middle - ratio) <= threshold / 2:
            break
        low, high = (middle, high) if ratio > middle else (low, middle)
    return middle


def even_timesteps(model: RIFE, steps: int) -> list[Fraction]:
    """1/steps, 2/steps, .. below 1, or what halving reaches near them; says so where they differ."""
    wanted = [Fraction(i, steps) for i in range(1, steps)]
    if model.arbitrary_time:
        return wanted
    tolerance = min(HALVING_TOLERANCE, Fraction(1, 3 * steps))  # less than half a step: no two coincide
    return [said(t, reachable(t, tolerance)) for t in wanted]


def ratio_timestep(model: RIFE, ratio: Fraction, threshold: Fraction, cycles: int) -> Fraction:
    """The ratio, or what halving reaches near it; within half a threshold of 0 or 1, that: the picture given."""
    if not threshold / 2 < ratio < 1 - threshold / 2:
        return Fraction(round(ratio))
    return ratio if model.arbitrary_time else said(ratio, halved(ratio, threshold, cycles))


def said(wanted: Fraction, reached: Fraction) -> Fraction:
    """The timestep reached, after a line on stdout if it is not the one wanted."""
    if wanted != reached:
        print(f"{float(wanted):.4g} of the way is reached at {float(reached):.4g}: this network halves")
    return reached


def between(model: RIFE, pictures: list[np.ndarray], times: list[Fraction], **options: Any) -> Iterator[np.ndarray]:
    """The pictures to write: the given ones, untouched, and between them those of `times`; 0 or 1 is a given one."""
    yield pictures[0]
    if times in ([0], [1]):
        yield pictures[int(times[0])]
    elif times:
        same = alike(*pictures)
        dtype = np.float16 if same[0].dtype == np.float32 else same[0].dtype.type
        for image in model.between(to_layers(same[0]), to_layers(same[1]), times, tolerance=0, **options):
            yield from_layers(image, same[0].shape[2], dtype)
    yield pictures[1]


def prepare_outputs(folder: Path, films: list[Path], overwrite: bool) -> None:
    """Finds out before anything is computed whether everything can be written."""
    for file in films:
        if file.exists() and not overwrite:
            raise MediaError(f"{file}: exists already; give --overwrite to replace it, or another name")
        if not os.access(file.parent, os.W_OK):
            raise MediaError(f"{file}: its folder is missing or cannot be written; make it or choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MediaError(f"{folder}: cannot be made a folder ({e.strerror}); choose another --output") from e


def stale(folder: Path, written: list[Path]) -> list[str]:
    """Names of numbered pictures that an earlier run left in the folder."""
    names = [path.name for path in folder.iterdir() if re.fullmatch(r"img\d+\.(png|exr)", path.name)]
    return sorted({*names} - {path.name for path in written}, key=natural_key)


def write_film(file: Path, pictures: list[Path], fps: Fraction, overwrite: bool) -> None:
    """The pictures as a film of `fps` frames a second, GIF or H.264 by its suffix."""
    height, width = read_picture(pictures[0]).shape[:2]
    source = Source(pictures[0], (width, height), fps, len(pictures), 1 / fps, is_video=False)
    with VideoWriter(file, source, fps, 1 / fps, overwrite=overwrite) as film:
        for i, path in enumerate(pictures):
            film.write(Frame(eight_bit(read_picture(path)), i / fps))


def eight_bit(picture: np.ndarray) -> np.ndarray:
    """(H,W,C) uint8 or uint16 -> (H,W,3 or 4) uint8, rounded."""
    deep = picture.dtype == np.uint16
    picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8) if deep else picture
    return with_channels(picture, max(picture.shape[2], 3))


def write_flows(model: RIFE, pictures: list[np.ndarray], folder: Path, scale: float) -> list[Path]:
    """flow01 (from the first picture to the second) and flow10, each as .flo and as a picture in common colours."""
    if not model.arbitrary_time:
        raise MediaError(f"--flow needs a network that takes any timestep; {model.name} knows only the middle")
    first, second = (to_layers(picture)[:, :3] for picture in alike(*pictures))
    forward = model.flow(first, second, timestep=0, scale=scale)[0, 2:4]  # at 0 the frame is the first picture
    backward = model.flow(first, second, timestep=1, scale=scale)[0, :2]
    flows = [flow.permute(1, 2, 0).cpu().numpy() for flow in (forward, backward)]
    largest = max(float(np.hypot(*flow.transpose(2, 0, 1)).max()) for flow in flows)
    written = []
    for name, flow in zip(("flow01", "flow10"), flows, strict=True):
        written += [folder / f"{name}.flo", folder / f"{name}.png"]
        write_flo(written[-2], flow)
        write_picture(written[-1], flow_picture(flow, largest))
    return written


def run_other(args: argparse.Namespace, model: RIFE, pictures: list[np.ndarray]) -> None:
    """--flow or --stitch, on pictures that were read and a model that was loaded."""
    start = time.monotonic()
    if args.flow:
        written = write_flows(model, pictures, args.output, args.scale)
    else:
        suffix = ".exr" if pictures[0].dtype.kind == "f" else ".png"
        written = [args.output / f"stitched{suffix}"]
        left, right = alike(*pictures)
        write_picture(written[0], stitch(left, right, model, args.scale))
    print(f"Wrote {', '.join(map(str, written))} in {time.monotonic() - start:.1f} s")


def run(args: argparse.Namespace) -> None:
    """Reads, interpolates, writes, and says so."""
    start = time.monotonic()
    names = args.img or args.stitch
    pictures = [read_picture(path) for path in names]
    check_pair(pictures[0], pictures[1], *names)
    suffix = ".exr" if pictures[0].dtype.kind == "f" else ".png"
    films = [file for file in (args.gif, args.mp4) if file]
    if suffix == ".exr" and films:
        raise MediaError(f"{names[0]}: holds light, which --gif and --mp4 cannot show; convert both to PNG first")
    height, width = pictures[0].shape[:2]
    if args.scale is None:
        args.scale = pick_scale(height, width)
    model = load_tiled(args, args.device, height, width, mapped=args.stitch is not None)
    print(f"{model}\n{width}x{height}, flow at scale {args.scale:g}{model.describe(height, width, args.scale)}")
    prepare_outputs(args.output, films, args.overwrite)
    if args.flow or args.stitch:
        return run_other(args, model, pictures)
    if args.ratio:
        times = [ratio_timestep(model, args.ratio, args.rthreshold, args.rmaxcycles)]
    else:
        exp = DEFAULT_EXP if args.exp is None else args.exp
        times = even_timesteps(model, 2**exp if args.count is None else args.count + 1)
    made = between(model, pictures, times, scale=args.scale, **options(args))
    written: list[Path] = []
    for picture in tqdm(made, total=len(times) + 2, unit="picture", disable=None, leave=False):
        written.append(args.output / f"img{len(written)}{suffix}")
        write_picture(written[-1], picture)
    if left := stale(args.output, written):
        print(f"{args.output}: left from an earlier run: {', '.join(left)}", file=sys.stderr)
    for file in films:
        write_film(file, written, args.fps, args.overwrite)
    also = "".join(f" and {file}" for file in films)
    what = f"{written[0].name} .. {written[-1].name} ({len(written)} pictures)"
    print(f"Wrote {args.output}: {what}{also} in {time.monotonic() - start:.1f} s")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check(parser, args)
    keep_freed_memory()
    try:
        run(args)
    except (UserError, OSError) as e:
        print(f"inference_img.py: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
