"""Collects the errors that FFmpeg's libraries log, which their return values often hide."""

import logging
import threading
from types import TracebackType

import av

LOGGER = "libav"  # PyAV's name for it


class ErrorLog:
    """Collects the messages that FFmpeg logs as errors in this thread while the `with` block runs.

    Blocks of several threads may overlap. FFmpeg's log level, which all threads share, is restored after the last one.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __enter__(self) -> "ErrorLog":
        _COLLECTOR.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _COLLECTOR.remove(self)


class _Collector(logging.Handler):
    """Gives each message to the open log of its thread. Errors are logged only while at least one log is open."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lock = threading.Lock()
        self._logs: dict[int, list[ErrorLog]] = {}  # by thread, the innermost last
        self._previous: tuple[int | None, bool] = None, True

    def add(self, log: ErrorLog) -> None:
        """Opens a log for this thread."""
        with self._lock:
            if not self._logs:
                logging.getLogger(LOGGER).addHandler(self)
                self._previous = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(max(self._previous[0] or 0, av.logging.ERROR))
                av.logging.set_skip_repeated(False)
            self._logs.setdefault(threading.get_ident(), []).append(log)

    def remove(self, log: ErrorLog) -> None:
        """Closes a log of this thread."""
        with self._lock:
            logs = self._logs[threading.get_ident()]
            logs.remove(log)
            if not logs:
                del self._logs[threading.get_ident()]
            if not self._logs:
                av.logging.set_level(self._previous[0])
                av.logging.set_skip_repeated(self._previous[1])
                logging.getLogger(LOGGER).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Stores a message; one of a thread without an open log is left out."""
        logs = self._logs.get(record.thread or 0)
        if logs:
            logs[-1].messages.append(record.getMessage().strip())


_COLLECTOR = _Collector()  # FFmpeg has one log for the whole process
