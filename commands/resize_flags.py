"""Defines the flag for videos whose frames change their size, and the outputs that are made of them."""

import argparse
from fractions import Fraction

from commands.transition_flags import FOUND
from video.reading.reader import open_frames
from video.reading.resize import find_spans

SCALE, SPLIT = "scale", "split"
# Settings that belong to one output, or to pictures of one size.
ONE_OUTPUT = ("img", "stitch", "decisions", "confidence", "mask", "segments", "segment", "join", "ray", "devices")


def add_resize_flag(group: argparse._ArgumentGroup) -> None:
    """Adds the flag to a group of a parser."""
    group.add_argument("--on-resize", choices=(SCALE, SPLIT), default=SCALE,
        help="where the frames change their size: scale all to the first size (scale), or begin a new file, as in "
             "out.mp4, out_2.mp4, ... (split; decodes the video once more) (default: scale)")  # fmt: skip
    group.set_defaults(span=None)


def check_resize(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if --on-resize split excludes another flag."""
    if args.on_resize != SPLIT:
        return
    names = [f"--{name}" for name in ONE_OUTPUT if getattr(args, name)]
    names += ["--repair FRAMES"] if args.repair not in (None, FOUND) else []
    if names:
        parser.error(f"--on-resize split makes a file of each size and excludes {names[0]}; leave one out")


def divide(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Returns the settings of each output: of one, or with --on-resize split of one for each size of the frames."""
    if args.on_resize != SPLIT:
        return [args]
    source = open_frames(args.video)
    print(f"{source.path}: looking for changes of size", flush=True)
    spans = find_spans(source, args.start or Fraction(0), args.end)
    if len(spans) <= 1 and all(span.format is None for span in spans):
        return [args]
    for span in spans:
        end = "the end" if span.end is None else f"{float(span.end):.3f} s"
        width, height = source.size if span.format is None else span.format.size
        print(f"  {width}x{height} from {float(span.start):.3f} s to {end}")
    return [argparse.Namespace(**{**vars(args), "span": s, "start": s.start, "end": s.end}) for s in spans]
