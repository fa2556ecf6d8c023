"""Stores the graphs of ExportedEngine in files of a cache; removes those that were not used for longest.

A file begins with the hash of the rest, so that a damaged graph is not used.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from model.files import user_cache

KEPT_GRAPHS = 20  # files of the cache, of 9 to 23 MB each for v4 networks; a run needs one to three


def cache_folder() -> Path:
    """Returns the folder of the user's cache that holds graphs."""
    return user_cache() / "rife" / "graphs"


def read_graph(path: Path) -> bytes | None:
    """Returns the ONNX file that `write_graph` stored, and marks it as used now; None if it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # the cache may be read only
        os.utime(path)
    digest, graph = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
    return graph if hashlib.sha256(graph).digest() == digest else None


def write_graph(path: Path, graph: bytes) -> None:
    """Stores an ONNX file after its SHA-256, whole or not at all; removes old graphs of its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".graph.part", delete=False) as part:
        name = part.name
        try:
            part.write(hashlib.sha256(graph).digest() + graph)
            part.close()
            os.replace(name, path)
        except OSError:
            part.close()
            os.unlink(name)
            raise
    _remove_old_graphs(path.parent)


def _remove_old_graphs(folder: Path) -> None:
    """Removes all graphs but the KEPT_GRAPHS that were used last; ignores files that another process removes now."""

    def last_use(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for path in sorted(folder.glob("*.graph*"), key=last_use, reverse=True)[KEPT_GRAPHS:]:
        with suppress(OSError):
            path.unlink()
