"""Computes frames at other timesteps with a network that estimates only the middle: by repeated halving."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

# Largest distance of k/2^n from the requested timestep: half of upstream's --rthreshold.
HALVING_TOLERANCE = Fraction(1, 100)

FrameT = TypeVar("FrameT")


def reachable(timestep: float | Fraction, tolerance: float | Fraction) -> Fraction:
    """Returns the timestep k/2^n with the smallest n that is within `tolerance`.

    Raises ValueError if there is none for n up to 16.
    """
    exact = Fraction(timestep)
    for n in range(1, 17):
        k = min(max(round(exact * 2**n), 1), 2**n - 1)
        if abs(Fraction(k, 2**n) - exact) <= tolerance:
            return Fraction(k, 2**n)
    raise ValueError(f"halving reaches k/2^n only: no such timestep within {float(tolerance):g} of {timestep}")


def halve(
    frame0: FrameT,
    frame1: FrameT,
    targets: Sequence[Fraction],  # within (low, high), rising, each k/2^n
    middle: Callable[[FrameT, FrameT, bool], FrameT],
    low: Fraction = Fraction(0),
    high: Fraction = Fraction(1),
) -> Iterator[FrameT]:
    """Yields the frames at the targets, from the frames at `low` and `high`.

    `middle(frame0, frame1, reused)` returns the frame between two; `reused` is True if it becomes an input later.
    """
    if not targets:
        return
    half = (low + high) / 2
    earlier, later = [t for t in targets if t < half], [t for t in targets if t > half]
    frame = middle(frame0, frame1, bool(earlier or later))
    yield from halve(frame0, frame, earlier, middle, low, half)
    for _ in range(targets.count(half)):
        yield frame
    yield from halve(frame, frame1, later, middle, half, high)
