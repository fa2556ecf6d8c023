"""One training step: the recipe's numbers, the learning rate, the losses, the update. train.py calls it in its loop."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.errors import UserError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.networks.layers import Prediction
from model.networks.sharp import GATES
from model.training.loss import LapLoss, flow_loss, mask_loss, psnr_loss
from model.training.muon import Muon
from model.weights.published import FEATURES_AFTER, PUBLISHED

Sample = dict[str, Tensor]  # a batch of them; the fields are those of data/sample.py
NEW_CHANNELS = 0.1  # how loudly fresh channels speak to those that a block took over
DEEP_DECAY = 0.8  # an earlier block's losses count less by this factor for every block after it (as in RAFT)


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training run; the defaults are the paper's (upstream train.py and model/RIFE.py)."""

    peak: float = 3e-4  # learning rate after the warm-up
    floor: float = 3e-6  # at the end
    warmup: int = 2000  # steps
    processes: int = 4  # that the rates are meant for; they are scaled by the true number over this
    weight_decay: float = 1e-3
    optimizer: str = "adamw"  # or "muon" (muon.py): farther per step, a fifth more work per step on a CPU
    clip: float = 0.0  # largest norm of the gradient; 0: as it is
    distillation: float = 0.01  # weight of the distillation loss; upstream advises 0.005 or 0.002 for RIFE_m
    deep: float = 0.0  # weight of the L1 of every block's blend
    psnr: float = 0.0  # weight per dB of the last blend's PSNR, sample by sample: easy ones count like hard ones
    flow: float = 0.0  # weight per px of every block's flow error where the flow is known
    mask: float = 0.0  # weight of the mask's cross entropy where one end alone shows a pixel
    anneal: float = 1.0  # flow and mask weights fall to this share of themselves, by a cosine over the run
    ema: float = 0.0  # decay of the average of weights that is validated and kept; 0: none
    amp: str = "no"  # autocast of convolutions: "no", "bf16" or "fp16"
    accumulate: int = 1  # pieces that a process's batch is worked on in, to save memory


class Losses(NamedTuple):
    """What one step minimised, each before its weight."""

    total: Tensor
    l1: Tensor
    teacher: Tensor
    distillation: Tensor
    deep: Tensor
    psnr: Tensor
    flow: Tensor
    mask: Tensor


def build(arch: str, teacher: bool = False, *, sharp: bool = False) -> tuple[IFNet | IFNet_v4, Recipe, int]:
    """The network named by --arch, with its recipe and the size of its crops."""
    if arch in ("rife", "rife_m"):
        return IFNet(timed=arch == "rife_m"), Recipe(distillation=0.01 if arch == "rife" else 0.005), 224
    config = next((c for names, c in PUBLISHED.items() if _among(arch.removeprefix("v"), names)), None)
    if config is None:
        raise UserError(f"--arch {arch}: known are rife, rife_m, and v before one of {', '.join(PUBLISHED)}")
    if sharp and config.carried < GATES:
        raise UserError(f"--sharp: the last block of {arch} has no outputs to spare; v4.22 and later do")
    # crops of 256: on 128 the coarsest block sees a map of 2x2, learns its border, and fails on whole frames
    recipe = Recipe(peak=4e-4, warmup=500, processes=1, clip=1.0, deep=0.3, flow=0.02, mask=0.02, anneal=0.1)
    return IFNet_v4(replace(config, sharp=sharp), teacher=teacher), recipe, 256


def _among(name: str, names: str) -> bool:
    """Whether names, such as "4.13-4.15, 4.24", hold the name."""
    for part in names.split(", "):
        first, _, last = (v.removeprefix("4.") for v in part.partition("-"))
        minor = name.removeprefix("4.")
        if name == part or (last and minor.isdigit() and int(first) <= int(minor) <= int(last)):
            return True
    return False


@torch.no_grad()
def inherit(net: IFNet_v4, source: int, target: int) -> None:
    """Block `target` takes over what the narrower block `source` has learnt; its other channels start afresh.

    Blocks do the same at other scales, and coarse ones learn it last: what they see is mostly aliasing, and while
    motion is small their flow stays 0. UserError where the blocks do not allow it.
    """
    count = len(net.config.channels)
    if not (0 < source < count and 0 <= target < count and net.config.channels[source] <= net.config.channels[target]):
        raise UserError(
            f"--inherit {source}:{target}: of {count} blocks, from one that is not the first to a wider one"
        )
    learnt = net.get_submodule(f"block{source}").state_dict()
    fresh = IFNet_v4(net.config).get_submodule(f"block{target}").state_dict()
    for key, new in fresh.items():
        old = learnt[key]
        if new.dim() == 4 and "beta" not in key:
            # dimensions of inputs and outputs; the first block has no mask, features and flow, which enter last
            inputs, outputs = (0, 1) if "lastconv" in key else (1, 0)
            known, rest = min(old.shape[inputs], new.shape[inputs]), new.shape[inputs]
            new.narrow(outputs, 0, old.shape[outputs]).narrow(inputs, known, rest - known).mul_(NEW_CHANNELS)
            old = old.narrow(inputs, 0, known)
        new[tuple(slice(size) for size in old.shape)] = old
    net.get_submodule(f"block{target}").load_state_dict(fresh)


def add_gates(state: Sample, blocks: int) -> Sample:
    """Weights of a network without some gates -> with all, the new ones neutral: cubics everywhere, no smoothing."""
    known = len(state["sharp"]) if "sharp" in state else 0
    state = {**state, "sharp": torch.ones(GATES)}
    rows = slice(4 * (FEATURES_AFTER + known), 4 * (FEATURES_AFTER + GATES))  # of the tail before its pixel shuffle
    for key, index in (("weight", (slice(None), rows)), ("bias", (rows,))):
        name = f"block{blocks - 1}.lastconv.0.{key}"
        state[name] = state[name].clone()
        state[name][index] = 0
    return state


def open_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe; UserError for a name that is none."""
    if recipe.optimizer == "muon":
        return Muon(net, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=1e-6, weight_decay=recipe.weight_decay)
    raise UserError(f"--optimizer {recipe.optimizer}: known are adamw and muon")


def learning_rate(step: int, total: int, recipe: Recipe, world: int) -> float:
    """Of a step: up in a line, then down by half a cosine; scaled by the number of processes, as upstream."""
    if step < recipe.warmup:  # 1. warm-up
        rate = recipe.peak * step / recipe.warmup
    elif step < total:  # 2. decay
        done = (step - recipe.warmup) / (total - recipe.warmup)
        rate = recipe.floor + (recipe.peak - recipe.floor) * half_cosine(done)
    else:  # 3. past the end
        rate = recipe.floor
    return rate * world / recipe.processes


def half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return math.cos(min(done, 1.0) * math.pi) * 0.5 + 0.5


def losses(out: Prediction, batch: Sample, recipe: Recipe, progress: float) -> Losses:
    """The losses of a prediction whose sample is known as `pack` in data/sample.py says; images as floats in 0..1.

    All are means over the samples, so that processes with equal batches may average theirs.
    """
    gt = batch["gt"]
    lap = LapLoss()
    zero = gt.new_zeros(())
    l1, teacher, distillation = lap(out.image, gt), zero, zero
    if out.teaching is not None:
        teacher, distillation = lap(out.teaching.merged, gt), out.teaching.distillation
    shares = [DEEP_DECAY ** (len(out.flows) - 1 - i) for i in range(len(out.flows))]
    deep = quality = flow = mask = zero
    if recipe.psnr:
        quality = psnr_loss(out.image, gt)
    if recipe.deep:
        deep = torch.stack([s * (m - gt).abs().mean() for s, m in zip(shares, out.merged, strict=True)]).sum()
    if recipe.flow:
        known = batch["flow"], batch["visible"]
        flow = torch.stack([s * flow_loss(f, *known) for s, f in zip(shares, out.flows, strict=True)]).sum()
    if recipe.mask:
        sides = batch["visible"], batch["one_sided"]
        mask = torch.stack([s * mask_loss(m, *sides) for s, m in zip(shares, out.masks, strict=True)]).sum()
    fade = recipe.anneal + (1 - recipe.anneal) * half_cosine(progress)
    total = l1 + teacher + recipe.distillation * distillation + recipe.deep * deep + recipe.psnr * quality
    total = total + fade * (recipe.flow * flow + recipe.mask * mask)
    return Losses(total, l1, teacher, distillation, deep, quality, flow, mask)


def on_device(batch: Sample, device: torch.device) -> Sample:
    """The batch on the device, pictures as images in 0..1."""
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    return moved | {key: moved[key].float() / 255 for key in ("img0", "gt", "img1")}


def training_step(
    net: nn.Module,
    batch: Sample,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    rate: float,
    progress: float = 0.0,
    scaler: torch.amp.GradScaler | None = None,
) -> Losses:
    """One optimiser step at a learning rate -> its losses; `progress` in 0..1 is how far the run is.

    FloatingPointError where the loss or the gradient is not finite; no weight is changed then.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    chunks = zip(*(value.chunk(recipe.accumulate) for value in batch.values()), strict=True)
    pieces = [dict(zip(batch, chunk, strict=True)) for chunk in chunks]
    done: list[Losses] = []
    for piece in pieces:
        share = len(piece["gt"]) / len(batch["gt"])
        # gradients need to be exchanged between processes only with the last piece
        ahead = piece is not pieces[-1] and isinstance(net, nn.parallel.DistributedDataParallel)
        with net.no_sync() if ahead else nullcontext():  # type: ignore[operator]
            part = Losses(
                *(share * value for value in losses(predict(net, piece, recipe.amp), piece, recipe, progress))
            )
            (scaler.scale(part.total) if scaler else part.total).backward()
        done.append(Losses(*(value.detach() for value in part)))
    summed = Losses(*(torch.stack(values).sum() for values in zip(*done, strict=True)))
    if scaler:
        scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(net.parameters(), recipe.clip or math.inf)
    # Both, since the gradient of |nan| is 0. fp16's scaler skips overflows itself: that is how it finds its scale.
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


def predict(net: nn.Module, batch: Sample, amp: str) -> Prediction:
    """The network's prediction with all that the losses need, its teacher's included."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp)
    with torch.autocast(batch["gt"].device.type, dtype=kind, enabled=kind is not None):
        out: Prediction = net(batch["img0"], batch["img1"], batch["timestep"], gt=batch["gt"])
    return out


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Moves the averaged weights towards the network's; faster in the first steps, when they are all news."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
