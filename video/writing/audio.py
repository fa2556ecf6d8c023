"""Chooses an encoder for sound that a container cannot hold, and transcodes the sound."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from video.containers import container_of
from video.timing.speed import SpeedMap
from video.writing.tempo import Tempo

BITRATE = 160_000  # bits/s of two channels, upstream's for audio that cannot be copied
COPY, NONE = "copy", "none"
# What may be done with all sound, by the user's word, with FFmpeg's encoders.
AUDIO = {COPY: "", "aac": "aac", "opus": "libopus", "flac": "flac", NONE: ""}
# FFmpeg's default layouts for 1, 2, ... channels.
CHANNEL_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
SIDE = "(side)"  # end of the names of layouts with surround channels at the sides, as AC-3 has; AAC names none
UNNAMED_LAYOUT = re.compile(r"\d+ channels")  # FFmpeg's name of a layout of which only the number of channels is known


@dataclass(frozen=True)
class AudioEncoder:
    """Holds the name of an encoder with the sample rate in Hz and the channel layout that it gets."""

    codec: str
    rate: int
    layout: str

    def add_to(self, output: OutputContainer) -> Any:
        """Adds an opened audio stream to a container and returns it."""
        stream: Any = output.add_stream(self.codec, rate=self.rate, layout=self.layout)
        stream.bit_rate = BITRATE * max(stream.codec_context.layout.nb_channels, 2) // 2
        stream.codec_context.open()
        return stream


def usable_encoders(stream: AudioStream, suffix: str, audio: str = COPY) -> Iterator[AudioEncoder]:
    """Yields possible encoders for a track in a file with this suffix, best first; a trial decides which one works.

    `audio` is one of AUDIO; a name of an encoder allows this one only.
    """
    count = stream.codec_context.layout.nb_channels
    named = [] if UNNAMED_LAYOUT.fullmatch(stream.codec_context.layout.name) else [stream.codec_context.layout.name]
    usual = [CHANNEL_LAYOUTS[count - 1]] if 0 < count <= len(CHANNEL_LAYOUTS) else []
    for codec in (AUDIO[audio],) if AUDIO[audio] else container_of(suffix).sound:
        back = [name.removesuffix(SIDE) for name in named if codec == "aac"]
        layouts = dict.fromkeys([*back, *named, *usual, "stereo"])
        rate = _nearest_rate(codec, stream.codec_context.sample_rate or 48_000)
        for layout in layouts:
            yield AudioEncoder(codec, rate, layout)


def _nearest_rate(codec: str, rate: int) -> int:
    """Returns the lowest sample rate of an encoder that loses nothing, or its highest; in Hz."""
    rates = sorted(av.Codec(codec, "w").audio_rates or (rate,))
    return next((known for known in rates if known >= rate), rates[-1])


class Transcoder:
    """Decodes the packets of a track and encodes its sound for another stream."""

    def __init__(self, source: AudioStream, target: Any, speed: SpeedMap | None = None) -> None:
        """Prepares the encoding; `speed` maps source times to output times, None leaves them unchanged."""
        self._tempo = None if speed is None else Tempo(speed)
        self._source, self._target = source, target
        self._resampler: AudioResampler | None = None
        self._input: tuple[str, str, int] | None = None  # of the resampler
        context = source.codec_context
        count = context.layout.nb_channels
        if UNNAMED_LAYOUT.fullmatch(context.layout.name) and count <= len(CHANNEL_LAYOUTS) and not context.is_open:
            context.layout = CHANNEL_LAYOUTS[count - 1]

    def packets(self, packet: Packet | None) -> Iterator[Packet]:
        """Yields the encoded packets that one packet of the source completes; None flushes."""
        frames: list[Any] = list(self._source.codec_context.decode(packet))
        for frame in frames:
            yield from self._encoded([frame] if self._tempo is None else self._tempo.convert(frame))
        if packet is None:
            yield from self.flush()

    def _encoded(self, frames: Iterable[AudioFrame]) -> Iterator[Packet]:
        for frame in frames:
            for piece in self._resampled(frame):
                yield from self._target.encode(piece)

    def flush(self) -> Iterator[Packet]:
        """Yields what is left in the filters and in the encoder."""
        if self._tempo is not None:
            yield from self._encoded(self._tempo.flush())
        for piece in self._resampler.resample(None) if self._resampler else []:
            yield from self._target.encode(piece)
        yield from self._target.encode(None)

    def _resampled(self, frame: AudioFrame) -> list[AudioFrame]:
        """Converts a decoded frame for the encoder; the sound may change its kind in mid-stream."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        rest: list[AudioFrame] = []
        if frame.pts is not None and frame.time_base:  # AVI counts blocks: pieces of one would get the same time
            frame.pts = round(frame.pts * frame.time_base * frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)
        if kind != self._input:
            rest = self._resampler.resample(None) if self._resampler else []
            encoder = self._target.codec_context
            size = encoder.frame_size or None
            self._resampler = AudioResampler(encoder.format, encoder.layout, encoder.sample_rate, size)
            self._input = kind
        assert self._resampler is not None
        return [*rest, *self._resampler.resample(frame)]
