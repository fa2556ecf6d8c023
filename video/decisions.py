"""Decides the transition to each frame, by the detector or by a file that a user may edit; writes the decisions."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from model.errors import UserError
from video.devices import InputFrame
from video.safe_file import write_file
from video.scene import Comparison, Transition, TransitionDetector

REACH = 2  # the decision about a frame depends on at most this many frames before it, and after it
NAMES = ", ".join(kind.value for kind in Transition)


class Decision(NamedTuple):
    """The transition to one frame."""

    time: Fraction  # seconds
    kind: Transition
    score: float | None = None  # of a cut or a flash: mismatch; of a repeat: largest local difference


def read_decisions(path: Path) -> list[Decision]:
    """Reads the transitions that `write_decisions` wrote, in order of their times; frames without one are motion.

    Raises UserError with file and remedy.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["transitions"]
        given = [Decision(Fraction(str(e["time"])), Transition(e["kind"])) for e in entries]
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); give another file") from e
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{path}: is no list of decisions ({e}); write transitions with a time in seconds and a kind: {NAMES}"
        ) from e
    return sorted(given, key=lambda decision: decision.time)


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
    given: list[Decision] | None,
    found: list[Decision],
) -> Iterator[InputFrame]:
    """Yields the frames with their transitions, each when the frame after it is known.

    The transitions are those of `given`, or the detector's if it is None. All but motion are added to `found`.
    """
    source = iter(frames)
    first, second = next(source, None), next(source, None)
    if first is not None:
        yield first
    before, change = None, _compare(detector, first, second)
    while first is not None and second is not None and change is not None:
        third = next(source, None)
        after = _compare(detector, second, third)
        kind, score = detector.classify(change, before, after), None
        if given is not None:
            kind = _given_kind(given, first.frame.time, second.frame.time)
        elif kind is not Transition.GAP:
            score = round(change.difference if kind is Transition.REPEAT else change.match.mismatch, 3)
        second.transition = kind
        if kind is not Transition.MOTION:
            found.append(Decision(second.frame.time, kind, score))
        yield second
        before, change = change, after
        first, second = second, third


def _given_kind(given: list[Decision], before: Fraction, time: Fraction) -> Transition:
    """Returns the kind of the entry that is nearest to a frame: within half of the time since the frame before."""
    half = (time - before) / 2
    low, high = (bisect_right(given, edge, key=lambda decision: decision.time) for edge in (time - half, time + half))
    return given[low].kind if low < high else Transition.MOTION


def _compare(detector: TransitionDetector, first: InputFrame | None, second: InputFrame | None) -> Comparison | None:
    """Returns how two frames differ, None if one of them is missing."""
    return None if first is None or second is None else detector.compare(first.signature, second.signature)
