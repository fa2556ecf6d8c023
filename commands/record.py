"""Records what a command did with each of its files, and writes the records as JSON."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch

from commands.errors import error_line
from commands.preview import check_preview
from commands.side_files import files_read
from commands.video_steps import PROGRAM
from model.errors import UserError
from model.files import read_text
from video.reading.reader import Source
from video.safe_file import check_output, write_file

DONE, DAMAGED, WRONG, FAILED, SKIPPED, INTERRUPTED = "done", "damaged", "wrong", "failed", "skipped", "interrupted"
FAILURES = (WRONG, FAILED)
SUFFIX = ".json"


@dataclass
class FileRecord:
    """Holds what was done with one input: `result` is one of the words above; unknown fields are empty."""

    input: str
    result: str = FAILED
    error: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    network: list[str] = field(default_factory=list)  # one a device
    counts: dict[str, Any] = field(default_factory=dict)  # fields of Report: frames made, cuts, flashes, gaps, ...
    losses: list[str] = field(default_factory=list)  # damage of the source, and what of its tracks was lost
    notes: list[str] = field(default_factory=list)  # changes without loss, and tracks that were dropped
    mismatches: list[str] = field(default_factory=list)  # found in the finished output
    seconds: float = 0.0

    def describe_source(self, source: Source) -> None:
        """Records the properties of the input."""
        self.source = {
            "path": str(source.location),
            "size": list(source.size),
            "rate": source.rate,
            "frames": source.count,
            "pix_fmt": source.pix_fmt,
            "rotation": source.rotation,
            "bytes": _file_size(source.path),
        }


@dataclass
class RunRecord:
    """Holds the records of all files of one run; writes them to `path`, if there is one, after each file."""

    args: argparse.Namespace
    path: Path | None = None
    files: list[FileRecord] = field(default_factory=list)
    is_lost: bool = False  # it could not be written

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    def check_path(self, inputs: Iterable[Path]) -> None:
        """Raises UserError if the record cannot be written, is not named .json, or would replace any other file."""
        if self.path is not None:
            if self.path.suffix.lower() != SUFFIX:
                raise UserError(f"{self.path}: a report is JSON; give it a name that ends in {SUFFIX}")
            check_output(self.path, inputs, overwrite=self.args.overwrite or _is_record(self.path))

    @contextmanager
    def file(self, name: object) -> Iterator[FileRecord]:
        """Gives the record of one more file for the time of a `with` block; an error in the block is recorded."""
        record = FileRecord(str(name))
        self.files.append(record)
        start = time.monotonic()
        try:
            yield record
        except BaseException as e:
            record.result = INTERRUPTED if isinstance(e, KeyboardInterrupt) else FAILED
            record.error = None if isinstance(e, KeyboardInterrupt) else error_line(e) or repr(e)
            raise
        finally:
            record.seconds = round(time.monotonic() - start, 3)
            self.write()

    def write(self) -> None:
        """Writes the record; an error is printed and sets `is_lost`, because the run must not end by it."""
        if self.path is None:
            return
        data = {
            "program": PROGRAM,
            "settings": {name: value for name, value in vars(self.args).items() if value is not None},
            "versions": versions(),
            "seconds": round(time.monotonic() - self._start, 3),
            "files": [asdict(record) for record in self.files],
        }
        files = [record.input for record in self.files] + [str(record.output.get("path", "")) for record in self.files]
        try:
            write_file(self.path, (json.dumps(data, indent=2, default=_to_json) + "\n").encode(), map(Path, files))
            self.is_lost = False
        except UserError as e:
            self.is_lost = True
            print(f"{PROGRAM}: {e}", file=sys.stderr)


def versions() -> dict[str, str]:
    """Returns the versions of what computes and encodes the frames."""
    libraries = {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}
    return {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__, **libraries}


def _to_json(value: object) -> Any:
    """Returns a number or a text for what JSON has no type for: 24000/1001 stays exact, as a text."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return int(value)
    return str(value)


def _file_size(path: Path) -> int | None:
    with suppress(OSError):
        if path.is_file():
            return path.stat().st_size
    return None


def _is_record(path: Path) -> bool:
    """Returns whether a file is a record that this program wrote."""
    try:
        data = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("program") == PROGRAM and "files" in data


def check_report_and_preview(args: argparse.Namespace, record: RunRecord) -> None:
    """Raises UserError if the report or the preview of a run cannot be written; `args` name all its inputs."""
    inputs = files_read(args)
    record.check_path(inputs)
    if args.preview:
        check_preview(args.preview, inputs, overwrite=args.overwrite)
