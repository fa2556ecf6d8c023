"""Quality against cost: PSNR on Middlebury OTHER and UCF101 beside the time of a frame, over settings.

python3 benchmark/tradeoff.py                                       the default weights at scales, tta, bf16
python3 benchmark/tradeoff.py --settings model=A model=B model=B,tta --plot tradeoff.png
python3 benchmark/tradeoff.py --middlebury DIR --ucf101 DIR --limit 20

A setting is what benchmark/testtime.py --compare takes. Predictions are rounded to 8 bits, frames go in as RGB, and
nothing is padded before the network pads. Time is that of one 640x480 pair, the settings in turn, by the processor on a
CPU. A line is marked where no other is both better, by the mean of both sets, and faster: the rest need not be chosen.
The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark import UCF101, MiddleBury_Other
from benchmark.common import Sample, TestSet
from benchmark.compare import Setting, interleaved, pair, parse_setting
from benchmark.plots import check, new_figure, save
from model import RIFE, UserError, pick_device
from model.image import to_picture, to_tensor
from model.inference.memory import keep_freed_memory
from model.metrics import psnr

SIZE = (640, 480)  # of the pair that is timed
DEFAULT = ("scale=1", "scale=0.5", "scale=2", "tta", "scale=0.5,tta", "bf16")


def score(model: RIFE, setting: Setting, samples: Iterator[Sample]) -> float:
    """The mean PSNR in dB."""
    values = []
    for sample in samples:
        img0, img1 = (to_tensor(frame, model.device) for frame in sample.frames)
        images = model.between(img0, img1, tuple(sample.targets), scale=setting.scale, tta=setting.tta)
        for made, truth in zip(images, sample.targets.values(), strict=True):
            values.append(psnr(to_tensor(to_picture(made)), to_tensor(truth)).item())
    return statistics.fmean(values)


def best(records: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether no other record is at least as good and as fast, and better in one of both."""

    def beats(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        pairs = [(a["mean_psnr"], b["mean_psnr"]), (-a["median_ms"], -b["median_ms"])]
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    return [not any(beats(other, record) for other in records) for record in records]


def plot(records: Sequence[Mapping[str, Any]]) -> Any:
    """Mean PSNR against milliseconds, a point a setting, the best ones joined."""
    figure = new_figure(5, 7)
    axes = figure.subplots()
    for record in records:
        axes.plot(record["median_ms"], record["mean_psnr"], "o")
        axes.annotate(record["setting"], (record["median_ms"], record["mean_psnr"]), fontsize=8)
    front = sorted((r["median_ms"], r["mean_psnr"]) for r in records if r["best"])
    axes.plot(*zip(*front, strict=True), "-", color="grey", zorder=0)
    axes.set(xscale="log", xlabel=f"ms a frame at {SIZE[0]}x{SIZE[1]}", ylabel="mean PSNR, dB")
    return figure


def run(args: argparse.Namespace) -> None:
    """Scores and times every setting, prints the table, then the JSON."""
    sets: list[tuple[str, TestSet, Path]] = [
        ("middlebury", MiddleBury_Other.SET, args.middlebury),
        ("ucf101", UCF101.SET, args.ucf101),
    ]
    if args.plot:
        check(args.plot)
    for _, test_set, folder in sets:
        test_set.check(folder)
    device = pick_device(args.device)
    models = {setting.text: setting.load(device) for setting in args.settings}
    records: list[dict[str, Any]] = []
    for setting in args.settings:
        scores = {
            name: score(models[setting.text], setting, islice(test_set.samples(folder), args.limit))
            for name, test_set, folder in sets
        }
        print(f"{setting.text}: {', '.join(f'{name} {value:.3f}' for name, value in scores.items())}", file=sys.stderr)
        records.append({"setting": setting.text, "model": models[setting.text].name, **scores})
        records[-1]["mean_psnr"] = statistics.fmean(scores.values())
    images = pair(SIZE, device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    calls = {setting.text: setting.call(models[setting.text], *images) for setting in args.settings}
    times = interleaved(calls, device, args.runs, clock)
    for record in records:
        record["median_ms"] = statistics.median(times[record["setting"]])
    for record, is_best in zip(records, best(records), strict=True):
        record["best"] = is_best
    width = max(len(record["setting"]) for record in records)
    print(f"{'setting':{width}}  Middlebury dB   UCF101 dB  ms at {SIZE[0]}x{SIZE[1]}")
    for r in records:
        mark = "*" if r["best"] else ""
        line = f"{r['setting']:{width}}  {r['middlebury']:13.3f}  {r['ucf101']:10.3f}  {r['median_ms']:13.1f}  {mark}"
        print(line.rstrip())
    if args.plot:
        save(plot(records), args.plot)
        print(f"Wrote {args.plot}")
    print(json.dumps({"device": str(device), "threads": torch.get_num_threads(), "results": records}))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = [parse_setting(text) for text in DEFAULT]
    p.add_argument("--settings", type=parse_setting, nargs="+", default=defaults, metavar="SETTING",
                   help=f"default: {' '.join(DEFAULT)}")  # fmt: skip
    p.add_argument("--middlebury", type=Path, default=Path(MiddleBury_Other.SET.data), metavar="DIR")
    p.add_argument("--ucf101", type=Path, default=Path(UCF101.SET.data), metavar="DIR")
    p.add_argument("--limit", type=int, metavar="N", help="the first N samples of each set only")
    p.add_argument("--runs", type=int, default=5, help="timed calls a setting (default: 5)")
    p.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw quality against cost (matplotlib)")
    args = p.parse_args(argv)
    if not all(setting.ours for setting in args.settings):
        p.error("--settings: pictures of baseline and openvino are ours; compare times with testtime.py --compare")
    keep_freed_memory()
    try:
        run(args)
    except (UserError, OSError) as e:
        print(f"tradeoff.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
