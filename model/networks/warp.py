"""Warps images backward; resizes images and flows (whose values scale with their size)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from model.inference import kernels


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear", *, factor: int = 1) -> Tensor:
    """Warps backward: out[y, x] = image[y + flow_y, x + flow_x], the border repeated (upstream model/warplayer.py).

    image (B,C,H,W), flow (B,2,H,W) in pixels, x right, y down -> (B,C,H,W). Coordinates are float32 whatever the
    dtype of the image: half precision cannot represent the columns of a frame wider than 2048. `mode` may be "bicubic"
    (Keys, 1981, with a = -0.75), which keeps detail that bilinear samples between pixels lose. With an even `factor`,
    of which H and W are multiples, the result is resized to (B,C,H/factor,W/factor): only the pixels that the resized
    image needs are sampled. A TorchFunctionMode can replace this function, as model/export/graph.py does.
    """
    if has_torch_function((image, flow)):
        return handle_torch_function(warp, (image, flow), image, flow, mode, factor=factor)
    h, w = flow.shape[2:]
    if mode == "bilinear" and factor == 1 and _trains(image, flow) and min(h, w) > 1 and kernels.available():
        return kernels.warp_planes(image, flow)
    # -1 and 1 are the centres of the first and the last pixel; rounded as upstream, so that the frames are equal
    xs, ys = (torch.linspace(-1, 1, size, device=flow.device) for size in (w, h))
    half_w, half_h = (max(size - 1, 1) / 2 for size in (w, h))
    if factor > 1:
        xs, ys = _middles(xs, factor), _middles(ys, factor)
        flow = _middles(_middles(flow, factor).transpose(2, 3), factor).transpose(2, 3)
    flow = flow.float()
    x, y = xs + flow[:, 0] / half_w, ys[:, None] + flow[:, 1] / half_h  # (B,H,W)
    if mode == "bicubic" and image.device.type == "mps":  # has no bicubic grid_sample
        out = sample_cubic(image.float(), (x + 1) * half_w, (y + 1) * half_h)
    else:
        grid, border = torch.stack((x, y), 3), "border"
        if grid.device.type == "mps":  # has no border mode; a grid clamped to the centres of the edge is the same
            grid, border = grid.clamp(-1, 1), "zeros"
        out = F.grid_sample(image.float(), grid, mode, border, align_corners=True)
    out = F.avg_pool2d(out, 2) if factor > 1 else out
    return out.to(image.dtype)


def warp_both(first: Tensor, second: Tensor, flow: Tensor, *, factor: int = 1) -> tuple[Tensor, Tensor]:
    """Warps two images (B,C,H,W), each by its half of a flow (B,4,H,W) px; `factor` as in `warp`."""
    return warp(first, flow[:, :2], factor=factor), warp(second, flow[:, 2:4], factor=factor)


def sample_cubic(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Samples an image (B,C,H,W) at positions (B,h,w) px as grid_sample's "bicubic", the border repeated: (B,C,h,w)."""
    batch, channels, height, width = image.shape
    pixels = image.flatten(2)
    out = image.new_zeros(batch, channels, *x.shape[1:])
    for row, down in _cubic_taps(y, height):
        for column, across in _cubic_taps(x, width):
            place = (row * width + column).flatten(1)[:, None].expand(-1, channels, -1)
            out = out.addcmul((down * across)[:, None], pixels.gather(2, place).view_as(out))
    return out


def _cubic_taps(at: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Returns the four pixels around each position (B,h,w) along an axis, with weights (Keys, 1981, a = -0.75)."""
    a = -0.75
    first = at.floor()
    f = at - first
    weights = (
        f * (a + f * (-2 * a + f * a)),
        1 + f * f * (-a - 3 + f * (a + 2)),
        f * (-a + f * (2 * a + 3 + f * (-a - 2))),
        f * f * (a - f * a),
    )
    return [((first + i - 1).clamp(0, size - 1).long(), weight) for i, weight in enumerate(weights)]


def _middles(x: Tensor, factor: int) -> Tensor:
    """Returns the two middle values of every `factor` values along the last axis: (..,N) -> (..,2*N/factor)."""
    return x.unflatten(-1, (-1, factor))[..., factor // 2 - 1 : factor // 2 + 1].flatten(-2)


def _trains(image: Tensor, flow: Tensor) -> bool:
    """Returns whether gradients are needed on a CPU, where the kernels take a quarter of PyTorch's time."""
    plain = image.dtype == flow.dtype == torch.float32 and image.device.type == "cpu"
    return plain and flow.requires_grad and not torch.compiler.is_compiling()


def resize(image: Tensor, factor: float) -> Tensor:
    """Resizes (B,C,H,W) to (B,C,H*factor,W*factor), bilinear, no antialiasing; a factor of 1 changes nothing."""
    if factor == 1:
        return image
    return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)


def resize_flow(flow: Tensor, factor: float) -> Tensor:
    """Returns a flow resized and multiplied by the factor, since it is measured in its own pixels."""
    return flow if factor == 1 else resize(flow, factor) * factor
