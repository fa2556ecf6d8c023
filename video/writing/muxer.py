"""Writes one container: its video stream and the tracks beside it, to a real file or to nothing."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from video.alpha import ALPHA_MODE
from video.containers import container_of
from video.losses import WRITE_ERRORS
from video.reading.pipe import OutputPipe
from video.safe_file import SafeFile
from video.writing.encoding import VideoSettings
from video.writing.mp4_duration import correct_duration
from video.writing.output import MP4, MemoryFile, NullFile, open_output
from video.writing.tracks import Tracks

SHORT = 2  # frames at most of which x265 gives decoding times that it has not computed; their order does not change


class CopiedVideo(NamedTuple):
    """Describes a video stream whose packets are copied from another file instead of being encoded."""

    template: VideoStream
    rate: Fraction  # frames/s, the average

    def add_to(self, output: OutputContainer) -> Any:
        """Adds the stream, with the header of the other, to a container and returns it."""
        stream: Any = output.add_stream_from_template(self.template, opaque=True)  # no encoder is opened
        stream.codec_context.framerate = self.rate
        stream.metadata.update({k: v for k, v in self.template.metadata.items() if k.lower() == ALPHA_MODE})
        return stream


class Muxer:
    """Encodes pictures into a container and writes the tracks in step with them.

    `options` are those of the container. `settings` of None makes an output without a picture. Raises what the library
    raises; where the file could not be written, its OSError.
    """

    def __init__(
        self,
        file: SafeFile | OutputPipe | NullFile | MemoryFile,
        settings: "VideoSettings | CopiedVideo | None",
        tracks: Tracks | None,
        options: dict[str, str] | None = None,
    ) -> None:
        self._file, self._tracks = file, tracks
        self._packets = 0
        self.last: tuple[Fraction, Fraction | None] | None = None  # seconds, time and duration of the last frame
        self._start: Fraction | None = None  # seconds, of the first picture
        self._end = Fraction(0)  # seconds, of the last
        self._first_dts: Fraction | None = None  # seconds
        self._suffix = Path(file.name).suffix.lower()
        self._is_mp4 = self._suffix in MP4
        self._encodes = isinstance(settings, VideoSettings)
        self._container = open_output(file, options)
        self.stream: Any = settings.add_to(self._container) if settings is not None else None
        if tracks is not None:
            tracks.attach(self._container, Path(file.name).suffix, self._mux)
        holders = self._container, *self._container.streams
        self.tags = [dict(holder.metadata) for holder in holders]  # that the output is to hold: of all, of each stream
        self._container.start_encoding()

    def encode(self, picture: av.VideoFrame | None) -> None:
        """Encodes one picture and writes what is complete; None flushes the encoder, if there is one."""
        packets = list(self.stream.encode(picture)) if self._encodes else []
        if self._start is None and picture is not None and picture.pts is not None and picture.time_base:
            self._start = picture.pts * picture.time_base
        if picture is None and not self._packets and len(packets) <= SHORT and self.stream.codec.name == "libx265":
            for packet in packets:
                packet.dts = packet.pts
        for packet in packets:
            self.write(packet, is_last=picture is None and packet is packets[-1])

    def write(self, packet: Packet, *, is_last: bool) -> None:
        """Writes one packet of the video, after what the tracks have up to its time; `is_last`: no other follows."""
        if self._tracks is not None and packet.dts is not None and packet.time_base:
            self._tracks.write_until(packet.dts * packet.time_base)
        self._follow(packet)
        if is_last and self._is_mp4:
            self._reach_end(packet)
        self._mux(packet)

    def _follow(self, packet: Packet) -> None:
        """Keeps the times at which the first picture starts and the last one ends, whose duration is set."""
        if packet.pts is not None and packet.time_base:
            start = packet.pts * packet.time_base
            if self._first_dts is None and packet.dts is not None:
                self._first_dts = packet.dts * packet.time_base
            if self.last is not None and self.last[1] is not None and start == self.last[0]:
                packet.duration = round(self.last[1] / packet.time_base)
            self._start = start if self._start is None else min(self._start, start)
            duration = packet.duration * packet.time_base if packet.duration else 1 / self.stream.average_rate
            self._end = max(self._end, start + duration)

    def _reach_end(self, packet: Packet) -> None:
        """Gives the packet that is decoded last the time up to the end: MP4 stores durations in the order of decoding.

        Where it is a B-frame, another frame is shown last.
        """
        if self.last is None or self._start is None or self._first_dts is None or packet.dts is None:
            return
        base = packet.time_base or 1 / Fraction(self.stream.average_rate)
        decoded = packet.dts * base - self._first_dts
        packet.duration = round((self._end - self._start - decoded) / base)

    def _mux(self, packet: Packet) -> None:
        try:
            self._container.mux(packet)
        except Exception:
            self._raise_disk_error()
            raise
        self._packets += 1

    def close(self) -> None:
        """Writes the trailer and closes the tracks; an output without a packet gets no trailer."""
        if not self._packets:
            self._file.close()  # FFmpeg crashes if it finishes an MP4 file in fragments without one
        try:
            self._container.close()
            if isinstance(self._file, SafeFile) and self._packets and self._start is not None:
                self._correct_file(self._file, self._start)
        except Exception:
            self._raise_disk_error()
            raise
        finally:
            if self._tracks is not None:
                self._tracks.close()

    def _correct_file(self, file: SafeFile, start: Fraction) -> None:
        """Sets the duration of the finished file, or of its last picture, where FFmpeg sets another one."""
        animation = container_of(self._suffix).animation
        if self._is_mp4:
            correct_duration(file, self._end - start)
        elif animation is not None and self.last is not None:
            time, duration = self.last
            animation.correct_length(file, time + (duration or 1 / Fraction(self.stream.average_rate)) - start)

    def abandon(self) -> None:
        """Flushes the encoder and writes the trailer as far as this is still possible."""
        if self._file.error is None and self.stream is not None:
            with suppress(*WRITE_ERRORS):
                self.encode(None)
        with suppress(*WRITE_ERRORS):
            self.close()

    def _raise_disk_error(self) -> None:
        """Raises the error of the file, which FFmpeg reports by a number of its own."""
        if self._file.error is not None:
            raise self._file.error from None
