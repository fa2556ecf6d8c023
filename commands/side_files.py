"""Checks the files that a run writes beside its output, before the first frame."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from model.errors import UserError
from video.confidence import HEADER
from video.safe_file import check_output, part_path, same_file


def check_side_files(args: argparse.Namespace, inputs: Sequence[Path], output: Path, files: Sequence[Path]) -> None:
    """Raises UserError if one of `files` cannot be written, or is an input, the output, or another of these files.

    An existing file is replaced only with --overwrite, or if it is a list of measures of an earlier run.
    """
    inputs = [*inputs, *(path for path in (args.mask, args.speed) if path is not None)]
    taken = [output, part_path(output), *(path for path in (args.report, args.preview) if path is not None)]
    for path in files:
        if any(same_file(path, other) for other in taken):
            raise UserError(f"{path}: two results of this run would have this name; give each its own")
        check_output(path, inputs, overwrite=args.overwrite or _is_measures(path))
        taken.append(path)


def _is_measures(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file() and path.read_bytes().startswith(HEADER.encode())
    return False
