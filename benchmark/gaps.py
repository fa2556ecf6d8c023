"""Measures large motion in real video: the middle frame between two frames several frames apart, against the true one.

python3 benchmark/gaps.py clip.mp4 other.mp4
python3 benchmark/gaps.py folder/*.mp4 --gaps 2 3 --model train_log --model DIR --short-side 480

At gap 3 the network is given frames 0 and 6 of a clip and its picture is compared with frame 3. Triplets are spread
evenly over each clip; those with a cut, a repeated frame or a change of size between their frames are left out.
Networks are given RGB, as in inference_video.py.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from benchmark.measures import COMMON_MEASURES, Metric, load_metrics
from benchmark.methods import PictureMethod, add_methods_flags, load_methods
from benchmark.record import write_json
from benchmark.table import SECONDS_KEY, Scores, method_table, summary
from benchmark.triplets import FrameTriplet, find_obstacles, read_triplets, spread_middles, timestep_of
from commands.errors import run_command
from model import UserError
from model.image import to_tensor
from model.inference.memory import keep_freed_memory

GAPS = (2, 3, 4)  # frames from the first to the true one, and from there to the last
TRIPLET_COUNT = 10  # triplets of each gap from each clip


def measure(
    clips: Sequence[Path],
    gaps: Sequence[int],
    methods: Mapping[str, PictureMethod],
    metrics: Mapping[str, Metric],
    *,
    count: int,
    short_side: int | None,
) -> Scores:
    """Returns the scores of every method on every triplet; progress on stderr. UserError where there is no triplet."""
    scores = Scores()
    for clip in clips:
        obstacles = find_obstacles(clip)
        middles = {gap: spread_middles(obstacles, gap, count) for gap in gaps}
        total = sum(map(len, middles.values()))
        for gap, triplet in tqdm(read_triplets(clip, middles, short_side), clip.name, total, unit="triplet"):
            add_triplet(scores, clip, gap, triplet, methods, metrics)
    missing = [str(gap) for gap in gaps if f"gap {gap}" not in scores.groups]
    if missing:
        raise UserError(f"{', '.join(map(str, clips))}: no triplet of gap {', '.join(missing)} without a cut or a "
                        "repeated frame; give longer clips or smaller --gaps")  # fmt: skip
    return scores


def add_triplet(
    scores: Scores,
    clip: Path,
    gap: int,
    triplet: FrameTriplet,
    methods: Mapping[str, PictureMethod],
    metrics: Mapping[str, Metric],
) -> None:
    """Adds the scores of every method on one triplet, and the seconds that it took."""
    first, truth, last = triplet
    timestep = timestep_of(triplet)
    where = {"group": f"gap {gap}", "clip": clip.name, "sample": f"frame {truth.index}", "timestep": float(timestep)}
    true = to_tensor(truth.picture)
    for name, method in methods.items():
        start = time.perf_counter()
        picture = method(first.picture, last.picture, timestep)
        seconds = time.perf_counter() - start
        made = to_tensor(picture)
        values = {metric: compute(made, true).item() for metric, compute in metrics.items()}
        scores.add(name, where, {**values, SECONDS_KEY: seconds})


def run(args: argparse.Namespace) -> None:
    """Measures, prints the tables and the JSON line, and writes what the flags name."""
    metrics = load_metrics(COMMON_MEASURES[:2], "cpu")
    gaps = sorted(set(args.gaps))
    scores = measure(args.clips, gaps, load_methods(args), metrics, count=args.count, short_side=args.short_side)
    columns = (*metrics, SECONDS_KEY)
    report: dict[str, Any] = {"set": "gaps", "clips": [clip.name for clip in args.clips], "samples": scores.samples}
    report |= summary(scores, columns, {}, None)
    for gap in gaps:
        rows = [row for row in report["rows"] if row["group"] == f"gap {gap}"]
        print("\n".join([f"gap {gap}: the middle of {2 * gap} frame steps", *method_table(rows), ""]))
    if args.json:
        write_json(args.json, {**report, "each": scores.rows})
    print(json.dumps(report))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", type=Path, nargs="+", help="videos, or folders that each hold the pictures of one")
    add_methods_flags(p)
    p.add_argument("--gaps", type=int, nargs="+", default=list(GAPS), metavar="N", help="frames from the true one to "
                   "each of the two that are given (default: 2 3 4)")  # fmt: skip
    p.add_argument("--count", type=int, default=TRIPLET_COUNT, metavar="N", help="triplets of each gap from each clip "
                   "(default: %(default)s)")  # fmt: skip
    p.add_argument("--short-side", type=int, metavar="PX", help="reduce larger frames to this (default: as they are)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all scores (default: none)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if min(*args.gaps, args.count) < 1:
        parser.error("--gaps and --count are 1 or more")
    if args.short_side is not None and args.short_side < 64:
        parser.error("--short-side is 64 or more")
    keep_freed_memory()
    return run_command("gaps.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
