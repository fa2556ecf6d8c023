"""Measures how well repeated frames are found, on clips with and without inserted duplicates.

python3 benchmark/repeats.py clips/*.mp4                    the default rule
python3 benchmark/repeats.py clips/*.mp4 --rule upstream    the rule of 32x32 thumbnails

Two measurements. Clips as they are: every frame that is found is listed, so that it can be inspected. Clips in which
every fourth frame is shown twice, unchanged and coded again by x264 at several qualities: the share of the duplicates
that is found, and the number of other frames that are found. The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

from tqdm import tqdm

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.errors import run_command
from video.frame import Frame
from video.reading.reader import Source, open_frames
from video.transitions.scene import REPEAT_RULES, Transition, TransitionDetector
from video.writing.encoding import Encoding
from video.writing.writer import VideoWriter

QUALITIES = (18, 23, 28, 32)  # crf of x264
PERIOD = 4  # every fourth frame is shown twice
EXACT = "not coded anew"


def found_repeats(frames: Iterable[Frame], detector: TransitionDetector) -> list[int]:
    """Returns the numbers of the frames that repeat the one before."""
    signatures = [detector.signature(frame.rgb(), frame.time) for frame in frames]
    return [n for n, found in enumerate(detector.transitions(signatures), 1) if found is Transition.REPEAT]


def with_duplicates(frames: Sequence[Frame]) -> tuple[list[Frame], list[int]]:
    """Returns the frames, every fourth of them twice, at a constant rate; and the numbers of the duplicates."""
    shown: list[Frame] = []
    duplicates = []
    for n, frame in enumerate(frames):
        for copy in range(2 if n % PERIOD == PERIOD - 2 else 1):
            if copy:
                duplicates.append(len(shown))
            shown.append(Frame(frame.picture, Fraction(len(shown), 24), frame.colour))
    return shown, duplicates


def coded(frames: Sequence[Frame], source: Source, crf: int) -> list[Frame]:
    """Returns the frames as x264 codes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coded.mkv"
        encoding = Encoding("libx264", crf)
        with VideoWriter(path, source, Fraction(24), Fraction(1, 24), encoding=encoding, tracks=False) as writer:
            for frame in frames:
                writer.write(frame)
        return list(open_frames(path))


def measure(path: Path, limit: int, detector: TransitionDetector) -> dict[str, dict[str, list[int]]]:
    """Returns, for each coding, the numbers of the duplicates, of those missed, and of other frames that are found."""
    source = open_frames(path)
    frames = list(islice(source, limit))
    own = found_repeats(frames, detector)
    results = {"as it is": {"duplicates": [], "missed": [], "others": own}}
    shown, duplicates = with_duplicates(frames)
    for name, clip in [(EXACT, shown), *((f"crf {crf}", coded(shown, source, crf)) for crf in QUALITIES)]:
        found = found_repeats(clip, detector)
        missed = [n for n in duplicates if n not in found]
        results[name] = {"duplicates": duplicates, "missed": missed, "others": sorted({*found} - {*duplicates})}
    return results


def run(args: argparse.Namespace) -> None:
    """Prints what was found in every clip, the table, then the JSON."""
    detector = TransitionDetector(repeats=args.rule)
    totals: dict[str, dict[str, int]] = {}
    for path in tqdm(args.clips, unit="clip"):
        for name, numbers in measure(path, args.frames, detector).items():
            total = totals.setdefault(name, {"duplicates": 0, "missed": 0, "others": 0})
            for key, values in numbers.items():
                total[key] += len(values)
            for key in ("missed", "others"):
                if numbers[key] and (key == "missed" or name == "as it is"):
                    tqdm.write(f"{path.name}, {name}, {key}: {', '.join(map(str, numbers[key]))}")
    print(f"{'':16}{'duplicates':>12}{'found':>10}{'others found':>14}")
    for name, total in totals.items():
        share = f"{1 - total['missed'] / total['duplicates']:.1%}" if total["duplicates"] else ""
        print(f"{name:16}{total['duplicates']:12}{share:>10}{total['others']:14}")
    print(json.dumps({"rule": args.rule, "clips": len(args.clips), "frames": args.frames, "totals": totals}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", type=Path, nargs="+", help="videos to measure")
    p.add_argument("--frames", type=int, default=25, help="how many frames of each (default: %(default)s)")
    p.add_argument(
        "--rule", choices=REPEAT_RULES[:2], default=REPEAT_RULES[0], help="rule for repeats (default: %(default)s)"
    )
    args = p.parse_args(argv)
    return run_command("repeats.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
