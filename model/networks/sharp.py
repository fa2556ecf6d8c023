"""Computes the last blend of this project's weights: bicubic samples and smoothing, by eight gates for each pixel.

The last block has eight outputs that no later block takes. They are the gates: for each frame the share of bicubic
sampling and of sampling nearer to pixel centres; for the blend the smoothing along x and y, in two bands of detail.
"""

import torch
from torch import Tensor, nn

from model.networks.warp import warp

SAMPLING = 4  # gates: bicubic sampling of img0 and img1, then sampling nearer to pixels
SMOOTHING = 4  # gates: smoothing of fine and coarse detail along x, then along y
GATES = SAMPLING + SMOOTHING


def sharpened(warped: Tensor, image: Tensor, flow: Tensor, gates: Tensor) -> Tensor:
    """Returns an image (B,3,H,W) warped by the flow (B,2,H,W) px, sampled by two gates (B,2,H,W), logits.

    `warped` is the bilinear sample. The sigmoid of the first gate mixes: 0 is bilinear, 1/2 is bicubic, 1 is bilinear
    plus twice their difference. The sigmoid of the second gate moves the position to pixel centres (see `nearer`).
    """
    cubic, nearby = torch.sigmoid(gates).split(1, 1)
    return torch.lerp(warped, warp(image, nearer(flow, nearby), "bicubic"), 2 * cubic)


def nearer(flow: Tensor, share: Tensor) -> Tensor:
    """Returns a flow (B,2,H,W) px whose fractions f, at most half a pixel, move towards 4f^3 by a share (B,1,H,W).

    The share is in 0..1. A sample between pixels blurs them; nearer to a pixel it blurs less. In the middle of a motion
    both frames are sampled at opposite fractions, so that the shifts of the two cancel in the blend.
    """
    fraction = flow - flow.round()
    return flow + share * fraction * (4 * fraction.square() - 1)


def smoothed(image: Tensor, gates: Tensor) -> Tensor:
    """Returns an image (B,C,H,W) with four bands of detail weakened by the gates (B,4,H,W).

    The order is fine and coarse along x, then along y. tanh(gate / 2) = 1 removes a band, 0 keeps it, -1 doubles it.
    The bands are those of the undecimated wavelet transform by B-splines of order 1: fine is the image minus the image
    filtered by [1 2 1] / 4, coarse is that filtered image minus itself filtered by [1 0 2 0 1] / 4.
    """
    out = image
    shares = torch.tanh(gates / 2).split(1, 1)
    for axis, (fine, coarse) in zip((3, 2), (shares[:2], shares[2:]), strict=True):
        size = image.shape[axis]
        padded = nn.functional.pad(image, (3, 3, 0, 0) if axis == 3 else (0, 0, 3, 3), "replicate")
        near, middle, far = (padded.narrow(axis, 3 - d, size) + padded.narrow(axis, 3 + d, size) for d in (1, 2, 3))
        # with once = (near + 2 image) / 4, twice = (far + 2 middle + 3 near + 4 image) / 16; few passes over memory
        once_less_image = near.sub(image, alpha=2)  # times 4
        twice_less_once = far.add(middle, alpha=2).sub(near).sub(image, alpha=4)  # times 16
        out = out.addcmul(fine, once_less_image, value=1 / 4).addcmul(coarse, twice_less_once, value=1 / 16)
    return out
