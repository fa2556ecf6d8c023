"""Scores Middlebury OTHER: the interpolation error (mean absolute difference in 8-bit levels) of 12 scenes.

python3 benchmark/MiddleBury_Other.py
python3 benchmark/MiddleBury_Other.py --data DIR --protocol ema

Folder:  other-data/SCENE/frame10.png, frame11.png;  other-gt-interp/SCENE/frame10i11.png
Paper:   Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.test_set import Padding, Protocol, Sample, TestSet, triplet

SCENES = ("Beanbags", "Dimetrodon", "DogDance", "Grove2", "Grove3", "Hydrangea", "MiniCooper", "RubberWhale", "Urban2",
          "Urban3", "Venus", "Walking")  # fmt: skip
METRICS = ("IE", "PSNR")


def samples(root: Path) -> Iterator[Sample]:
    """Yields the scenes in upstream's order."""
    for scene in SCENES:
        frames = root / "other-data" / scene
        truth = root / "other-gt-interp" / scene / "frame10i11.png"
        yield triplet(scene, frames / "frame10.png", truth, frames / "frame11.png")


ZEROS = Padding(at_least=(480, 640))  # the largest scene's size
SET = TestSet(
    name="Middlebury OTHER",
    count=len(SCENES),
    data=".",
    needs=("other-data", "other-gt-interp"),
    download="other-color-twoframes.zip and other-gt-interp.zip from the Middlebury optical flow page "
    "(vision.middlebury.edu/flow/data)",
    samples=samples,
    protocols={
        "rife": Protocol(METRICS, {("", "IE"): 1.956}, padding=ZEROS),
        "ema": Protocol(METRICS, padding=Padding(32, "replicate", centred=True)),
        "ifrnet": Protocol(METRICS, padding=ZEROS),
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
