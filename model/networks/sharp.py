"""The sharp blend of our own weights: what the last block says besides flow and mask, for each pixel.

Its last tail has eight spare outputs, no block takes them: how far each frame is sampled by cubics and how nearby, and
how far the blend is smoothed along x and y, in two bands each.
"""

import torch
from torch import Tensor, nn

from model.networks.warp import warp

SAMPLING = 4  # gates: how far img0 and img1 are sampled by cubics, then how nearby
SMOOTHING = 4  # how far fine and coarse detail along x is smoothed, then along y
GATES = SAMPLING + SMOOTHING


def sharpened(warped: Tensor, image: Tensor, flow: Tensor, gates: Tensor) -> Tensor:
    """An image (B,3,H,W) that was warped by the flow (B,2,H,W) px, sampled as two gates (B,2,H,W), logits, say: from
    bilinear over cubic, half open, to twice as far; and that from the flow's own place to one `nearer` to pixels.
    """
    cubic, nearby = torch.sigmoid(gates).split(1, 1)
    return torch.lerp(warped, warp(image, nearer(flow, nearby), "bicubic"), 2 * cubic)


def nearer(flow: Tensor, share: Tensor) -> Tensor:
    """A flow (B,2,H,W) px whose fractions f, at most half a pixel, go to 4f^3 by that share (B,1,H,W) in 0..1.

    A sample between pixels is mostly of the nearer ones. At the middle of a motion both frames are sampled at opposite
    fractions: what is nearby in both is less blurred than what each makes of pixels farther off, and as well placed.
    """
    fraction = flow - flow.round()
    return flow + share * fraction * (4 * fraction.square() - 1)


def smoothed(image: Tensor, gates: Tensor) -> Tensor:
    """An image (B,C,H,W) with its bands of detail along x then y, fine then coarse, weaker as the gates (B,4,H,W) say:
    from 1 (the band is gone) over 0 at a logit of 0 to -1 (it is twice as strong).

    Bands of the undecimated wavelet transform by B-splines of order 1: what [1 2 1] takes away, then what it takes away
    of the rest at every other pixel.
    """
    out = image
    shares = torch.tanh(gates / 2).split(1, 1)
    for axis, (fine, coarse) in zip((3, 2), (shares[:2], shares[2:]), strict=True):
        size = image.shape[axis]
        padded = nn.functional.pad(image, (3, 3, 0, 0) if axis == 3 else (0, 0, 3, 3), "replicate")
        near, middle, far = (padded.narrow(axis, 3 - d, size) + padded.narrow(axis, 3 + d, size) for d in (1, 2, 3))
        # of once = (near + 2 image) / 4 and twice = (far + 2 middle + 3 near + 4 image) / 16, in few passes over memory
        once_less_image = near.sub(image, alpha=2)  # times 4
        twice_less_once = far.add(middle, alpha=2).sub(near).sub(image, alpha=4)  # times 16
        out = out.addcmul(fine, once_less_image, value=1 / 4).addcmul(coarse, twice_less_once, value=1 / 16)
    return out
