"""Decodes the video stream of a container and counts its damage."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from video.alpha import alpha_decoder
from video.error_log import ErrorLog
from video.reading.clock import Stamped
from video.reading.container import Location, is_encrypted, location_size, read_packets
from video.reading.matroska import is_whole

CUT_OFF = Fraction(1, 2)  # seconds that may be missing at the end before a file counts as cut off
STATING_FORMATS = ("mov", "matroska", "asf", "flv")  # FFmpeg's names of formats whose header states the duration
# FFmpeg's decoders of MPEG-1 and MPEG-2 pass over data without a picture, and log nothing.
MPEG, PICTURE_START, SEQUENCE_END = ("mpeg1video", "mpeg2video"), b"\0\0\1\0", b"\0\0\1\xb7"
Y4M = "yuv4mpegpipe"  # the format whose last frame FFmpeg leaves out without a message if it is not whole


class Decoder:
    """Decodes one video stream from the start to the end of its container.

    With one thread: frame threads of FFmpeg conceal damage differently, and PyAV loses the frames that follow an error
    while the decoder is drained, more of them the more threads there are.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.packets = 0  # of the video stream, read
        self.damaged: set[int | None] = set()  # stamps of the packets and pictures with an error
        self.end = Fraction(0)  # seconds, the latest end of a packet of any stream
        self.rest = 0  # bytes from the start of the file to the end of the last packet of the video stream
        self.hole = (0, 0)  # bytes, the longest stretch between two packets of the video stream: its length, its start
        self.starts: dict[int, int] = {}  # bytes, where the first packet of each stream is, by its number
        self._container, self._stream = container, stream
        self.messages: list[tuple[Fraction, str]] = []  # of the demuxer, with the value of `end` at that moment
        self._stopped = ""
        self._begun = False  # a picture has been decoded
        self._codec = alpha_decoder(stream)
        self._codec.thread_count = 1
        self._codec.thread_type = "NONE"

    def pictures(self, start: Fraction = Fraction(0)) -> Iterator[Stamped]:
        """Yields every picture that can be decoded, in the order of display, with its stamps relative to `start`."""
        for packet in self.video_packets():
            yield from self._stamped(self._decode(packet), start)
        yield from self._stamped(self._decode(None), start)

    def video_packets(self) -> Iterator[Packet]:
        """Yields the packets of the video stream without decoding them; follows what the file holds."""
        for packet in self._read():
            if packet.size:
                self.starts.setdefault(packet.stream.id, packet.pos or 0)
            if packet.pts is not None and packet.time_base:
                self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            # An empty packet means a repeated frame or the end; the decoder takes every one for the end.
            if packet.stream.index == self._stream.index and packet.size:
                self.packets += 1
                position = packet.pos or 0
                if self.rest:
                    self.hole = max(self.hole, (position - self.rest, self.rest))
                self.rest = position + packet.size
                yield packet

    def streams_before(self, offset: int) -> set[int]:
        """Returns the numbers of the streams that began before an offset in bytes."""
        return {number for number, start in self.starts.items() if start < offset}

    def limit_damage(self, outside: Callable[[Fraction], bool]) -> None:
        """Leaves out the damage at the times, in seconds on the clock of the file, for which `outside` is true."""
        base = self._stream.time_base or Fraction(1, 90000)
        self.messages = [(time, message) for time, message in self.messages if not outside(time)]
        self.damaged = {stamp for stamp in self.damaged if stamp is None or not outside(stamp * base)}

    @property
    def aspect(self) -> Fraction | None:
        """Returns width to height of a pixel, as the last decoded picture states it; None if it states none."""
        return self._codec.sample_aspect_ratio or None

    def file_end(self, start: Fraction) -> Fraction | None:
        """Returns when the file ends by its header, in seconds after `start`; None if its format does not state it.

        Of other formats FFmpeg takes the duration from the last time stamps, which may be wrong themselves.
        """
        container = self._container
        if not container.duration or not container.format.name.startswith(STATING_FORMATS):
            return None
        return Fraction(max(container.start_time or 0, 0) + container.duration, av.time_base) - start

    def missing_end(self, location: Location) -> list[str]:
        """Returns an error line if the file, read to its end, ends too early.

        That is before the end that its header states or, in Y4M, within a frame. `location` is what was opened.
        """
        container = self._container
        if container.format.name == Y4M and (rest := location_size(location) - self.rest) > 0:
            return [f"cut off: the file has only {rest} bytes of its last frame, which is left out"]
        expected = Fraction(container.duration or 0, av.time_base)  # some containers add the start, some do not
        # without the frames that an edit list leaves out
        stated = len(self._stream.index_entries) if self._stream.frames else 0
        if container.format.name.startswith("mov") and self.packets < stated:
            return [f"cut off: {self.packets} of {stated} frames are in the file"]
        if expected - self.end > CUT_OFF and not is_whole(location):  # else its last frame is shown for long
            return [f"cut off: ends at {float(self.end):.2f} s of {float(expected):.2f} s"]
        return []

    def errors(self) -> list[str]:
        """Returns what was lost, for the user."""
        found = [self._stopped] if self._stopped else []
        if self.damaged:
            found.append(f"{len(self.damaged)} damaged frames")
        if self.messages:
            found.append(f"{len(self.messages)} errors in the container, first: {self.messages[0][1]}")
        return found

    def _read(self) -> Iterator[Packet]:
        packets = read_packets(self._container)
        while True:
            try:
                with ErrorLog() as log:
                    packet = next(packets, None)
            except FFmpegError as e:
                self._stopped = f"reading stopped at {float(self.end):.2f} s: {e.strerror}"
                return
            self.messages += [(self.end, message) for message in log.messages]
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        failed, pictures = False, []
        if packet is not None and is_encrypted(packet):  # after a start that is not
            self.damaged.add(packet.pts)
            return []
        with ErrorLog() as log:
            try:
                pictures = self._codec.decode(packet)
            except FFmpegError:
                failed = True
        if failed or log.messages or self._holds_no_picture(packet):
            self.damaged.add(None if packet is None else packet.pts)
        self._begun = self._begun or bool(pictures)
        self.damaged.update(picture.pts for picture in pictures if picture.is_corrupt)
        return pictures

    def _holds_no_picture(self, packet: Packet | None) -> bool:
        """Returns whether a packet of MPEG-1 or MPEG-2 is damaged so that no picture begins in it.

        Before the first picture, a recording may begin in the middle of one.
        """
        if packet is None or not self._begun or self._codec.name not in MPEG:
            return False
        data = bytes(packet)
        return PICTURE_START not in data and not data.startswith(SEQUENCE_END)

    def _stamped(self, pictures: list[av.VideoFrame], start: Fraction) -> Iterator[Stamped]:
        base = self._stream.time_base or Fraction(1, 90000)
        for picture in pictures:
            pts, dts = (None if t is None else t * base - start for t in (picture.pts, picture.dts))
            yield Stamped(picture, pts, dts)
