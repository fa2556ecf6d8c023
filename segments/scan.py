"""Finds where a source may be cut into segments, from the times of its packets: nothing is decoded as a rule."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from video.pictures.picture import MediaError, list_pictures
from video.reading.clock import Clock, Stamped
from video.reading.container import main_video, open_container
from video.reading.decoder import Decoder
from video.reading.joined import is_joined
from video.reading.reader import Source
from video.reading.source_part import SourcePart

# Source frames that are read on both sides of a segment. The rule for cuts compares a frame with two neighbours on each
# side; a repeat that is replaced, or a run of repeats, reaches a few frames further. A difference of the state at the
# first frame is gone after them.
BEFORE, AFTER = 12, 8
SEARCH = Fraction(1, 4)  # of the length of a segment: how far a boundary may be moved to a key frame


class Key(NamedTuple):
    """Holds the time of a frame at which decoding may start."""

    time: Fraction  # seconds, exact
    stamp: Fraction  # seconds, as the file has it: rounded


@dataclass
class Scan:
    """Holds the times of all frames of a source, rising, in seconds on the clock of its frames."""

    times: list[Fraction]
    keys: list[Key] = field(default_factory=list)  # rising
    errors: list[str] = field(default_factory=list)  # damage that only the whole file shows
    decoded: bool = False  # the whole source was decoded, because its packets have no exact times


def scan_source(source: Source) -> Scan:
    """Returns the times and the key frames of a source.

    Decodes the source where its packets have no display times, or where their times are repaired while decoding.
    Raises MediaError if it cannot be read.
    """
    if not source.is_video:
        count = len(list_pictures(source.path))
        return Scan(_within(source, [i / source.rate - source.start for i in range(count)]))
    with open_container(source.location) as container:
        stream = main_video(container, source.stream)
        if stream is None or stream.time_base is None:
            raise MediaError(f"{source.path}: its video stream is gone; was the file replaced?")
        decoder = Decoder(container, stream)
        stamps: list[int | None] = []  # of the frames that are shown
        keys: list[int] = []
        for packet in decoder.video_packets():
            if not packet.is_discard:
                stamps.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None:
                    keys.append(packet.pts)
        errors, base = decoder.errors(), stream.time_base
        joined = is_joined(source.location, container, decoder)
        if not joined:
            errors += decoder.missing_end(source.location)
    known = sorted(stamp for stamp in stamps if stamp is not None)
    if joined or source.filters is not None or source.decode_order or len(set(known)) < len(stamps):
        return Scan(_within(source, [frame.time for frame in source]), errors=errors, decoded=True)
    clock = Clock(source.rate, tick=source.tick)
    blank: Any = None  # in place of a picture
    exact = [time for _, time in clock.times(Stamped(blank, stamp * base - source.start, None) for stamp in known)]
    starts = [Key(exact[bisect_left(known, stamp)], stamp * base - source.start) for stamp in sorted(keys)]
    return Scan(_within(source, exact), starts, errors)


def _within(source: Source, times: list[Fraction]) -> list[Fraction]:
    """Returns the times within the span of a source that is used; raises MediaError if they are fewer than two."""
    low, high = Fraction(0) if source.is_trimmed else None, source.length
    used = [time for time in times if (low is None or time >= low) and (high is None or time < high)]
    if len(used) < 2:
        raise MediaError(f"{source.path}: {len(used)} frames in the span; interpolation needs two or more")
    return used


def cut_source(scan: Scan, seconds: Fraction) -> list[SourcePart]:
    """Returns the parts of a source, each of about the given length, whose boundaries lie on frames.

    A boundary lies on a key frame near the wanted time, if there is one: at best on one that its encoder has placed
    earlier than the usual distance, as encoders do at cuts.
    """
    keys, early = [key.time for key in scan.keys], _early_keys(scan)
    starts, last = [0], len(scan.times) - 2  # a segment has two frames at least
    while (wanted := scan.times[starts[-1]] + seconds) <= scan.times[-1] - seconds * SEARCH and starts[-1] + 1 < last:
        reach = seconds * SEARCH
        chosen = _nearest(early, wanted, reach) or _nearest(keys, wanted, reach) or wanted
        starts.append(min(max(bisect_left(scan.times, chosen), starts[-1] + 2), last))
    return [_part(scan, start, end) for start, end in pairwise([*starts, None]) if start is not None]


def _early_keys(scan: Scan) -> list[Fraction]:
    """Returns the times of the key frames that come earlier than the largest distance of two of them."""
    keys = [key.time for key in scan.keys]
    usual = max((b - a for a, b in pairwise(keys)), default=Fraction(0))
    return [b for a, b in pairwise(keys) if b - a < usual]


def boundary_kinds(scan: Scan, times: Iterable[Fraction]) -> list[str]:
    """Returns the kind of frame at each boundary: a cut (estimated from key frames), another key frame, or another."""
    kinds = {key.time: "key frame" for key in scan.keys}
    kinds.update(dict.fromkeys(_early_keys(scan), "cut"))
    kinds[scan.times[0]] = "start"
    return [kinds.get(time, "frame") for time in times]


def _nearest(times: list[Fraction], wanted: Fraction, reach: Fraction) -> Fraction | None:
    """Returns the time nearest to the wanted one, of rising times; None if none is within reach."""
    place = bisect_left(times, wanted)
    near = [time for time in times[max(place - 1, 0) : place + 1] if abs(time - wanted) <= reach]
    return min(near, key=lambda time: abs(time - wanted), default=None)


def _part(scan: Scan, start: int, end: int | None) -> SourcePart:
    """Returns the part from one frame to before another, by their indices, with the frames around it."""
    times = scan.times
    first = times[max(start - BEFORE, 0)]
    number = bisect_right(scan.keys, first, key=lambda key: key.time) - 1
    key = scan.keys[number] if number > 0 else None
    behind = None if end is None or end + AFTER >= len(times) else times[end + AFTER]
    return SourcePart(
        times[start],
        None if end is None else times[end],
        first,
        behind,
        None if key is None else key.stamp,
        None if key is None else key.time,
        max(start - BEFORE, 0),
    )
