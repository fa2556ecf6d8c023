"""Defines the methods that benchmarks compare on pictures: networks at a flow scale, and the classical baselines."""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmark.baselines import BASELINES, PictureMethod
from model import RIFE, load_model, pick_device
from model.frames import FLOW_SCALES, PreparedFrame
from model.image import to_picture, to_tensor
from model.loading import TRAIN_LOG
from model.weights.checkpoint import ARCHIVES


class NetworkMethod:
    """Runs a network at a flow scale as in a video: the features of a frame serve both pairs that the frame is in."""

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


def classical(baseline: PictureMethod) -> PictureMethod:
    """Returns a baseline whose result is rounded to a picture, as a network's is."""

    def method(first: np.ndarray, last: np.ndarray, timestep: Fraction) -> np.ndarray:
        return to_picture(to_tensor(np.asarray(baseline(first, last, timestep), np.float32) / 255))

    return method


def add_methods_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --model and --scale, which may be given several times, and --device."""
    add = parser.add_argument
    add(
        "--model", type=Path, action="append", help="folder or file of weights, may be given again (default: train_log)"
    )
    add("--scale", type=float, choices=FLOW_SCALES, action="append", help="of the flow, may be repeated (default: 1)")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")


def load_networks(args: argparse.Namespace) -> dict[str, NetworkMethod]:
    """Returns every --model at every --scale, by a name that no other one has."""
    device = pick_device(args.device)
    models = [load_model(path, device=device) for path in dict.fromkeys(args.model or [TRAIN_LOG])]
    scales = list(dict.fromkeys(args.scale or [1.0]))
    networks = {}
    for model, name in zip(models, method_names(models), strict=True):
        print(model, file=sys.stderr)
        for scale in scales:
            networks[name if scales == [1.0] else f"{name}, scale {scale:g}"] = NetworkMethod(model, scale)
    return networks


def load_methods(args: argparse.Namespace) -> dict[str, PictureMethod]:
    """Returns every network of `load_networks`, then the baselines."""
    return {**load_networks(args), **{name: classical(baseline) for name, baseline in BASELINES.items()}}


def method_names(models: Sequence[RIFE]) -> list[str]:
    """Returns a name for each model: as much of its path as makes the name unique, and its network.

    The path is that of the folder where the file has the usual name, flownet; of the archive for a file inside an
    archive. A model that comes from no file has its network's name.
    """
    files = [archive_of(model.source) for model in models]
    paths = [file.parent if file.stem == "flownet" and file.parent.name else file for file in files]
    if len(set(paths)) < len(set(files)):  # two files of one folder
        paths = files
    parts = [1 if path != file else 2 for path, file in zip(paths, files, strict=True)]
    while len({path.parts[-n:] for path, n in zip(paths, parts, strict=True)}) < len(set(paths)):
        parts = [n + 1 for n in parts]
    names = ["/".join(path.parts[-n:]) for path, n in zip(paths, parts, strict=True)]
    return [
        model.name if model.source == "memory" else f"{name} ({model.name})"
        for name, model in zip(names, models, strict=True)
    ]


def archive_of(source: str) -> Path:
    """Returns the path of the file that weights were read from: of the archive, where they are a member of one."""
    for suffix in ARCHIVES:
        archive, found, _ = source.partition(f"{suffix}:")
        if found:
            return Path(archive + suffix)
    return Path(source)
