"""Runs one training step: the losses of a batch and the update of the weights."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from model.contract import Prediction
from model.errors import UserError
from model.training.distillation import DistillationTarget, TeacherNetwork
from model.training.loss import LapLoss, flow_loss, mask_loss, psnr_loss
from model.training.muon import Muon
from model.training.recipe import Recipe, half_cosine

Batch = dict[str, Tensor]  # the fields of data/sample.py, with a first dimension for the samples
DEEP_DECAY = 0.8  # factor on an earlier block's losses for every block after it (as in RAFT)
LARGEST_SQUARE = 8  # px; flow errors are averaged over squares of at most this side, smaller for later blocks


class Losses(NamedTuple):
    """Holds the losses of one step before their weights; `total` is their weighted sum."""

    total: Tensor
    l1: Tensor
    teacher: Tensor
    distillation: Tensor
    deep: Tensor
    psnr: Tensor
    lpips: Tensor
    flow: Tensor
    mask: Tensor
    distill_flow: Tensor
    distill_mask: Tensor


@dataclass(frozen=True)
class LossNetworks:
    """Holds the networks that some losses use, besides the trained network."""

    teacher_network: TeacherNetwork | None = None
    lpips: nn.Module | None = None  # (B,3,H,W) RGB in 0..1 twice -> (B,)


NO_LOSS_NETWORKS = LossNetworks()


def open_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns the optimizer of a recipe; UserError for an unknown name."""
    if recipe.optimizer == "muon":
        return Muon(net, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=1e-6, weight_decay=recipe.weight_decay)
    raise UserError(f"unknown optimizer {recipe.optimizer}; known are adamw and muon")


def losses(
    out: Prediction, batch: Batch, recipe: Recipe, progress: float, loss_networks: LossNetworks = NO_LOSS_NETWORKS
) -> Losses:
    """Returns the losses of a prediction; batches are as `to_device` returns them.

    `progress` in 0..1 is how far the run is. All losses are means over the samples, so that processes with equal
    batches may average theirs. A prediction of coarse blocks alone has no picture: only flow losses are computed.
    """
    zero = batch["gt"].new_zeros(())
    values = dict.fromkeys(Losses._fields, zero)
    if out.merged:
        values |= _picture_losses(out, batch["gt"], recipe, loss_networks)
    if recipe.flow:
        values["flow"] = _flow_loss(out, batch["flow"], batch["known"], recipe)
    if recipe.mask:
        values["mask"] = sum_over_blocks([mask_loss(logits, batch["one_sided"]) for logits in out.masks])
    if loss_networks.teacher_network and (recipe.distill_flow or recipe.distill_mask):
        with autocast(batch["gt"].device, recipe.amp):
            target = loss_networks.teacher_network(batch["img0"], batch["img1"], batch["timestep"], batch["gt"])
        values |= _distill_losses(out, target, batch, recipe)
    fade = recipe.anneal + (1 - recipe.anneal) * half_cosine(progress)
    weights = {name: getattr(recipe, name) for name in Losses._fields if hasattr(recipe, name)}
    weights |= {"l1": 1.0, "teacher": 1.0, "flow": fade * recipe.flow, "mask": fade * recipe.mask}
    values["total"] = torch.stack([weights[name] * values[name] for name in weights]).sum()
    return Losses(**values)


def sum_over_blocks(parts: Sequence[Tensor]) -> Tensor:
    """Returns the sum of the losses of all blocks; each counts DEEP_DECAY times as much as that of the next block."""
    weights = [DEEP_DECAY**i for i in reversed(range(len(parts)))]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


def _picture_losses(out: Prediction, gt: Tensor, recipe: Recipe, loss_networks: LossNetworks) -> Batch:
    """Returns the losses that compare pictures with the true frame (B,3,H,W)."""
    lap = LapLoss()
    values = {"l1": lap(out.image, gt)}
    if out.teacher_estimate is not None:
        values |= {"teacher": lap(out.teacher_estimate.merged, gt), "distillation": out.teacher_estimate.distillation}
    if recipe.psnr:
        values["psnr"] = psnr_loss(out.image, gt)
    if recipe.deep:
        values["deep"] = sum_over_blocks([(blend - gt).abs().mean() for blend in out.merged])
    if recipe.lpips and loss_networks.lpips is not None:
        rows, columns = (_random_span(size, recipe.lpips_crop) for size in gt.shape[2:])
        with autocast(gt.device, recipe.amp):
            values["lpips"] = loss_networks.lpips(out.image[..., rows, columns], gt[..., rows, columns]).float().mean()
    return values


def _random_span(size: int, length: int) -> slice:
    """Returns a random range of at most `length` within 0..size, from torch's random numbers."""
    first = int(torch.randint(max(size - length, 0) + 1, ()))
    return slice(first, first + length)


def _flow_loss(out: Prediction, target: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
    """Returns the flow losses of all blocks, each measured at about the block's own resolution."""
    sides = [min(LARGEST_SQUARE, 2**i) if out.merged else LARGEST_SQUARE for i in reversed(range(len(out.flows)))]
    return sum_over_blocks([
        flow_loss(flow, target, weight, shrink=side, half=recipe.half_flow)
        for flow, side in zip(out.flows, sides, strict=True)
    ])  # fmt: skip


def _distill_losses(out: Prediction, target: DistillationTarget, batch: Batch, recipe: Recipe) -> Batch:
    """Returns the distances to a teacher's flow, where the true flow is not known, and to its mask."""
    values = {}
    if recipe.distill_flow:
        weight = target.trust * (batch["known"] == 0)  # (B,2,H,W)
        values["distill_flow"] = _flow_loss(out, target.flow, weight, recipe)
    if recipe.distill_mask:
        entropies = (F.binary_cross_entropy_with_logits(m, target.mask, reduction="none") for m in out.masks)
        values["distill_mask"] = sum_over_blocks([(entropy * target.trust).mean() for entropy in entropies])
    return values


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch on the device, with pictures as float images in 0..1."""
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    return moved | {key: moved[key].float() / 255 for key in ("img0", "gt", "img1")}


def training_step(
    net: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    rate: float,
    progress: float = 0.0,
    scaler: torch.amp.GradScaler | None = None,
    loss_networks: LossNetworks = NO_LOSS_NETWORKS,
) -> Losses:
    """Runs one optimizer step at a learning rate and returns its losses; `progress` in 0..1 is how far the run is.

    Raises FloatingPointError where the loss or the gradient is not finite; no weight is changed then.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    summed = _backward(net, batch, recipe, progress, scaler, loss_networks)
    if scaler:
        scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(net.parameters(), recipe.clip or math.inf)
    # Both are checked, since the gradient of |nan| is 0. With fp16 the scaler skips steps that overflow, by its design.
    failed = ~torch.isfinite(summed.total if scaler else summed.total + norm)
    if dist.is_initialized():  # all processes stop if one has to
        count = failed.float()
        dist.all_reduce(count)
        failed = count > 0
    if failed:
        raise FloatingPointError(f"loss {float(summed.total):g}, gradient norm {float(norm):g}")
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    return summed


def _backward(
    net: nn.Module,
    batch: Batch,
    recipe: Recipe,
    progress: float,
    scaler: torch.amp.GradScaler | None,
    loss_networks: LossNetworks,
) -> Losses:
    """Adds the gradients of a batch, computed in `recipe.accumulate` pieces, and returns the losses of the batch."""
    chunks = zip(*(value.chunk(recipe.accumulate) for value in batch.values()), strict=True)
    pieces = [dict(zip(batch, chunk, strict=True)) for chunk in chunks]
    done: list[Losses] = []
    for piece in pieces:
        share = len(piece["gt"]) / len(batch["gt"])
        # processes exchange gradients only with the last piece
        early = piece is not pieces[-1] and isinstance(net, nn.parallel.DistributedDataParallel)
        with net.no_sync() if early else nullcontext():  # type: ignore[operator]
            made = losses(training_prediction(net, piece, recipe.amp), piece, recipe, progress, loss_networks)
            part = Losses(*(share * value for value in made))
            (scaler.scale(part.total) if scaler else part.total).backward()
        done.append(Losses(*(value.detach() for value in part)))
    return Losses(*(torch.stack(values).sum() for values in zip(*done, strict=True)))


def training_prediction(net: nn.Module, batch: Batch, amp: str) -> Prediction:
    """Returns the network's prediction with all that the losses need; `amp` is the precision of convolutions."""
    with autocast(batch["gt"].device, amp):
        out: Prediction = net(batch["img0"], batch["img1"], batch["timestep"], gt=batch["gt"])
    return out


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Returns the context in which convolutions run in the precision of a recipe's `amp`."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Updates the moving average of the weights, faster in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
