"""Plays sound slower or faster at its own pitch, in step with a map of times, by waveform similarity (WSOLA).

Source: Verhelst and Roelands, ICASSP 1993. FFmpeg's filter atempo takes one speed, 1/2 at least: where several filters
are chained or the speed changes, their sound is up to half a second early or late.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from video.timing.speed import SpeedMap

FORMAT = "flt"  # packed: PyAV 18 reads planes of 8 channels and more beyond their end
WINDOWS_PER_SECOND = 48  # each is twice as long as its distance to the next
SEARCH = Fraction(1, 120)  # seconds by which a window is moved at most: half a period of the lowest voices
SMALLEST_GAP = Fraction(1, 50)  # seconds; where less is missing between two frames of sound, time stamps are rounded
LARGEST_GAP = Fraction(1, 10)  # seconds; after more the sound begins anew
PREFERENCE = 0.01  # of correlation, that a window which is moved by SEARCH must be better than one that is not moved


class Tempo:
    """Converts decoded frames of sound, whose times are those of the source, to frames on the clock of the output.

    Windows of the source are added at equal distances. The map gives the place of each window in the source; the window
    is moved to where it best continues the window before.
    """

    def __init__(self, speed: SpeedMap) -> None:
        self._map = speed
        self._resampler = AudioResampler(FORMAT)
        self._kind: tuple[str, int, str] | None = None  # layout, samples per second, sample format
        self._begun = self._due = Fraction(0)  # times of the source: of sample 0, and of the next frame
        self._samples = np.zeros((1, 0), np.float32)  # (channels,N) of the source that windows still need
        self._first = 0  # number of the first of them
        self._centre = 0  # sample of the output at the middle of the next window
        self._window = np.zeros(0, np.float32)
        self._half = self._search = 0  # samples
        self._tail: np.ndarray | None = None  # (channels,half): the second half of the last window
        self._next = np.zeros((1, 0), np.float32)  # (channels,half): what follows the last window in the source
        self._written = 0  # samples of the output, from its time 0

    def convert(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """Yields the frames that one frame of the source completes."""
        rate = frame.sample_rate
        time = self._due if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
        kind = frame.layout.name, rate, frame.format.name
        if kind != self._kind or abs(time - self._due) > LARGEST_GAP:
            yield from self.flush()
            self._start(kind, frame.layout.nb_channels, time)
        packed = np.concatenate([piece.to_ndarray()[0] for piece in self._resampler.resample(frame)])
        samples = packed.reshape(-1, frame.layout.nb_channels).T
        late = time - self._due
        if abs(late) > SMALLEST_GAP:
            silence = np.zeros((len(samples), max(round(late * rate), 0)), np.float32)
            samples = np.concatenate([silence, samples[:, max(round(-late * rate), 0) :]], axis=1)
            self._due = time
        self._due += Fraction(frame.samples, rate)
        self._append(samples)
        yield from self._ready()

    def flush(self) -> Iterator[AudioFrame]:
        """Yields the rest of the output, up to the end of the source."""
        if self._kind is None:
            return
        end = round(self._map.output_time(self._due) * self._kind[1])
        missing = self._place(end + self._half) + 2 * self._half + self._search - self._first - self._samples.shape[1]
        self._append(np.zeros((len(self._samples), max(missing, 0)), np.float32))
        yield from self._ready(end)
        self._kind = None

    def _start(self, kind: tuple[str, int, str], channels: int, time: Fraction) -> None:
        """Begins anew with sound of one kind at a time of the source."""
        self._kind, self._begun, self._due = kind, time, time
        self._resampler = AudioResampler(FORMAT)
        rate = kind[1]
        self._half, self._search = max(rate // WINDOWS_PER_SECOND, 1), int(SEARCH * rate)
        self._window = np.hanning(2 * self._half + 1)[:-1].astype(np.float32)  # two halves add to 1
        self._samples = np.zeros((channels, self._half + self._search), np.float32)  # before the first sample
        self._first = -self._samples.shape[1]
        self._centre = self._written = max(round(self._map.output_time(time) * rate), self._written)
        self._tail = None

    def _append(self, samples: np.ndarray) -> None:
        """Adds samples of the source, and drops those before the next window."""
        self._samples = np.concatenate([self._samples, samples], axis=1)
        unused = self._place(self._centre) - self._half - self._search - self._first
        unused = min(max(unused, 0), self._samples.shape[1])
        self._samples, self._first = self._samples[:, unused:], self._first + unused

    def _place(self, centre: int) -> int:
        """Returns the sample of the source that the map has at a sample of the output."""
        assert self._kind is not None
        rate = self._kind[1]
        return max(round((self._map.source_time(Fraction(centre, rate)) - self._begun) * rate), 0)

    def _ready(self, end: int | None = None) -> Iterator[AudioFrame]:
        """Yields the output, by half a window, as far as the source is known; up to sample `end` if it is given."""
        half = self._half
        while end is None or self._written < end:
            start = self._place(self._centre) - half - self._first
            if start + 2 * half + self._search > self._samples.shape[1]:
                return
            if self._tail is not None:
                start += self._shift(start)
            window = self._samples[:, start : start + 2 * half] * self._window
            if self._tail is not None:
                yield self._frame((self._tail + window[:, :half])[:, : None if end is None else end - self._written])
            self._tail = window[:, half:]
            self._next = self._samples[:, start + half : start + 2 * half].copy()
            self._centre += half

    def _shift(self, start: int) -> int:
        """Returns by how many samples a window is moved: to where it correlates best with what would follow."""
        near = self._samples[:, start - self._search : start + self._half + self._search].astype(np.float64)
        length, size = self._next.shape[1], near.shape[1]
        spectra = np.fft.rfft(near, size) * np.conj(np.fft.rfft(self._next, size))
        products = np.fft.irfft(spectra.sum(0), size)[: 2 * self._search + 1]
        sums = np.concatenate([[0], np.cumsum((near**2).sum(0))])
        power = (sums[length:] - sums[:-length]) * (self._next.astype(np.float64) ** 2).sum()
        distance = np.abs(np.arange(-self._search, self._search + 1)) / max(self._search, 1)
        return int((products / np.sqrt(power + 1e-12) - PREFERENCE * distance).argmax()) - self._search

    def _frame(self, samples: np.ndarray) -> AudioFrame:
        """Returns samples (channels,N) as the next frame of the output."""
        assert self._kind is not None
        layout, rate, _ = self._kind
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), format=FORMAT, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, self._written, Fraction(1, rate)
        self._written += samples.shape[1]
        return frame
