"""Lists the files that a run reads, and checks those that it writes beside its output, before the first frame."""

import argparse
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from model.errors import UserError
from model.weights.checkpoint import find_weights
from video.safe_file import check_output, is_picture_in, part_path, same_file
from video.transitions.confidence import CSV_HEADER


def files_read(args: argparse.Namespace) -> tuple[Path, ...]:
    """Returns the files and folders of pictures that a run reads, also for the other inputs of a batch."""
    several = [path for path in (*args.inputs, *args.batch) if isinstance(path, Path) and not path.is_dir()]
    named = [args.video, args.img, *(args.stitch or ()), *several, args.mask, args.speed]
    if args.decisions is not None and args.decisions.exists():
        named.append(args.decisions)
    if args.repair is not None and args.damaged is not None and Path(args.repair).is_file():
        named.append(Path(args.repair))
    with suppress(UserError):  # which loading the network raises again
        named.append(find_weights(args.model).path)
    return tuple(path for path in named if isinstance(path, Path))


def check_side_files(args: argparse.Namespace, output: Path, files: Iterable[Path]) -> None:
    """Raises UserError if one of `files` cannot be written, or if two results of the run would be one file.

    Results are the output, `files`, the report and the preview. A file that exists is replaced only with --overwrite,
    or if it is a list of measures of an earlier run.
    """
    files = list(files)
    others = [path for path in (args.report, args.preview) if path is not None]
    taken = [output, part_path(output)]
    for path in [*files, *others]:
        names = [path, part_path(path)]
        is_numbered = path.stem.isdigit() and is_picture_in(path, output)
        if is_numbered or any(same_file(name, other) for name in names for other in taken):
            raise UserError(f"{path}: two results of this run would have this name; give each its own")
        taken += names
    inputs = files_read(args)
    for path in files:
        check_output(path, inputs, overwrite=args.overwrite or _is_measures(path))


def _is_measures(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file() and path.read_bytes().startswith(CSV_HEADER.encode())
    return False
