"""Shows how far a run is: a bar on a terminal, a line every ten seconds in a log."""

import sys
import time
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType

from tqdm import tqdm

from video.frame import Frame

ON_TERMINAL, IN_LOG = 0.5, 10.0  # seconds between two updates
SHORTEST_MEAN = 60.0  # seconds of work at least, over which the speed is averaged
SHARE_OF_MEAN = 1 / 4  # of the time so far: in long runs the speed is averaged over more
SETTLING = 3.0  # seconds before a time left is shown
MINUTE = 60


class Speed:
    """Averages the steps per second: over the whole time at first, later over the last minute or longer.

    An exponential mean: a slow stretch of a few seconds moves it little, a lasting change moves it in some minutes.
    """

    def __init__(self, start: float) -> None:
        """Begins to count at `start`; this and all later times are in seconds, on one clock."""
        self.per_second = 0.0
        self._start = self._last = start

    def add(self, steps: int, now: float) -> None:
        """Counts the steps that were done since the last call."""
        passed = now - self._last
        if passed <= 0:
            return
        elapsed = now - self._start
        weight = passed / min(elapsed, max(SHORTEST_MEAN, elapsed * SHARE_OF_MEAN))
        self.per_second += min(weight, 1.0) * (steps / passed - self.per_second)
        self._last = now


class Progress:
    """Counts the frames of an output and shows them, as a `with` block, on standard error.

    Shown are the frames, the output frames per second, their ratio to the speed of playing, and the time left. The time
    left is that of the frames which are still to be made by the network: others take next to no time.
    """

    def __init__(
        self,
        total: int | None,
        rate: Fraction,
        clock: Callable[[], float] = time.monotonic,
        state: Callable[[], str] | None = None,
    ) -> None:
        """Expects `total` frames (None: unknown) at `rate` frames/s; `state()` is a text shown behind them."""
        self._total, self._rate, self._clock, self._state = total, rate, clock, state
        self._frames = self._made = 0
        self._counted = 0, 0  # frames and made frames up to the last update
        self._all: Speed | None = None
        self._network: Speed | None = None
        self._start = self._shown = clock()
        terminal = sys.stderr.isatty()
        self._pause = ON_TERMINAL if terminal else IN_LOG
        form = "{percentage:3.0f}%|{bar}| {desc}" if total else "{desc}"
        self._bar = tqdm(total=total, bar_format=form, mininterval=0, file=sys.stderr) if terminal else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._show(self._clock())
            self._bar.close()

    def add(self, frame: Frame) -> None:
        """Counts a frame that was written, and shows the progress where it is time to."""
        self.count(1, int(frame.made))

    def count(self, frames: int, made: int) -> None:
        """Counts frames that were written, some of them made by a network."""
        now = self._clock()
        self._frames += frames
        self._made += made
        if self._all is None or self._network is None:  # the first frame waits for compilers and caches
            self._all, self._network, self._start = Speed(now), Speed(now), now
            self._counted = self._frames, self._made
        elif now - self._shown >= self._pause:
            self._show(now)

    def _show(self, now: float) -> None:
        if self._all is not None and self._network is not None:
            self._all.add(self._frames - self._counted[0], now)
            self._network.add(self._made - self._counted[1], now)
        self._shown, self._counted = now, (self._frames, self._made)
        if self._bar is None:
            print(self.line(now), file=sys.stderr, flush=True)
        else:
            self._bar.n = min(self._frames, self._total or self._frames)
            self._bar.set_description_str(self.line(now), refresh=False)
            self._bar.refresh()

    def line(self, now: float) -> str:
        """Returns the progress as text."""
        of = f"/{self._total}" if self._total is not None and self._total >= self._frames else ""
        speed = self._all.per_second if self._all is not None else 0.0
        parts = [f"{self._frames}{of} frames", *([self._state()] if self._state is not None else [])]
        if speed:
            parts.append(f"{speed:.3g} frames/s, {speed / float(self._rate):.2g}x real time")
        left = self.seconds_left()
        if left is not None and now - self._start >= SETTLING:
            parts.append(f"{format_seconds(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Returns the seconds that the rest takes at the present speed; None where they are unknown."""
        if self._total is None or self._total < self._frames or self._all is None or self._network is None:
            return None
        rest = self._total - self._frames
        if self._made and self._network.per_second:
            return rest * self._made / self._frames / self._network.per_second
        return rest / self._all.per_second if self._all.per_second else None


def format_seconds(seconds: float) -> str:
    """Returns a duration as text: 45 s, 2 min 30 s, 25 min, 3 h 05 min."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < 10 * MINUTE:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    minutes = round(seconds / MINUTE)
    return f"{minutes} min" if minutes < MINUTE else f"{minutes // MINUTE} h {minutes % MINUTE:02d} min"
