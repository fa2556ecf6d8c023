"""Distinguishes regular files from FIFOs, sockets and devices, from which a read may never end; reads small texts."""

import errno
import os
import stat
from pathlib import Path

FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
LARGEST_TEXT = 2**26  # bytes


def user_cache() -> Path:
    """Returns the folder for files that this user's programs can make again: $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def special_kind(path: Path) -> str:
    """Returns the kind of a file that is not regular, such as "a FIFO", else "". Links are followed. Raises OSError."""
    mode = path.stat().st_mode
    return "" if stat.S_ISREG(mode) else FILE_KINDS.get(stat.S_IFMT(mode), "no regular file")


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Returns the text of a file. Raises OSError, also if the file is not regular or too large; or ValueError."""
    if kind := special_kind(path):
        raise OSError(errno.EINVAL, f"{kind}, not a file of text", str(path))
    if path.stat().st_size > LARGEST_TEXT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return path.read_text(encoding=encoding, errors=errors)
