"""Compares networks on your own clip: every second frame is left out, interpolated, and compared with the original.

python3 benchmark/clip.py video.mp4
python3 benchmark/clip.py video.mp4 --model train_log --model DIR --scale 1 --scale 0.5      each at each scale
python3 benchmark/clip.py video.mp4 --limit 300 --output DIR --overwrite                     the first 300 frames

Shows which model and which scale suit the video: PSNR, SSIM, LPIPS and seconds a frame for each model and scale, and
for repeating, averaging and DIS flow. The best one is chosen by LPIPS, which agrees with viewers more often than PSNR,
or by PSNR where the weights of LPIPS are missing (python3 -m model.download lpips). An interpolated frame has the exact
time of the original. Its seconds (the median) are those in a video: features of one frame, network, conversion to a
picture. Frames next to a cut and repeated frames are left out and counted.

Writes, to benchmark_NAME/ or to --output: results.json, for report.py; over_time.png; worst_1.png .. , the worst
frames side by side, each from another second; worst/, the same frames as single pictures.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from benchmark.baselines import BASELINES
from benchmark.measures import COMMON_MEASURES, Metric, load_metrics
from benchmark.methods import NetworkMethod, PictureMethod, add_methods_flags, classical, load_networks
from benchmark.plots import new_figure, over_time, side_by_side, to_png
from benchmark.record import new_folder, write_json
from benchmark.table import LOWER_IS_BETTER, SECONDS_KEY, Scores, method_table, ranking_measure, summary
from benchmark.triplets import REPEAT_LEVELS, FrameTriplet, convert_frames, every_second, timestep_of
from benchmark.worst import FIRST, LAST, TRUTH, Case, WorstCases, with_folder, write_case
from commands.errors import run_command
from model import UserError
from model.image import to_tensor
from model.inference.memory import keep_freed_memory
from video.prefetch import prefetch
from video.reading.reader import Source, open_frames
from video.safe_file import write_file
from video.transitions.scene import CUT_SSIM


def evaluate(
    triplets: Iterable[FrameTriplet],
    methods: Mapping[str, PictureMethod],
    metrics: Mapping[str, Metric],
    scores: Scores,
    worst: WorstCases,
) -> None:
    """Scores and times every method on every triplet."""
    for first, truth, last in triplets:
        timestep = timestep_of((first, truth, last))
        where = {"group": "", "clip": "", "sample": f"frame {truth.index}", "timestep": float(timestep)}
        where |= {"frame": truth.index, "time": round(float(truth.time), 6)}
        pictures = {FIRST: first.picture, LAST: last.picture, TRUTH: truth.picture}
        true, values = to_tensor(truth.picture), {}
        for name, method in methods.items():
            start = time.perf_counter()
            pictures[name] = method(first.picture, last.picture, timestep)
            seconds = time.perf_counter() - start
            made = to_tensor(pictures[name])
            values[name] = {metric: compute(made, true).item() for metric, compute in metrics.items()}
            values[name][SECONDS_KEY] = seconds
            scores.add(name, where, values[name])
        worst.add(int(truth.time), Case(where, values, pictures))


def render(report: Mapping[str, Any]) -> str:
    """Returns the table, a line a method, and the best method: by LPIPS if it is measured, else by PSNR."""
    reasons = [entry["why"] for entry in report["left_out"]]
    left = ", ".join(f"{reasons.count(why)} for a {why}" for why in dict.fromkeys(reasons)) or "none"
    size = "{}x{} at {:.6g} frames/s".format(*report["size"], report["rate"])
    lines = [f"{report['clip']}, {size}: {report['samples']} frames made anew; left out: {left}"]
    columns = list(dict.fromkeys(row["metric"] for row in report["rows"]))
    lines += method_table(report["rows"])
    judge = ranking_measure(columns)
    values = {row["method"]: row["value"] for row in report["rows"] if row["metric"] == judge}
    rank = {name: float("inf") if value is None else value for name, value in values.items()}
    best = min(rank, key=rank.__getitem__) if judge in LOWER_IS_BETTER else max(rank, key=rank.__getitem__)
    return "\n".join([*lines, f"{'Lowest' if judge in LOWER_IS_BETTER else 'Highest'} {judge}: {best}"])


def run(args: argparse.Namespace) -> None:
    """Scores the clip, prints the table and the JSON line, and writes the folder."""
    source = open_frames(args.clip)
    output = args.output or Path(f"benchmark_{args.clip.resolve().stem}")
    new_figure(1)  # raises an error before the measurement if matplotlib is missing
    with new_folder(output, overwrite=args.overwrite) as folder:
        networks = load_networks(args)
        methods: dict[str, PictureMethod] = {**networks, **{name: classical(b) for name, b in BASELINES.items()}}
        metrics = load_metrics(COMMON_MEASURES[:2], "cpu")
        scores, worst, left_out = Scores(), WorstCases(list(networks), ranking_measure(metrics)), list[dict[str, Any]]()
        total = min(args.limit or sys.maxsize, source.count) if source.count else args.limit
        with closing(prefetch(source)) as frames:
            bar = tqdm(islice(frames, args.limit), total=total, unit="frame", file=sys.stderr)
            found = every_second(convert_frames(bar), left_out, args.scene_threshold, args.repeat_levels)
            evaluate(found, methods, metrics, scores, worst)
        if not scores.rows:
            whys = ", ".join(sorted({entry["why"] for entry in left_out})) or "fewer than three frames"
            raise UserError(f"{args.clip}: no frame to score ({whys}); --scene-threshold 0 --repeat-levels 0 "
                            "leaves none out, a larger --limit reads on")  # fmt: skip
        report = report_of(source, networks, scores, tuple(metrics), left_out)
        records = write_worst(folder, worst, networks)
        write_file(folder / "over_time.png", to_png(over_time(scores.rows, (*metrics, SECONDS_KEY), left_out)))
        write_json(
            folder / "results.json", {**report, "worst": with_folder(records, Path("worst")), "each": scores.rows}
        )
    for error in source.errors:
        print(f"clip.py: {source.path}: {error}; what could be decoded was used", file=sys.stderr)
    if args.json:
        worst_frames = with_folder(records, output.resolve() / "worst")
        write_json(args.json, {**report, "worst": worst_frames, "each": scores.rows})
    print(f"{render(report)}\nWrote {output}: results.json, over_time.png, worst_1.png .. and worst/")
    print(json.dumps(report))


def report_of(
    source: Source,
    networks: Mapping[str, NetworkMethod],
    scores: Scores,
    metrics: Sequence[str],
    left_out: list[dict[str, Any]],
) -> dict[str, Any]:
    """Returns the record for programs, without the single scores."""
    settings = [
        {
            "method": name,
            "model": network.model.name,
            "weights": network.model.source,
            "scale": network.scale,
            "device": str(network.model.device),
        }
        for name, network in networks.items()
    ]
    report = {"clip": source.path.name, "size": source.size, "rate": float(source.rate), "choices": settings}
    rows = summary(scores, (*metrics, SECONDS_KEY), {}, None)["rows"]
    return {**report, "samples": scores.samples, "left_out": left_out, "rows": rows}


def write_worst(folder: Path, worst: WorstCases, networks: Mapping[str, NetworkMethod]) -> list[dict[str, Any]]:
    """Writes the worst frames side by side and as single pictures and returns their records."""
    records = []
    for i, case in enumerate(worst.cases, 1):
        for name, network in networks.items():
            case.add_motion(network.model, name, scale=network.scale)
        write_file(folder / f"worst_{i}.png", to_png(side_by_side(case, worst.metric)))
        records.append(write_case(folder / "worst", i, case))
    return records


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip", type=Path, help="a video, or a folder of pictures")
    add_methods_flags(p)
    p.add_argument("--limit", type=int, metavar="N", help="use only the first N frames, 3 or more (default: all)")
    p.add_argument("--scene-threshold", type=float, default=CUT_SSIM, help="similarity of two frames below "
                   "which there is a cut between them; 0: never (default: %(default)s)")  # fmt: skip
    p.add_argument("--repeat-levels", type=float, default=REPEAT_LEVELS, help="mean difference in 8-bit levels below "
                   "which a frame repeats another; 0: never (default: %(default)s)")  # fmt: skip
    p.add_argument("--output", type=Path, metavar="DIR", help="folder of the results (default: benchmark_NAME)")
    p.add_argument("--overwrite", action="store_true", help="replace that folder if it exists (default: refuse)")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write results.json to this file (default: none)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 3:
        parser.error("--limit is 3 or more: a frame and its two neighbours")
    keep_freed_memory()
    return run_command("clip.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
