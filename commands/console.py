"""Prints so that a run continues if output fails: a closed pipe or a full disk ends only the printing.

Limits what encoders print by themselves.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class SafeStream(io.TextIOBase):
    """Writes text to a stream; text is dropped after the stream's first error, or if there is no stream."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text; characters that the encoding of the stream lacks are written as escapes."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeEncodeError:
            return self.write(text.encode("ascii", "backslashreplace").decode())
        except RuntimeError:  # a signal handler prints while the same stream is being written to
            pass
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except RuntimeError:
            pass
        except (OSError, ValueError):
            self._give_up()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal; a closed one is none."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor; raises OSError if there is none."""
        if self._stream is None:
            raise OSError("no stream")
        return self._stream.fileno()

    def _give_up(self) -> None:
        """Redirects this and all later output to the null device, also the flush when Python ends."""
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError):
            assert stream is not None
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextmanager
def safe_printing() -> Iterator[None]:
    """Replaces standard output and standard error by SafeStreams in the `with` block."""
    open_standard_files()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = SafeStream(streams[0]), SafeStream(streams[1])
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


def quieten_encoders() -> None:
    """Limits the log of SVT-AV1, some 20 lines for each opened encoder, to errors; the user's SVT_LOG stays."""
    os.environ.setdefault("SVT_LOG", "1")


def open_standard_files() -> None:
    """Opens the null device as each of the file descriptors 0, 1 and 2 that is closed.

    Otherwise the next file to be opened gets that number, and messages of libraries are written into it. The null
    device is opened so that video through it fails: standard input cannot be read, the others cannot be written to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)  # takes the lowest free number: this one
