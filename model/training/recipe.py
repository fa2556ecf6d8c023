"""Defines the numbers of a training run: learning rate, optimizer, and the weight of every loss."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

# Divisor of both learning rates for weights that are trained already. At the full rate the default weights lost 4 dB on
# held-out triplets within 250 steps of four crops.
FINE_TUNING = 20
LPIPS_LEAST = 31  # px; AlexNet needs pictures of this side at least


def _number(default: float | str, explanation: str, least: float = 0, most: float = math.inf) -> Any:
    """Returns a dataclass field with a default, one sentence for the user, and the smallest and largest value."""
    return field(default=default, metadata={"help": explanation, "least": least, "most": most})


@dataclass(frozen=True)
class Recipe:
    """Holds the numbers of a training run; the defaults are the paper's (upstream train.py and model/RIFE.py)."""

    peak: float = _number(3e-4, "learning rate after the warm-up")
    floor: float = _number(3e-6, "learning rate at the end")
    warmup: int = _number(2000, "steps in which the learning rate rises from 0 to its peak")
    processes: int = _number(
        4, "number of processes that both learning rates are for; with another number they change in proportion", 1
    )
    weight_decay: float = _number(1e-3, "weight decay of the optimizer")
    optimizer: str = _number("adamw", "adamw, or muon: fewer steps to the same quality, a fifth more work per step")
    clip: float = _number(0.0, "largest norm of the gradient; 0: no limit")
    distillation: float = _number(0.01, "weight of the distillation loss of the teacher that takes the true frame")
    deep: float = _number(0.0, "weight of the L1 loss of every block's blend")
    psnr: float = _number(0.0, "weight per dB of the PSNR of the result")
    lpips: float = _number(0.0, "weight of the LPIPS of the result (get it first: python3 -m model.download lpips)")
    lpips_crop: int = _number(256, "side in px of the random square on which LPIPS is computed", LPIPS_LEAST)
    flow: float = _number(0.0, "weight per px of every block's flow error where the true flow is known")
    mask: float = _number(0.0, "weight of the mask's cross entropy where only one frame shows a pixel")
    half_flow: float = _number(
        0.0, "flow in px at which a flow error counts half, to balance motions; 0: all count the same"
    )
    distill_flow: float = _number(0.02, "weight per px of every block's distance to the flow of the teacher network")
    distill_mask: float = _number(
        0.0, "weight of the cross entropy of every block's mask with that of the teacher network"
    )
    anneal: float = _number(1.0, "factor on the weights of flow and mask at the end of the run; they change gradually")
    ema: float = _number(0.0, "decay of the moving average of the weights that is validated and saved; 0: none", 0, 1)
    amp: str = _number("no", "precision of convolutions: no (float32), bf16 or fp16")
    accumulate: int = _number(1, "number of pieces in which a batch is computed, to save memory", 1)


PAPER = Recipe()
PAPER_TIMED = Recipe(distillation=0.005)  # RIFE_m; upstream advises 0.005 or 0.002
V4 = Recipe(peak=4e-4, warmup=500, processes=1, clip=1.0, deep=0.3, flow=0.02, mask=0.02, anneal=0.1)


def for_fine_tuning(recipe: Recipe) -> Recipe:
    """Returns the default numbers for weights that are trained already: lower learning rates."""
    return replace(recipe, peak=recipe.peak / FINE_TUNING, floor=recipe.floor / FINE_TUNING)


def by_flow_alone(recipe: Recipe) -> Recipe:
    """Returns the default numbers for coarse blocks that are trained only by flow losses."""
    return replace(recipe, flow=1.0, half_flow=16.0, anneal=1.0, mask=0.0, distill_flow=0.0, distill_mask=0.0)


def learning_rate(step: int, total: int, recipe: Recipe, world: int) -> float:
    """Returns the learning rate of a step: a linear rise, then half a cosine; scaled by `world` processes."""
    if step < recipe.warmup:  # 1. warm-up
        rate = recipe.peak * step / recipe.warmup
    elif step < total:  # 2. decay
        done = (step - recipe.warmup) / (total - recipe.warmup)
        rate = recipe.floor + (recipe.peak - recipe.floor) * half_cosine(done)
    else:  # 3. past the end
        rate = recipe.floor
    return rate * world / recipe.processes


def half_cosine(done: float) -> float:
    """Returns a value that falls from 1 to 0 by half a cosine as `done` rises from 0 to 1."""
    return math.cos(min(done, 1.0) * math.pi) * 0.5 + 0.5
