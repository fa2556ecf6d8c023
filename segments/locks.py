"""Locks the parts of a long work, so that two processes never make the same segment, on one machine or several."""

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

try:
    import fcntl
except ImportError:  # Windows: no locks, one process at a time is up to the user
    fcntl = None  # type: ignore[assignment]

PAUSE = 0.01  # seconds between two tries
WORK = 0  # number of the lock on the work as a whole; segment i has number i + 1
PREVIEW = 2**30  # number of the lock on the preview
PLAN = PREVIEW + 1  # number of the lock on the plan while it is made


class Locks:
    """Takes numbered locks in one file. The system releases them when their process ends, however it ends.

    A folder on a network without locks grants every lock: then a segment may be made twice, and the second one
    replaces the first, which is the same. One object a process, because closing its file releases all locks.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, number: int, *, shared: bool = False, timeout: float = 0) -> bool:
        """Takes a lock; returns False if another process holds it for `timeout` seconds.

        Several processes may hold a `shared` lock at once.
        """
        until = monotonic() + timeout
        while not (taken := self._try(number, shared)) and monotonic() < until:
            sleep(PAUSE)
        return taken

    def _try(self, number: int, shared: bool) -> bool:
        if fcntl is None:
            return True
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # the file system has no locks
            return True
        return True

    def release(self, number: int) -> None:
        """Releases a lock."""
        if fcntl is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Releases all locks."""
        os.close(self._file)
