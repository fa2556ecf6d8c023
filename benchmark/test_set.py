"""Defines test sets: their samples, and the protocols by which their published figures were made.

Pictures are RGB here; for sets whose figures were published in BGR, the network's inputs and outputs are flipped.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from model import UserError
from video.pictures.picture import read_picture, with_channels

HALF = Fraction(1, 2)
NAMED_FILES = 3  # missing files that a message names


@dataclass(frozen=True)
class Sample:
    """Holds two frames and the true frames between them, (H,W,3) uint8 RGB."""

    name: str
    frames: tuple[np.ndarray, np.ndarray]
    targets: Mapping[Fraction, np.ndarray]  # by timestep, rising
    group: str = ""  # groups are reported apart: "4K", "easy"
    clip: str = ""  # the mean is taken over each clip first, then over the clips of a group

    def where(self, timestep: Fraction) -> dict[str, Any]:
        """Returns the fields that identify one prediction in records."""
        return {"group": self.group, "clip": self.clip, "sample": self.name, "timestep": float(timestep)}


@dataclass(frozen=True)
class Padding:
    """Describes the padding of a protocol: to `at_least`, then to a multiple; right and bottom unless centred.

    The network then pads to its own multiple, as everywhere: with zeros, or with the repeated edge (default weights).
    """

    multiple: int = 1
    mode: str = "constant"  # of torch.nn.functional.pad
    centred: bool = False
    at_least: tuple[int, int] = (0, 0)  # height and width in px

    def amounts(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns the padding at the left, right, top and bottom in px."""
        down, right = (
            max(least - size, 0) + -max(size, least) % self.multiple
            for size, least in zip((height, width), self.at_least, strict=True)
        )
        left, top = (right // 2, down // 2) if self.centred else (0, 0)
        return left, right - left, top, down - top


@dataclass(frozen=True)
class Protocol:
    """Holds the rules by which a figure was made, and RIFE's figures: published[group, metric]."""

    metrics: tuple[str, ...]
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)
    rounded: bool = True  # whether the prediction is rounded to 8 bits before it is scored
    padding: Padding = Padding()
    scale: float = 1.0  # of the flow estimate
    group_scales: Mapping[str, float] = field(default_factory=dict)  # where it differs between groups

    def scale_of(self, group: str) -> float:
        """Returns the scale of the flow estimate in a group."""
        return self.group_scales.get(group, self.scale)


@dataclass(frozen=True)
class TestSet:
    """Describes a test set: its source, the function that lists its samples, and the protocols that score it."""

    __test__ = False  # the name makes pytest take it for a test
    name: str
    count: int  # samples when complete
    data: str  # the folder, relative to the repository's root, as in upstream's scripts
    needs: tuple[str, ...]  # what must be in the folder, each a path or a pattern
    download: str  # what to fetch, by name, for the sentence "download .., and put what it holds into .."
    samples: Callable[[Path], Iterator[Sample]]
    protocols: Mapping[str, Protocol]
    bgr: bool = True  # upstream's scripts gave the network what cv2.imread returns; only its HD scripts gave RGB

    def check(self, root: Path) -> None:
        """Raises UserError with what to download and where to put it, unless all that is needed is in the folder."""
        missing = [name for name in self.needs if not next(root.glob(name), None)]
        if missing:
            rest = f" and {len(missing) - NAMED_FILES} more" if len(missing) > NAMED_FILES else ""
            raise UserError(
                f"{self.name} is not in {root}/ (no {', '.join(missing[:NAMED_FILES])}{rest}): "
                f"download {self.download}, and put what it holds into {root}/, or name its folder with --data DIR"
            )


def triplet(name: str, first: Path, middle: Path, last: Path, *, group: str = "") -> Sample:
    """Returns the sample whose truth is halfway between its frames. UserError where sizes differ."""
    return sample_of(name, (first, last), {HALF: middle}, group=group)


def sample_of(
    name: str, ends: tuple[Path, Path], between: Mapping[Fraction, Path], *, group: str = "", clip: str = ""
) -> Sample:
    """Reads two frames and the true frames between them; UserError where sizes differ or a picture is not 8-bit."""
    pictures = [read_picture(path) for path in (*ends, *between.values())]
    for path, picture in zip((*ends, *between.values()), pictures, strict=True):
        if picture.dtype != np.uint8 or picture.shape[:2] != pictures[0].shape[:2]:
            height, width = pictures[0].shape[:2]
            raise UserError(f"{path}: not an 8-bit picture of {width}x{height} like {ends[0]}; unpack the data again")
    first, last, *truth = (with_channels(picture, 3)[:, :, :3] for picture in pictures)
    return Sample(name, (first, last), dict(zip(between, truth, strict=True)), group, clip)
