"""Measures what --dedup makes of animation on twos and threes, against the true frames.

python3 benchmark/animation.py clips/*.mp4
python3 benchmark/animation.py clips/*.mp4 --crf 28

Frames of each clip are left out and the frame before is shown instead: on twos, on threes, and mixed. The result is
coded by x264, its repeats are found and handled, and every frame is compared with the one of the clip at its time.
The last line is JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.repeats import coded
from commands.errors import run_command
from commands.network_flags import add_network_flags, model_from_flags
from model import RIFE
from video.frame import Frame
from video.interpolate import Handling, Report, interpolate
from video.reading.reader import open_frames
from video.timing.output_times import multiply
from video.transitions.retime import DEDUP
from video.transitions.scene import TransitionDetector

PATTERNS: dict[str, tuple[int, ...]] = {
    "twos": (2,),
    "threes": (3,),
    "mixed": (2, 3, 1, 2, 2, 3),
}  # frames that show one drawing, in turn
SIZE = (448, 256)  # width, height px
RATE = 24


def exposed(frames: Sequence[np.ndarray], pattern: Sequence[int]) -> list[np.ndarray]:
    """Returns the frames, each shown for the number of frames in the pattern; those after it are left out."""
    shown: list[np.ndarray] = []
    for count in cycle(pattern):
        if len(shown) >= len(frames):
            return shown[: len(frames)]
        shown += [frames[len(shown)]] * count
    return shown


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two 8-bit pictures in dB, 60 at most."""
    error = np.square(first.astype(np.float32) - second).mean()
    return float(min(10 * np.log10(255**2 / max(error, 1e-9)), 60))


def measure(path: Path, args: argparse.Namespace, model: RIFE) -> dict[str, dict[str, tuple[float, int]]]:
    """Returns by pattern and way the mean PSNR of the frames that were left out, and the number of frames made anew."""
    source = open_frames(path)
    frames = [cv2.resize(f.rgb(), SIZE, interpolation=cv2.INTER_AREA) for f in islice(source, args.frames)]
    source.size, source.rotation = SIZE, 0
    results: dict[str, dict[str, tuple[float, int]]] = {}
    for name, pattern in PATTERNS.items():
        shown = exposed(frames, pattern)
        left_out = [n for n in range(1, len(frames)) if shown[n] is shown[n - 1] and n < len(frames) - max(pattern)]
        clip = coded([Frame(p, Fraction(n, RATE)) for n, p in enumerate(shown)], source, args.crf)
        for way in DEDUP:
            report = Report()
            rules = Handling(TransitionDetector(repeats="same" if way != "off" else "off"), dedup=way)
            out = list(interpolate(clip, model, multiply(1), handling=rules, report=report))
            score = float(np.mean([psnr(out[n].rgb(), frames[n]) for n in left_out]))
            results.setdefault(name, {})[way] = score, report.repeats
    return results


def run(args: argparse.Namespace) -> None:
    """Prints the mean of all clips as a table, then the JSON."""
    model = model_from_flags(args, args.device)
    found = [measure(path, args, model) for path in tqdm(args.clips, unit="clip")]
    print(f"{'PSNR, dB':12}" + "".join(f"{way:>12}{'anew':>8}" for way in DEDUP))
    record = {}
    for name in PATTERNS:
        means = {way: np.mean([result[name][way] for result in found], 0).tolist() for way in DEDUP}
        print(f"{name:12}" + "".join(f"{score:12.2f}{anew:8.1f}" for score, anew in means.values()))
        record[name] = means
    print(json.dumps({"clips": len(found), "frames": args.frames, "crf": args.crf, "patterns": record}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", type=Path, nargs="+", help="videos to measure")
    p.add_argument("--frames", type=int, default=25, help="how many frames of each (default: %(default)s)")
    p.add_argument("--crf", type=int, default=18, help="quality of x264 (default: %(default)s)")
    add_network_flags(p)
    args = p.parse_args(argv)
    return run_command("animation.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
