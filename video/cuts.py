"""Measures how badly motion explains the change from one frame to the next: the score of a cut."""

import cv2
import numpy as np

SIZE = (128, 72)  # width, height px at which frames are compared
FLOOR = 4.0  # 8-bit levels; contrast below is noise, as in a fade from black


def small_luma(rgb: np.ndarray) -> np.ndarray:
    """Resizes a frame (H,W,C), C of 1, 3 or 4, to its luma (72,128) uint8, by area."""
    small = cv2.resize(rgb, SIZE, interpolation=cv2.INTER_AREA)
    if small.dtype != np.uint8:
        limit = 65535 if small.dtype == np.uint16 else 1
        small = (np.nan_to_num(small.astype(np.float32)).clip(0, limit) * (255 / limit) + 0.5).astype(np.uint8)
    return small if small.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(small[..., :3]), cv2.COLOR_RGB2GRAY)


def mismatch(earlier: np.ndarray, later: np.ndarray) -> float:
    """Returns what motion leaves of the difference of two lumas (72,128), relative to their contrast.

    The later picture is warped onto the earlier one by DIS optical flow; the mean difference that is left is divided by
    twice the larger standard deviation. About 0.05 for motion, 0.5 for two scenes: two pictures without relation.
    """
    start = np.zeros((*earlier.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(earlier, later, start)
    x, y = np.meshgrid(np.arange(SIZE[0], dtype=np.float32), np.arange(SIZE[1], dtype=np.float32))
    warped = cv2.remap(later, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    contrast = max(float(earlier.std()), float(later.std()))
    return float(cv2.absdiff(earlier, warped).mean()) / (2 * contrast + FLOOR)
