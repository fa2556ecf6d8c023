"""Handles a request to stop: Ctrl-C, SIGTERM and SIGHUP end a loop between two of its steps."""

import os
import sys
from types import FrameType

from commands.interrupts import SignalHandler


class StopRequest(SignalHandler):
    """Stores for a loop whether one of the signals came; a second one raises KeyboardInterrupt at once.

    Processes forked from this one ignore the signals: the first process ends them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._process = os.getpid()

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self._count > 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
        print(
            "\nstopping after this step, with a checkpoint; a second Ctrl-C ends at once", file=sys.stderr, flush=True
        )
