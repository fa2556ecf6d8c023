"""Finds the transition to each frame, by the detector or from a file that a user may edit; writes the transitions."""

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from model.errors import UserError
from model.files import read_text
from video.devices import InputFrame
from video.safe_file import write_file
from video.timing.numbers import parse_number
from video.transitions.scene import Comparison, Transition, TransitionDetector

KIND_NAMES = ", ".join(kind.value for kind in Transition)


class Decision(NamedTuple):
    """Holds the transition to one frame."""

    time: Fraction  # seconds
    kind: Transition
    score: float | None = None  # of TransitionDetector.score


class GivenDecisions:
    """Holds transitions that replace those of the detector, by their times; frames without one are motion."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._decisions = sorted(decisions, key=lambda decision: decision.time)
        self.used: set[int] = set()  # places, in order of time, of the transitions that a frame has taken

    @property
    def unused(self) -> int:
        """Returns how many transitions no frame has taken so far."""
        return len(self._decisions) - len(self.used)

    def kind(self, before: Fraction, time: Fraction) -> Transition:
        """Returns the kind of the entry that is nearest to a frame: within half of the time since the frame before."""
        half = (time - before) / 2
        low, high = (bisect_right(self._decisions, edge, key=lambda d: d.time) for edge in (time - half, time + half))
        self.used |= {*range(low, high)}
        nearest = min(self._decisions[low:high], key=lambda d: abs(d.time - time), default=None)
        return Transition.MOTION if nearest is None else nearest.kind


def read_decisions(path: Path) -> GivenDecisions:
    """Reads the transitions that `write_decisions` wrote. Raises UserError with file and remedy."""
    try:
        entries = json.loads(read_text(path, "utf-8-sig"))["transitions"]
        given = [Decision(parse_number(str(e["time"])), Transition(e["kind"])) for e in entries]
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); give another file") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(
            f"{path}: is no list of decisions ({e}); write transitions with a time in seconds and a kind: {KIND_NAMES}"
        ) from e
    return GivenDecisions(given)


def write_decisions(path: Path, found: list[Decision]) -> None:
    """Writes all transitions but motion as JSON, one a line."""
    entries = [
        {"time": round(float(d.time), 6), "kind": d.kind.value} | ({} if d.score is None else {"score": d.score})
        for d in found
    ]
    lines = ",\n".join(f"    {json.dumps(entry)}" for entry in entries)
    text = '{\n  "transitions": [\n' + lines + "\n  ]\n}\n"
    write_file(path, text.encode(), overwrite=False)


def decide(
    frames: Iterable[InputFrame],
    detector: TransitionDetector,
    given: GivenDecisions | None,
    beside: int = 1,
) -> Iterator[InputFrame]:
    """Yields the frames with their transitions and scores, each when `beside` frames after it are known.

    The transitions are those of `given`, or the detector's if it is None. A repeat is found by the largest motion of
    the `beside` pairs before it, and of those after it: n - 1 for runs of n frames.
    """
    before: deque[Comparison] = deque(maxlen=beside)
    waiting: deque[tuple[Fraction, InputFrame, Comparison]] = deque()  # time of the frame before, frame, change

    def decided() -> InputFrame:
        """Returns the first waiting frame with its transition."""
        earlier, frame, change = waiting.popleft()
        after = [change for _, _, change in waiting]
        kind = detector.classify(change, _merge(list(before)[::-1]), _merge(after))
        before.append(change)
        frame.transition = kind if given is None else given.kind(earlier, frame.frame.time)
        frame.score = None if given is not None else detector.score(kind, change)
        return frame

    last: InputFrame | None = None
    for frame in frames:
        if last is None:
            yield frame
        else:
            waiting.append((last.frame.time, frame, detector.compare(last.signature, frame.signature)))
        last = frame
        if len(waiting) > beside:
            yield decided()
    while waiting:
        yield decided()


def recorded(frames: Iterable[InputFrame], found: list[Decision]) -> Iterator[InputFrame]:
    """Yields the frames; adds all their transitions but motion to `found`."""
    for frame in frames:
        if frame.transition is not Transition.MOTION:
            found.append(Decision(frame.frame.time, frame.transition, frame.score))
        yield frame


def _merge(changes: list[Comparison]) -> Comparison | None:
    """Returns the first of the changes with the largest differences of all; None if there are none."""
    if not changes:
        return None
    difference, mean = max(c.difference for c in changes), max(c.mean for c in changes)
    return changes[0]._replace(difference=difference, mean=mean)
