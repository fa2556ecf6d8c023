"""Scores UCF101, the 379 triplets of 256x256 that DVF chose: PSNR and SSIM.

python3 benchmark/UCF101.py
python3 benchmark/UCF101.py --data DIR --protocol ifrnet      predictions not rounded to 8 bits

Folder:  ucf101_interp_ours/NUMBER/frame_00.png, frame_01_gt.png, frame_02.png
Paper:   Liu et al., Video Frame Synthesis using Deep Voxel Flow, ICCV 2017.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.test_set import Protocol, Sample, TestSet, triplet
from video.pictures.picture import natural_key

METRICS = ("PSNR", "SSIM")


def samples(root: Path) -> Iterator[Sample]:
    """Yields the triplet of every folder that holds a first frame, by number."""
    for first in sorted(root.glob("*/frame_00.png"), key=lambda path: natural_key(path.parent.name)):
        yield triplet(first.parent.name, first, first.with_name("frame_01_gt.png"), first.with_name("frame_02.png"))


SET = TestSet(
    name="UCF101",
    count=379,
    data="ucf101_interp_ours",
    needs=("*/frame_00.png",),
    download="the UCF101 test set of frame interpolation (ucf101_interp_ours, by the authors of Deep Voxel Flow and "
    "CyclicGen)",
    samples=samples,
    protocols={
        "rife": Protocol(METRICS, {("", "PSNR"): 35.282, ("", "SSIM"): 0.9688}),
        "ema": Protocol(METRICS),  # rounds here, though not on Vimeo90K
        "ifrnet": Protocol(METRICS, rounded=False),
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
