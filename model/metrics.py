"""Measures picture quality: PSNR, the paper's SSIM and scikit-image's, interpolation error, LPIPS.

Every measure returns one value for each image of a batch, computed on the device of the images (on the CPU for
measures in float64 where the device has no float64, as MPS).
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from model.errors import UserError
from model.files import user_cache

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
PLACES = 4  # neighbouring results that one SSIM convolution computes together
UNIFORM_TAPS = 7  # of scikit-image's structural_similarity
LUMA = (0.299, 0.587, 0.114)
# AlexNet's convolutions up to the last feature of LPIPS: inputs, outputs, kernel, stride, padding in px.
ALEXNET = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
POOLED = (1, 2)  # convolutions that a max pooling of 3x3, stride 2, precedes
# LPIPS normalises images in -1..1 by these means and deviations of the colours red, green and blue.
LPIPS_MEAN, LPIPS_DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def psnr(pred: Tensor, gt: Tensor) -> Tensor:
    """Returns the PSNR over all pixels and channels: two (B,C,H,W) in 0..1 -> (B,) dB, infinite for equal images."""
    return -10 * torch.log10((_exact(pred) - _exact(gt)).square().mean((1, 2, 3)))


def interpolation_error(pred: Tensor, gt: Tensor) -> Tensor:
    """Returns the mean absolute difference in 8-bit levels, IE as upstream computes it: (B,C,H,W) in 0..1 -> (B,)."""
    return (_exact(pred) - _exact(gt)).abs().mean((1, 2, 3)) * 255


def _exact(image: Tensor) -> Tensor:
    """Returns the image in float64; on the CPU where the device has no float64 (MPS)."""
    return (image.cpu() if image.device.type == "mps" else image).double()


class Surroundings(NamedTuple):
    """Holds the local means of an image under the window of SSIM; an image that is compared twice needs them once."""

    windows: Tensor  # as _windows returns them
    image: Tensor  # (B,1,C',H',W'), padded by its repeated border
    mean: Tensor  # (B,C,H,W), of the values
    square: Tensor  # (B,C,H,W), of the squared values


def surroundings(image: Tensor, *, volume: bool = True) -> Surroundings:
    """Computes the local means of (B,C,H,W); `volume` as in `ssim_map`."""
    half = SSIM_TAPS // 2
    depth, right = half if volume else 0, half + -image.shape[3] % PLACES
    padded = F.pad(image.float()[:, None], (half, right, half, half, depth, depth), "replicate")
    windows = _windows(image.shape[1], volume, image.device)
    mean, square = _blur(torch.cat((padded, padded * padded)), windows, image.shape[3]).chunk(2)
    return Surroundings(windows, padded, mean, square)


@lru_cache(4)
def _windows(channels: int, volume: bool, device: torch.device) -> Tensor:
    """Returns convolution kernels (C,PLACES,1,C',11,11+PLACES-1): for each output channel and PLACES neighbours in x.

    Each kernel holds the Gaussian window, shifted by its place, and zeros. One convolution with stride PLACES then adds
    in the same order as a single kernel with stride 1, in a quarter of the time. Dense and in float32, as upstream:
    variances are small differences, so the rounding of these weights (their sum misses 1 by 1e-7) moves the result by
    up to 5e-5.
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
    """Returns the local means (B,C,H,W) of padded images (B,1,C',H',W')."""
    made = F.conv3d(images, windows.flatten(0, 1), stride=(1, 1, PLACES))[:, :, 0]  # (B,C*PLACES,H,W/PLACES)
    return made.unflatten(1, windows.shape[:2]).permute(0, 1, 3, 4, 2).flatten(3)[..., :width]


def ssim_map(img1: Tensor | Surroundings, img2: Tensor | Surroundings, *, volume: bool = True) -> Tensor:
    """Returns the SSIM of every pixel and channel: two (B,C,H,W), the ground truth first -> (B,C,H,W).

    `volume`: an 11-tap Gaussian over channel, height and width (upstream's ssim_matlab); otherwise over height and
    width, each channel on its own (upstream's ssim). The border is repeated. The range L is 255 if img1 exceeds 128,
    else 1, and one more if img1 goes below -0.5. An image that is compared more than once can be given as its
    `surroundings` of the same `volume`. (upstream model/pytorch_msssim)
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
    """Returns the mean of `ssim_map` as a volume: two (B,C,H,W), the ground truth first as upstream -> (B,)."""
    return ssim_map(img1, img2).mean((1, 2, 3))


def psnr_y(pred: Tensor, gt: Tensor) -> Tensor:
    """Returns the PSNR of BT.601 full-range luma (scikit-image's rgb2yuv): two (B,3,H,W) RGB in 0..1 -> (B,) dB."""
    difference = _exact(pred) - _exact(gt)
    difference = (difference * difference.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1)
    return -10 * torch.log10(difference.square().mean((1, 2)))


def ssim_uniform(pred: Tensor, gt: Tensor) -> Tensor:
    """Returns SSIM by scikit-image's defaults, means over 7x7 and unbiased variances: two (B,C,H,W) in 0..1 -> (B,).

    Each channel is compared on its own, and only windows that lie inside the image count.
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


class LPIPS(nn.Module):
    """Measures the learned perceptual distance of image pairs: AlexNet, version 0.1 (Zhang et al., CVPR 2018).

    Features of both images after each ReLU are divided by their length over channels; their squared differences are
    weighted by channel, averaged over the image and added over the layers. Differentiable in both images.
    """

    mean: Tensor  # of red, green and blue, (1,3,1,1)
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in ALEXNET)
        self.heads = nn.ParameterList(torch.zeros(1, o, 1, 1) for _, o, *_ in ALEXNET)
        self.register_buffer("mean", torch.tensor(LPIPS_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(LPIPS_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """Returns (B,) distances of two (B,3,H,W) RGB images in 0..1, 31 px or more a side; 0 for equal images."""
        x = (torch.cat((pred, gt)).float() * 2 - 1 - self.mean) / self.deviation  # (2B,3,H,W)
        distance = x.new_zeros(len(pred))  # (B,)
        for i, (conv, head) in enumerate(zip(self.convs, self.heads, strict=True)):
            x = F.max_pool2d(x, 3, 2) if i in POOLED else x  # (2B,C,H',W')
            x = F.relu(conv(x))  # (2B,C,H',W')
            # With a gradient of 0, not NaN, where all features are 0.
            a, b = F.normalize(x, dim=1, eps=1e-10).chunk(2)  # (B,C,H',W') each
            distance = distance + ((a - b).square() * head).sum(1).mean((1, 2))  # (B,)
        return distance


def lpips_file() -> Path:
    """Returns the path of LPIPS's weights in the user's cache, whether or not the file exists."""
    return user_cache() / "rife" / "lpips_alexnet.safetensors"


def load_lpips(device: torch.device | str) -> LPIPS:
    """Returns LPIPS with its trained weights, frozen, on the device; UserError where their file cannot be read."""
    file = lpips_file()
    remedy = "get it by: python3 -m model.download lpips"
    if not file.exists():
        raise UserError(f"LPIPS needs a file of weights that is not in the cache ({file}); {remedy}")
    net = LPIPS()
    try:
        net.load_state_dict(safetensors.torch.load_file(file))
    except (SafetensorError, RuntimeError, OSError) as e:
        raise UserError(f"{file}: not the weights of LPIPS, or damaged; delete the file and {remedy}") from e
    return net.requires_grad_(False).eval().to(device)
