"""Runs the network between pairs of frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.frames import PreparedFrame
from model.image import send_layers, to_layers
from model.RIFE import RIFE
from video.frame import Frame, Picture
from video.transitions.scene import Signature, Transition

NetworkSettings = Mapping[str, Any]  # keywords of RIFE.between
PendingPicture = Callable[[], Picture]  # blocks until a device has finished the picture, then returns it


@dataclass
class InputFrame:
    """Holds a frame and all data that is computed from it once and used in both pairs of the frame."""

    frame: Frame
    rgb: np.ndarray  # (H,W,C)
    signature: Signature  # for the transition detector
    transition: Transition = Transition.MOTION  # from the frame before
    prepared: dict[RIFE, PreparedFrame] = field(default_factory=dict)
    keep: np.ndarray | None = None  # (H,W) bool, where an overlay is that has to be kept
    original: np.ndarray | None = None  # (H,W,C), `rgb` before the overlay was taken out of it

    @property
    def whole(self) -> np.ndarray:
        """Returns the frame (H,W,C) with its overlay."""
        return self.rgb if self.original is None else self.original

    def prepare(self, model: RIFE, scale: float) -> PreparedFrame:
        """Returns the frame on the device of a model with its features, computed at the first call."""
        if model not in self.prepared:
            with torch.no_grad():  # the grad mode is per thread, and this may be any thread
                self.prepared[model] = model.prepare(to_layers(self.rgb, model.device), scale=scale)
        return self.prepared[model]


@dataclass(frozen=True)
class MeasuredPicture:
    """Holds a picture that a device may not have finished, and the disagreement of its two warped frames."""

    picture: PendingPicture
    apart: Tensor  # scalar on the device, in 0..1

    def __call__(self) -> Picture:
        """Blocks until the picture is finished and returns it."""
        return self.picture()

    def disagreement(self) -> float:
        """Returns the mean difference of the two warped frames in 8-bit levels."""
        return 255 * float(self.apart)


class FramePair(NamedTuple):
    """Holds two consecutive frames, and the output frames from the first to just before the second."""

    first: InputFrame
    second: InputFrame
    steps: list[tuple[Fraction, Fraction]]  # output time in seconds, timestep between the frames
    held: bool = False  # no frame is made between the frames

    @property
    def timesteps(self) -> list[Fraction]:
        """Returns the timesteps that the network interpolates: none if the pair is held."""
        return [] if self.held else [step for _, step in self.steps if step]


def run_network(
    model: RIFE, first: InputFrame, second: InputFrame, timesteps: Sequence[Fraction], settings: NetworkSettings
) -> Iterator[PendingPicture]:
    """Yields the pictures at rising timesteps between two frames, each as soon as its computation is started."""
    if timesteps:
        frame0, frame1 = (frame.prepare(model, settings["scale"]) for frame in (first, second))
        for image in model.between(frame0, frame1, timesteps, **settings):
            layers = image[:, :-1] if settings.get("disagreement") else image
            picture = send_layers(layers, first.rgb.shape[2], first.rgb.dtype.type)
            yield MeasuredPicture(picture, image[:, -1].mean()) if settings.get("disagreement") else picture
