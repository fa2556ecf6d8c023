"""Decodes transport streams that were joined: a later part may have a video stream of its own.

FFmpeg shows such a stream beside the first one, or not at all if it begins after the part of the file that it examines.
"""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError

from video.reading.clock import Stamped
from video.reading.container import Location, read_packets
from video.reading.decoder import Decoder

HOLE = 1 << 14  # bytes between two packets of a stream from which on a part may be hidden there
JOINABLE_FORMAT = "mpegts"  # the format in which files can be joined byte by byte


class JoinedDecoder:
    """Decodes the video stream of a container and, if it is a transport stream, those of the parts joined to it.

    A part is what follows the last packet of the video stream before it, if it has a video stream with a number (PID)
    that did not occur until there.
    """

    def __init__(self, location: Location, container: InputContainer, first: Decoder) -> None:
        self.first = first
        self.parts: list[Decoder] = []  # that follow
        self._location, self._container = location, container
        self._sound = 0  # parts with sound
        self._hidden = False  # a part in the middle of the file, between packets of the first stream

    def pictures(self, start: Fraction) -> Iterator[Stamped]:
        """Yields every picture of all parts, with its stamps relative to `start`; those of a part may start again."""
        yield from self.first.pictures(start)
        if JOINABLE_FORMAT not in self._container.format.name or not isinstance(self._location, Path):
            return
        decoder, offset, seen = self.first, 0, self.first.streams_before(self.first.rest)
        self._hidden = self._find_hidden_part(self._location)
        while True:
            offset += decoder.rest
            number = next_stream(self._location, offset, seen)
            if number is None:
                return
            with _open_rest(self._location, offset) as container:
                decoder = Decoder(container, _stream(container, number))
                self.parts.append(decoder)
                self._sound += bool(container.streams.audio)
                yield from decoder.pictures(start)
                seen |= decoder.streams_before(decoder.rest)

    def _find_hidden_part(self, path: Path) -> bool:
        """Returns whether another video stream begins in the longest stretch without a packet of the first one."""
        length, start = self.first.hole
        return length > HOLE and next_stream(path, start, self.first.streams_before(start), length) is not None

    @property
    def current(self) -> Decoder:
        """Returns the decoder of the part that is being read."""
        return self.parts[-1] if self.parts else self.first

    def errors(self) -> list[str]:
        """Returns what was lost, for the user."""
        found = [line for decoder in (self.first, *self.parts) for line in decoder.errors()]
        if self._sound:
            found.append(
                f"the sound of {self._sound} joined parts has streams of its own and is missing or out of place; "
                "join the parts with ffmpeg -f concat to keep it"
            )
        if self._hidden:
            found.append("a part in the middle of the file, which has a video stream of its own, is left out")
        return found


def is_joined(location: Location, container: InputContainer, first: Decoder) -> bool:
    """Returns whether other parts follow the video stream, whose packets `first` has read to the end."""
    if JOINABLE_FORMAT not in container.format.name or not isinstance(location, Path):
        return False
    return next_stream(location, first.rest, first.streams_before(first.rest)) is not None


def _open_rest(path: Path, offset: int) -> InputContainer:
    """Opens a transport stream from an offset in bytes on."""
    return av.open(f"subfile,,start,{offset},end,0,,:file:{path}", format=JOINABLE_FORMAT, metadata_errors="replace")


def _stream(container: InputContainer, number: int) -> Any:
    return next(stream for stream in container.streams.video if stream.id == number)


def next_stream(path: Path, offset: int, seen: set[int], length: int | None = None) -> int | None:
    """Returns the number of the video stream that begins within `length` bytes and is not among those seen, or None."""
    with suppress(FFmpegError), _open_rest(path, offset) as container:
        for packet in read_packets(container):
            if length is not None and (packet.pos or 0) > length:
                return None
            if packet.size and packet.stream.type == "video" and packet.stream.id not in seen:
                return packet.stream.id
    return None
