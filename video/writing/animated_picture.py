"""Reads and writes the number of plays and the durations of animated pictures: GIF, APNG, WebP.

FFmpeg gives the last picture the duration of the one before it, or a mean, and plays APNG and WebP once. Formats:
GIF89a; PNG third edition; WebP: RFC 9649.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from video.pictures import png
from video.safe_file import SafeFile

FOREVER, ONCE = 0, 1  # plays
MOST = 2**16 - 1  # of plays, and of a number in a delay
GIF_LOOP = b"NETSCAPE2.0\x03\x01"  # followed by the number of repeats, 2 bytes, low byte first
SEARCHED_BYTES = 1 << 16  # bytes in which the number of plays is searched


class Delay(NamedTuple):
    """Holds the duration of one picture: its place in the file in bytes, and seconds."""

    offset: int
    seconds: Fraction


def count_plays(path: Path) -> int:
    """Returns how often a file is played: FOREVER, ONCE, or a number. Files of other formats are played forever."""
    if not path.is_file():
        return FOREVER
    with path.open("rb") as file:
        head = file.read(SEARCHED_BYTES)
    if head.startswith((b"GIF87a", b"GIF89a")):
        at = head.find(GIF_LOOP)
        repeats = int.from_bytes(head[at + len(GIF_LOOP) :][:2], "little")
        return ONCE if at < 0 else repeats + 1 if repeats else FOREVER
    at = head.find(b"acTL")
    if head.startswith(png.SIGNATURE) and at > 0:
        return int.from_bytes(head[at + 8 : at + 12], "big")
    return FOREVER


@dataclass(frozen=True)
class Animation:
    """Describes a format of animated pictures, in which each picture has a duration of its own."""

    fastest: Fraction  # frames/s at most: browsers show a picture of 10 ms or less for 100 ms
    option: str  # FFmpeg's option for the number of plays
    read: Callable[[mmap.mmap], Iterator[Delay]]  # yields the durations of all pictures
    write: Callable[[mmap.mmap, int, Fraction], None]  # writes a duration at an offset
    counts_repeats: bool = False  # the option is the number of repeats after the first time, -1 for none
    is_one_packet: bool = False  # FFmpeg reads all pictures of a file as one

    def play_options(self, plays: int) -> dict[str, str]:
        """Returns FFmpeg's options for a file that is played `plays` times."""
        plays = min(plays, MOST)
        if self.counts_repeats:
            plays = plays - 1 if plays > 1 else -plays
        return {self.option: str(plays)}

    def read_length(self, path: Path) -> Fraction:
        """Returns how many seconds all pictures of a file together are shown."""
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return sum((delay.seconds for delay in self.read(data)), Fraction(0))

    def correct_length(self, file: SafeFile, seconds: Fraction) -> None:
        """Sets the duration of the last picture of a finished file, so that all together last `seconds`."""
        file.seek(0)
        with mmap.mmap(file.fileno(), 0) as data:
            delays = list(self.read(data))
            if delays:
                rest = seconds - sum(delay.seconds for delay in delays[:-1])
                self.write(data, delays[-1].offset, max(rest, 1 / self.fastest))


def _read_gif(data: mmap.mmap) -> Iterator[Delay]:
    at = 13 + _palette_size(data[10])
    while at < len(data) and data[at] != 0x3B:
        if data[at : at + 2] == b"\x21\xf9":
            yield Delay(at + 4, Fraction(int.from_bytes(data[at + 4 : at + 6], "little"), 100))
        at += 2 if data[at] == 0x21 else 11 + _palette_size(data[at + 9])
        while data[at]:  # blocks of data, each behind its length
            at += data[at] + 1
        at += 1


def _palette_size(flags: int) -> int:
    """Returns the bytes of a palette of GIF, by the flags before it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _write_gif(data: mmap.mmap, offset: int, seconds: Fraction) -> None:
    data[offset : offset + 2] = min(_rounded(seconds * 100), MOST).to_bytes(2, "little")


def _read_apng(data: mmap.mmap) -> Iterator[Delay]:
    at = len(png.SIGNATURE)
    while at < len(data):
        if data[at + 4 : at + 8] == b"fcTL":
            ticks, rate = struct.unpack_from(">HH", data, at + 28)
            yield Delay(at + 28, Fraction(ticks, rate or 100))
        at += 12 + struct.unpack_from(">I", data, at)[0]


def _write_apng(data: mmap.mmap, offset: int, seconds: Fraction) -> None:
    delay = seconds.limit_denominator(max(int(MOST / max(float(seconds), 1)), 1))
    struct.pack_into(">HH", data, offset, min(delay.numerator, MOST), delay.denominator)
    struct.pack_into(">I", data, offset + 6, zlib.crc32(data[offset - 24 : offset + 6]))


def _read_webp(data: mmap.mmap) -> Iterator[Delay]:
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] == b"ANMF":
            yield Delay(at + 20, Fraction(int.from_bytes(data[at + 20 : at + 23], "little"), 1000))
        size = struct.unpack_from("<I", data, at + 4)[0]
        at += 8 + size + size % 2


def _write_webp(data: mmap.mmap, offset: int, seconds: Fraction) -> None:
    data[offset : offset + 3] = min(_rounded(seconds * 1000), 2**24 - 1).to_bytes(3, "little")


def _rounded(value: Fraction) -> int:
    """Returns the nearest whole number, of two the larger one, as FFmpeg rounds times."""
    return math.floor(value + Fraction(1, 2))


GIF = Animation(Fraction(50), "loop", _read_gif, _write_gif, counts_repeats=True)  # whole hundredths of a second
APNG = Animation(Fraction(90), "plays", _read_apng, _write_apng)
WEBP = Animation(Fraction(90), "loop", _read_webp, _write_webp, is_one_packet=True)
