"""The one loop behind every test set: what a sample is, how a protocol scores it, the arguments of the scripts.

A test set is a file of its own that lists samples and says by which protocol its published figure was made. Pictures
are RGB here; sets that were published in BGR are flipped at the network's door.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmark.baselines import BASELINES, Baseline
from benchmark.table import Scores, render, summary
from model import RIFE, UserError, load_model, pick_device
from model.image import to_picture, to_tensor
from model.loading import TRAIN_LOG
from model.metrics import interpolation_error, psnr, psnr_y, ssim, ssim_uniform
from model.wrapper import SCALES
from video.picture import read_picture, with_channels, write_picture

HALF = Fraction(1, 2)
SHOWN = 3  # missing files that a message names
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "PSNR": psnr,
    "Y-PSNR": psnr_y,
    "IE": interpolation_error,
    "SSIM": lambda pred, gt: ssim(gt, pred),  # upstream gives the ground truth first: it decides the range
    "SSIM 7x7": ssim_uniform,
}


@dataclass(frozen=True)
class Sample:
    """Two frames and the truth between them, (H,W,3) uint8 RGB."""

    name: str
    frames: tuple[np.ndarray, np.ndarray]
    targets: Mapping[Fraction, np.ndarray]  # by timestep, rising
    group: str = ""  # groups are reported apart: "4K", "easy"
    clip: str = ""  # the mean is taken over each clip first, then over the clips of a group


@dataclass(frozen=True)
class Padding:
    """How a script pads before the network: to `at_least`, then to a multiple; right and bottom unless centred.

    The network pads on with zeros where it needs more, as it does everywhere else.
    """

    multiple: int = 1
    mode: str = "constant"  # of torch.nn.functional.pad
    centred: bool = False
    at_least: tuple[int, int] = (0, 0)  # height and width in px

    def amounts(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, right, top and bottom in px."""
        down, right = (
            max(least - size, 0) + -max(size, least) % self.multiple
            for size, least in zip((height, width), self.at_least, strict=True)
        )
        left, top = (right // 2, down // 2) if self.centred else (0, 0)
        return left, right - left, top, down - top


@dataclass(frozen=True)
class Protocol:
    """How a figure was made, and what it was for RIFE: published[group, metric]."""

    metrics: tuple[str, ...]
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)
    rounded: bool = True  # whether the prediction is rounded to 8 bits before it is scored
    padding: Padding = Padding()
    scale: float = 1.0  # of the flow estimate
    group_scales: Mapping[str, float] = field(default_factory=dict)  # where it differs between groups


@dataclass(frozen=True)
class TestSet:
    """Where data come from, how samples are listed, and the protocols by which the set is scored."""

    __test__ = False  # the name makes pytest take it for a test
    name: str
    count: int  # samples when complete
    data: str  # the folder, as upstream's scripts look for it from the repository's root
    needs: tuple[str, ...]  # what must be in the folder, each a path or a pattern
    download: str  # what to fetch, by name, for the sentence "download .., and put what it holds into .."
    samples: Callable[[Path], Iterator[Sample]]
    protocols: Mapping[str, Protocol]
    bgr: bool = True  # upstream's scripts gave the network what cv2.imread returns; only its HD scripts gave RGB

    def check(self, root: Path) -> None:
        """UserError that says what to download and where to put it, unless everything needed is there."""
        missing = [name for name in self.needs if not next(root.glob(name), None)]
        if missing:
            rest = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise UserError(
                f"{self.name} is not in {root}/ (no {', '.join(missing[:SHOWN])}{rest}): download {self.download}, "
                f"and put what it holds into {root}/, or name its folder with --data DIR"
            )


def triplet(name: str, first: Path, middle: Path, last: Path, *, group: str = "") -> Sample:
    """The sample whose truth is halfway. UserError where sizes differ."""
    return sample_of(name, (first, last), {HALF: middle}, group=group)


def sample_of(
    name: str, ends: tuple[Path, Path], between: Mapping[Fraction, Path], *, group: str = "", clip: str = ""
) -> Sample:
    """Reads two frames and the truth between them; UserError where sizes differ or a picture is not 8-bit."""
    pictures = [read_picture(path) for path in (*ends, *between.values())]
    for path, picture in zip((*ends, *between.values()), pictures, strict=True):
        if picture.dtype != np.uint8 or picture.shape[:2] != pictures[0].shape[:2]:
            height, width = pictures[0].shape[:2]
            raise UserError(f"{path}: not an 8-bit picture of {width}x{height} like {ends[0]}; unpack the data again")
    first, last, *truth = (with_channels(picture, 3)[:, :, :3] for picture in pictures)
    return Sample(name, (first, last), dict(zip(between, truth, strict=True)), group, clip)


@torch.no_grad()
def predict(model: RIFE, sample: Sample, protocol: Protocol, *, bgr: bool, tta: bool = False) -> Iterator[Tensor]:
    """The frames between, (1,3,H,W) RGB in 0..1, in the order of the sample's targets."""
    scale = protocol.group_scales.get(sample.group, protocol.scale)
    height, width = sample.frames[0].shape[:2]
    padding = protocol.padding.amounts(height, width)
    left, _, top, _ = padding
    inputs = []
    for frame in sample.frames:
        image = to_tensor(frame, model.device)
        image = image.flip(1) if bgr else image  # RGB -> BGR, as the published figure was made
        inputs.append(F.pad(image, padding, protocol.padding.mode) if any(padding) else image)
    for made in model.between(inputs[0], inputs[1], tuple(sample.targets), scale=scale, tta=tta):
        image = made[..., top : top + height, left : left + width].clamp(0, 1)
        yield image.flip(1) if bgr else image  # and back


def evaluate(
    test_set: TestSet, protocol: Protocol, samples: Iterator[Sample], model: RIFE | None, args: argparse.Namespace
) -> Scores:
    """Scores of the network (if there is one) and of the baselines, with the running mean on stderr."""
    scores = Scores()
    methods: Mapping[str, Baseline] = {} if args.no_baselines else BASELINES
    device = model.device if model else torch.device("cpu")
    total = min(args.limit or test_set.count, test_set.count)
    for sample in (bar := tqdm(samples, total=total, unit="sample", desc=test_set.name, file=sys.stderr)):
        images: dict[str, list[Tensor]] = {}
        if model:
            made = predict(model, sample, protocol, bgr=test_set.bgr, tta=args.tta)
            images[model.name] = list(made)
        for name, method in methods.items():
            pictures = [method(sample.frames[0], sample.frames[1], t) for t in sample.targets]
            images[name] = [to_tensor(np.asarray(p, np.float32) / 255, device) for p in pictures]
        if model and args.save_frames:
            save(args.save_frames, sample, images[model.name])
        for name, predictions in images.items():
            for image, (t, truth) in zip(predictions, sample.targets.items(), strict=True):
                scored = to_tensor(to_picture(image), device) if protocol.rounded else image
                gt = to_tensor(truth, device)
                values = {metric: METRICS[metric](scored, gt).item() for metric in protocol.metrics}
                scores.add(name, sample.group, sample.clip, sample.name, float(t), values)
        bar.set_postfix_str(scores.running(protocol.metrics))
    return scores


def save(folder: Path, sample: Sample, images: list[Tensor]) -> None:
    """Writes the predictions as NAME_TIMESTEP.png, in a folder per group."""
    folder = folder / sample.group
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", sample.name)
    for image, t in zip(images, sample.targets, strict=True):
        write_picture(folder / f"{name}_{float(t):g}.png", to_picture(image))


def build_parser(test_set: TestSet, doc: str | None) -> argparse.ArgumentParser:
    """The arguments, the same for every set."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    first = next(iter(test_set.protocols))
    p.add_argument("--model", type=Path, default=TRAIN_LOG, help="folder or file of weights (default: train_log)")
    p.add_argument("--arch", help="only for weights whose shapes do not tell: rife_2r")
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument("--data", type=Path, default=Path(test_set.data), help="the set's folder (default: %(default)s)")
    p.add_argument("--limit", type=int, metavar="N", help="the first N samples only; no published figure fits those")
    p.add_argument("--protocol", choices=list(test_set.protocols), default=first,
                   help="whose rules for padding, rounding and flow scale (default: %(default)s)")  # fmt: skip
    p.add_argument("--scale", type=float, choices=SCALES, help="of the flow estimate (default: the protocol's)")
    p.add_argument("--tta", action="store_true", help="average with the turned frames, as rows marked 2T and EMA-VFI's "
                   "headline are made")  # fmt: skip
    only = p.add_mutually_exclusive_group()
    only.add_argument("--baselines-only", action="store_true", help="no network: first frame, average, DIS flow")
    only.add_argument("--no-baselines", action="store_true", help="the network alone")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the summary and every sample's scores")
    p.add_argument("--save-frames", type=Path, metavar="DIR", help="write what the network made as PNG")
    return p


def run(test_set: TestSet, args: argparse.Namespace) -> None:
    """Evaluates, then prints the table and the JSON line. UserError where data or weights are missing."""
    test_set.check(args.data)
    protocol = test_set.protocols[args.protocol]
    if args.scale:
        protocol = dataclasses.replace(protocol, scale=args.scale, group_scales={})
    model = None
    if not args.baselines_only:
        model = load_model(args.model, arch=args.arch, device=pick_device(args.device))
        print(model, file=sys.stderr)
    scores = evaluate(test_set, protocol, islice(test_set.samples(args.data), args.limit), model, args)
    setting = {"set": test_set.name, "protocol": args.protocol, "model": model.name if model else None}
    setting |= {"weights": model.source if model else None, "scale": args.scale or protocol.scale, "tta": args.tta}
    report = summary(scores, protocol.metrics, protocol.published, model.name if model else None)
    count = scores.samples
    report = {**setting, "samples": count, "of": test_set.count, **report}
    print(render(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**report, "each": scores.rows}, indent=1))
    print(json.dumps(report))


def main(test_set: TestSet, doc: str | None, argv: list[str] | None = None) -> int:
    """The command of a test set -> exit status: 0, or 1 after one line on stderr."""
    parser = build_parser(test_set, doc)
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit is 1 or more")
    if args.baselines_only and args.save_frames:
        parser.error("--save-frames writes what a network made: leave out --baselines-only")
    try:
        run(test_set, args)
    except (UserError, OSError) as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        return 1
    return 0
