"""Training samples: Vimeo90K triplets and septuplets, synthetic scenes, a weighted mix; clips: data/clips.py.

Sample i of epoch e is a function of (seed, e, i) alone, whatever the number of workers and processes. Every source
gives the same fields, see data/sample.py; flows and visibility are there where they are known.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data.sample import Sample, augment, pack
from data.synthetic import scene
from data.textures import Picture
from model.errors import UserError
from video.picture import read_picture, with_channels

VIMEO_CROP = 224
VALIDATION_SHARE = 20  # the last twentieth of tri_trainlist.txt validates, as upstream's 95/5 split


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


def open_loader(train: Samples, order: BatchSampler, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches in order, made by worker processes."""
    return DataLoader(
        train,
        batch_sampler=order,
        num_workers=workers,
        worker_init_fn=keep_to_one_thread,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )


def keep_to_one_thread(worker: int) -> None:
    """What a loading process begins with: as many processes as asked for, each on one core."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


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
    """Synthetic scenes made of the given textures (data/synthetic.py)."""

    def __init__(self, textures: Sequence[Picture], size: int, length: int = 100_000) -> None:
        self.textures, self.size, self.length = textures, size, length

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> Sample:
        made = scene(rng, self.size, self.textures)
        pure = np.asarray(made["pure"])
        return pack(
            [np.asarray(made[key]) for key in ("img0", "gt", "img1")],
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
        pictures = [read_rgb(folder / f"im{n + 1}.png") for n in (n0, n1, n2)]
        if self.split != "train":
            return pack(pictures, (n1 - n0) / (n2 - n0))
        h, w = pictures[0].shape[:2]
        if min(h, w) < self.crop:
            raise UserError(f"{folder}: pictures of {w}x{h}, smaller than the crops; lower --crop {self.crop}")
        y, x = rng.integers(h - self.crop + 1), rng.integers(w - self.crop + 1)
        cropped = [p[y : y + self.crop, x : x + self.crop] for p in pictures]
        return augment(rng, pack(cropped, (n1 - n0) / (n2 - n0)))


def read_rgb(path: Path) -> Picture:
    """(H,W,3) uint8 RGB; grey becomes RGB. UserError if the file is no such picture."""
    picture = with_channels(read_picture(path), 3)[:, :, :3]
    if picture.dtype != np.uint8:
        raise UserError(f"{path}: holds {picture.dtype}, training takes 8 bits; convert it")
    return np.ascontiguousarray(picture)
