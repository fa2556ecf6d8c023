"""Finds the frame rate of a stream, whether it is constant, and how many frames it has; without decoding."""

from fractions import Fraction
from itertools import islice, pairwise
from statistics import median

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from video.frame import LONG_LAST_FRAME
from video.reading.container import Location, open_container, read_packets
from video.reading.matroska import tagged_duration

PLAUSIBLE_RATES = 1, 300  # frames/s; outside, the average of a container is not used
RATE_SAMPLE = 100  # packets whose times give the rate instead, and show whether it is constant
FEWEST_PACKETS = 5  # packets that show a constant rate
FULL_SHARE = 0.8  # of the times of a constant rate that must have a frame: nearly any times lie on a very fine grid
LARGEST_CORRECTION = Fraction(1, 500)  # of a rate that was computed from rounded times
MILLISECOND = Fraction(1, 1000)
NEAR = Fraction(3, 2)  # largest ratio of the rate of the first packets to a guess that is right
# FFmpeg's names of formats without a container: it gives them 25 frames/s, whatever rate the encoder has written.
ELEMENTARY = ("h264", "hevc", "vvc", "mpegvideo", "m4v")
FINEST_TICK = 10_000  # ticks a second at least of the time base of a constant rate


def find_rate(location: Location, stream: VideoStream) -> Fraction:
    """Returns frames/s: the container's average if it is plausible, else that of the first packets.

    FFmpeg's guess decides where it is near that, or where there are too few packets: it may be the rate of fields. A
    stream without a container has the rate that its encoder has written into it.
    """
    lowest, highest = PLAUSIBLE_RATES
    guess, rate = stream.guessed_rate, stream.average_rate
    if stream.container.format.name in ELEMENTARY:
        rate = stream.codec_context.framerate or rate
    if rate and lowest <= rate <= highest:
        return _rate_before_last(location, stream) or rate
    plausible = guess if guess and lowest <= guess <= highest else None
    times = _first_times(location, stream)
    steps = [b - a for a, b in pairwise(times) if b > a]
    if not steps:
        return plausible or Fraction(25)
    usual = [step for step in steps if step <= 10 * median(steps)]  # without gaps
    average = len(usual) / sum(usual, Fraction(0))
    if plausible and (len(usual) < FEWEST_PACKETS - 1 or 1 / NEAR < average / plausible < NEAR):
        return plausible
    return average.limit_denominator(1001) or average  # below 1/2002 it would be rounded to 0


def _rate_before_last(location: Location, stream: VideoStream) -> Fraction | None:
    """Returns the rate of all frames but the last if that is shown for long, as in GIF and screen recordings; or None.

    The average rate of the container counts the duration of that frame. The result is None unless the container lists
    all frames or is GIF.
    """
    times = [entry.timestamp for entry in stream.index_entries if not entry.is_discard]
    if "gif" in stream.container.format.name:
        with open_container(location) as container:
            times = [packet.pts for packet in read_packets(container) if packet.pts is not None]
    if len(times) < FEWEST_PACKETS or len(times) != stream.frames or not stream.duration or not stream.time_base:
        return None
    span = max(times) - min(times)
    last = stream.duration - span  # units, as span
    if span <= 0 or last * (len(times) - 1) <= LONG_LAST_FRAME * span:
        return None
    return (len(times) - 1) / (span * stream.time_base)


def find_rounded_rate(location: Location, stream: VideoStream, rate: Fraction) -> tuple[Fraction, Fraction] | None:
    """Returns the constant rate whose times the time stamps are, and the tick in seconds that they are rounded to.

    Matroska, for one, stores milliseconds: at 60000/1001 frames/s its steps are 16 and 17 ms. Other containers keep the
    milliseconds of what was copied from it. Returns None if the rate is not constant, or the stamps are exact.
    """
    base = stream.time_base
    if not base or (1 / rate) % base == 0:
        return None
    times = _first_times(location, stream)
    steps = {after - before for before, after in pairwise(times)}
    if len(steps) == 1 and len(times) >= FEWEST_PACKETS:  # exact; FFmpeg rounds the average of long steps
        return 1 / steps.pop(), base
    tick = base
    if base < MILLISECOND and all(abs(t - times[0] - round((t - times[0]) * 1000) * MILLISECOND) < base for t in times):
        tick = MILLISECOND
    found = [c for c in (stream.guessed_rate, stream.average_rate, rate) if c]
    candidates = (candidate for c in found for candidate in (*_usual_rates(c), c))
    return next(((candidate, tick) for candidate in candidates if _is_constant(times, candidate, tick)), None)


def _is_constant(times: list[Fraction], rate: Fraction, tick: Fraction) -> bool:
    """Returns whether times in seconds are those of a constant rate, each with an error of one tick at most."""
    if len(times) < FEWEST_PACKETS:
        return False
    numbers = [round((time - times[0]) * rate) for time in times]
    errors = [abs(time - times[0] - number / rate) for time, number in zip(times, numbers, strict=True)]
    distinct = len(set(numbers)) == len(numbers)
    return distinct and max(errors) <= tick and len(numbers) >= FULL_SHARE * (numbers[-1] + 1)


def _usual_rates(rate: Fraction) -> list[Fraction]:
    """Returns the whole rate and the NTSC rate (1000/1001 of a whole one) next to a rate, the nearer first."""
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    near = (r for r in (Fraction(round(rate)), ntsc) if abs(r - rate) < rate * LARGEST_CORRECTION)
    return sorted(near, key=lambda r: abs(r - rate))


def _first_times(location: Location, stream: VideoStream) -> list[Fraction]:
    """Returns the first times of display, in order, in seconds."""
    base = stream.time_base or Fraction(1)
    with open_container(location) as container:
        packets = (packet for packet in read_packets(container) if packet.stream.index == stream.index)
        shown = (p for p in islice(packets, RATE_SAMPLE) if p.pts is not None and not p.is_discard)
        times = sorted(packet.pts * base for packet in shown if packet.pts is not None)
    # Frames between the last ones may come later in the file.
    return times[: max(len(times) - FEWEST_PACKETS, FEWEST_PACKETS)]


def exact_time_base(rate: Fraction) -> Fraction:
    """Returns a time base in seconds in which the steps of a rate are whole, and an offset is exact to 0.1 ms."""
    ticks = rate.numerator
    return Fraction(1, ticks * max(1, -(-FINEST_TICK // ticks)))


def count_frames(container: InputContainer, stream: VideoStream, rate: Fraction) -> int | None:
    """Returns how many frames a stream shows, as far as its container has that number or its duration; else None."""
    shown = sum(not entry.is_discard for entry in stream.index_entries)
    if stream.frames:
        # The index of a trimmed MP4 or MOV file has the frames that are shown, its header counts all.
        trimmed = container.format.name.startswith("mov") and shown < len(stream.index_entries)
        return shown if trimmed else stream.frames
    if duration := _duration(container, stream):
        return round(duration * rate)
    return None


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Returns the duration of a stream in seconds, or that of the whole file; None if neither is known."""
    if stream.duration and stream.time_base:
        index = stream.index_entries
        # Of a fragmented MP4 file, which has no number of frames, FFmpeg may give the end instead.
        is_end = container.format.name.startswith("mov") and not stream.frames and len(index) > 0
        is_end = is_end and index[-1].timestamp < stream.duration
        return (stream.duration - (max(index[0].timestamp, 0) if is_end else 0)) * stream.time_base
    if (end := tagged_duration(stream)) is not None:
        return end - Fraction(max(stream.start_time or 0, 0)) * (stream.time_base or 0)
    return Fraction(container.duration, av.time_base) if container.duration else None
