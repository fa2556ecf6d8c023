"""Converts a timecode (SMPTE ST 12-1), such as 01:00:00:12, to the label of the first frame at another rate."""

import re
from fractions import Fraction

TIMECODE = "timecode"  # FFmpeg's name of the tag
FORM = re.compile(r"(\d{1,2}):(\d\d):(\d\d)([:;.])(\d{1,3})")  # ; and . mark that labels are left out
NTSC = Fraction(30000, 1001)
# Labels that are left out at 30000/1001 frames/s in each minute but every tenth; n times as many at n times that rate.
DROPPED = 2
DAY = 24 * 60  # minutes


def converted_timecode(text: str, rate: Fraction, output_rate: Fraction, skipped: int = 0) -> str | None:
    """Returns the timecode of an output whose first frame is `skipped` frames after that of the timecode `text`.

    Hours, minutes and seconds stay; the number of the frame is that of `output_rate` in frames/s. Where labels are left
    out at `rate`, but cannot be at `output_rate`, none is. Returns None if the text is no timecode.
    """
    found = FORM.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds, frame = (int(found[i]) for i in (1, 2, 3, 5))
    nominal = round(rate)
    dropped = _dropped(rate) if found[4] != ":" else 0
    minute = hours * 60 + minutes
    number = (minute * 60 + seconds) * nominal + frame - dropped * (minute - minute // 10) + skipped
    minute, second, frame = _label(number, nominal, dropped)
    separator = ";" if dropped and _dropped(output_rate) else ":"
    frame = frame * round(output_rate) // nominal
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}:{second:02d}{separator}{frame:02d}"


def _dropped(rate: Fraction) -> int:
    """Returns how many labels are left out in a minute at a rate that allows it: 30000/1001 and its multiples."""
    times = rate / NTSC
    return DROPPED * int(times) if times.denominator == 1 else 0


def _label(number: int, nominal: int, dropped: int) -> tuple[int, int, int]:
    """Returns minute, second and frame of the label of a frame."""
    if dropped:
        long = 60 * nominal  # labels of a minute from which none is left out
        tens, rest = divmod(number, 10 * long - 9 * dropped)
        number += 9 * dropped * tens + (dropped * ((rest - long) // (long - dropped) + 1) if rest >= long else 0)
    minute, rest = divmod(number, 60 * nominal)
    return minute % DAY, rest // nominal, rest % nominal
