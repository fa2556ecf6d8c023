"""Computes the times of decoded frames: strictly rising, also where the time stamps of the file are not."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import av

REORDER = 8  # frames; stamps out of order within it come from a file that has no display times, only decoding times
# Seconds; if the last stamp of all is later than the one before by more, it is an error of the file, unless the
# header states a longer file.
LAST_JUMP = 5


class Stamped(NamedTuple):
    """Holds a decoded picture with its stamps in seconds on the clock of the file, None where the file has none."""

    picture: av.VideoFrame
    pts: Fraction | None  # time of display
    dts: Fraction | None  # decoding time of the packet that completed the picture


def out_of_order(stamps: list[Fraction | None]) -> int:
    """Returns how many stamps are not above the one before them."""
    return sum(a is not None and b is not None and a >= b for a, b in pairwise(stamps))


class Clock:
    """Gives each picture a time after the one before it, and counts what had to be repaired.

    A stamp that does not fit the stamps around it is replaced by the time that decode order and rate give. After
    a restart (joined recordings) all later stamps are moved behind the frames before it.
    """

    def __init__(
        self,
        rate: Fraction,
        *,
        decode_order: bool = False,
        first: Fraction | None = None,
        tick: Fraction | None = None,
        anchor: Fraction | None = None,
        end: Fraction | None = None,
    ) -> None:
        """Takes times from dts if `decode_order`, for pts that are out of order.

        `first` is the first frame's time, for these and for files without time stamps.
        `tick` is the time base in seconds to which the times of a constant rate are rounded: they are made exact again.
        `anchor` is the exact time of one frame, if decoding does not start at the first; `end` the time in seconds at
        which the file ends by its header, if it states one.
        """
        self.step = 1 / rate  # seconds
        self.decode_order = decode_order
        self.rebuilt = 0  # frames whose pts was not used
        self.shifts: list[Fraction] = []  # seconds that the stamps after each restart are moved by
        self._first = first
        self._shift = Fraction(0)
        self._time: Fraction | None = None  # of the picture before
        self._dts: Fraction | None = None
        self._tick = tick
        self._end = end
        self._anchor = anchor  # the time that the exact times of the rate are counted from

    def times(self, pictures: Iterable[Stamped]) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yields the pictures with their times. One picture is held back until the stamp of the next is known."""
        current = None
        for following in pictures:
            if current is not None:
                yield current.picture, self._next(current, following)
            current = following
        if current is not None:
            yield current.picture, self._next(current, None)

    def notes(self) -> list[str]:
        """Returns what was changed, for the user."""
        notes = []
        if self.shifts:
            notes.append(
                f"time stamps that start again, {len(self.shifts)} times: the parts follow one after the other"
            )
        if self.rebuilt:
            notes.append(f"the times of {self.rebuilt} frames did not rise and were computed from their order and rate")
        return notes

    def _next(self, current: Stamped, following: Stamped | None) -> Fraction:
        """Returns the time of a picture and makes it the time of the picture before."""
        stamp, after = self._stamp(current), None if following is None else self._stamp(following)
        if self._time is None:
            time = self._start(stamp)
        elif stamp is None:
            time = self._time + self.step
        else:
            time = self._checked(stamp, after, current, self._time)
        self.rebuilt += self.decode_order or (stamp is not None and time != self._stamp(current))
        self._time, self._dts = self._exact(time), current.dts
        return self._time

    def _exact(self, time: Fraction) -> Fraction:
        """Returns the time of the constant rate that a time was rounded from, or a time of another rate unchanged."""
        if self._tick is None:
            return time
        if self._anchor is not None:
            exact = self._anchor + round((time - self._anchor) / self.step) * self.step
            if abs(exact - time) <= self._tick and (self._time is None or exact > self._time):
                return exact
        self._anchor = time
        return time

    def _start(self, stamp: Fraction | None) -> Fraction:
        if stamp is None or (self.decode_order and self._first is not None):
            time = self._first or Fraction(0)
        else:
            time = stamp
        if self.decode_order and stamp is not None:
            self._shift = time - stamp
        return time

    def _stamp(self, picture: Stamped) -> Fraction | None:
        stamp = picture.dts if self.decode_order else picture.pts
        return None if stamp is None else stamp + self._shift

    def _checked(self, stamp: Fraction, after: Fraction | None, current: Stamped, before: Fraction) -> Fraction:
        """Returns a stamp, or the time that replaces it if it does not fit those before and after."""
        expected, reorder = before + self.step, REORDER * self.step
        if after is None and stamp - before > LAST_JUMP and (self._end is None or stamp >= self._end):
            return expected
        if stamp > before and (after is None or after >= stamp or after <= before):
            return stamp
        if (after is None or after <= before) and before - stamp > reorder:
            self._shift += expected - stamp
            self.shifts.append(self._shift)
            return expected
        delta = None if current.dts is None or self._dts is None else current.dts - self._dts
        if delta is not None and 0 < delta < reorder and abs(stamp - before) < reorder and not self.decode_order:
            self.decode_order, self._shift = True, before + delta - (current.dts or 0)
            return before + delta
        return expected if after is None or after <= before else min(expected, (before + after) / 2)
