"""The streams of the source beside its picture, carried to the output: sound, subtitles, attachments, chapters, tags.

An error in one of them is counted as a loss of that track and never costs the picture.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from video.container import main_video, open_container, read_packets
from video.losses import LIBRARY_ERRORS, Losses, reason
from video.packet_clock import PacketClock
from video.reader import Source
from video.track import Track, TrackPlan

CHAPTERS = ("matroska", "mp4", "mov", "webm", "ipod")  # containers that hold them


class Tracks:
    """Carries the planned streams of a source file into an output, in step with its video.

    The source is opened a second time and only demuxed: nothing is held in memory.
    """

    def __init__(self, source: Source, plans: Sequence[TrackPlan]) -> None:
        self._plans, self._source = plans, source
        self._input = open_container(source.location)
        self._tracks: dict[int, Track] = {}
        self._clocks: dict[int, PacketClock] = {}
        self._packets: Iterator[Packet] = iter(())
        self._waiting: Packet | None = None
        self._end: str | None = None  # why the source could not be read to its end
        self._mux: Callable[[Packet], None]

    def attach(self, output: OutputContainer, suffix: str, mux: Callable[[Packet], None]) -> None:
        """Adds the streams, chapters and tags to an output whose header is not written; `mux` takes its packets."""
        self._mux = mux
        for plan in self._plans:
            stream = self._input.streams[plan.index]
            if isinstance(stream, AttachmentStream):
                output.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data or b"")
            else:
                self._tracks[plan.index] = Track(stream, plan, output, suffix)
        output.metadata.update(self._input.metadata)
        chapters = _shifted_chapters(self._input, self._source.start)
        if chapters and holds_chapters(output):
            output.set_chapters(chapters)  # type: ignore[arg-type]
        if self._tracks:
            video = main_video(self._input)  # its packets show how far the file has been read
            followed = [*(track.source for track in self._tracks.values()), *([video] if video else [])]
            self._clocks = {s.index: self._make_clock(s) for s in followed}
            self._packets = self._placed_packets(read_packets(self._input, followed))

    def _make_clock(self, stream: Stream) -> PacketClock:
        losses = self._tracks[stream.index].losses if stream.index in self._tracks else Losses("video")
        return PacketClock(self._source.start, self._source.shifts, losses, hold=stream.type == "audio")

    def _placed_packets(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Yields the packets that have data on the clock of the output, to the end, or until reading fails."""
        try:
            for packet in packets:
                if packet.size and (placed := self._clocks[packet.stream.index].place(packet)):
                    yield placed
        except LIBRARY_ERRORS as e:
            self._end = reason(e)
        for clock in self._clocks.values():
            if last := clock.place(None):
                yield last

    def write_until(self, time: Fraction) -> None:
        """Writes what plays up to a time of the output, in seconds."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.dts is not None and packet.time_base and packet.dts * packet.time_base > time:
                self._waiting = packet
                return
            self._write(packet)

    def write_start(self, shortest: Fraction, longest: Fraction) -> None:
        """Writes what plays up to a time in seconds, and on until every sound track has had a packet; for trials."""
        time = shortest
        while time <= longest:
            self.write_until(time)
            if all(track.was_read or track.source.type != "audio" for track in self._tracks.values()):
                break
            time += 1
        self._flush()

    def finish(self) -> None:
        """Writes all that is left, also what encoders hold back."""
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
        """The tracks of which more was lost than could be written."""
        return [track for track in self._tracks.values() if track.losses.count > track.written]

    @property
    def complaints(self) -> list[str]:
        """What was lost, for the user, a line a track."""
        lines = [str(track.losses) for track in self._tracks.values() if track.losses.count]
        return [*lines, f"sound and subtitles could not be read to their end ({self._end})"] if self._end else lines

    def close(self) -> None:
        """Closes the source and the trials of the tracks."""
        for track in self._tracks.values():
            track.close()
        self._input.close()


def holds_chapters(output: OutputContainer) -> bool:
    """Returns whether a container stores chapters."""
    return any(name in output.format.name for name in CHAPTERS)


def _shifted_chapters(source: InputContainer, start: Fraction) -> list[dict[str, Any]]:
    """Returns the chapters of a source on the clock of the output."""
    chapters: list[dict[str, Any]] = [dict(chapter) for chapter in source.chapters()]
    for chapter in chapters:
        shift = round(start / chapter["time_base"])
        chapter["start"], chapter["end"] = max(chapter["start"] - shift, 0), max(chapter["end"] - shift, 0)
    return chapters
