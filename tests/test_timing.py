"""Tests the times of output frames and the reading of rates, as exact fractions."""

from fractions import Fraction as F
from itertools import pairwise

import pytest

from video.timing.output_times import multiply, parse_rate, parse_seconds, resample


def test_multiply_is_even_and_exact() -> None:
    assert multiply(3)(F(1, 24), F(2, 24)) == [(F(1, 24), 0), (F(4, 72), F(1, 3)), (F(5, 72), F(2, 3))]
    assert multiply(1)(F(0), F(1)) == [(0, 0)]


def test_multiply_keeps_a_variable_rate() -> None:
    assert multiply(2)(F(0), F(1, 10)) == [(0, 0), (F(1, 20), F(1, 2))]
    assert multiply(2)(F(1, 10), F(3, 10)) == [(F(1, 10), 0), (F(2, 10), F(1, 2))]


@pytest.mark.parametrize(("source", "target"), [(24, 60), (F(24000, 1001), F(60000, 1001)), (25, 60), (60, 24)])
def test_resample_lands_on_the_grid_without_gap_or_double(source: F, target: F) -> None:
    source, target = F(source), F(target)
    times = [i / source for i in range(50)]
    out = [entry for pair in pairwise(times) for entry in resample(target)(*pair)]
    assert [time for time, _ in out] == [n / target for n in range(len(out))]
    assert out[-1][0] < times[-1] <= out[-1][0] + 1 / target
    for time, step in out:
        earlier = max(t for t in times if t <= time)
        assert earlier + step / source == time


def test_two_hours_keep_their_times() -> None:
    t0 = F(1001, 24000) * 172_627  # two hours of 23.976
    (first, step), (second, half) = multiply(2)(t0, t0 + F(1001, 24000))
    assert (first, step, half) == (t0, 0, F(1, 2))
    assert second - first == F(1001, 48000)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60", F(60)), ("59.94", F(60000, 1001)), ("23.976", F(24000, 1001)), ("60000/1001", F(60000, 1001)),
     ("12.5", F(25, 2)), ("29.97", F(30000, 1001)), ("119.88", F(120000, 1001)), ("24.5", F(49, 2))],
)  # fmt: skip
def test_parse_rate(text: str, rate: F) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-24", "fast", "1/0"])
def test_parse_rate_refuses(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        parse_rate(text)


def test_parse_seconds() -> None:
    assert (parse_seconds("5"), parse_seconds("0.5")) == (5, F(1, 2))
    for text in ("0", "-1", "long"):
        with pytest.raises(ValueError, match="0" if text != "long" else "long"):
            parse_seconds(text)
