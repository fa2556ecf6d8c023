"""Clips as training samples: decoded once, repeats and cuts left out, flows estimated where that can be trusted."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from data.recode import recode
from data.sample import Sample, augment, pack
from data.synthetic import Layer, draw_motion
from data.textures import Picture, compress
from model.errors import UserError
from video.reader import open_frames
from video.scene import Transition, TransitionDetector

REPEAT_LEVELS = 0.25  # grey levels; frames that differ by less on average are one frame shown twice
CACHE_SHORT_SIDE = 480  # px; clips are kept at this size at most
CACHE_FRAMES = 400  # of one clip at most
SPANS, SPAN_SHARES = (2, 3, 4, 6), (0.6, 0.15, 0.15, 0.1)  # frames from img0 to img1
ZOOMS, WEAK_ZOOMS = (0.45, 1.2), (0.45, 0.75)  # of clips, and of those that look like a small web video
CODED = 0.8, 1.3  # height and width that those are coded at, relative to the crop
LEAD = 4  # frames before img0 that are coded with it, at most
PAN_SPEEDS = 0.5, 40.0  # px from img0 to img1, of the camera that clips are shown by
PAN_TURN = 0.5  # of a layer's angle
SEEN_LEVELS = 10.0  # a flow estimate is believed where the warped end differs by fewer grey levels from the middle


class Clips:
    """Triplets at random gaps from a folder of video files, decoded once into `cache`; repeats and cuts are skipped.

    `guess_flow`: flows from the middle to both ends by DIS (arXiv 1603.03590), believed where the warped end looks like
    the middle. `weak`: the share of samples shown small and coded at a low rate, every time anew, as web and
    action-recognition videos are. `moved`: the share that is seen by a moving camera, so that the same few clips show
    ever other motions.
    """

    def __init__(
        self,
        files: Sequence[Path],
        cache: Path,
        size: int,
        *,
        guess_flow: bool = True,
        weak: float = 0.0,
        moved: float = 0.0,
    ) -> None:
        self.size, self.guess_flow, self.weak, self.moved = size, guess_flow, weak, moved
        self.clips = [cached_clip(file, cache) for file in files]
        self.runs = [(k, a, b) for k, (_, runs) in enumerate(self.clips) for a, b in runs if b - a > 2]
        self.starts = np.cumsum([0] + [b - a - 2 for _, a, b in self.runs])
        if not self.runs:
            raise UserError("the clips hold no three frames in a row without a repeat or a cut")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample(self, rng: np.random.Generator, index: int) -> Sample:
        run = int(np.searchsorted(self.starts, index, "right")) - 1
        clip, first, last = self.runs[run]
        n0 = first + index - int(self.starts[run])
        weak = rng.random() < self.weak
        n2 = min(n0 + int(rng.choice(SPANS, p=SPAN_SHARES)), last - 1)
        n1 = (n0 + n2) // 2 if rng.random() < 0.5 else int(rng.integers(n0 + 1, n2))
        shown: Sequence[int] = range(max(first, n0 - int(rng.integers(LEAD + 1))), n2 + 1) if weak else (n0, n1, n2)
        seen, times = [self.clips[clip][0][n] for n in shown], [(n - n0) / (n2 - n0) for n in shown]
        rows, columns = coded_shape(rng, self.size) if weak else (self.size, self.size)
        zooms = WEAK_ZOOMS if weak else ZOOMS
        if self.moved and rng.random() < self.moved:
            pictures = pan_over(rng, seen, times, self.size, zooms)
        else:
            pictures = cut_out(rng, seen, self.size, zooms)
        pictures = [fit(picture, rows, columns) for picture in pictures]
        if weak:
            coded = recode(rng, pictures)
            pictures = [fit(coded[shown.index(n)], self.size, self.size) for n in (n0, n1, n2)]
        timestep = times[shown.index(n1)]
        if rng.random() < 0.1:
            pictures = compress(rng, pictures)
        if not self.guess_flow:
            return augment(rng, pack(pictures, timestep))
        flow, visible = guess_flow(*pictures)
        return augment(rng, pack(pictures, timestep, flow=flow, visible=visible))


def draw_zoom(rng: np.random.Generator, zooms: tuple[float, float], least: float) -> float:
    """Between two zooms, small ones as likely as large ones; at least so much that the frame fills the crop."""
    return float(max(np.exp(rng.uniform(*np.log(zooms))), least))


def cut_out(
    rng: np.random.Generator, frames: Sequence[Picture], size: int, zooms: tuple[float, float]
) -> list[Picture]:
    """The same random square of each frame, as large as a random zoom asks for, or at times just `size`."""
    h, w = frames[0].shape[:2]
    zoom = draw_zoom(rng, zooms, size / min(h, w))
    if rng.random() < 0.25 and min(h, w) >= size:
        zoom = 1.0
    side = min(round(size / zoom), h, w)
    y, x = rng.integers(h - side + 1), rng.integers(w - side + 1)
    return [np.asarray(frame[y : y + side, x : x + side]) for frame in frames]


def coded_shape(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Height and width that a crop of that size is coded at: even, and not in the same proportion."""
    least, most = np.log(CODED)
    rows, columns = (round(size / 2 * share) * 2 for share in np.exp(rng.uniform(least, most, 2)))
    return rows, columns


def fit(picture: Picture, rows: int, columns: int) -> Picture:
    """The picture resized, by areas where it shrinks."""
    if picture.shape[:2] == (rows, columns):
        return picture
    method = cv2.INTER_AREA if picture.shape[0] > rows else cv2.INTER_CUBIC
    return cv2.resize(picture, (columns, rows), interpolation=method)


def pan_over(
    rng: np.random.Generator, frames: Sequence[Picture], times: Sequence[float], size: int, zooms: tuple[float, float]
) -> list[Picture]:
    """The frames as a camera sees them that moves, turns and zooms at a random pace, mirrored where it leaves them."""
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


def guess_flow(img0: Picture, gt: Picture, img1: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Flows (4,H,W) px from the middle to both ends, estimated, and where they are believed, (2,H,W) bool."""
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    middle = cv2.cvtColor(gt, cv2.COLOR_RGB2GRAY)
    h, w = middle.shape
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    flows, seen = [], []
    for end in (img0, img1):
        flow: Any = dis.calc(middle, cv2.cvtColor(end, cv2.COLOR_RGB2GRAY), None)  # (H,W,2)
        there_x, there_y = x + flow[..., 0], y + flow[..., 1]
        warped = cv2.remap(end, there_x, there_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        differing = cv2.transform(cv2.absdiff(warped, gt).astype(np.float32), np.ones((1, 3))) / 3
        error = cv2.blur(differing, (5, 5))
        inside = (there_x >= 0) & (there_y >= 0) & (there_x <= w - 1) & (there_y <= h - 1)
        flows.append(flow.transpose(2, 0, 1))
        seen.append((error < SEEN_LEVELS) & inside)
    return np.concatenate(flows), np.stack(seen)


def cached_clip(file: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a clip (N,H,W,3) uint8, mapped from disk, and its runs (R,2): first frame, last + 1."""
    kept, runs = cache / f"{file.stem}.npy", cache / f"{file.stem}.runs.npy"
    if not kept.is_file() or not runs.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        frames = decode(file)
        _save(runs, find_runs(frames))
        _save(kept, frames)
    return np.load(kept, mmap_mode="r"), np.load(runs)


def _save(path: Path, array: np.ndarray) -> None:
    """Whole or not at all; several processes may fill one cache at once, each in a folder of its own."""
    with TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        np.save(part, array)
        part.replace(path)


def decode(file: Path) -> np.ndarray:
    """Reads at most CACHE_FRAMES frames of a video, (N,H,W,3) uint8 RGB.

    Frames whose shorter side exceeds CACHE_SHORT_SIDE are reduced to it. Height and width are even.
    """
    source = open_frames(file)
    scale = min(1.0, CACHE_SHORT_SIDE / min(source.size))
    width, height = (round(side * scale / 2) * 2 for side in source.size)
    pictures = []
    for frame in islice(source, CACHE_FRAMES):
        rgb = frame.rgb()
        picture = rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=1 / 257)
        pictures.append(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    return np.stack(pictures)


def find_runs(frames: np.ndarray) -> np.ndarray:
    """Returns (R,2): the first frame, and the last + 1, of each run of frames without a cut or a repeat inside."""
    detector = TransitionDetector(static=1)
    signatures = [detector.signature(frame) for frame in frames]
    runs, start = [], 0
    for n in range(1, len(frames)):
        still = cv2.absdiff(frames[n], frames[n - 1]).mean() < REPEAT_LEVELS
        if still or detector.classify(signatures[n - 1], signatures[n]) is Transition.CUT:
            runs.append((start, n))
            start = n
    return np.array([*runs, (start, len(frames))])
