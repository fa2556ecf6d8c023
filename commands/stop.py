"""A request to stop: Ctrl-C, SIGTERM and SIGHUP end a loop between two of its steps."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from commands.interrupts import SIGNALS


class StopRequest:
    """Keeps that one of the signals came, for a loop that calls it; a second signal raises KeyboardInterrupt at once.

    Works in the main thread, as a `with` block; signals that are ignored, as by nohup, stay ignored. Processes forked
    from this one keep working on Ctrl-C, and end by the other signals as usual.
    """

    def __init__(self) -> None:
        self._count = 0
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self._count > 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
        print(
            "\nstopping after this step, with a checkpoint; a second Ctrl-C ends at once", file=sys.stderr, flush=True
        )
