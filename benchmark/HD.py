"""Scores HD: every second frame of eleven clips of 720, 1080 and 544 rows; PSNR of the luma.

python3 benchmark/HD.py
python3 benchmark/HD.py --data DIR --limit 50                 the first clip alone

Folder:  HD_dataset/HD720p_GT, HD1080p_GT, HD544p_GT, with the clips below: planar YUV 4:2:0 of 8 bits
Paper:   Bao et al., MEMC-Net, PAMI 2021. The mean is taken over each clip, then over the eleven.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.hd_clips import DOWNLOAD, NAMES, PADDING, samples_of_clips
from benchmark.test_set import Protocol, Sample, TestSet


def samples(root: Path) -> Iterator[Sample]:
    """Yields frames 0 and 2, 2 and 4, .. 98 and 100 of each clip, with the frame between."""
    return samples_of_clips(root, step=2)


SET = TestSet(
    name="HD",
    count=11 * 50,
    data="HD_dataset",
    needs=NAMES,
    download=DOWNLOAD,
    samples=samples,
    protocols={"rife": Protocol(("Y-PSNR",), {("", "Y-PSNR"): 32.14}, padding=PADDING)},
    bgr=False,
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
