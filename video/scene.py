"""What lies between two frames: motion, a cut, or a repeat. Upstream's measure and thresholds."""

from enum import Enum

import torch.nn.functional as F
from torch import Tensor

from model.metrics import ssim

SIZE = 32  # both frames are compared at SIZE x SIZE, as upstream does
CUT_SSIM = 0.2  # below: a cut, the earlier frame is held; above: motion, frames are made
REPEAT_SSIM = 0.996  # above: the frame repeats the one before; below: motion


class Change(Enum):
    """What happens from one frame to the next."""

    MOTION = "motion"
    CUT = "cut"
    REPEAT = "repeat"


def thumbnail(image: Tensor) -> Tensor:
    """(1,3,H,W) in 0..1, padded -> (1,3,32,32), bilinear without antialiasing, as upstream measures it."""
    return F.interpolate(image.float(), (SIZE, SIZE), mode="bilinear", align_corners=False)


def compare(
    earlier: Tensor, later: Tensor, scene_threshold: float = CUT_SSIM, static_threshold: float = REPEAT_SSIM
) -> Change:
    """Two thumbnails -> what changed; a threshold of 0 finds no cuts, one of 1 no repeats."""
    similarity = float(ssim(earlier, later))
    if scene_threshold > 0 and similarity < scene_threshold:  # inverted pictures are below 0
        return Change.CUT
    return Change.REPEAT if similarity > static_threshold and static_threshold < 1 else Change.MOTION
