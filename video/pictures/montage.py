"""Shows the source beside the result in one picture: the central half of each."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np

from video.frame import Frame
from video.timing.speed import SpeedMap
from video.writing.picture_writer import upright


def montage_size(size: tuple[int, int], rotation: int) -> tuple[int, int]:
    """Returns width and height of the montage for a source of a size and a rotation in degrees."""
    width, height = size if rotation % 180 == 0 else size[::-1]
    return 2 * (width // 2), height


def montage(
    frames: Iterable[Frame],
    rotation: int,
    interpolate: Callable[[Iterator[Frame]], Iterator[Frame]],
    speed: SpeedMap | None = None,
) -> Iterator[Frame]:
    """Yields the interpolated central half of the frames (columns w//4 to w//4 + w//2), the source at its left.

    `speed` maps the times of the source to those of the interpolated frames, if they are not the same.
    """
    originals: deque[Frame] = deque()

    def halves() -> Iterator[Frame]:
        for frame in frames:
            rgb = upright(frame.rgb(), rotation)
            width = rgb.shape[1] // 2
            left = rgb.shape[1] // 4
            originals.append(Frame(np.ascontiguousarray(rgb[:, left : left + width]), frame.time))
            yield originals[-1]

    for frame in interpolate(halves()):
        while len(originals) > 1 and _shown_at(originals[1], speed) <= frame.time:
            originals.popleft()
        pictures = originals[0].rgb(), frame.rgb()
        yield Frame(np.concatenate(pictures, axis=1), frame.time, made=frame.made)


def _shown_at(frame: Frame, speed: SpeedMap | None) -> Fraction:
    return frame.time if speed is None else speed.output_time(frame.time)
