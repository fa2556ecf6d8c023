"""Checks PNG files completely before a decoder gets them: structure, checksums, header and length of the pixel data.

libpng prints its warnings to the standard error of the process; it prints none about a file that passed these
checks. Format: Portable Network Graphics (PNG) Specification, third edition, W3C 2025.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25  # bytes: behind the chunk IHDR
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types
CHANNEL_COUNTS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
# Starts and steps (x, y) of the seven passes of an interlaced picture (Adam7).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
FILTERS = 5  # types of row filters
DEFLATE_RATIO = 1032  # one compressed byte gives at most this many


class PngError(ValueError):
    """Reports a PNG file that violates the format."""


class Header(NamedTuple):
    """Holds the fields of the IHDR chunk."""

    width: int  # px
    height: int
    depth: int  # bits a channel
    colour: int  # colour type
    compression: int
    filtering: int
    interlace: int

    def passes(self) -> list[tuple[int, int]]:
        """Returns rows and bytes a row (with the filter byte) of each pass; one pass if not interlaced."""
        bits = self.depth * CHANNEL_COUNTS[self.colour]
        grids = ADAM7 if self.interlace else ((0, 0, 1, 1),)
        sizes = [(-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in grids]
        return [(rows, 1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0]


def checked_png(data: bytes) -> bytes:
    """Returns the same picture as a PNG of critical chunks and transparency only, its pixels stored uncompressed.

    The pixels are decompressed here to check them, and not a second time by the decoder. Raises PngError.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13 or chunks[-1] != (b"IEND", b""):
        raise PngError("header or end is missing")
    header = _header(chunks[0][1])
    out = [SIGNATURE, chunk(b"IHDR", chunks[0][1])]
    if header.colour == PALETTE:
        colours = next((content for name, content in chunks if name == b"PLTE"), b"")
        if not colours or len(colours) % 3 or len(colours) > 768:
            raise PngError("palette is missing or damaged")
        out.append(chunk(b"PLTE", colours[: 3 << header.depth].ljust(3 << header.depth, b"\0")))
    transparency = next((content for name, content in chunks if name == b"tRNS"), b"")
    if _fits(transparency, header):
        out.append(chunk(b"tRNS", transparency))
    pixels = _decompress(b"".join(content for name, content in chunks if name == b"IDAT"), header)
    out += [chunk(b"IDAT", zlib.compress(pixels, 0)), chunk(b"IEND", b"")]
    return b"".join(out)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of the chunks up to IEND. Raises PngError if one of PIXEL_CHUNKS is damaged."""
    offset, name = len(SIGNATURE), b""
    while name != b"IEND":
        if offset + 12 > len(data):
            raise PngError("cut off")
        length, name = struct.unpack_from(">I4s", data, offset)
        end = offset + 8 + length
        if end + 4 > len(data):
            raise PngError("cut off")
        if struct.unpack_from(">I", data, end)[0] == zlib.crc32(data[offset + 4 : end]):
            yield name, data[offset + 8 : end]
        elif name in PIXEL_CHUNKS:  # texts, times and the like may be damaged
            raise PngError("a checksum does not match")
        offset = end + 4


def _header(content: bytes) -> Header:
    """Returns the fields of IHDR. Raises PngError if the format does not allow them."""
    header = Header(*struct.unpack(">IIBBBBB", content))
    methods = header.compression, header.filtering, header.interlace
    if header.depth not in DEPTHS.get(header.colour, ()) or methods not in ((0, 0, 0), (0, 0, 1)):
        raise PngError("header is damaged")
    if not 0 < header.width < 2**31 or not 0 < header.height < 2**31:
        raise PngError("width or height is 0 or too large")
    return header


def _fits(transparency: bytes, header: Header) -> bool:
    """Returns whether the content of a tRNS chunk is allowed by the header: libpng warns of others and skips them."""
    if header.colour == PALETTE:
        return 0 < len(transparency) <= 1 << header.depth
    count = {GREY: 1, RGB: 3}.get(header.colour, 0)
    if not count or len(transparency) != 2 * count:
        return False
    return max(struct.unpack(f">{count}H", transparency)) < 1 << header.depth


def _decompress(packed: bytes, header: Header) -> bytes:
    """Returns the filtered pixels of all passes. Raises PngError if they are damaged or fewer than in the header."""
    passes = header.passes()
    size = sum(rows * length for rows, length in passes)
    if size > DEFLATE_RATIO * (len(packed) + 1):  # known before anything is allocated
        raise PngError("header claims more pixels than the file can hold")
    try:
        pixels = zlib.decompressobj().decompress(packed, size)
    except zlib.error as e:
        raise PngError("pixel data is damaged") from e
    if len(pixels) < size:
        raise PngError("header claims more pixels than the file holds")
    offset = 0
    for rows, length in passes:
        lines = np.frombuffer(pixels, np.uint8, rows * length, offset).reshape(rows, length)
        if lines[:, 0].max() >= FILTERS:
            raise PngError("pixel data is damaged")
        offset += rows * length
    return pixels


def chunk(name: bytes, content: bytes) -> bytes:
    """Returns a chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
