"""Computes losses for training, all differentiable (upstream model/laplacian.py and model/loss.py)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAP_LEVELS = 5
DISTILL_MARGIN = 0.01  # the student learns from the teacher only where its error is larger by this much
LARGEST_FLOW = 260  # px; longer flows are not counted: under perspective some points move without limit
PSNR_LIMIT = 50.0  # dB: rounding leaves no more to be gained
GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # BT.601 luma, of images in RGB


def gauss_kernel(channels: int = 3) -> Tensor:
    """Returns the 5x5 binomial kernel of a Laplacian pyramid, (channels,1,5,5), sum 1."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    return (torch.outer(row, row) / 256).expand(channels, 1, 5, 5).contiguous()


def _blur(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.pad(image, (2, 2, 2, 2), "reflect"), kernel, groups=image.shape[1])


def _upsample(image: Tensor, kernel: Tensor) -> Tensor:
    """Doubles the size of (B,C,H,W): zeros between the samples, then four times the blur."""
    b, c, h, w = image.shape
    spread = image.new_zeros(b, c, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = image
    return _blur(spread, 4 * kernel)


def laplacian_pyramid(image: Tensor, kernel: Tensor, levels: int = LAP_LEVELS) -> list[Tensor]:
    """Returns the band-pass levels of (B,C,H,W), fine to coarse, without the last low-pass. Sizes must stay even."""
    bands = []
    for _ in range(levels):
        smaller = _blur(image, kernel)[:, :, ::2, ::2]
        bands.append(image - _upsample(smaller, kernel))
        image = smaller
    return bands


class LapLoss(nn.Module):
    """Computes the sum over pyramid levels of the mean absolute difference of their bands (paper section 3.4)."""

    def __init__(self, max_levels: int = LAP_LEVELS, channels: int = 3) -> None:
        super().__init__()
        self.max_levels = max_levels
        self.register_buffer("kernel", gauss_kernel(channels), persistent=False)

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """Returns the loss, a scalar, of two (B,C,H,W) whose H and W are multiples of 2^levels."""
        kernel = self.get_buffer("kernel").to(pred)
        # linear: the pyramid of the difference is the difference of the pyramids, at half the work
        bands = laplacian_pyramid(pred - gt, kernel, self.max_levels)  # (B,C,H/2^k,W/2^k)
        return torch.stack([band.abs().mean() for band in bands]).sum()  # scalar


def psnr_loss(pred: Tensor, gt: Tensor) -> Tensor:
    """Returns minus the mean PSNR in dB of (B,C,H,W) pairs in 0..1; each PSNR stays below PSNR_LIMIT."""
    error = (pred - gt).square().mean((1, 2, 3))
    return 10 * torch.log10(error + 10 ** (-PSNR_LIMIT / 10)).mean()


class EPE(nn.Module):
    """Computes the end-point error of each pixel: sqrt(sum over x, y of the squared difference + 1e-6)."""

    def forward(self, flow: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        """Returns (B,1,H,W) px, from two flows (B,2,H,W) px and a mask (B,1,H,W) that multiplies the result."""
        return ((flow - gt).square().sum(1, True) + 1e-6).sqrt() * mask  # (B,1,H,W)


class Ternary(nn.Module):
    """Computes the soft census difference of 7x7 neighbourhoods, which ignores changes of brightness."""

    patch = 7

    def transform(self, image: Tensor) -> Tensor:
        """Returns each neighbour minus the centre, squashed to -1..1: (B,3,H,W) RGB -> (B,49,H,W)."""
        weights = image.new_tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
        grey = (image * weights).sum(1, True)  # (B,1,H,W)
        b, _, h, w = grey.shape
        patches = F.unfold(grey, self.patch, padding=self.patch // 2).view(b, self.patch**2, h, w)  # (B,49,H,W)
        difference = patches - grey
        return difference / (0.81 + difference.square()).sqrt()

    def forward(self, img0: Tensor, img1: Tensor) -> Tensor:
        """Returns (B,1,H,W) for two images (B,3,H,W); zero on the border of one pixel."""
        distance = (self.transform(img0) - self.transform(img1)).square()
        loss = (distance / (0.1 + distance)).mean(1, True)  # (B,1,H,W)
        inner = F.pad(torch.ones_like(loss)[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
        return loss * inner


class SOBEL(nn.Module):
    """Computes the difference of horizontal and vertical gradients, channel by channel."""

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """Returns (B*C,1,H,W) for two images (B,C,H,W)."""
        b, c, h, w = pred.shape
        difference = (pred - gt).reshape(b * c, 1, h, w)  # (B*C,1,H,W); linear, as in LapLoss
        kernel = pred.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        both = torch.stack((kernel, kernel.t()))[:, None]  # (2,1,3,3)
        return F.conv2d(difference, both, padding=1).abs().sum(1, True)  # (B*C,1,H,W)


def flow_loss(flow: Tensor, target: Tensor, weight: Tensor, *, shrink: int = 1, half: float = 0.0) -> Tensor:
    """Returns the mean distance in px of a flow (B,4,H,W) from its target, a scalar.

    `weight` (B,2,H,W) in 0..1 is how much the flow to each end counts at a pixel. The mean is over the pixels whose
    weight is above 0, so each sample counts the same; a sample without such pixels adds nothing. Both flows are
    averaged over squares of `shrink` px first. With `half` above 0, an error counts half where the true
    flow is `half` px long.
    """
    weight = weight.float() * (target.abs().amax(1, True) < LARGEST_FLOW)
    count = (weight > 0).sum((1, 2, 3)) / shrink**2
    if half:
        weight = weight / (1 + target.square().sum(1, True).sqrt() / half)
    difference = flow - target
    if shrink > 1:
        both = weight.repeat_interleave(2, 1)  # (B,4,H,W), for x and y alike
        difference = F.avg_pool2d(difference * both, shrink) / F.avg_pool2d(both, shrink).clamp(min=1e-6)
        weight = F.avg_pool2d(weight, shrink)  # (B,2,h,w)
    distance = (difference.unflatten(1, (2, 2)).square().sum(2) + 1e-4).sqrt()  # (B,2,h,w)
    return ((distance * weight).sum((1, 2, 3)) / count.clamp(min=1)).mean()


def mask_loss(logits: Tensor, one_sided: Tensor) -> Tensor:
    """Returns the mean cross entropy between a mask (B,1,H,W), logits, and the frame that shows each pixel, a scalar.

    `one_sided` (B,1,H,W) is 1 where only img0 shows the pixel, 2 where only img1 does, 0 at pixels that do not count.
    """
    counted = (one_sided > 0).float()
    loss = F.binary_cross_entropy_with_logits(logits, (one_sided == 1).float(), reduction="none") * counted
    return (loss.sum((1, 2, 3)) / counted.sum((1, 2, 3)).clamp(min=1)).mean()


def distillation_loss(
    flow: Tensor, teacher: Tensor, flows: Sequence[Tensor], merged: Sequence[Tensor], gt: Tensor
) -> Tensor:
    """Returns the distance of every student flow from the teacher's where the student's blend is worse, a scalar.

    `flow` and flows[i] are (B,4,H,W) px; the blends `teacher` and merged[i], and gt, are (B,3,H,W) (paper section 3.3).
    """
    teacher_error = (teacher - gt).abs().mean(1, True)
    total = flow.new_zeros(())
    for student_flow, student in zip(flows, merged, strict=True):
        worse = (student - gt).abs().mean(1, True) > teacher_error + DISTILL_MARGIN
        distance = (flow.detach() - student_flow).square().mean(1, True).sqrt()
        total = total + (distance * worse.float().detach()).mean()
    return total
