"""Finds where the network is unsure, by the disagreement of the two warped frames, and chooses what is shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from video.devices import FramePair, MeasuredPicture, PendingPicture
from video.frame import Picture
from video.safe_file import write_file
from video.transitions.cuts import picture_area
from video.transitions.hold import held_picture

FALLBACKS = ("hold", "blend")
UNSURE = 15.0  # 8-bit levels; frames 67 ms apart have less, of those half a second apart the worst have more
CSV_HEADER = "time,disagreement,replaced\n"


class Measure(NamedTuple):
    """Holds the disagreement of the two warped frames of one made frame."""

    time: float  # seconds
    disagreement: float  # mean over the picture between black bars, in 8-bit levels
    replaced: bool


@dataclass(frozen=True)
class Fallback:
    """Replaces made frames whose two warped frames disagree; with a `rule` of None it only measures."""

    rule: str | None = None
    threshold: float = UNSURE

    def choose(
        self, made: PendingPicture, pair: FramePair, time: Fraction, step: Fraction, measures: list[Measure]
    ) -> PendingPicture:
        """Returns the picture to show at a timestep between two frames; adds its measure when it is finished."""

        def picture() -> Picture:
            assert isinstance(made, MeasuredPicture)
            apart = made.disagreement() / _picture_share(pair)
            replaced = self.rule is not None and not apart <= self.threshold  # also if it is NaN
            measures.append(Measure(float(time), apart, replaced))
            return held_picture(pair, step, self.rule or "hold") if replaced else made()

        return picture


def _picture_share(pair: FramePair) -> float:
    """Returns the share of two frames that is between their black bars, 1 without bars."""
    brightest = np.maximum(pair.first.luma, pair.second.luma)
    return float(brightest[picture_area(brightest)].size / brightest.size)


def write_measures(path: Path, measures: Iterable[Measure]) -> None:
    """Writes one line for each made frame: time in seconds, disagreement in 8-bit levels, and 1 if it was replaced."""
    lines = [f"{m.time:.6f},{m.disagreement:.3f},{m.replaced:d}\n" for m in measures]
    write_file(path, (CSV_HEADER + "".join(lines)).encode(), overwrite=True)
