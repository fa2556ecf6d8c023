"""Sums losses and samples of a training run between two reports."""

import time

import torch
import torch.distributed as dist
from torch import Tensor

from model.training.step import Losses


class LossMeter:
    """Sums losses and samples between two reports."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.samples, self.began = 0, time.monotonic()

    def add(self, losses: Losses, samples: int) -> None:
        """Adds the losses of one step and the number of its samples."""
        self.losses.append(torch.stack(losses))
        self.samples += samples

    def means(self, world: int) -> dict[str, float]:
        """Returns the mean losses over steps and processes by name, and starts again."""
        means = torch.stack(self.losses).mean(0)
        self.losses = []
        if world > 1:
            dist.all_reduce(means)
        return {name: round(float(mean) / world, 6) for name, mean in zip(Losses._fields, means, strict=True)}

    def speed(self) -> float:
        """Returns the samples a second since the last call."""
        now = time.monotonic()
        speed = self.samples / max(now - self.began, 1e-9)
        self.samples, self.began = 0, now
        return speed
