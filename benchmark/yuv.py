"""Reads planar YUV 4:2:0 files (.yuv) as the paper's repository does for its HD benchmark (yuv_frame_io.py).

Full-range BT.601 colours by scikit-image's matrix, truncated to 8 bits; chroma enlarged by a filter that must be named,
since the published HD figure depends on it: "nearest" when it was made (SciPy), "bicubic" since (Pillow's default).
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

RGB_TO_YUV = np.array([
    [0.299, 0.587, 0.114],
    [-0.14714119, -0.28886916, 0.43601035],
    [0.61497538, -0.51496512, -0.10001026],
])  # fmt: skip
KEYS_A = -0.5  # of the bicubic kernel, as Pillow has it


def read_yuv420(
    stream: BinaryIO, width: int, height: int, *, depth: int = 8, chroma: str = "bicubic"
) -> Iterator[np.ndarray]:
    """Yields frames (H,W,3) float64 Y, U, V in 0..255 for every depth, with chroma enlarged.

    One frame at a time is in memory. An incomplete last frame is left out. Samples of more than 8 bits take two bytes,
    little-endian.
    """
    dtype: Any = np.dtype(np.uint8 if depth == 8 else "<u2")
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    sizes = [height * width, half_height * half_width, half_height * half_width]
    while True:
        data = stream.read(sum(sizes) * dtype.itemsize)
        if len(data) < sum(sizes) * dtype.itemsize:
            return
        samples = np.frombuffer(data, dtype) / 2.0 ** (depth - 8)
        y, u, v = np.split(samples, np.cumsum(sizes)[:2])
        planes = [enlarge(c.reshape(half_height, half_width), height, width, chroma) for c in (u, v)]
        yield np.stack((y.reshape(height, width), *planes), axis=2)


def to_rgb(yuv: np.ndarray) -> np.ndarray:
    """Converts (H,W,3) Y, U, V in 0..255 to (H,W,3) uint8 RGB, truncated, as upstream does."""
    scaled = yuv / 255 - [0, 0.5, 0.5]
    rgb = scaled @ np.linalg.inv(RGB_TO_YUV).T
    return (rgb.clip(0, 1) * 255).astype(np.uint8)


def luma(rgb: np.ndarray) -> np.ndarray:
    """Returns the luma (H,W) in 0..255 of (H,W,3) uint8; the HD benchmark's PSNR is that of the luma."""
    return rgb.astype(np.float64) @ RGB_TO_YUV[0]


def enlarge(plane: np.ndarray, height: int, width: int, chroma: str) -> np.ndarray:
    """Returns a chroma plane (h,w) at twice its size, cropped to (height,width), rounded to whole levels."""
    if chroma == "nearest":
        return plane.repeat(2, 0).repeat(2, 1)[:height, :width]
    if chroma != "bicubic":
        raise ValueError(f"chroma filter {chroma!r} is not 'nearest' or 'bicubic'")
    wide = (plane @ _doubling(plane.shape[1]).T).round().clip(0, 255)  # rounded between the passes, as Pillow does
    return (_doubling(plane.shape[0]) @ wide).round().clip(0, 255)[:height, :width]


def _doubling(size: int) -> np.ndarray:
    """Returns (2*size,size): cubic weights, one row an output sample, renormalised at the ends as in Pillow."""
    distance = np.abs((np.arange(2 * size)[:, None] + 0.5) / 2 - 0.5 - np.arange(size)[None])
    near = (KEYS_A + 2) * distance**3 - (KEYS_A + 3) * distance**2 + 1
    far = KEYS_A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)
