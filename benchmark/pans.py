"""Measures up to how much camera motion networks interpolate well, on any pictures.

python3 benchmark/pans.py picture.png folder/ video.mp4
python3 benchmark/pans.py picture.png --model train_log --model DIR --plot pans.png        several networks side by side
python3 benchmark/pans.py folder/ --blocks                                                 the flow after every block

Both frames and the true frame between them are views of one picture (of a video: of its first frame) by a camera. From
the first frame to the last it shifts by 10 to 160 px, zooms by 0.8 to 1.25 or rotates by 2 to 15 degrees. Shifted views
are crops by whole pixels, so the motion is the only difficulty. Frames are 640x384; the outer 96 px do not count, so
that every pixel that counts is visible in both frames. Pictures that are too small are enlarged.

--blocks: the error of the flow after each block of the network, on shifts in all directions.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from benchmark import plots
from benchmark.block_flows import measure_blocks, render_blocks
from benchmark.measures import COMMON_MEASURES, Metric, load_metrics
from benchmark.methods import PictureMethod, add_methods_flags, load_methods, load_networks
from benchmark.record import write_json
from benchmark.table import Scores, format_score, summary, with_unit
from benchmark.test_set import HALF
from commands.errors import run_command
from model.image import to_picture, to_tensor
from model.inference.memory import keep_freed_memory
from video.pictures.picture import list_pictures, read_picture, with_channels
from video.reading.reader import open_frames
from video.safe_file import PICTURE_SUFFIXES

SIZE = (640, 384)  # width and height of a frame, px
EDGE = 96  # px at every edge that do not count: beyond the 80 px that the largest shift hides in one of the frames


@dataclass(frozen=True)
class CameraMotion:
    """Describes a camera's motion from the first frame to the last; the true frame is halfway."""

    kind: str  # of MOTION_KINDS
    amount: float  # px to the right, factor of size, or degrees

    def matrix(self, share: float) -> np.ndarray:
        """Returns (2,3): where a point of the frame, from its centre, is in the picture; share -0.5 first, 0.5 last."""
        zoom = self.amount**-share if self.kind == "zoom" else 1.0
        angle = np.deg2rad(self.amount * share) if self.kind == "turn" else 0.0
        shift = -self.amount * share if self.kind == "shift" else 0.0
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        return np.array([[cos, sin, shift], [-sin, cos, 0]])


MOTION_UNITS = {"shift": "px", "zoom": "factor", "turn": "degrees"}
MOTION_KINDS: Mapping[str, Sequence[CameraMotion]] = {
    "shift": [CameraMotion("shift", amount) for amount in (10, 20, 40, 60, 80, 100, 120, 140, 160)],
    "zoom": [CameraMotion("zoom", amount) for amount in (0.8, 0.9, 1.1, 1.25)],
    "turn": [CameraMotion("turn", amount) for amount in (2, 5, 10, 15)],
}


def read_pictures(paths: Iterable[Path]) -> dict[str, np.ndarray]:
    """Returns the pictures of files and folders, and the first frame of videos, (H,W,3) uint8, by their names."""
    files = [file for path in paths for file in (list_pictures(path) if path.is_dir() else [path])]
    found = {}
    for file in files:
        rgb = read_picture(file) if file.suffix.lower() in PICTURE_SUFFIXES else next(iter(open_frames(file))).rgb()
        rgb = with_channels(rgb, 3)[:, :, :3]
        found[str(file)] = rgb if rgb.dtype == np.uint8 else to_picture(to_tensor(rgb))
    return found


def view(picture: np.ndarray, motion: CameraMotion, share: float, size: tuple[int, int]) -> np.ndarray:
    """Returns the frame (H,W,3) that the camera sees; views that only shift by whole pixels are crops."""
    height, width = picture.shape[:2]
    matrix = motion.matrix(share)
    # from pixels of the frame to pixels of the picture, both counted from the middle; halves are rounded away, so
    # that the true frame is a crop too
    middle = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
    target = np.array([(width - size[0]) // 2, (height - size[1]) // 2]) + middle
    matrix = np.column_stack((matrix[:, :2], matrix[:, 2] + target - matrix[:, :2] @ middle))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def enlarged(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns the picture, resized by cubics to cover width and height px where it is smaller."""
    factor = max(width / picture.shape[1], height / picture.shape[0])
    if factor <= 1:
        return picture
    size = (round(np.ceil(picture.shape[1] * factor)), round(np.ceil(picture.shape[0] * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)


def needed_size(motions: Iterable[CameraMotion], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the width and height of the smallest picture that holds every view."""
    corners = np.array([[x, y] for x in (-size[0] / 2, size[0] / 2) for y in (-size[1] / 2, size[1] / 2)])
    reach = [corners @ m[:, :2].T + m[:, 2] for motion in motions for m in map(motion.matrix, (-0.5, 0.5))]
    width, height = 2 * np.abs(np.concatenate(reach)).max(0)
    return int(np.ceil(width)), int(np.ceil(height))


def measure(
    pictures: Mapping[str, np.ndarray],
    motions: Sequence[CameraMotion],
    methods: Mapping[str, PictureMethod],
    metrics: Mapping[str, Metric],
) -> Scores:
    """Returns the scores of every method on every motion of every picture; progress on stderr."""
    scores = Scores()
    width, height = needed_size(motions, SIZE)
    jobs = [(name, motion) for motion in motions for name in pictures]
    for name, motion in tqdm(jobs, unit="view", file=sys.stderr):
        picture = enlarged(pictures[name], width, height)
        first, truth, last = (view(picture, motion, share, SIZE) for share in (-0.5, 0, 0.5))
        where = {"group": group_name(motion), "clip": name, "sample": name, "timestep": 0.5}
        inner = (slice(EDGE, -EDGE), slice(EDGE, -EDGE))
        for method, run in methods.items():
            made, true = (to_tensor(frame[inner]) for frame in (run(first, last, HALF), truth))
            scores.add(method, where, {metric: compute(made, true).item() for metric, compute in metrics.items()})
    return scores


def group_name(motion: CameraMotion) -> str:
    """Returns the name of a motion in tables and records."""
    return f"{motion.kind} {motion.amount:g}"


def describe(kind: str) -> dict[str, Any]:
    """Returns the unit, the amounts and the row names of the motions of a kind, for the record."""
    motions = MOTION_KINDS[kind]
    groups = [group_name(motion) for motion in motions]
    return {"unit": MOTION_UNITS[kind], "amounts": [motion.amount for motion in motions], "groups": groups}


def render(report: Mapping[str, Any]) -> str:
    """Returns the tables: for each kind of motion and each measure a row a method and a column a motion."""
    values = {(row["method"], row["group"], row["metric"]): row["value"] for row in report["rows"]}
    methods = list(dict.fromkeys(method for method, _, _ in values))
    width = max(map(len, [*methods, "PSNR dB by turn (degrees)"]))
    lines = [f"pictures: {len(report['pictures'])}; {SIZE[0]}x{SIZE[1]}, the outer {EDGE} px not counted"]
    for kind, motion in report["motions"].items():
        for metric in report["metrics"]:
            title = f"{with_unit(metric)} by {kind} ({motion['unit']})"
            lines += ["", f"{title:{width}}" + "".join(f"{amount:9g}" for amount in motion["amounts"])]
            for method in methods:
                found = (values[method, group, metric] for group in motion["groups"])
                lines.append(f"{method:{width}}" + "".join(f"{format_score(metric, value):>9}" for value in found))
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Measures, prints the tables and the JSON line, and writes what the flags name."""
    if args.plot:
        plots.check_plot(args.plot)
    pictures = read_pictures(args.pictures)
    if args.blocks:
        report: dict[str, Any] = measure_blocks(pictures, load_networks(args))
        print(render_blocks(report))
    else:
        motions = [motion for kind in args.kinds for motion in MOTION_KINDS[kind]]
        metrics = load_metrics(COMMON_MEASURES[:2], "cpu")
        scores = measure(pictures, motions, load_methods(args), metrics)
        report = {"set": "camera motion", "pictures": list(pictures), "metrics": list(metrics)}
        report["motions"] = {kind: describe(kind) for kind in args.kinds}
        report |= summary(scores, tuple(metrics), {}, None)
        print(render(report))
        if args.plot:
            plots.save(plots.by_motion(report), args.plot)
    if args.json:
        write_json(args.json, report)
    print(json.dumps(report))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", type=Path, nargs="+", help="pictures, folders of pictures, or videos (the first frame)")
    add_methods_flags(p)
    p.add_argument(
        "--kinds",
        nargs="+",
        choices=list(MOTION_KINDS),
        default=list(MOTION_KINDS),
        help="kinds of motion (default: all)",
    )
    p.add_argument("--blocks", action="store_true", help="measure the flow of every block (default: off)")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw quality against motion (default: none)")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file (default: none)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.blocks and args.plot:
        parser.error("--plot draws the quality of pictures: leave out --blocks")
    keep_freed_memory()
    return run_command("pans.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
