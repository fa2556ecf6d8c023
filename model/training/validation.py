"""Validates a network: mean scores of held-out samples, summed over all processes."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dataset import Samples
from model.image import padder_for
from model.metrics import psnr
from model.training.log import Log, strip
from model.training.network import CoarseBlocks
from model.training.step import to_device

BEST_PSNR = 60.0  # dB, the PSNR that counts for a picture without any error
PICTURED = 5  # validation samples whose pictures are written, as many as upstream shows


def _read(data: Samples, index: int, device: torch.device) -> dict[str, Tensor]:
    return to_device({key: value[None] for key, value in data[(0, index)].items()}, device)


def _mean(rows: list[Tensor], width: int, device: torch.device) -> list[float]:
    """Returns the means of rows of `width` numbers over all processes."""
    total = torch.zeros(width + 1, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for row in rows:
        total += torch.cat((row.to(total), total.new_ones(1)))
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
    return (total[:-1] / total[-1]).tolist()


@torch.no_grad()
def picture_scores(
    net: nn.Module,
    data: Samples,
    indices: Iterable[int],
    device: torch.device,
    lpips: nn.Module | None,
    log: Log,
    step: int,
) -> dict[str, float]:
    """Returns the mean PSNR in dB of unrounded pictures, and the mean LPIPS if that network is given.

    Pictures of the first samples go to the log.
    """
    rows, strips, masks = [], [], []
    for i in indices:
        one = _read(data, i, device)
        padder = padder_for(net, *one["gt"].shape[2:])
        out = net(padder.pad(one["img0"]), padder.pad(one["img1"]), one["timestep"])
        image = padder.unpad(out.image.clamp(0, 1))
        row = [psnr(image, one["gt"])[0].clamp(max=BEST_PSNR).to(device)]
        if lpips is not None:
            row.append(lpips(image, one["gt"])[0])
        rows.append(torch.stack([value.double() if device.type != "mps" else value.float() for value in row]))
        if i < PICTURED:
            strips.append(strip(one["img0"], one["gt"], image, one["img1"]))
            masks.append(padder.unpad(out.mask)[0])
    log.write_pictures(step, strips, masks)
    names = ["psnr"] if lpips is None else ["psnr", "lpips"]
    return {name: round(mean, 4) for name, mean in zip(names, _mean(rows, len(names), device), strict=True)}


@torch.no_grad()
def flow_scores(net: CoarseBlocks, data: Samples, indices: Iterable[int], device: torch.device) -> dict[str, float]:
    """Returns the mean flow error in px after each block, after the last one as `flow_error`, and the mean flow.

    The means are over the pixels of a sample whose flow is known, then over samples.
    """
    rows = []
    for i in indices:
        one = _read(data, i, device)
        known, flow = one["known"].float(), one["flow"]
        flows = [*net(one["img0"], one["img1"], one["timestep"]).flows, torch.zeros_like(flow)]
        lengths = [(f - flow).unflatten(1, (2, 2)).square().sum(2).sqrt() for f in flows]  # (1,2,H,W) px
        rows.append(torch.stack([(length * known).sum() / known.sum().clamp(min=1) for length in lengths]))
    means = [round(mean, 4) for mean in _mean(rows, net.count + 1, device)]
    named = {f"flow_error/block{i}": mean for i, mean in enumerate(means[:-1])}
    return {**named, "flow_error": means[-2], "flow_length": means[-1]}
