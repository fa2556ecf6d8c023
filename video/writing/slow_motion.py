"""Writes a few pictures as an animation: an animated GIF, or an H.264 video."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from video.frame import Frame
from video.pictures.picture import read_picture, with_channels
from video.reading.reader import Source
from video.writing.writer import VideoWriter


def write_animation(file: Path, pictures: list[Path], fps: Fraction, overwrite: bool) -> None:
    """Encodes picture files of one size at `fps` frames a second, in the format of the suffix: .gif or .mp4."""
    height, width = read_picture(pictures[0]).shape[:2]
    source = Source(pictures[0], (width, height), fps, len(pictures), 1 / fps, is_video=False)
    with VideoWriter(file, source, fps, 1 / fps, overwrite=overwrite) as writer:
        for i, path in enumerate(pictures):
            writer.write(Frame(eight_bit(read_picture(path)), i / fps))


def eight_bit(picture: np.ndarray) -> np.ndarray:
    """Converts (H,W,C) uint8 or uint16 to (H,W,3 or 4) uint8, rounded."""
    deep = picture.dtype == np.uint16
    picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8) if deep else picture
    return with_channels(picture, max(picture.shape[2], 3))
