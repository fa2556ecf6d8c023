"""Plays sound slower or faster at its own pitch, by FFmpeg's filter atempo, in step with a map of times."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.error import BlockingIOError as NotReady
from av.error import EOFError as End

from video.timing.speed import SpeedMap

CORRECTION_STEP = Fraction(1, 2)  # seconds of the source between two corrections: each costs the filter a few samples
SLOWEST_TEMPO, FASTEST_TEMPO = 0.5, 100.0  # speeds of one filter; for slower ones several are chained
FILTER_DELAY = 0.042  # seconds of sound that a filter holds back, at its input
SYNC_ERROR = 0.05  # seconds that the sound may be ahead or late before its speed is corrected
TAIL = 0.2  # seconds of silence that push out what the filters hold back at the end
LARGEST_GAP = Fraction(1, 10)  # seconds; larger gaps between two frames of sound are kept as gaps
MOST_CHANGE = 0.1  # share of the speed that a correction changes at most


class Tempo:
    """Converts decoded frames of sound, whose times are those of the source, to frames on the clock of the output."""

    def __init__(self, speed: SpeedMap) -> None:
        self._map = speed
        self._filters: list[Any] = []
        self._source: Any = None
        self._sink: Any = None
        self._graph: Any = None
        self._format: tuple[str, str, int] | None = None
        self._due = Fraction(0)  # time of the source at which the next frame is expected
        self._next_change = self._begun = Fraction(0)
        self._speed = 1.0
        self._written = 0  # samples of the output, from its time 0

    def convert(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """Yields the frames that one frame of the source completes."""
        rate = frame.sample_rate
        time = self._due if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
        kind = frame.format.name, frame.layout.name, rate
        if kind != self._format or abs(time - self._due) > LARGEST_GAP:
            yield from self.flush()
            self._format = kind
            self._start(kind, time)
        if time >= self._next_change:
            self._correct(time, rate)
            self._next_change = time + CORRECTION_STEP
        self._due = time + Fraction(frame.samples, rate)
        frame.pts = None
        self._source.push(frame)
        yield from self._ready()

    def flush(self) -> Iterator[AudioFrame]:
        """Yields what the filters hold back."""
        if self._source is None or self._format is None:
            return
        name, layout, rate = self._format
        end = round(self._map.output_time(self._due) * rate)
        silence = AudioFrame(name, layout, round(TAIL * rate))  # the last filter would lose what it holds back
        for plane in silence.planes:
            plane.update((b"\x80" if name.startswith("u8") else b"\0") * plane.buffer_size)
        silence.sample_rate = rate
        self._source.push(silence)
        self._source.push(None)
        start = self._written
        for frame in self._ready():
            left = end - start
            start += frame.samples
            if left > 0:
                yield frame if frame.samples <= left else _shortened(frame, left)
        self._written = min(self._written, end)
        self._source = None

    def _start(self, kind: tuple[str, str, int], time: Fraction) -> None:
        """Builds the filters for sound that begins at a time of the source."""
        name, layout, rate = kind
        slowest = self._map.slowest / (1 + MOST_CHANGE)  # with a correction
        count = 1
        while slowest ** (1 / count) < SLOWEST_TEMPO:
            count += 1
        graph = av.filter.Graph()
        self._source = graph.add_abuffer(format=name, sample_rate=rate, layout=layout, time_base=Fraction(1, rate))
        self._filters = [graph.add("atempo", "1.0") for _ in range(count)]
        self._sink = graph.add("abuffersink")
        chain = [self._source, *self._filters, self._sink]
        for first, second in pairwise(chain):
            first.link_to(second)
        graph.configure()
        self._graph = graph  # the filters do not keep it alive
        self._speed = 1.0
        self._next_change = self._begun = time
        self._written = max(round(self._map.output_time(time) * rate), self._written)

    def _correct(self, time: Fraction, rate: int) -> None:
        """Sets the speed of the next span, so that what was written by its end fits the map."""
        wanted = self._map.output_time(time + CORRECTION_STEP) - self._map.output_time(time)  # seconds of the output
        late = float(self._map.output_time(time)) - self._held_back() - self._written / rate
        speed = float(CORRECTION_STEP / wanted)
        if abs(late) > SYNC_ERROR and time - self._begun >= CORRECTION_STEP:
            change = late / float(wanted)
            speed /= 1 + min(max(change, -MOST_CHANGE), MOST_CHANGE)
        if abs(speed - self._speed) > 1e-6:
            self._speed = speed
            each = min(speed ** (1 / len(self._filters)), FASTEST_TEMPO)
            for part in self._filters:
                part.process_command("tempo", f"{each:.6f}")

    def _held_back(self) -> float:
        """Returns the seconds of the output that the filters hold back: what one holds, those after it stretch."""
        count = len(self._filters)
        return FILTER_DELAY * sum(self._speed ** (-k / count) for k in range(1, count + 1))

    def _ready(self) -> Iterator[AudioFrame]:
        with suppress(NotReady, End):
            while True:
                frame = self._sink.pull()
                frame.pts, frame.time_base = self._written, Fraction(1, frame.sample_rate)
                self._written += frame.samples
                yield frame


def _shortened(frame: AudioFrame, count: int) -> AudioFrame:
    """Returns the first `count` samples of a frame."""
    values: Any = frame.to_ndarray()[:, : count * (1 if frame.format.is_planar else frame.layout.nb_channels)]
    short = AudioFrame.from_ndarray(values.copy(), format=frame.format.name, layout=frame.layout.name)
    short.sample_rate, short.pts, short.time_base = frame.sample_rate, frame.pts, frame.time_base
    return short
