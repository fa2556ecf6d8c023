"""Runs the network between pairs of frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.errors import NotFiniteError
from model.frames import PreparedFrame
from model.image import send_layers, to_layers
from model.inference.tile_engine import TileEngine, tiled
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
    score: float | None = None  # by which the transition was found
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
    model: RIFE,
    first: InputFrame,
    second: InputFrame,
    timesteps: Sequence[Fraction],
    settings: NetworkSettings,
    count_again: Callable[[], None] = lambda: None,
) -> Iterator[PendingPicture]:
    """Yields the pictures at rising timesteps between two frames, each as soon as its computation is started.

    A picture for which half precision gives NaN or infinity is made again in single precision; `count_again` is called
    for each.
    """
    if not timesteps:
        return

    def make_again(step: Fraction) -> Picture:
        """Returns the picture at a timestep, computed in single precision."""
        count_again()
        (picture,) = run_network(single_precision(model), first, second, [step], {**settings, "disagreement": False})
        return picture()

    frame0, frame1 = (frame.prepare(model, settings["scale"]) for frame in (first, second))
    for step, image in zip(timesteps, model.between(frame0, frame1, timesteps, **settings), strict=True):
        layers = image[:, :-1] if settings.get("disagreement") else image
        picture = _checked(layers, first.rgb, None if model.dtype == torch.float32 else partial(make_again, step))
        yield MeasuredPicture(picture, image[:, -1].mean()) if settings.get("disagreement") else picture


def _checked(layers: Tensor, like: np.ndarray, again: PendingPicture | None) -> PendingPicture:
    """Starts the copy of an image to main memory, as a picture with the channels and the type of `like`.

    `again` makes the picture in another way if it is not finite; None: there is no other.
    """
    if again is None:
        return send_layers(layers, like.shape[2], like.dtype.type)
    try:
        pending = send_layers(layers, like.shape[2], like.dtype.type)
    except NotFiniteError:
        return again

    def wait() -> Picture:
        try:
            return pending()
        except NotFiniteError:
            return again()

    return wait


def single_precision(model: RIFE) -> RIFE:
    """Returns a copy of a network in single precision, on tiles of the same size."""
    net: Any = deepcopy(model.net)
    copy = RIFE(net.float(), name=model.name, source=model.source)
    return tiled(copy, model.engine.tile if isinstance(model.engine, TileEngine) else 0)
