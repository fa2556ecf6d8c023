"""Opens media files with FFmpeg, finds the video stream, and reads packets."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from video.pictures.picture import MediaError
from video.reading.pipe import InputPipe

Location = Path | str | InputPipe  # a file, a network address, or a pipe
VIDEO_SUFFIXES = (  # of the files in a folder that are videos
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".ivf", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
URL_MARK = "://"
NETWORK_TIMEOUT = 20.0  # seconds without an answer
PIPE_BUFFER = 1 << 18  # bytes


def open_container(location: Location, *, is_last: bool = False) -> InputContainer:
    """Opens a file, a network address given as a string, or a pipe for demuxing. Raises MediaError if FFmpeg cannot.

    After the opening that is the last, a pipe is not opened again.
    """
    try:
        if isinstance(location, InputPipe):
            return _open_pipe(location, is_last)
        is_url = isinstance(location, str) and URL_MARK in location
        # "file:" keeps FFmpeg from taking the part of a name before a colon for a protocol.
        name = str(location) if is_url else f"file:{location}"
        return av.open(name, metadata_errors="replace", timeout=NETWORK_TIMEOUT if is_url else None)
    except FFmpegError as e:
        raise MediaError(f"{location}: {_open_failure(location, e)}") from e


def _open_failure(location: Location, error: FFmpegError) -> str:
    """Returns why a location could not be opened, and what the user can do."""
    if isinstance(error, av.error.ExitError):  # raised at the end of the time limit
        return f"the server did not answer for {NETWORK_TIMEOUT:g} seconds; check the address and the connection"
    if isinstance(location, str) and not isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        return f"cannot be opened ({error.strerror}); check the address and the connection"
    return (
        f"not a video that FFmpeg can open, or cut off before its index was written ({error.strerror}); "
        "check that it plays, or convert it"
    )


def _open_pipe(pipe: InputPipe, is_last: bool) -> InputContainer:
    """Opens a pipe. Raises KeyboardInterrupt if reading was stopped."""
    reader, raw = pipe.open(is_last=is_last), pipe.raw
    try:
        if raw is None:
            return av.open(reader, "r", metadata_errors="replace", buffer_size=PIPE_BUFFER)
        return av.open(reader, "r", format="rawvideo", options=raw.options, buffer_size=PIPE_BUFFER)
    finally:
        if pipe.is_stopped():
            raise KeyboardInterrupt


def parse_location(text: str) -> Path | str:
    """Returns a network address (with ://) as it was written, which a Path would change, and a file name as a Path."""
    return text if URL_MARK in text else Path(text)


def location_path(location: Location) -> Path:
    """Returns the path of a file; of a network address or a pipe only a name."""
    if isinstance(location, str):
        return Path(Path(unquote(urlsplit(location).path)).name)
    return location if isinstance(location, Path) else Path(str(location))


def location_size(location: Location) -> int:
    """Returns the bytes of a file, or those that have come from a pipe; 0 for a network address."""
    if isinstance(location, InputPipe):
        return location.length
    return location.stat().st_size if isinstance(location, Path) else 0


def check_regular_file(path: Path) -> None:
    """Raises MediaError for anything but a file that can be read more than once, without blocking on a pipe."""
    try:
        if not path.exists():
            raise MediaError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise MediaError(f"{path}: a pipe or a device, which can be read only once; save it to a file first")
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({e.strerror}); check the path") from e


def main_video(container: InputContainer, number: int | None = None) -> VideoStream | None:
    """Returns the video stream with a number among all streams, or the one that is the picture if `number` is None.

    The picture moves rather than being a still; it has colour rather than being the grey of an alpha plane; it is the
    default rather than another; then FFmpeg's rating decides. None if no stream can be decoded but covers.
    """
    if number is not None:
        return next((s for s in container.streams.video if s.index == number and s.codec_context is not None), None)
    kinds = av.stream.Disposition
    best: Any = container.streams.best("video")

    def rank(stream: VideoStream) -> tuple[bool, ...]:
        grey = (stream.codec_context.pix_fmt or "").startswith("gray")
        moves = stream.frames != 1 and not stream.disposition & (kinds.timed_thumbnails | kinds.still_image)
        return moves, not grey, bool(stream.disposition & kinds.default), stream == best

    candidates = [s for s in container.streams.video if s.codec_context and not s.disposition & kinds.attached_pic]
    return max(candidates, key=rank, default=None)


def check_not_encrypted(location: Location, number: int) -> None:
    """Raises MediaError if the packets of a stream are encrypted: decoded, they would be noise."""
    with open_container(location) as container:
        packet = next((packet for packet in read_packets(container) if packet.stream.index == number), None)
        if packet is not None and is_encrypted(packet):
            raise MediaError(f"{location}: its picture is encrypted (DRM); give a file that is not")


def is_encrypted(packet: Packet) -> bool:
    """Returns whether a packet is encrypted, by any of the schemes of MP4; decoded, it would be noise."""
    return packet.has_sidedata("encryption_info")


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


def seek_to(container: InputContainer, stream: VideoStream, time: Fraction) -> None:
    """Moves reading to the last key frame at or before a time in seconds on the clock of the file."""
    assert stream.time_base is not None
    container.seek(round(time / stream.time_base), stream=stream)


def finds_key_frame(location: Location, number: int | None, time: Fraction) -> bool:
    """Returns whether `seek_to` leads exactly to the key frame of a stream at a time: not every format can."""
    with open_container(location) as container:
        stream = main_video(container, number)
        if stream is None or stream.time_base is None:
            return False
        try:
            seek_to(container, stream, time)
            packet = next((p for p in read_packets(container, [stream]) if p.size), None)
        except FFmpegError:
            return False
        return packet is not None and packet.is_keyframe and packet.pts == round(time / stream.time_base)


def start_time(container: InputContainer, first: Fraction | None) -> Fraction:
    """Returns the time in seconds on the container's clock that is 0 for frames: where its first stream starts.

    `first` is the stamp of the first frame. A stream without a container, such as .m2v, states no start: FFmpeg counts
    its decoding times from 0, so that its first frame may be late.
    """
    if container.start_time is None:
        return first or Fraction(0)
    start = max(Fraction(container.start_time, av.time_base), Fraction(0))
    return start if first is None else min(start, first)
