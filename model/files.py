"""Distinguishes regular files from FIFOs, sockets and devices, from which a read may never end."""

import stat
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: Path) -> str:
    """Returns the kind of a file that is not regular, such as "a FIFO", else "". Links are followed. Raises OSError."""
    mode = path.stat().st_mode
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no regular file")
