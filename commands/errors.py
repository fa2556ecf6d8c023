"""Turns errors that a user can mend into one line on standard error and an exit status."""

import sys
from collections.abc import Callable

from model.errors import UserError

FAILED, INTERRUPTED = 1, 130  # exit statuses


def run_command(name: str, command: Callable[[], int]) -> int:
    """Runs a command; returns its exit status, 1 after an error of the user, the disk or the memory, 130 after Ctrl-C.

    `name` begins the error line. Other exceptions are faults of the program and are raised.
    """
    try:
        return command()
    except UserError as e:
        message = str(e)
    except OSError as e:
        file = f"{e.filename}: " if e.filename else ""
        message = f"{file}{e.strerror or e}; check the names, the folders and the free space of the disk"
    except MemoryError:
        message = "out of memory; use smaller pictures, --scale 0.5 or --tile 256"
    except RuntimeError as e:
        if "not enough memory" not in str(e) and "can't allocate memory" not in str(e):
            raise
        message = "out of memory; use smaller pictures, --scale 0.5 or --tile 256"
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"{name}: {message}", file=sys.stderr)
    return FAILED
