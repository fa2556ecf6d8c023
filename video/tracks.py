"""The other streams of the source file: audio, subtitles, attachments, chapters, metadata. Copied where the container
takes them, audio transcoded where it does not, and what had to be dropped is named."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from video.container import main_video, open_container, read_packets

AUDIO_BITRATE = 160_000  # bits/s a track, upstream's for audio that cannot be copied
OPUS_RATE = 48_000  # Hz, the rate that libopus takes always
WEBM = "webm"


@dataclass
class _Track:
    """One stream of the source and its counterpart in the output."""

    source: Stream
    target: Any  # an output stream of the same type
    resampler: AudioResampler | None = None  # if it is transcoded

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """The packets to write for one that was read; a packet of size 0 flushes an encoder."""
        if self.resampler is None:
            if packet.dts is not None:
                packet.stream = self.target
                yield packet
            return
        frames: list[Any] = list(packet.decode())
        flush = packet.size == 0
        for frame in [*frames, None] if flush else frames:
            for piece in self.resampler.resample(frame):
                yield from self.target.encode(piece)
        if flush:
            yield from self.target.encode(None)


class Tracks:
    """Carries the streams beside the video from a source file into an output, in step with the video.

    Opens the source a second time and only demuxes it, so that nothing is held in memory. `notes` says for the user
    what was transcoded and what was dropped.
    """

    def __init__(self, location: Path | str, output: OutputContainer, start: Fraction) -> None:
        self.notes: list[str] = []
        self._input = open_container(location)
        video = main_video(self._input)
        self._output = output
        self._start = start
        self._tracks: dict[int, _Track] = {}
        for stream in self._input.streams:
            if stream is not video:
                self._add(stream)
        output.metadata.update(self._input.metadata)
        chapters = self._input.chapters()
        if chapters and _holds_chapters(output):
            output.set_chapters(chapters)
        elif chapters:
            self.notes.append(f"{len(chapters)} chapters dropped: {output.format.name} holds none")
        followed = [track.source for track in self._tracks.values()]
        self._packets = read_packets(self._input, followed) if followed else iter(())
        self._waiting: Packet | None = None

    def _add(self, stream: Stream) -> None:
        name = _describe(stream)
        container = self._output.format.name
        if isinstance(stream, AttachmentStream):
            if "matroska" in container:
                self._output.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data or b"")
            else:
                self.notes.append(f"{name} dropped: {container} holds no attachments")
        elif _accepts(container, stream):
            target = self._output.add_stream_from_template(stream)
            _copy_labels(stream, target)
            self._tracks[stream.index] = _Track(stream, target)
        elif isinstance(stream, AudioStream) and stream.codec_context is not None:
            self._tracks[stream.index] = self._transcoded(stream)
            self.notes.append(f"{name} transcoded to {self._tracks[stream.index].target.codec_context.name}")
        else:
            self.notes.append(f"{name} dropped: {container} does not take it")

    def _transcoded(self, stream: AudioStream) -> _Track:
        opus = self._output.format.name == WEBM
        rate = OPUS_RATE if opus else stream.codec_context.sample_rate
        target = self._output.add_stream(
            "libopus" if opus else "aac", rate=rate, layout=stream.codec_context.layout.name
        )
        target.bit_rate = AUDIO_BITRATE
        _copy_labels(stream, target)
        target.codec_context.open()
        encoder = target.codec_context
        resampler = AudioResampler(encoder.format, encoder.layout, encoder.sample_rate, encoder.frame_size or None)
        return _Track(stream, target, resampler)

    def write_until(self, time: Fraction | None) -> None:
        """Writes what plays up to a time of the output, in seconds; all that is left if None."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if time is not None and _time(packet) - self._start > time:
                self._waiting = packet
                return
            self._write(packet)

    def _write(self, packet: Packet) -> None:
        track = self._tracks[packet.stream.index]
        if self._start and packet.time_base and track.resampler is None:
            shift = round(self._start / packet.time_base)
            if packet.pts is not None:
                packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
        for out in track.packets(packet):
            self._output.mux(out)

    def close(self) -> None:
        """Closes the source."""
        self._input.close()


def _time(packet: Packet) -> Fraction:
    """When a packet is due, in seconds on the source's clock; packets without a time are due at once."""
    return packet.dts * packet.time_base if packet.dts is not None and packet.time_base else Fraction(0)


def _describe(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else None
    language = stream.language if stream.language != "und" else None
    known = ", ".join(word for word in (codec, language) if word)
    return f"{stream.type} track {stream.index}" + (f" ({known})" if known else "")


def _copy_labels(source: Stream, target: Stream) -> None:
    target.metadata.update(source.metadata)
    target.disposition = source.disposition


def _accepts(container: str, stream: Stream) -> bool:
    """Whether the container takes the stream as it is, found by writing a header to memory.

    Some refusals (Opus in mov) come only with the header, hence the trial.
    """
    if stream.type not in ("audio", "subtitle") or stream.codec_context is None:
        return False
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def _holds_chapters(output: OutputContainer) -> bool:
    return any(name in output.format.name for name in ("matroska", "mp4", "mov", "webm", "ipod"))
