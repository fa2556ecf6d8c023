"""Your own clip as a benchmark: every second frame is dropped, made anew, and compared with what was there.

python3 benchmark/clip.py video.mp4
python3 benchmark/clip.py video.mp4 --model train_log --model DIR --scale 1 --scale 0.5      each at each scale
python3 benchmark/clip.py video.mp4 --limit 300 --output DIR --overwrite                     the first 300 frames

Which model and which scale suit the video: PSNR, SSIM (scikit-image's) and seconds a frame of each choice, with
repeating, averaging and DIS flow for comparison. A made frame is asked for at the exact time of the dropped one, and
its seconds (the median) are those it costs in a video: the features of one frame, the network, the picture. Frames
that a cut parts from a neighbour, or that repeat one, are no truth for what is between: they are left out, and named.

Writes, to benchmark_NAME/ unless told otherwise: results.json, for report.py; over_time.png; worst_1.png .. , the worst
frames side by side, each from another second; worst/, the same frames as single pictures.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from benchmark.baselines import BASELINES, Baseline
from benchmark.measures import METRICS
from benchmark.plots import new_figure, over_time, side_by_side, to_png
from benchmark.record import new_folder, write_json
from benchmark.table import Scores, label, shown, summary
from benchmark.test_set import HALF
from benchmark.worst import FIRST, LAST, TRUTH, Case, Worst, located, write_case
from data.clips import REPEAT_LEVELS
from model import RIFE, UserError, load_model, pick_device
from model.image import to_picture, to_tensor
from model.inference.memory import keep_freed_memory
from model.loading import TRAIN_LOG
from model.metrics import Surroundings
from model.RIFE import FLOW_SCALES, HALVING_TOLERANCE, PreparedFrame
from video.frame import Frame
from video.picture import with_channels
from video.prefetch import prefetch
from video.reader import Source, open_frames
from video.safe_file import write_file
from video.scene import CUT_SSIM, Transition, TransitionDetector

QUALITY = ("PSNR", "SSIM 7x7")
COLUMNS = (*QUALITY, "seconds")
INTERRUPTED = 130
Method = Callable[[np.ndarray, np.ndarray, Fraction], np.ndarray]  # two (H,W,3) uint8 and a timestep -> one between


@dataclass(frozen=True)
class Seen:
    """A frame of the clip as (H,W,3) uint8 RGB."""

    index: int
    time: Fraction  # s
    picture: np.ndarray
    signature: Surroundings  # for the detector of cuts


class Choice:
    """A network at a flow scale, used as in a video: a frame's features serve both pairs that it is in."""

    def __init__(self, model: RIFE, scale: float) -> None:
        self.model, self.scale = model, scale
        self.latest: tuple[np.ndarray, PreparedFrame] | None = None

    def __call__(self, first: np.ndarray, last: np.ndarray, timestep: Fraction) -> np.ndarray:
        if self.latest is None or self.latest[0] is not first:
            self.latest = first, self._prepare(first)
        start, end = self.latest[1], self._prepare(last)
        self.latest = last, end
        (image,) = self.model.between(start, end, (timestep,), scale=self.scale)
        return to_picture(image)  # on the CPU, so that a GPU has finished when the clock is read

    def _prepare(self, picture: np.ndarray) -> PreparedFrame:
        return self.model.prepare(to_tensor(picture, self.model.device), scale=self.scale)


def classical(baseline: Baseline) -> Method:
    """A baseline whose result is rounded to a picture, as a network's is."""

    def method(first: np.ndarray, last: np.ndarray, timestep: Fraction) -> np.ndarray:
        return to_picture(to_tensor(np.asarray(baseline(first, last, timestep), np.float32) / 255))

    return method


def load_choices(args: argparse.Namespace) -> dict[str, Choice]:
    """Every model at every scale, by a name that tells them apart."""
    device = pick_device(args.device)
    models = {path: load_model(path, device=device) for path in dict.fromkeys(args.model or [TRAIN_LOG])}
    names = [model.name for model in models.values()]
    files = [path.name for path in models]
    choices = {}
    for path, model in models.items():
        print(model, file=sys.stderr)
        file = path if files.count(path.name) > 1 else path.name
        name = model.name if names.count(model.name) == 1 else f"{model.name} of {file}"
        for scale in dict.fromkeys(args.scale or [1.0]):
            choices[f"{name}, scale {scale:g}"] = Choice(model, scale)
    return choices


def look(frames: Iterable[Frame]) -> Iterator[Seen]:
    """The frames in 8 bits, without alpha, numbered from 0."""
    for index, frame in enumerate(frames):
        rgb = with_channels(frame.rgb(), 3)[:, :, :3]
        image = to_tensor(rgb)
        signature = TransitionDetector().signature(rgb)
        yield Seen(index, frame.time, rgb if rgb.dtype == np.uint8 else to_picture(image), signature)


def triplets(
    frames: Iterable[Seen], left_out: list[dict[str, Any]], scene_threshold: float, repeat_levels: float
) -> Iterator[tuple[Seen, Seen, Seen]]:
    """Every second frame between its neighbours. Those that are no truth go to `left_out`, with the reason."""
    frames = iter(frames)
    first = next(frames, None)
    for truth, last in zip(frames, frames, strict=False):  # two at a time; a single one at the end has no neighbour
        assert first is not None
        pairs = (first, truth), (truth, last)
        why = next(filter(None, (parted(a, b, scene_threshold, repeat_levels) for a, b in pairs)), "")
        if why:
            left_out.append({"frame": truth.index, "time": round(float(truth.time), 6), "why": why})
        else:
            yield first, truth, last
        first = last


def parted(first: Seen, second: Seen, scene_threshold: float, repeat_levels: float) -> str:
    """Why no motion leads from one frame to the next; nothing if it does.

    Repeats are found at full size: on the thumbnails that inference_video.py compares, slow motion is one too.
    """
    if first.picture.shape != second.picture.shape:
        return "change of size"
    detector = TransitionDetector(scene_threshold, static=1)
    if detector.classify(first.signature, second.signature) is Transition.CUT:
        return "cut"
    return "repeat" if cv2.absdiff(first.picture, second.picture).mean() < repeat_levels else ""


def timestep_of(first: Seen, truth: Seen, last: Seen) -> Fraction:
    """Where the truth is between its neighbours; the middle, if times rounded by a container are all that parts it."""
    timestep = (truth.time - first.time) / (last.time - first.time)
    return HALF if abs(timestep - HALF) <= HALVING_TOLERANCE else timestep


def evaluate(
    found: Iterable[tuple[Seen, Seen, Seen]], methods: Mapping[str, Method], scores: Scores, worst: Worst
) -> None:
    """Scores and times every method on every triplet."""
    for first, truth, last in found:
        timestep = timestep_of(first, truth, last)
        where = {"group": "", "clip": "", "sample": f"frame {truth.index}", "timestep": float(timestep)}
        where |= {"frame": truth.index, "time": round(float(truth.time), 6)}
        pictures = {FIRST: first.picture, LAST: last.picture, TRUTH: truth.picture}
        values = {}
        for name, method in methods.items():
            start = time.perf_counter()
            pictures[name] = method(first.picture, last.picture, timestep)
            seconds = time.perf_counter() - start
            made, gt = to_tensor(pictures[name]), to_tensor(truth.picture)
            values[name] = {metric: METRICS[metric](made, gt).item() for metric in QUALITY} | {"seconds": seconds}
            scores.add(name, where, values[name])
        worst.add(int(truth.time), Case(where, values, pictures))


def render(report: Mapping[str, Any]) -> str:
    """The table, a line a method, and the method of the highest PSNR."""
    reasons = [entry["why"] for entry in report["left_out"]]
    left = ", ".join(f"{reasons.count(why)} for a {why}" for why in dict.fromkeys(reasons)) or "none"
    size = "{}x{} at {:.6g} frames/s".format(*report["size"], report["rate"])
    lines = [f"{report['clip']}, {size}: {report['samples']} frames made anew; left out: {left}"]
    methods = list(dict.fromkeys(row["method"] for row in report["rows"]))
    values = {(row["method"], row["metric"]): row for row in report["rows"]}
    width = max(map(len, methods))
    heads = {metric: f"{label(values[methods[0], metric]):>10}" for metric in COLUMNS}
    lines.append(" " * width + "  " + "  ".join(heads.values()))
    for method in methods:
        cells = (f"{shown(m, values[method, m]['value']):>{len(heads[m])}}" for m in COLUMNS)
        lines.append(f"{method:{width}}  " + "  ".join(cells))
    best = max(methods, key=lambda name: values[name, "PSNR"]["value"] or float("inf"))
    return "\n".join([*lines, f"Highest PSNR: {best}"])


def run(args: argparse.Namespace) -> None:
    """Scores the clip, prints the table and the JSON line, and writes the folder."""
    source = open_frames(args.clip)
    output = args.output or Path(f"benchmark_{args.clip.resolve().stem}")
    new_figure(1)  # complains now if there is no matplotlib, not at the end
    with new_folder(output, overwrite=args.overwrite) as folder:
        choices = load_choices(args)
        methods: dict[str, Method] = {**choices, **{name: classical(b) for name, b in BASELINES.items()}}
        scores, worst, left_out = Scores(), Worst(list(choices), "PSNR"), list[dict[str, Any]]()
        total = min(args.limit or sys.maxsize, source.count) if source.count else args.limit
        with closing(prefetch(source)) as frames:
            bar = tqdm(islice(frames, args.limit), total=total, unit="frame", file=sys.stderr)
            found = triplets(look(bar), left_out, args.scene_threshold, args.repeat_levels)
            evaluate(found, methods, scores, worst)
        if not scores.rows:
            whys = ", ".join(sorted({entry["why"] for entry in left_out})) or "fewer than three frames"
            raise UserError(f"{args.clip}: no frame to score ({whys}); --scene-threshold 0 --repeat-levels 0 "
                            "leaves none out, a larger --limit reads on")  # fmt: skip
        report = report_of(source, choices, scores, left_out)
        records = write_worst(folder, worst, choices)
        write_file(folder / "over_time.png", to_png(over_time(scores.rows, COLUMNS, left_out)))
        write_json(folder / "results.json", {**report, "worst": located(records, Path("worst")), "each": scores.rows})
    for complaint in source.complaints:
        print(f"clip.py: {source.path}: {complaint}; what could be decoded was used", file=sys.stderr)
    if args.json:
        worst_frames = located(records, output.resolve() / "worst")
        write_json(args.json, {**report, "worst": worst_frames, "each": scores.rows})
    print(f"{render(report)}\nWrote {output}: results.json, over_time.png, worst_1.png .. and worst/")
    print(json.dumps(report))


def report_of(
    source: Source, choices: Mapping[str, Choice], scores: Scores, left_out: list[dict[str, Any]]
) -> dict[str, Any]:
    """The record for programs, without the single scores."""
    settings = [
        {
            "method": name,
            "model": c.model.name,
            "weights": c.model.source,
            "scale": c.scale,
            "device": str(c.model.device),
        }
        for name, c in choices.items()
    ]
    report = {"clip": source.path.name, "size": source.size, "rate": float(source.rate), "choices": settings}
    rows = summary(scores, QUALITY, {}, None)["rows"]
    for method in scores.methods:
        # the median: a network's first frames take longer, and so does one that the system interrupts
        seconds = statistics.median(row["seconds"] for row in scores.rows if row["method"] == method)
        rows.append({"group": "", "metric": "seconds", "method": method, "published": None, "value": seconds,
                     "difference": None})  # fmt: skip
    return {**report, "samples": scores.samples, "left_out": left_out, "rows": rows}


def write_worst(folder: Path, worst: Worst, choices: Mapping[str, Choice]) -> list[dict[str, Any]]:
    """The worst frames side by side and as single pictures -> their records."""
    records = []
    for i, case in enumerate(worst.cases, 1):
        for name, choice in choices.items():
            case.add_motion(choice.model, name, scale=choice.scale)
        write_file(folder / f"worst_{i}.png", to_png(side_by_side(case, "PSNR")))
        records.append(write_case(folder / "worst", i, case))
    return records


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip", type=Path, help="a video, or a folder of pictures")
    p.add_argument("--model", type=Path, action="append", help="folder or file of weights, may be given again "
                   "(default: train_log)")  # fmt: skip
    p.add_argument("--scale", type=float, choices=FLOW_SCALES, action="append",
                   help="of the flow estimate, may be given "
                   "again (default: 1)")  # fmt: skip
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument("--limit", type=int, metavar="N", help="the first N frames of the clip only, 3 or more")
    p.add_argument("--scene-threshold", type=float, default=CUT_SSIM, help="similarity below which two frames are "
                   "parted by a cut (default: %(default)s); 0: never")  # fmt: skip
    p.add_argument("--repeat-levels", type=float, default=REPEAT_LEVELS, help="mean difference in 8-bit levels below "
                   "which a frame repeats another (default: %(default)s); 0: never")  # fmt: skip
    p.add_argument("--output", type=Path, metavar="DIR", help="folder to write (default: benchmark_NAME)")
    p.add_argument("--overwrite", action="store_true", help="replace that folder if it exists")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write results.json here")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 3:
        parser.error("--limit is 3 or more: a frame and its two neighbours")
    keep_freed_memory()
    try:
        run(args)
    except (UserError, OSError) as e:
        print(f"clip.py: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clip.py: interrupted, nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
