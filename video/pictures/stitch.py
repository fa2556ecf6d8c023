"""Blends two views of one scene into one picture, from the left view at its left edge to the right view.

Every pixel has a time of its own, from 0 at the left edge to 1 at the right edge (the paper's general temporal
encoding). The image at these times is made from the optical flow between the views, see model/inference/end_flow.py.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from model import RIFE
from model.image import from_layers, to_layers
from model.inference.end_flow import blend_between, end_flow
from video.frame import Frame


def ramp(height: int, width: int) -> Tensor:
    """Returns the times (1,1,H,W): t = x / (W-1)."""
    return torch.linspace(0, 1, width).expand(1, 1, height, width)


def stitch(left: np.ndarray, right: np.ndarray, model: RIFE, scale: float = 1.0) -> np.ndarray:
    """Blends two pictures (H,W,C) of one shape and dtype into one of the same shape and dtype."""
    height, width, channels = left.shape
    img0, img1 = (to_layers(view, model.device) for view in (left, right))
    ends = end_flow(model, img0, img1, scale=scale)
    image = blend_between(ends, img0, img1, ramp(height, width).to(model.device))
    return from_layers(image, channels, left.dtype.type)


def stitch_frames(lefts: Iterable[Frame], rights: Iterable[Frame], model: RIFE, scale: float = 1.0) -> Iterator[Frame]:
    """Yields the blended frames of two synchronised streams, at the times of the left one, until the shorter ends."""
    for left, right in zip(lefts, rights, strict=False):
        yield Frame(stitch(left.rgb(), right.rgb(), model, scale), left.time)
