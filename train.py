"""Trains a network: the paper's RIFE and RIFE_m, or any of the v4 family, on Vimeo90K, clips and synthetic scenes.

One process:       python3 train.py --batch_size 16
Four GPUs:         torchrun --nproc_per_node=4 train.py
The old way:       python3 -m torch.distributed.launch --nproc_per_node=4 train.py --world_size=4
Two machines:      torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST train.py (on each)
After a stop:      the same command with --resume
v4 without Vimeo:  python3 train.py --arch v4.25 --clips DIR --photos DIR --cache DIR --batch_size 4 --hours 2

It writes to --output: flownet.pkl (the latest weights, to interpolate with), best/flownet.pkl (the best on the
validation split), state.pt (all that --resume needs), log.jsonl (settings, losses, validation) and, if tensorboard is
installed, upstream's scalars and pictures.
"""

import argparse
import copy
import gc
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.clips import Clips
from dataset import BatchSampler, Mixture, Samples, Scenes, Source, Vimeo, open_loader, read_rgb
from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.image import padder_for
from model.inference.memory import keep_freed_memory
from model.loading import fill
from model.metrics import psnr
from model.training.step import (
    Losses,
    Recipe,
    add_gates,
    build,
    follow,
    inherit,
    learning_rate,
    on_device,
    open_optimizer,
    training_step,
)
from model.weights.checkpoint import DDP_PREFIX, find_weights, read_weights

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi")
PHOTO_SUFFIXES = (".jpg", ".png")
BEST_PSNR = 60.0  # dB, what a picture that was met exactly counts as
SHOWN = 5  # validation samples whose pictures go to tensorboard, as many as upstream shows


def open_data(args: argparse.Namespace, crop: int, *, guess_flow: bool) -> tuple[Samples, Samples]:
    """What is trained on, and what validates: Vimeo's own split, else clips held out, else scenes of another seed.

    `guess_flow`: estimate the flow of clips, which takes nine tenths of their time and serves its loss alone.
    """
    cv2.setNumThreads(1)  # validation reads in the main process; the samples must not depend on it
    sources: list[Source] = []
    weights: list[float] = []
    held: Source | None = None
    if args.vimeo is not None or not (args.clips or args.photos):
        root = args.vimeo or Path("vimeo_triplet")
        sources.append(Vimeo(root, "train", crop))
        weights.append(args.mix[0])
        held = Vimeo(root, "validation")
    if args.clips:
        files = sorted(p for p in args.clips.iterdir() if p.suffix in VIDEO_SUFFIXES)
        unseen = files[:: args.held_out] if args.held_out else []
        seen = [p for p in files if p not in unseen]
        if unseen and not seen:
            raise UserError(
                f"{args.clips}: every clip would validate, none is left to learn from; add clips, or give --held_out 0"
            )
        sources.append(Clips(seen, args.cache, crop, weak=args.weak, moved=args.moved, guess_flow=guess_flow))
        weights.append(args.mix[1])
        if unseen:
            held = held or Clips(unseen, args.cache, crop, weak=0.5, guess_flow=False)
    if args.photos:
        textures = [read_rgb(p) for p in sorted(args.photos.iterdir()) if p.suffix in PHOTO_SUFFIXES]
        sources.append(Scenes(textures, crop))
        weights.append(args.mix[2])
        held = held or Scenes(textures, crop)
    length = args.epoch_samples or sum(len(s) for s in sources)
    if held is None:
        raise UserError("nothing validates: --held_out 0 needs --photos or --vimeo")
    mixed = sources[0] if len(sources) == 1 else Mixture(sources, weights, length)
    return Samples(mixed, args.seed), Samples(held, args.seed + 1)


class Training:
    """A run: the network, its optimiser, how far it is, and where it writes. All of it is kept in state.pt."""

    def __init__(self, net: nn.Module, recipe: Recipe, folder: Path, device: torch.device) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.net, self.recipe, self.folder, self.device = net.to(device), recipe, folder, device
        self.average: Any = copy.deepcopy(self.net) if recipe.ema else self.net
        self.optimizer = open_optimizer(net, recipe)
        self.scaler = torch.amp.GradScaler(device.type) if recipe.amp == "fp16" else None
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.board: Any = None

    def start(self) -> None:
        """Makes the folder, and opens the board if tensorboard is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        if self.rank == 0:
            self.board = SummaryWriter(self.folder / "tensorboard")

    def save(self, score: float) -> None:
        """Writes what --resume needs and the weights to interpolate with; the first process does."""
        if self.rank:
            return
        weights = {DDP_PREFIX + key: value for key, value in self.average.state_dict().items()}
        if score > self.best:
            self.best = score
            write_atomically(self.folder / "best" / "flownet.pkl", weights)
        write_atomically(self.folder / "flownet.pkl", weights)
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "progress": {"step": self.step, "seconds": self.seconds, "best": self.best},
            "random": {"torch": torch.get_rng_state(), "python": random.getstate()},
        }
        write_atomically(self.folder / "state.pt", state)

    def resume(self) -> None:
        """Takes up state.pt: weights, optimiser, random state, and the step, which gives rate and data order."""
        path = self.folder / "state.pt"
        if not path.is_file():
            raise UserError(f"{path}: nothing to resume; leave out --resume, or give --output the folder of the run")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.best = (state["progress"][key] for key in ("step", "seconds", "best"))
        torch.set_rng_state(state["random"]["torch"])
        random.setstate(state["random"]["python"])

    def note(self, **values: Any) -> None:
        """One line in log.jsonl and on stderr; numbers go to the board too."""
        if self.rank:
            return
        line = json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **values})
        print(line, file=sys.stderr, flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")
        for name, value in values.items() if self.board else ():
            if isinstance(value, float):
                self.board.add_scalar(name, value, self.step)

    @torch.no_grad()
    def validate(self, data: Samples, count: int) -> float:
        """Mean PSNR in dB, unrounded, of the first `count` samples, dealt out to the processes and summed over them."""
        self.average.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for i in range(self.rank, min(count, len(data)), self.world):
            one = on_device({key: value[None] for key, value in data[(0, i)].items()}, self.device)
            padder = padder_for(self.average, *one["gt"].shape[2:])
            out = self.average(padder.pad(one["img0"]), padder.pad(one["img1"]), one["timestep"])
            image = padder.unpad(out.image.clamp(0, 1))
            sums += torch.stack((psnr(image, one["gt"])[0].clamp(max=BEST_PSNR), sums.new_ones(())))
            if self.board and i < SHOWN:
                shown = torch.cat((one["img0"], one["gt"], image, one["img1"]), 3)[0]
                self.board.add_image(f"{i}/img", shown, self.step)
                self.board.add_image(f"{i}/mask", out.mask[0], self.step)
        self.average.train()
        if self.world > 1:
            dist.all_reduce(sums)
        score = float(sums[0] / sums[1])
        self.note(psnr=round(score, 4))
        return score


def write_atomically(path: Path, content: Any) -> None:
    """Saves tensors so that a stop at any moment leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(content, part)
    part.replace(path)


def run(t: Training, args: argparse.Namespace, train: Samples, held: Samples) -> None:
    """The loop: steps, the log, validation, checkpoints."""
    order = BatchSampler(len(train), args.batch_size, seed=args.seed, step=t.step, rank=t.rank, world=t.world)
    total = args.steps or args.epoch * order.per_epoch
    batches = iter(open_loader(train, order, args.workers, t.device))
    net = parallel(t.net, t.device, args.compile)
    began, recent = time.monotonic() - t.seconds, []
    while t.step < total and not (args.hours and t.seconds >= args.hours * 3600):
        if args.hours and t.step > 20:  # the clock decides: the length of the run follows from the pace so far
            total = max(t.step + 1, round(t.step * args.hours * 3600 / t.seconds))
        rate = learning_rate(t.step, total, t.recipe, t.world)
        batch = on_device(next(batches), t.device)
        try:
            made = training_step(net, batch, t.optimizer, t.recipe, rate=rate, progress=t.step / total, scaler=t.scaler)
        except FloatingPointError as e:
            kept = t.folder / "state.pt"
            last = (
                f"the last good checkpoint is {kept} (--resume)" if kept.is_file() else "no checkpoint was written yet"
            )
            raise UserError(f"step {t.step}: {e}; {last}") from e
        t.step, t.seconds = t.step + 1, time.monotonic() - began
        if t.recipe.ema:
            follow(t.average, t.net, t.recipe.ema, t.step)
        recent.append(torch.stack(made))
        if t.step % args.log_every == 0:
            t.note(learning_rate=rate, total_steps=total, **mean_losses(recent, t.world))
            recent = []
        if t.step % args.save_every == 0:
            t.save(t.validate(held, args.val_samples))
    if t.step % args.save_every:
        t.save(t.validate(held, args.val_samples))


def parallel(net: nn.Module, device: torch.device, compiled: bool) -> nn.Module:
    """The network as the loop calls it: compiled, and over all processes, where asked for; the same weights."""
    wrapped: Any = torch.compile(net) if compiled else net
    if dist.is_initialized() and dist.get_world_size() > 1:
        wrapped = nn.parallel.DistributedDataParallel(wrapped, device_ids=[device] if device.type == "cuda" else None)
    wrapped.train()
    return wrapped


def mean_losses(recent: Sequence[Tensor], world: int) -> dict[str, float]:
    """The means over steps and processes, by name as upstream's scalars."""
    means = torch.stack(list(recent)).mean(0)
    if world > 1:
        dist.all_reduce(means)
    return {f"loss/{name}": round(float(mean) / world, 6) for name, mean in zip(Losses._fields, means, strict=True)}


def block_pair(text: str) -> tuple[int, int]:
    """FROM:TO, for argparse."""
    source, target = text.split(":")
    return int(source), int(target)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Upstream's flags with their defaults, ours, and one for each number of the recipe."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--epoch", type=int, default=300)
    p.add_argument("--batch_size", type=int, default=16, help="of one process (16)")
    p.add_argument("--local_rank", "--local-rank", type=int, default=0, help="given by torch.distributed.launch")
    p.add_argument("--world_size", type=int, default=4, help="taken, not needed: the launcher says how many there are")
    p.add_argument("--arch", default="rife", help="rife, rife_m, v4.25, ...")
    p.add_argument("--vimeo", type=Path, help="folder of the triplets or septuplets (vimeo_triplet)")
    p.add_argument("--clips", type=Path, help="folder of video files")
    p.add_argument("--photos", type=Path, help="folder of pictures, the textures of synthetic scenes")
    p.add_argument("--crop", type=int, help="px (224; v4: 256); a multiple of the coarsest scale times 4")
    p.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept, gigabytes")
    p.add_argument("--mix", type=float, nargs=3, default=(1, 1, 1), help="weights of vimeo, clips, scenes (1 1 1)")
    p.add_argument("--held_out", type=int, default=10, help="every N-th clip validates, unseen (10); 0: none")
    p.add_argument("--weak", type=float, default=0.0, help="share of clip samples re-coded at a low rate (0)")
    p.add_argument("--moved", type=float, default=0.0, help="share of clip samples shown by a moving camera (0)")
    p.add_argument("--exact", action="store_true", help="flow losses on scenes alone: clips' are not estimated")
    p.add_argument("--epoch_samples", type=int, help="samples of an epoch of a mixture (as many as there are)")
    p.add_argument("--output", type=Path, default=Path("train_log"))
    p.add_argument("--resume", action="store_true")
    p.add_argument("--init", type=Path, help="weights to start from")
    p.add_argument(
        "--inherit",
        type=block_pair,
        nargs="+",
        default=(),
        metavar="FROM:TO",
        help="v4: a coarse block starts with what a finer one has learnt, in this order, e.g. 2:0 3:2 3:1",
    )
    p.add_argument("--steps", type=int, help="in place of --epoch")
    p.add_argument("--hours", type=float, help="the schedule follows the clock and ends after so long; not repeatable")
    p.add_argument("--seed", type=int, default=1234)
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--save_every", type=int, default=1000, help="steps from one validation and checkpoint to the next")
    p.add_argument("--log_every", type=int, default=100)
    p.add_argument("--val_samples", type=int, default=10**9, help="at most (all)")
    p.add_argument(
        "--teacher",
        choices=["gt"],
        help="v4: train a further block that also sees the ground truth, and pull the flows of the others to its flow",
    )
    p.add_argument("--sharp", action="store_true", help="v4.22 on: learn how the last blend samples: by cubics, nearby")
    p.add_argument("--compile", action="store_true", help="torch.compile the network: slow start, other rounding")
    for field, kind in Recipe.__annotations__.items():
        p.add_argument(f"--{field}", type=kind, help="of the recipe, see Recipe in model/training/step.py")
    return p.parse_args(argv)


def leave_group() -> None:
    """The end of work in several processes, once nothing refers to the network's copies for them any more.

    DistributedDataParallel refers to itself; with it alive, gloo's threads outlive the group, and exits abort at times.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> None:
    """Trains as told; rank and device come from the launcher's environment."""
    args = parse(argv)
    keep_freed_memory()
    rank, local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", args.local_rank))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if cuda else "gloo")
    if args.hours and "WORLD_SIZE" in os.environ:
        raise UserError("--hours is for one process: clocks of several do not agree; give --steps")
    torch.manual_seed(args.seed + rank)
    net, recipe, crop = build(args.arch, args.teacher is not None, sharp=args.sharp)
    chosen = {field: getattr(args, field) for field in Recipe.__annotations__ if getattr(args, field) is not None}
    if args.init:  # before the optimiser takes hold of the parameters, which are replaced
        state = read_weights(find_weights(args.init))
        if isinstance(net, IFNet_v4) and args.sharp:
            state = add_gates(state, len(net.config.channels))
        fill(net, state)
    for source, target in args.inherit:
        if not isinstance(net, IFNet_v4):
            raise UserError(f"--inherit: the blocks of {args.arch} differ; it is for the v4 networks")
        inherit(net, source, target)
    training = Training(net, replace(recipe, **chosen), args.output, device)
    if args.resume:
        training.resume()
    if (crop := args.crop or crop) % net.pad_multiple:
        raise UserError(f"--crop {crop}: {args.arch} needs a multiple of {net.pad_multiple}")
    training.start()
    training.note(settings={k: str(v) for k, v in vars(args).items()}, recipe=asdict(training.recipe))
    run(training, args, *open_data(args, crop, guess_flow=training.recipe.flow > 0 and not args.exact))
    if rank == 0:
        print(f"{args.output / 'flownet.pkl'}: {training.step} steps, best validation {training.best:.3f} dB")
    leave_group()


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"train.py: {e}")
