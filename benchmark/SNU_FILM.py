"""Scores SNU-FILM, 310 triplets of 1280x720 in each of four degrees of motion: PSNR and SSIM.

python3 benchmark/SNU_FILM.py
python3 benchmark/SNU_FILM.py --data DIR --protocol ema       flow at half size, not rounded to 8 bits

Folder:  data/SNU-FILM/test-easy.txt, -medium, -hard, -extreme (lines of three paths);  data/SNU-FILM/test/GOPRO_test,
         YouTube_test
Paper:   Choi et al., Channel Attention Is All You Need for Video Frame Interpolation, AAAI 2020.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.common import main
from benchmark.test_set import Padding, Protocol, Sample, TestSet, triplet
from model import UserError

DEGREES = ("easy", "medium", "hard", "extreme")
METRICS = ("PSNR", "SSIM")


def published(*psnr: float) -> dict[tuple[str, str], float]:
    """Returns published PSNR figures by group, easy to extreme."""
    return {(degree, "PSNR"): value for degree, value in zip(DEGREES, psnr, strict=True)}


def samples(root: Path) -> Iterator[Sample]:
    """Yields the triplets of every list, in the order of the lists."""
    for degree in DEGREES:
        for line in (root / f"test-{degree}.txt").read_text().splitlines():
            if not line.strip():
                continue
            names = line.split()
            if len(names) != 3:
                raise UserError(f"{root}/test-{degree}.txt: {line!r} is not three paths; download the list again")
            first, middle, last = (locate(root, name) for name in names)
            yield triplet(f"{middle.parent.name} {middle.stem}", first, middle, last, group=degree)


def locate(root: Path, name: str) -> Path:
    """Returns the path from test/ on: the lists begin with a folder of their makers (data/SNU-FILM/test/..)."""
    parts = Path(name).parts
    return root.joinpath(*parts[parts.index("test") :]) if "test" in parts else root / name


SET = TestSet(
    name="SNU-FILM",
    count=4 * 310,
    data="data/SNU-FILM",
    needs=(*(f"test-{degree}.txt" for degree in DEGREES), "test"),
    download="SNU-FILM (test.zip, and the four lists of eval_modes.zip, by the authors of CAIN)",
    samples=samples,
    protocols={
        "rife": Protocol(METRICS),  # upstream has no script for this set and published no figure
        "ema": Protocol(
            METRICS,
            published(39.80, 35.76, 30.36, 25.27),
            rounded=False,
            padding=Padding(32, "replicate", centred=True),
            scale=0.5,
        ),
        # IFRNet's own flow scale of 0.8 is not among those of RIFE, whose pyramid goes by powers of two
        "ifrnet": Protocol(METRICS, published(40.06, 35.75, 30.10, 24.84), rounded=False, padding=Padding(20)),
    },
)


if __name__ == "__main__":
    sys.exit(main(SET, __doc__))
