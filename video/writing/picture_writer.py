"""Writes frames as numbered picture files in a folder."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from video.frame import Frame
from video.pictures.picture import MediaError, write_picture
from video.reading.reader import Source
from video.safe_file import check_folder, lock_folder, same_file
from video.writing.frame_writer import FrameWriter
from video.writing.lost_tags import describe_left_out

WRITTEN_SUFFIXES = (".png", ".exr")  # suffixes of the pictures that are written


class PictureWriter(FrameWriter):
    """Writes frames as folder/0000000.png, 0000001.png, ... as upstream's --png does, over what is there.

    Raises UserError if the folder cannot be written to, if another run writes there, or if a picture would replace one
    that is read.
    """

    def __init__(self, folder: Path, source: Source, inputs: tuple[Path, ...] = ()) -> None:
        self.path, self.rotation, self.frames = folder, source.rotation, 0
        self._stopped = False
        self._colour = source.pictures.colour if source.pictures is not None else b""
        self.notes: list[str] = describe_left_out(source, "pictures")
        self.errors: list[str] = []
        self.part = folder  # written picture by picture
        check_pictures(folder, (source.path, *inputs))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise MediaError(f"{folder}: cannot be made ({e.strerror}); choose another output folder") from e
        self._lock = lock_folder(folder)

    def write(self, frame: Frame) -> None:
        """Writes one frame under the next number."""
        rgb = upright(frame.rgb(), self.rotation)
        suffix = ".exr" if rgb.dtype.kind == "f" else ".png"
        write_picture(self.path / f"{self.frames:07d}{suffix}", rgb, colour=self._colour)
        self.frames += 1

    def finish(self) -> None:
        """Notes which pictures in the folder are not of this run."""
        self._end()
        stale = [p for p in self.path.glob("*.png") if p.stem.isdigit() and int(p.stem) >= self.frames]
        if stale:
            self.notes.append(f"{len(stale)} pictures of a longer earlier run are still there, from {min(stale)} on")

    def stop(self) -> None:
        """Notes how many pictures there are after an interruption or an error."""
        if self.frames and not self._stopped:
            self.notes.append(f"{self.frames} pictures were written until then, in {self.path}")
        self._end()

    def _end(self) -> None:
        """Ends the writing, and unlocks the folder."""
        self._stopped = True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def check_pictures(folder: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError if numbered pictures in a folder would replace an input, or if they cannot be written there."""
    for read in inputs:
        if same_file(folder, read) or (_is_numbered(read) and same_file(folder, read.parent)):
            raise MediaError(f"{folder}: pictures there would replace the input {read}; choose another folder")
    check_folder(folder)


def _is_numbered(path: Path) -> bool:
    """Returns whether a file has a name that this writer may give."""
    return path.stem.isdigit() and path.suffix in WRITTEN_SUFFIXES


def upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """Returns a picture (H,W,C) turned as a player would show it; rotation in degrees counter-clockwise."""
    return np.rot90(rgb, rotation // 90)
