"""Reads size, channels, depth and colour profile of picture files without decoding them, to compare those of a folder.

The colour profile of any picture is given as PNG chunks, which describe it in every PNG file made from the picture.
Formats: PNG third edition; JPEG: ITU-T T.81, Exif 2.3, ICC.1 annex B.4; WebP: RFC 9649; TIFF revision 6.
"""

import mmap
import re
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from video.pictures import jpeg, png
from video.pictures.picture import MediaError

# Colours of a PNG file by themselves: code points, ICC profile, sRGB, gamma, primaries, HDR metadata.
COLOUR_CHUNKS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
ICC_IN_JPEG = b"ICC_PROFILE\0"
ICC_HEADER = 128  # bytes
EXIF = b"Exif\0\0"
SIZE_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # markers with the size
WIDTH_TAG, HEIGHT_TAG, ORIENTATION_TAG, PROFILE_TAG = 256, 257, 274, 34675  # tags of TIFF
TIFF_NUMBERS = {3: "H", 4: "I"}  # types of values, as of `struct`


@dataclass(frozen=True)
class PictureHeader:
    """Holds the properties of a picture that the first bytes of its file contain."""

    size: tuple[int, int]  # width, height as `read_picture` returns it
    has_alpha: bool = False
    deep: bool = False  # more than 8 bits
    colour: bytes = b""  # chunks of PNG
    unfit: bool = False  # a profile for grey or for inks does not fit the RGB that the picture becomes


def read_header(path: Path) -> PictureHeader | None:
    """Returns the header of a PNG, JPEG, WebP or TIFF file; None for others and for damaged ones."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = data[:12]
            if start.startswith(png.SIGNATURE):
                return _read_png(data)
            if start.startswith(jpeg.SIGNATURE):
                return _read_jpeg(data)
            if start[8:] == b"WEBP":
                return _read_webp(data)
            if start[:4] in (b"II*\0", b"MM\0*"):
                tags = _read_tags(data, 0)
                size = _number(tags[WIDTH_TAG]), _number(tags[HEIGHT_TAG])
                return PictureHeader(size, **_profile(tags.get(PROFILE_TAG)))
    except (OSError, ValueError, struct.error, LookupError):
        return None
    return None


def check_sizes(headers: dict[Path, PictureHeader]) -> None:
    """Raises MediaError for the first picture that has another size than the first one."""
    first = next(iter(headers.values()), None)
    for path, header in headers.items():
        if first is not None and header.size != first.size:
            found, others = (f"{width}x{height}" for width, height in (header.size, first.size))
            raise MediaError(f"{path}: {found}, the first {others}; bring them to one size")


def describe_gaps(pictures: list[Path]) -> list[str]:
    """Returns a note if numbers are missing between the last numbers in the names of the files."""
    numbers = [int(found[-1]) for path in pictures if (found := re.findall(r"\d+", path.stem))]
    gaps = [(a, b) for a, b in pairwise(numbers) if b - a > 1]
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) != len(pictures) or not gaps or len(steps) == 1:
        return []
    missing = sum(b - a - 1 for a, b in gaps)
    return [f"{missing} numbers are missing, the first after {gaps[0][0]}: the pictures play as if they were not"]


def describe_colours(headers: dict[Path, PictureHeader]) -> list[str]:
    """Returns notes if the pictures have several colour profiles, or one that cannot be kept."""
    unfit = [path.name for path, header in headers.items() if header.unfit]
    if unfit:
        return [f"{unfit[0]}: its colour profile is one for grey or for inks and is not kept"]
    colours = {header.colour: path for path, header in reversed(headers.items())}
    if len(colours) < 2:
        return []
    first, second = sorted(colours.values(), key=list(headers).index)[:2]
    return [
        f"colour profiles differ ({first.name}, {second.name}): colours are not converted, that of the first is kept"
    ]


def _read_png(data: mmap.mmap) -> PictureHeader:
    header = png.Header(*struct.unpack(">IIBBBBB", data[16:29]))
    colour, transparent, unfit, offset = b"", False, False, len(png.SIGNATURE)
    while (name := data[offset + 4 : offset + 8]) not in (b"IDAT", b"IEND", b""):
        end = offset + 12 + struct.unpack(">I", data[offset : offset + 4])[0]
        whole = data[offset:end] if name in COLOUR_CHUNKS else b""
        if whole and whole == png.chunk(name, whole[8:-4]):
            fits = name != b"iCCP" or _is_rgb(_unpacked(whole[8:-4]))
            colour, unfit = colour + whole * fits, unfit or not fits
        transparent |= name == b"tRNS"
        offset = end
    alpha = header.colour in (png.GREY_ALPHA, png.RGBA) or transparent
    return PictureHeader((header.width, header.height), alpha, header.depth == 16, colour, unfit)


def _read_jpeg(data: mmap.mmap) -> PictureHeader:
    offset, size, turned, profile = 2, (0, 0), False, b""
    while (marker := data[offset + 1]) != jpeg.SCAN_MARKER:
        if marker == 0xFF:  # any number of bytes FF may come before a marker
            offset += 1
            continue
        segment = data[offset + 4 : offset + 2 + struct.unpack_from(">H", data, offset + 2)[0]]
        if marker in SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", segment, 1)
            size = width, height
        elif segment.startswith(EXIF):
            value = _read_tags(segment, len(EXIF)).get(ORIENTATION_TAG)
            turned = value is not None and _number(value) >= 5
        elif segment.startswith(ICC_IN_JPEG):
            profile += segment[len(ICC_IN_JPEG) + 2 :]  # behind its number and the number of all parts
        offset += 4 + len(segment)
    return PictureHeader(size[::-1] if turned else size, **_profile(profile))


def _read_webp(data: mmap.mmap) -> PictureHeader:
    chunks: dict[bytes, bytes] = {}
    offset = 12
    while len(head := data[offset : offset + 8]) == 8:
        length = struct.unpack_from("<I", head, 4)[0]
        chunks.setdefault(head[:4], data[offset + 8 : offset + 8 + (length if head[:4] == b"ICCP" else 10)])
        offset += 8 + length + length % 2
    profile = _profile(chunks.get(b"ICCP"))
    if extended := chunks.get(b"VP8X"):
        width, height = (int.from_bytes(extended[i : i + 3], "little") + 1 for i in (4, 7))
        return PictureHeader((width, height), bool(extended[0] & 16), **profile)
    if lossless := chunks.get(b"VP8L"):
        bits = int.from_bytes(lossless[1:5], "little")
        return PictureHeader(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), bool(bits >> 28 & 1), **profile)
    width, height = struct.unpack_from("<HH", chunks[b"VP8 "], 6)
    return PictureHeader((width & 0x3FFF, height & 0x3FFF), **profile)


def _read_tags(data: bytes | mmap.mmap, start: int) -> dict[int, tuple[str, int, bytes]]:
    """Returns byte order, type and values of each tag in the first directory of TIFF data that begins at `start`."""
    order = "<" if data[start : start + 2] == b"II" else ">"
    offset = start + struct.unpack_from(order + "I", data, start + 4)[0]
    tags = {}
    for i in range(struct.unpack_from(order + "H", data, offset)[0]):
        place = offset + 2 + 12 * i
        tag, kind, count = struct.unpack_from(order + "HHI", data, place)
        value = data[place + 8 : place + 12]
        if tag == PROFILE_TAG:
            at = start + struct.unpack(order + "I", value)[0]
            value = data[at : at + count]
        tags[tag] = order, kind, value
    return tags


def _number(value: tuple[str, int, bytes]) -> int:
    order, kind, content = value
    return int(struct.unpack_from(order + TIFF_NUMBERS[kind], content)[0])


def _profile(profile: bytes | tuple[str, int, bytes] | None) -> dict[str, Any]:
    """Returns the fields of a header for an ICC profile."""
    content = profile[2] if isinstance(profile, tuple) else profile
    if not content:
        return {}
    if not _is_rgb(content):
        return {"unfit": True}
    return {"colour": png.chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(content))}


def _unpacked(content: bytes) -> bytes:
    """Returns the header of the profile in a chunk iCCP; empty if it is damaged."""
    try:
        return zlib.decompressobj().decompress(content[content.index(b"\0") + 2 :], ICC_HEADER)
    except (ValueError, zlib.error):
        return b""


def _is_rgb(profile: bytes) -> bool:
    """Returns whether an ICC profile is one of RGB, by the colour space in its header."""
    return profile[16:20] == b"RGB "
