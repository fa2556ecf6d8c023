"""Measures the optical flow of --flow: end-point error in px against synthetic scenes whose flow is known exactly.

python3 benchmark/flow.py pictures/                                          the default weights beside OpenCV DIS
python3 benchmark/flow.py pictures/ --model train_log --model flownet.pkl    several networks side by side

A scene is a background with up to six objects in front of it, which are cut out of the given pictures, moved, rotated
and zoomed (data/synthetic.py). Each scene counts in both directions. "visible": pixels whose point is in both frames;
"hidden": pixels whose point leaves the frame or is covered; "reliable": pixels in the network's own mask. Scenes are
grouped by their mean motion.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from benchmark.methods import add_methods_flags, load_networks
from benchmark.pans import read_pictures
from benchmark.record import write_json
from commands.errors import run_command
from data.synthetic import draw_layers, exact_flow, render, visibility
from model.image import to_tensor
from model.inference.end_flow import end_flow
from model.inference.memory import keep_freed_memory
from model.RIFE import RIFE

MOTION_BANDS = (("under 2 px", 2.0), ("2 to 10 px", 10.0), ("over 10 px", np.inf))  # mean motion of a scene
COLUMNS = ("visible", "hidden", "reliable", "kept")


class Direction(NamedTuple):
    """Holds the exact flow of one frame to the other."""

    flow: np.ndarray  # (2,H,W) px
    visible: np.ndarray  # (H,W) bool, in the other frame
    pure: np.ndarray  # (H,W) bool, False where two layers are blended: such a pixel has no single flow


class Scene(NamedTuple):
    """Holds two frames (H,W,3) uint8 and the exact flow of both."""

    frames: tuple[np.ndarray, np.ndarray]
    truth: tuple[Direction, Direction]  # first to second, second to first


class FlowEstimate(NamedTuple):
    """Holds an estimated flow and where it is reliable."""

    flow: np.ndarray  # (2,H,W) px
    reliable: np.ndarray  # (H,W) bool


Estimator = Callable[[np.ndarray, np.ndarray], tuple[FlowEstimate, FlowEstimate]]


def draw_scene(seed: int, size: int, pictures: Sequence[np.ndarray]) -> Scene:
    """Returns a scene of size x size px."""
    layers = draw_layers(np.random.default_rng(seed), size, pictures)
    (first, owner0, pure0), (second, owner1, pure1) = (render(layers, time, size) for time in (0.0, 1.0))
    forward, backward = exact_flow(layers, owner0, 0.0, 1.0), exact_flow(layers, owner1, 1.0, 0.0)
    frames = tuple(np.clip(picture + 0.5, 0, 255).astype(np.uint8) for picture in (first, second))
    return Scene(
        (frames[0], frames[1]),
        (
            Direction(forward, visibility(owner0, owner1, forward), pure0),
            Direction(backward, visibility(owner1, owner0, backward), pure1),
        ),
    )


def network(model: RIFE, scale: float) -> Estimator:
    """Returns the estimator of --flow: flows between both frames, derived from the flow of the middle frame."""

    def estimate(first: np.ndarray, second: np.ndarray) -> tuple[FlowEstimate, FlowEstimate]:
        ends = end_flow(model, to_tensor(first), to_tensor(second), scale=scale)
        forward = FlowEstimate(ends.forward[0].cpu().numpy(), ends.forward_consistent[0, 0].cpu().numpy())
        return forward, FlowEstimate(ends.backward[0].cpu().numpy(), ends.backward_consistent[0, 0].cpu().numpy())

    return estimate


def network_at_ends(model: RIFE, scale: float) -> Estimator:
    """Returns the network's own flow at timesteps 0 and 1, for comparison: it was never trained for them."""

    def estimate(first: np.ndarray, second: np.ndarray) -> tuple[FlowEstimate, FlowEstimate]:
        img0, img1 = to_tensor(first), to_tensor(second)
        forward = model.flow(img0, img1, timestep=0, scale=scale)[0, 2:].cpu().numpy()
        backward = model.flow(img0, img1, timestep=1, scale=scale)[0, :2].cpu().numpy()
        everywhere = np.ones(first.shape[:2], bool)
        return FlowEstimate(forward, everywhere), FlowEstimate(backward, everywhere)

    return estimate


def dis(first: np.ndarray, second: np.ndarray) -> tuple[FlowEstimate, FlowEstimate]:
    """Estimates flow by OpenCV DIS, medium preset."""
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    flows = (search.calc(*pair, None).transpose(2, 0, 1) for pair in (grey, grey[::-1]))
    everywhere = np.ones(first.shape[:2], bool)
    forward, backward = (FlowEstimate(flow, everywhere) for flow in flows)
    return forward, backward


def no_motion(first: np.ndarray, second: np.ndarray) -> tuple[FlowEstimate, FlowEstimate]:
    """Estimates no motion at all: its error is the length of the true flow."""
    nothing = FlowEstimate(np.zeros((2, *first.shape[:2]), np.float32), np.ones(first.shape[:2], bool))
    return nothing, nothing


def errors(estimate: FlowEstimate, truth: Direction) -> dict[str, float]:
    """Returns mean end-point errors in px, by COLUMNS; "kept" is the share of visible pixels that count as reliable."""
    distance = np.hypot(*(estimate.flow - truth.flow))
    parts = {
        "visible": truth.pure & truth.visible,
        "hidden": truth.pure & ~truth.visible,
        "reliable": truth.pure & estimate.reliable,
    }
    means = {name: float(distance[part].mean()) if part.any() else float("nan") for name, part in parts.items()}
    return {**means, "kept": float(estimate.reliable[truth.visible].mean()) if truth.visible.any() else float("nan")}


def measure(estimators: Mapping[str, Estimator], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row a scene, direction and estimator; progress on stderr."""
    pictures = list(read_pictures(args.pictures).values())
    rows = []
    for seed in tqdm(range(args.scenes), unit="scene", file=sys.stderr):
        scene = draw_scene(args.seed + seed, args.size, pictures)
        for name, estimator in estimators.items():
            for way, estimate, truth in zip(("01", "10"), estimator(*scene.frames), scene.truth, strict=True):
                motion = float(np.hypot(*truth.flow).mean())
                rows.append({"scene": seed, "way": way, "method": name, "motion": motion, **errors(estimate, truth)})
    return rows


def render_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table: a row a method, for each band of motion the mean end-point errors."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = max(map(len, methods))
    lines, low = [], 0.0
    for title, high in MOTION_BANDS:
        band = [row for row in rows if low <= row["motion"] < high]
        low = high
        if not band:
            continue
        lines += [f"Mean motion {title}: {len(band) // len(methods)} flows, end-point error in px"]
        lines.append(" " * width + "".join(f"{column:>10}" for column in COLUMNS))
        for method in methods:
            mine = [[row[column] for column in COLUMNS] for row in band if row["method"] == method]
            lines.append(f"{method:{width}}" + "".join(f"{value:10.2f}" for value in np.nanmean(mine, 0)))
        lines.append("")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Measures, prints the table and the JSON line, and writes what the flags name."""
    estimators: dict[str, Estimator] = {}
    for name, loaded in load_networks(args).items():
        estimators[name] = network(loaded.model, loaded.scale)
        if args.ends and loaded.model.arbitrary_time:
            estimators[f"{name}, at 0 and 1"] = network_at_ends(loaded.model, loaded.scale)
    rows = measure({**estimators, "OpenCV DIS": dis, "no motion": no_motion}, args)
    report = {"set": "optical flow", "scenes": args.scenes, "seed": args.seed, "size": args.size, "rows": rows}
    print(render_table(rows))
    if args.json:
        write_json(args.json, report)
    print(json.dumps({key: value for key, value in report.items() if key != "rows"}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", type=Path, nargs="+", help="pictures, or folders of them, to cut the scenes out of")
    add_methods_flags(p)
    p.add_argument("--scenes", type=int, default=20, help="number of scenes (default: 20)")
    p.add_argument("--size", type=int, default=384, help="width and height of a scene in px (default: 384)")
    p.add_argument("--seed", type=int, default=0, help="of the first scene (default: 0)")
    p.add_argument("--ends", action="store_true", help="also measure the network's own flow at 0 and 1 (default: off)")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write a row a flow to this file (default: none)")
    args = p.parse_args(argv)
    keep_freed_memory()
    return run_command("flow.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
