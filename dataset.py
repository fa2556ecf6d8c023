"""Reads training samples: Vimeo90K, synthetic scenes, weighted mixtures; defines the order in which they are read.

Sample i of epoch e depends on (seed, e, i) alone, not on the number of workers and processes. Samples of all sources
have the same fields, listed in data/sample.py. Other sources: data/clips.py, data/triplets.py, data/pans.py.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data.sample import TrainingSample, augment, pack
from data.synthetic import scene
from data.textures import RgbPicture
from model.errors import UserError, printable
from model.signals import ENDING_SIGNALS
from video.pictures.picture import MediaError, eight_bit, read_picture

VIMEO_CROP = 224
UNREADABLE = 5  # so many unreadable samples in a row end a run
VALIDATION_SHARE = 20  # the last twentieth of tri_trainlist.txt validates, as upstream's 95/5 split


class SampleSource(Protocol):
    """Defines a source of samples; sources that draw at random ignore `index`."""

    def __len__(self) -> int: ...

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample: ...


class Samples(Dataset[TrainingSample]):
    """Gives a source a seed: item (epoch, index) is always the same sample.

    A sample that cannot be read is replaced by the next one, with a line on stderr; UserError where several in a row
    cannot be read.
    """

    def __init__(self, source: SampleSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample:
        epoch, index = key
        for attempt in range(UNREADABLE):
            number = (index + attempt) % len(self)
            try:
                return self.source.sample(np.random.default_rng((self.seed, epoch, number)), number)
            except MediaError as e:
                error = e
                with suppress(OSError, ValueError):  # a closed stderr does not end the training
                    print(printable(f"a sample is skipped: {e}"), file=sys.stderr, flush=True)
        raise UserError(printable(f"{error}; {UNREADABLE} samples in a row cannot be read"))


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields the batches of one process, beginning at `step`, without end; each epoch has a new order.

    The batch of all processes together is cut into `world` pieces, so N processes with batch B train on the same
    samples as one process with batch N*B. Samples that fill no batch at the end of an epoch are left out.
    """

    def __init__(
        self, length: int, batch: int, *, seed: int, step: int = 0, rank: int = 0, world: int = 1, shuffle: bool = True
    ) -> None:
        self.per_epoch = length // (batch * world)
        if self.per_epoch == 0:
            raise UserError(
                f"{length} samples do not fill one batch of {batch} on {world} processes; make the batch smaller"
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
    """Returns a loader whose worker processes make the batches, in order."""
    return DataLoader(
        train,
        batch_sampler=order,
        num_workers=workers,
        worker_init_fn=prepare_worker,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )


def prepare_worker(worker: int) -> None:
    """Limits a loading process to one thread, and makes it ignore the signals that end a run.

    The number of processes sets how many cores are used. Terminals and batch systems send signals to all processes of a
    run: the first process ends after its step, with a checkpoint, and then ends the loading processes.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Mixture:
    """Draws samples of several sources in random order, by weight; an epoch is `length` samples."""

    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[float], length: int) -> None:
        self.sources, self.length = sources, length
        self.shares = np.asarray(weights, np.float64) / sum(weights)

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        return source.sample(rng, int(rng.integers(len(source))))


class Spread:
    """Takes `length` samples of a source, evenly spread over it."""

    def __init__(self, source: SampleSource, length: int) -> None:
        self.source, self.length = source, length

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        return self.source.sample(rng, index * len(self.source) // self.length)


class Scenes:
    """Renders synthetic scenes made of textures (data/synthetic.py)."""

    def __init__(self, textures: Sequence[RgbPicture], size: int, length: int = 100_000) -> None:
        self.textures, self.size, self.length = textures, size, length

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        return scene(rng, self.size, self.textures)


class Vimeo:
    """Reads Vimeo90K: `root` holds sequences/, tri_trainlist.txt (or sep_) and tri_testlist.txt.

    The splits "train" and "validation" are two parts of the training list, "test" is the test list. Of a septuplet
    three distinct frames are drawn, so t is (n1-n0)/(n2-n0). Only training samples are cropped and augmented.
    """

    def __init__(self, root: Path | str, split: str = "train", crop: int = VIMEO_CROP) -> None:
        self.root, self.split, self.crop = Path(root), split, crop
        half = "test" if split == "test" else "train"
        found = [p for p in (self.root / f"{kind}_{half}list.txt" for kind in ("tri", "sep")) if p.is_file()]
        if not found:
            raise UserError(f"{self.root}: no tri_{half}list.txt or sep_{half}list.txt; give the folder vimeo_triplet")
        self.frames = 3 if found[0].name.startswith("tri") else 7
        try:
            names = [line.strip() for line in found[0].read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{found[0]}: cannot be read as a list of folders ({e}); download it again") from e
        first = len(names) - len(names) // VALIDATION_SHARE
        self.names = {"train": names[:first], "validation": names[first:], "test": names}[split]

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        n0, n1, n2 = 0, self.frames // 2, self.frames - 1
        if self.frames == 7 and self.split == "train":
            n0, n1, n2 = sorted(int(n) for n in rng.choice(7, 3, replace=False))
        folder = self.root / "sequences" / self.names[index]
        pictures = [read_rgb(folder / f"im{n + 1}.png") for n in (n0, n1, n2)]
        if self.split != "train":
            return pack(pictures, (n1 - n0) / (n2 - n0))
        h, w = pictures[0].shape[:2]
        if min(h, w) < self.crop:
            raise UserError(
                f"{folder}: pictures of {w}x{h} are smaller than the crops of {self.crop} px; make the crops smaller"
            )
        return augment(rng, pack(random_crop(rng, pictures, self.crop), (n1 - n0) / (n2 - n0)))


def random_crop(rng: np.random.Generator, pictures: Sequence[RgbPicture], size: int) -> list[RgbPicture]:
    """Returns the same random square of `size` px of each picture."""
    h, w = pictures[0].shape[:2]
    y, x = rng.integers(h - size + 1), rng.integers(w - size + 1)
    return [p[y : y + size, x : x + size] for p in pictures]


def read_rgb(path: Path) -> RgbPicture:
    """Reads a picture as (H,W,3) uint8 RGB: grey becomes RGB, 16 bits are rounded to 8. MediaError for others."""
    picture = read_picture(path)
    if picture.dtype.kind != "u":
        raise MediaError(f"{path}: holds {picture.dtype} values, training takes 8 or 16 bits; convert it")
    return np.ascontiguousarray(eight_bit(picture)[:, :, :3])
