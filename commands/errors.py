"""Prints errors that the user can correct as one line on standard error, and returns an exit status."""

import sys
from collections.abc import Callable

from model.errors import UserError, printable

FAILED_STATUS, INTERRUPTED_STATUS = 1, 130  # exit statuses
OUT_OF_MEMORY = "out of memory; use smaller pictures, --scale 0.5 or --tile 256"


def run_command(name: str, command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Runs a command; returns its exit status, 1 after an error of the user, the disk or the memory, 130 after Ctrl-C.

    A command that returns None has the status 0. `name` begins the line of an error or of Ctrl-C; `interrupted` is ""
    where the command prints that line itself. Other exceptions are faults of the program and are raised.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        if interrupted:
            print(f"{name}: {interrupted}", file=sys.stderr)
        return INTERRUPTED_STATUS
    except Exception as e:
        message = error_line(e)
        if message is None:
            raise
    print(f"{name}: {printable(message)}", file=sys.stderr)
    return FAILED_STATUS


def error_line(error: BaseException) -> str | None:
    """Returns an error of the user, the disk or the memory as one line; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror or error}; check the names, the folders and the free space of the disk"
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "can't allocate memory" in str(error)):
        return OUT_OF_MEMORY
    return None
