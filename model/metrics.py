"""How a picture is scored: PSNR, the paper's SSIM and scikit-image's, interpolation error, LPIPS.

One value an image, on the device that the images are on.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import UserError

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
UNIFORM_TAPS = 7  # of scikit-image's structural_similarity
LUMA = (0.299, 0.587, 0.114)


def psnr(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,) dB over all pixels and channels."""
    return -10 * torch.log10((pred.double() - gt.double()).square().mean((1, 2, 3)))


def interpolation_error(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,), the mean absolute difference in 8-bit levels (IE as upstream computes it)."""
    return (pred.double() - gt.double()).abs().mean((1, 2, 3)) * 255


def ssim_map(img1: Tensor, img2: Tensor, *, volume: bool = True) -> Tensor:
    """(B,C,H,W) twice, ground truth first -> the similarity at each place.

    `volume`: upstream's ssim_matlab, an 11-tap Gaussian over channel, height and width; otherwise upstream's plain
    ssim, over height and width, each channel by itself. The border is repeated. -> (B,C,H,W)
    The range L is 255 if img1 exceeds 128, else 1, and one more if it goes below -0.5.
    (upstream model/pytorch_msssim)
    """
    limit = 255.0 if img1.max() > 128 else 1.0
    if img1.min() < -0.5:
        limit += 1.0
    offsets = torch.arange(SSIM_TAPS, dtype=torch.float32, device=img1.device) - SSIM_TAPS // 2
    row = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    row = row / row.sum()
    # Dense and in float32, as upstream: variances are small differences, so the rounding of these very weights (their
    # sum misses 1 by 1e-7) moves the result by up to 5e-5.
    window = torch.outer(row, row)
    window = window[:, :, None] * row if volume else window[None]
    half = SSIM_TAPS // 2

    def blur(x: Tensor) -> Tensor:
        return F.conv3d(x, window[None, None])

    padding = [half] * 4 + [half if volume else 0] * 2
    x, y = (F.pad(v.float()[:, None], padding, "replicate") for v in (img1, img2))  # (B,1,C,H,W)
    mean_x, mean_y, xx, yy, xy = (blur(v) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * limit) ** 2, (0.03 * limit) ** 2
    variance = xx - mean_x.square() + yy - mean_y.square()
    covariance = xy - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x.square() + mean_y.square() + c1) * (variance + c2)))[:, 0]


def ssim(img1: Tensor, img2: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,), the mean of `ssim_map` as a volume; the ground truth is given first, as upstream does."""
    return ssim_map(img1, img2).mean((1, 2, 3))


def psnr_y(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,3,H,W) RGB in 0..1 -> (B,) dB of the luma, BT.601 full range (scikit-image's rgb2yuv)."""
    weights = pred.new_tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)
    difference = ((pred.double() - gt.double()) * weights).sum(1)
    return -10 * torch.log10(difference.square().mean((1, 2)))


def ssim_uniform(pred: Tensor, gt: Tensor) -> Tensor:
    """(B,C,H,W) in 0..1 -> (B,), SSIM as scikit-image has it by default: means over 7x7, unbiased variances.

    Each channel by itself; only windows that lie inside the image count.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, UNIFORM_TAPS, stride=1)

    x, y = pred.double(), gt.double()
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
