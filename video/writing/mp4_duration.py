"""Corrects the duration of the picture in a finished MP4 or MOV file.

FFmpeg takes the first frame of a fragment for the end of the frames before it. Where B-frames are decoded after the
last fragment begins, the frame that is shown last belongs to the fragment before, and its time is not counted: players
leave that frame out. The right duration is set in the headers of the movie, the track, its edit list and its media.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from video.safe_file import SafeFile

PICTURE = b"vide"  # handler of a video track
# Bytes from the start of a box's content to its timescale and its duration, for both versions of the box.
TIMESCALE_AT = {b"mvhd": (12, 20), b"mdhd": (12, 20)}
DURATION_AT = {b"mvhd": (16, 24), b"mdhd": (16, 24), b"tkhd": (20, 28)}


class Box(NamedTuple):
    """Holds the type of a box of the file, and the offsets in bytes at which its content starts and ends."""

    kind: bytes
    start: int
    end: int


class Number(NamedTuple):
    """Holds the offset and the size in bytes of a number in the file, most significant byte first."""

    offset: int
    size: int


def correct_duration(file: SafeFile, duration: Fraction) -> None:
    """Sets the duration of the video track to `duration` seconds, if the edit list of its file is shorter.

    Does nothing to a file that has no video track with an edit list. Raises OSError.
    """
    whole = Box(b"", 0, file.seek(0, 2))
    tracks = [box for movie in _find(file, whole, b"moov") for box in _find(file, movie, b"trak")]
    for track in tracks:
        edits = next(_find(file, track, b"edts", b"elst"), None)
        if edits is not None and _handler(file, track) == PICTURE:
            headers = {
                box.kind: box
                for path in ((whole, b"moov", b"mvhd"), (track, b"tkhd"), (track, b"mdia", b"mdhd"))
                for box in _find(file, *path)
            }
            _correct_track(file, headers, _last_edit(file, edits), duration)


def _correct_track(file: SafeFile, headers: dict[bytes, Box], edit: Number, duration: Fraction) -> None:
    movie, track, media = (_duration(file, headers[kind]) for kind in (b"mvhd", b"tkhd", b"mdhd"))
    wanted = ceil(duration * _timescale(file, headers[b"mvhd"]))
    missing = wanted - _read(file, edit)
    if missing <= 0:
        return
    end = _read(file, track) + missing
    _write(file, edit, wanted)
    _write(file, track, end)
    _write(file, movie, max(end, _read(file, movie)))
    _write(file, media, ceil(duration * _timescale(file, headers[b"mdhd"])))


def _find(file: SafeFile, parent: Box, *path: bytes) -> Iterator[Box]:
    """Yields the boxes at a path of types inside a box."""
    for box in _boxes(file, parent):
        if box.kind == path[0]:
            if path[1:]:
                yield from _find(file, box, *path[1:])
            else:
                yield box


def _boxes(file: SafeFile, parent: Box) -> Iterator[Box]:
    """Yields the boxes inside a box."""
    at = parent.start
    while at + 8 <= parent.end:
        size, content = _read(file, Number(at, 4)), at + 8
        kind = _read(file, Number(at + 4, 4)).to_bytes(4, "big")
        if size == 1:  # the size follows in 64 bits
            size, content = _read(file, Number(at + 8, 8)), at + 16
        at = at + size if size else parent.end
        if at < content:
            return
        yield Box(kind, content, at)


def _handler(file: SafeFile, track: Box) -> bytes:
    boxes = _find(file, track, b"mdia", b"hdlr")
    return next((_read(file, Number(box.start + 8, 4)).to_bytes(4, "big") for box in boxes), b"")


def _version(file: SafeFile, box: Box) -> int:
    return _read(file, Number(box.start, 1))


def _timescale(file: SafeFile, header: Box) -> int:
    return _read(file, Number(header.start + TIMESCALE_AT[header.kind][_version(file, header)], 4))


def _duration(file: SafeFile, header: Box) -> Number:
    version = _version(file, header)
    return Number(header.start + DURATION_AT[header.kind][version], 8 if version else 4)


def _last_edit(file: SafeFile, edits: Box) -> Number:
    """Returns the duration of the last entry of an edit list; each has a duration, a start, and a rate of 4 bytes."""
    size = 8 if _version(file, edits) else 4
    entries = _read(file, Number(edits.start + 4, 4))
    return Number(edits.start + 8 + (entries - 1) * (2 * size + 4), size)


def _read(file: SafeFile, number: Number) -> int:
    file.seek(number.offset)
    return int.from_bytes(file.read(number.size), "big")


def _write(file: SafeFile, number: Number, value: int) -> None:
    file.seek(number.offset)
    file.write(value.to_bytes(number.size, "big"))
