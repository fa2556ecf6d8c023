"""Cuts triplets out of a clip: two frames and the true frame between them, without a cut or a repeat among them."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmark.test_set import HALF
from model.image import to_picture, to_tensor
from model.RIFE import HALVING_TOLERANCE
from video.frame import Frame
from video.pictures.picture import with_channels
from video.prefetch import prefetch
from video.reading.reader import open_frames
from video.transitions.scene import CUT_SSIM, Signature, Transition, TransitionDetector


@dataclass(frozen=True)
class ClipFrame:
    """Holds a frame of a clip as (H,W,3) uint8 RGB."""

    index: int
    time: Fraction  # s
    picture: np.ndarray
    signature: Signature  # for the detector of cuts


REPEAT_LEVELS = 0.25  # 8-bit levels; frames that differ by less on average are one frame shown twice
FrameTriplet = tuple[ClipFrame, ClipFrame, ClipFrame]  # first, truth, last


def convert_frames(frames: Iterable[Frame], short_side: int | None = None) -> Iterator[ClipFrame]:
    """Yields decoded frames in 8 bits, without alpha, numbered from 0, reduced to `short_side` px where given."""
    for index, frame in enumerate(frames):
        rgb = with_channels(frame.rgb(), 3)[:, :, :3]
        signature = TransitionDetector(cuts="upstream").signature(rgb, frame.time)
        picture = rgb if rgb.dtype == np.uint8 else to_picture(to_tensor(rgb))
        if short_side and short_side < min(picture.shape[:2]):
            factor = short_side / min(picture.shape[:2])
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        yield ClipFrame(index, frame.time, picture, signature)


def obstacle(
    first: ClipFrame, second: ClipFrame, scene_threshold: float = CUT_SSIM, repeat_levels: float = REPEAT_LEVELS
) -> str:
    """Returns why no motion leads from one frame to the next: "change of size", "cut" or "repeat"; "" if motion does.

    Repeats are found at full size: on the thumbnails that inference_video.py compares, slow motion is one too.
    """
    if first.picture.shape != second.picture.shape:
        return "change of size"
    detector = TransitionDetector(scene_threshold, repeats="off", cuts="upstream")
    if detector.classify(detector.compare(first.signature, second.signature)) is Transition.CUT:
        return "cut"
    return "repeat" if cv2.absdiff(first.picture, second.picture).mean() < repeat_levels else ""


def timestep_of(triplet: FrameTriplet) -> Fraction:
    """Returns the timestep of the truth; 1/2 if only times that a container rounded separate it from the middle."""
    first, truth, last = triplet
    timestep = (truth.time - first.time) / (last.time - first.time)
    return HALF if abs(timestep - HALF) <= HALVING_TOLERANCE else timestep


def every_second(
    frames: Iterable[ClipFrame], left_out: list[dict[str, Any]], scene_threshold: float, repeat_levels: float
) -> Iterator[FrameTriplet]:
    """Yields every second frame between its neighbours; those beside an obstacle go to `left_out`, with the reason."""
    frames = iter(frames)
    first = next(frames, None)
    for truth, last in zip(frames, frames, strict=False):  # two at a time; a single one at the end has no neighbour
        assert first is not None
        pairs = (first, truth), (truth, last)
        why = next(filter(None, (obstacle(a, b, scene_threshold, repeat_levels) for a, b in pairs)), "")
        if why:
            left_out.append({"frame": truth.index, "time": round(float(truth.time), 6), "why": why})
        else:
            yield first, truth, last
        first = last


def find_obstacles(clip: Path) -> list[bool]:
    """Returns for each frame of a clip but the last whether an obstacle lies between it and the next frame."""
    found: list[bool] = []
    before: ClipFrame | None = None
    with closing(prefetch(open_frames(clip))) as frames:
        for frame in convert_frames(frames):
            if before is not None:
                found.append(bool(obstacle(before, frame)))
            before = frame
    return found


def spread_middles(obstacles: Sequence[bool], gap: int, count: int) -> list[int]:
    """Returns at most `count` frames, spread evenly over the clip, from which `gap` frames both ways are in motion."""
    blocked = np.concatenate(([0], np.cumsum(obstacles)))
    possible = [i for i in range(gap, len(blocked) - gap) if blocked[i + gap] == blocked[i - gap]]
    chosen = np.linspace(0, len(possible) - 1, min(count, len(possible))).round().astype(int)
    return [possible[i] for i in chosen]


def read_triplets(
    clip: Path, middles: Mapping[int, Collection[int]], short_side: int | None = None
) -> Iterator[tuple[int, FrameTriplet]]:
    """Yields the gap and the frames of each triplet, in the order of their last frames; `middles` by gap."""
    reach = 2 * max(middles) + 1
    recent: deque[ClipFrame] = deque(maxlen=reach)
    with closing(prefetch(open_frames(clip))) as frames:
        for frame in convert_frames(frames, short_side):
            recent.append(frame)
            for gap, wanted in middles.items():
                if frame.index - gap in wanted:
                    yield gap, (recent[-1 - 2 * gap], recent[-1 - gap], frame)
