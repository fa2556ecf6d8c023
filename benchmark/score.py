"""Scores weights on Middlebury OTHER and on UCF101 triplets: python3 benchmark/score.py --model train_log --data DIR

DIR holds middlebury_other/ (other-data/*/frame10.png, frame11.png, other-gt-interp/*/frame10i11.png) and
ucf101_interp_subset76/ (*/frame_00.png, frame_01_gt.png, frame_02.png). Predictions are rounded to 8 bits; PSNR is the
mean of the pictures' dB, IE the mean absolute difference in 8-bit levels. The last line is JSON.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere

from dataset import read_picture
from model import load_model, pick_device
from model.image import to_picture, to_tensor
from model.metrics import interpolation_error, psnr

Triplet = tuple[Path, Path, Path]  # img0, the true middle, img1


def middlebury(root: Path) -> Iterator[Triplet]:
    for folder in sorted((root / "middlebury_other" / "other-data").iterdir()):
        gt = root / "middlebury_other" / "other-gt-interp" / folder.name / "frame10i11.png"
        yield folder / "frame10.png", gt, folder / "frame11.png"


def ucf101(root: Path) -> Iterator[Triplet]:
    for folder in sorted(p for p in (root / "ucf101_interp_subset76").iterdir() if p.is_dir()):
        yield folder / "frame_00.png", folder / "frame_01_gt.png", folder / "frame_02.png"


def score(triplets: Iterator[Triplet], middle: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
    """The means over a set of what `middle` makes of (1,3,H,W) RGB in 0..1."""
    scores: list[tuple[float, float]] = []
    for triplet in triplets:
        img0, gt, img1 = (to_tensor(np.ascontiguousarray(read_picture(path))) for path in triplet)
        made = to_tensor(to_picture(middle(img0, img1)))
        scores.append((float(psnr(made, gt)), float(interpolation_error(made, gt))))
    decibel, error = np.mean(scores, axis=0)
    return {"psnr": round(float(decibel), 3), "ie": round(float(error), 3), "pictures": len(scores)}


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--model", default="train_log", help="weights, a folder or a file; 'average' for the mean of the two"
    )
    p.add_argument("--data", type=Path, required=True, help="folder of the test sets")
    p.add_argument("--device")
    args = p.parse_args(argv)
    if args.model == "average":
        middle: Callable[[Tensor, Tensor], Tensor] = lambda img0, img1: (img0 + img1) / 2  # noqa: E731
    else:
        with torch.no_grad():
            model = load_model(args.model, device=pick_device(args.device))
        print(model, file=sys.stderr)
        middle = lambda img0, img1: model.inference(img0, img1).cpu()  # noqa: E731
    result = {name: score(find(args.data), middle) for name, find in (("middlebury", middlebury), ("ucf101", ucf101))}
    for name, values in result.items():
        print(f"{name:12} {values['psnr']:7.3f} dB  IE {values['ie']:6.3f}  {values['pictures']} pictures")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
