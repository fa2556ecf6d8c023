"""Copies the packets that one segment needs out of a source, for a machine that cannot read the source itself."""

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from segments.inspect import inspect_video
from video.losses import LIBRARY_ERRORS
from video.pictures.picture import MediaError
from video.reading.container import main_video, open_container, read_packets, seek_to
from video.reading.reader import Source
from video.reading.source_part import SourcePart

BEHIND = 2  # seconds of packets after the last frame that is read: the times of the last frames depend on the next ones


@dataclass(frozen=True)
class Excerpt:
    """Holds a video file with the packets of a part of a source at their times, or the whole source."""

    data: bytes
    suffix: str
    stream: int | None  # number of the picture among its streams


def cut_excerpt(source: Source, part: SourcePart, folder: Path) -> Excerpt:
    """Returns the video that a part is made from: the whole file if packets cannot be copied at exact times.

    `folder` is for a temporary file. Raises MediaError for a folder of pictures.
    """
    if not source.is_video:
        raise MediaError(f"{source.path}: a folder of pictures, which every machine must be able to read")
    whole = source.path
    path = folder / f"trial-{os.getpid()}{whole.suffix}"
    try:
        copied = _copy_packets(source, part, path)
        found = inspect_video(path)
        if [time * found.time_base for time in found.times] == sorted(copied):
            return Excerpt(path.read_bytes(), whole.suffix, 0)
    except LIBRARY_ERRORS:  # a container that cannot be written, or not from the middle
        pass
    finally:
        path.unlink(missing_ok=True)
    return Excerpt(whole.read_bytes(), whole.suffix, source.stream)


def _copy_packets(source: Source, part: SourcePart, path: Path) -> list[Fraction]:
    """Copies the packets of a part; returns the times of their frames in seconds, in order of decoding."""
    last = None if part.last is None else part.last + source.start + BEHIND
    times = []
    with open_container(source.location) as container, av.open(str(path), "w") as output:
        stream = main_video(container, source.stream)
        assert stream is not None
        copied = output.add_stream_from_template(stream, opaque=True)
        if part.key is not None:
            seek_to(container, stream, part.key + source.start)
        for packet in read_packets(container, [stream]):
            base = packet.time_base or Fraction(1)
            if not packet.size or packet.pts is None:
                continue
            if last is not None and packet.dts is not None and packet.dts * base > last:
                break
            times.append(packet.pts * base)
            packet.stream = copied
            output.mux(packet)
    return times
