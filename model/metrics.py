"""How a picture is scored: PSNR, the paper's SSIM and scikit-image's, interpolation error, LPIPS.

One value an image, on the device that the images are on, unless that has no float64 (MPS).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import UserError

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
PLACES = 4  # side by side for which SSIM's convolutions look at once
UNIFORM_TAPS = 7  # of scikit-image's structural_similarity
LUMA = (0.299, 0.587, 0.114)


def psnr(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,) dB over all pixels and channels."""
    return -10 * torch.log10((_exact(pred) - _exact(gt)).square().mean((1, 2, 3)))


def interpolation_error(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,), the mean absolute difference in 8-bit levels (IE as upstream computes it)."""
    return (_exact(pred) - _exact(gt)).abs().mean((1, 2, 3)) * 255


def _exact(image: Tensor) -> Tensor:
    """In float64; on the CPU if the device has none (MPS)."""
    return (image.cpu() if image.device.type == "mps" else image).double()


class Surroundings(NamedTuple):
    """What SSIM needs of one image: how bright each place's surroundings are."""

    windows: Tensor  # of _windows
    image: Tensor  # (B,1,C',H',W'), the border repeated
    mean: Tensor  # (B,C,H,W)
    square: Tensor  # (B,C,H,W), the mean of squares


def surroundings(image: Tensor, *, volume: bool = True) -> Surroundings:
    """Of (B,C,H,W), as `ssim_map` looks at it."""
    half = SSIM_TAPS // 2
    depth, right = half if volume else 0, half + -image.shape[3] % PLACES
    padded = F.pad(image.float()[:, None], (half, right, half, half, depth, depth), "replicate")
    windows = _windows(image.shape[1], volume, image.device)
    mean, square = _blur(torch.cat((padded, padded * padded)), windows, image.shape[3]).chunk(2)
    return Surroundings(windows, padded, mean, square)


@lru_cache(4)
def _windows(channels: int, volume: bool, device: torch.device) -> Tensor:
    """(C,PLACES,1,C',11,11+PLACES-1): how much of C' channels counts for each of C, at places side by side.

    One kernel for each, zero where its window does not reach, adds up in the same order as a single one that moves
    along all axes, in a quarter of the time. Dense and in float32, as upstream: variances are small differences, so the
    rounding of these very weights (their sum misses 1 by 1e-7) moves the result by up to 5e-5.
    """
    offsets = torch.arange(SSIM_TAPS, dtype=torch.float32, device=device) - SSIM_TAPS // 2
    row = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    row = row / row.sum()
    window = torch.outer(row, row)
    window = window[:, :, None] * row if volume else window[None]  # (depth,11,11)
    windows = window.new_zeros(channels, PLACES, 1, channels + len(window) - 1, SSIM_TAPS, SSIM_TAPS + PLACES - 1)
    for c in range(channels):
        for x in range(PLACES):
            windows[c, x, 0, c : c + len(window), :, x : x + SSIM_TAPS] = window
    return windows


def _blur(images: Tensor, windows: Tensor, width: int) -> Tensor:
    """(B,1,C',H',W') -> (B,C,H,W)"""
    made = F.conv3d(images, windows.flatten(0, 1), stride=(1, 1, PLACES))[:, :, 0]  # (B,C*PLACES,H,W/PLACES)
    return made.unflatten(1, windows.shape[:2]).permute(0, 1, 3, 4, 2).flatten(3)[..., :width]


def ssim_map(img1: Tensor | Surroundings, img2: Tensor | Surroundings, *, volume: bool = True) -> Tensor:
    """(B,C,H,W) twice, ground truth first -> the similarity at each place.

    `volume`: upstream's ssim_matlab, an 11-tap Gaussian over channel, height and width; otherwise upstream's plain
    ssim, over height and width, each channel by itself. The border is repeated. -> (B,C,H,W)
    The range L is 255 if img1 exceeds 128, else 1, and one more if it goes below -0.5. An image that is compared more
    than once may be given as its `surroundings` of the same `volume`.
    (upstream model/pytorch_msssim)
    """
    x, y = (i if isinstance(i, Surroundings) else surroundings(i, volume=volume) for i in (img1, img2))
    limit = 255.0 if x.image.max() > 128 else 1.0
    if x.image.min() < -0.5:
        limit += 1.0
    c1, c2 = (0.01 * limit) ** 2, (0.03 * limit) ** 2
    variance = x.square - x.mean.square() + y.square - y.mean.square()
    covariance = _blur(x.image * y.image, x.windows, x.mean.shape[3]) - x.mean * y.mean
    numerator = (2 * x.mean * y.mean + c1) * (2 * covariance + c2)
    return numerator / ((x.mean.square() + y.mean.square() + c1) * (variance + c2))


def ssim(img1: Tensor | Surroundings, img2: Tensor | Surroundings) -> Tensor:
    """(B,C,H,W) -> (B,), the mean of `ssim_map` as a volume; the ground truth is given first, as upstream does."""
    return ssim_map(img1, img2).mean((1, 2, 3))


def psnr_y(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,3,H,W) RGB in 0..1 -> (B,) dB of the luma, BT.601 full range (scikit-image's rgb2yuv)."""
    difference = _exact(pred) - _exact(gt)
    difference = (difference * difference.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1)
    return -10 * torch.log10(difference.square().mean((1, 2)))


def ssim_uniform(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,), SSIM as scikit-image has it by default: means over 7x7, unbiased variances.

    Each channel by itself; only windows that lie inside the image count.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, UNIFORM_TAPS, stride=1)

    x, y = _exact(pred), _exact(gt)
    mean_x, mean_y = mean(x), mean(y)
    unbiased = UNIFORM_TAPS**2 / (UNIFORM_TAPS**2 - 1)
    variance = unbiased * (mean(x * x) - mean_x.square() + mean(y * y) - mean_y.square())
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x.square() + mean_y.square() + c1) * (variance + c2))).mean((1, 2, 3))


def load_lpips(device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS with AlexNet: (B,3,H,W) RGB in 0..1, twice -> (B,) distance, 0 for equal images.

    It is its authors' own package (Zhang et al., CVPR 2018), which fetches AlexNet by torchvision when it is first
    used. UserError where one of them is missing.
    """
    try:
        import lpips  # an optional dependency
    except (ImportError, RuntimeError) as e:  # the second where torchvision was built for another torch
        raise UserError(
            f"LPIPS needs the packages lpips and torchvision ({e}): python3 -m pip install lpips torchvision"
        ) from e
    try:
        net = lpips.LPIPS(net="alex", verbose=False).to(device)
    except OSError as e:
        raise UserError(f"LPIPS needs torchvision's weights of AlexNet, which could not be fetched ({e})") from e

    def distance(pred: Tensor, gt: Tensor) -> Tensor:
        with torch.no_grad():
            return net(pred.float(), gt.float(), normalize=True).flatten()  # 0..1 becomes its -1..1

    return distance
