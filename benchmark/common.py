"""Runs the loop that scores a test set, and defines the flags of the scripts.

Each test set is a file that lists its samples and defines the protocols by which its published figures were made.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmark.baselines import BASELINES, PictureMethod
from benchmark.device import synchronise
from benchmark.measures import Metric, load_metrics
from benchmark.methods import method_names
from benchmark.record import write_json
from benchmark.table import SECONDS_KEY, Scores, ranking_measure, render, summary
from benchmark.test_set import Protocol, Sample, TestSet
from benchmark.worst import FIRST, LAST, TRUTH, Case, WorstCases, file_name, with_folder, write_case
from commands.errors import run_command
from commands.network_flags import add_weights_flags
from model import RIFE, load_model, pick_device
from model.frames import FLOW_SCALES
from model.image import levels, to_picture, to_tensor
from model.inference.memory import keep_freed_memory
from video.pictures.picture import write_picture

BATCH_LIMIT = 2**22  # of a batch on a GPU: 36 samples of Vimeo90K, 4 of 720p, one beyond 1440p
BatchMethod = Callable[[Sequence[Sample]], Iterable[Tensor]]  # a batch -> (B,3,H,W) RGB in 0..1 for each timestep
MethodResults = Mapping[str, list[tuple[Tensor, dict[str, float]]]]  # by method: image and scores, for each timestep


def batches(samples: Iterable[Sample], size: int | None) -> Iterator[list[Sample]]:
    """Yields batches of up to `size` consecutive samples of one group, one picture size and the same timesteps.

    With `size` None a batch holds up to BATCH_LIMIT.
    """

    def kind(sample: Sample) -> tuple[str, tuple[int, ...], tuple[Fraction, ...]]:
        return sample.group, sample.frames[0].shape, tuple(sample.targets)

    for (_, (height, width, _), _), run in groupby(samples, kind):
        while batch := list(islice(run, size or max(1, BATCH_LIMIT // (height * width)))):
            yield batch


def stack(pictures: Iterable[np.ndarray], device: torch.device) -> Tensor:
    """Returns B pictures (H,W,3), uint8 or float32 in 0..1, as one tensor (B,3,H,W) in 0..1."""
    return torch.cat([to_tensor(picture, device) for picture in pictures])


@torch.no_grad()
def predict(
    batch: Sequence[Sample], *, model: RIFE, protocol: Protocol, bgr: bool, tta: bool = False
) -> Iterator[Tensor]:
    """Yields the network's images (B,3,H,W) RGB in 0..1, one for each timestep of the samples' targets."""
    height, width = batch[0].frames[0].shape[:2]
    padding = protocol.padding.amounts(height, width)
    left, _, top, _ = padding
    inputs = []
    for frames in zip(*(sample.frames for sample in batch), strict=True):
        image = stack(frames, model.device)
        image = image.flip(1) if bgr else image  # RGB -> BGR, as the published figure was made
        inputs.append(F.pad(image, padding, protocol.padding.mode) if any(padding) else image)
    scale = protocol.scale_of(batch[0].group)
    for made in model.between(inputs[0], inputs[1], tuple(batch[0].targets), scale=scale, tta=tta):
        image = made[..., top : top + height, left : left + width].clamp(0, 1)
        yield image.flip(1) if bgr else image  # and back


def classical(batch: Sequence[Sample], *, baseline: PictureMethod, device: torch.device) -> Iterator[Tensor]:
    """Yields the images of a baseline, as `predict` does those of a network."""
    for t in batch[0].targets:
        made = (baseline(sample.frames[0], sample.frames[1], t) for sample in batch)
        yield stack((np.asarray(picture, np.float32) / 255 for picture in made), device)


def score(image: Tensor, truth: Tensor, metrics: Mapping[str, Metric], *, rounded: bool) -> list[dict[str, float]]:
    """Returns the value of each measure for each of B images; both tensors (B,3,H,W) RGB in 0..1."""
    image = levels(image) / 255 if rounded else image
    columns = {name: metric(image, truth).tolist() for name, metric in metrics.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def evaluate(
    samples: Iterable[Sample],
    methods: Mapping[str, BatchMethod],
    metrics: Mapping[str, Metric],
    *,
    rounded: bool,
    batch_size: int | None,
    device: torch.device,
    total: int,
    each: Callable[[Sample, MethodResults], None] | None = None,
) -> Scores:
    """Returns the scores of every method on every sample; the first method's running mean is shown on stderr.

    `each` is called with every sample and, by method and timestep, the images (1,3,H,W) and their scores.
    """
    scores = Scores()
    with tqdm(total=total, unit="sample", file=sys.stderr) as bar:
        for batch in batches(samples, batch_size):
            truths = [stack(pictures, device) for pictures in zip(*(s.targets.values() for s in batch), strict=True)]
            made = {
                name: run_method(method, batch, truths, metrics, rounded=rounded) for name, method in methods.items()
            }
            for i, sample in enumerate(batch):
                own = {name: [(image[i : i + 1], values[i]) for image, values in times] for name, times in made.items()}
                for name, times in own.items():
                    for t, (_, found) in zip(sample.targets, times, strict=True):
                        scores.add(name, sample.where(t), found)
                if each:
                    each(sample, own)
            bar.update(len(batch))
            bar.set_postfix_str(scores.running(tuple(metrics)))
    return scores


def run_method(
    method: BatchMethod,
    batch: Sequence[Sample],
    truths: Sequence[Tensor],
    metrics: Mapping[str, Metric],
    *,
    rounded: bool,
) -> list[tuple[Tensor, list[dict[str, float]]]]:
    """Returns for each timestep the images (B,3,H,W) and the scores of each, among them the seconds that it took."""
    start = time.perf_counter()
    images = list(method(batch))
    synchronise(truths[0].device)
    seconds = (time.perf_counter() - start) / (len(batch) * len(images))
    found = []
    for image, truth in zip(images, truths, strict=True):
        scores = score(image, truth, metrics, rounded=rounded)
        found.append((image, [{**values, SECONDS_KEY: seconds} for values in scores]))
    return found


class FrameSaver:
    """Writes every prediction of the network as NAME_TIMESTEP.png, in a folder for each group, for --save-frames.

    The worst samples are written to worst/ with both frames, the truth, every method's picture and the motion.
    """

    def __init__(self, folder: Path, network: str, metric: str) -> None:
        self.folder, self.network = folder, network
        self.worst = WorstCases([network], metric)

    def add(self, sample: Sample, made: MethodResults) -> None:
        """Writes the predictions of one sample, and keeps the sample if it is among the worst."""
        folder = self.folder / sample.group
        folder.mkdir(parents=True, exist_ok=True)
        for i, (t, truth) in enumerate(sample.targets.items()):
            pictures = {name: to_picture(images[i][0]) for name, images in made.items()}
            write_picture(folder / f"{file_name(sample.name)}_{float(t):g}.png", pictures[self.network])
            values = {name: images[i][1] for name, images in made.items()}
            shown = {FIRST: sample.frames[0], LAST: sample.frames[1], TRUTH: truth, **pictures}
            self.worst.add((sample.group, sample.name), Case(sample.where(t), values, shown))

    def write_worst(self, model: RIFE, protocol: Protocol, *, bgr: bool) -> list[dict[str, Any]]:
        """Writes the pictures of the worst samples and returns their JSON records."""
        records = []
        for i, case in enumerate(self.worst.cases, 1):
            case.add_motion(model, self.network, scale=protocol.scale_of(case.where["group"]), bgr=bgr)
            records.append(write_case(self.folder / "worst", i, case))
        return with_folder(records, self.folder.resolve() / "worst")


def build_parser(test_set: TestSet, doc: str | None) -> argparse.ArgumentParser:
    """Returns the parser of the command line, the same for every set."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    first = next(iter(test_set.protocols))
    add_weights_flags(p)
    p.add_argument("--data", type=Path, default=Path(test_set.data), help="the set's folder (default: %(default)s)")
    p.add_argument("--limit", type=int, metavar="N", help="score only the first N samples, for which no figure is "
                   "published (default: all)")  # fmt: skip
    p.add_argument("--protocol", choices=list(test_set.protocols), default=first,
                   help="the paper whose padding, rounding and flow scale are used (default: %(default)s)")  # fmt: skip
    p.add_argument(
        "--scale", type=float, choices=FLOW_SCALES, help="size at which flow is estimated (default: the protocol's)"
    )
    p.add_argument("--tta", action="store_true", help="average with the result of frames rotated by 180 degrees: "
                   "2T in papers (default: off)")  # fmt: skip
    only = p.add_mutually_exclusive_group()
    only.add_argument("--baselines-only", action="store_true", help="score no network (default: off)")
    only.add_argument("--no-baselines", action="store_true", help="score only the network (default: off)")
    p.add_argument("--lpips", action="store_true", help="end with an error if LPIPS cannot be measured (default: off)")
    p.add_argument("--batch", type=int, metavar="N", help="samples in one call; no score depends on it (default: 1 "
                   "on a CPU, else 4 megapixels)")  # fmt: skip
    p.add_argument("--json", type=Path, metavar="FILE", help="write all scores (default: none)")
    p.add_argument("--save-frames", type=Path, metavar="DIR", help="write predictions as PNG, and the worst samples "
                   "with the pictures that explain them, for report.py (default: none)")  # fmt: skip
    return p


def run(test_set: TestSet, args: argparse.Namespace) -> None:
    """Scores the set, then prints the table and the JSON line. UserError where data or weights are missing."""
    test_set.check(args.data)
    protocol = test_set.protocols[args.protocol]
    if args.scale:
        protocol = dataclasses.replace(protocol, scale=args.scale, group_scales={})
    model = None
    if not args.baselines_only:
        model = load_model(args.model, arch=args.arch, device=pick_device(args.device))
        print(model, file=sys.stderr)
    name = method_names([model])[0] if model else ""
    device = model.device if model else torch.device("cpu")
    metrics = load_metrics(protocol.metrics, device, lpips_required=args.lpips)
    methods: dict[str, BatchMethod] = {}
    if model:
        methods[name] = partial(predict, model=model, protocol=protocol, bgr=test_set.bgr, tta=args.tta)
    if not args.no_baselines:
        methods |= {name: partial(classical, baseline=b, device=device) for name, b in BASELINES.items()}
    saved = FrameSaver(args.save_frames, name, ranking_measure(metrics)) if model and args.save_frames else None
    scores = evaluate(
        islice(test_set.samples(args.data), args.limit),
        methods,
        metrics,
        rounded=protocol.rounded,
        batch_size=args.batch or (1 if device.type == "cpu" else None),
        device=device,
        total=min(args.limit or test_set.count, test_set.count),
        each=saved.add if saved else None,
    )
    setting = {"set": test_set.name, "protocol": args.protocol, "model": name or None}
    setting |= {"weights": model.source if model else None, "scale": args.scale or protocol.scale, "tta": args.tta}
    found = summary(scores, (*metrics, SECONDS_KEY), protocol.published, name)
    report = {**setting, "samples": scores.samples, "of": test_set.count, **found}
    print(render(report))
    worst = saved.write_worst(model, protocol, bgr=test_set.bgr) if model and saved else []
    if args.json:
        write_json(args.json, {**report, "worst": worst, "each": scores.rows})
    print(json.dumps(report))


def main(test_set: TestSet, doc: str | None, argv: list[str] | None = None) -> int:
    """Runs the command of a test set and returns its exit status: 0, or 1 after one line on stderr."""
    parser = build_parser(test_set, doc)
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit is 1 or more")
    if args.batch is not None and args.batch < 1:
        parser.error("--batch is 1 or more")
    if args.baselines_only and args.save_frames:
        parser.error("--save-frames writes what a network made: leave out --baselines-only")
    keep_freed_memory()
    return run_command(parser.prog, lambda: run(test_set, args))
