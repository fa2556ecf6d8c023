"""Runs a network between two prepared frames, with what is warped along with the image and with test-time averaging."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from model.contract import Network
from model.frames import PreparedFrame, rotate
from model.networks.layers import blend
from model.networks.warp import warp_both


@torch.no_grad()
def predict(
    network: Network,
    frame0: PreparedFrame,
    frame1: PreparedFrame,
    timestep: float | Tensor,
    *,
    tta: bool,
    disagreement: bool = False,
    **options: Any,
) -> Tensor:
    """Returns the padded image at the timestep with its extra channels, (B,3+K,H',W').

    `timestep` is a number, a map (B,1,H',W'), or N numbers (N,1,1,1) for one pair, whose result has N samples.
    `disagreement` adds the channel of RIFE.between, `tta` averages with the result of the frames rotated by 180
    degrees, `options` are those of the network.
    """
    made = _run(network, frame0, frame1, timestep, disagreement=disagreement, **options)
    if not tta:
        return made
    rotated0, rotated1 = (frame.with_image(rotate(frame.whole()), network) for frame in (frame0, frame1))
    time = rotate(timestep) if isinstance(timestep, Tensor) else timestep
    return (made + rotate(_run(network, rotated0, rotated1, time, disagreement=disagreement, **options))) / 2


def _run(
    network: Network,
    frame0: PreparedFrame,
    frame1: PreparedFrame,
    timestep: float | Tensor,
    *,
    disagreement: bool,
    **options: Any,
) -> Tensor:
    """Runs the network once; arguments and result as in `predict`."""
    inputs = frame0.image, frame1.image, frame0.features, frame1.features
    if isinstance(timestep, Tensor) and (count := timestep.shape[0]) > frame0.image.shape[0]:
        inputs = tree_map_only(Tensor, lambda x: x.expand(count, *x.shape[1:]), inputs)
    img0, img1, features0, features1 = inputs
    out = network(img0, img1, timestep, features0, features1, scale=frame0.scale, **options)
    parts = [out.image]
    if frame0.extra is not None and frame1.extra is not None:
        extra0, extra1 = (extra.expand(len(out.flow), -1, -1, -1) for extra in (frame0.extra, frame1.extra))
        parts.append(blend(*warp_both(extra0, extra1, out.flow), out.mask))
    if disagreement:
        warped0, warped1 = warp_both(img0, img1, out.flow)
        parts.append((warped0 - warped1).abs().mean(1, keepdim=True))
    return torch.cat(parts, 1) if parts[1:] else out.image
