"""Completes the end of an output: the duration of the last frame, and frames up to the end of the source."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from video.frame import LONG_LAST_FRAME, Frame
from video.transitions.scene import LONGEST_STEP

MATCH_DURATION = ("hold", "extrapolate")
WHOLE_FRAME = Fraction(999, 1000)  # of a frame; less than this at the end is rounding


@dataclass(frozen=True)
class Ending:
    """Completes the end of an output. `rate` is its frames/s, `source_rate` that of the source at the output's speed.

    `match` fills the time up to the end of the source with frames: copies of the last one ("hold"), or the last one
    moved on by the motion of the two before it ("extrapolate"). `exact` gives the last frame all the time that is left
    (for animated pictures, whose players show each frame for a time of its own); else only if that is longer than a
    frame.
    """

    rate: Fraction
    source_rate: Fraction
    match: str | None = None
    exact: bool = False

    def apply(self, frames: Iterable[Frame], end: Callable[[], Fraction | None]) -> Iterator[Frame]:
        """Yields the frames, the last one with a duration; `end` returns when the source ends, in output seconds."""
        before, last = None, None
        for frame in frames:
            if last is not None:
                yield last
            before, last = last, frame
        if last is None:
            return
        stop = end()
        rest = 1 / self.rate if stop is None else stop - last.time
        if self.match is None or rest > LONGEST_STEP:
            long = self.exact or rest * self.source_rate > LONG_LAST_FRAME
            yield replace(last, duration=rest if long and rest > 0 else 1 / self.rate)
            return
        count = max(math.floor(rest * self.rate + 1 - WHOLE_FRAME), 1)  # frames, the last one among them
        for k in range(count):
            shown = move_on(before, last, k) if k and self.match == "extrapolate" and before is not None else last
            made = last.made or shown is not last
            left = rest - k / self.rate if k == count - 1 else Fraction(0)
            duration = left if left * self.rate > 2 - WHOLE_FRAME else 1 / self.rate
            yield replace(shown, time=last.time + k / self.rate, duration=duration, made=made)


def move_on(before: Frame, last: Frame, steps: int) -> Frame:
    """Returns the last frame moved on by a number of steps of the motion from the frame before it.

    Optical flow by OpenCV's DIS: the networks are trained for times between two frames only. Linear motion is assumed;
    what comes into view repeats the border.
    """
    rgb = last.rgb()
    gray = [_gray(frame.rgb()) for frame in (last, before)]
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(gray[0], gray[1], None)  # type: ignore[call-overload]
    height, width = gray[0].shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)  # (H,W,2)
    places: Any = grid + steps * flow
    moved = cv2.remap(rgb, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Frame(np.asarray(moved), last.time, last.colour, made=True)


def _gray(rgb: np.ndarray) -> np.ndarray:
    """Converts (H,W,3 or 4) of any depth to (H,W) uint8."""
    top = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    return (rgb[..., :3].mean(2) * (255 / top)).clip(0, 255).astype(np.uint8)


def close_loop(frames: Iterable[Frame], step: Fraction) -> Iterator[Frame]:
    """Yields the frames, then the first one again at the end of the last, for an output that repeats without a seam."""
    first, last = None, None
    for frame in frames:
        first, last = first or frame, frame
        yield frame
    if first is not None and last is not None:
        yield replace(first, time=last.time + (last.duration or step), duration=step)


def without_closing(frames: Iterable[Frame], end: Callable[[], Fraction | None]) -> Iterator[Frame]:
    """Yields the frames that are shown before the first one comes again, the last of them with a duration.

    `end` returns when that is, in seconds of the output, once the frames have been read.
    """
    held: deque[Frame] = deque()
    for frame in frames:
        held.append(frame)
        if len(held) > 2:
            yield held.popleft()
    stop = end()
    shown = [frame for frame in held if stop is None or frame.time < stop]
    yield from shown[:-1]
    for last in shown[-1:]:
        yield last if stop is None else replace(last, duration=stop - last.time)
