"""What lies between two frames: motion, a cut, or a repeat. Upstream's measure and thresholds."""

from enum import Enum

import torch
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
    """(1,3,H,W) in 0..1, padded -> (1,3,32,32), bilinear without antialiasing, as upstream measures it.

    Two rows and two columns are mixed for each of the 32: a sixteenth of F.interpolate's time, to 1e-7.
    """
    y0, y1, below = _taps(image.shape[2], image.device)
    x0, x1, right = _taps(image.shape[3], image.device)
    rows = torch.lerp(image[:, :, y0].float(), image[:, :, y1].float(), below[:, None])
    return torch.lerp(rows[..., x0], rows[..., x1], right)


def _taps(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of the 32 places along an axis, the two pixels it lies between and how near it is to the second."""
    place = ((torch.arange(SIZE, device=device) + 0.5) * (size / SIZE) - 0.5).clamp(min=0)
    first = place.long()
    return first, (first + 1).clamp(max=size - 1), place - first


def compare(
    earlier: Tensor, later: Tensor, scene_threshold: float = CUT_SSIM, static_threshold: float = REPEAT_SSIM
) -> Change:
    """Two thumbnails -> what changed; a threshold of 0 finds no cuts, one of 1 no repeats."""
    similarity = float(ssim(earlier, later))
    if similarity < scene_threshold:
        return Change.CUT
    return Change.REPEAT if similarity > static_threshold else Change.MOTION
