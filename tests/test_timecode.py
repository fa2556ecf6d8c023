"""Tests timecodes at other rates and after a trim, against counting labels one by one."""

from fractions import Fraction as F

import pytest

from video.timing.timecode import NTSC, converted_timecode


@pytest.mark.parametrize(
    ("text", "rate", "output_rate", "skipped", "expected"),
    [
        ("01:00:00:12", F(24), F(48), 0, "01:00:00:24"),
        ("01:00:00:23", F(24), F(12), 0, "01:00:00:11"),
        ("01:00:00:12", F(25), F(25), 38, "01:00:02:00"),
        ("23:59:59:24", F(25), F(50), 1, "00:00:00:00"),
        ("00:00:59;29", NTSC, 2 * NTSC, 1, "00:01:00;04"),
        ("00:09:59;29", NTSC, NTSC, 1, "00:10:00;00"),
        ("01:00:00;02", NTSC, 3 * NTSC, 0, "01:00:00;06"),
        ("01:00:00;02", NTSC, F(60), 0, "01:00:00:04"),
        ("01:00:00.02", NTSC, NTSC, 0, "01:00:00;02"),
        ("01:00:00:02", NTSC, F(60), 0, "01:00:00:04"),
        ("noon", F(24), F(48), 0, None),
    ],
)
def test_the_first_frame_keeps_its_moment(
    text: str, rate: F, output_rate: F, skipped: int, expected: str | None
) -> None:
    assert converted_timecode(text, rate, output_rate, skipped) == expected


def test_labels_that_are_left_out_never_appear() -> None:
    """Twelve minutes at 30000/1001: the labels ;00 and ;01 are missing in each minute but every tenth."""
    labels = [
        f"00:{minute:02d}:{second:02d};{frame:02d}"
        for minute in range(12)
        for second in range(60)
        for frame in range(30)
        if not (second == 0 and frame < 2 and minute % 10)
    ]
    for number in (0, 1799, 1800, 1801, 3597, 3598, 17981, 17982, 17983, 19781, 19782, len(labels) - 1):
        assert converted_timecode("00:00:00;00", NTSC, NTSC, number) == labels[number]
