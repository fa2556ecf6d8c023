"""Computes the times of the output frames between two input frames, as exact fractions of a second."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from video.timing.numbers import parse_number
from video.timing.speed import SpeedMap, constant_speed

# (time of a frame, time of the next) -> [(output time, timestep between the two)]; timestep 0 is the frame itself
JITTER = Fraction(1, 10)  # of a frame: for times that jitter
Timing = Callable[[Fraction, Fraction], list[tuple[Fraction, Fraction]]]


def multiply(multi: int, fastest: Fraction | None = None) -> Timing:
    """Returns a timing with `multi` output frames a frame, evenly spaced up to the next frame.

    There are fewer where they would come faster than `fastest` frames/s by more than JITTER.
    """

    def timing(t0: Fraction, t1: Fraction) -> list[tuple[Fraction, Fraction]]:
        most = multi if fastest is None else math.floor((t1 - t0) * fastest + JITTER)
        count = max(min(multi, most), 1)
        steps = [Fraction(k, count) for k in range(count)]
        return [(t0 + (t1 - t0) * step, step) for step in steps]

    return timing


def resample(
    rate: Fraction,
    start: Fraction = Fraction(0),
    speed: SpeedMap | None = None,
    offsets: Sequence[Fraction] = (Fraction(0),),
) -> Timing:
    """Returns a timing with output frames at start + n/rate, for an input of any constant or variable rate.

    `speed` maps the times of the input to those of the output. `offsets` in seconds, below 1/rate and rising, give
    several frames for each n, at start + n/rate + offset.
    """
    speed = speed or constant_speed(Fraction(1))

    def timing(t0: Fraction, t1: Fraction) -> list[tuple[Fraction, Fraction]]:
        low, high = (speed.output_time(time) - start for time in (t0, t1))
        times = [
            start + Fraction(n) / rate + offset
            for offset in offsets
            for n in range(math.ceil((low - offset) * rate), math.ceil((high - offset) * rate))
        ]
        return [(time, (speed.source_time(time) - t0) / (t1 - t0)) for time in sorted(times)]

    return timing


def parse_rate(text: str) -> Fraction:
    """Reads a frame rate: 60, 60000/1001, or 59.94, which is read as 60000/1001, as are the other NTSC rates.

    Raises ValueError if it is not a positive number.
    """
    rate = parse_number(text)
    if rate <= 0:
        raise ValueError(f"a frame rate is above 0, got {text}")
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    is_ntsc = rate.denominator != 1 and "/" not in text and abs(rate - ntsc) < Fraction(1, 150)
    return ntsc if is_ntsc else rate


def parse_seconds(text: str) -> Fraction:
    """Reads a duration above 0 in seconds, e.g. 5 or 0.5. Raises ValueError if it is not one."""
    seconds = parse_number(text)
    if seconds <= 0:
        raise ValueError(f"a duration is above 0, got {text}")
    return seconds
