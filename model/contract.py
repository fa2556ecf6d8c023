"""Defines the interface of networks and engines, and the types of their results.

`Network` lists the methods and properties that RIFE uses. A network has them, and so has an engine, which runs a
network in another way. Order of the calls: frame_features once for each frame, then one call for each pair and
timestep. The coarse blocks may run before that call on the whole frame (estimate_coarse), the others then on tiles.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

COARSE_SCALE = 4  # a block that works at 1/4 of the frame's size or less is coarse: its maps have 1/16 of the pixels
FLOW_AND_MASK = 5  # first channels of a block's output: 4 of flow, 1 of mask


class TeacherEstimate(NamedTuple):
    """Holds the estimate of the teacher, a block that also takes the ground truth (paper section 3.3)."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) in 0..1
    merged: Tensor  # (B,3,H,W)
    distillation: Tensor  # the loss between every student flow and the teacher's, a scalar


class Prediction(NamedTuple):
    """Holds the estimate for padded images; flows in pixels, channels (x, y) to img0, then (x, y) to img1."""

    image: Tensor  # (B,3,H,W), the frame at the timestep, not clamped by the v4 networks
    flow: Tensor  # (B,4,H,W), F(t->0) and F(t->1)
    mask: Tensor  # (B,1,H,W) in 0..1, the weight of the warped img0
    flows: Sequence[Tensor] = ()  # after each block, coarse to fine
    merged: Sequence[Tensor] = ()  # each block's blend, before any refinement
    masks: Sequence[Tensor] = ()  # each block's mask (B,1,H,W), logits
    teacher_estimate: TeacherEstimate | None = None  # None unless the ground truth was given


class BlockOutput(NamedTuple):
    """Holds the output of a block at the size at which the block works: changes of flow and mask, and features."""

    values: Tensor  # (B,C,h,w): 4 flow in pixels of this size, 1 mask logit, C-5 features for the next block
    factor: float  # the frame is this many times larger than the output, after any pixel shuffle
    packed: int = 1  # p: values are (B,p*p*C,h/p,w/p), sub-pixels before channels, and need a pixel shuffle by p

    def unpacked(self) -> "BlockOutput":
        """Returns the same output after its pixel shuffle."""
        if self.packed == 1:
            return self
        values = self.values.unflatten(1, (self.packed**2, -1)).transpose(1, 2).flatten(1, 2)
        return BlockOutput(F.pixel_shuffle(values, self.packed), self.factor)


CoarseEstimate = tuple[BlockOutput, ...]  # of the coarse blocks, in order; empty if none has run


def count_coarse(scales: Sequence[float]) -> int:
    """Returns how many of the blocks, whose scales are given coarse to fine, are coarse."""
    return sum(scale >= COARSE_SCALE for scale in scales)


class Network(Protocol):
    """Defines a network, or an engine that runs one. Images are (B,3,H,W) float32 in 0..1, H and W padded."""

    @property
    def arbitrary_time(self) -> bool:
        """Returns whether any timestep between 0 and 1 can be estimated, or only 0.5."""

    @property
    def pad_multiple(self) -> int:
        """Returns the number of which H and W must be multiples, divided by the scale where that is below 1."""

    @property
    def pad_mode(self) -> str:
        """Returns torch.nn.functional.pad's mode beyond the frame's edge: "constant" (zeros) or "replicate"."""

    @property
    def options(self) -> frozenset[str]:
        """Returns the options that a call takes, of "ensemble" and "refine" (see RIFE.inference)."""

    @property
    def fixed_scales(self) -> bool:
        """Returns whether the scales of the blocks are fixed; False where a large flow doubles them (4.0, 4.1)."""

    @property
    def has_coarse_stage(self) -> bool:
        """Returns whether the network has coarse blocks that estimate_coarse can run alone."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns the weights."""

    def frame_features(self, image: Tensor) -> Any:
        """Returns the features of one image, which are used in every pair that the frame is part of.

        They are None or nested tensors (B,C,H/k,W/k); only the same network or engine can use them.
        """

    def estimate_coarse(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Any,
        features1: Any,
        *,
        scale: float = 1.0,
        **options: bool,
    ) -> CoarseEstimate:
        """Runs the coarse blocks alone, in little memory, and returns their outputs; () without a coarse stage."""

    def __call__(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,  # a number, a number for each pair (B,1,1,1), or a map (B,1,H,W)
        features0: Any,
        features1: Any,
        *,
        scale: float = 1.0,  # size at which flow is estimated, relative to the frame
        coarse: CoarseEstimate = (),
        **options: bool,
    ) -> Prediction:
        """Estimates the frame at the timestep; the blocks whose outputs are in `coarse` are not run again.

        `coarse` is only for networks with a coarse stage, an option only for those that have it.
        """


class NetworkModule(nn.Module):
    """Provides the values of a network without options and without a coarse stage: the base class of the networks."""

    arbitrary_time = False
    pad_multiple = 32
    pad_mode = "constant"  # upstream's zeros
    options: frozenset[str] = frozenset()
    fixed_scales = True
    has_coarse_stage = False

    def frame_features(self, image: Tensor) -> Any:
        """Returns None: this network has no features of single frames."""

    def estimate_coarse(self, *inputs: Any, **options: Any) -> CoarseEstimate:
        """Returns (): there is no coarse stage."""
        return ()
