"""Backward warping, and resizing of images and of flows (whose values scale with their size)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model import kernels


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear", *, factor: int = 1) -> Tensor:
    """out[y, x] = image[y + flow_y, x + flow_x], the border repeated (upstream model/warplayer.py).

    image (B,C,H,W), flow (B,2,H,W) in pixels, x right, y down -> (B,C,H,W). Coordinates are float32 whatever the
    dtype of the image: half precision cannot name the pixels of a frame wider than 2048. `mode` may be "bicubic" (Keys,
    1981, with a = -0.75), which keeps detail that bilinear samples between pixels lose. With an even `factor`, of which
    H and W are multiples, it is then resized by 1/factor: only pixels that go into that are sampled.
    """
    h, w = flow.shape[2:]
    if mode == "bilinear" and factor == 1 and _trains(image, flow) and min(h, w) > 1 and kernels.available():
        return kernels.warp_planes(image, flow)
    xs, ys = (torch.arange(size, device=flow.device) for size in (w, h))
    if factor > 1:
        xs, ys = _middles(xs, factor), _middles(ys, factor)
        flow = _middles(_middles(flow, factor).transpose(2, 3), factor).transpose(2, 3)
    flow = flow.float()
    # align_corners=True: -1 and 1 are the centres of the first and the last pixel
    x = (xs + flow[:, 0]) * (2 / max(w - 1, 1)) - 1
    y = (ys[:, None] + flow[:, 1]) * (2 / max(h - 1, 1)) - 1
    grid = torch.stack((x, y), 3)  # (B,H,W,2)
    border = "border"
    if grid.device.type == "mps":  # has no border mode; a grid clamped to the centres of the edge is the same
        grid, border = grid.clamp(-1, 1), "zeros"
    out = F.grid_sample(image.float(), grid, mode, border, align_corners=True)
    out = F.avg_pool2d(out, 2) if factor > 1 else out
    return out.to(image.dtype)


def _middles(x: Tensor, factor: int) -> Tensor:
    """(..,N) -> (..,2 * N / factor): of each `factor` the two in the middle."""
    return x.unflatten(-1, (-1, factor))[..., factor // 2 - 1 : factor // 2 + 1].flatten(-2)


def _trains(image: Tensor, flow: Tensor) -> bool:
    """Whether gradients are wanted on a CPU, where PyTorch's own take four times as long as those of the kernels."""
    plain = image.dtype == flow.dtype == torch.float32 and image.device.type == "cpu"
    return plain and flow.requires_grad and not torch.compiler.is_compiling()


def resize(image: Tensor, factor: float) -> Tensor:
    """(B,C,H,W) -> (B,C,H*factor,W*factor), bilinear, no antialiasing; a factor of 1 is the identity."""
    if factor == 1:
        return image
    return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)


def resize_flow(flow: Tensor, factor: float) -> Tensor:
    """Resized and multiplied: a flow is measured in its own pixels."""
    return flow if factor == 1 else resize(flow, factor) * factor
