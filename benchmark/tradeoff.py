"""Measures quality against cost: PSNR, SSIM and LPIPS on two test sets beside the time of a frame, by setting.

python3 benchmark/tradeoff.py                                       the default weights at scales, tta, bf16
python3 benchmark/tradeoff.py --settings model=A model=B model=B,tta --plot tradeoff.png
python3 benchmark/tradeoff.py --middlebury DIR --ucf101 DIR --limit 20

Settings are written as for benchmark/testtime.py --compare. Predictions are rounded to 8 bits, frames go in as RGB, and
nothing is padded before the network pads. Time is that of one 640x480 pair, the settings in turn, by the processor on a
CPU. A setting is marked if no other is both better and faster; better is by the mean of both sets, in LPIPS where its
weights are in the cache (python3 -m model.download lpips), else in PSNR. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark import UCF101, MiddleBury_Other
from benchmark.common import Sample, TestSet
from benchmark.compare import Setting, pair, parse_setting
from benchmark.device import interleaved
from benchmark.measures import COMMON_MEASURES, Metric, load_metrics
from benchmark.methods import method_names
from benchmark.plots import check_plot, new_figure, save, with_unit
from benchmark.table import LOWER_IS_BETTER, format_score, ranking_measure
from commands.errors import run_command
from model import RIFE, pick_device
from model.image import to_picture, to_tensor
from model.inference.memory import keep_freed_memory

SIZE = (640, 480)  # of the pair that is timed
DEFAULT_SETTINGS = ("scale=1", "scale=0.5", "scale=2", "tta", "scale=0.5,tta", "bf16")


def score(model: RIFE, setting: Setting, samples: Iterable[Sample], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Returns the mean of each measure over the samples."""
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    for sample in samples:
        img0, img1 = (to_tensor(frame, model.device) for frame in sample.frames)
        images = model.between(img0, img1, tuple(sample.targets), scale=setting.scale, tta=setting.tta)
        for image, truth in zip(images, sample.targets.values(), strict=True):
            made, true = to_tensor(to_picture(image)), to_tensor(truth)
            for metric, compute in metrics.items():
                values[metric].append(compute(made, true).item())
    return {metric: statistics.fmean(own) for metric, own in values.items()}


def best(records: Sequence[Mapping[str, Any]], metric: str) -> list[bool]:
    """Returns for each record whether no other is at least as good and as fast, and better in one of both."""
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def beats(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        pairs = [(sign * a["mean"][metric], sign * b["mean"][metric]), (-a["median_ms"], -b["median_ms"])]
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    return [not any(beats(other, record) for other in records) for record in records]


def plot(records: Sequence[Mapping[str, Any]], metric: str) -> Any:
    """Draws the mean of a measure against milliseconds, a point a setting, the best ones joined; better is higher."""
    figure = new_figure(5, 7)
    axes = figure.subplots()
    for record in records:
        axes.plot(record["median_ms"], record["mean"][metric], "o")
        axes.annotate(record["setting"], (record["median_ms"], record["mean"][metric]), fontsize=8)
    front = sorted((r["median_ms"], r["mean"][metric]) for r in records if r["best"])
    axes.plot(*zip(*front, strict=True), "-", color="grey", zorder=0)
    axes.set(xscale="log", xlabel=f"ms a frame at {SIZE[0]}x{SIZE[1]}", ylabel=f"mean {with_unit(metric)}")
    if metric in LOWER_IS_BETTER:
        axes.invert_yaxis()
    return figure


def measure(args: argparse.Namespace, sets: Mapping[str, tuple[TestSet, Path]]) -> tuple[list[dict[str, Any]], str]:
    """Returns a record for each setting, with its scores and its time, and the measure that decides which are best."""
    device = pick_device(args.device)
    models = {setting.text: setting.load(device) for setting in args.settings}
    metrics = load_metrics(COMMON_MEASURES[:2], "cpu")
    records: list[dict[str, Any]] = []
    for setting in args.settings:
        model = models[setting.text]
        scores = {
            name: score(model, setting, islice(test_set.samples(folder), args.limit), metrics)
            for name, (test_set, folder) in sets.items()
        }
        mean = {metric: statistics.fmean(own[metric] for own in scores.values()) for metric in metrics}
        print(f"{setting.text}: {mean}", file=sys.stderr)
        (name,) = method_names([model])
        records.append({"setting": setting.text, "model": name, **scores, "mean": mean})
    images = pair(SIZE, device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    calls = {setting.text: setting.call(models[setting.text], *images) for setting in args.settings}
    times = interleaved(calls, device, args.runs, clock)
    for record in records:
        record["median_ms"] = statistics.median(times[record["setting"]])
    for record, is_best in zip(records, best(records, ranking_measure(metrics)), strict=True):
        record["best"] = is_best
    return records, ranking_measure(metrics)


def render(records: Sequence[Mapping[str, Any]], sets: Iterable[str]) -> str:
    """Returns the table: a row a setting, the measures of each set side by side."""
    metrics = list(records[0]["mean"])
    width = max(len(record["setting"]) for record in records)
    columns = [(name, metric) for name in sets for metric in metrics]
    heads = [f"{name} {with_unit(metric)}" for name, metric in columns]
    lines = ["  ".join([f"{'setting':{width}}", *heads, f"ms at {SIZE[0]}x{SIZE[1]}"])]
    for r in records:
        cells = [f"{format_score(m, r[name][m]):>{len(head)}}" for (name, m), head in zip(columns, heads, strict=True)]
        mark = "*" if r["best"] else ""
        lines.append("  ".join([f"{r['setting']:{width}}", *cells, f"{r['median_ms']:13.1f}", mark]).rstrip())
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Scores and times every setting, prints the table, then the JSON."""
    sets = {"Middlebury": (MiddleBury_Other.SET, args.middlebury), "UCF101": (UCF101.SET, args.ucf101)}
    if args.plot:
        check_plot(args.plot)
    for test_set, folder in sets.values():
        test_set.check(folder)
    records, metric = measure(args, sets)
    print(render(records, sets))
    if args.plot:
        save(plot(records, metric), args.plot)
        print(f"Wrote {args.plot}")
    print(json.dumps({"device": args.device, "threads": torch.get_num_threads(), "results": records}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = [parse_setting(text) for text in DEFAULT_SETTINGS]
    p.add_argument("--settings", type=parse_setting, nargs="+", default=defaults, metavar="SETTING",
                   help=f"settings to measure (default: {' '.join(DEFAULT_SETTINGS)})")  # fmt: skip
    p.add_argument("--middlebury", type=Path, default=Path(MiddleBury_Other.SET.data), metavar="DIR",
                   help="folder of the set (default: %(default)s)")  # fmt: skip
    p.add_argument("--ucf101", type=Path, default=Path(UCF101.SET.data), metavar="DIR",
                   help="folder of the set (default: %(default)s)")  # fmt: skip
    p.add_argument("--limit", type=int, metavar="N", help="score only the first N samples of each set (default: all)")
    p.add_argument("--runs", type=int, default=5, help="timed calls a setting (default: 5)")
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw quality against cost, by matplotlib (default: none)")
    args = p.parse_args(argv)
    if any(setting.baseline for setting in args.settings):
        p.error("--settings: baseline makes the same pictures; compare its time by testtime.py")
    keep_freed_memory()
    return run_command("tradeoff.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
