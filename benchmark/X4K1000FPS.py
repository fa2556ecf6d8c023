"""Scores X4K1000FPS (X-TEST): 15 clips of 4096x2160 at eight times the rate, whole and at 2K: PSNR and SSIM.

python3 benchmark/X4K1000FPS.py --protocol ema --model DIR    the published figures are those of RIFE_m
python3 benchmark/X4K1000FPS.py --data DIR --limit 1

Folder:  X4K1000FPS/test/TYPE/CLIP/0000.png .. 0032.png
Paper:   Sim et al., XVFI, ICCV 2021. Frames 0 and 32 are given, 4, 8, .. 28 are interpolated. The paper's SSIM is
         that of the luma, unlike here.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fractions import Fraction

import cv2

from benchmark.common import main
from benchmark.test_set import Padding, Protocol, Sample, TestSet, sample_of

NUMBER_STEP, LAST_NUMBER = 4, 32
METRICS = ("PSNR", "SSIM")
PUBLISHED_SCORES = {("2K", "PSNR"): 31.43, ("4K", "PSNR"): 30.58}


def samples(root: Path) -> Iterator[Sample]:
    """Yields each clip at 2K (area means at half its size), then each clip at 4K."""
    clips = sorted(path.parent for path in (root / "test").glob("*/*/0000.png"))
    for group in ("2K", "4K"):
        for clip in clips:
            frames = {i: clip / f"{i:04d}.png" for i in range(0, LAST_NUMBER + 1, NUMBER_STEP)}
            between = {Fraction(i, LAST_NUMBER): frames[i] for i in range(NUMBER_STEP, LAST_NUMBER, NUMBER_STEP)}
            sample = sample_of(clip.name, (frames[0], frames[LAST_NUMBER]), between, group=group)
            yield halved(sample) if group == "2K" else sample


def halved(sample: Sample) -> Sample:
    """Returns the sample with every picture at half its width and height."""
    height, width = sample.frames[0].shape[:2]
    first, last, *between = (
        cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        for picture in (*sample.frames, *sample.targets.values())
    )
    return Sample(sample.name, (first, last), dict(zip(sample.targets, between, strict=True)), sample.group)


SET = TestSet(
    name="X4K1000FPS",
    count=2 * 15,
    data="X4K1000FPS",
    needs=("test/*/*/0000.png",),
    download="the test set of X4K1000FPS (test.zip, by the authors of XVFI)",
    samples=samples,
    protocols={
        "rife": Protocol(METRICS),  # upstream has no script for this set and published no figure
        "ema": Protocol(
            METRICS,
            PUBLISHED_SCORES,
            padding=Padding(32, "replicate", centred=True),
            scale=0.5,
            group_scales={"4K": 0.25},
        ),
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
