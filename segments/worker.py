"""Makes segments: each is written under another name, verified, and renamed when it is complete."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from model.errors import UserError
from segments.folder import Record, WorkFolder
from segments.inspect import file_size, inspect_video
from video.frame import Frame
from video.interpolate import Report
from video.prefetch import prefetch
from video.reading.reader import Source
from video.reading.source_part import SourcePart
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter

Hold = Callable[[], AbstractContextManager[object]]  # a context in which signals wait: PyAV loses what they raise
POLL = 0.5  # seconds between two checks of the segments that another process makes
LARGEST_ERROR = Fraction(1, 500)  # seconds: containers such as Matroska round times to 1/1000


@dataclass
class SegmentFrames:
    """Holds the frames of one segment, not made yet, with the source that they are made from."""

    source: Source
    part: SourcePart
    frames: Iterator[Frame]
    report: Report


class Maker(Protocol):
    """Defines what a command offers to make segments: frames by its network, and writers by its settings."""

    def open_frames(self, part: SourcePart) -> SegmentFrames:
        """Returns the frames of a part of the source."""

    def open_writer(self, path: Path) -> VideoWriter | PictureWriter:
        """Returns the writer of a segment: without the source's other tracks."""

    def check_source(self) -> None:
        """Raises UserError if the source has changed since the plan was made."""


def make_segments(
    folder: WorkFolder,
    parts: Sequence[SourcePart],
    wanted: Iterable[int],
    maker: Maker,
    begin: Callable[[int], None],
    count: Callable[[Frame], None],
    held: Hold = nullcontext,
) -> None:
    """Makes those of the wanted segments that no process has made or makes; returns when all are finished.

    `begin` is called with each segment that is begun, `count` with each frame that was written. Files are written in
    the context of `held`.
    """
    wanted = list(wanted)
    while missing := [i for i in wanted if not folder.is_finished(i)]:
        made = False
        for index in missing:
            if folder.take(index):
                try:
                    if not folder.is_finished(index):
                        begin(index)
                        make_segment(folder, parts[index], index, maker, count, held)
                        made = True
                finally:
                    folder.release(index)
        if not made:
            time.sleep(POLL)


def make_segment(
    folder: WorkFolder,
    part: SourcePart,
    index: int,
    maker: Maker,
    count: Callable[[Frame], None],
    held: Hold = nullcontext,
) -> None:
    """Makes one segment. Whatever is written before an error is removed."""
    folder.discard_new(index)
    path = folder.new_file(index)
    times: list[Fraction] = []  # of the first and of the last frame
    duration: Fraction | None = None  # of the last frame
    writer: VideoWriter | PictureWriter | None = None
    segment = maker.open_frames(part)
    try:
        with closing(prefetch(segment.frames)) as frames:
            for frame in frames:
                with held():
                    writer = writer or maker.open_writer(path)
                    writer.write(frame)
                times, duration = [*times[:1], frame.time], frame.duration
                count(frame)
        with held():
            if writer is None:
                path.touch()
            else:
                writer.finish()
            maker.check_source()
            folder.complete(index, _verified(path, writer, times, duration, segment))
    except BaseException:
        if writer is not None:
            writer.stop()
        folder.discard_new(index)
        raise


def _verified(
    path: Path,
    writer: VideoWriter | PictureWriter | None,
    times: list[Fraction],
    duration: Fraction | None,
    segment: SegmentFrames,
) -> Record:
    """Returns the record of a new segment. Raises UserError if the file does not hold what was written to it."""
    frames, delay, header = _check_file(path, writer, times)
    report, part = segment.report, segment.part
    return Record(
        frames,
        file_size(path),
        str(times[0]) if times else "0",
        str(times[-1]) if times else "0",
        None if duration is None else str(duration),
        delay,
        header,
        {name: value for name, value in vars(report).items() if isinstance(value, int)},
        [segment.source.checksums.get(time) for time in (part.begin, part.end)],
        [(str(found.time), found.kind.value, found.score) for found in report.transitions if part.holds(found.time)],
        [] if report.given is None else sorted(report.given.used),
        [(m.time, m.disagreement, m.replaced) for m in report.measures],
        segment.source.errors,
        segment.source.notes,
    )


def _check_file(path: Path, writer: VideoWriter | PictureWriter | None, times: list[Fraction]) -> tuple[int, int, str]:
    """Returns the number of frames, the delay of decoding, and the hash of the header of a new segment."""
    if writer is None:
        return 0, 0, ""
    if isinstance(writer, PictureWriter):
        held = sum(1 for _ in path.iterdir())
        if held != writer.frames:
            raise UserError(f"{path}: holds {held} pictures of {writer.frames}; is the disk damaged?")
        return held, 0, ""
    video = inspect_video(path)
    held, ends = len(video.times), [time * video.time_base for time in (video.times[:1] + video.times[-1:])]
    errors = [abs(a - b) for a, b in zip(ends, (times[0], times[-1]), strict=False)]
    if held != writer.frames or max(errors, default=0) > LARGEST_ERROR:
        raise UserError(f"{path}: holds {held} frames of {writer.frames}, or other times; choose another container")
    return held, video.delay, video.header
