"""Returns the pictures between two frames that no motion joins, without the network."""

from fractions import Fraction

import cv2
import numpy as np

from video.devices import FramePair
from video.frame import Picture

AT_CUT = ("hold", "blend", "nearest")
MIDDLE = Fraction(1, 2)  # timestep


def held_picture(pair: FramePair, step: Fraction, rule: str = "hold") -> Picture:
    """Returns the picture at a timestep: the first ("hold"), the nearer one ("nearest"), or their mean ("blend").

    The mean is weighted by time. A timestep of 0 gives the first picture itself.
    """
    if rule == "hold" or not step or (rule == "nearest" and step < MIDDLE):
        return pair.first.frame.picture
    if rule == "nearest":
        return pair.second.frame.picture
    return blend_pictures(pair.first.whole, pair.second.whole, float(step))


def blend_pictures(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Returns the mean of two pictures (H,W,C) of one type, rounded; `share` is the weight of the second."""
    return cv2.addWeighted(first, 1 - share, second, share, 0, dtype=-1)
