"""Converts text subtitles that a container does not take as they are, to a format that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from video.containers import container_of

TEXT = ("srt", "subrip", "ass", "ssa", "mov_text", "webvtt", "text")  # FFmpeg's names of text subtitles
TIME_BASE = Fraction(1, 1000)  # seconds, of SubRip


@dataclass(frozen=True)
class SubtitleEncoder:
    """Holds FFmpeg's name of a format of text subtitles."""

    codec: str

    def add_to(self, output: OutputContainer) -> Any:
        """Adds a subtitle stream to a container and returns it; its encoder is opened by the first packet."""
        stream: Any = output.add_stream(self.codec)
        stream.codec_context.time_base = TIME_BASE
        return stream


def usable_format(stream: Stream, suffix: str) -> SubtitleEncoder | None:
    """Returns the format that a container takes for text subtitles; None for pictures, and where there is none."""
    if stream.codec_context is None or stream.codec_context.name not in TEXT:
        return None
    codec = container_of(suffix).subtitles
    return None if codec is None else SubtitleEncoder(codec)


class SubtitleConverter:
    """Decodes text subtitles and encodes them in the format of another stream. Italics and the like are kept."""

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target
        encoder = target.codec_context
        encoder.subtitle_header = ASS_HEADER
        encoder.open()

    def packets(self, packet: Packet | None) -> Iterator[Packet]:
        """Yields the packet of the new format for one of the source; None, and one without text, gives nothing."""
        if packet is None or packet.pts is None or not packet.time_base:
            return
        decoded = self._source.codec_context.decode2(packet)
        if decoded is None:
            return
        base = packet.time_base
        start, end = (round(t * base / TIME_BASE) for t in (packet.pts, packet.pts + (packet.duration or 0)))
        converted = self._target.codec_context.encode_subtitle(decoded)
        converted.time_base = TIME_BASE
        converted.pts = converted.dts = start
        converted.duration = end - start
        yield converted


# The styles that FFmpeg gives to decoded subtitles, as every encoder of text needs them.
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
