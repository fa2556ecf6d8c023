"""Collects the errors that FFmpeg's libraries log, which their return values often hide."""

import logging
import threading
from types import TracebackType

import av

LOGGER = "libav"  # PyAV's name for it


class ErrorLog(logging.Handler):
    """Collects the messages that FFmpeg logs as errors in this thread while the `with` block runs.

    Blocks of several threads may overlap. FFmpeg's log level, which all threads share, is restored after the last one.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = 0

    def __enter__(self) -> "ErrorLog":
        self._thread = threading.get_ident()
        logging.getLogger(LOGGER).addHandler(self)
        _LEVEL.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _LEVEL.release()
        logging.getLogger(LOGGER).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Stores a message of this thread; other threads have logs of their own."""
        if record.thread == self._thread:
            self.messages.append(record.getMessage().strip())


class _ErrorLevel:
    """Sets FFmpeg's log level to errors while at least one ErrorLog is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._previous: tuple[int | None, bool] = None, True

    def acquire(self) -> None:
        """Enables errors, unless the level is that high already."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._previous = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(max(self._previous[0] or 0, av.logging.ERROR))
                av.logging.set_skip_repeated(False)

    def release(self) -> None:
        """Restores the level when nobody needs it any longer."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                level, skip_repeated = self._previous
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skip_repeated)


_LEVEL = _ErrorLevel()  # FFmpeg has one level for the whole process
