"""Holds the estimate of a v4 network between its blocks: flow, mask, and the images and features that they warp."""

from typing import NamedTuple

import torch
from torch import Tensor

from model.contract import BlockOutput
from model.networks.layers import blend
from model.networks.sharp import SAMPLING, SMOOTHING, sharpened, smoothed
from model.networks.warp import resize, warp_both


class FrameTensors(NamedTuple):
    """Holds a frame and its features."""

    image: Tensor  # (B,3,H,W)
    features: Tensor  # (B,E,H,W), E may be 0


class Pair(NamedTuple):
    """Holds two frames and the settings of a call: the same for every block."""

    frames: tuple[FrameTensors, FrameTensors]
    timestep: Tensor  # (B,1,H,W)
    scales: tuple[float, ...]  # of each block
    ensemble: bool  # each block runs in both directions, and the two outputs are averaged
    keep_warped: bool  # whether the estimate after each block holds both warped images at full size

    def swapped(self) -> "Pair":
        """Returns the same pair with the two frames exchanged."""
        return self._replace(frames=self.frames[::-1], timestep=1 - self.timestep)


class Estimate(NamedTuple):
    """Holds the estimate after a block."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    carried: Tensor | None  # (B,8,h,w) features for the next block, at the block's own size, not warped
    warped: tuple[Tensor, Tensor] | None = None  # both images warped by the flow

    def swapped(self) -> "Estimate":
        """Returns the same estimate with the two frames exchanged."""
        return self._replace(flow=_swap(self.flow), mask=-self.mask, warped=self.warped and self.warped[::-1])

    def with_warped(self, pair: Pair) -> "Estimate":
        """Returns the estimate with both images warped by the flow, if the pair's settings keep them."""
        if not pair.keep_warped:
            return self
        return self._replace(warped=warp_both(pair.frames[0].image, pair.frames[1].image, self.flow))

    def warped_frames(self, pair: Pair, scale: float) -> list[Tensor]:
        """Returns both images, then both frames' features, warped by the flow, as inputs of a block of that scale.

        They have the frame's size (B,C,H,W), or, for an even scale from 4 up, 1/scale of it: only the pixels that go
        into the block are sampled.
        """
        factor = int(scale) if scale >= 4 and scale % 2 == 0 else 1
        (image0, features0), (image1, features1) = pair.frames
        images = self.warped or warp_both(image0, image1, self.flow, factor=factor)
        if not features0.shape[1]:
            return [*images]
        # warped apart from the images: training needs no gradient with respect to the images
        return [*images, *warp_both(features0, features1, self.flow, factor=factor)]

    def blend(self, pair: Pair) -> Tensor:
        """Returns the image (B,3,H,W) at the timestep."""
        return blend(*self._both_warped(pair), torch.sigmoid(self.mask))

    def sharp_blend(self, pair: Pair) -> Tensor:
        """Returns the image (B,3,H,W), sampled and smoothed by gates: the carried features of the last block."""
        assert self.carried is not None
        gates = resize(self.carried, self.mask.shape[3] / self.carried.shape[3])  # (B,8,H,W) logits
        sampling, smoothing = gates.split((SAMPLING, SMOOTHING), 1)
        warped0, warped1 = (
            sharpened(image, frame.image, flow, sampling[:, i::2])
            for i, (image, frame, flow) in enumerate(
                zip(self._both_warped(pair), pair.frames, self.flow.split(2, 1), strict=True)
            )
        )
        return smoothed(blend(warped0, warped1, torch.sigmoid(self.mask)), smoothing)

    def _both_warped(self, pair: Pair) -> tuple[Tensor, Tensor]:
        return self.warped or warp_both(pair.frames[0].image, pair.frames[1].image, self.flow)


def _swap(flow: Tensor) -> Tensor:
    """Returns the same flow (B,4,H,W) with the two images exchanged."""
    return torch.cat((flow[:, 2:4], flow[:, :2]), 1)


def average(output: BlockOutput, other: BlockOutput) -> BlockOutput:
    """Returns the mean of a block's output and of its output for the exchanged frames, without features."""
    x, y = output.values, other.values
    return output._replace(values=torch.cat((x[:, :4] + _swap(y), x[:, 4:5] - y[:, 4:5]), 1) / 2)
