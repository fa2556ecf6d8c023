"""The interpolation loop: frames of the source in, frames of the output out, with repeats replaced and cuts held."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from model.RIFE import RIFE
from video.devices import FramePair, InputFrame, PendingPicture, Settings, run_network, run_pairs
from video.frame import Colour, Frame, Picture
from video.prefetch import prefetch
from video.scene import Comparison, Transition, TransitionDetector
from video.timing import Timing

T = TypeVar("T")
MIDDLE = Fraction(1, 2)  # timestep
AHEAD = 2  # frames that are decoded and converted to RGB before the loop needs them
HELD_BACK = 4  # frames at most that are kept back behind one that a device has not finished


@dataclass
class Report:
    """Counts of what an interpolation has done so far."""

    made: int = 0  # frames from the network
    cuts: int = 0  # cuts over which the earlier frame was held
    gaps: int = 0  # gaps in time over which the earlier frame was held
    repeats: int = 0  # repeated frames that were replaced by the midpoint of their neighbours
    waited: float = 0.0  # seconds that the loop was blocked until frames were decoded


class PendingFrame(NamedTuple):
    """A frame of the output whose picture a device may not have finished."""

    picture: PendingPicture
    time: Fraction  # seconds
    colour: Colour | None
    made: bool = False  # by a network

    def wait(self) -> Frame:
        """Blocks until the picture is finished and returns the frame."""
        return Frame(self.picture(), self.time, self.colour, made=self.made)


def interpolate(
    frames: Iterable[Frame],
    model: RIFE,
    timing: Timing,
    *,
    others: Sequence[RIFE] = (),
    scale: float = 1.0,
    options: Mapping[str, bool] | None = None,
    detector: TransitionDetector | None = None,
    report: Report | None = None,
) -> Iterator[Frame]:
    """Yields the frames of `timing` between each two frames, then the last frame. Times rise.

    A timestep of 0 gives the source frame itself. Over a cut or a gap the earlier frame is held. Frames are read and
    converted to RGB a few ahead, on a thread of their own; only a few are in memory at a time. `options` are those of
    RIFE.between: tta, ensemble, refine. `others` are the same network on other devices, which take turns; frames and
    their order are the same with any number of devices.
    """
    settings = {"scale": scale, **(options or {})}
    models = [model, *others]
    limit = _frames_in_flight(models)
    detector, report = detector or TransitionDetector(), report or Report()
    pending: deque[PendingFrame] = deque()
    with closing(_start_frames(frames, models, timing, settings, detector, report)) as started:
        for frame in started:
            pending.append(frame)
            while pending and (not pending[0].made or sum(f.made for f in pending) > limit or len(pending) > HELD_BACK):
                yield pending.popleft().wait()
        for frame in pending:
            yield frame.wait()


def _frames_in_flight(models: Sequence[RIFE]) -> int:
    """Returns how many frames are started before the oldest is waited for: 1 keeps a GPU busy, a CPU needs none."""
    return 0 if all(model.device.type == "cpu" for model in models) else 1


def _start_frames(
    frames: Iterable[Frame],
    models: Sequence[RIFE],
    timing: Timing,
    settings: Settings,
    detector: TransitionDetector,
    report: Report,
) -> Generator[PendingFrame, None, None]:
    """Yields the frames of the output in order, each as soon as its computation is started."""
    last = None
    with closing(prefetch(((frame, frame.rgb()) for frame in frames), AHEAD)) as decoded:
        repeats = RepeatReplacement(models[0], settings, detector, report)
        inputs = (repeats.load(frame, rgb) for frame, rgb in _measure_wait(decoded, report))
        pairs = (FramePair(a, b, timing(a.frame.time, b.frame.time)) for a, b in pairwise(repeats.replace(inputs)))
        with closing(run_pairs(pairs, models, settings)) as pairs_with_pictures:
            for pair, pictures in pairs_with_pictures:
                yield from _frames_of_pair(pair, pictures, report)
                last = pair.second.frame
    if last is not None:
        just_after = last.time + Fraction(1, 10**9)
        for time, step in timing(last.time, just_after):
            if not step:
                yield PendingFrame(partial(_same, last.picture), time, last.colour)


def _frames_of_pair(pair: FramePair, pictures: Iterator[PendingPicture], report: Report) -> Iterator[PendingFrame]:
    """Yields the frames of one pair: the first source frame and the made ones; if it is held, the first again.

    Over a gap in time the first frame is yielded once: at a constant rate, a gap of hours would be a million frames.
    """
    source = pair.first.frame
    gap = pair.second.transition is Transition.GAP
    report.gaps += gap
    report.cuts += pair.held and not gap and any(step for _, step in pair.steps)
    for time, step in pair.steps[:1] if gap else pair.steps:
        made = bool(step) and not pair.held
        picture = next(pictures) if made else partial(_same, source.picture)
        yield PendingFrame(picture, time, source.colour, made)
        report.made += made


def _same(picture: Picture) -> Picture:
    return picture


def _measure_wait(items: Iterator[T], report: Report) -> Iterator[T]:
    """Yields the items and adds the seconds that each one took to arrive to the report."""
    end = object()
    while True:
        start = perf_counter()
        item: Any = next(items, end)
        report.waited += perf_counter() - start
        if item is end:
            return
        yield item


@dataclass(frozen=True)
class RepeatReplacement:
    """Classifies the transitions between frames and replaces repeated frames."""

    model: RIFE
    settings: Settings
    detector: TransitionDetector
    report: Report

    def load(self, frame: Frame, rgb: np.ndarray) -> InputFrame:
        """Returns a frame with its signature, which upstream computes from the padded frame."""
        multiple = self.model.multiple(self.settings["scale"])
        padded = (-(-rgb.shape[0] // multiple) * multiple, -(-rgb.shape[1] // multiple) * multiple)
        return InputFrame(frame, rgb, self.detector.signature(rgb, frame.time, padded))

    def replace(self, frames: Iterable[InputFrame]) -> Iterator[InputFrame]:
        """Yields the frames with their transitions. A repeat becomes the midpoint of the frames around it.

        upstream: also replaces a repeat that stands before a cut, by a midpoint across that cut, which is a ghost of
        both scenes; here that repeat stays as it is. So does one in a scene that stands still.
        """
        source = iter(frames)
        first, second = next(source, None), next(source, None)
        before, change = None, self._compare(first, second)
        if first is not None:
            yield first
        while first is not None and second is not None and change is not None:
            third = next(source, None)
            after = self._compare(second, third)
            second.transition = self.detector.classify(change, before, after)
            shown = self._replaced(first, second, third) if third is not None and after is not None else second
            yield shown
            if self.detector.repeats == "upstream" and shown is not second:
                after = self._compare(shown, third)  # as upstream does, with the frame that is shown
            before, change = change, after
            first, second = shown, third

    def _compare(self, first: InputFrame | None, second: InputFrame | None) -> Comparison | None:
        """Returns how two frames differ, None if one of them is missing."""
        return None if first is None or second is None else self.detector.compare(first.signature, second.signature)

    def _replaced(self, first: InputFrame, second: InputFrame, third: InputFrame) -> InputFrame:
        """Returns the frame to show for the second of three: itself, or the midpoint of the others if it repeats."""
        if second.transition is not Transition.REPEAT:
            return second
        across = self.detector.classify(self.detector.compare(first.signature, third.signature))
        if across is Transition.MOTION or (across is Transition.REPEAT and self.detector.repeats == "upstream"):
            return self._midpoint(first, second.frame.time, third)
        return second

    def _midpoint(self, first: InputFrame, time: Fraction, third: InputFrame) -> InputFrame:
        """Returns the network's frame in the middle of two frames, to be shown at a given time."""
        (picture,) = run_network(self.model, first, third, [MIDDLE], self.settings)
        self.report.repeats += 1
        made = Frame(picture(), time, first.frame.colour)
        return self.load(made, made.rgb())
