"""Handles Ctrl-C, SIGTERM and SIGHUP: the first signal stops the work and finishes the file, the third ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from commands.errors import INTERRUPTED_STATUS
from model.signals import ENDING_SIGNALS

H = TypeVar("H", bound="SignalHandler")


class SignalHandler:
    """Calls `_handle` of a subclass for each of the signals, as a `with` block in the main thread.

    Signals that are ignored, as by nohup, stay ignored.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def __enter__(self: H) -> H:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        raise NotImplementedError


class Interrupts(SignalHandler):
    """Raises KeyboardInterrupt at the first signal, except in blocks of code that must not be interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0  # signals so far
        self._file: Path | None = None  # the file that is being written
        self._finishing, self._held = False, True

    def begin(self) -> None:
        """Makes signals raise KeyboardInterrupt from now on; raises it if a signal has come before."""
        self._held = False
        if self.count:
            raise KeyboardInterrupt

    def begin_file(self) -> None:
        """Makes signals raise KeyboardInterrupt again after another file has been finished; as `begin`."""
        self._finishing, self._file = False, None
        self.begin()

    def protect(self, file: Path) -> None:
        """Names the file that is being written, for the messages of the second and third signal."""
        self._file = file

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delays signals until the `with` block ends, so that a frame is written completely."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.begin()

    def finish(self, work: Callable[[], None]) -> None:
        """Runs `work`, which finishes the file; signals only print a line, the third ends the program at once.

        The work runs in a thread of its own, because Python handles signals only between the steps of the main thread.
        """
        self._finishing = True
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as e:  # noqa: BLE001 - raised again in the main thread
                errors.append(e)

        thread = threading.Thread(target=run, name="finish")
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        if errors:
            raise errors[0]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= 3:
            self._print(f"ended at once; what is on the disk is in {self._file}" if self._file else "ended at once")
            os._exit(INTERRUPTED_STATUS)
        if self._file is not None:
            ignored = "this is ignored, " if self.count == 2 else ""
            self._print(f"{self._file} is being finished; {ignored}a third Ctrl-C ends at once")
        if self.count == 1 and not (self._held or self._finishing):
            raise KeyboardInterrupt

    @staticmethod
    def _print(line: str) -> None:
        print(f"\n{line}", file=sys.stderr, flush=True)
