"""Maps times of the source to times of the output, exactly, and back, by a speed that may change over time."""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from model.errors import UserError
from model.files import read_text
from video.timing.numbers import parse_number

RAMP_STEP = Fraction(1, 30)  # seconds of the source with one speed within a ramp
GRAIN = 10**6  # within ramps, output times are rounded to microseconds: sums of fractions would grow without end
SPEEDS = (Fraction(1, 100), Fraction(100))


class SpeedMap:
    """Maps times by a rising line of straight pieces; the first and the last piece have no end.

    `pieces` are (time of the source from which the speed holds, speed), rising; a speed of 1/4 plays four times slower.
    The source's time 0 is the output's time 0.
    """

    def __init__(self, pieces: Sequence[tuple[Fraction, Fraction]]) -> None:
        self._sources = [time for time, _ in pieces]
        self._speeds = [speed for _, speed in pieces]
        self._outputs = [Fraction(0)]
        for i in range(1, len(pieces)):
            length = (self._sources[i] - self._sources[i - 1]) / self._speeds[i - 1]
            self._outputs.append(self._outputs[-1] + Fraction(round(length * GRAIN), GRAIN))
        offset = self.output_time(Fraction(0))
        self._outputs = [time - offset for time in self._outputs]

    @property
    def slowest(self) -> float:
        """Returns the lowest speed."""
        return float(min(self._speeds))

    def output_time(self, time: Fraction) -> Fraction:
        """Returns the time of the output, in seconds, at a time of the source."""
        i = max(bisect_right(self._sources, time) - 1, 0)
        return self._outputs[i] + (time - self._sources[i]) / self._slope(i)

    def source_time(self, time: Fraction) -> Fraction:
        """Returns the time of the source, in seconds, at a time of the output."""
        i = max(bisect_right(self._outputs, time) - 1, 0)
        return self._sources[i] + (time - self._outputs[i]) * self._slope(i)

    def speed(self, time: Fraction) -> float:
        """Returns the speed at a time of the source."""
        return float(self._speeds[max(bisect_right(self._sources, time) - 1, 0)])

    def _slope(self, i: int) -> Fraction:
        """Returns the speed of a piece between its rounded ends."""
        if i + 1 == len(self._speeds):
            return self._speeds[i]
        return (self._sources[i + 1] - self._sources[i]) / (self._outputs[i + 1] - self._outputs[i])


def constant_speed(speed: Fraction) -> SpeedMap:
    """Returns the map of one speed."""
    return SpeedMap([(Fraction(0), speed)])


def ramps(points: Sequence[tuple[Fraction, Fraction]]) -> SpeedMap:
    """Returns the map of speeds that change evenly from each point (time of the source, speed) to the next."""
    pieces = []
    for (t0, v0), (t1, v1) in pairwise(points):
        count = 1 if v0 == v1 else max(int((t1 - t0) / RAMP_STEP), 1)
        for k in range(count):
            middle = Fraction(2 * k + 1, 2 * count)
            speed = (v0 + (v1 - v0) * middle).limit_denominator(GRAIN)
            pieces.append((t0 + (t1 - t0) * Fraction(k, count), speed))
    return SpeedMap([*pieces, points[-1]])


def read_ramps(path: Path, start: Fraction = Fraction(0)) -> SpeedMap:
    """Reads lines of a time in seconds and a speed, as in "2.5 0.25"; `start` is the time that becomes 0.

    Raises UserError with file and remedy.
    """
    try:
        lines = [line.split("#")[0].split() for line in read_text(path, "utf-8-sig").splitlines()]
        points = [(parse_number(time) - start, parse_number(speed)) for time, speed in filter(None, lines)]
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); give another file") from e
    except ValueError as e:
        raise UserError(f"{path}: not lines of a time and a speed, as 2.5 0.25 ({e})") from e
    times = [time for time, _ in points]
    if not points or times != sorted(set(times)):
        raise UserError(f"{path}: times must rise from line to line; bring them in order")
    if not all(SPEEDS[0] <= speed <= SPEEDS[1] for _, speed in points):
        raise UserError(f"{path}: a speed is {float(SPEEDS[0]):g} to {SPEEDS[1]}; 0.25 plays four times slower")
    return ramps(points)
