"""Two views of one scene, left and right, blended into one whose time runs from the left view to the right one.

The paper's general temporal encoding: the timestep is a map, 0 at the left edge (the left picture) and 1 at the right.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from model import RIFE
from model.image import from_layers, to_layers
from video.frame import Frame
from video.picture import MediaError


def ramp(height: int, width: int) -> Tensor:
    """(1,1,H,W): t = x / (W-1), over the width of the picture itself, not of its padding."""
    return torch.linspace(0, 1, width).expand(1, 1, height, width)


def stitch(left: np.ndarray, right: np.ndarray, model: RIFE, scale: float = 1.0) -> np.ndarray:
    """Two pictures (H,W,C) of one shape and dtype -> one like them. UserError if the network knows only the middle."""
    height, width, channels = left.shape
    if not model.arbitrary_time:
        raise MediaError(f"--stitch needs a network that takes any timestep; {model.name} knows only the middle")
    views = (to_layers(view, model.device) for view in (left, right))
    image = model.inference(*views, timestep=ramp(height, width), scale=scale)
    return from_layers(image, channels, left.dtype.type)


def stitch_frames(lefts: Iterable[Frame], rights: Iterable[Frame], model: RIFE, scale: float = 1.0) -> Iterator[Frame]:
    """Stitches two synchronised streams frame by frame, at the times of the left one, until the shorter ends."""
    for left, right in zip(lefts, rights, strict=False):
        yield Frame(stitch(left.rgb(), right.rgb(), model, scale), left.time)
