"""Checks JPEG files before a decoder gets them: structure, size, and the coded data by FFmpeg's strict decoder.

libjpeg fills missing parts with grey or smeared blocks, and prints errors to the standard error of the process.
Format: ITU-T Recommendation T.81.
"""

import os
import re
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import av
import av.logging
from av.error import FFmpegError, InvalidDataError

SIGNATURE = b"\xff\xd8\xff"
END_MARKER = b"\xff\xd9"
SCAN_MARKER = 0xDA  # marker before the coded data
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # start of a frame: baseline, extended, progressive
APPLICATION = (*range(0xE0, 0xF0), 0xFE)  # metadata and comments
MAX_PADDING = 16  # bytes that may be left over after the coded data: some cameras fill up their files
LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker")
LIBJPEG = re.compile(
    r"^(Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progr|Warning: ).*\n?", re.MULTILINE
)
HARMLESS = "Warning: "  # of an unknown version, with which the picture is whole
_STDERR = threading.Lock()  # the standard error is one for the whole process


class JpegError(ValueError):
    """Reports a JPEG file that violates the format."""


def check_jpeg(data: bytes) -> None:
    """Raises JpegError if a JPEG file is damaged or claims more pixels than its data can hold."""
    kept, offset = [data[:2]], 2
    while True:
        if offset + 4 > len(data) or data[offset] != 0xFF:
            raise JpegError("a marker is missing")
        if data[offset + 1] == 0xFF:  # any number of bytes FF may come before a marker
            offset += 1
            continue
        marker, length = struct.unpack_from(">BH", data, offset + 1)
        segment = data[offset : offset + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise JpegError("cut off")
        if marker in HUFFMAN_FRAMES:
            check_size(segment, len(data))
        if marker == SCAN_MARKER:
            break
        if marker not in APPLICATION:
            kept.append(segment)
        offset += 2 + length
    check_coded_data(b"".join((*kept, data[offset:])))


def check_size(segment: bytes, length: int) -> None:
    """Raises JpegError if a file of `length` bytes is too short for the frame header in `segment`.

    Huffman coding takes 1 bit at least for each block of 8x8 values.
    """
    height, width, count = struct.unpack_from(">HHB", segment.ljust(10, b"\0"), 5)
    factors = segment[11 : 10 + 3 * count : 3]
    across, down = [factor >> 4 for factor in factors], [factor & 15 for factor in factors]
    if not factors or min(*across, *down, height, width) == 0:
        raise JpegError("the header is damaged")
    blocks = height * width / 64 * sum(map(int.__mul__, across, down)) / (max(across) * max(down))
    if blocks > 8 * length:
        raise JpegError("the header claims more pixels than the file can hold")


def check_coded_data(data: bytes) -> None:
    """Raises JpegError if FFmpeg finds the coded data damaged; kinds of JPEG that it cannot decode pass."""
    if END_MARKER not in data:
        raise JpegError("cut off")
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}
    try:
        with av.logging.Capture():
            decoder.decode(av.Packet(data))
            decoder.decode(None)
    except InvalidDataError as e:
        raise JpegError("the coded data is damaged") from e
    except FFmpegError:  # FFmpeg does not decode this kind
        return


@contextmanager
def checked_decoding() -> Iterator[None]:
    """Raises JpegError at the end of a `with` block in which libjpeg found the file that it decoded damaged.

    libjpeg reports this only on the standard error of the process, which is a file meanwhile; lines of other libraries
    in that file are printed at the end.
    """
    with _STDERR, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
            with suppress(OSError):
                os.write(2, LIBJPEG.sub("", text).encode())
    check_messages(text)


def check_messages(text: str) -> None:
    """Raises JpegError if one of libjpeg's messages is about damage that changes the picture."""
    for found in LIBJPEG.finditer(text):
        left_over = LEFT_OVER.match(found[0])
        if not found[0].startswith(HARMLESS) and not (left_over and int(left_over[1]) <= MAX_PADDING):
            raise JpegError(found[0].strip())
