"""Scores HD at four times the rate: three of four frames of eleven clips; PSNR of the luma, by frame size.

python3 benchmark/HD_multi_4X.py --model DIR                  the published figures are those of RIFE_m
python3 benchmark/HD_multi_4X.py --data DIR --limit 75        the first clip alone

Folder:  as benchmark/HD.py. The mean is taken over each clip, then over the clips of one size. Networks for the
middle frame compute the quarters by halving.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.hd_clips import DOWNLOAD, NAMES, PADDING, samples_of_clips
from benchmark.test_set import Protocol, Sample, TestSet

PUBLISHED_SCORES = {("544p", "Y-PSNR"): 22.96, ("720p", "Y-PSNR"): 31.87, ("1080p", "Y-PSNR"): 34.25}


def samples(root: Path) -> Iterator[Sample]:
    """Yields frames 0 and 4, .. 96 and 100 of each clip, with the three frames between."""
    return samples_of_clips(root, step=4, grouped=True)


SET = TestSet(
    name="HD 4x",
    count=11 * 25,
    data="HD_dataset",
    needs=NAMES,
    download=DOWNLOAD,
    samples=samples,
    protocols={"rife": Protocol(("Y-PSNR",), PUBLISHED_SCORES, padding=PADDING)},
    bgr=False,
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
