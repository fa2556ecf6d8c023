"""Training samples: Vimeo90K triplets and septuplets, a folder of clips, synthetic scenes, or a weighted mix of them.

Sample i of epoch e is a function of (seed, e, i) alone, whatever the number of workers and processes. Every source
gives the same fields, see `pack`; flows and visibility are there where they are known.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from model.errors import UserError
from model.metrics import ssim_map
from synthetic import Picture, compress, scene

VIMEO_CROP = 224
VALIDATION_SHARE = 20  # the last twentieth of tri_trainlist.txt validates, as upstream's 95/5 split
REPEAT_LEVELS = 0.25  # grey levels; frames that differ by less on average are one frame shown twice
CUT_SSIM = 0.2  # of 32x32 thumbnails; below it two frames are of different scenes (upstream's value for video)
CACHE_SHORT_SIDE = 480  # px; clips are kept at this size at most
WEAK_SHORT_SIDE = 240  # px, of the second copy, re-coded at a low rate as web and action-recognition videos are
CACHE_FRAMES = 400  # of one clip at most
SPANS, SPAN_SHARES = (2, 3, 4, 6), (0.6, 0.15, 0.15, 0.1)  # frames from img0 to img1
SEEN_LEVELS = 10.0  # a flow estimate is believed where the warped end differs by fewer grey levels from the middle

Sample = dict[str, Tensor]


class Source(Protocol):
    """Where samples come from; `index` may be ignored by sources that draw at random."""

    def __len__(self) -> int: ...

    def sample(self, rng: np.random.Generator, index: int) -> Sample: ...


class Samples(Dataset[Sample]):
    """A source with a seed: item (epoch, index) is always the same sample."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.source.sample(np.random.default_rng((self.seed, *key)), key[1])


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one process from a global step on, without end: every epoch in a new order of its own.

    The batch of all processes together is cut into `world` pieces, so N processes with batch B see what one process
    with batch N*B sees. What is left over at the end of an epoch is dropped.
    """

    def __init__(
        self, length: int, batch: int, *, seed: int, step: int = 0, rank: int = 0, world: int = 1, shuffle: bool = True
    ) -> None:
        self.per_epoch = length // (batch * world)
        if self.per_epoch == 0:
            raise UserError(
                f"{length} samples do not fill one batch of {batch} on {world} processes; lower --batch_size"
            )
        self.length, self.batch, self.seed, self.step = length, batch, seed, step
        self.rank, self.world, self.shuffle = rank, world, shuffle

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.step
        while True:
            epoch = step // self.per_epoch
            order = np.arange(self.length)
            if self.shuffle:
                order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
            for i in range(step % self.per_epoch, self.per_epoch):
                start = (i * self.world + self.rank) * self.batch
                yield [(epoch, int(k)) for k in order[start : start + self.batch]]
                step += 1


class Mixture:
    """Sources in random turns, each as often as its weight says; an epoch is `length` samples."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], length: int) -> None:
        self.sources, self.length = sources, length
        self.shares = np.asarray(weights, np.float64) / sum(weights)

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> Sample:
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        return source.sample(rng, int(rng.integers(len(source))))


class Scenes:
    """Synthetic scenes made of the given textures (synthetic.py)."""

    def __init__(self, textures: Sequence[Picture], size: int, length: int = 100_000) -> None:
        self.textures, self.size, self.length = textures, size, length

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> Sample:
        made = scene(rng, self.size, self.textures)
        pure = np.asarray(made["pure"])
        return pack(
            *(np.asarray(made[key]) for key in ("img0", "gt", "img1")),
            float(made["timestep"]),
            flow=np.asarray(made["flow"]),
            visible=np.asarray(made["visible"]) & pure,
            one_sided=np.logical_xor(*np.asarray(made["visible"])) & pure,
        )


class Vimeo:
    """Vimeo90K: `root` is the folder vimeo_triplet (`sequences/`, tri_trainlist.txt, tri_testlist.txt) or septuplet.

    split "train" and "validation" are the two parts of the training list, "test" the test list. From a septuplet three
    distinct frames are drawn, so t is (n1-n0)/(n2-n0). Only training is cropped and augmented.
    """

    def __init__(self, root: Path | str, split: str = "train", crop: int = VIMEO_CROP) -> None:
        self.root, self.split, self.crop = Path(root), split, crop
        half = "test" if split == "test" else "train"
        found = [p for p in (self.root / f"{kind}_{half}list.txt" for kind in ("tri", "sep")) if p.is_file()]
        if not found:
            raise UserError(f"{self.root}: no tri_{half}list.txt or sep_{half}list.txt; give the folder vimeo_triplet")
        self.frames = 3 if found[0].name.startswith("tri") else 7
        names = [line.strip() for line in found[0].read_text().splitlines() if line.strip()]
        first = len(names) - len(names) // VALIDATION_SHARE
        self.names = {"train": names[:first], "validation": names[first:], "test": names}[split]

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, rng: np.random.Generator, index: int) -> Sample:
        n0, n1, n2 = 0, self.frames // 2, self.frames - 1
        if self.frames == 7 and self.split == "train":
            n0, n1, n2 = sorted(int(n) for n in rng.choice(7, 3, replace=False))
        folder = self.root / "sequences" / self.names[index]
        pictures = [read_picture(folder / f"im{n + 1}.png") for n in (n0, n1, n2)]
        if self.split != "train":
            return pack(*pictures, (n1 - n0) / (n2 - n0))
        h, w = pictures[0].shape[:2]
        y, x = rng.integers(h - self.crop + 1), rng.integers(w - self.crop + 1)
        cropped = (p[y : y + self.crop, x : x + self.crop] for p in pictures)
        return augment(rng, pack(*cropped, (n1 - n0) / (n2 - n0)))


class Clips:
    """Triplets at random gaps from a folder of video files, decoded once into `cache`; repeats and cuts are skipped.

    `guess_flow`: flows from the middle to both ends by DIS (arXiv 1603.03590), believed where the warped end looks like
    the middle. `weak`: the share of samples from copies re-coded small and at a low rate.
    """

    def __init__(
        self, files: Sequence[Path], cache: Path, size: int, *, guess_flow: bool = True, weak: float = 0.0
    ) -> None:
        self.size, self.guess_flow, self.weak = size, guess_flow, weak
        self.clips = [cached_clip(file, cache) for file in files]
        self.small = [cached_clip(file, cache, weak=True) for file in files] if weak else []
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
        frames = (self.small if weak else self.clips)[clip][0]
        n2 = min(n0 + int(rng.choice(SPANS, p=SPAN_SHARES)), last - 1)
        n1 = (n0 + n2) // 2 if rng.random() < 0.5 else int(rng.integers(n0 + 1, n2))
        pictures = cut_out(rng, [frames[n] for n in (n0, n1, n2)], self.size, (0.9, 1.2) if weak else (0.55, 1.4))
        if rng.random() < 0.1:
            pictures = compress(rng, pictures)
        timestep = (n1 - n0) / (n2 - n0)
        if not self.guess_flow:
            return augment(rng, pack(*pictures, timestep))
        flow, visible = guess_flow(*pictures)
        return augment(rng, pack(*pictures, timestep, flow=flow, visible=visible))


def pack(
    img0: Picture,
    gt: Picture,
    img1: Picture,
    timestep: float,
    *,
    flow: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    one_sided: np.ndarray | None = None,
) -> Sample:
    """img0, gt, img1 (3,H,W) uint8; timestep (1,1,1); flow (4,H,W) px from the middle to img0 then img1, x first;

    visible (2,H,W) uint8, where the flow to each end is known and its end shows the point; one_sided (1,H,W) uint8,
    where it is known that only one end does. All zero where nothing is known.
    """
    h, w = gt.shape[:2]
    zeros = np.zeros((4, h, w), np.float32)
    arrays = {
        "img0": img0.transpose(2, 0, 1),
        "gt": gt.transpose(2, 0, 1),
        "img1": img1.transpose(2, 0, 1),
        "timestep": np.full((1, 1, 1), timestep, np.float32),
        "flow": zeros if flow is None else flow,
        "visible": zeros[:2].astype(np.uint8) if visible is None else visible.astype(np.uint8),
        "one_sided": zeros[:1].astype(np.uint8) if one_sided is None else one_sided[None].astype(np.uint8),
    }
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}


def augment(rng: np.random.Generator, sample: Sample) -> Sample:
    """Upstream's augmentation of a square sample: channels reversed, flipped, swapped in time, turned."""
    reverse, down, across, swap = rng.random(4) < 0.5
    turns = int(rng.integers(4))
    out = dict(sample)
    if reverse:
        out |= {key: out[key].flip(0) for key in ("img0", "gt", "img1")}
    planes = [key for key in out if key != "timestep"]
    signs = torch.ones(4, 1, 1)
    for wanted, axis, sign in ((down, 1, (1, -1)), (across, 2, (-1, 1))):
        if wanted:
            out |= {key: out[key].flip(axis) for key in planes}
            signs = signs * torch.tensor(sign * 2).view(4, 1, 1)
    out["flow"] = out["flow"] * signs
    if swap:
        out |= {"img0": out["img1"], "img1": out["img0"], "timestep": 1 - out["timestep"]}
        out |= {"flow": out["flow"].roll(2, 0), "visible": out["visible"].flip(0)}
    for _ in range(turns):  # a quarter clockwise: what pointed right points down
        out |= {key: out[key].rot90(-1, (1, 2)) for key in planes}
        u0, v0, u1, v1 = out["flow"]
        out["flow"] = torch.stack((-v0, u0, -v1, u1))
    return {key: value.contiguous() for key, value in out.items()}


def cut_out(
    rng: np.random.Generator, frames: Sequence[Picture], size: int, zooms: tuple[float, float]
) -> list[Picture]:
    """The same random square of each frame, shown at a random zoom, or often at 1, where no resampling is needed."""
    h, w = frames[0].shape[:2]
    zoom = max(np.exp(rng.uniform(*np.log(zooms))), size / min(h, w))
    if rng.random() < 0.4 and min(h, w) >= size:
        zoom = 1.0
    side = min(round(size / zoom), h, w)
    y, x = rng.integers(h - side + 1), rng.integers(w - side + 1)
    pieces = [np.ascontiguousarray(frame[y : y + side, x : x + side]) for frame in frames]
    if side == size:
        return pieces
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return [cv2.resize(piece, (size, size), interpolation=method) for piece in pieces]


def guess_flow(img0: Picture, gt: Picture, img1: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Flows (4,H,W) px from the middle to both ends, estimated, and where they are believed, (2,H,W) bool."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    middle = cv2.cvtColor(gt, cv2.COLOR_RGB2GRAY)
    h, w = middle.shape
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    flows, seen = [], []
    for end in (img0, img1):
        flow: Any = dis.calc(middle, cv2.cvtColor(end, cv2.COLOR_RGB2GRAY), None)  # (H,W,2)
        there_x, there_y = x + flow[..., 0], y + flow[..., 1]
        warped = cv2.remap(end, there_x, there_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        error = cv2.blur(cv2.absdiff(warped, gt).astype(np.float32).mean(2), (5, 5))
        inside = (there_x >= 0) & (there_y >= 0) & (there_x <= w - 1) & (there_y <= h - 1)
        flows.append(flow.transpose(2, 0, 1))
        seen.append((error < SEEN_LEVELS) & inside)
    return np.concatenate(flows), np.stack(seen)


def read_picture(path: Path) -> Picture:
    """(H,W,3) uint8 RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise UserError(f"{path}: not there, or not a picture")
    return picture


def cached_clip(file: Path, cache: Path, *, weak: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a clip (N,H,W,3) uint8, mapped from disk, and its runs (R,2): first frame, last + 1."""
    kept = cache / f"{file.stem}{'.weak' if weak else ''}.npy"
    runs = cache / f"{file.stem}.runs.npy"
    if not kept.is_file() or not runs.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        frames = decode(file, WEAK_SHORT_SIDE if weak else CACHE_SHORT_SIDE)
        if weak:
            frames = recode(frames)
        else:
            _save(runs, find_runs(frames))
        _save(kept, frames)
    return np.load(kept, mmap_mode="r"), np.load(runs)


def _save(path: Path, array: np.ndarray) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as f:
        np.save(f, array)
    part.replace(path)


def decode(file: Path, short_side: int) -> np.ndarray:
    """(N,H,W,3) uint8 RGB, at most CACHE_FRAMES frames, the short side reduced to `short_side` at most, sizes even."""
    pictures = []
    with av.open(str(file)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            scale = min(1.0, short_side / min(frame.width, frame.height))
            w, h = (round(v * scale / 2) * 2 for v in (frame.width, frame.height))
            picture = frame.to_ndarray(format="rgb24")
            pictures.append(cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA))
            if len(pictures) == CACHE_FRAMES:
                break
    return np.stack(pictures)


def recode(frames: np.ndarray, quantiser: int = 6) -> np.ndarray:
    """The frames after MPEG-4 part 2 at a fixed quantiser: blocks, and stillness where little moves."""
    codec: Any = av.CodecContext.create("mpeg4", "w")
    codec.height, codec.width = frames.shape[1:3]
    codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, 25)
    codec.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
    packets = [p for frame in frames for p in codec.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame)))]
    packets += codec.encode(None)
    reader: Any = av.CodecContext.create("mpeg4", "r")
    reader.extradata = codec.extradata
    decoded = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])


def find_runs(frames: np.ndarray) -> np.ndarray:
    """(R,2): where frames follow each other without a cut or a repeat, first and last + 1."""
    small = [cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in frames]
    thumbnails = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255  # (N,3,32,32)
    likeness = ssim_map(thumbnails[:-1], thumbnails[1:], volume=False).mean((1, 2, 3))
    runs, start = [], 0
    for n in range(1, len(frames)):
        still = cv2.absdiff(frames[n], frames[n - 1]).mean() < REPEAT_LEVELS
        if still or likeness[n - 1] < CUT_SSIM:
            runs.append((start, n))
            start = n
    return np.array([*runs, (start, len(frames))])
