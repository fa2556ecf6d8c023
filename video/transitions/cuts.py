"""Measures how badly motion explains the change from one frame to the next: the score of a cut."""

from typing import NamedTuple

import cv2
import numpy as np

LUMA_SIZE = (128, 72)  # width, height px at which frames are compared
NOISE_CONTRAST = 4.0  # 8-bit levels; contrast below is noise, as in a fade from black
BLACK = 8  # 8-bit levels; rows and columns up to this are black bars


def small_luma(rgb: np.ndarray) -> np.ndarray:
    """Resizes a frame (H,W,C), C of 1, 3 or 4, to its luma (72,128) uint8, by area."""
    small = cv2.resize(rgb, LUMA_SIZE, interpolation=cv2.INTER_AREA)
    if small.dtype != np.uint8:
        limit = 65535 if small.dtype == np.uint16 else 1
        small = (np.nan_to_num(small.astype(np.float32)).clip(0, limit) * (255 / limit) + 0.5).astype(np.uint8)
    return small if small.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(small[..., :3]), cv2.COLOR_RGB2GRAY)


class Match(NamedTuple):
    """Holds how well the later of two frames, moved by optical flow, fits the earlier one."""

    mismatch: float  # mean difference that is left, relative to the contrast
    correlation: float  # -1 to 1; of brightness: 1 if one picture is a brighter or paler version of the other


def match(earlier: np.ndarray, later: np.ndarray) -> Match:
    """Warps the later of two lumas (72,128) onto the earlier one by DIS optical flow and compares them.

    The mismatch is divided by twice the larger standard deviation: it is about 0.05 for motion, and 0.5 for two
    pictures without relation. Black bars around the picture, as in letterboxed films, do not count: they are always the
    same, and their contrast with the picture is no contrast of the scene.
    """
    start = np.zeros((*earlier.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(earlier, later, start)
    x, y = np.meshgrid(np.arange(LUMA_SIZE[0], dtype=np.float32), np.arange(LUMA_SIZE[1], dtype=np.float32))
    warped = cv2.remap(later, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    area = picture_area(np.maximum(earlier, later))
    earlier, later, warped = earlier[area], later[area], warped[area]
    contrasts = earlier.std(), later.std()
    left = float(cv2.absdiff(earlier, warped).mean())
    product = float(((earlier - earlier.mean()) * (warped - warped.mean())).mean())
    return Match(
        left / (2 * float(max(contrasts)) + NOISE_CONTRAST), product / (float(earlier.std() * warped.std()) + 1)
    )


def picture_area(brightest: np.ndarray) -> tuple[slice, slice]:
    """Returns the rows and columns between black bars; all of them without bars.

    `brightest` (H,W) is the highest luma of each pixel in frames with the same bars. Bars are equally thick at opposite
    edges: black beside an object that moves over a black ground is no bar.
    """
    lit = brightest > BLACK
    if not lit.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(lit.any(axis)) for axis in (1, 0))
    height, width = (min(int(k[0]), size - 1 - int(k[-1])) for k, size in zip((rows, columns), lit.shape, strict=True))
    return slice(height, lit.shape[0] - height), slice(width, lit.shape[1] - width)
