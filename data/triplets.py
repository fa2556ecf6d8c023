"""Reads training samples from a folder of triplets, in any of the usual layouts."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.sample import TrainingSample, augment, pack
from dataset import random_crop, read_rgb
from model.errors import UserError
from video.pictures.picture import MediaError, natural_key
from video.safe_file import PICTURE_SUFFIXES

MIDDLE_NAME = re.compile(r"gt|target|mid|inter|truth", re.IGNORECASE)  # in the name of the true middle frame
NUMBER = re.compile(r"^(.*?)[_\-. ]?(\d+)(?:[_\-. ]?gt)?$", re.IGNORECASE)  # NAME_1 or NAME_01_gt

Triplet = tuple[Path, Path, Path]  # img0, the frame between, img1


def find_triplets(root: Path, report: Callable[[str], None]) -> list[Triplet]:
    """Returns all triplets below a folder, sorted by name; `report` is called with a line about pictures in no triplet.

    Known layouts: folders with three pictures each (im1 im2 im3; frame_00 frame_01_gt frame_02; frame10 frame10i11
    frame11); pictures NAME_1 NAME_2 NAME_3 in one folder; three folders that hold pictures of the same names. The true
    frame is the one named gt, target, mid, inter or truth, else the second. UserError if there is no triplet.
    """
    pictures = sorted(
        (p for p in root.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file() and p.name[0] != "."),
        key=lambda p: natural_key(str(p)),
    )
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in pictures:
        folders[path.parent].append(path)
    triplets, left = _sibling_triplets(folders)
    triplets += [in_order(inside) for inside in left.values() if len(inside) == 3]
    left = {folder: inside for folder, inside in left.items() if len(inside) != 3}
    for folder, inside in left.items():
        numbered = _numbered(inside)
        triplets += numbered
        if 3 * len(numbered) < len(inside):
            report(f"{folder}: {len(inside) - 3 * len(numbered)} of {len(inside)} pictures belong to no triplet")
    if not triplets:
        raise UserError(f"{root}: no triplet of pictures found; make a folder of three pictures for each")
    return sorted(triplets, key=lambda triplet: natural_key(str(triplet[0])))


def in_order(three: Sequence[Path]) -> Triplet:
    """Returns three pictures, sorted by name, as img0, the true frame and img1."""
    marked = [i for i, path in enumerate(three) if MIDDLE_NAME.search(path.stem)]
    middle = marked[0] if len(marked) == 1 else 1
    first, last = (path for i, path in enumerate(three) if i != middle)
    return first, three[middle], last


def _numbered(inside: Sequence[Path]) -> list[Triplet]:
    """Returns the triplets among pictures of one folder that differ in a last number only."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in inside:
        match = NUMBER.match(path.stem)
        if match:
            groups[match[1]].append(path)
    return [in_order(group) for group in groups.values() if len(group) == 3]


def _sibling_triplets(folders: dict[Path, list[Path]]) -> tuple[list[Triplet], dict[Path, list[Path]]]:
    """Returns the triplets of three sibling folders with pictures of the same names, and the folders left over.

    Siblings that hold three pictures each are taken for triplets themselves, unless the name of one marks the middle.
    """
    siblings: dict[Path, list[Path]] = defaultdict(list)
    for folder in folders:
        siblings[folder.parent].append(folder)
    triplets: list[Triplet] = []
    left = dict(folders)
    for three in siblings.values():
        names = [{path.name for path in folders[folder]} for folder in three]
        if len(three) != 3 or not names[0] == names[1] == names[2]:
            continue
        if len(names[0]) != 3 or any(MIDDLE_NAME.search(folder.name) for folder in three):
            first, middle, last = in_order(three)
            triplets += [(first / name, middle / name, last / name) for name in names[0]]
            left = {folder: inside for folder, inside in left.items() if folder not in three}
    return triplets, left


class Triplets:
    """Reads triplets of picture files at t = 1/2: for training augmented crops of `size` px, else whole pictures."""

    def __init__(self, triplets: Sequence[Triplet], size: int, *, train: bool = True) -> None:
        self.triplets, self.size, self.train = triplets, size, train

    def __len__(self) -> int:
        return len(self.triplets)

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        """Returns triplet `index`; MediaError where its pictures cannot be read, differ in size or are too small."""
        pictures = [read_rgb(path) for path in self.triplets[index]]
        folder, (h, w) = self.triplets[index][1].parent, pictures[0].shape[:2]
        if len({picture.shape for picture in pictures}) > 1:
            raise MediaError(f"{folder}: pictures of different sizes; bring them to one size")
        if not self.train:
            return pack(pictures, 0.5)
        if min(h, w) < self.size:
            raise MediaError(
                f"{folder}: pictures of {w}x{h} are smaller than the crops of {self.size} px; make the crops smaller"
            )
        return augment(rng, pack(random_crop(rng, pictures, self.size), 0.5))
