"""Reads and writes picture files as arrays (H,W,C) in RGB: PNG, JPEG, WebP, TIFF, EXR; grey is C=1, alpha is C=4.

OpenCV reads and writes BGR. This module converts to RGB after reading and to BGR before writing; no other one does.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from model.errors import UserError
from model.files import special_kind
from video.pictures import jpeg, png
from video.safe_file import PICTURE_SUFFIXES, write_file

# First bytes of a file of each kind: they distinguish a damaged picture from a file of another kind.
MAGICS = (png.SIGNATURE, jpeg.SIGNATURE, b"II*\0", b"MM\0*", b"\x76\x2f\x31\x01", b"BM")
MAX_PICTURE_BYTES = 2**32  # of a picture file
EXR_SWITCH = "OPENCV_IO_ENABLE_OPENEXR"
WRITABLE = {  # suffix: dtypes that the format can hold, and the largest number of channels
    ".png": (("uint8", "uint16"), 4),
    ".jpg": (("uint8",), 3),
    ".jpeg": (("uint8",), 3),
    ".webp": (("uint8",), 4),
    ".tif": (("uint8", "uint16", "float32"), 4),
    ".tiff": (("uint8", "uint16", "float32"), 4),
    ".exr": (("float16", "float32"), 4),
}
QUALITY_OPTIONS = {
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, 101),  # above 100 is lossless
}


class MediaError(UserError):
    """Reports a picture or video file that cannot be read or written."""


def read_picture(path: Path | str) -> np.ndarray:
    """Reads a picture as (H,W,C) uint8, uint16 or float32; C is 1 (grey), 3 (RGB) or 4 (RGBA, also grey with alpha).

    The format follows from the content of the file, not from its name. Values are as stored: alpha is straight in PNG
    and WebP, premultiplied in EXR. A JPEG is rotated by its EXIF orientation. Raises MediaError.
    """
    path = Path(path)
    data = _read_bytes(path)
    damage = MediaError(f"{path}: damaged or cut off; copy or export the picture again")
    flags = cv2.IMREAD_UNCHANGED
    decoding: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    try:
        if data.startswith(png.SIGNATURE):
            data = png.checked_png(data)
        elif data.startswith(jpeg.SIGNATURE):
            jpeg.check_jpeg(data)
            decoding = jpeg.checked_decoding()
            flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # UNCHANGED ignores the orientation
    except (png.PngError, jpeg.JpegError) as e:
        raise damage from e
    try:
        with _opencv(), decoding:
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except jpeg.JpegError as e:
        raise damage from e
    except (cv2.error, MemoryError) as e:
        raise MediaError(f"{path}: damaged, or too large to be decoded; export the picture again, or smaller") from e
    if bgr is None:
        if data.startswith(MAGICS) or data[8:12] == b"WEBP":
            raise damage
        raise MediaError(f"{path}: not a picture that can be read; give one of {', '.join(PICTURE_SUFFIXES)}")
    if bgr.dtype == np.float64:
        bgr = bgr.astype(np.float32)
    if bgr.dtype not in (np.uint8, np.uint16, np.float32):
        raise MediaError(f"{path}: holds {bgr.dtype} values; convert it to 8 or 16 bits or to 32-bit float")
    return _swap(bgr if bgr.ndim == 3 else bgr[:, :, None])


def _read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file. Raises MediaError."""
    try:
        kind = special_kind(path)
        if kind:
            raise MediaError(f"{path}: {kind}, not a picture; give a picture file")
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise MediaError(f"{path}: larger than {MAX_PICTURE_BYTES >> 30} GB; give a smaller picture")
        return path.read_bytes()
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({e.strerror}); check the name and the folder") from e


def write_picture(path: Path | str, picture: np.ndarray, inputs: Iterable[Path] = (), colour: bytes = b"") -> None:
    """Writes (H,W,C), as `read_picture` returns it; replaces an older file, but never one of `inputs`.

    `colour` are the chunks of a PNG file that describe its colours; other formats get none. EXR is written as half
    float where that loses nothing (a float16 picture), else as 32-bit float; WebP without loss, JPEG at quality 95.
    Raises UserError.
    """
    path = Path(path)
    data = encode_picture(path, picture)
    if path.suffix.lower() == ".png":
        data = data[: png.HEADER_END] + colour + data[png.HEADER_END :]
    write_file(path, data, inputs)


def encode_picture(path: Path, picture: np.ndarray) -> bytes:
    """Returns the content of the file for a picture, in the format that the suffix of `path` names."""
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        raise MediaError(f"{path}: no picture format is called {suffix!r}; use one of {', '.join(WRITABLE)}")
    dtypes, channels = WRITABLE[suffix]
    if str(picture.dtype) not in dtypes or picture.shape[2] > channels:
        values = f"{picture.shape[2]} channels of {picture.dtype}"
        raise MediaError(f"{path}: {suffix} cannot hold {values}; use .png for 8 and 16 bits, .exr for float")
    options = list(QUALITY_OPTIONS.get(suffix, ()))
    if suffix == ".exr":
        with np.errstate(over="ignore"):
            half = picture.astype(np.float16)
        exact = np.array_equal(half.astype(np.float32), picture, equal_nan=True)
        options = [cv2.IMWRITE_EXR_TYPE, cv2.IMWRITE_EXR_TYPE_HALF if exact else cv2.IMWRITE_EXR_TYPE_FLOAT]
        picture = picture.astype(np.float32)
    try:
        with _opencv():
            done, data = cv2.imencode(suffix, _swap(picture), options)
    except (cv2.error, MemoryError) as e:
        height, width = picture.shape[:2]
        raise MediaError(f"{path}: {width}x{height} cannot be encoded as {suffix}; use .png, or a smaller size") from e
    if not done:
        raise MediaError(f"{path}: could not be encoded as {suffix}; use .png")
    return data.tobytes()


def _swap(picture: np.ndarray) -> np.ndarray:
    """Converts RGB to BGR and RGBA to BGRA, and back; leaves one channel as it is."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[picture.shape[2]]
    return np.ascontiguousarray(picture[:, :, order])


@contextlib.contextmanager
def _opencv() -> Iterator[None]:
    """Switches EXR on and OpenCV's own messages off inside a `with` block: errors here are one line of this module."""
    # OpenCV reads the variable at the first EXR file, not at import; its wheels have EXR off (their issue 21326).
    os.environ.setdefault(EXR_SWITCH, "1")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def check_alike(first: np.ndarray, second: np.ndarray, name0: str, name1: str) -> None:
    """Raises MediaError unless the two pictures have one size and both hold integers, or both floats."""
    size0, size1 = (f"{p.shape[1]}x{p.shape[0]}" for p in (first, second))
    if size0 != size1:
        raise MediaError(f"{name0} is {size0}, {name1} is {size1}; crop or resize one to the size of the other")
    if (first.dtype.kind == "f") != (second.dtype.kind == "f"):
        raise MediaError(f"{name0} holds {first.dtype}, {name1} {second.dtype}; convert one to the kind of the other")


def alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both pictures with the larger number of channels and the larger depth; they have passed `check_alike`."""
    channels = max(first.shape[2], second.shape[2])
    if first.dtype != second.dtype:  # 8 and 16 bits: 255 becomes 65535
        first, second = (p if p.dtype == np.uint16 else p.astype(np.uint16) * 257 for p in (first, second))
    return with_channels(first, channels), with_channels(second, channels)


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """Returns (H,W,C) as (H,W,channels), channels >= C: grey is repeated to RGB, added alpha is opaque."""
    if picture.shape[2] == 1 < channels:
        picture = picture.repeat(3, 2)
    if picture.shape[2] < channels:
        full = 1 if picture.dtype.kind == "f" else np.iinfo(picture.dtype).max
        picture = np.concatenate((picture, np.full_like(picture[:, :, :1], full)), 2)
    return picture


def eight_bit(picture: np.ndarray) -> np.ndarray:
    """Converts (H,W,C) uint8 or uint16 to (H,W,3 or 4) uint8, rounded."""
    deep = picture.dtype == np.uint16
    picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8) if deep else picture
    return with_channels(picture, max(picture.shape[2], 3))


def natural_key(name: str) -> tuple[object, ...]:
    """Returns a sorting key in which numbers count as numbers: frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return (*(int(part) if i % 2 else part for i, part in enumerate(parts)), name)


def list_pictures(folder: Path | str) -> list[Path]:
    """Returns the picture files of a folder, by their suffix, in natural order, without hidden and unfinished files.

    Raises MediaError if there is none.
    """
    folder = Path(folder)
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
    except OSError as e:
        raise MediaError(f"{folder}: cannot be read as a folder of pictures ({e.strerror}); check the name") from e
    found = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")]
    pictures = [path for path in found if not path.stem.endswith(".part")]
    if not pictures:
        raise MediaError(f"{folder}: holds no picture; give a folder with any of {', '.join(PICTURE_SUFFIXES)}")
    return sorted(pictures, key=lambda path: natural_key(path.name))
