"""Makes a training sample of two frames, the frame between and its known motion; augments samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.textures import RgbPicture

TrainingSample = dict[str, Tensor]


def pack(
    pictures: Sequence[RgbPicture],
    timestep: float,
    *,
    flow: np.ndarray | None = None,
    known: np.ndarray | None = None,
    one_sided: np.ndarray | None = None,
) -> TrainingSample:
    """Returns a sample of img0, gt and img1 (H,W,3) uint8 and what is known about their motion; unknown is 0.

    img0, gt, img1 (3,H,W) uint8. timestep (1,1,1). flow (4,H,W) px from the middle to img0 then img1, x before y.
    known (2,H,W) uint8: 1 where the flow to each end is known and trained on. one_sided (1,H,W) uint8: 1 where img0
    alone shows the point of a pixel, 2 where img1 alone does, 0 where both or neither do or nothing is known.
    """
    img0, gt, img1 = pictures
    h, w = gt.shape[:2]
    zeros = np.zeros((4, h, w), np.float32)
    arrays = {
        "img0": img0.transpose(2, 0, 1),
        "gt": gt.transpose(2, 0, 1),
        "img1": img1.transpose(2, 0, 1),
        "timestep": np.full((1, 1, 1), timestep, np.float32),
        "flow": zeros if flow is None else flow,
        "known": zeros[:2].astype(np.uint8) if known is None else known.astype(np.uint8),
        "one_sided": zeros[:1].astype(np.uint8) if one_sided is None else one_sided[None].astype(np.uint8),
    }
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}


def find_one_sided(visible: np.ndarray) -> np.ndarray:
    """Returns `one_sided` (H,W) of a sample, see `pack`, from visible (2,H,W) bool: whether img0, img1 show a point."""
    only0, only1 = visible[0] & ~visible[1], visible[1] & ~visible[0]
    return np.where(only0, 1, np.where(only1, 2, 0)).astype(np.uint8)


def augment(rng: np.random.Generator, sample: TrainingSample) -> TrainingSample:
    """Returns a square sample, or a batch of them, after upstream's augmentation.

    At random: channels reversed, flipped, time reversed, rotated by quarters; all samples of a batch alike.
    """
    reverse, down, across, swap = rng.random(4) < 0.5
    turns = int(rng.integers(4))
    out = {key: value.numpy() for key, value in sample.items()}  # changed as views, copied once at the end
    planes = [key for key in out if key != "timestep"]
    order, signs = np.arange(4), np.ones(4, np.float32)  # of the flow's planes
    if reverse:
        out |= {key: np.flip(out[key], -3) for key in ("img0", "gt", "img1")}
    for wanted, axis, sign in ((down, -2, (1, -1)), (across, -1, (-1, 1))):
        if wanted:
            out |= {key: np.flip(out[key], axis) for key in planes}
            signs = signs * np.array(sign * 2, np.float32)
    if swap:
        out |= {"img0": out["img1"], "img1": out["img0"], "timestep": 1 - out["timestep"]}
        out["known"], order = np.flip(out["known"], -3), np.roll(order, 2)
        out["one_sided"] = np.array((0, 2, 1), np.uint8)[out["one_sided"]]
    for _ in range(turns):  # a quarter turn clockwise: a vector to the right then points down
        out |= {key: np.rot90(out[key], -1, (-2, -1)) for key in planes}
        order, signs = order[[1, 0, 3, 2]], signs[[1, 0, 3, 2]] * np.array((-1, 1) * 2, np.float32)
    parts = [out["flow"][..., i, :, :] * sign for i, sign in zip(order, signs, strict=True)]
    out["flow"] = np.stack(parts, -3)
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in out.items()}
