"""Checks a finished video by the times of its packets, without decoding a picture."""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

from av.packet import Packet
from av.stream import Stream

from video.containers import container_of
from video.frame import Frame
from video.losses import LIBRARY_ERRORS, reason
from video.reading.container import main_video, open_container, read_packets
from video.reading.reader import Source
from video.writing.packet_clock import is_priming
from video.writing.picture_writer import WRITTEN_SUFFIXES

REORDERED = 64  # packets; encoders put a packet less far from its place in the order of display
DELAYED = 16  # frames at most by which B-frames delay decoding (H.264 and H.265)
SEARCHED = 5000  # packets at the start of a source in which each sound track must begin
# Half a step of GIF, whose delays are whole hundredths of a second, and of the usual rates.
SHORTEST_STEP = Fraction(1, 50)  # seconds
# Decoders and encoders of sound leave out or add some packets at the start (WMA: 64 ms).
SOUND_TOLERANCE = Fraction(1, 10)  # seconds
SOUND_DELAY = 2  # packets


@dataclass
class FrameTimes:
    """Counts the frames that a writer was given, and holds their first and last time."""

    count: int = 0
    first: Fraction = Fraction(0)  # seconds
    last: Fraction = Fraction(0)  # seconds

    def add(self, frame: Frame) -> None:
        """Counts one frame; frames come in the order of their times."""
        if not self.count:
            self.first = frame.time
        self.count, self.last = self.count + 1, frame.time


@dataclass
class PacketTimes:
    """Holds the times of the packets of a file: of its picture, and the start of each of its sound tracks."""

    frames: int = 0  # packets of the picture
    tick: Fraction = Fraction(0)  # seconds, the unit of their times
    first: Fraction | None = None  # seconds on the clock of the container, of the first picture in order of display
    last: Fraction | None = None  # seconds, of the last picture
    disordered: int = 0  # pictures that are not later than the one before them
    decoding_only: bool = False  # the container has no times of display, only of decoding: AVI
    undecodable: int = 0  # packets of the picture whose decoding times do not rise
    sounds: list[Fraction | None] = field(default_factory=list)  # seconds, the first packet of each sound track
    delays: list[Fraction] = field(default_factory=list)  # seconds, the duration of these packets


def read_packet_times(path: Path) -> PacketTimes:
    """Reads the times of all packets of a video file. Raises MediaError if it cannot be opened."""
    found = PacketTimes()
    with open_container(path) as container:
        video, sounds = main_video(container), list(container.streams.audio)
        found.tick = (video and video.time_base) or Fraction(0)
        found.decoding_only = container.format.name == "avi"
        starts: dict[int, Packet] = {}
        if video is not None:
            times = _picture_times(read_packets(container, [video, *sounds]), video, starts, found)
            for before, time in pairwise(_with_first(_sorted(times), found)):
                found.disordered += time <= before
                found.last = time
        found.sounds = [_seconds(starts[s.index]) if s.index in starts else None for s in sounds]
        found.delays = [_duration(starts[s.index]) if s.index in starts else Fraction(0) for s in sounds]
    return found


def _picture_times(
    packets: Iterable[Packet], video: Stream, starts: dict[int, Packet], found: PacketTimes
) -> Iterator[Fraction]:
    """Yields the times of display of the pictures in the order of decoding; keeps each other stream's first packet."""
    decoded: int | None = None
    for packet in packets:
        if not packet.size:
            continue
        if packet.stream.index != video.index:
            starts.setdefault(packet.stream.index, packet)
            continue
        found.frames += 1
        if packet.dts is not None:
            found.undecodable += decoded is not None and packet.dts <= decoded
            decoded = packet.dts
        time = _seconds(packet)
        if time is not None:
            yield time


def _sorted(times: Iterable[Fraction]) -> Iterator[Fraction]:
    """Yields times in rising order that are at most REORDERED places from it."""
    waiting: list[Fraction] = []
    for time in times:
        if len(waiting) < REORDERED:
            heapq.heappush(waiting, time)
        else:
            yield heapq.heappushpop(waiting, time)
    yield from sorted(waiting)


def _with_first(times: Iterator[Fraction], found: PacketTimes) -> Iterator[Fraction]:
    for time in times:
        if found.first is None:
            found.first = found.last = time
        yield time


def _seconds(packet: Packet) -> Fraction | None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None or not packet.time_base else stamp * packet.time_base


def _duration(packet: Packet) -> Fraction:
    return (packet.duration or 0) * (packet.time_base or Fraction(0))


def find_sound_starts(source: Source) -> list[Fraction | None]:
    """Returns when each sound track of a source has to begin in the output, in seconds; None: unknown.

    Only the start of the file is read.
    """
    starts: dict[int, Fraction | None] = {}
    firsts: dict[int, Fraction] = {}
    try:
        with open_container(source.location) as container:
            sounds = [stream.index for stream in container.streams.audio]
            for packet in islice(read_packets(container), SEARCHED):
                if packet.size and packet.stream.index in sounds:
                    time = _seconds(packet)
                    first = firsts.setdefault(packet.stream.index, (time or source.start) - source.start)
                    if not packet.is_discard or is_priming(first, _duration(packet)):  # else an edit list hides it
                        starts.setdefault(packet.stream.index, time)
                if len(starts) == len(sounds):
                    break
    except LIBRARY_ERRORS:
        return []
    found = [starts.get(index) for index in sounds]
    return [None if start is None else source.output_time(start - source.start) for start in found]


def find_mismatches(
    path: Path, times: FrameTimes, rate: Fraction, sounds: Sequence[Fraction | None] = (), slowed: float = 1.0
) -> tuple[PacketTimes | None, list[str]]:
    """Reads a finished video and returns its packets' times, and what does not agree with the frames given to it.

    `rate` is the frame rate of the output. `sounds` holds when each sound track is expected to begin, in seconds on the
    clock of `times`; it is compared only if the file has as many tracks. `slowed` is how many times slower than the
    source the sound is played at most: what its decoder leaves out at the start is longer then.
    """
    animation = container_of(path.suffix).animation
    try:
        if animation is not None and animation.is_one_packet:
            return None, _length_mismatch(animation.read_length(path), times)
        found = read_packet_times(path)
    except LIBRARY_ERRORS as e:
        return None, [f"the result cannot be read back ({reason(e)})"]
    return found, [*_picture_mismatches(found, times, rate), *_sound_mismatches(found, times, sounds, max(slowed, 1))]


def _length_mismatch(length: Fraction, times: FrameTimes) -> list[str]:
    """Returns a line if a file is shorter than its frames; equal ones are stored as one picture."""
    expected = times.last - times.first
    return (
        [] if length >= expected else [f"lasts {float(length):.3f} s, more than {float(expected):.3f} s were written"]
    )


def find_missing_pictures(folder: Path, count: int) -> list[str]:
    """Returns a line if pictures of `count` that are numbered from 0 are missing in a folder, or empty."""
    try:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
    except OSError as e:
        return [f"the pictures cannot be listed ({e.strerror})"]
    wrong = [i for i in range(count) if not any(sizes.get(f"{i:07d}{suffix}") for suffix in WRITTEN_SUFFIXES)]
    return [f"{len(wrong)} of {count} pictures are missing or empty, the first is {wrong[0]:07d}"] if wrong else []


def _picture_mismatches(found: PacketTimes, times: FrameTimes, rate: Fraction) -> list[str]:
    wrong = []
    if found.frames != times.count:
        wrong.append(f"holds {found.frames} frames, {times.count} were written")
    is_coarse = 2 * found.tick > 1 / rate  # two frames may have one time
    if found.disordered and not is_coarse:
        wrong.append(f"{found.disordered} frames are not later than the frame before them")
    if found.undecodable and not is_coarse:
        wrong.append(f"the decoding times of {found.undecodable} frames do not rise")
    if found.first is not None and found.last is not None:
        span, expected = found.last - found.first, times.last - times.first
        moved = DELAYED / rate if found.decoding_only else 0  # decoding times are earlier by frames of another duration
        if abs(span - expected) > max(1 / (2 * rate), SHORTEST_STEP) + moved:
            wrong.append(f"its last frame is {float(span):.3f} s after the first, not {float(expected):.3f} s")
    return wrong


def _sound_mismatches(
    found: PacketTimes, times: FrameTimes, sounds: Sequence[Fraction | None], slowed: float
) -> list[str]:
    if found.first is None or len(sounds) != len(found.sounds):
        return []
    wrong = []
    for i, (start, delay, expected) in enumerate(zip(found.sounds, found.delays, sounds, strict=True)):
        if start is None or expected is None:
            continue
        offset, wanted = start - found.first, expected - times.first
        if abs(offset - wanted) > slowed * max(SOUND_TOLERANCE, SOUND_DELAY * delay):
            wrong.append(f"sound track {i} starts {float(offset):.3f} s after the picture, not {float(wanted):.3f} s")
    return wrong
