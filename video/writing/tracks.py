"""Carries the streams of the source beside its picture to the output: sound, subtitles, attachments, chapters, tags.

An error in one of them is counted as a loss of that track and never costs the picture.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from video.losses import LIBRARY_ERRORS, TrackLosses, reason
from video.reading.container import main_video, open_container, read_packets
from video.reading.reader import Source
from video.timing.timecode import TIMECODE, converted_timecode
from video.writing.avi_sound import find_wrong_rates, one_after_the_other
from video.writing.packet_clock import PacketClock
from video.writing.track import Track, TrackPlan, output_tags

AFTER_END = 5  # seconds after the end of the span until which packets of sound may still belong to it
# Tags of the picture's track that are true of the output too; MP4 and MOV write a track of timecode from its tag.
PICTURE_TAGS = ("language", "title", "handler_name", "timecode", "stereo_mode")
FASTEST_TIMECODE = 255  # frames/s of a track of timecode in MP4 and MOV
BRANDS = ("major_brand", "minor_version", "compatible_brands")
CHAPTERS = ("matroska", "mp4", "mov", "webm", "ipod")  # containers that hold them


class Tracks:
    """Carries the planned streams of a source file into an output, in step with its video.

    The source is opened a second time and only demuxed: nothing is held in memory.
    """

    def __init__(self, source: Source, plans: Sequence[TrackPlan]) -> None:
        self._plans, self._source = plans, source
        self._input: InputContainer | None = open_container(source.location)
        self._tracks: dict[int, Track] = {}
        self._clocks: dict[int, PacketClock] = {}
        self._packets: Iterator[Packet] = iter(())
        self._waiting: Packet | None = None
        self._is_changed = source.is_trimmed or source.length is not None or source.speed is not None
        self._end: str | None = None  # why the source could not be read to its end
        self._mux: Callable[[Packet], None]

    def attach(self, output: OutputContainer, suffix: str, mux: Callable[[Packet], None]) -> None:
        """Adds the streams, chapters and tags to an output whose header is not written; `mux` takes its packets."""
        self._mux = mux
        assert self._input is not None
        container = self._input
        for plan in self._plans:
            stream = container.streams[plan.index]
            if isinstance(stream, AttachmentStream):
                output.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data or b"")
            else:
                self._tracks[plan.index] = Track(stream, plan, output, suffix, self._source.speed)
        output.metadata.update(self._file_tags(container, output))
        picture = main_video(container, self._source.stream)
        if output.streams.video and picture is not None:
            target = output.streams.video[0]
            tags = self._at_output_rate(output_tags(picture.metadata, suffix), output)
            target.metadata.update({k: v for k, v in tags.items() if k.lower() in PICTURE_TAGS})
            target.disposition = picture.disposition
            if output.format.name == "avi":  # which holds the timecode among the tags of the file
                output.metadata.update({k: v for k, v in tags.items() if k.lower() == TIMECODE})
        chapters = _shifted_chapters(container, self._source)
        if chapters and holds_chapters(output):
            output.set_chapters(chapters)  # type: ignore[arg-type]
        if self._tracks:
            # The packets of the picture show how far the file has been read.
            followed = [*(track.source for track in self._tracks.values()), *([picture] if picture else [])]
            self._clocks = {s.index: self._make_clock(s) for s in followed}
            wrong = find_wrong_rates(self._source.location, container)
            packets = one_after_the_other(read_packets(container, followed), wrong)
            self._packets = self._placed_packets(packets)
        else:
            self._close_input()  # a pipe would hold all its bytes for it

    def _file_tags(self, container: InputContainer, output: OutputContainer) -> dict[str, str]:
        """Returns the tags of the file without those that are true of its container alone."""
        tags = {key: value for key, value in container.metadata.items() if key.lower() not in BRANDS}
        return self._at_output_rate(tags, output)

    def _at_output_rate(self, tags: dict[str, str], output: OutputContainer) -> dict[str, str]:
        """Returns tags with the timecode of the first frame of the output; without one that it cannot hold."""
        key = next((key for key in tags if key.lower() == TIMECODE), None)
        if key is None or not output.streams.video:
            return tags
        rest = {name: value for name, value in tags.items() if name != key}
        source, rate = self._source, Fraction(output.streams.video[0].codec_context.framerate or 0)
        if not rate or (round(rate) > FASTEST_TIMECODE and {*output.format.name.split(",")} & {"mp4", "mov"}):
            return rest
        skipped = ceil(-source.first * source.rate) if source.is_trimmed else 0
        timecode = converted_timecode(tags[key], source.rate, rate, max(skipped, 0))
        return rest if timecode is None else {**rest, key: timecode}

    def _make_clock(self, stream: Stream) -> PacketClock:
        losses = self._tracks[stream.index].losses if stream.index in self._tracks else TrackLosses("video")
        return PacketClock(self._source.start, self._source.shifts, losses, hold=stream.type == "audio")

    def _placed_packets(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Yields the packets that have data on the clock of the output, to the end, or until reading fails."""
        try:
            for packet in packets:
                if not packet.size or not (placed := self._clocks[packet.stream.index].place(packet)):
                    continue
                if self._is_behind(placed):
                    return
                if self._cut_to_span(placed):
                    yield placed
        except LIBRARY_ERRORS as e:
            self._end = reason(e)
        for clock in self._clocks.values():
            if (last := clock.place(None)) and self._cut_to_span(last):
                yield last

    def _is_behind(self, packet: Packet) -> bool:
        """Returns whether reading may end: a packet of the video comes well after the end of the span."""
        length = self._source.length
        if length is None or packet.dts is None or packet.stream.type != "video":
            return False
        return packet.dts * (packet.time_base or 0) > length + AFTER_END

    def _cut_to_span(self, packet: Packet) -> bool:
        """Returns whether a packet plays within the span of the source that is used; cuts subtitles to it."""
        source, base = self._source, packet.time_base or Fraction(1)
        if packet.pts is None or packet.stream.type == "video":
            return True
        start, end = packet.pts * base, (packet.pts + (packet.duration or 0)) * base
        if source.length is not None and start >= source.length:
            return False
        is_sound, is_open = packet.stream.type == "audio", not packet.duration  # open: a picture until the next one
        if (is_sound or is_open) and source.is_trimmed and start < 0:
            return False
        if self._is_changed and not is_sound:
            first, last = source.output_time(start), source.output_time(end)
            packet.pts = packet.dts = round(first / base)
            packet.duration = round((last - first) / base)
        return is_sound or is_open or bool(packet.duration)

    def write_until(self, time: Fraction) -> None:
        """Writes what plays up to a time of the output, in seconds."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if self._output_time(packet) > time:
                self._waiting = packet
                return
            self._write(packet)

    def _output_time(self, packet: Packet) -> Fraction:
        """Returns when a packet is decoded, in seconds of the output; 0 if it has no stamp."""
        if packet.dts is None or packet.time_base is None:
            return Fraction(0)
        time, speed = packet.dts * packet.time_base, self._source.speed
        return time if speed is None or packet.stream.type == "subtitle" else speed.output_time(time)

    def write_start(self, shortest: Fraction, longest: Fraction) -> None:
        """Writes what plays up to a time in seconds, or later until every sound track has a packet; for trials."""
        time = shortest
        while time <= longest:
            self.write_until(time)
            if all(track.was_read or track.source.type != "audio" for track in self._tracks.values()):
                break
            time += 1
        self._flush()

    def finish(self) -> None:
        """Writes all remaining packets and flushes the encoders."""
        packet = self._waiting or next(self._packets, None)
        while packet is not None:
            self._write(packet)
            packet = next(self._packets, None)
        self._flush()

    def _flush(self) -> None:
        for track in self._tracks.values():
            self._write_pieces(track, None)

    def _write(self, packet: Packet) -> None:
        track = self._tracks.get(packet.stream.index)
        if track is not None:  # it is not the video
            self._write_pieces(track, packet)

    def _write_pieces(self, track: Track, packet: Packet | None) -> None:
        for piece in track.packets(packet):
            with track.losses.counted():
                self._mux(piece)

    @property
    def lost(self) -> list[Track]:
        """Returns the tracks of which more was lost than could be written."""
        return [track for track in self._tracks.values() if track.losses.count > track.written]

    @property
    def errors(self) -> list[str]:
        """Returns what was lost, for the user, a line for each track."""
        lines = [str(track.losses) for track in self._tracks.values() if track.losses.count]
        return [*lines, f"sound and subtitles could not be read to their end ({self._end})"] if self._end else lines

    def close(self) -> None:
        """Closes the source and the trials of the tracks."""
        for track in self._tracks.values():
            track.close()
        # Both refer to this object: it would keep the source open, and the bytes that a pipe holds for it.
        self._packets, self._mux = iter(()), lambda packet: None
        self._close_input()

    def _close_input(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None


def holds_chapters(output: OutputContainer) -> bool:
    """Returns whether a container stores chapters."""
    return any(name in output.format.name for name in CHAPTERS)


def _shifted_chapters(container: InputContainer, source: Source) -> list[dict[str, Any]]:
    """Returns the chapters of a source on the clock of the output."""
    chapters: list[dict[str, Any]] = [dict(chapter) for chapter in container.chapters()]
    for chapter in chapters:
        for edge in ("start", "end"):
            time = source.output_time(chapter[edge] * chapter["time_base"] - source.start)
            chapter[edge] = round(max(time, Fraction(0)) / chapter["time_base"])
    return [chapter for chapter in chapters if chapter["end"] > chapter["start"] or not source.is_trimmed]
