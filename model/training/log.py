"""Writes the log of a training run: JSON lines in a file, a table on stderr, and pictures of samples."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import UserError, printable
from video.pictures.picture import write_picture

HEADER_EVERY = 20  # rows of the table between two headers
COLUMN_WIDTH = 10  # characters of a column
PICTURE_SIDE = 320  # px; samples are cut to this size at most


def print_line(line: str, *, result: bool = False) -> None:
    """Prints a line on stderr, a `result` on stdout; an error of the stream is ignored, so that training continues.

    Characters of file names that cannot be printed become question marks.
    """
    with suppress(OSError, ValueError):
        print(printable(line), file=sys.stdout if result else sys.stderr, flush=True)


class Log:
    """Writes log.jsonl, pictures/ and, if tensorboard is installed, tensorboard/ in the folder of a run.

    Only the first of several processes writes; `active` is False in the others. After a resume log.jsonl holds the
    steps since the last checkpoint a second time; the later lines count.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.folder, self.active = folder, active
        self.board: Any = None
        self.columns: tuple[str, ...] = ()
        self.rows = 0
        if not active:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"{folder}: cannot be made ({e.strerror}); choose another folder for the run") from e
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(folder / "tensorboard")

    def write(self, step: int, **values: Any) -> None:
        """Appends one JSON line; numbers go to tensorboard too. UserError if it cannot be written."""
        if not self.active:
            return
        path = self.folder / "log.jsonl"
        try:
            with path.open("ab+") as file:
                if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    file.write(b"\n")  # a process was killed in the middle of its line
                file.write(json.dumps({"step": step, **values}).encode() + b"\n")
        except OSError as e:
            raise UserError(f"{path}: cannot be written ({e.strerror}); make room on the disk, then resume") from e
        for name, value in values.items() if self.board else ():
            if isinstance(value, float):
                self.board.add_scalar(name, value, step)

    def print_row(self, cells: Mapping[str, str]) -> None:
        """Prints one row of the table; a header precedes it if the columns changed, and every HEADER_EVERY rows."""
        if not self.active:
            return
        if tuple(cells) != self.columns or self.rows % HEADER_EVERY == 0:
            self.columns, self.rows = tuple(cells), 0
            print_line(" ".join(f"{name:>{COLUMN_WIDTH}}" for name in cells))
        self.rows += 1
        print_line(" ".join(f"{value:>{max(COLUMN_WIDTH, len(name))}}" for name, value in cells.items()))

    def print_line(self, line: str) -> None:
        """Prints a line on stderr."""
        if self.active:
            print_line(line)

    def write_pictures(self, step: int, strips: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        """Writes pictures (3,H,W) in 0..1 below each other as pictures/STEP.png; those and the masks go to tensorboard.

        `strips` are made by `strip`; masks are (1,H,W).
        """
        if not self.active or not strips:
            return
        width = min(one.shape[2] for one in strips)
        sheet = torch.cat([one[..., :width] for one in strips], 1)  # (3,sum of H,W)
        folder = self.folder / "pictures"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as e:
            raise UserError(f"{folder}: cannot be made ({e.strerror}); make room on the disk, then resume") from e
        levels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)  # (H,W,3)
        write_picture(folder / f"{step:07}.png", levels.cpu().numpy())
        for i, (one, mask) in enumerate(zip(strips, masks, strict=True)) if self.board else ():
            self.board.add_image(f"{i}/img", one, step)
            self.board.add_image(f"{i}/mask", mask, step)


def strip(img0: Tensor, gt: Tensor, made: Tensor, img1: Tensor) -> Tensor:
    """Returns the four pictures (1,3,H,W) side by side, (3,H',W'), each cut to its middle part."""
    return torch.cat([_middle(image) for image in (img0, gt, made, img1)], 3)[0]


def _middle(image: Tensor) -> Tensor:
    """Returns at most PICTURE_SIDE px of height and width from the middle."""
    y, x = (max(size - PICTURE_SIDE, 0) // 2 for size in image.shape[2:])
    return image[..., y : y + PICTURE_SIDE, x : x + PICTURE_SIDE]


def duration(seconds: float) -> str:
    """Returns a duration as text, such as 2h05m, 3m20s or 12s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
