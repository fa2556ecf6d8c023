"""Tests the times of decoded frames: rising stamps are kept, others are computed from order and rate."""

from collections.abc import Sequence
from fractions import Fraction as F
from itertools import pairwise
from typing import Any

import pytest

from video.reading.clock import Clock, Stamped

RATE = F(25)


def times(pts: Sequence[float | None], dts: Sequence[int | None] = (), **settings: Any) -> tuple[list[F], Clock]:
    """Returns the times that a clock gives to stamps, all in frames of 1/25 s."""
    clock = Clock(RATE, **settings)
    decoding = [*dts, *[None] * (len(pts) - len(dts))]
    stamps: Any = [
        Stamped(None, *(None if t is None else F(t) / RATE for t in pair))  # type: ignore[arg-type]
        for pair in zip(pts, decoding, strict=True)
    ]
    return [time * RATE for _, time in clock.times(stamps)], clock


@pytest.mark.parametrize("pts", [[0, 1, 2, 3], [0, 2.5, 3, 700], [4, 5, 6]])
def test_rising_stamps_are_kept(pts: list[float]) -> None:
    """Variable rates, gaps and a late start among them; only the very last stamp has nothing behind it to prove it."""
    got, clock = times([*pts, 701 if pts[-1] == 700 else pts[-1] + 1])
    assert got[:-1] == pts
    assert (clock.rebuilt, clock.shifts) == (0, [])


@pytest.mark.parametrize(("end", "last"), [(800, 700), (700, 3), (None, 3)])
def test_a_last_stamp_far_ahead_is_right_if_the_header_states_a_longer_file(end: int | None, last: int) -> None:
    got, clock = times([0, 1, 2, 700], end=None if end is None else F(end) / RATE)
    assert got == [0, 1, 2, last]
    assert clock.rebuilt == (last != 700)


def test_without_stamps_the_rate_gives_the_times() -> None:
    got, clock = times([None] * 4)
    assert got == [0, 1, 2, 3]
    assert clock.rebuilt == 0
    got, _ = times([None] * 4, first=F(-2) / RATE)  # the span that is used begins 2 frames later
    assert got == [-2, -1, 0, 1]


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, 1, 200_000, 3, 4], [0, 1, 2, 3, 4]),  # one stamp far too late
        ([0, 1, 2, 200_000], [0, 1, 2, 3]),  # the last one
        ([10, 11, 2, 13, 14], [10, 11, 12, 13, 14]),  # one too early
        ([0, 1, 1, 2, 3], [0, 1, 1.5, 2, 3]),  # twice the same
    ],
)
def test_a_stamp_out_of_line_is_replaced(pts: list[float], expected: list[float]) -> None:
    got, clock = times(pts)
    assert got == expected
    assert clock.rebuilt == 1


def test_after_a_restart_the_second_part_follows_the_first() -> None:
    got, clock = times([*range(30), *range(30), *range(30)])
    assert got == list(range(90))
    assert [shift * RATE for shift in clock.shifts] == [30, 60]


def test_display_times_in_decoding_order_give_way_to_the_decoding_times() -> None:
    """H.264 with B-frames in AVI: the file has decoding times alone, and they are taken for display times."""
    shown = [0, 2, 3, 1, 5, 6, 4, 8, 9, 7, 11, 12, 10]
    got, _ = times(shown, range(2, 15), decode_order=True, first=F(0))
    assert got == list(range(13))
    got, clock = times(shown, range(2, 15))
    assert clock.decode_order  # found out on the way
    assert [b - a for a, b in pairwise(got[3:])] == [1] * 9


def test_holes_in_the_decoding_times_stay() -> None:
    got, _ = times([0, 2, 1, 6, 5, 7], [2, 3, 4, 7, 8, 9], decode_order=True, first=F(0))
    assert got == [0, 1, 2, 5, 6, 7]
