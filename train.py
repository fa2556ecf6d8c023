"""Trains a network: the paper's RIFE and RIFE_m, or any of the v4 family, on Vimeo90K, clips and synthetic scenes.

One process:       python3 train.py --batch_size 16
Four GPUs:         torchrun --nproc_per_node=4 train.py
The old way:       python3 -m torch.distributed.launch --nproc_per_node=4 train.py --world_size=4
Two machines:      torchrun --nnodes=2 --node_rank=0 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST train.py
After a stop:      the same command with --resume
v4 without Vimeo:  python3 train.py --arch v4.25 --clips DIR --photos DIR --cache DIR --batch_size 4 --hours 2

It writes to --output: flownet.pkl (the latest weights, to interpolate with), best/flownet.pkl (the best on the
validation split), state.pt (all that --resume needs), log.jsonl (losses and validation).
"""

import argparse
import copy
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dataset import BatchSampler, Clips, Mixture, Sample, Samples, Scenes, Source, Vimeo, read_picture
from model.checkpoint import DDP_PREFIX, read_state
from model.errors import UserError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.layers import Prediction
from model.loss import LapLoss, flow_loss, mask_loss
from model.metrics import psnr
from model.versions import PUBLISHED, fill

DEEP_DECAY = 0.8  # an earlier block's losses count less by this factor for every block after it (as in RAFT)
HELD_OUT = 10  # every tenth clip validates and is not trained on


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training run; the defaults are the paper's (upstream train.py and model/RIFE.py)."""

    peak: float = 3e-4  # learning rate after the warm-up, of the joint batch of four processes
    floor: float = 3e-6  # at the end
    warmup: int = 2000  # steps
    weight_decay: float = 1e-3
    clip: float = 0.0  # largest norm of the gradient; 0: as it is
    distillation: float = 0.01  # weight of the distillation loss; upstream advises 0.005 or 0.002 for RIFE_m
    deep: float = 0.0  # weight of the L1 of every block's blend
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
    flow: Tensor
    mask: Tensor


def learning_rate(
    step: float, total: float, warmup: int = 2000, peak: float = 3e-4, floor: float = 3e-6, world: float = 4
) -> float:
    """Of a step: up in a line, then down by half a cosine; times world/4, as upstream."""
    if step < warmup:  # 1. warm-up
        rate = peak * step / warmup
    elif step < total:  # 2. decay
        rate = floor + (peak - floor) * (math.cos((step - warmup) / (total - warmup) * math.pi) * 0.5 + 0.5)
    else:  # 3. past the end
        rate = floor
    return rate * world / 4


def losses(out: Prediction, batch: Sample, recipe: Recipe, progress: float) -> Losses:
    """The losses of a prediction whose sample is known as `pack` in dataset.py says; images as floats in 0..1."""
    gt = batch["gt"]
    lap = LapLoss()
    zero = gt.new_zeros(())
    l1, teacher, distillation = lap(out.image, gt), zero, zero
    if out.teaching is not None:
        teacher, distillation = lap(out.teaching.merged, gt), out.teaching.distillation
    shares = [DEEP_DECAY ** (len(out.flows) - 1 - i) for i in range(len(out.flows))]
    deep = flow = mask = zero
    if recipe.deep:
        deep = torch.stack([s * (m - gt).abs().mean() for s, m in zip(shares, out.merged, strict=True)]).sum()
    if recipe.flow:
        known = batch["flow"], batch["visible"]
        flow = torch.stack([s * flow_loss(f, *known) for s, f in zip(shares, out.flows, strict=True)]).sum()
    if recipe.mask:
        sides = batch["visible"], batch["one_sided"]
        mask = torch.stack([s * mask_loss(m, *sides) for s, m in zip(shares, out.masks, strict=True)]).sum()
    guided = recipe.flow * flow + recipe.mask * mask
    fade = recipe.anneal + (1 - recipe.anneal) * (math.cos(math.pi * min(progress, 1)) * 0.5 + 0.5)
    total = l1 + teacher + recipe.distillation * distillation + recipe.deep * deep + fade * guided
    return Losses(total, l1, teacher, distillation, deep, flow, mask)


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
    """One optimiser step at a learning rate -> its losses. A loss or gradient that is not finite changes no weight.

    FloatingPointError then; `progress` in 0..1 is how far the run is.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    pieces = [
        dict(zip(batch, p, strict=True))
        for p in zip(*(v.chunk(recipe.accumulate) for v in batch.values()), strict=True)
    ]
    device = batch["gt"].device.type
    parts: list[Losses] = []
    for i, piece in enumerate(pieces):
        last = i == len(pieces) - 1
        silent = nullcontext() if last or not hasattr(net, "no_sync") else net.no_sync()
        share = piece["gt"].shape[0] / batch["gt"].shape[0]
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.amp)
        with silent:
            with torch.autocast(device, dtype=kind, enabled=kind is not None):
                out = net(piece["img0"], piece["img1"], piece["timestep"], gt=piece["gt"])
            part = Losses(*(share * value for value in losses(out, piece, recipe, progress)))
            (scaler.scale(part.total) if scaler else part.total).backward()
        parts.append(Losses(*(value.detach() for value in part)))
    summed = Losses(*(torch.stack(values).sum() for values in zip(*parts, strict=True)))
    if scaler:
        scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(net.parameters(), recipe.clip or math.inf)
    # fp16's scaler skips steps whose gradients overflow, which is how it finds its scale
    if not torch.isfinite(summed.total) or not (scaler or torch.isfinite(norm)):
        raise FloatingPointError(f"loss {float(summed.total):g}, gradient norm {float(norm):g}")
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    return summed


def build(arch: str, teacher: bool) -> tuple[nn.Module, Recipe, int]:
    """The network named by --arch, with its recipe and the size of its crops."""
    if arch in ("rife", "rife_m"):
        return IFNet(timed=arch == "rife_m"), Recipe(distillation=0.01 if arch == "rife" else 0.005), 224
    name = arch.removeprefix("v")
    config = next((c for names, c in PUBLISHED.items() if name in names.split(", ")), None)
    if config is None:
        raise UserError(f"--arch {arch}: known are rife, rife_m, and v before one of {', '.join(PUBLISHED)}")
    # crops of 256: on 128 the coarsest block sees a map of 2x2, learns its border, and fails on whole frames
    recipe = Recipe(clip=1.0, deep=0.3, flow=0.02, mask=0.02, anneal=0.1, warmup=500)
    return IFNet_v4(config, teacher=teacher), recipe, 256


def open_data(args: argparse.Namespace, crop: int) -> tuple[Samples, Samples]:
    """What is trained on, and what validates: Vimeo's own split, else every tenth clip, else scenes of another seed."""
    sources: list[Source] = []
    weights: list[float] = []
    held: Source | None = None
    if args.vimeo is not None or not (args.clips or args.photos):
        root = args.vimeo or Path("vimeo_triplet")
        sources.append(Vimeo(root, "train", crop))
        weights.append(args.mix[0])
        held = Vimeo(root, "validation")
    if args.clips:
        files = sorted(p for p in args.clips.iterdir() if p.suffix in (".mp4", ".webm", ".mkv", ".mov", ".avi"))
        train = [p for i, p in enumerate(files) if i % HELD_OUT]
        sources.append(Clips(train, args.cache, crop, weak=args.weak))
        weights.append(args.mix[1])
        held = held or Clips(files[::HELD_OUT], args.cache, crop, weak=0.5, guess_flow=False)
    if args.photos:
        textures = [read_picture(p) for p in sorted(args.photos.iterdir()) if p.suffix in (".jpg", ".png")]
        sources.append(Scenes(textures, crop))
        weights.append(args.mix[2])
        held = held or Scenes(textures, crop)
    only = len(sources) == 1
    length = args.epoch_samples or sum(len(s) for s in sources)
    return Samples(sources[0] if only else Mixture(sources, weights, length), args.seed), Samples(held, args.seed + 1)


@torch.no_grad()
def validate(net: nn.Module, data: Samples, count: int, device: torch.device, *, rank: int, world: int) -> float:
    """Mean PSNR in dB, unrounded, of the first `count` samples, dealt out to the processes and summed over them."""
    net.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for i in range(rank, min(count, len(data)), world):
        one = on_device({key: value[None] for key, value in data[(0, i)].items()}, device)
        image = net(one["img0"], one["img1"], one["timestep"]).image
        sums += torch.stack((psnr(image.clamp(0, 1), one["gt"])[0].clamp(max=60), sums.new_ones(())))
    net.train()
    if world > 1:
        dist.all_reduce(sums)
    return float(sums[0] / sums[1])


def write_atomically(path: Path, content: Any) -> None:
    """Saves tensors so that a stop at any moment leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(content, part)
    part.replace(path)


def random_state() -> dict[str, Any]:
    """The state of every generator of this process."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Moves the averaged weights towards the network's; faster in the first steps, when they are all news."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


class Training:
    """A run: the network, its optimiser and how far it is. All of it is kept in state.pt."""

    def __init__(self, net: nn.Module, recipe: Recipe, args: argparse.Namespace, device: torch.device) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.net, self.recipe, self.folder, self.device = net.to(device), recipe, args.output, device
        self.average = copy.deepcopy(self.net) if recipe.ema else self.net
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type) if recipe.amp == "fp16" else None
        self.step, self.seconds, self.best = 0, 0.0, -math.inf

    def save(self, score: float | None = None) -> None:
        """Writes what --resume needs and the weights to interpolate with; called on the first process."""
        if self.rank:
            return
        weights = {DDP_PREFIX + key: value for key, value in self.average.state_dict().items()}
        if score is not None and score > self.best:
            self.best = score
            write_atomically(self.folder / "best" / "flownet.pkl", weights)
        write_atomically(self.folder / "flownet.pkl", weights)
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "progress": {"step": self.step, "seconds": self.seconds, "best": self.best},
            "recipe": asdict(self.recipe),
            "random": random_state(),
        }
        write_atomically(self.folder / "state.pt", state)

    def resume(self) -> None:
        """Takes up state.pt: weights, optimiser, schedule, data order (which follows from the step), generators."""
        path = self.folder / "state.pt"
        if not path.is_file():
            raise UserError(f"{path}: nothing to resume; leave out --resume, or give --output the folder of the run")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.best = (state["progress"][k] for k in ("step", "seconds", "best"))
        set_random_state(state["random"])

    def note(self, **values: Any) -> None:
        """One line in log.jsonl and on stderr."""
        if self.rank == 0:
            line = json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **values})
            print(line, file=sys.stderr, flush=True)
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(line + "\n")


def run(training: Training, args: argparse.Namespace, train: Samples, held: Samples) -> None:
    """The loop: steps, the log, validation, checkpoints."""
    t = training
    order = BatchSampler(len(train), args.batch_size, seed=args.seed, step=t.step, rank=t.rank, world=t.world)
    total = args.steps or args.epoch * order.per_epoch
    loader = DataLoader(
        train,
        batch_sampler=order,
        num_workers=args.workers,
        worker_init_fn=quiet_worker,
        pin_memory=t.device.type == "cuda",
        prefetch_factor=4 if args.workers else None,
    )
    net: nn.Module = t.net
    if args.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    if t.world > 1:
        net = nn.parallel.DistributedDataParallel(net, device_ids=[t.device.index] if t.device.type == "cuda" else None)
    net.train()
    batches = iter(loader)
    began, before = time.monotonic(), t.seconds
    recent: list[Losses] = []
    while t.step < total:
        if args.hours:  # the clock decides: the length of the run follows from the pace so far
            total = max(t.step + 1, round(t.step * args.hours * 3600 / max(t.seconds, 1e-9))) if t.step > 20 else total
            if t.seconds >= args.hours * 3600:
                break
        rate = learning_rate(t.step, total, t.recipe.warmup, t.recipe.peak, t.recipe.floor, t.world * args.rate_scale)
        batch = on_device(next(batches), t.device)
        try:
            losses_now = training_step(
                net, batch, t.optimizer, t.recipe, rate=rate, progress=t.step / total, scaler=t.scaler
            )
        except FloatingPointError as e:
            kept = t.folder / "state.pt"
            raise SystemExit(f"step {t.step}: {e}; the last good checkpoint is {kept} (--resume)") from e
        t.step += 1
        t.seconds = before + time.monotonic() - began
        if t.recipe.ema:
            follow(t.average, t.net, t.recipe.ema, t.step)
        recent.append(losses_now)
        if t.step % args.log_every == 0:
            means = {
                k: float(torch.stack(v).mean()) for k, v in zip(Losses._fields, zip(*recent, strict=True), strict=True)
            }
            t.note(rate=rate, total_steps=total, **{k: round(v, 5) for k, v in means.items()})
            recent = []
        if t.step % args.save_every == 0:
            score = validate(t.average, held, args.val_samples, t.device, rank=t.rank, world=t.world)
            t.note(psnr=round(score, 3))
            t.save(score)
    score = validate(t.average, held, args.val_samples, t.device, rank=t.rank, world=t.world)
    t.note(psnr=round(score, 3), done=True)
    t.save(score)


def quiet_worker(worker: int) -> None:
    """A worker keeps to one thread."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--epoch", type=int, default=300)
    p.add_argument("--batch_size", type=int, default=16, help="of one process (16)")
    p.add_argument("--local_rank", "--local-rank", type=int, default=0, help="given by torch.distributed.launch")
    p.add_argument("--world_size", type=int, default=4, help="only checked: torchrun says how many there are")
    p.add_argument("--arch", default="rife", help="rife, rife_m, v4.25, ...")
    p.add_argument("--vimeo", type=Path, help="folder of the triplets or septuplets (vimeo_triplet)")
    p.add_argument("--clips", type=Path, help="folder of video files")
    p.add_argument("--photos", type=Path, help="folder of pictures, the textures of synthetic scenes")
    p.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept, gigabytes")
    p.add_argument("--mix", type=float, nargs=3, default=(1, 1, 1), help="weights of vimeo, clips, scenes (1 1 1)")
    p.add_argument("--weak", type=float, default=0.0, help="share of clip samples re-coded at a low rate (0)")
    p.add_argument("--epoch_samples", type=int, help="samples of an epoch of a mixture (as many as there are)")
    p.add_argument("--output", type=Path, default=Path("train_log"))
    p.add_argument("--resume", action="store_true")
    p.add_argument("--init", type=Path, help="weights to start from")
    p.add_argument("--steps", type=int, help="in place of --epoch")
    p.add_argument("--hours", type=float, help="the schedule follows the clock and ends after so long; not repeatable")
    p.add_argument("--seed", type=int, default=1234)
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--save_every", type=int, default=1000, help="steps from one validation and checkpoint to the next")
    p.add_argument("--log_every", type=int, default=100)
    p.add_argument("--val_samples", type=int, default=10**9, help="at most (all)")
    p.add_argument("--teacher", action="store_true", help="v4: a block more that sees the ground truth")
    p.add_argument("--compile", action="store_true", help="torch.compile the network: slow start, other rounding")
    p.add_argument("--rate_scale", type=float, default=1.0, help="multiplies the learning rate besides world/4")
    for field, kind in Recipe.__annotations__.items():
        p.add_argument(f"--{field}", type=kind, help="of the recipe, see Recipe in train.py")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    rank, local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", args.local_rank))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if cuda else "gloo")
    torch.manual_seed(args.seed + rank)
    net, recipe, crop = build(args.arch, args.teacher)
    chosen = {k: getattr(args, k) for k in Recipe.__annotations__ if getattr(args, k) is not None}
    training = Training(net, replace(recipe, **chosen), args, device)
    if args.init:
        fill(training.net, read_state(args.init))
        training.average.load_state_dict(training.net.state_dict())
    if args.resume:
        training.resume()
    args.output.mkdir(parents=True, exist_ok=True)
    training.note(args={k: str(v) for k, v in vars(args).items()}, recipe=asdict(training.recipe))
    run(training, args, *open_data(args, crop))
    print(f"{args.output / 'flownet.pkl'}: {training.step} steps, best validation {training.best:.3f} dB")


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"train.py: {e}")
