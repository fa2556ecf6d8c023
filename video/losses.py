"""Describes errors of the media libraries in one printable line, and counts them as losses of one track."""

from collections.abc import Iterator
from contextlib import contextmanager

from av.error import FFmpegError

from model.errors import UserError, printable

# What PyAV raises for a damaged or unusual file. Disk errors (OSError) are not in this list, except FFmpeg's own.
LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    FFmpegError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
)
UNKNOWN_ERROR = "Error number "  # start of the text of FFmpeg for an unknown number
WRITE_ERRORS: tuple[type[Exception], ...] = (OSError, *LIBRARY_ERRORS)


def reason(error: BaseException) -> str:
    """Returns the cause of an error as one printable line, without the type and the file name."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if str(text).startswith(UNKNOWN_ERROR):  # a decoder's own number, which FFmpeg has no text for
        text = "damaged data"
    return printable(" ".join(str(text).split()))


class TrackLosses:
    """Counts what one track lost to errors, and keeps the first reason."""

    def __init__(self, track: str) -> None:
        self.track = track
        self.count = 0
        self.reason = ""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts an error of a library in the block as one loss; errors of the disk pass."""
        try:
            yield
        except UserError:
            raise
        except LIBRARY_ERRORS as e:
            self.add(reason(e))

    def add(self, why: str) -> None:
        """Counts one loss."""
        self.count += 1
        self.reason = self.reason or why

    def __str__(self) -> str:
        packets = "packet" if self.count == 1 else "packets"
        return f"{self.track}: {self.count} damaged {packets} left out ({self.reason})"
