"""Divides a source into spans of time in which all frames have one size."""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from video.frame import PictureFormat
from video.reading.reader import Source


@dataclass(frozen=True)
class SizeSpan:
    """Holds a span of a source, in seconds from the start of the source; an `end` of None is the end of the source."""

    start: Fraction
    end: Fraction | None
    format: PictureFormat | None  # None: that of the source
    number: int = 1  # of the output that is made of it

    def apply(self, source: Source) -> Source:
        """Returns the source with the properties of the frames of this span."""
        if self.format is None:
            return source
        new = self.format
        return replace(source, size=new.size, pix_fmt=new.pix_fmt, colour=new.colour, aspect=new.aspect)


def find_spans(source: Source, start: Fraction = Fraction(0), end: Fraction | None = None) -> list[SizeSpan]:
    """Decodes a whole video and returns its spans of one size between two times, with numbers from 1."""
    for _ in source:
        pass
    formats: list[PictureFormat | None] = [None, *(found for _, found in source.formats[1:])]
    edges = [Fraction(0), *(time for time, _ in source.formats[1:]), None]
    spans: list[SizeSpan] = []
    for (first, last), found in zip(pairwise(edges), formats, strict=True):
        assert first is not None
        begin = max(first, start)
        stop = last if end is None else end if last is None else min(last, end)
        if stop is None or begin < stop:
            spans.append(SizeSpan(begin, stop, found, len(spans) + 1))
    return spans
