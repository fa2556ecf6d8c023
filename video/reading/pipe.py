"""Reads and writes video through pipes: standard input that FFmpeg opens several times, standard output as a file."""

import gc
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from weakref import WeakSet

from video.pictures.picture import MediaError

CAN_WAIT = os.name == "posix"  # for a pipe to have data
STOP_CHECK = 0.2  # seconds between two checks whether reading is to end
CHUNK = 1 << 20  # bytes at most that are read at once
MAX_HELD = 1 << 30  # bytes that one reader may be ahead of another


@dataclass(frozen=True)
class RawFormat:
    """Describes raw frames, which have no header: what FFmpeg would find in one."""

    pix_fmt: str
    size: tuple[int, int]  # width, height
    rate: Fraction  # frames/s

    @property
    def options(self) -> dict[str, str]:
        """Returns the options of FFmpeg's demuxer of raw video."""
        width, height = self.size
        return {"pixel_format": self.pix_fmt, "video_size": f"{width}x{height}", "framerate": str(self.rate)}


class InputPipe:
    """Gives a stream of bytes that can be read only once to several readers, each of which begins at its start.

    A chunk is held until every reader has read it. All chunks are held until the last reader has been opened; from then
    on the memory does not grow with the length of the stream, as long as the readers read at the same pace. The
    readers may run on several threads.
    """

    def __init__(
        self, descriptor: int, is_stopped: Callable[[], bool] = lambda: False, name: str = "standard input"
    ) -> None:
        """Prepares reading; once `is_stopped()` is True, reading ends at once, even if the stream is idle."""
        self.raw: RawFormat | None = None  # if the stream has no header
        self.name, self.is_stopped = name, is_stopped
        self.held = 0  # bytes, the most that one reader has had before it
        self.length = 0  # bytes, all that have been read
        self._descriptor = descriptor
        self._head: list[bytes] | None = []  # all chunks, for readers that are still to come
        self._readers: WeakSet[PipeReader] = WeakSet()
        self._lock = threading.Lock()

    def open(self, *, is_last: bool = False) -> "PipeReader":
        """Returns a reader that begins at the start; after the last one MediaError is raised."""
        if is_last:
            gc.collect()  # frees the readers of trials that failed
        with self._lock:
            if self._head is None:
                raise MediaError(f"{self}: can be read only once; save it to a file first")
            reader = PipeReader(self, self._head)
            self._readers.add(reader)
            if is_last:
                self._head = None
            return reader

    def read_for(self, reader: "PipeReader") -> bool:
        """Gives the next chunk to all readers if one has read all of its own; returns False at the end."""
        with self._lock:
            if reader.chunks:  # another thread has read a chunk meanwhile
                return True
            chunk = self._read_chunk()
            if not chunk:
                return False
            self.length += len(chunk)
            if self._head is not None:
                self._head.append(chunk)
            for other in self._readers:
                other.chunks.append(chunk)
                other.waiting += len(chunk)
                self.held = max(self.held, other.waiting)
            if self.held > MAX_HELD:
                raise MediaError(f"{self}: its tracks lie more than {MAX_HELD >> 20} MB apart; save it to a file first")
            return True

    def _read_chunk(self) -> bytes:
        """Returns the next bytes as soon as there are some; none at the end, or if reading is to end."""
        try:
            while CAN_WAIT and not select.select([self._descriptor], [], [], STOP_CHECK)[0]:
                if self.is_stopped():
                    return b""
            return os.read(self._descriptor, CHUNK)
        except KeyboardInterrupt:  # cannot be raised through FFmpeg; `is_stopped` returns True from now on
            return b""

    def __str__(self) -> str:
        return self.name


class PipeReader:
    """Reads an InputPipe as a file object of PyAV: it has `read` alone, so that FFmpeg does not seek."""

    def __init__(self, pipe: InputPipe, chunks: list[bytes]) -> None:
        self.name = str(pipe)
        self.chunks = deque[bytes | memoryview](chunks)
        self.waiting = sum(map(len, chunks))  # bytes
        self._pipe = pipe

    def read(self, size: int) -> bytes | memoryview:
        """Returns the next bytes, `size` at most; none at the end."""
        if not self.chunks and not self._pipe.read_for(self):
            return b""
        chunk = self.chunks.popleft()
        if len(chunk) > size:
            self.chunks.appendleft(memoryview(chunk)[size:])
            chunk = memoryview(chunk)[:size]
        self.waiting -= len(chunk)
        return chunk


class OutputPipe:
    """Writes to a pipe as FFmpeg writes to a file: no name on a disk, no seeking; the interface is that of SafeFile.

    `name` is a file name for messages, whose suffix chooses the container.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name, self.part = name, Path(name)
        self.error: MediaError | None = None  # of `write`
        self.closed = False
        self._descriptor = descriptor

    def write(self, data: Any) -> int:
        """Writes all of `data`, bytes or a buffer; returns its length. Raises MediaError, also if no one reads."""
        rest = memoryview(data).cast("B")
        total = rest.nbytes
        try:
            while rest.nbytes:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as e:
            cause = "the program that reads it has ended" if isinstance(e, BrokenPipeError) else str(e.strerror)
            self.error = MediaError(f"{self}: {cause}; nothing more can be written")
            raise self.error from e
        return total

    def commit(self) -> None:
        """Closes the pipe. Raises the error that `write` met, if any."""
        self.close()
        if self.error is not None:
            raise self.error

    def keep(self) -> None:
        """Closes the pipe after an error: what was written has been read."""
        self.close()

    def discard(self) -> None:
        """Closes the pipe before anything was written."""
        self.close()

    def close(self) -> None:
        """Closes the pipe, so that its reader finds the end."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def __str__(self) -> str:
        return self.name
