"""Defines a part of a source: the frames that one segment of the output is made from."""

from dataclasses import dataclass
from fractions import Fraction

from video.timing.output_times import Timing
from video.timing.speed import SpeedMap


@dataclass(frozen=True)
class SourcePart:
    """Holds a part of a source, in seconds on the clock of its frames.

    The output frames of the part show times from `begin` on and before `end`. More source frames are read, from
    `first` to `last`, both included, because the rules for cuts and repeats compare neighbours. If `end` or `last` is
    None, it is the end of the source. Decoding starts at the frame with the time stamp `key`, whose exact time is
    `anchor`; if `key` is None, decoding starts at the first frame of the source.
    """

    begin: Fraction
    end: Fraction | None
    first: Fraction
    last: Fraction | None
    key: Fraction | None = None
    anchor: Fraction | None = None
    number: int = 0  # of the frame at `first`, counted from 0

    def limit(self, timing: Timing, speed: SpeedMap | None = None) -> Timing:
        """Returns a timing without the output times outside the part; `speed` maps source times to output times."""
        begin, end = self.begin, self.end
        if speed is not None:
            begin, end = speed.output_time(begin), None if end is None else speed.output_time(end)

        def limited(t0: Fraction, t1: Fraction) -> list[tuple[Fraction, Fraction]]:
            steps = timing(t0, t1)
            return [(time, step) for time, step in steps if begin <= time and (end is None or time < end)]

        return limited

    def holds(self, time: Fraction) -> bool:
        """Returns whether what is at a time of the source belongs to the part."""
        return self.begin <= time and (self.end is None or time < self.end)

    def is_before(self, time: Fraction) -> bool:
        """Returns whether a source frame at a time comes before all frames that are read."""
        return time < self.first

    def is_behind(self, time: Fraction) -> bool:
        """Returns whether a source frame at a time comes after all frames that are read."""
        return self.last is not None and time > self.last
