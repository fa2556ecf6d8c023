"""Losses for training, all differentiable (upstream model/laplacian.py and model/training/loss.py)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAP_LEVELS = 5
DISTILL_MARGIN = 0.01  # the student learns from the teacher only where its error is larger by this much
LARGEST_FLOW = 150  # px; longer ones (points that perspective sends to infinity) teach nothing
PSNR_LIMIT = 50.0  # dB: rounding leaves no more to be gained
GREY = (0.2989, 0.5870, 0.1140)  # BT.601 luma, of images in RGB


def gauss_kernel(channels: int = 3) -> Tensor:
    """The 5x5 binomial kernel of a Laplacian pyramid, (channels,1,5,5), sum 1."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    return (torch.outer(row, row) / 256).expand(channels, 1, 5, 5).contiguous()


def _blur(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.pad(image, (2, 2, 2, 2), "reflect"), kernel, groups=image.shape[1])


def _upsample(image: Tensor, kernel: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,2H,2W): zeros between the samples, then four times the blur."""
    b, c, h, w = image.shape
    spread = image.new_zeros(b, c, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = image
    return _blur(spread, 4 * kernel)


def laplacian_pyramid(image: Tensor, kernel: Tensor, levels: int = LAP_LEVELS) -> list[Tensor]:
    """The band-pass levels of (B,C,H,W), fine to coarse; the last low-pass is left out. Sizes must stay even."""
    bands = []
    for _ in range(levels):
        smaller = _blur(image, kernel)[:, :, ::2, ::2]
        bands.append(image - _upsample(smaller, kernel))
        image = smaller
    return bands


class LapLoss(nn.Module):
    """The sum over pyramid levels of the mean absolute difference of their bands (paper section 3.4)."""

    def __init__(self, max_levels: int = LAP_LEVELS, channels: int = 3) -> None:
        super().__init__()
        self.max_levels = max_levels
        self.register_buffer("kernel", gauss_kernel(channels), persistent=False)

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """(B,C,H,W) twice, H and W multiples of 2^levels -> a scalar."""
        kernel = self.get_buffer("kernel").to(pred)
        # linear: the pyramid of the difference is the difference of the pyramids, at half the work
        bands = laplacian_pyramid(pred - gt, kernel, self.max_levels)
        return torch.stack([band.abs().mean() for band in bands]).sum()


def psnr_loss(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) twice, 0..1 -> minus the mean over samples of their PSNR in dB, which nears PSNR_LIMIT and no more."""
    error = (pred - gt).square().mean((1, 2, 3))
    return 10 * torch.log10(error + 10 ** (-PSNR_LIMIT / 10)).mean()


class EPE(nn.Module):
    """Distance between two flows, masked and unreduced: sqrt(sum over x, y of the squared difference + 1e-6)."""

    def forward(self, flow: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        """(B,2,H,W) px twice and (B,1,H,W) -> (B,1,H,W) px"""
        return ((flow - gt).square().sum(1, True) + 1e-6).sqrt() * mask


class Ternary(nn.Module):
    """The soft census difference of 7x7 neighbourhoods, which ignores changes of brightness."""

    patch = 7

    def transform(self, image: Tensor) -> Tensor:
        """(B,3,H,W) RGB -> (B,49,H,W), each neighbour minus the centre, squashed to -1..1."""
        weights = image.new_tensor(GREY).view(1, 3, 1, 1)
        grey = (image * weights).sum(1, True)
        b, _, h, w = grey.shape
        patches = F.unfold(grey, self.patch, padding=self.patch // 2).view(b, self.patch**2, h, w)
        difference = patches - grey
        return difference / (0.81 + difference.square()).sqrt()

    def forward(self, img0: Tensor, img1: Tensor) -> Tensor:
        """(B,3,H,W) twice -> (B,1,H,W), zero on the border of one pixel"""
        distance = (self.transform(img0) - self.transform(img1)).square()
        loss = (distance / (0.1 + distance)).mean(1, True)
        inner = F.pad(torch.ones_like(loss)[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
        return loss * inner


class SOBEL(nn.Module):
    """The difference of horizontal and vertical gradients, channel by channel."""

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """(B,C,H,W) twice -> (B*C,1,H,W)"""
        b, c, h, w = pred.shape
        difference = (pred - gt).reshape(b * c, 1, h, w)  # linear, as in LapLoss
        kernel = pred.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        both = torch.stack((kernel, kernel.t()))[:, None]
        return F.conv2d(difference, both, padding=1).abs().sum(1, True)


def flow_loss(flow: Tensor, exact: Tensor, visible: Tensor) -> Tensor:
    """How far (B,4,H,W) px is from the exact flow, in px, over the pixels (B,2,H,W) that are visible at either end.

    Each sample counts the same however many pixels are visible, and nothing where none is. -> a scalar
    """
    distance = torch.stack(
        [((flow[:, i : i + 2] - exact[:, i : i + 2]).square().sum(1) + 1e-4).sqrt() for i in (0, 2)], 1
    )
    visible = visible * (exact.abs().amax(1, True) < LARGEST_FLOW)
    count = visible.sum((1, 2, 3))
    return ((distance * visible).sum((1, 2, 3)) / count.clamp(min=1)).mean()


def mask_loss(logits: Tensor, visible: Tensor, one_sided: Tensor) -> Tensor:
    """Cross entropy of the mask (B,1,H,W) with the end that shows a pixel, over pixels that only one end shows."""
    target = visible[:, :1].float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * one_sided
    return (loss.sum((1, 2, 3)) / one_sided.sum((1, 2, 3)).clamp(min=1)).mean()


def distillation_loss(
    flow: Tensor, taught: Tensor, flows: Sequence[Tensor], merged: Sequence[Tensor], gt: Tensor
) -> Tensor:
    """How far every student flow is from the teacher's `flow` where the student's blend is worse (paper section 3.3).

    flow and flows[i] (B,4,H,W) px, the blends `taught` and merged[i] and gt (B,3,H,W) -> a scalar.
    """
    teacher_error = (taught - gt).abs().mean(1, True)
    total = flow.new_zeros(())
    for student_flow, student in zip(flows, merged, strict=True):
        worse = (student - gt).abs().mean(1, True) > teacher_error + DISTILL_MARGIN
        distance = (flow.detach() - student_flow).square().mean(1, True).sqrt()
        total = total + (distance * worse.float().detach()).mean()
    return total
