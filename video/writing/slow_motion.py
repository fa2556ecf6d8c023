"""Writes a few pictures as an animation: an animated GIF, or an H.264 video."""

from fractions import Fraction
from pathlib import Path

from video.frame import Frame
from video.pictures.picture import eight_bit, read_picture
from video.reading.reader import Source
from video.writing.writer import VideoWriter


def write_animation(file: Path, pictures: list[Path], fps: Fraction, overwrite: bool) -> None:
    """Encodes picture files of one size at `fps` frames a second, in the format of the suffix: .gif or .mp4."""
    height, width = read_picture(pictures[0]).shape[:2]
    source = Source(pictures[0], (width, height), fps, len(pictures), 1 / fps, is_video=False)
    with VideoWriter(file, source, fps, 1 / fps, overwrite=overwrite) as writer:
        for i, path in enumerate(pictures):
            writer.write(Frame(eight_bit(read_picture(path)), i / fps))
