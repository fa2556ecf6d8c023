"""Classifies the transition from one frame to the next: motion, a cut, a repeat, or a gap in time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from model.image import to_layers
from model.metrics import Surroundings, ssim, surroundings
from video.transitions.cuts import Match, small_luma
from video.transitions.cuts import match as match_motion

THUMBNAIL_SIZE = 32  # px; for the similarity, both frames are compared at 32x32, as upstream does
CUT_RULES = ("motion", "upstream", "off")
# Measured by benchmark/cuts.py: two scenes have a mismatch of 0.23 and more; motion has less, or as much as the pairs
# beside it.
CUT_MISMATCH = 0.22
SPIKE = 2.0  # a cut has this many times the mismatch of the pairs beside it; a whip pan or a fade has not
FLASH_CORRELATION = 0.8  # of brightness: a flash has 0.94 and more, two scenes 0.6 and less
CUT_SSIM = 0.2  # upstream's rule; below: a cut, the earlier frame is held; above: motion, frames are made
REPEAT_SSIM = 0.996  # upstream's rule; above: the frame repeats the one before; below: motion
REPEAT_RULES = ("same", "upstream", "off")
BLOCK_SIZE = 4  # px; the difference of two frames is the largest mean over blocks of 4x4
# Measured by benchmark/repeats.py. 8-bit levels: below, no difference is visible.
EQUAL_LEVELS = 0.5
# Frames that are coded twice differ by up to 41 levels (x264, crf 32); above, a difference is no coding noise.
NOISE_LEVELS = 42.0
# Shares of the smaller of the differences on both sides. Frames that repeat have at most 0.85 of it and little of the
# mean difference; others have 0.73 of it or more, and of the mean difference 0.8. Motion by uneven steps, as of a hand
# that shakes, has half of both where a step is half as long.
REPEAT_SHARE = 0.9  # of the largest local difference, and either
MEAN_SHARE = 0.35  # of the mean difference, or
BOTH_SHARE = 0.2  # of both, multiplied
# Ratio of the times before and after a repeat. Above, the scene stands still for the longer one, as in a screen
# recording; a recorder that leaves out one frame makes 2.
UNEVEN_TIMES = Fraction(5, 2)
LONGEST_STEP = Fraction(5)  # seconds; above, two frames are too far apart to show motion, the earlier one is held


class Transition(Enum):
    """Names the kind of change from one frame to the next."""

    MOTION = "motion"
    CUT = "cut"
    FLASH = "flash"  # the same scene, lit up or gone dark from one frame to the next
    REPEAT = "repeat"
    GAP = "gap"
    DAMAGED = "damaged"  # the frame itself is to be made anew


HELD = (Transition.CUT, Transition.FLASH, Transition.GAP)  # no frame is made between the two frames


class Signature(NamedTuple):
    """Holds the data of a frame that comparisons with its neighbours use."""

    thumbnail: Surroundings | None  # for upstream's rules
    luma: np.ndarray | None  # for the rule "motion" of cuts
    rgb: np.ndarray  # (H,W,C)
    time: Fraction  # seconds


class Comparison(NamedTuple):
    """Holds how two frames differ."""

    similarity: float  # SSIM of 32x32 thumbnails, 1 for equal pictures; NaN if no rule needs it
    match: Match  # how well motion explains the change; perfect if no rule needs it
    difference: float  # largest local difference at full size, in 8-bit levels
    mean: float  # mean difference at full size, in 8-bit levels
    seconds: Fraction  # from one to the other


@dataclass(frozen=True)
class TransitionDetector:
    """Decides for the whole program whether motion, a cut or a gap separates two frames, or whether they are the same.

    `cuts` names the rule for cuts: "motion" finds two frames with a mismatch above `mismatch` that also is SPIKE times
    that of a neighbouring pair; "upstream" a similarity below `scene`; "off" none. `repeats` names the rule for
    repeats: "same" finds a frame that is the one before up to the noise of coding; "upstream" one whose similarity is
    above `static`, which slow or small motion is too; "off" none. `gap` is in seconds.
    """

    scene: float = CUT_SSIM
    static: float = REPEAT_SSIM
    repeats: str = REPEAT_RULES[0]
    gap: Fraction = LONGEST_STEP
    cuts: str = CUT_RULES[0]
    mismatch: float = CUT_MISMATCH

    def __post_init__(self) -> None:
        for name, rule, rules in (("repeats", self.repeats, REPEAT_RULES), ("cuts", self.cuts, CUT_RULES)):
            if rule not in rules:
                raise ValueError(f"{name} is one of {', '.join(rules)}, got {rule}")

    def signature(self, rgb: np.ndarray, time: Fraction, padded: tuple[int, int] | None = None) -> Signature:
        """Computes what `compare` needs of a frame (H,W,C); `padded` is the height and width with the padding."""
        upstream = "upstream" in (self.cuts, self.repeats)
        small = surroundings(thumbnail(rgb, padded or rgb.shape[:2])) if upstream else None
        return Signature(small, small_luma(rgb) if self.cuts == "motion" else None, rgb, time)

    def compare(self, earlier: Signature, later: Signature) -> Comparison:
        """Measures how two frames differ, as far as the rules need it."""
        similarity, match = math.nan, Match(0, 1)
        if earlier.thumbnail is not None and later.thumbnail is not None:
            similarity = float(ssim(earlier.thumbnail, later.thumbnail))
        if earlier.luma is not None and later.luma is not None:
            match = match_motion(earlier.luma, later.luma)
        local, mean = differences(earlier.rgb, later.rgb) if self.repeats == "same" else (0.0, 0.0)
        return Comparison(similarity, match, local, mean, later.time - earlier.time)

    def classify(
        self, change: Comparison, before: Comparison | None = None, after: Comparison | None = None
    ) -> Transition:
        """Returns the transition between two frames; `before` and `after` compare the pairs on both sides of it."""
        if change.seconds > self.gap:
            return Transition.GAP
        if self._is_cut(change, before, after):
            return Transition.FLASH if self._is_flash(change) else Transition.CUT
        return Transition.REPEAT if self._is_repeat(change, before, after) else Transition.MOTION

    def score(self, kind: Transition, change: Comparison) -> float | None:
        """Returns the measure by which a transition was found; None if there is none.

        The mismatch of a cut or a flash, the largest local difference of a repeat, or the similarity by upstream's
        rules.
        """
        if kind not in (Transition.CUT, Transition.FLASH, Transition.REPEAT):
            return None
        is_repeat = kind is Transition.REPEAT
        if (self.repeats if is_repeat else self.cuts) == "upstream":
            return round(change.similarity, 3)
        return round(change.difference if is_repeat else change.match.mismatch, 3)

    def transitions(self, frames: Sequence[Signature]) -> Iterator[Transition]:
        """Yields the transition to each frame but the first."""
        changes = [self.compare(a, b) for a, b in pairwise(frames)]
        for before, change, after in zip([None, *changes], changes, [*changes[1:], None], strict=False):
            yield self.classify(change, before, after)

    def _is_cut(self, change: Comparison, before: Comparison | None, after: Comparison | None) -> bool:
        if self.cuts == "upstream":
            return self.scene > 0 and change.similarity < self.scene  # that of inverted pictures is below 0
        beside = [other.match.mismatch for other in (before, after) if other is not None]
        return self.cuts == "motion" and change.match.mismatch > max(self.mismatch, SPIKE * min(beside, default=0.0))

    def _is_flash(self, change: Comparison) -> bool:
        return self.cuts == "motion" and change.match.correlation > FLASH_CORRELATION

    def _is_repeat(self, change: Comparison, before: Comparison | None, after: Comparison | None) -> bool:
        if self.repeats == "upstream":
            return change.similarity > self.static and self.static < 1
        if self.repeats == "off" or not _is_evenly_timed(change, after):
            return False
        if change.difference <= EQUAL_LEVELS:
            return True
        if before is None or after is None:  # with motion on one side only, the start of a motion resembles a repeat
            return False
        local, mean = min(before.difference, after.difference), min(before.mean, after.mean)
        if change.difference >= min(NOISE_LEVELS, REPEAT_SHARE * local):
            return False
        both = change.difference * change.mean
        return change.mean < MEAN_SHARE * mean or both < BOTH_SHARE * local * mean


def _is_evenly_timed(change: Comparison, after: Comparison | None) -> bool:
    """Returns whether a frame is about as far in time from the one before as from the one after; True at the end."""
    shorter, longer = sorted((change.seconds, change.seconds if after is None else after.seconds))
    return longer <= UNEVEN_TIMES * shorter


def differences(earlier: np.ndarray, later: np.ndarray) -> tuple[float, float]:
    """Returns how two frames (H,W,C) differ, in 8-bit levels: the largest mean over blocks of 4x4 pixels, and the mean.

    Infinite for pictures of two shapes or depths. A mean over the whole frame, or over a thumbnail of it, is as small
    for a small object that moves as for a repeat.
    """
    if earlier.shape != later.shape or earlier.dtype != later.dtype:
        return float("inf"), float("inf")
    height, width = (max(side // BLOCK_SIZE * BLOCK_SIZE, min(side, BLOCK_SIZE)) for side in earlier.shape[:2])
    difference = cv2.absdiff(earlier[:height, :width], later[:height, :width]).astype(np.float32)
    block_count = -(-width // BLOCK_SIZE), -(-height // BLOCK_SIZE)
    blocks = cv2.resize(difference, block_count, interpolation=cv2.INTER_AREA)
    level = np.iinfo(earlier.dtype).max / 255 if earlier.dtype.kind == "u" else 1 / 255
    means = blocks.reshape(*blocks.shape[:2], -1).mean(2)  # (H/4,W/4)
    return float(means.max()) / level, float(means.mean()) / level


def thumbnail(rgb: np.ndarray, padded: tuple[int, int]) -> Tensor:
    """Resizes a frame (H,W,C), padded with zeros to the height and width given, to (1,3,32,32) in 0..1.

    Bilinear without antialiasing, as upstream: only the pixels that contribute to the thumbnail are converted.
    """
    ys, below = _taps(padded[0])
    xs, right = _taps(padded[1])
    height, width = rgb.shape[:2]
    picked = rgb[np.minimum(ys, height - 1)][:, np.minimum(xs, width - 1)]
    inside = torch.from_numpy((ys < height)[:, None] & (xs < width))
    image = to_layers(picked)[:, :3] * inside  # (1,3,64,64)
    rows = torch.lerp(image[:, :, :THUMBNAIL_SIZE], image[:, :, THUMBNAIL_SIZE:], below[:, None])  # (1,3,32,64)
    return torch.lerp(rows[..., :THUMBNAIL_SIZE], rows[..., THUMBNAIL_SIZE:], right)  # (1,3,32,32)


def _taps(size: int) -> tuple[np.ndarray, Tensor]:
    """Returns the pixels that the 32 places along an axis lie between, and the weights of the second ones.

    The pixels are (64,): the 32 before the places, then the 32 after them. The weights are (32,).
    """
    place = ((torch.arange(THUMBNAIL_SIZE) + 0.5) * (size / THUMBNAIL_SIZE) - 0.5).clamp(min=0)
    first = place.long()
    return torch.cat((first, (first + 1).clamp(max=size - 1))).numpy(), place - first
