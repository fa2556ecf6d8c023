"""Marks the frames that are to be made anew: named by their numbers, or found damaged."""

from collections.abc import Iterable, Iterator

import av

from video.devices import InputFrame
from video.transitions.scene import HELD, Transition, TransitionDetector

MOST_NUMBERS = 1_000_000  # frames that can be named


def mark_damaged(
    frames: Iterable[InputFrame], detector: TransitionDetector, numbers: frozenset[int] | None = None
) -> Iterator[InputFrame]:
    """Yields the frames; those that are to be made anew get the transition DAMAGED.

    `numbers` count from 0, the first frame. Without them a frame is damaged if the decoder marked it, or if it alone
    differs from the frames on both sides as if by two cuts, as a flash or a picture error does.
    """
    source = iter(frames)
    good, frame = None, next(source, None)
    number = 0
    while frame is not None:
        following = next(source, None)
        if good is not None:
            if numbers is not None:
                damaged = number in numbers
            else:
                damaged = _is_corrupt(frame) or _is_alone(good, frame, following, detector)
            if damaged:
                frame.transition, frame.score = Transition.DAMAGED, None
                if following is not None and following.transition is not Transition.GAP:
                    following.transition = _classify(good, following, detector)
        if frame.transition is not Transition.DAMAGED:
            good = frame
        yield frame
        frame, number = following, number + 1


def _is_corrupt(frame: InputFrame) -> bool:
    return isinstance(frame.frame.picture, av.VideoFrame) and frame.frame.picture.is_corrupt


def _is_alone(before: InputFrame, frame: InputFrame, after: InputFrame | None, detector: TransitionDetector) -> bool:
    """Returns whether cuts surround one frame, and none separates the frames before and after it."""
    breaks = Transition.CUT, Transition.FLASH
    if after is None or frame.transition not in breaks or after.transition not in breaks:
        return False
    return _classify(before, after, detector) not in HELD


def _classify(first: InputFrame, second: InputFrame, detector: TransitionDetector) -> Transition:
    """Returns the transition from one frame to a later one; a repeat needs no motion of its own."""
    found = detector.classify(detector.compare(first.signature, second.signature))
    return Transition.MOTION if found is Transition.REPEAT else found


def parse_numbers(text: str) -> frozenset[int]:
    """Reads numbers of frames from 0 on, as in 10,20-22. Raises ValueError if there is none or too many."""
    numbers: set[int] = set()
    for part in text.replace("\n", ",").replace(" ", "").split(","):
        if part:
            first, _, last = part.partition("-")
            span = range(int(first), int(last or first) + 1)
            if len(numbers) + len(span) > MOST_NUMBERS:
                raise ValueError(f"more than {MOST_NUMBERS} frames in {text!r}")
            numbers |= {*span}
    if not numbers:
        raise ValueError(f"no number of a frame in {text!r}")
    return frozenset(numbers)
