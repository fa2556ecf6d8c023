"""Cuts a source to a span of time."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

from video.frame import Frame
from video.pictures.picture import MediaError
from video.reading.reader import Source


def trim_source(source: Source, start: Fraction, end: Fraction | None) -> Source:
    """Returns the source from `start` to before `end`, in seconds from its own start; its time 0 is then `start`."""
    length = None if end is None else end - start
    count = source.count
    if count is not None:
        begin = max(start, source.first)
        left = max(count - round((begin - source.first) * source.rate), 2)
        count = left if end is None else min(left, max(round((end - begin) * source.rate), 2))
    moved = replace(source, start=source.start + start, first=source.first - start)
    return replace(moved, is_trimmed=start > 0, length=length, count=count)


def trimmed_frames(source: Source) -> Iterator[Frame]:
    """Yields the frames of a source within its span. Raises MediaError if there are fewer than two."""
    shift = Fraction(0) if source.is_video else source.start
    count = 0
    with closing(iter(source)) as frames:  # what was lost until the end of the span is in source.errors then
        for frame in frames:
            time = frame.time - shift
            if source.length is not None and time >= source.length:
                break
            if time >= 0:
                count += 1
                yield replace(frame, time=time)
    if count < 2 and source.part is None:
        found = "only one frame" if count else "no frame"
        place = " in the chosen span; give a longer one" if source.is_trimmed or source.length else ""
        raise MediaError(f"{source.path}: has {found}{place or '; interpolation needs two or more'}")
