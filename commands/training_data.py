"""Opens the training and validation samples that the flags of train.py name."""

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2

from data.clips import Clips, ClipSettings
from data.pans import Pans
from data.textures import RgbPicture
from data.triplets import Triplet, Triplets, find_triplets
from dataset import Mixture, Samples, SampleSource, Scenes, Spread, Vimeo, read_rgb
from model.errors import UserError
from video.pictures.picture import MediaError
from video.reading.container import VIDEO_SUFFIXES
from video.safe_file import PICTURE_SUFFIXES

CLIP_SUFFIXES = (*VIDEO_SUFFIXES, ".gif")
VALIDATION_SAMPLES = 200  # without --val_samples; pans and scenes have no end, and clips have thousands
HELD_CROPS = 2  # photos are held out only if there are at least this many times --held_out of them


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files in a folder that end in one of `suffixes`, sorted, without hidden ones.

    UserError if the folder cannot be read.
    """
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        return sorted(p for p in found if p.is_file())
    except OSError as e:
        raise UserError(f"{folder}: cannot be read ({e.strerror}); check the folder") from e


def split_held_out(items: Sequence[Any], step: int) -> tuple[list[Any], list[Any]]:
    """Returns the items to train on, and every `step`-th item, to validate with (0: none)."""
    if not step:
        return list(items), []
    return [item for i, item in enumerate(items) if i % step], list(items[::step])


class TrainingData:
    """Opens the sources of samples named on the command line; photos and lists of files are read once."""

    def __init__(self, args: argparse.Namespace, report: Callable[[str], None]) -> None:
        cv2.setNumThreads(1)  # validation reads in the main process; the samples must not depend on it
        self.args, self.report = args, report
        self.vimeo: Path | None = args.vimeo
        if not (args.vimeo or args.triplets or args.clips or args.photos):
            self.vimeo = Path("vimeo_triplet")
            if not self.vimeo.is_dir():
                raise UserError("no training data; give --triplets, --clips, --photos, or --vimeo with its folder")

    @cached_property
    def photos(self) -> tuple[list[RgbPicture], list[RgbPicture]]:
        """Returns the photos to train on and to validate with; the same ones where there are few."""
        folder = self.args.photos
        files = files_in(folder, PICTURE_SUFFIXES)
        read: dict[Path, RgbPicture] = {}
        for file in files:
            try:
                read[file] = read_rgb(file)
            except MediaError as e:
                self.report(f"{file.name} is skipped: {e}")
        if not read:
            holds = f"none of its {len(files)} pictures can be read" if files else "holds no picture"
            raise UserError(f"argument --photos: {folder}: {holds} ({', '.join(PICTURE_SUFFIXES)})")
        step = self.args.held_out
        seen, held = split_held_out(list(read), step if step > 1 and len(read) >= HELD_CROPS * step else 0)
        return [read[p] for p in seen], [read[p] for p in held or seen]

    @cached_property
    def clips(self) -> tuple[list[Path], list[Path]]:
        """Returns the clips to train on and to validate with."""
        folder = self.args.clips
        files = files_in(folder, CLIP_SUFFIXES)
        if not files:
            raise UserError(f"argument --clips: {folder}: holds no video ({', '.join(CLIP_SUFFIXES)})")
        return self._split(files, "clip", folder)

    @cached_property
    def triplets(self) -> tuple[list[Triplet], list[Triplet]]:
        """Returns the triplets to train on and to validate with."""
        return self._split(find_triplets(self.args.triplets, self.report), "triplet", self.args.triplets)

    def _split(self, items: list[Any], kind: str, folder: Path) -> tuple[list[Any], list[Any]]:
        """Returns the items to train on, of which there is one at least, and those to validate with."""
        seen, held = split_held_out(items, self.args.held_out)
        if not seen:
            raise self._nothing_left(kind, folder)
        return seen, held

    def _nothing_left(self, kind: str, folder: Path) -> UserError:
        return UserError(
            f"{folder}: every {kind} would validate, none is left to train on; add {kind}s, or give --held_out 0 with "
            "--photos, which then validate"
        )

    def training(self, args: argparse.Namespace, crop: int, seed: int, *, flow: bool) -> Samples:
        """Returns the training samples of a stage or part; `flow`: whether clips need their flow, for flow losses."""
        sources: list[tuple[SampleSource, float]] = []
        of_triplets, of_clips, of_scenes = args.mix
        if self.vimeo and of_triplets:
            sources.append((Vimeo(self.vimeo, "train", crop), of_triplets))
        if args.triplets and of_triplets:
            sources.append((Triplets(self.triplets[0], crop), of_triplets))
        if args.clips and of_clips:
            settings = ClipSettings(
                estimate_flow=flow and not args.exact,
                weak=args.weak,
                moved=args.moved,
                zoom=tuple(args.zoom),
                gaps=tuple(args.gaps),
                by_motion=args.by_motion,
            )
            sources.append((Clips(self.clips[0], args.cache, crop, settings, report=self.report), of_clips))
        if args.photos and of_scenes:
            sources.append((Scenes(self.photos[0], crop), of_scenes))
        if args.pans:
            sources.append((Pans(self.photos[0], crop, tuple(args.motion)), args.pans))
        if not sources:
            raise UserError("no training data: all data that is given has weight 0 in --mix and --pans")
        length = args.epoch_samples or sum(len(source) for source, _ in sources)
        if len(sources) == 1 and not args.epoch_samples:
            return Samples(sources[0][0], seed)
        return Samples(Mixture([s for s, _ in sources], [w for _, w in sources], length), seed)

    def validation(self, crop: int, seed: int) -> Samples:
        """Returns the samples that validate: Vimeo90K's own split, else held-out triplets, clips, or scenes."""
        if self.vimeo:
            return self._validating(Vimeo(self.vimeo, "validation"), seed, whole=True)
        if self.args.triplets and self.triplets[1]:
            return self._validating(Triplets(self.triplets[1], crop, train=False), seed)
        if self.args.clips and self.clips[1]:
            settings = ClipSettings(estimate_flow=False, weak=0.5)
            clips = Clips(self.clips[1], self.args.cache, crop, settings, report=self.report)
            return self._validating(clips, seed)
        if self.args.photos:
            return self._validating(Scenes(self.photos[1], crop), seed)
        raise UserError("argument --held_out: with 0 nothing validates; give --photos too, or another number")

    def flow_validation(self, args: argparse.Namespace, crop: int, seed: int) -> Samples:
        """Returns pans over held-out photos, in the range of motion of the stage, whose flow is known."""
        if args.photos is None:
            raise UserError("argument --flow_alone: needs --photos, whose pans validate")
        return self._validating(Pans(self.photos[1], crop, tuple(args.motion)), seed)

    def _validating(self, source: SampleSource, seed: int, *, whole: bool = False) -> Samples:
        """Returns --val_samples of the samples of a source, evenly spread; without the flag VALIDATION_SAMPLES.

        `whole`: without the flag all samples, as upstream validates on Vimeo90K.
        """
        count = self.args.val_samples or (len(source) if whole else VALIDATION_SAMPLES)
        return Samples(Spread(source, count) if count < len(source) else source, seed)
