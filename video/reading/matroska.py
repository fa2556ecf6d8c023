"""Reads from the headers of Matroska and WebM files whether they are whole, and when the picture ends.

Blocks of these formats rarely state how long a frame is shown: the last still of a screen recording is known from the
header only. Format: RFC 8794, RFC 9559.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Stream

from video.frame import Frame
from video.reading.container import Location

EBML, SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")


def is_whole(location: Location) -> bool:
    """Returns whether a file is Matroska or WebM, states its size, and has that size; not if it is no regular file."""
    if not isinstance(location, Path):
        return False
    try:
        with location.open("rb") as file:
            if file.read(4) != EBML:
                return False
            file.seek(_read_size(file) or 0, 1)
            if file.read(4) != SEGMENT:
                return False
            size = _read_size(file)
            return size is not None and file.tell() + size <= location.stat().st_size
    except OSError:
        return False


def _read_size(file: BinaryIO) -> int | None:
    """Reads the size of an element, or None if it is unknown; the first bits of its first byte count its bytes."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    mask = (1 << (7 * (more + 1))) - 1
    size = int.from_bytes(first + file.read(more), "big") & mask
    return None if size == mask else size


def tagged_duration(stream: Stream) -> Fraction | None:
    """Returns the time in seconds at which a track ends, by the tag that FFmpeg writes, as in 00:00:01.000000000."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None


def picture_end(location: Location, container: InputContainer, stream: Stream) -> Fraction | None:
    """Returns when the picture ends in seconds on the clock of a whole file, or None if its headers do not have it."""
    if not is_whole(location):
        return None
    if (tagged := tagged_duration(stream)) is not None:
        return tagged
    return Fraction(container.duration, av.time_base) if container.duration and len(container.streams) == 1 else None


def shown_until(frames: Generator[Frame, None, None], end: Fraction, tick: Fraction) -> Generator[Frame, None, None]:
    """Yields the frames, the last one with the time up to `end` if its own duration is shorter by more than `tick`.

    Both are in seconds; `end` is rounded to ticks.
    """
    last = None
    with closing(frames):
        for frame in frames:
            if last is not None:
                yield last
            last = frame
    if last is not None:
        own = last.duration or Fraction(0)
        yield last if end - last.time <= own + tick else replace(last, duration=end - last.time)
