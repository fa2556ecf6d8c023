"""Scores Xiph: every second frame of eight 4K clips of Netflix, reduced to 2K and cropped from 4K.

python3 benchmark/Xiph.py --protocol ema
python3 benchmark/Xiph.py --data DIR --limit 49               the first clip at 2K alone

Folder:  netflix/BoxingPractice-001.png .. -100.png, and so on: the first 100 frames of each clip, made by
         ffmpeg -i CLIP.y4m -pix_fmt rgb24 -vframes 100 netflix/NAME-%03d.png
Paper:   Niklaus and Liu, Softmax Splatting for Video Frame Interpolation, CVPR 2020. "2K" is the area mean at
         2048x1080, "4K" the middle 2048x1080 of the frame: figures without that crop are about 1.4 dB higher.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from benchmark.common import main
from benchmark.test_set import HALF, Padding, Protocol, Sample, TestSet
from benchmark.test_set import triplet as read_triplet

CLIPS = ("BoxingPractice", "Crosswalk", "DrivingPOV", "FoodMarket", "FoodMarket2", "RitualDance", "SquareAndTimelapse",
         "Tango")  # fmt: skip
SIZE = (2048, 1080)  # width and height that are scored
GROUPS = ("2K", "4K")
PUBLISHED_SCORES = {("2K", "PSNR"): 36.19, ("2K", "SSIM 7x7"): 0.938, ("4K", "PSNR"): 33.76, ("4K", "SSIM 7x7"): 0.894}


def reduced(picture: np.ndarray, group: str) -> np.ndarray:
    """Returns the picture at 2048x1080: resized for 2K; its middle for 4K (540 rows and 1024 columns cut off)."""
    if group == "2K":
        return cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)
    top, left = (picture.shape[0] - SIZE[1]) // 2, (picture.shape[1] - SIZE[0]) // 2
    return picture[max(top, 0) :, max(left, 0) :][: SIZE[1], : SIZE[0]]


def samples(root: Path) -> Iterator[Sample]:
    """Yields frames 1 and 3 with 2 between, .. 97 and 99 with 98, of each clip; at 2K, then at 4K."""
    for group in GROUPS:
        for clip in CLIPS:
            for i in range(2, 99, 2):
                first, middle, last = (root / f"{clip}-{j:03d}.png" for j in (i - 1, i, i + 1))
                full = read_triplet(f"{clip} {i}", first, middle, last)
                frames = reduced(full.frames[0], group), reduced(full.frames[1], group)
                yield Sample(full.name, frames, {HALF: reduced(full.targets[HALF], group)}, group)


SET = TestSet(
    name="Xiph",
    count=2 * len(CLIPS) * 49,
    data="netflix",
    needs=tuple(f"{clip}-099.png" for clip in CLIPS),
    download="the eight Netflix clips of 4096x2160 (.y4m, media.xiph.org/video/derf), make PNG files of the first 100 "
    "frames as --help describes",
    samples=samples,
    protocols={
        "rife": Protocol(("PSNR", "SSIM")),  # upstream has no script for this set and published no figure
        "ema": Protocol(
            ("PSNR", "SSIM 7x7"), PUBLISHED_SCORES, padding=Padding(16, "replicate", centred=True), scale=0.5
        ),
        "ifrnet": Protocol(("PSNR", "SSIM"), rounded=False, padding=Padding(32), scale=0.5),  # as AMT, its descendant
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
