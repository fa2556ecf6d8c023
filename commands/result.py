"""Checks the finished output of a run and records it."""

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from commands.record import DAMAGED, DONE, WRONG, FileRecord
from commands.video_job import VideoJob
from commands.video_steps import PROGRAM
from video.interpolate import Report
from video.reading.pipe import InputPipe
from video.writing.picture_writer import PictureWriter
from video.writing.verify import FrameTimes, find_mismatches, find_missing_pictures, find_sound_starts
from video.writing.writer import VideoWriter


def record_result(
    record: FileRecord, job: VideoJob, writer: VideoWriter | PictureWriter, report: Report, times: FrameTimes
) -> None:
    """Checks the video by its packets, or pictures by their names; records what was made, lost, and is wrong."""
    record.counts = count_fields(report)
    record.losses = [*job.source.errors, *writer.errors]
    record.notes += [*writer.notes, *job.source.notes]
    record.output = {
        "path": str(writer.path),
        "frames": writer.frames,
        "rate": job.rate,
        "first_time": float(times.first),
        "last_time": float(times.last),
    }
    if job.is_video and not job.is_pipe:
        speed, sounds = job.source.speed, _expected_sounds(job, writer)
        slowed = 1.0 if speed is None else 1 / speed.slowest
        found, record.mismatches = find_mismatches(writer.path, times, job.rate, sounds, slowed)
        record.output["bytes"] = writer.path.stat().st_size if writer.path.exists() else None
        if found is not None:
            record.output["packets"] = found.frames
            record.output["sound_starts"] = [None if s is None else float(s) for s in found.sounds]
    elif not job.is_video:
        record.mismatches = find_missing_pictures(writer.path, writer.frames)
    record.result = WRONG if record.mismatches else DAMAGED if record.losses else DONE


def count_fields(report: Report) -> dict[str, int]:
    """Returns the counts of a run by the names that the record has for them."""
    names = ("made", "cuts", "flashes", "gaps", "repeats", "again")
    return {name: getattr(report, name) for name in names}


def _expected_sounds(job: VideoJob, writer: VideoWriter | PictureWriter) -> Sequence[Fraction | None]:
    """Returns when each sound track has to begin; nothing where the source leaves that open or packets were lost."""
    source = job.source
    if isinstance(source.location, InputPipe) or not source.is_video:
        return ()
    if source.decode_order or source.shifts or source.errors or writer.errors:
        return ()
    return find_sound_starts(source)


def print_mismatches(record: FileRecord, path: Path) -> None:
    """Prints an error line for everything that does not agree with what was written."""
    for line in record.mismatches:
        print(f"{PROGRAM}: {path}: {line}; the result is kept, try another container or codec", file=sys.stderr)
