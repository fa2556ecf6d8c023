"""Lists the measures of picture quality that benchmarks show, by the names that their tables use."""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model import UserError
from model.metrics import interpolation_error, load_lpips, psnr, psnr_y, ssim, ssim_uniform

Metric = Callable[[Tensor, Tensor], Tensor]  # predictions and truths (B,3,H,W) RGB in 0..1 -> (B,)
METRICS: dict[str, Metric] = {
    "PSNR": psnr,
    "Y-PSNR": psnr_y,
    "IE": interpolation_error,
    "SSIM": lambda pred, gt: ssim(gt, pred),  # upstream gives the ground truth first: it decides the range
    "SSIM 7x7": ssim_uniform,
}
COMMON_MEASURES = ("PSNR", "SSIM", "LPIPS")  # every benchmark shows these, after the measures of its published figures


def load_metrics(
    names: Sequence[str], device: torch.device | str, *, lpips_required: bool = False
) -> dict[str, Metric]:
    """Returns the named measures, then those of COMMON_MEASURES that are not among them.

    Where its weights are not in the cache, LPIPS is left out and one line on stderr names the command that gets them;
    with `lpips_required` that is a UserError.
    """
    metrics = {name: METRICS[name] for name in names}
    for name in COMMON_MEASURES[:2]:
        if not any(own == name or own.startswith(f"{name} ") for own in metrics):
            metrics[name] = METRICS[name]
    try:
        metrics["LPIPS"] = load_lpips(device)
    except UserError as e:
        if lpips_required:
            raise
        print(f"without LPIPS: {e}", file=sys.stderr)
    return metrics
