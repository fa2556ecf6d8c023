"""Opens media files with FFmpeg, finds the video stream, and reads packets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from video.picture import MediaError

URL_MARK = "://"
NETWORK_TIMEOUT = 20.0  # seconds without an answer


def open_container(location: Path | str) -> InputContainer:
    """Opens a file, or a network address given as a string, for demuxing. Raises MediaError if FFmpeg cannot."""
    is_url = isinstance(location, str) and URL_MARK in location
    # "file:" keeps FFmpeg from taking the part of a name before a colon for a protocol.
    name = str(location) if is_url else f"file:{location}"
    try:
        return av.open(name, metadata_errors="replace", timeout=NETWORK_TIMEOUT if is_url else None)
    except FFmpegError as e:
        raise MediaError(
            f"{location}: not a video that FFmpeg can open, or cut off before its index was written ({e.strerror}); "
            "check that it plays, or convert it"
        ) from e


def parse_location(text: str) -> Path | str:
    """Returns a network address (with ://) as it was written, which a Path would change, and a file name as a Path."""
    return text if URL_MARK in text else Path(text)


def check_regular_file(path: Path) -> None:
    """Raises MediaError for anything but a file that can be read more than once, without blocking on a pipe."""
    try:
        if not path.exists():
            raise MediaError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise MediaError(f"{path}: a pipe or a device, which can be read only once; save it to a file first")
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({e.strerror}); check the path") from e


def main_video(container: InputContainer) -> VideoStream | None:
    """Returns the video stream that FFmpeg rates best; None if there is none but covers and unknown codecs."""
    candidates = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & av.stream.Disposition.attached_pic
    ]
    best: Any = container.streams.best("video")
    return best if best in candidates else next(iter(candidates), None)


def read_packets(container: InputContainer, streams: Sequence[Stream] = ()) -> Iterator[Packet]:
    """Yields the packets of some streams, or of all that the file declares at its start; later ones are left out.

    Raises FFmpegError where the file cannot be read any further.
    """
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:  # raised by PyAV 18 at the end of a file in which streams appeared later
            return
        if packet is None:
            return
        yield packet
