"""Makes labelled joins of clips and photographs: which pairs of consecutive frames have no motion between them."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from video.frame import Frame
from video.pictures.picture import read_picture
from video.reading.reader import open_frames

SIZE = (448, 256)  # width, height px that every clip is scaled to
LENGTH = 8  # frames of a clip in one join
GRADUAL = 12  # frames of a fade or of a dissolve
DARK = 0.15  # of the light of the clip, as at night
BARS = {"cut between bars": (0.744, 1), "cut beside bars": (1, 0.316)}  # share of height and width: 2.39:1, 9:16
FLASHES = {"flash 55 %": 0.55, "flash 30 %": 0.3, "flash 10 %": 0.1}  # share of white in one frame
PAN = 6  # px a frame, of the photographs
WHIP = SIZE[0] // 8  # px a frame of a whip pan
BLUR = WHIP // 2  # px: the shutter is open for half of the time
RATE = 24  # frames/s
BREAK_KINDS = ("cut", "cut of photographs", "cut in the dark", *BARS, "flash 55 %")  # kinds of joins that hold breaks
EITHER = "flash 30 %"  # neither the network nor a held frame is right: it is counted, but in no total


class Join(NamedTuple):
    """Holds consecutive frames, and the numbers of the frames that a break separates from the frame before."""

    kind: str
    name: str
    pictures: list[np.ndarray]  # (H,W,3) uint8
    breaks: frozenset[int]

    def frames(self) -> list[Frame]:
        """Returns the frames at a constant rate."""
        return [Frame(picture, Fraction(n, RATE)) for n, picture in enumerate(self.pictures)]


def read_clip(path: Path, count: int) -> list[np.ndarray]:
    """Returns the first frames of a clip, scaled to SIZE."""
    frames = islice(open_frames(path), count)
    return [cv2.resize(frame.rgb(), SIZE, interpolation=cv2.INTER_AREA) for frame in frames]


def photo_pan(path: Path, count: int, step: int, blur: int = 0) -> list[np.ndarray]:
    """Returns the pictures of a camera that turns over a photograph by `step` px a frame, there and back."""
    width, height = SIZE
    photo = read_picture(path)[..., :3]
    longest = 2 * width
    photo = cv2.resize(photo, (longest, round(photo.shape[0] * longest / photo.shape[1])), interpolation=cv2.INTER_AREA)
    if photo.shape[0] < height:
        photo = cv2.resize(photo, (longest, height), interpolation=cv2.INTER_AREA)
    if blur:
        photo = cv2.blur(photo, (blur, 1))
    top = (photo.shape[0] - height) // 2
    reach = longest - width
    lefts = [abs((n * step + reach) % (2 * reach) - reach) for n in range(count)]
    return [np.ascontiguousarray(photo[top : top + height, left : left + width]) for left in lefts]


def mix(first: np.ndarray, second: np.ndarray | int, share: float) -> np.ndarray:
    """Returns a picture with a share of another picture, or of a grey level, rounded."""
    return np.clip(first * (1 - share) + np.asarray(second) * share + 0.5, 0, 255).astype(np.uint8)


def between_bars(picture: np.ndarray, height: float, width: float) -> np.ndarray:
    """Returns the middle of a picture, of these shares of its height and width, between black bars."""
    top, left = (round(side * (1 - share) / 2) for side, share in zip(picture.shape, (height, width), strict=False))
    bars = np.zeros_like(picture)
    inside = np.s_[top : len(picture) - top, left : picture.shape[1] - left]
    bars[inside] = picture[inside]
    return bars


def joins(clips: Sequence[Path], photos: Sequence[Path], frames: int) -> Iterator[Join]:
    """Yields the joins of each clip with the next one, and of each photograph with the next one."""
    first: list[np.ndarray] | None = None
    for path, following in pairwise([*clips, clips[0]]):
        shot = first if first is not None else read_clip(path, frames)
        first = read_clip(following, frames)
        yield Join("motion", path.name, shot, frozenset())
        yield from _joins_of_clips(path.name, shot[-LENGTH:], first[:LENGTH])
    for path, following in pairwise([*photos, photos[0]]):
        pans = [photo_pan(photo, LENGTH, PAN) for photo in (path, following)]
        yield Join("cut of photographs", path.name, [*pans[0], *pans[1]], frozenset({LENGTH}))
        yield Join("whip pan", path.name, photo_pan(path, LENGTH, WHIP, BLUR), frozenset())


def _joins_of_clips(name: str, first: list[np.ndarray], second: list[np.ndarray]) -> Iterator[Join]:
    """Yields a hard cut, the same in the dark and with black bars, flashes, a fade, and a dissolve."""
    cut = [*first, *second]
    yield Join("cut", name, cut, frozenset({len(first)}))
    yield Join("cut in the dark", name, [mix(p, 0, 1 - DARK) for p in cut], frozenset({len(first)}))
    for kind, (height, width) in BARS.items():
        yield Join(kind, name, [between_bars(p, height, width) for p in cut], frozenset({len(first)}))
    middle = len(first) // 2
    for kind, share in FLASHES.items():
        lit = [mix(p, 255, share) if n == middle else p for n, p in enumerate(first)]
        yield Join(kind, name, lit, frozenset({middle, middle + 1}) if kind in BREAK_KINDS else frozenset())
    long = [*first, *first[::-1]][:GRADUAL]  # there and back: as long as the change takes
    other = [*second, *second[::-1]][:GRADUAL]
    shares = [n / (GRADUAL - 1) for n in range(GRADUAL)]
    yield Join("fade", name, [mix(p, 0, s) for p, s in zip(long, shares, strict=False)], frozenset())
    yield Join("dissolve", name, [mix(p, q, s) for p, q, s in zip(long, other, shares, strict=False)], frozenset())
