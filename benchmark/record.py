"""Writes results to disk; a file or folder gets its name only when it is complete."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model import UserError
from video.safe_file import write_file


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON, and its folder if that is missing; the file appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(record, indent=1).encode())


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder, which is renamed to `path` at the end, or deleted after an error.

    UserError if there is one of that name, unless it may be replaced and holds results.json, as such folders do.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; give --overwrite to replace it, or another --output")
    if path.exists() and not (path / "results.json").is_file():
        raise UserError(f"{path}: not replaced, as it holds no results.json; give another --output")
    part, old = (path.with_name(f"{path.name}.part.{os.getpid()}{suffix}") for suffix in ("", ".old"))
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
