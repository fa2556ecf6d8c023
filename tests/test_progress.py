"""Tests the progress of a run: a time left that falls evenly, lines in a log, a bar on a terminal."""

import io
import sys
from fractions import Fraction

import numpy as np
import pytest

from commands.progress import Progress, Speed, format_seconds
from video.frame import Frame

PICTURE = np.zeros((2, 2, 3), np.uint8)


class Clock:
    """Holds a time in seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def frame(made: bool) -> Frame:
    return Frame(PICTURE, Fraction(0), made=made)


def test_a_steady_run_has_its_exact_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four frames of which three are made take 2 s: 2 frames/s, 1/24 of 48 frames/s, 1,000 frames in 500 s."""
    clock = Clock()
    with Progress(1000, Fraction(48), clock) as progress:
        for i in range(400):
            made = i % 4 != 0
            clock.now += 2 / 3 if made else 0
            progress.add(frame(made))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 19  # one in ten seconds or, where frames do not end on them, a little more
    assert lines[-1].startswith("396/1000 frames, ")
    speed, ratio, left = lines[-1].split(", ")[1:]
    assert float(speed.split()[0]) == pytest.approx(2, rel=0.02)
    assert ratio == "0.042x real time"
    assert left == "5 min 02 s left"


def test_frames_that_cost_nothing_do_not_move_the_time_left() -> None:
    """Every made frame takes 1 s. Held frames come in bursts; the rest has as many of them as what is done."""
    clock = Clock()
    progress = Progress(4000, Fraction(24), clock)
    errors = []
    for i in range(3000):
        made = (i // 50) % 2 == 0
        clock.now += made
        progress.add(frame(made))
        left = progress.seconds_left()
        if i > 1000 and left is not None:
            errors.append(left / (2000 - (i // 100 * 50 + min(i % 100, 50))) - 1)
    assert max(abs(error) for error in errors) < 0.07


def test_a_slow_stretch_moves_the_time_left_slowly() -> None:
    clock = Clock()
    progress = Progress(10_000, Fraction(24), clock)
    left: list[float] = []
    for i in range(2000):
        clock.now += 3.0 if 1000 <= i < 1004 else 0.5  # 10 s for four frames in the middle
        progress.add(frame(True))
        left.append(progress.seconds_left() or 0.0)
    assert left[999] == pytest.approx(4500, rel=0.01)
    assert max(left[1000:]) < 1.12 * left[999]
    assert left[-1] == pytest.approx(4000, rel=0.01)


def test_the_speed_follows_a_lasting_change_in_minutes() -> None:
    speed = Speed(0.0)
    for second in range(1, 601):
        speed.add(10 if second <= 300 else 20, float(second))
    assert speed.per_second == pytest.approx(20, rel=0.06)


def test_without_a_total_or_beyond_it_there_is_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    for total, shown in ((None, "30 frames, 1 frames/s, 0.042x real time"), (5, "30 frames, 1 frames/s, 0.042x")):
        clock = Clock()
        with Progress(total, Fraction(24), clock) as progress:
            for _ in range(31):
                clock.now += 1
                progress.add(frame(True))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 3
        assert lines[-1].startswith(shown)
        assert "left" not in lines[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [40, None])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock()
    with Progress(total, Fraction(24), clock) as progress:
        for _ in range(40):
            clock.now += 0.25
            progress.add(frame(True))
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert ("100%|" in last) == bool(total)
    assert f"40{'/40' if total else ''} frames, 4 frames/s, 0.17x real time" in last


def test_durations_in_words() -> None:
    assert [format_seconds(s) for s in (0.4, 59.6, 150, 1500, 11_100)] == [
        "0 s", "1 min 00 s", "2 min 30 s", "25 min", "3 h 05 min",
    ]  # fmt: skip
