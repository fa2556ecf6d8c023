"""Interpolates uint8 pictures (H,W,3) without a network: repeats a frame, averages both, or uses classical flow."""

from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

PictureMethod = Callable[[np.ndarray, np.ndarray, Fraction], np.ndarray]  # two (H,W,3) and a timestep -> one


def repeat(first: np.ndarray, second: np.ndarray, timestep: Fraction) -> np.ndarray:
    """Returns the first frame at any timestep."""
    return first


def average(first: np.ndarray, second: np.ndarray, timestep: Fraction) -> np.ndarray:
    """Returns the mean of both frames, weighted by nearness in time, in float32 0..255."""
    t = float(timestep)
    return first.astype(np.float32) * (1 - t) + second.astype(np.float32) * t


def dis_flow(first: np.ndarray, second: np.ndarray, timestep: Fraction) -> np.ndarray:
    """Returns the average of both frames warped by OpenCV's DIS flow (medium preset), in float32 0..255.

    A pixel of the new frame is assumed to move as the pixel at the same place of the source frame: F(t->0) = -t F(0->1)
    and F(t->1) = -(1-t) F(1->0). OpenCV rounds warped frames to 8 bits.
    """
    t = float(timestep)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey0, grey1 = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
    forward, backward = search.calc(grey0, grey1, None), search.calc(grey1, grey0, None)  # type: ignore[call-overload]
    return average(_warp(first, -t * forward), _warp(second, (t - 1) * backward), timestep)


def _warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Warps: out[y,x] = frame[y + flow_y, x + flow_x], bilinear, border repeated, uint8."""
    ys, xs = np.indices(flow.shape[:2], np.float32)
    return cv2.remap(frame, xs + flow[:, :, 0], ys + flow[:, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


BASELINES: dict[str, PictureMethod] = {"first frame": repeat, "average": average, "DIS flow": dis_flow}
