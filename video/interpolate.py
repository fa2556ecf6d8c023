"""Runs the interpolation loop: from frames of the source to frames of the output; repeats replaced, cuts held."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from model.RIFE import RIFE
from video.devices import FramePair, InputFrame, NetworkRun, PendingPicture
from video.frame import Colour, Frame, Picture
from video.prefetch import prefetch
from video.reading.source_part import SourcePart
from video.timing.output_times import Timing
from video.transitions.confidence import Fallback, Measure
from video.transitions.decisions import Decision, GivenDecisions, decide, recorded
from video.transitions.hold import held_picture
from video.transitions.overlay import Overlays, put_back
from video.transitions.repair import mark_damaged
from video.transitions.repeats import RepeatReplacement
from video.transitions.retime import LONGEST_DAMAGE, LONGEST_RUN, plain_pairs, retimed_pairs
from video.transitions.scene import Transition, TransitionDetector

T = TypeVar("T")
AHEAD = 2  # frames that are decoded and converted to RGB before the loop needs them
HELD_BACK = 4  # frames at most that are kept back behind one that a device has not finished


@dataclass
class Report:
    """Counts of what an interpolation has done so far."""

    made: int = 0  # frames from the network
    cuts: int = 0  # cuts over which the earlier frame was held
    flashes: int = 0  # sudden changes of light, over which the frames are dissolved
    gaps: int = 0  # gaps in time over which the earlier frame was held
    again: int = 0  # frames that half precision could not compute, made again in single precision
    repeats: int = 0  # repeated or damaged frames that were made anew
    measures: list[Measure] = field(default_factory=list)  # of made frames, if wanted
    transitions: list[Decision] = field(default_factory=list)  # all but motion
    given: GivenDecisions | None = None  # transitions from a file, with those that a frame has taken
    end: Fraction | None = None  # seconds, when the last frame of the source ends
    waited: float = 0.0  # seconds that the loop was blocked until frames were decoded
    part: SourcePart | None = None  # of the source, to which the counts are limited

    def count_again(self) -> None:
        """Counts a frame that was made again."""
        self.again += 1

    def count_repeat(self, time: Fraction) -> None:
        """Counts the frame at a time as made anew."""
        self.repeats += self.part is None or self.part.holds(time)


@dataclass(frozen=True)
class Handling:
    """Holds what is done where frames repeat, are damaged, or have no motion between them.

    `given`: transitions that replace those of the detector. `dedup`: "replace" makes a repeat anew as the midpoint of
    its neighbours, before all else; "retime" leaves repeats out and spreads the motion over their time; "off" keeps
    them. `at_cut`: what is shown between the frames on both sides of a cut, one of hold.AT_CUT. `repair` makes damaged
    frames anew: those of `numbers`, or those that are found. `fallback`: what is shown where the network is unsure;
    None does not measure it. `overlays`: where logos and captions are kept; None keeps none.
    """

    detector: TransitionDetector = field(default_factory=TransitionDetector)
    given: GivenDecisions | None = None
    dedup: str = "replace"
    at_cut: str = "hold"
    repair: bool = False
    numbers: frozenset[int] | None = None
    fallback: Fallback | None = None
    overlays: Overlays | None = None


class PendingFrame(NamedTuple):
    """Holds a frame of the output whose picture a device may not have finished."""

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
    scale: float = 1.0,
    options: Mapping[str, bool] | None = None,
    handling: Handling | None = None,
    report: Report | None = None,
) -> Iterator[Frame]:
    """Yields the frames of `timing` between each two frames, then the last frame. Times rise.

    A timestep of 0 gives the source frame itself. Over a gap the earlier frame is held, over a cut by default. Frames
    are read and converted to RGB a few ahead, on a thread of their own; only a few are in memory at a time. `options`
    are those of RIFE.between: tta, ensemble, refine.
    """
    handling, report = handling or Handling(), report or Report()
    settings = {"scale": scale, "disagreement": handling.fallback is not None, **(options or {})}
    network = NetworkRun(model, settings, report.count_again)
    limit = _frames_in_flight(model)
    pending: deque[PendingFrame] = deque()
    with closing(_start_frames(frames, network, timing, handling, report)) as started:
        for frame in started:
            pending.append(frame)
            while pending and (not pending[0].made or sum(f.made for f in pending) > limit or len(pending) > HELD_BACK):
                yield pending.popleft().wait()
        for frame in pending:
            yield frame.wait()


def _frames_in_flight(model: RIFE) -> int:
    """Returns how many frames are started before the oldest is waited for: 1 keeps a GPU busy, a CPU needs none."""
    return 0 if model.device.type == "cpu" else 1


def _start_frames(
    frames: Iterable[Frame], network: NetworkRun, timing: Timing, handling: Handling, report: Report
) -> Generator[PendingFrame, None, None]:
    """Yields the frames of the output in order, each as soon as its computation is started."""
    last = None
    report.given = handling.given
    with closing(prefetch(((frame, frame.rgb()) for frame in frames), AHEAD)) as decoded:
        pairs = _pairs(_measure_wait(decoded, report), network, timing, handling, report)
        for pair in pairs:
            pictures = network(pair.first, pair.second, pair.timesteps)
            yield from _frames_of_pair(pair, pictures, handling, report)
            last = pair.second.frame
    if last is not None:
        report.end = None if last.duration is None else last.time + last.duration
        just_after = last.time + Fraction(1, 10**9)
        for time, step in timing(last.time, just_after):
            if not step:
                yield PendingFrame(partial(_same, last.picture), time, last.colour)


def _pairs(
    decoded: Iterator[tuple[Frame, np.ndarray]],
    network: NetworkRun,
    timing: Timing,
    handling: Handling,
    report: Report,
) -> Iterator[FramePair]:
    """Yields the pairs of frames to interpolate: transitions are decided, repeats and damage handled."""
    detector = handling.detector
    multiple = network.model.multiple(network.settings["scale"])

    def load(frame: Frame, rgb: np.ndarray | None = None) -> InputFrame:
        """Returns a frame with its signature, which upstream computes from the padded frame."""
        rgb = frame.rgb() if rgb is None else rgb
        padded = (-(-rgb.shape[0] // multiple) * multiple, -(-rgb.shape[1] // multiple) * multiple)
        return InputFrame(frame, rgb, detector.signature(rgb, frame.time, padded))

    inputs = (load(frame, rgb) for frame, rgb in decoded)
    beside = LONGEST_RUN - 1 if handling.dedup == "retime" else 1
    given = handling.given
    frames = decide(inputs, detector, given, beside)
    if handling.overlays is not None:
        frames = handling.overlays.protect(frames)
    if handling.repair:
        numbers = frozenset[int]() if handling.numbers is None and given is not None else handling.numbers
        frames = mark_damaged(frames, detector, numbers)
    frames = recorded(frames, report.transitions)
    if handling.repair:
        return retimed_pairs(frames, timing, report.count_repeat, LONGEST_DAMAGE)
    if handling.dedup == "retime":
        return retimed_pairs(frames, timing, report.count_repeat, LONGEST_RUN)
    if handling.dedup == "replace":
        by_shown = detector.repeats == "upstream" and given is None
        frames = RepeatReplacement(network, detector, load, report.count_repeat, by_shown).replace(frames)
    return plain_pairs(frames, timing)


def _frames_of_pair(
    pair: FramePair, pictures: Iterator[PendingPicture], handling: Handling, report: Report
) -> Iterator[PendingFrame]:
    """Yields the frames of one pair: the first source frame and the made ones; if it is held, those of `at_cut`.

    Over a gap in time the first frame is yielded once: at a constant rate, a gap of hours would be a million frames.
    """
    source = pair.first.frame
    kind = pair.second.transition
    gap = kind is Transition.GAP
    report.gaps += gap and bool(pair.steps)
    if any(step for _, step in pair.steps):
        report.cuts += kind is Transition.CUT
        report.flashes += kind is Transition.FLASH
    rule = {Transition.CUT: handling.at_cut, Transition.FLASH: "blend"}.get(kind, "hold")
    for time, step in pair.steps[:1] if gap else pair.steps:
        made = bool(step) and not pair.held
        picture = next(pictures) if made else partial(held_picture, pair, step, rule)
        if made:
            picture = put_back(picture, pair.first, pair.second, step)
        if made and handling.fallback is not None:
            picture = handling.fallback.choose(picture, pair, time, step, report.measures)
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
