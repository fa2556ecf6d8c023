"""Makes tiny training runs that the tests share."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dataset import Samples, Scenes
from model.IFNet_v4 import IFNet_v4
from model.training.recipe import Recipe
from model.training.run import Run, RunSettings
from model.training.stages import Stage, StagePart
from model.training.step import NO_LOSS_NETWORKS, LossNetworks, to_device
from model.weights.published import IFNetConfig

TINY = IFNetConfig((16, 8), (2, 1), encoder="H3", encoder_width=4, encoder_channels=2)
RECIPE = Recipe(peak=1e-3, warmup=2, processes=1, clip=1.0, deep=0.3, flow=0.02, mask=0.02, anneal=0.1, ema=0.9)
CPU = torch.device("cpu")


def tiny(seed: int = 0, *, teacher: bool = False) -> IFNet_v4:
    """Returns a network of two blocks with random weights."""
    torch.manual_seed(seed)
    return IFNet_v4(TINY, teacher=teacher)


def scenes(seed: int = 1, size: int = 64, length: int = 16) -> Samples:
    """Returns synthetic scenes."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return Samples(Scenes([np.asarray(cv2.resize(noise, (96, 96)))], size, length), seed)


def batch_of(count: int, data: Samples | None = None) -> dict[str, Tensor]:
    """Returns a batch as training steps take it."""
    samples = [(data or scenes())[(0, i)] for i in range(count)]
    return to_device({key: torch.stack([s[key] for s in samples]) for key in samples[0]}, CPU)


def stage(steps: int = 7, batch: int = 2, recipe: Recipe = RECIPE, **more: Any) -> Stage:
    """Returns a stage on scenes; `more` are fields of Stage."""
    return replace(Stage("train", recipe, [StagePart(scenes(), batch)], scenes(2, length=2), steps), **more)


def start(
    folder: Path,
    stages: Sequence[Stage] | None = None,
    *,
    seed: int = 0,
    resume: bool = False,
    loss_networks: LossNetworks = NO_LOSS_NETWORKS,
    **more: Any,
) -> Run:
    """Returns a run of `stages`, by default one of seven steps, that saves every second step."""
    settings = replace(RunSettings(workers=0, log_every=1, save_every=2), **more)
    made = Run(tiny(seed), stages or [stage()], folder, CPU, settings, loss_networks)
    if resume:
        made.resume()
    return made


def logged(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of the log that hold losses, without the time."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if "loss/total" in line]
