"""Writes one stream of the source beside its picture to the output; its errors are counted as losses."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from video.error_log import ErrorLog
from video.losses import LIBRARY_ERRORS, TrackLosses
from video.reading.container import is_encrypted
from video.timing.speed import SpeedMap
from video.writing.audio import AudioEncoder, Transcoder
from video.writing.output import MP4, NullFile, open_output
from video.writing.subtitle import SubtitleConverter, SubtitleEncoder

# MOV has numbers for languages, which FFmpeg finds by one of the two codes of ISO 639-2 (Swedish by a third one).
QUICKTIME_LANGUAGES = {
    **{"sqi": "alb", "hye": "arm", "eus": "baq", "mya": "bur", "zho": "chi", "cze": "ces", "nld": "dut", "fre": "fra"},
    **{"kat": "geo", "deu": "ger", "ell": "gre", "isl": "ice", "mkd": "mac", "msa": "may", "fas": "per", "rum": "ron"},
    **{"slo": "slk", "bod": "tib", "cym": "wel", "swe": "sve"},
}


@dataclass(frozen=True)
class TrackPlan:
    """Holds how one stream of the source is written: its packets are copied, or encoded anew."""

    index: int
    encoder: AudioEncoder | SubtitleEncoder | None = None


class Track:
    """Writes one stream of the source into `output`, a container for files with a suffix such as .mp4.

    Each packet is first written to a container of its own that keeps nothing: one that this container refuses is left
    out and counted. In the real output FFmpeg holds packets back for interleaving, and would report the error later,
    with another track's packet.
    """

    def __init__(
        self, source: Any, plan: TrackPlan, output: OutputContainer, suffix: str, speed: SpeedMap | None = None
    ) -> None:
        self.source = source
        self.losses = TrackLosses(describe_stream(source))
        self.written = 0  # packets
        self._decodes = False  # whether a packet could be decoded
        self.was_read = False  # whether the source had a packet
        self._suffix = suffix
        self._target: Any
        self._transcoder: Transcoder | SubtitleConverter | None = None
        self._trial_file = NullFile(suffix)
        if plan.encoder is None:
            self._target = output.add_stream_from_template(source)
            self._filter = _make_filter(source, suffix)
            self._start_trial()
        else:
            self._target = plan.encoder.add_to(output)
            if isinstance(plan.encoder, SubtitleEncoder):
                self._transcoder = SubtitleConverter(self.source, self._target)
            else:
                self._transcoder = Transcoder(self.source, self._target, speed)
        self._target.metadata.update(output_tags(source.metadata, suffix))
        self._target.disposition = source.disposition

    def packets(self, packet: Packet | None) -> Iterator[Packet]:
        """Yields what the output gets for one packet of the source; None flushes."""
        self.was_read |= packet is not None
        pieces: list[Packet] = []
        with self.losses.counted():
            if packet is not None and is_encrypted(packet):
                raise ValueError("encrypted")
            if self._transcoder is not None:
                pieces += self._transcoded(packet)
            else:
                self._check_sound(packet)
                pieces += self._copied(packet)
        for piece in pieces:
            piece.stream = self._target
            self.written += 1
            yield piece

    def _transcoded(self, packet: Packet | None) -> Iterator[Packet]:
        """Yields the encoded packets; errors that the decoder could conceal are counted too."""
        assert self._transcoder is not None
        with ErrorLog() as log:
            yield from self._transcoder.packets(packet)
        if log.messages:
            self.losses.add(log.messages[-1])

    def _check_sound(self, packet: Packet | None) -> None:
        """Raises ValueError for a packet of sound that cannot be decoded, while others could: it would be noise."""
        if packet is None or self.source.type != "audio":
            return
        with ErrorLog() as log, suppress(*LIBRARY_ERRORS):
            self._decodes |= bool(self.source.codec_context.decode(packet))
        if log.messages and self._decodes:
            raise ValueError(log.messages[-1])

    def _copied(self, packet: Packet | None) -> list[Packet]:
        """Returns a packet in the form that the container takes. Raises what the container refuses it with."""
        if packet is None:
            return []
        time_base = packet.time_base
        pieces = self._filter.filter(packet) if self._filter is not None else [packet]
        for piece in pieces:
            times = piece.pts, piece.dts, piece.duration, time_base
            piece.time_base = time_base
            piece.stream = self._trial_target
            try:
                self._trial.mux(piece)
            except LIBRARY_ERRORS:
                if not self.written:  # the container may have set itself up by this damaged packet
                    self._start_trial()
                raise
            piece.pts, piece.dts, piece.duration, piece.time_base = times
        return pieces

    def _start_trial(self) -> None:
        self.close()
        self._trial_file = NullFile(self._suffix)
        self._trial = open_output(self._trial_file)
        self._trial_target: Any = self._trial.add_stream_from_template(self.source)

    def close(self) -> None:
        """Ends the trial."""
        self._trial_file.close()


def output_tags(metadata: dict[str, str], suffix: str) -> dict[str, str]:
    """Returns the tags of a stream under the names and in the codes that an output with that suffix has.

    The name that FFmpeg reads from MP4 is its title.
    """
    tags = dict(metadata)
    if "name" in tags and "title" not in tags:
        tags["title"] = tags.pop("name")
    if suffix.lower() == ".mov" and "language" in tags:
        tags["language"] = QUICKTIME_LANGUAGES.get(tags["language"], tags["language"])
    return tags


def describe_stream(stream: Stream) -> str:
    """Returns the name of a stream for the user: type, index, codec and language."""
    codec = stream.codec_context.name if stream.codec_context is not None else None
    language = stream.language if stream.language != "und" else None
    known = ", ".join(word for word in (codec, language) if word)
    return f"{stream.type} track {stream.index}" + (f" ({known})" if known else "")


def _make_filter(stream: Any, suffix: str) -> BitStreamFilterContext | None:
    """Returns the filter that AAC of a transport stream needs in MP4; FFmpeg adds it itself to other containers."""
    needed = suffix.lower() in MP4 and stream.codec_context.name == "aac" and not stream.codec_context.extradata
    return BitStreamFilterContext("aac_adtstoasc", in_stream=stream) if needed else None
