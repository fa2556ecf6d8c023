"""Derives the optical flow between two images from the flow that a network estimates at the middle between them.

Networks are trained for timesteps between the images: at 0 and 1 their flows are wrong, at 0.5 they are good. A point
at x in the middle frame lies at x + F(t->0) in the first image and at x + F(t->1) in the second one. So the flow F01 of
the first image is F(t->1) - F(t->0), at x + F(t->0): it is splatted forward from the middle to the first image. F10 is
made in the same way. This works for networks that estimate only the middle, too.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.warp import warp
from model.RIFE import RIFE

SHARPNESS = 20.0  # of the splatting weights: a point whose colour differs by 0.1 between the images counts e^-2
SAME_COLOUR = 0.1  # of 0..1: largest mean difference, over 3x3 pixels, of a point in both images
COVERED = 0.3  # sum of bilinear weights from which a pixel counts as covered
# Forward-backward check (Sundaram, Brox, Keutzer: Dense Point Trajectories, 2010): squared px.
CONSISTENT_SHARE, CONSISTENT_PX = 0.01, 0.5
STEPS = 4  # of the fixed-point iteration in `blend_between`; the error shrinks by flow/width in each
UNSEEN, OUTSIDE = 1e-3, 1e-6  # weights of colours whose point is hidden in the other image, or outside its own


class EndFlow(NamedTuple):
    """Holds both flows in px, x right and y down, and where each is reliable."""

    forward: Tensor  # (B,2,H,W), from the first image to the second
    backward: Tensor  # (B,2,H,W), from the second image to the first
    forward_consistent: Tensor  # (B,1,H,W) bool: backward leads back to the same pixel
    backward_consistent: Tensor


def end_flow(model: RIFE, img0: Tensor, img1: Tensor, *, scale: float = 1.0) -> EndFlow:
    """Returns the optical flow between two images (B,C,H,W) in 0..1, for every network; on the device of the model."""
    img0, img1 = (img[:, :3].to(model.device, torch.float32) for img in (img0, img1))
    return project_middle(model.flow(img0, img1, timestep=0.5, scale=scale), img0, img1)


@torch.no_grad()
def project_middle(flow: Tensor, img0: Tensor, img1: Tensor) -> EndFlow:
    """Returns the flows between two images (B,3,H,W) from F(t->0), F(t->1) of their middle frame, (B,4,H,W) px."""
    to_first, to_second = flow[:, :2], flow[:, 2:]
    motion = to_second - to_first
    difference = mean_difference(warp(img0, to_first), warp(img1, to_second))
    seen = (difference < SAME_COLOUR) & inside(to_first) & inside(to_second)  # else one flow is a guess
    weights = torch.exp(-SHARPNESS * difference) * seen
    forward, known0 = splat(motion, to_first, weights)
    backward, known1 = splat(-motion, to_second, weights)
    forward, backward = fill_holes(forward, known0), fill_holes(backward, known1)
    seen0 = (known0 > 0) & returns(forward, backward) & (mean_difference(img0, warp(img1, forward)) < SAME_COLOUR)
    seen1 = (known1 > 0) & returns(backward, forward) & (mean_difference(img1, warp(img0, backward)) < SAME_COLOUR)
    return EndFlow(forward, backward, seen0, seen1)


@torch.no_grad()
def blend_between(ends: EndFlow, img0: Tensor, img1: Tensor, times: Tensor) -> Tensor:
    """Returns the image (B,C,H,W) whose pixels lie at `times` (B,1,H,W), from 0 in the first image to 1 in the second.

    Points move in straight lines. A point at y at time t comes from x = y - t F01(x) of the first image, found by
    fixed-point iteration, and from the second image likewise. Both colours are blended by time, except where a point is
    hidden in one of the images.
    """
    flow0, flow1 = torch.zeros_like(ends.forward), torch.zeros_like(ends.backward)
    for _ in range(STEPS):
        flow0 = -times * warp(ends.forward, flow0)  # from y to the first image
        flow1 = (times - 1) * warp(ends.backward, flow1)
    seen0, seen1 = (
        (warp(seen.float(), flow).clamp(min=UNSEEN) * inside(flow)).clamp(min=OUTSIDE)
        for seen, flow in ((ends.forward_consistent, flow0), (ends.backward_consistent, flow1))
    )
    weight0, weight1 = (1 - times) * seen0, times * seen1
    return (warp(img0, flow0) * weight0 + warp(img1, flow1) * weight1) / (weight0 + weight1)


def splat(values: Tensor, flow: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (B,C,H,W) with `values` moved along `flow`, a weighted mean where several arrive, and where any arrived.

    values (B,C,H,W), flow (B,2,H,W) px, weights (B,1,H,W), 0 for pixels to leave out. The second result (B,1,H,W) is 1
    where pixels arrived, else 0.
    """
    b, c, h, w = values.shape
    x, y = pixel_grid(flow)
    target_x, target_y = x + flow[:, :1], y + flow[:, 1:]  # (B,1,H,W)
    left, top = target_x.floor(), target_y.floor()
    rows = torch.cat((values * weights, weights, (weights > 0).float()), 1)  # (B,C+2,H,W)
    rows = rows.permute(0, 2, 3, 1).reshape(-1, c + 2)  # (B*H*W,C+2)
    first = torch.arange(b, device=flow.device).view(b, 1, 1, 1) * h * w  # of each image among the rows
    total = torch.zeros_like(rows)
    for column, row in ((left + dx, top + dy) for dx in (0, 1) for dy in (0, 1)):
        share = (1 - (target_x - column).abs()) * (1 - (target_y - row).abs())
        share = share * ((column >= 0) & (column < w) & (row >= 0) & (row < h))
        index = first + row.clamp(0, h - 1).long() * w + column.clamp(0, w - 1).long()
        total.index_add_(0, index.flatten(), rows * share.view(-1, 1))
    total = total.view(b, h, w, c + 2).permute(0, 3, 1, 2)  # (B,C+2,H,W)
    known = (total[:, -1:] > COVERED).float()
    return total[:, :c] / total[:, c : c + 1].clamp(min=1e-12) * known, known


def pixel_grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the coordinates x (1,1,1,W) and y (1,1,H,1) of the pixels of a tensor (B,C,H,W), float32."""
    y, x = (torch.arange(n, device=like.device, dtype=torch.float32) for n in like.shape[2:])
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def fill_holes(values: Tensor, known: Tensor) -> Tensor:
    """Returns values (B,C,H,W) with unknown pixels interpolated from known ones around, coarse to fine (push-pull)."""
    if min(values.shape[2:]) < 2 or bool((known > 0).all()):
        return values
    coarse_known = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(values * known, 2, ceil_mode=True) / coarse_known.clamp(min=1e-12)
    coarse = fill_holes(coarse, (coarse_known > 0).float())
    size = values.shape[2:]
    return torch.where(known > 0, values, F.interpolate(coarse, size, mode="bilinear", align_corners=False))


def returns(flow: Tensor, back: Tensor) -> Tensor:
    """Returns (B,1,H,W) bool: following `flow`, then `back`, leads to the same pixel again, within a tolerance."""
    returned = warp(back, flow)
    error = (flow + returned).square().sum(1, keepdim=True)
    length = flow.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    return inside(flow) & (error < CONSISTENT_SHARE * length + CONSISTENT_PX)


def inside(flow: Tensor) -> Tensor:
    """Returns (B,1,H,W) bool: the flow (B,2,H,W) px of a pixel ends inside the frame."""
    x, y = pixel_grid(flow)
    end_x, end_y = x + flow[:, :1], y + flow[:, 1:]
    return (end_x >= 0) & (end_x <= flow.shape[3] - 1) & (end_y >= 0) & (end_y <= flow.shape[2] - 1)


def mean_difference(first: Tensor, second: Tensor) -> Tensor:
    """Returns (B,1,H,W): mean absolute difference of two images over channels and 3x3 pixels.

    The median difference of each channel is subtracted first: two views may differ in exposure.
    """
    difference = first - second
    difference = difference - difference.flatten(2).median(2).values[..., None, None]
    return F.avg_pool2d(difference.abs().mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
