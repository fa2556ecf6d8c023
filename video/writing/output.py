"""Opens containers for writing: on a file object, never by name, or on nothing for a trial."""

import io
import os
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from video.containers import CONTAINERS, container_of
from video.losses import LIBRARY_ERRORS, reason
from video.pictures.picture import MediaError
from video.reading.pipe import OutputPipe
from video.safe_file import SafeFile

# Turns fragments of MP4 off: FFmpeg writes wrong decoding times of the picture where a fragment begins in a pause of
# subtitles.
UNFRAGMENTED = {"movflags": "-hybrid_fragmented-delay_moov", "frag_duration": "0"}
MP4 = tuple(suffix for suffix, container in CONTAINERS.items() if container.is_mp4)
# Packets come in order already: FFmpeg need not hold any back for long until a track with few packets has its next.
COMMON_OPTIONS = {"flush_packets": "1", "max_interleave_delta": "500000"}  # microseconds


class NullFile:
    """Drops what is written to it, for trials; FFmpeg takes the container by the suffix of `name`."""

    def __init__(self, suffix: str) -> None:
        self.name = f"trial{suffix}"
        self.error: OSError | None = None  # as SafeFile has it
        self.closed = False
        self._position = self._end = 0

    def write(self, data: Any) -> int:
        """Counts the bytes and drops them."""
        size = memoryview(data).nbytes
        self._position += size
        self._end = max(self._end, self._position)
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position; returns it."""
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self._position

    def close(self) -> None:
        """Marks the file as closed: PyAV then writes no trailer."""
        self.closed = True


class MemoryFile(io.BytesIO):
    """Keeps the bytes of an output in memory, for trials that are read back."""

    def __init__(self, suffix: str) -> None:
        super().__init__()
        self.name = f"trial{suffix}"
        self.error: OSError | None = None  # as SafeFile has it


def open_output(
    file: SafeFile | OutputPipe | NullFile | MemoryFile, more: dict[str, str] | None = None
) -> OutputContainer:
    """Opens the container that the suffix of the file's name selects, with `more` options of it.

    Raises MediaError if there is none.
    """
    suffix = Path(file.name).suffix
    options = {**COMMON_OPTIONS, **container_of(suffix).options}
    for name, value in (more or {}).items():
        options[name] = f"{options[name]}{value}" if name == "movflags" and name in options else value
    try:
        return av.open(file, "w", container_options=options, buffer_size=1 << 18, io_open=_refuse)
    except LIBRARY_ERRORS as e:
        raise MediaError(f"{suffix!r}: no container for video ({reason(e)}); use mp4, mkv, mov, webm or gif") from e


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    """Refuses formats that write files of their own, such as playlists with segments."""
    raise ValueError("this format is not one file")
