"""Keeps the newest made frame, between its neighbours, as a picture file that is replaced during a run."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from commands.video_steps import PROGRAM
from model.errors import UserError
from video.frame import Frame
from video.pictures.picture import encode_picture
from video.safe_file import check_output, write_file
from video.writing.picture_writer import upright

PAUSE = 5.0  # seconds between two pictures at least
LARGEST_SHARE = 0.02  # of the time of the run that pictures may take: where one takes long, the next comes later
PREVIEW_WIDTH = 640  # px of one frame in the picture
PREVIEW_SUFFIXES = (".jpg", ".jpeg", ".png")
MARK = b"\nRIFE preview\n"  # after the end of the picture, where decoders stop: this file may be replaced


class Preview:
    """Writes a picture of three frames side by side: the one before a made frame, the made frame, the one after it."""

    def __init__(self, path: Path, rotation: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepares the preview; `rotation` of the source in degrees counter-clockwise, `clock()` in seconds."""
        self._path, self._rotation, self._clock = path, rotation, clock
        self._frames: deque[Frame] = deque(maxlen=3)
        self._next = clock()
        self._failed = False

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the output; writes a picture if it is time for one."""
        self._frames.append(frame)
        if self._failed or len(self._frames) < 3 or not self._frames[1].made or self._clock() < self._next:
            return
        start = self._clock()
        try:
            write_file(self._path, join(list(self._frames), self._rotation, self._path.suffix) + MARK)
        except UserError as e:  # the run must not end by it
            print(f"{PROGRAM}: {e}; the run continues without a preview", file=sys.stderr)
            self._failed = True
        end = self._clock()
        self._next = end + max(PAUSE, (end - start) / LARGEST_SHARE)


def check_preview(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raises UserError if a preview cannot be written as `path`, or would replace anything but a preview."""
    if path.suffix.lower() not in PREVIEW_SUFFIXES:
        raise UserError(f"{path}: a preview is a picture; give it a name that ends in {' or '.join(PREVIEW_SUFFIXES)}")
    check_output(path, inputs, overwrite=overwrite or _is_preview(path))


def _is_preview(path: Path) -> bool:
    try:
        return path.is_file() and path.read_bytes().endswith(MARK)
    except OSError:
        return False


def join(frames: Sequence[Frame], rotation: int, suffix: str) -> bytes:
    """Returns the frames side by side as an encoded picture of 8 bits a channel, each PREVIEW_WIDTH px wide at most."""
    return encode_picture(Path(f"preview{suffix}"), np.concatenate([_small(f, rotation) for f in frames], axis=1))


def _small(frame: Frame, rotation: int) -> np.ndarray:
    rgb = np.ascontiguousarray(upright(frame.rgb(), rotation)[..., :3])
    if rgb.dtype == np.uint16:
        rgb = (rgb >> 8).astype(np.uint8)
    elif rgb.dtype.kind == "f":
        rgb = (rgb.clip(0, 1) * 255).round().astype(np.uint8)
    height, width = rgb.shape[:2]
    if width <= PREVIEW_WIDTH:
        return rgb
    return cv2.resize(rgb, (PREVIEW_WIDTH, max(round(height * PREVIEW_WIDTH / width), 1)), interpolation=cv2.INTER_AREA)
