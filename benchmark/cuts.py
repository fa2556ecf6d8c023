"""Measures how well cuts are found, on labelled joins of clips and photographs.

python3 benchmark/cuts.py --clips clips/*.mp4 --photos photos/*.jpg    both rules
python3 benchmark/cuts.py --clips clips/*.mp4 --photos photos/*.jpg --rule upstream

Joins with breaks, over which no frame can be made: hard cuts between clips, the same in the dark and with black bars,
cuts between photographs, and frames lit by a flash of 55 %. Joins without: the clips as they are, flashes of 10 %,
fades, dissolves and whip pans. Breaks that are missed and other pairs that are found are listed. The last line is JSON.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.joins import EITHER, Join, joins
from commands.errors import run_command
from video.transitions.scene import CUT_RULES, Transition, TransitionDetector

RULES = CUT_RULES[:2]
BREAK_TRANSITIONS = Transition.CUT, Transition.FLASH


def found_cuts(join: Join, detector: TransitionDetector) -> set[int]:
    """Returns the numbers of the frames that the detector separates from the frame before."""
    signatures = [detector.signature(frame.rgb(), frame.time) for frame in join.frames()]
    return {n for n, found in enumerate(detector.transitions(signatures), 1) if found in BREAK_TRANSITIONS}


def score(join: Join, found: set[int]) -> Counter[str]:
    """Returns the counts of breaks, of breaks found, of other pairs, and of other pairs found."""
    pairs = len(join.pictures) - 1
    return Counter(
        breaks=len(join.breaks),
        found=len(found & join.breaks),
        others=pairs - len(join.breaks),
        alarms=len(found - join.breaks),
    )


def precision_and_recall(counts: Counter[str]) -> tuple[float, float]:
    """Returns both as shares; 1 where nothing was found or nothing was to be found."""
    found = counts["found"] + counts["alarms"]
    return counts["found"] / found if found else 1.0, counts["found"] / counts["breaks"] if counts["breaks"] else 1.0


def run(args: argparse.Namespace) -> None:
    """Prints the table of each rule, then the JSON."""
    detectors = {rule: TransitionDetector(repeats="off", cuts=rule) for rule in args.rule or RULES}
    counts: dict[str, dict[str, Counter[str]]] = {rule: defaultdict(Counter) for rule in detectors}
    for join in tqdm(joins(args.clips, args.photos, args.frames), unit="join"):
        for rule, detector in detectors.items():
            found = found_cuts(join, detector)
            counts[rule][join.kind].update(score(join, found))  # += would drop zeros
            if found != join.breaks and join.kind != EITHER and rule == RULES[0]:
                wrong = f"missed {sorted(join.breaks - found)}, found {sorted(found - join.breaks)}"
                tqdm.write(f"{join.name}, {join.kind}: {wrong}")
    record: dict[str, object] = {}
    for rule, kinds in counts.items():
        print(f"\n{rule:20}{'breaks':>10}{'found':>10}{'others':>10}{'found':>10}")
        for kind, c in kinds.items():
            print(f"{kind:20}{c['breaks']:10}{c['found']:10}{c['others']:10}{c['alarms']:10}")
        total = sum((c for kind, c in kinds.items() if kind != EITHER), Counter[str]())
        precision, recall = precision_and_recall(total)
        print(f"precision {precision:.3f}, recall {recall:.3f}")
        record[rule] = {"precision": precision, "recall": recall, "kinds": {k: dict(c) for k, c in kinds.items()}}
    print(json.dumps(record))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clips", type=Path, nargs="+", required=True, help="videos to join")
    p.add_argument("--photos", type=Path, nargs="+", required=True, help="pictures to join, 480 px wide or more")
    p.add_argument("--frames", type=int, default=25, help="how many frames of each clip (default: %(default)s)")
    p.add_argument("--rule", choices=RULES, action="append", help="measure this rule (default: both)")
    args = p.parse_args(argv)
    return run_command("cuts.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
