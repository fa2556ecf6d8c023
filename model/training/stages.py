"""Defines the stages of a training run: what each trains, on which data, by which losses, and for how long."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.sample import augment
from dataset import BatchSampler, Samples, open_loader
from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.training.network import check_inheritance, select_blocks
from model.training.recipe import Recipe


@dataclass(frozen=True)
class StagePart:
    """Describes one kind of batches of a stage: every step takes a batch of one part, drawn by weight."""

    data: Samples
    batch_size: int  # samples of one process
    weight: float = 1.0
    views: int = 1  # uses of each batch; from the second use on it is flipped and rotated at random


@dataclass(frozen=True)
class Stage:
    """Holds one stage of a run. A stage ends after `steps`, or after `hours` on the clock."""

    name: str
    recipe: Recipe
    parts: Sequence[StagePart]
    validation: Samples  # held-out samples
    steps: int = 0
    hours: float = 0.0
    blocks: tuple[int, ...] = ()  # the blocks that are trained; empty: the whole network
    flow_alone: bool = False  # run only up to the last of those blocks, and train them by flow
    coarsest: float = 0.0  # scale of the first block in this stage; 0: its own
    inherit: tuple[tuple[int, int], ...] = ()  # (source, target) blocks whose weights are copied first

    def plain_settings(self) -> dict[str, Any]:
        """Returns all settings of the stage as plain values, to compare a resumed run with the run before."""
        parts = [
            {"batch_size": p.batch_size, "weight": p.weight, "views": p.views, "samples": len(p.data)}
            for p in self.parts
        ]
        own = ("steps", "hours", "blocks", "flow_alone", "coarsest", "inherit")
        named = {f"part {i}: {key}": value for i, part in enumerate(parts) for key, value in part.items()}
        return {**asdict(self.recipe), **{name: getattr(self, name) for name in own}, **named}

    def total(self, step: int, seconds: float) -> int:
        """Returns the number of steps of the stage; with `hours` it is estimated from the speed so far."""
        if not self.hours or step <= 20:
            return self.steps
        return max(step + 1, round(step * self.hours * 3600 / seconds))

    def finished(self, step: int, seconds: float) -> bool:
        """Returns whether the stage ends after so many steps and seconds."""
        return seconds >= self.hours * 3600 if self.hours else step >= self.steps


def check_stage(stage: Stage, net: nn.Module, world: int) -> None:
    """Raises UserError if the network or the data do not suit the stage; call it before the first stage begins."""
    for source, target in stage.inherit:
        check_inheritance(net, source, target)
    select_blocks(net, stage.blocks)
    if stage.flow_alone and not isinstance(net, IFNet_v4):
        raise UserError("blocks of the paper's networks cannot be trained alone, those of v4 networks can")
    for part in stage.parts:
        BatchSampler(len(part.data), part.batch_size, seed=0, world=world)


def stage_batches(
    stage: Stage, seed: int, *, step: int, rank: int, world: int, workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yields the batches of one process, beginning at `step`, without end; a resumed run gets the same batches."""
    shares = np.array([part.weight for part in stage.parts], np.float64)
    shares /= shares.sum()

    def choose(number: int) -> int:
        return int(np.random.default_rng((seed, 1, number)).choice(len(shares), p=shares))

    counts = [0] * len(shares)
    for number in range(step if len(shares) > 1 else 0):
        counts[choose(number)] += 1
    if len(shares) == 1:
        counts = [step]
    each = max(workers // len(shares), min(workers, 1))
    streams: list[Iterator[Any]] = []
    for i, part in enumerate(stage.parts):
        order = BatchSampler(
            len(part.data), part.batch_size, seed=seed + i, step=counts[i] // part.views, rank=rank, world=world
        )
        streams.append(_views(iter(open_loader(part.data, order, each, device)), part.views, counts[i], seed + i))
    while True:
        yield next(streams[choose(step)])
        step += 1


def _views(batches: Iterator[dict[str, Tensor]], views: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yields every batch `views` times, augmented from the second time on; skips the first `count` of them."""
    while True:
        batch = _next(batches)
        for view in range(count % views, views):
            yield batch if view == 0 else augment(np.random.default_rng((seed, 2, count)), batch)
            count += 1


def _next(batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the next batch. Raises UserError of one line for an error in a process that loads data."""
    try:
        return next(batches)
    except UserError as e:
        raise UserError(str(e).strip().splitlines()[-1].rpartition("UserError: ")[2]) from None
