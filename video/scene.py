"""Classifies the transition from one frame to the next: motion, a cut, or a repeat. Upstream's measure, thresholds."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from model.image import to_layers
from model.metrics import Surroundings, ssim, surroundings

SIZE = 32  # px; both frames are compared at SIZE x SIZE, as upstream does
CUT_SSIM = 0.2  # below: a cut, the earlier frame is held; above: motion, frames are made
REPEAT_SSIM = 0.996  # above: the frame repeats the one before; below: motion


class Transition(Enum):
    """The kind of change from one frame to the next."""

    MOTION = "motion"
    CUT = "cut"
    REPEAT = "repeat"


@dataclass(frozen=True)
class TransitionDetector:
    """Decides for the whole program whether two frames are separated by motion or a cut, or are the same.

    Both thresholds are similarities, SSIM of thumbnails of 32x32 pixels. 0 as `scene` finds no cuts, 1 as `static` no
    repeats.
    """

    scene: float = CUT_SSIM
    static: float = REPEAT_SSIM

    def signature(self, rgb: np.ndarray, padded: tuple[int, int] | None = None) -> Surroundings:
        """Computes what `classify` needs of a frame (H,W,C); `padded` is the height and width with the padding."""
        return surroundings(thumbnail(rgb, padded or rgb.shape[:2]))

    def classify(self, earlier: Surroundings, later: Surroundings) -> Transition:
        """Returns the transition between two frames, given their signatures."""
        similarity = float(ssim(earlier, later))
        if self.scene > 0 and similarity < self.scene:  # the similarity of inverted pictures is below 0
            return Transition.CUT
        return Transition.REPEAT if similarity > self.static and self.static < 1 else Transition.MOTION


def thumbnail(rgb: np.ndarray, padded: tuple[int, int]) -> Tensor:
    """Resizes a frame (H,W,C), padded with zeros to the height and width given, to (1,3,32,32) in 0..1.

    Bilinear without antialiasing, as upstream: only the pixels that contribute to the thumbnail are converted.
    """
    ys, below = _taps(padded[0])
    xs, right = _taps(padded[1])
    height, width = rgb.shape[:2]
    picked = rgb[np.minimum(ys, height - 1)][:, np.minimum(xs, width - 1)]
    inside = torch.from_numpy((ys < height)[:, None] & (xs < width))
    image = to_layers(picked)[:, :3] * inside  # (1,3,64,64)
    rows = torch.lerp(image[:, :, :SIZE], image[:, :, SIZE:], below[:, None])  # (1,3,32,64)
    return torch.lerp(rows[..., :SIZE], rows[..., SIZE:], right)  # (1,3,32,32)


def _taps(size: int) -> tuple[np.ndarray, Tensor]:
    """Returns the pixels that the 32 places along an axis lie between, and the weights of the second ones.

    The pixels are (64,): the 32 before the places, then the 32 after them. The weights are (32,).
    """
    place = ((torch.arange(SIZE) + 0.5) * (size / SIZE) - 0.5).clamp(min=0)
    first = place.long()
    return torch.cat((first, (first + 1).clamp(max=size - 1))).numpy(), place - first
