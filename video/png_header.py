"""Reads size, channels and depth of PNG files from their first bytes, to compare a folder's pictures before a run."""

import re
import struct
from itertools import pairwise
from pathlib import Path

from video import png
from video.picture import MediaError


def check_sizes(pictures: list[Path]) -> tuple[int, bool]:
    """Returns the largest number of channels, 3 or 4, and whether a picture has 16 bits.

    Other formats than PNG are compared while they are read. Raises MediaError for the first picture of another size.
    """
    headers = {path: header for path in pictures if (header := _read_header(path)) is not None}
    first = next(iter(headers.values()), None)
    for path, header in headers.items():
        if first is not None and (header.width, header.height) != (first.width, first.height):
            others = f"{first.width}x{first.height}"
            raise MediaError(f"{path}: {header.width}x{header.height}, the first {others}; bring them to one size")
    alpha = any(header.colour in (png.GREY_ALPHA, png.RGBA) for header in headers.values())
    return 4 if alpha else 3, any(header.depth == 16 for header in headers.values())


def describe_gaps(pictures: list[Path]) -> list[str]:
    """Returns a note if numbers are missing between the last numbers in the names of the files."""
    numbers = [int(found[-1]) for path in pictures if (found := re.findall(r"\d+", path.stem))]
    gaps = [(a, b) for a, b in pairwise(numbers) if b - a > 1]
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) != len(pictures) or not gaps or len(steps) == 1:
        return []
    missing = sum(b - a - 1 for a, b in gaps)
    return [f"{missing} numbers are missing, the first after {gaps[0][0]}: the pictures play as if they were not"]


def _read_header(path: Path) -> png.Header | None:
    """Returns the header of a PNG file; None for others."""
    with path.open("rb") as file:
        data = file.read(len(png.SIGNATURE) + 21)
    if not data.startswith(png.SIGNATURE) or len(data) < len(png.SIGNATURE) + 21:
        return None
    return png.Header._make(struct.unpack(">IIBBBBB", data[16:29]))
