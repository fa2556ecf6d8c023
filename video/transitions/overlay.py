"""Keeps overlays, such as logos and captions, that stand still while the scene moves behind them.

A network moves an overlay with the scene, so that it doubles. This module removes the overlay from the frames that
the network gets, and puts the overlay back on the frames that the network makes.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from model.errors import UserError
from video.devices import InputFrame, MeasuredPicture, PendingPicture
from video.frame import Picture
from video.pictures.picture import read_picture
from video.transitions.cuts import picture_area
from video.transitions.hold import blend_pictures
from video.transitions.scene import HELD

STILL_REACH = 4  # frames on both sides of a frame that show whether its pixels stand still; within one shot
FEWEST_FRAMES = 4  # frames that are needed
MOVED_LEVELS, MOVED_SHARE = 40, 0.25  # the scene moves if this share of its pixels changes by more 8-bit levels
STILL_LEVELS = 10  # changes of a pixel that coding causes
SOBEL_SUM, GRADIENT_UNIT = 8, 2.0  # sum of the weights of that filter; levels a pixel, so that gradients fit 8 bits
EDGE_LEVELS = 8.0  # a pixel; the weakest edge of an overlay
EDGE_SPREAD = 0.35  # of an edge: how far its gradient may vary over the frames, because of the scene behind it
SURROUNDINGS = 21  # px; edges of an overlay run in several directions there, those of a scene along its motion
SECOND_DIRECTION = 0.1  # least share of the second direction
CLOSED, GROWN, INSIDE = 7, 3, 17  # px: gaps between edges that are filled; margin; still pixels so near to edges
FILL_RADIUS = 3  # px around the overlay, whose colours fill its place
FEATHER, FEATHER_REACH = 1.0, 4  # px: deviation of the soft edge around an overlay, and how far it reaches


class _SearchFrame(NamedTuple):
    """Holds a frame with its luma and gradient, for the search."""

    frame: InputFrame
    luma: np.ndarray  # (H,W) uint8
    gradient: np.ndarray  # (H,W,2) int8


@dataclass(frozen=True)
class Overlays:
    """Finds overlays: at `mask` (H,W) bool in all frames, and, if `search`, where pixels stand still."""

    search: bool = True
    mask: np.ndarray | None = None

    def protect(self, frames: Iterable[InputFrame]) -> Iterator[InputFrame]:
        """Yields the frames with their overlays marked in `keep` and taken out of `rgb`."""
        if not self.search:
            yield from (hide(frame, self.mask) for frame in frames)
            return
        recent: deque[_SearchFrame] = deque()
        done = 0  # of `recent`, frames that were yielded
        for frame in frames:
            if recent and (frame.transition in HELD or frame.rgb.shape != recent[0].frame.rgb.shape):
                yield from self._rest(recent, done)
                recent.clear()
                done = 0
            luma = _luma(frame.rgb)
            recent.append(_SearchFrame(frame, luma, gradient(luma)))
            if len(recent) - done > STILL_REACH:
                yield self._protected(recent, done)
                done += 1
            if done > STILL_REACH:
                recent.popleft()
                done -= 1
        yield from self._rest(recent, done)

    def _rest(self, recent: deque[_SearchFrame], done: int) -> Iterator[InputFrame]:
        """Yields the frames at the end of a shot."""
        for number in range(done, len(recent)):
            yield self._protected(recent, number)

    def _protected(self, recent: deque[_SearchFrame], number: int) -> InputFrame:
        window = list(recent)[max(number - STILL_REACH, 0) : number + STILL_REACH + 1]
        found = static_pixels([s.luma for s in window], [s.gradient for s in window])
        if self.mask is not None:
            found = self.mask if found is None else found | self.mask
        return hide(recent[number].frame, found)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Returns the luma of a frame (H,W,C) as (H,W) uint8."""
    if rgb.dtype != np.uint8:
        rgb = cv2.convertScaleAbs(rgb, alpha=1 / 257 if rgb.dtype == np.uint16 else 255)
    return cv2.cvtColor(np.ascontiguousarray(rgb[..., :3]), cv2.COLOR_RGB2GRAY)


def gradient(luma: np.ndarray) -> np.ndarray:
    """Returns the gradient of a luma (H,W) as (H,W,2) int8: x to the right, y down, in units of GRADIENT_UNIT."""
    sides = [cv2.Sobel(luma, cv2.CV_16S, dx, 1 - dx, scale=1 / (SOBEL_SUM * GRADIENT_UNIT)) for dx in (1, 0)]
    return np.stack(sides, 2).clip(-127, 127).astype(np.int8)


def static_pixels(lumas: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> np.ndarray | None:
    """Returns where overlays are in consecutive frames of one shot, (H,W) bool; None if there are none.

    Lumas are (H,W) uint8, gradients (H,W,2) those of `gradient`. An overlay has edges in several directions whose
    gradients are the same in all frames, while the scene moves.
    """
    if len(lumas) < FEWEST_FRAMES:
        return None
    brightest = np.maximum.reduce(lumas)
    change = brightest - np.minimum.reduce(lumas)
    if (change[picture_area(brightest)] > MOVED_LEVELS).mean() < MOVED_SHARE:
        return None
    total, squares = np.zeros(gradients[0].shape, np.float32), np.zeros(change.shape, np.float32)
    for one in gradients:
        cv2.accumulate(one.astype(np.float32), total)
        squares += np.square(one, dtype=np.float32).sum(2)
    mean = total * (GRADIENT_UNIT / len(gradients))
    strength = np.hypot(mean[..., 0], mean[..., 1])
    spread = np.sqrt(np.maximum(squares * (GRADIENT_UNIT**2 / len(gradients)) - strength**2, 0))
    edges = (strength > EDGE_LEVELS) & (spread < EDGE_SPREAD * strength)
    x, y = mean[..., 0] * edges, mean[..., 1] * edges
    xx, yy, xy = (cv2.boxFilter(p, -1, (SURROUNDINGS, SURROUNDINGS)) for p in (x * x, y * y, x * y))
    second = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2  # the smaller eigenvalue
    edges &= second > SECOND_DIRECTION * (xx + yy)
    if not edges.any():
        return None
    seeds = edges.astype(np.uint8)
    closed = cv2.morphologyEx(seeds, cv2.MORPH_CLOSE, np.ones((CLOSED, CLOSED), np.uint8))
    grown = cv2.dilate(closed, np.ones((GROWN, GROWN), np.uint8)) > 0
    inside = cv2.dilate(seeds, np.ones((INSIDE, INSIDE), np.uint8)) > 0
    return grown | (inside & (change <= STILL_LEVELS))


def read_mask(path: Path, size: tuple[int, int], rotation: int = 0) -> np.ndarray:
    """Reads a picture as a mask (H,W) bool for frames of a width and height: what is not black.

    The picture is as players show the video, turned by `rotation` degrees counter-clockwise. Raises UserError unless it
    has that size.
    """
    picture = np.rot90(read_picture(path), -(rotation // 90))
    height, width = picture.shape[:2]
    if (width, height) != size:
        turned = rotation % 180 != 0
        (width, height), size = ((height, width), size[::-1]) if turned else ((width, height), size)
        raise UserError(f"{path}: {width}x{height}, the video {size[0]}x{size[1]}; give a mask of the video's size")
    return np.ascontiguousarray(picture[..., :3].max(2) > 0)


def hide(frame: InputFrame, keep: np.ndarray | None) -> InputFrame:
    """Returns a frame whose pixels at `keep` are filled from around them; the frame itself if there are none."""
    if keep is None or not keep.any():
        return frame
    places = keep.astype(np.uint8)
    if frame.rgb.dtype == np.uint8 and frame.rgb.shape[2] == 3:
        filled = cv2.inpaint(frame.rgb, places, FILL_RADIUS, cv2.INPAINT_TELEA)
    else:
        planes = [np.ascontiguousarray(frame.rgb[..., c]) for c in range(frame.rgb.shape[2])]
        filled = cv2.merge([cv2.inpaint(plane, places, FILL_RADIUS, cv2.INPAINT_TELEA) for plane in planes])
    return replace(frame, rgb=filled, original=frame.whole, keep=keep, prepared={})


def put_back(picture: PendingPicture, first: InputFrame, second: InputFrame, step: Fraction) -> PendingPicture:
    """Returns the picture made at a timestep between two frames with their overlays put back."""
    keeps = [frame.keep for frame in (first, second) if frame.keep is not None]
    if not keeps:
        return picture
    inner = picture.picture if isinstance(picture, MeasuredPicture) else picture

    def with_overlays() -> Picture:
        made = inner()
        assert isinstance(made, np.ndarray)
        keep = np.logical_or.reduce(keeps)
        rows, columns = (np.flatnonzero(keep.any(axis)) for axis in (1, 0))
        top, left = max(rows[0] - FEATHER_REACH, 0), max(columns[0] - FEATHER_REACH, 0)
        part = np.s_[top : rows[-1] + FEATHER_REACH + 1, left : columns[-1] + FEATHER_REACH + 1]
        shown = blend_pictures(first.whole[part], second.whole[part], float(step))
        weight = cv2.GaussianBlur(keep[part].astype(np.float32), (0, 0), FEATHER)[..., None]
        mixed = made[part] + weight * (shown.astype(np.float32) - made[part])
        result = made.copy()
        result[part] = mixed if made.dtype.kind == "f" else np.rint(mixed)
        return result

    return replace(picture, picture=with_overlays) if isinstance(picture, MeasuredPicture) else with_overlays
