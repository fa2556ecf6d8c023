"""Runs the command on several inputs, one after the other: files, folders of videos, and lists of files."""

import argparse
import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from commands.errors import FAILED_STATUS, INTERRUPTED_STATUS, error_line
from commands.progress import format_seconds
from commands.record import DAMAGED, FAILURES, SKIPPED, FileRecord, RunRecord, check_report_and_preview
from commands.resize_flags import SPLIT
from commands.video_job import VideoJob
from commands.video_steps import DAMAGED_STATUS, PROGRAM
from model.errors import UserError
from model.files import read_text
from video.containers import CONTAINERS
from video.pictures.picture import natural_key
from video.reading.container import URL_MARK, VIDEO_SUFFIXES, parse_location
from video.safe_file import same_file

LIST = ".txt"
REPORT = "report.json"
RESULT = re.compile(r"(?P<stem>.+?)_(\d+X_|[\d.]+Xslow_)?\d+fps(\.part)?")  # names that this command gives
ONE_INPUT = ("png", "segment", "decisions", "confidence")  # settings that need a single input

InputName = Path | str  # a file or a network address
Accept = Callable[[VideoJob], bool]
RunFile = Callable[[argparse.Namespace, FileRecord, Accept], object]


def is_batch(inputs: list[InputName]) -> bool:
    """Returns whether inputs are more than one file: several, a folder, or a list."""
    return len(inputs) > 1 or any(isinstance(i, Path) and (i.is_dir() or i.suffix.lower() == LIST) for i in inputs)


def find_videos(inputs: Iterable[InputName]) -> list[InputName]:
    """Returns the files that are meant by files, folders and lists, each once. Raises UserError for an empty one.

    A folder means the videos in it, in natural order, without those that this command has made from them. A list
    (.txt) holds one name a line; names are relative to the folder of the list.
    """
    found: dict[str, InputName] = {}
    for location in inputs:
        for file in _expand(location):
            found.setdefault(str(file) if isinstance(file, str) else os.path.realpath(file), file)
    return list(found.values())


def _expand(location: InputName) -> Iterator[InputName]:
    if isinstance(location, str):
        yield location
    elif location.is_dir():
        yield from _videos_in(location)
    elif location.suffix.lower() == LIST:
        for name in _lines_of(location):
            file = parse_location(name) if URL_MARK in name else location.parent / name
            yield from _videos_in(file) if isinstance(file, Path) and file.is_dir() else [file]
    else:
        yield location


def _videos_in(folder: Path) -> list[Path]:
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as e:
        raise UserError(f"{folder}: cannot be read ({e.strerror}); check the name") from e
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    stems = {path.stem for path in videos}
    sources = [path for path in videos if not ((made := RESULT.fullmatch(path.stem)) and made["stem"] in stems)]
    if not sources:
        raise UserError(f"{folder}: holds no video; give a folder with videos, or pictures by --img")
    return sorted(sources, key=lambda path: natural_key(path.name))


def _lines_of(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(path, "utf-8-sig", "surrogateescape").splitlines()]
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); check the name of the list") from e
    names = [line for line in lines if line]
    if not names:
        raise UserError(f"{path}: names no file; write one name on each line")
    return names


def check_batch(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if settings need a single input."""
    for name in ONE_INPUT:
        if getattr(args, name, None):
            parser.error(f"--{name.replace('_', '-')} needs a single input: not several, a folder or a list")
    if args.on_resize == SPLIT:
        parser.error("--on-resize split needs a single input: not several, a folder or a list")
    output: Path | None = args.output
    if output is None or output.is_dir():
        return
    if output.exists() or output.suffix.lower() in (*VIDEO_SUFFIXES, *CONTAINERS):
        parser.error(f"--output {output}: several inputs need a folder")


def report_path(args: argparse.Namespace) -> Path:
    """Returns the path of the report of several inputs."""
    return Path(args.report or (args.output or Path()) / REPORT)


def run_batch(args: argparse.Namespace, run_file: RunFile) -> int:
    """Runs `run_file` on every input; prints a line a file, a table at the end; returns the exit status.

    An error ends one file, not the others. Inputs whose output exists are left out unless --overwrite is given. Raises
    UserError, before the first file, for an empty folder or list and for a report that cannot be written.
    """
    videos = find_videos(args.inputs)
    folder: Path | None = args.output
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    run = RunRecord(args, report_path(args))
    args = argparse.Namespace(**{**vars(args), "batch": [*args.inputs, *videos]})
    check_report_and_preview(args, run)
    outputs: dict[Path, InputName] = {}
    try:
        for i, video in enumerate(videos):
            settings: dict[str, object] = {"inputs": [], "video": video, "output": None, "output_folder": folder}
            file_args = argparse.Namespace(**{**vars(args), **settings})
            _run_one(run, video, f"[{i + 1}/{len(videos)}] ", file_args, outputs, run_file)
    except KeyboardInterrupt:
        _print_table(run, len(videos))
        return INTERRUPTED_STATUS
    _print_table(run, len(videos))
    results = {record.result for record in run.files}
    return FAILED_STATUS if results & {*FAILURES} or run.is_lost else DAMAGED_STATUS if DAMAGED in results else 0


def is_to_be_made(video: InputName, path: Path, outputs: dict[Path, InputName], *, overwrite: bool) -> bool:
    """Returns whether the output of one input of a batch is to be made: not if it exists, unless `overwrite`.

    `outputs` holds the inputs by their outputs, and gets this one. Raises UserError if another input has this output.
    """
    for other_path, other in outputs.items():
        if same_file(path, other_path):
            raise UserError(f"{video}: its output {path} is that of {other} too; give it in another run")
    outputs[path] = video
    return overwrite or not os.path.lexists(path)


def _run_one(
    run: RunRecord,
    video: InputName,
    prefix: str,
    args: argparse.Namespace,
    outputs: dict[Path, InputName],
    run_file: RunFile,
) -> None:
    """Runs one file of a batch and prints its line; errors are printed and recorded."""
    try:
        with run.file(video) as record:

            def accept(job: VideoJob) -> bool:
                """Returns whether the output is still to be made."""
                to_be_made = is_to_be_made(video, job.path, outputs, overwrite=args.overwrite)
                record.output["path"] = str(job.path)
                if not to_be_made:
                    record.result = SKIPPED
                return to_be_made

            with contextlib.redirect_stdout(io.StringIO()):
                run_file(args, record, accept)
    except KeyboardInterrupt:
        raise
    except Exception as e:  # noqa: BLE001 - whatever ends one file must not end the others
        if error_line(e) is None:
            traceback.print_exc()
        print(f"{prefix}{video}: failed")
        print(f"{PROGRAM}: {record.error}", file=sys.stderr, flush=True)
    else:
        print(f"{prefix}{video}: {_describe(record)}", flush=True)
        for note in record.notes:
            print(f"    {note}", flush=True)


def _describe(record: FileRecord) -> str:
    """Returns what was done with one file, for its line."""
    path = record.output["path"]
    if record.result == SKIPPED:
        return f"done already, {path} exists"
    made = f"{record.output['frames']} frames, {record.counts['made']} made, in {format_seconds(record.seconds)}"
    return f"{record.result}, {path}: {made}"


def _print_table(run: RunRecord, total: int) -> None:
    """Prints a row for each file, and how many files ended in each way."""
    rows = [("result", "frames", "made", "seconds", "file")]
    for record in run.files:
        frames, made = record.output.get("frames", ""), record.counts.get("made", "")
        rows.append((record.result, str(frames), str(made), f"{record.seconds:.1f}", record.input))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print()
    for row in rows:
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True))
        print(f"{row[0]:<{widths[0]}}  {numbers}  {row[4]}")
    results = [record.result for record in run.files]
    counts = ", ".join(f"{results.count(result)} {result}" for result in dict.fromkeys(results))
    rest = f", {total - len(results)} not begun" if len(results) < total else ""
    details = "" if run.is_lost else f"; details in {run.path}"
    print(f"{total} files: {counts}{rest}{details}", flush=True)
