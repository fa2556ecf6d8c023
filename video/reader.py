"""Frames of a video or of a folder of pictures, in order, each with its exact time; with size, rate and colour."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from video.frame import Colour, Frame
from video.picture import MediaError, list_pictures, read_picture

PLAUSIBLE_RATE = 300  # frames/s; containers that time in milliseconds report 1000 when they do not know
RATE_SAMPLE = 100  # packets looked at to find a rate that the container does not tell
CUT_OFF = Fraction(1, 2)  # seconds that may be missing at the end before a file counts as cut off


@dataclass
class Source:
    """What is known of the input before the first frame is read, and of its damage after the last."""

    path: Path
    size: tuple[int, int]  # width, height as stored, before any rotation
    rate: Fraction  # frames/s, the average if it varies
    count: int | None  # frames, if the container tells
    time_base: Fraction  # every frame's time is a multiple of it
    is_video: bool
    colour: Colour | None = None  # of a video
    pix_fmt: str = "rgb24"
    rotation: int = 0  # degrees counter-clockwise that a player turns it by: a multiple of 90
    display_matrix: tuple[int, ...] | None = None
    aspect: Fraction | None = None  # of a pixel
    start: Fraction = Fraction(0)  # seconds on the container's clock where its first stream starts
    complaints: list[str] = field(default_factory=list)  # damage found while reading, for the user

    def __iter__(self) -> Iterator[Frame]:
        return _decode(self) if self.is_video else _read_folder(self)


def open_frames(path: Path | str, rate: Fraction = Fraction(24)) -> Source:
    """A video file, or a folder of pictures that play at `rate`. MediaError says what is wrong with it."""
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, rate)
    if not path.exists():
        raise MediaError(f"{path}: no such file; check the path")
    with open_container(path) as container:
        return _probe(path, container)


def open_container(path: Path) -> InputContainer:
    """The file for demuxing; MediaError if FFmpeg cannot open it."""
    try:
        return av.open(str(path), metadata_errors="replace")
    except FFmpegError as e:
        raise MediaError(
            f"{path}: not a video that FFmpeg can open, or cut off before its index was written ({e.strerror}); "
            "check that it plays, or convert it"
        ) from e


def main_video(container: InputContainer) -> VideoStream | None:
    """The video stream that FFmpeg takes for the best; None if there is none but a cover picture."""
    stream: Any = container.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        return None
    return stream


def _probe(path: Path, container: InputContainer) -> Source:
    stream = main_video(container)
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise MediaError(f"{path}: no video stream (it holds: {kinds}); give a file with pictures")
    source = Source(
        path=path,
        size=(stream.width, stream.height),
        rate=Fraction(1),
        count=stream.frames or None,
        time_base=stream.time_base or Fraction(1, 90000),
        is_video=True,
        aspect=stream.sample_aspect_ratio or None,
        start=max(Fraction(container.start_time or 0, av.time_base), Fraction(0)),
    )
    first = list(islice(_pictures(source, container, stream), 2))
    if len(first) < 2:
        found = "only one frame" if first else "not one frame could be decoded"
        raise MediaError(f"{path}: {found}; interpolation needs two or more")
    source.complaints.clear()  # they come again when the file is read in earnest
    picture = first[0]
    source.size = picture.width, picture.height
    source.colour = Colour.of(picture)
    source.pix_fmt = picture.format.name
    source.rotation = picture.rotation % 360
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        source.display_matrix = tuple(np.frombuffer(memoryview(matrix), np.int32).tolist())
    source.rate = _rate(path, stream)
    if source.count is None and container.duration:
        source.count = round(Fraction(container.duration, av.time_base) * source.rate)
    return source


def _rate(path: Path, stream: VideoStream) -> Fraction:
    """Frames/s: the container's average, or where that is not plausible the one of the first packets."""
    average = stream.average_rate
    if average and average <= PLAUSIBLE_RATE:
        return average
    with open_container(path) as container:
        packets = container.demux(container.streams[stream.index])
        times = sorted(p.pts for p in islice(packets, RATE_SAMPLE) if p.pts is not None)
    if len(times) < 2 or times[-1] == times[0] or not stream.time_base:
        return stream.guessed_rate or Fraction(25)
    return ((len(times) - 1) / ((times[-1] - times[0]) * stream.time_base)).limit_denominator(1001)


def _decode(source: Source) -> Iterator[Frame]:
    """Frames with rising times. Damage is skipped and told in source.complaints, never fatal once frames were seen."""
    with open_container(source.path) as container:
        stream = main_video(container)
        if stream is None:
            raise MediaError(f"{source.path}: its video stream is gone; was the file replaced?")
        previous = None
        disordered = 0
        for picture in _pictures(source, container, stream):
            stamp = picture.pts if picture.pts is not None else picture.dts
            if stamp is not None and picture.time_base:
                time = stamp * picture.time_base - source.start
            else:
                time = Fraction(0) if previous is None else previous + 1 / source.rate
            if previous is not None and time <= previous:
                disordered += 1
                continue
            previous = time
            yield Frame(picture, time, source.colour)
        if disordered:
            source.complaints.append(f"{disordered} frames whose time does not rise were left out")


def _pictures(source: Source, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Every picture that can be decoded; what cannot goes to source.complaints."""
    stream.thread_type = "AUTO"
    damaged, packets, end = 0, 0, Fraction(0)
    packet_iterator = container.demux()
    while True:
        try:
            packet = next(packet_iterator, None)
        except FFmpegError as e:
            source.complaints.append(f"reading stopped at {float(end):.2f} s: {e.strerror}")
            break
        if packet is None:
            break
        if packet.pts is not None and packet.time_base:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream is not stream:
            continue
        packets += packet.size > 0
        try:
            pictures: list[Any] = list(packet.decode())
        except EOFError:  # the decoder had been flushed before
            continue
        except FFmpegError:
            damaged += 1
            continue
        for picture in pictures:
            damaged += picture.is_corrupt
            yield picture
    if damaged:
        source.complaints.append(f"{damaged} damaged frames")
    _notice_cut(source, container, stream, packets, end)


def _notice_cut(source: Source, container: InputContainer, stream: VideoStream, packets: int, end: Fraction) -> None:
    expected = Fraction(container.duration or 0, av.time_base) + source.start
    by_index = container.format.name.startswith("mov") and packets < stream.frames
    if by_index:
        source.complaints.append(f"cut off: {packets} of {stream.frames} frames are in the file")
    elif expected - end > CUT_OFF:
        source.complaints.append(f"cut off: ends at {float(end):.2f} s of {float(expected):.2f} s")


def _open_folder(path: Path, rate: Fraction) -> Source:
    pictures = list_pictures(path)
    if len(pictures) < 2:
        raise MediaError(f"{path}: {len(pictures)} pictures; interpolation needs two or more in the folder")
    height, width = read_picture(pictures[0]).shape[:2]
    return Source(path, (width, height), rate, len(pictures), 1 / rate, is_video=False)


def _read_folder(source: Source) -> Iterator[Frame]:
    for i, path in enumerate(list_pictures(source.path)):
        picture = read_picture(path)
        height, width, channels = picture.shape
        if (width, height) != source.size:
            first = f"{source.size[0]}x{source.size[1]}"
            raise MediaError(f"{path}: {width}x{height}, the pictures before it {first}; bring them to one size")
        rgb = np.repeat(picture, 3, axis=2) if channels == 1 else picture
        yield Frame(rgb, i / source.rate)
