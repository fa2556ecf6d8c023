"""Scores Vimeo90K, the 3782 test triplets of 448x256: PSNR and SSIM.

python3 benchmark/Vimeo90K.py
python3 benchmark/Vimeo90K.py --data DIR --protocol ema       predictions not rounded to 8 bits

Folder:  vimeo_interp_test/tri_testlist.txt;  vimeo_interp_test/target/00001/0389/im1.png, im2.png, im3.png
Paper:   Xue et al., Video Enhancement with Task-Oriented Flow, IJCV 2019.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.test_set import Protocol, Sample, TestSet, triplet

METRICS = ("PSNR", "SSIM")


def samples(root: Path) -> Iterator[Sample]:
    """Yields the triplets of the list, in its order."""
    for name in (root / "tri_testlist.txt").read_text().split():
        folder = root / "target" / name
        yield triplet(name, folder / "im1.png", folder / "im2.png", folder / "im3.png")


SET = TestSet(
    name="Vimeo90K",
    count=3782,
    data="vimeo_interp_test",
    needs=("tri_testlist.txt", "target"),
    download="vimeo_interp_test.zip (the test set for temporal frame interpolation, toflow.csail.mit.edu) and "
    "tri_testlist.txt of the triplet data",
    samples=samples,
    protocols={
        "rife": Protocol(METRICS, {("", "PSNR"): 35.615, ("", "SSIM"): 0.9779}),
        "ema": Protocol(METRICS, rounded=False),
        "ifrnet": Protocol(METRICS, rounded=False),
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
