"""Puts standard input and standard output in place of the files of inference_video.py."""

import argparse
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from commands.arguments import argument_type
from commands.interrupts import Interrupts
from commands.segment_flags import NO_SEGMENTS
from commands.side_files import files_read
from model.errors import UserError
from video.reading.pipe import InputPipe, OutputPipe, RawFormat
from video.writing.encoding import check_pix_fmt

PIPE = Path("-")
INPUT_FD, OUTPUT_FD = 0, 1  # file descriptors
OUTPUT_NAME = "standard output"
# Containers that can be written without going back, with the encoder of each. FFV1 in Matroska keeps colours, sound and
# subtitles; NUT and Y4M hold frames that are not encoded.
PIPE_ENCODERS = {"mkv": "ffv1", "nut": "rawvideo", "y4m": "rawvideo"}
DEFAULT_CONTAINER = "mkv"
READ_AGAIN = ("dry_run", "segments", "segment", "join", "ray", "devices")  # flags that read the input more than once
PIECES = ("dry_run", "png", "segments", "segment", "join", "ray", "devices")  # flags whose result is not one stream


def parse_raw_format(text: str) -> tuple[str, tuple[int, int]]:
    """Reads the pixel format and the size of raw frames. Raises ValueError for a text of another form."""
    name, _, size = text.partition(",")
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"{text!r} has no size")
    check_pix_fmt(name)
    return name, (int(width), int(height))


raw_format = argument_type(parse_raw_format, "FORMAT,WIDTHxHEIGHT, as in yuv420p,1920x1080")


def add_pipe_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flag of raw frames."""
    group.add_argument("--input-format", type=raw_format, metavar="FORMAT,WxH",
        help="take --video - as raw frames of this pixel format and size, as in yuv420p,1920x1080, with the rate of "
             "--input-fps (default: FFmpeg finds the container)")  # fmt: skip
    group.set_defaults(output_pipe=None)


def check_pipes(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if flags need a file; sets `ext`, and `codec` for an output pipe."""
    inputs = [args.video, *args.inputs, *(args.stitch or ())]
    if PIPE in inputs and len([location for location in inputs if location is not None]) > 1:
        parser.error("- (standard input) must be the only input")
    if PIPE in inputs:
        _refuse(parser, args, READ_AGAIN, "standard input can be read only once")
    elif args.input_format:
        parser.error("--input-format needs --video - (standard input), as in --video - < frames.yuv")
    if args.output != PIPE:
        args.ext = (args.ext or "mp4").removeprefix(".")
        return
    if len(args.inputs) > 1:
        parser.error("--output - (standard output) holds one video: give one input")
    _refuse(parser, args, PIECES, "standard output holds one video that is made in one piece")
    args.ext = (args.ext or DEFAULT_CONTAINER).removeprefix(".")
    if args.ext not in PIPE_ENCODERS:
        parser.error(f"--output - takes --ext {', '.join(PIPE_ENCODERS)}: {args.ext} is not written to a pipe")
    args.codec = args.codec or PIPE_ENCODERS[args.ext]


def _refuse(parser: argparse.ArgumentParser, args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    chosen = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, False, NO_SEGMENTS)]
    chosen += ["--on-resize split"] if args.on_resize == "split" else []
    if chosen:
        parser.error(f"{why}: leave out {chosen[0]}")


def _check_output_is_not_read(args: argparse.Namespace) -> None:
    """Raises UserError if standard output is a file that is read, as after `>>`."""
    written = os.fstat(OUTPUT_FD)
    read = [os.stat(file) for file in files_read(args) if file.exists()]
    read += [os.fstat(INPUT_FD)] if isinstance(args.video, InputPipe) else []
    if stat.S_ISREG(written.st_mode) and any(os.path.samestat(written, file) for file in read):
        raise UserError("standard output: is a file that is read; choose another file")


@contextmanager
def opened_pipes(args: argparse.Namespace, interrupts: Interrupts) -> Iterator[None]:
    """Puts pipes in place of `-` in the settings; while standard output carries video, messages go to standard error.

    Raises UserError for a terminal in place of a pipe, if there is none, and if the output is a file that is read.
    """
    if args.video == PIPE:
        if sys.__stdin__ is None:  # closed by the caller, as by <&-; a file that was opened since may have its number
            raise UserError("standard input: is closed; pipe a video into this program, or give a file")
        if os.isatty(INPUT_FD):
            raise UserError("standard input: is a terminal; pipe a video into this program, or give a file")
        args.video = InputPipe(INPUT_FD, lambda: interrupts.count > 0)
        if args.input_format:
            pix_fmt, size = args.input_format
            args.video.raw = RawFormat(pix_fmt, size, args.input_fps)
    if args.output != PIPE:
        yield
        return
    if sys.__stdout__ is None:
        raise UserError("standard output: is closed; pipe it into a program, or give a file")
    if os.isatty(OUTPUT_FD):
        raise UserError("standard output: is a terminal; pipe it into a program, or give a file")
    _check_output_is_not_read(args)
    sys.stdout.flush()
    kept = os.dup(OUTPUT_FD)
    args.output_pipe = OutputPipe(os.dup(OUTPUT_FD), f"{OUTPUT_NAME}.{args.ext}")
    os.dup2(2, OUTPUT_FD)  # what libraries print
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        args.output_pipe.close()
        os.dup2(kept, OUTPUT_FD)
        os.close(kept)
