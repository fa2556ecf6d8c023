"""Prints errors that the user can correct as one line on standard error, and returns an exit status."""

import sys
from collections.abc import Callable

from model.errors import UserError, printable

FAILED_STATUS, INTERRUPTED_STATUS = 1, 130  # exit statuses
OUT_OF_MEMORY = "out of memory; use smaller pictures, --scale 0.5 or --tile 256"
MEMORY_ERRORS = ("out of memory", "not enough memory", "can't allocate memory")  # words of torch, of a GPU and a CPU


def run_command(
    name: str, command: Callable[[], int | None], interrupted: str = "interrupted", out_of_memory: str = OUT_OF_MEMORY
) -> int:
    """Runs a command; returns its exit status, 1 after an error of the user, the disk or the memory, 130 after Ctrl-C.

    A command that returns None has the status 0. `name` begins the line of an error or of Ctrl-C; `interrupted` is ""
    where the command prints that line itself; `out_of_memory` is the line about missing memory. Other exceptions are
    faults of the program and are raised.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        if interrupted:
            print(f"{name}: {interrupted}", file=sys.stderr)
        return INTERRUPTED_STATUS
    except Exception as e:
        message = error_line(e, out_of_memory)
        if message is None:
            raise
    print(f"{name}: {printable(message)}", file=sys.stderr)
    return FAILED_STATUS


def error_line(error: BaseException, out_of_memory: str = OUT_OF_MEMORY) -> str | None:
    """Returns an error of the user, the disk or the memory as one line; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror or error}; check the names, the folders and the free space of the disk"
    if isinstance(error, MemoryError):
        return out_of_memory
    if isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_ERRORS):
        return out_of_memory
    return None
