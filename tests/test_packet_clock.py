"""Tests the times of packets on the clock of the output, by hand-made stamps."""

from fractions import Fraction as F

import av
import pytest

from video.losses import TrackLosses
from video.writing.packet_clock import PacketClock

BASE = F(1, 10)  # seconds


def placed(stamps: list[int | None], *, start: F = F(0), shifts: tuple[F, ...] = (), lost: int = 0) -> list[int]:
    """Returns the times that packets with these stamps, each of 10 units, get."""
    losses = TrackLosses("sound")
    clock = PacketClock(start, list(shifts), losses, hold=True)
    times = []
    for stamp in [*stamps, "end"]:
        packet = None
        if stamp != "end":
            packet = av.Packet(b"data")
            packet.time_base, packet.duration, packet.pts, packet.dts = BASE, 10, stamp, stamp  # type: ignore[assignment]
        ready = clock.place(packet)
        if ready is not None:
            assert ready.pts == ready.dts
            times.append(ready.dts)
    assert losses.count == lost
    return times  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 10, 20, 30], [0, 10, 20, 30]),
        ([0, 10, 500, 30, 40], [0, 10, 20, 30, 40]),  # one stamp far ahead
        ([0, 10, 54, 50, 60], [0, 10, 30, 50, 60]),  # one ahead by more than the step that means a restart
        ([0, 10, 10, 20], [0, 10, 11, 20]),  # two equal stamps
        ([0, 10, None, 30], [0, 10, 11, 30]),  # no stamp
    ],
)
def test_a_stamp_out_of_line_is_replaced_by_one_between_its_neighbours(
    stamps: list[int | None], times: list[int]
) -> None:
    assert placed(stamps) == times


def test_the_start_of_the_source_is_zero() -> None:
    assert placed([36000, 36010], start=F(3600)) == [0, 10]


def test_after_a_restart_packets_move_with_the_video_or_follow_on() -> None:
    assert placed([0, 10, 20, 30, 0, 10]) == [0, 10, 20, 30, 40, 50]
    assert placed([0, 10, 20, 30, 0, 10], shifts=(F(6),)) == [0, 10, 20, 30, 60, 70]


def test_packets_that_overlap_are_left_out_and_counted() -> None:
    assert placed([0, 10, 20, 30, 0, 10, 20], shifts=(F(2),), lost=1) == [0, 10, 20, 30, 31, 40]
    assert placed([0, 10, 20, 30, 0, 10, 20, 30], shifts=(F(1),), lost=2) == [0, 10, 20, 30, 31, 40]
