"""Defines the flags of long work: segments, their shares for several machines, and which flags exclude each other."""

import argparse
from fractions import Fraction
from typing import NamedTuple

from commands.arguments import argument_type
from video.timing.output_times import parse_seconds

AUTOMATIC = Fraction(-1)  # the value of --segments without a number
NO_SEGMENTS = Fraction(0)


class Share(NamedTuple):
    """Holds one of N shares of the segments, counted from 1."""

    number: int
    total: int


def add_segment_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of long work."""
    add = group.add_argument
    add("--segments", nargs="?", type=length, const=AUTOMATIC, metavar="SECONDS",
        help="make the output in segments of about SECONDS, kept in a folder beside it; after a stop the same command "
             "continues; 0: in one piece (default: segments for long work only)")  # fmt: skip
    add("--segment", type=share, metavar="I/N",
        help="make only the I-th of N shares of the segments, for many machines with one shared folder "
             "(default: all, and join them)")  # fmt: skip
    add("--join", action="store_true",
        help="join the segments that --segment has made; name those that are missing (default: off)")  # fmt: skip
    add("--ray", metavar="ADDRESS",
        help="make the segments on a Ray cluster: auto, local, or ADDRESS:PORT; needs pip install ray "
             "(default: none)")  # fmt: skip


def parse_length(text: str) -> Fraction:
    """Reads the length of a segment in seconds; 0 for none. Raises ValueError."""
    return NO_SEGMENTS if text == "0" else parse_seconds(text)


length = argument_type(parse_length, "a time in seconds, such as 30, or 0 for none")


def parse_share(text: str) -> Share:
    """Reads a share as 2/8. Raises ValueError for another text."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"{text!r} is no share")
    return Share(int(number), int(count))


share = argument_type(parse_share, "I/N with I from 1 to N, as in 2/8")


def check_segment_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if flags of long work exclude each other or others."""
    chosen = [name for name in ("segment", "join", "ray") if getattr(args, name)]
    if len(chosen) > 1:
        parser.error(f"--{chosen[0]} and --{chosen[1]} are steps of their own; give one of them")
    wanted = [f"--{name}" for name in ("segments", *chosen) if getattr(args, name) not in (None, NO_SEGMENTS)]
    if args.devices:
        wanted.append("--devices")
    if args.segments == NO_SEGMENTS and wanted:
        parser.error(f"{wanted[0]} works by segments; leave out --segments 0")
    if wanted and args.stitch:
        parser.error(f"{wanted[0]} excludes --stitch, which is made in one piece")
    if args.ray and args.preview:
        parser.error("--ray excludes --preview: the frames are made by other machines")
    if args.devices and (args.segment or args.ray):
        parser.error("--segment and --ray run one device each; give --device, or start one run for each device")
