"""Defines the flags of speed, of trims and of the shutter."""

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from commands.arguments import argument_type, number
from model import UserError
from video.reading.container import main_video, open_container
from video.reading.reader import Source
from video.reading.trim import trim_source
from video.timing.blur import FULL_TURN
from video.timing.numbers import parse_number
from video.timing.speed import SPEEDS, SpeedMap, constant_speed, read_ramps


def add_speed_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags to a group of a parser."""
    add = group.add_argument
    add("--slow", type=number, metavar="N",
        help="play N times slower, at the source's rate and with the sound at its own pitch; below 1: faster "
             "(default: off)")  # fmt: skip
    add("--speed", type=Path, metavar="FILE",
        help="play at speeds that change over time: lines of a time in seconds and a speed, as 2.5 0.25, with even "
             "ramps between them; sound as --slow (default: off)")  # fmt: skip
    add("--start", type=moment, metavar="TIME",
        help="begin at this time of the source, in seconds or as 1:02:03.5 (default: its start)")  # fmt: skip
    add("--end", type=moment, metavar="TIME", help="end before this time of the source (default: its end)")
    add("--blur", type=number, metavar="ANGLE",
        help="blur motion as a shutter of this angle does, 180 for film: each frame is the mean of frames made while "
             "it is open (default: off)")  # fmt: skip


def parse_time(text: str) -> Fraction:
    """Reads a time in seconds, as 90.5, 1:30.5 or 0:01:30.5. Raises ValueError if it is none, or below 0."""
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = seconds * 60 + parse_number(part)
    if seconds < 0:
        raise ValueError(f"a time is 0 or more, got {text}")
    return seconds


moment = argument_type(parse_time, "a time such as 90.5, 1:30.5 or 0:01:30.5")


def changes_speed(args: argparse.Namespace) -> bool:
    """Returns whether the output's frames lie on a grid of their own: at the source's rate unless another is given."""
    return args.slow is not None or args.speed is not None or args.blur is not None


def check_speed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if these flags are out of range or exclude each other."""
    if args.slow is not None and not 1 / SPEEDS[1] <= args.slow <= 1 / SPEEDS[0]:
        parser.error(f"--slow {float(args.slow):g}: must be {float(1 / SPEEDS[1]):g} to {1 / SPEEDS[0]}")
    if args.slow is not None and args.speed is not None:
        parser.error("--slow is one speed, --speed many; give one of them")
    if args.blur is not None and not 0 < args.blur <= FULL_TURN:
        parser.error(f"--blur {float(args.blur):g}: a shutter has an angle above 0, {FULL_TURN} at most")
    if args.fps and changes_speed(args):
        parser.error("--fps plays the frames at another rate, without sound: leave out --slow, --speed and --blur")
    if args.stitch and (changes_speed(args) or args.start or args.end):
        parser.error("--stitch takes whole videos at their speed: leave out --slow, --speed, --blur, --start and --end")
    if args.end is not None and args.end <= (args.start or 0):
        parser.error(f"--end {float(args.end):g} is not after --start {float(args.start or 0):g}")


def timed_source(args: argparse.Namespace, source: Source) -> Source:
    """Returns the source with its span and its speed. Raises UserError if nothing is left."""
    start = args.start or Fraction(0)
    if start > 0 and (end := _latest_end(source)) is not None and start >= end:
        raise UserError(f"{source.path}: ends at {float(end):g} s, before {float(start):g} s")
    if start or args.end is not None:
        source = trim_source(source, start, args.end)
    return replace(source, speed=_speed(args, start))


def _latest_end(source: Source) -> Fraction | None:
    """Returns when the picture ends in seconds, by its number of frames or its header, the later one; or None."""
    if source.count is None:
        return None
    end = source.first + source.count / source.rate
    if isinstance(source.location, Path) and source.is_video:
        with open_container(source.location) as container:  # frames of a variable rate, or with gaps between them
            stream = main_video(container, source.stream)
            if stream is not None and stream.duration and stream.time_base:
                shown = (max(stream.start_time or 0, 0) + stream.duration) * stream.time_base
                end = max(end, shown - source.start)
    return end


def grid_start(source: Source) -> Fraction:
    """Returns the time in seconds of the output from which its frames have equal steps: that of the first frame."""
    return source.first if source.speed is None else source.speed.output_time(source.first)


def _speed(args: argparse.Namespace, start: Fraction) -> SpeedMap | None:
    if args.slow is not None:
        return constant_speed(1 / args.slow)
    return None if args.speed is None else read_ramps(args.speed, start)
