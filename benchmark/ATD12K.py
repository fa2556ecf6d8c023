"""Scores ATD-12K, 2000 triplets of animation at 960x540: PSNR and SSIM.

python3 benchmark/ATD12K.py
python3 benchmark/ATD12K.py --data DIR --limit 100

Folder:  test_2k_540p/NAME/frame1.png, frame2.png, frame3.png
Paper:   Siyao et al., Deep Animation Video Interpolation in the Wild, CVPR 2021.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.test_set import Padding, Protocol, Sample, TestSet, triplet
from video.pictures.picture import natural_key


def samples(root: Path) -> Iterator[Sample]:
    """Yields the triplet of every folder that holds a first frame."""
    for first in sorted(root.glob("*/frame1.png"), key=lambda path: natural_key(path.parent.name)):
        yield triplet(first.parent.name, first, first.with_name("frame2.png"), first.with_name("frame3.png"))


SET = TestSet(
    name="ATD-12K",
    count=2000,
    data="test_2k_540p",
    needs=("*/frame1.png",),
    download="the folder test_2k_540p of ATD-12K (by the authors of AnimeInterp)",
    samples=samples,
    # 540 rows become 544, two repeated above and two below; no figure was published for RIFE
    protocols={"rife": Protocol(("PSNR", "SSIM"), padding=Padding(32, "replicate", centred=True))},
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
