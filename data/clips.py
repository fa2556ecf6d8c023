"""Cuts training samples from video clips, decoded once, without repeats and cuts; can estimate their flows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.error import FFmpegError

from data.clip_cache import CachedFrames, cached_clip, ignore_line
from data.recode import recode
from data.sample import TrainingSample, augment, pack
from data.synthetic import Layer, draw_motion
from data.textures import RgbPicture, compress
from model.errors import UserError
from video.pictures.picture import MediaError

SPANS, SPAN_SHARES = (2, 3, 4, 6), (0.6, 0.15, 0.15, 0.1)  # frames from img0 to img1
CLIP_ZOOM, WEAK_ZOOM = (0.45, 1.2), (0.45, 0.75)  # of clips, and of samples that are coded like a small web video
CODED = 0.8, 1.3  # least and largest height and width of coded samples, relative to the crop
LEAD = 4  # largest number of frames before img0 that are coded with it
PAN_SPEEDS = 0.5, 40.0  # px from img0 to img1, of the moving camera
PAN_TURN = 0.5  # factor on the angle of a layer
MATCH_LEVELS = 10.0  # a flow estimate counts where the warped end differs by fewer grey levels from the middle
MOTION_FRAMES, MOTION_LEVELS = 6, 20.0  # pairs of frames compared in a run, and the difference that counts at most

Zoom = tuple[float, float]  # least and largest factor on the size


@dataclass(frozen=True)
class ClipSettings:
    """Holds the settings of samples from clips."""

    estimate_flow: bool = True  # to both ends, by DIS (arXiv 1603.03590); used where the warped end matches the middle
    weak: float = 0.0  # share of samples that are reduced and coded at a low rate, as many web videos are
    moved: float = 0.0  # share of samples shown through a moving camera, which adds other motions
    zoom: Zoom = CLIP_ZOOM
    gaps: tuple[int, ...] = ()  # frames from img0 to the middle one, and from there to img1; empty: SPANS
    by_motion: bool = False  # draw runs of frames by how much they move, not by their length


class Clips:
    """Cuts triplets from video files, decoded once into `cache`; pairs with repeats and cuts are left out.

    `report` is called with one line about each clip that is decoded, and about each damaged one, which is skipped.
    UserError if no clip is left.
    """

    def __init__(
        self,
        files: Sequence[Path],
        cache: Path,
        size: int,
        settings: ClipSettings | None = None,
        *,
        report: Callable[[str], None] = ignore_line,
    ) -> None:
        self.size, self.settings = size, settings or ClipSettings()
        self.clips = list(_readable(files, cache, report))
        self.runs = [(k, a, b) for k, (_, runs) in enumerate(self.clips) for a, b in runs if b - a > 2]
        if not self.runs:
            raise UserError(
                f"{files[0].parent}: none of {len(files)} clips can be read and holds three frames in a row without a "
                "repeat or a cut; add clips"
            )
        self.starts = np.cumsum([0] + [b - a - 2 for _, a, b in self.runs])
        lengths = np.diff(self.starts).astype(np.float64)
        self.shares = lengths / lengths.sum()
        if self.settings.by_motion:
            moving = np.array([motion_of(self.clips[k][0], a, b) for k, a, b in self.runs])
            weights = moving * np.sqrt(lengths) + 1e-6
            self.shares = weights / weights.sum()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        """Returns the sample that begins at frame `index` of all runs; with `by_motion`, at a random frame."""
        chosen = self.settings
        if chosen.by_motion:
            run = int(rng.choice(len(self.runs), p=self.shares))
            index = int(rng.integers(self.starts[run], self.starts[run + 1]))
        run = int(np.searchsorted(self.starts, index, "right")) - 1
        clip, first, last = self.runs[run]
        n0, n1, n2 = self._frames(rng, first + index - int(self.starts[run]), first, last)
        weak = rng.random() < chosen.weak
        shown: Sequence[int] = range(max(first, n0 - int(rng.integers(LEAD + 1))), n2 + 1) if weak else (n0, n1, n2)
        times = [(n - n0) / (n2 - n0) for n in shown]
        pictures = self._crop(rng, [self.clips[clip][0][n] for n in shown], times, weak=weak)
        pictures = [pictures[shown.index(n)] for n in (n0, n1, n2)]
        if rng.random() < 0.1:
            pictures = compress(rng, pictures)
        timestep = times[shown.index(n1)]
        if not chosen.estimate_flow:
            return augment(rng, pack(pictures, timestep))
        flow, known = estimate_flow(*pictures)
        return augment(rng, pack(pictures, timestep, flow=flow, known=known))

    def _frames(self, rng: np.random.Generator, n0: int, first: int, last: int) -> tuple[int, int, int]:
        """Returns three frame numbers within first..last-1, the first at n0 or, where a gap is longer, before it."""
        gaps = self.settings.gaps
        if gaps:
            fitting = [gap for gap in gaps if 2 * gap < last - first] or [(last - first - 1) // 2]
            span = 2 * int(rng.choice(fitting))
            n0 = min(n0, last - 1 - span)
        else:
            span = min(int(rng.choice(SPANS, p=SPAN_SHARES)), last - 1 - n0)
        n2 = n0 + span
        return n0, (n0 + n2) // 2 if rng.random() < 0.5 else int(rng.integers(n0 + 1, n2)), n2

    def _crop(
        self, rng: np.random.Generator, frames: Sequence[RgbPicture], times: Sequence[float], *, weak: bool
    ) -> list[RgbPicture]:
        """Returns the same square of each frame, at random through a moving camera, and coded if `weak`."""
        zoom = WEAK_ZOOM if weak else self.settings.zoom
        rows, columns = coded_shape(rng, self.size) if weak else (self.size, self.size)
        if self.settings.moved and rng.random() < self.settings.moved:
            pictures = pan_over(rng, frames, times, self.size, zoom)
        else:
            pictures = cut_out(rng, frames, self.size, zoom)
        pictures = [fit(picture, rows, columns) for picture in pictures]
        if weak:
            pictures = [fit(picture, self.size, self.size) for picture in recode(rng, pictures)]
        return pictures


def _readable(
    files: Sequence[Path], cache: Path, report: Callable[[str], None]
) -> Iterator[tuple[CachedFrames, np.ndarray]]:
    """Yields frames and runs of the clips that can be read; `report` is called as by `Clips`."""
    for file in files:
        try:
            yield cached_clip(file, cache, report)
        except (MediaError, FFmpegError) as e:
            report(f"{file.name} is skipped: {str(e).partition(chr(10))[0]}")


def motion_of(frames: Sequence[RgbPicture], first: int, last: int) -> float:
    """Returns how much the frames first..last-1 of a clip move: the mean difference of thumbnails two frames apart."""
    differences = []
    for n in np.linspace(first, last - 3, MOTION_FRAMES).astype(int):
        small = [cv2.resize(frames[m], (64, 36), interpolation=cv2.INTER_AREA) for m in (n, n + 2)]
        differences.append(cv2.absdiff(*small).mean())
    return min(float(np.mean(differences)), MOTION_LEVELS)


def draw_zoom(rng: np.random.Generator, zooms: Zoom, least: float) -> float:
    """Returns a factor between two zooms, uniform in its logarithm, but at least `least`."""
    return float(max(np.exp(rng.uniform(*np.log(zooms))), least))


def cut_out(rng: np.random.Generator, frames: Sequence[RgbPicture], size: int, zooms: Zoom) -> list[RgbPicture]:
    """Returns the same random square of each frame; its side is `size` over a random zoom, often 1."""
    h, w = frames[0].shape[:2]
    zoom = draw_zoom(rng, zooms, size / min(h, w))
    if rng.random() < 0.25 and min(h, w) >= size:
        zoom = 1.0
    side = min(round(size / zoom), h, w)
    y, x = rng.integers(h - side + 1), rng.integers(w - side + 1)
    return [np.asarray(frame[y : y + side, x : x + side]) for frame in frames]


def coded_shape(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Returns a random height and width, both even, at which a crop of `size` is coded."""
    least, most = np.log(CODED)
    rows, columns = (round(size / 2 * share) * 2 for share in np.exp(rng.uniform(least, most, 2)))
    return rows, columns


def fit(picture: RgbPicture, rows: int, columns: int) -> RgbPicture:
    """Returns the picture resized, by areas where it shrinks, else by cubics."""
    if picture.shape[:2] == (rows, columns):
        return picture
    method = cv2.INTER_AREA if picture.shape[0] > rows else cv2.INTER_CUBIC
    return cv2.resize(picture, (columns, rows), interpolation=method)


def pan_over(
    rng: np.random.Generator, frames: Sequence[RgbPicture], times: Sequence[float], size: int, zooms: Zoom
) -> list[RgbPicture]:
    """Returns the frames through a camera that moves, rotates and zooms at random; borders are mirrored."""
    h, w = frames[0].shape[:2]
    zoom = draw_zoom(rng, zooms, size / min(h, w))
    rows, columns = (int(size * max(1, 1 / z)) for z in zoom * np.exp(rng.uniform(-0.15, 0.15, 2)))
    speed = np.exp(rng.uniform(*np.log(PAN_SPEEDS))) / min(zoom, 1)
    motion = draw_motion(rng, min(rows, columns), speed)
    reach = np.minimum(np.array((columns, rows)) / 2 / max(zoom, 1), np.array((w, h)) / 2)
    motion = replace(
        motion,
        pivot=rng.uniform(reach, np.array((w, h)) - reach),
        place=np.array((columns, rows)) / 2,
        zoom=max(zoom, 1.0),
        angle=motion.angle * PAN_TURN,
        bend=0.0,
    )
    canvas = slice(0, rows), slice(0, columns)
    return [Layer(np.asarray(f), motion, endless=True).draw(t, canvas) for f, t in zip(frames, times, strict=True)]


def estimate_flow(img0: RgbPicture, gt: RgbPicture, img1: RgbPicture) -> tuple[np.ndarray, np.ndarray]:
    """Estimates flows (4,H,W) px from the middle to both ends, and where they can be used, (2,H,W) bool."""
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    middle = cv2.cvtColor(gt, cv2.COLOR_RGB2GRAY)
    h, w = middle.shape
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    flows, seen = [], []
    for end in (img0, img1):
        flow: Any = dis.calc(middle, cv2.cvtColor(end, cv2.COLOR_RGB2GRAY), None)  # (H,W,2)
        end_x, end_y = x + flow[..., 0], y + flow[..., 1]
        warped = cv2.remap(end, end_x, end_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        differing = cv2.transform(cv2.absdiff(warped, gt).astype(np.float32), np.ones((1, 3))) / 3
        error = cv2.blur(differing, (5, 5))
        inside = (end_x >= 0) & (end_y >= 0) & (end_x <= w - 1) & (end_y <= h - 1)
        flows.append(flow.transpose(2, 0, 1))
        seen.append((error < MATCH_LEVELS) & inside)
    return np.concatenate(flows), np.stack(seen)
