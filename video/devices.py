"""Runs the network between pairs of frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
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
from video.transitions.cuts import small_luma
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

    @cached_property
    def luma(self) -> np.ndarray:
        """Returns the luma (72,128) of `rgb`."""
        return small_luma(self.rgb)

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


class NetworkRun:
    """Runs a network between pairs of frames.

    A picture for which half precision gives NaN or infinity is made again in single precision, by a copy of the network
    that is made at the first such picture; `count_again` is called for each.
    """

    def __init__(self, model: RIFE, settings: NetworkSettings, count_again: Callable[[], None]) -> None:
        self.model, self.settings, self._count_again = model, settings, count_again

    def __call__(
        self, first: InputFrame, second: InputFrame, timesteps: Sequence[Fraction]
    ) -> Iterator[PendingPicture]:
        """Yields the pictures at rising timesteps between two frames, each as soon as its computation is started."""
        if not timesteps:
            return
        is_measured = self.settings.get("disagreement", False)
        frame0, frame1 = (frame.prepare(self.model, self.settings["scale"]) for frame in (first, second))
        made = self.model.between(frame0, frame1, timesteps, **self.settings)
        for step, image in zip(timesteps, made, strict=True):
            again = None if self.model.dtype == torch.float32 else partial(self._make_again, first, second, step)
            picture = _checked(image[:, :-1] if is_measured else image, first.rgb, again)
            yield MeasuredPicture(picture, image[:, -1].mean()) if is_measured else picture

    def _make_again(self, first: InputFrame, second: InputFrame, step: Fraction) -> Picture:
        """Returns the picture at a timestep, computed in single precision."""
        self._count_again()
        (picture,) = self._single_precision(first, second, [step])
        return picture()

    @cached_property
    def _single_precision(self) -> "NetworkRun":
        """Returns a run of a copy of the network in single precision, on tiles of the same size."""
        net: Any = deepcopy(self.model.net)
        copy = RIFE(net.float(), name=self.model.name, source=self.model.source)
        engine = self.model.engine
        copy = tiled(copy, engine.tile if isinstance(engine, TileEngine) else 0)
        return NetworkRun(copy, {**self.settings, "disagreement": False}, self._count_again)


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
