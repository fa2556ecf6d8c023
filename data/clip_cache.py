"""Keeps decoded clips in files of NumPy: frames, and their runs without a cut or a repeat."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from data.textures import RgbPicture
from model.errors import UserError
from video.pictures.picture import MediaError
from video.reading.reader import open_frames
from video.safe_file import SafeFile
from video.transitions.scene import Transition, TransitionDetector

CACHE_SHORT_SIDE = 480  # px; clips are kept at this size at most
CACHE_FRAMES = 400  # of one clip at most
CACHE_NAME = 48  # characters of a clip's name in the cache


class CachedFrames(Sequence[RgbPicture]):
    """Reads the frames of a clip, (H,W,3) uint8 each, from a file of the cache one by one.

    Raises ValueError or OSError if the file does not hold them. Where another program cuts the file short afterwards, a
    frame raises UserError; with a file that is mapped into memory the system would end the process.
    """

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")  # checks the header and the size of the file
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.flags.c_contiguous:
            raise ValueError(f"{path}: holds no frames")
        self._path, self._count, self._shape = path, len(array), array.shape[1:]
        self._offset, self._size = array.offset, int(np.prod(self._shape))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, n: Any) -> Any:
        if not 0 <= n < self._count:
            raise IndexError(n)
        try:
            frame = np.fromfile(self._path, np.uint8, self._size, offset=self._offset + n * self._size)
        except OSError as e:
            raise UserError(f"{self._path}: cannot be read ({e.strerror}); start again, it is then made anew") from e
        if len(frame) < self._size:
            raise UserError(f"{self._path}: was cut short by another program; start again, it is then made anew")
        return frame.reshape(self._shape)


def ignore_line(line: str) -> None:
    """Ignores a line about a clip."""


def cached_clip(
    file: Path, cache: Path, report: Callable[[str], None] = ignore_line
) -> tuple[CachedFrames, np.ndarray]:
    """Returns the frames of a clip and its runs (R,2): first frame, last + 1.

    A clip that is not in the cache is decoded, and `report` is called with one line about it.
    """
    status = file.stat()  # another file of the same name is another clip
    name = f"{file.stem[:CACHE_NAME]}-{status.st_size:x}-{status.st_mtime_ns:x}"
    kept, runs = cache / f"{name}.npy", cache / f"{name}.runs.npy"
    with suppress(OSError, ValueError, EOFError, SyntaxError):  # no file yet, or a damaged one
        found = CachedFrames(kept), np.load(runs)
        if _fits(*found):
            return found
    frames = decode(file)
    limit = f", the first ones: no clip gives more than {CACHE_FRAMES}" if len(frames) == CACHE_FRAMES else ""
    report(f"{file.name}: {len(frames)} frames decoded into {cache}{limit}")
    _save(runs, find_runs(frames))
    _save(kept, frames)
    return CachedFrames(kept), np.load(runs)


def _fits(frames: CachedFrames, runs: np.ndarray) -> bool:
    """Returns whether an array of the cache holds runs of these frames."""
    bounds = [0, *runs.ravel(), len(frames)]
    return runs.dtype.kind == "i" and runs.ndim == 2 and runs.shape[1] == 2 and all(a <= b for a, b in pairwise(bounds))


def _save(path: Path, array: np.ndarray) -> None:
    """Writes an array completely or not at all; each process that fills the cache has its own temporary folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            with SafeFile(part) as file:
                np.save(file, array)
            part.replace(path)
    except OSError as e:
        raise UserError(
            f"{path.parent}: the cache cannot be written ({e.strerror or e}); choose another, or make room"
        ) from e


def decode(file: Path) -> np.ndarray:
    """Reads at most CACHE_FRAMES frames of a video, (N,H,W,3) uint8 RGB.

    Frames whose shorter side exceeds CACHE_SHORT_SIDE are reduced to it. Height and width are even.
    """
    source = open_frames(file)
    scale = min(1.0, CACHE_SHORT_SIDE / min(source.size))
    width, height = (max(round(side * scale / 2) * 2, 2) for side in source.size)
    pictures = []
    for frame in islice(source, CACHE_FRAMES):
        rgb = frame.rgb()
        picture = rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=1 / 257)
        pictures.append(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    if not pictures:
        raise MediaError(f"{file}: holds no frame")
    return np.stack(pictures)


def find_runs(frames: np.ndarray) -> np.ndarray:
    """Returns (R,2): the first frame, and the last + 1, of each run of frames without a cut or a repeat inside."""
    detector = TransitionDetector()
    signatures = [detector.signature(frame, Fraction(0)) for frame in frames]
    runs, start = [], 0
    for n, transition in enumerate(detector.transitions(signatures), 1):
        if transition is not Transition.MOTION:
            runs.append((start, n))
            start = n
    return np.array([*runs, (start, len(frames))])
