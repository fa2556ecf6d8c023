"""Makes pairs of frames to interpolate; repeated or damaged frames are made anew from the frames around them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from video.devices import FramePair, InputFrame
from video.timing.output_times import Timing
from video.transitions.scene import HELD, Transition

DEDUP = ("replace", "retime", "off")
LONGEST_RUN = 3  # frames that show one drawing: animation on threes. Longer runs are scenes that stand still
LONGEST_DAMAGE = 10  # frames in a row that are made anew

LONGEST_GAP = 60  # seconds of a gap in which the next output time is searched


def plain_pairs(frames: Iterable[InputFrame], timing: Timing) -> Iterator[FramePair]:
    """Yields each two consecutive frames with the output times between them."""
    for first, second in pairwise(frames):
        end = second.frame.time
        if second.transition is Transition.GAP:  # of which one frame is shown; hours would be a million steps
            end = min(end, first.frame.time + LONGEST_GAP)
        yield FramePair(first, second, timing(first.frame.time, end), held=second.transition in HELD)


def retimed_pairs(
    frames: Iterable[InputFrame], timing: Timing, count: Callable[[Fraction], None], longest: int = LONGEST_RUN
) -> Iterator[FramePair]:
    """Yields pairs without the frames that repeat or are damaged; motion is spread over the time of those left out.

    The output times are those of all frames. Of a run of more than `longest` frames, the repeats included, the motion
    takes the last `longest`: until then the scene stands still. Repeats before a cut, before a gap or at the end stay
    as they are; damaged frames there show the frame before them. `count` gets the time of each frame left out.
    """
    first: InputFrame | None = None
    left_out: deque[InputFrame] = deque()

    def hold() -> FramePair:
        """Returns the pair of `first` and the earliest frame that was left out, which takes the place of `first`."""
        nonlocal first
        assert first is not None
        earlier, later = first, left_out.popleft()
        if later.transition is Transition.DAMAGED:
            later = replace(first, frame=replace(first.frame, time=later.frame.time))
        first = later
        return FramePair(earlier, later, timing(earlier.frame.time, later.frame.time), held=True)

    for frame in frames:
        if first is None:
            first = frame
        elif frame.transition in (Transition.REPEAT, Transition.DAMAGED):
            left_out.append(frame)
            if len(left_out) == longest:
                yield hold()
        else:
            held = frame.transition in HELD
            while held and left_out:
                yield hold()
            times = [f.frame.time for f in (first, *left_out, frame)]
            yield FramePair(first, frame, spread(times, timing), held=held)
            for time in times[1:-1]:
                count(time)
            left_out.clear()
            first = frame
    while left_out:
        yield hold()


def spread(times: list[Fraction], timing: Timing) -> list[tuple[Fraction, Fraction]]:
    """Returns the output times between the first and the last of the frame times, with timesteps between those two."""
    start, length = times[0], times[-1] - times[0]
    steps = [(time, t0 + step * (t1 - t0)) for t0, t1 in pairwise(times) for time, step in timing(t0, t1)]
    return [(time, (position - start) / length) for time, position in steps]
