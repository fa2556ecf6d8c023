"""What lies between two frames: motion, a cut, or a repeat. Upstream's measure and thresholds."""

from enum import Enum

import numpy as np
import torch
from torch import Tensor

from model.image import to_layers
from model.metrics import Surroundings, ssim

SIZE = 32  # both frames are compared at SIZE x SIZE, as upstream does
CUT_SSIM = 0.2  # below: a cut, the earlier frame is held; above: motion, frames are made
REPEAT_SSIM = 0.996  # above: the frame repeats the one before; below: motion


class Change(Enum):
    """What happens from one frame to the next."""

    MOTION = "motion"
    CUT = "cut"
    REPEAT = "repeat"


def thumbnail(rgb: np.ndarray, padded: tuple[int, int]) -> Tensor:
    """(H,W,C) as read, and the height and width it is padded to with zeros -> (1,3,32,32) in 0..1.

    Bilinear without antialiasing, as upstream measures it; only the pixels that are mixed are looked at.
    """
    ys, below = _taps(padded[0])
    xs, right = _taps(padded[1])
    height, width = rgb.shape[:2]
    picked = rgb[np.minimum(ys, height - 1)][:, np.minimum(xs, width - 1)]
    inside = torch.from_numpy((ys < height)[:, None] & (xs < width))
    image = to_layers(picked)[:, :3] * inside  # (1,3,64,64)
    rows = torch.lerp(image[:, :, :SIZE], image[:, :, SIZE:], below[:, None])
    return torch.lerp(rows[..., :SIZE], rows[..., SIZE:], right)


def _taps(size: int) -> tuple[np.ndarray, Tensor]:
    """Of each of the 32 places along an axis the pixel before it, then the pixel after it; how near the second is."""
    place = ((torch.arange(SIZE) + 0.5) * (size / SIZE) - 0.5).clamp(min=0)
    first = place.long()
    return torch.cat((first, (first + 1).clamp(max=size - 1))).numpy(), place - first


def compare(
    earlier: Tensor | Surroundings,
    later: Tensor | Surroundings,
    scene_threshold: float = CUT_SSIM,
    static_threshold: float = REPEAT_SSIM,
) -> Change:
    """Two thumbnails, or their `surroundings` -> what changed; a threshold of 0 finds no cuts, one of 1 no repeats."""
    similarity = float(ssim(earlier, later))
    if scene_threshold > 0 and similarity < scene_threshold:  # inverted pictures are below 0
        return Change.CUT
    return Change.REPEAT if similarity > static_threshold and static_threshold < 1 else Change.MOTION
