"""Defines networks and pictures for the tests of benchmark/, with scores computed by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import Shift
from scipy.ndimage import correlate1d
from torch import Tensor

from benchmark import MiddleBury_Other as Middlebury
from model.contract import Prediction
from video.pictures.picture import write_picture

Report = dict[str, Any]
Evaluate = Callable[..., Report]


class Recording(Shift):
    """Averages both frames as `Shift` does at no motion, and keeps its inputs."""

    def __init__(self, motion: float = 0) -> None:
        super().__init__(motion)
        self.inputs: list[tuple[Tensor, Tensor]] = []
        self.scales: list[float] = []

    def forward(
        self, img0: Tensor, img1: Tensor, timestep: float | Tensor, *features: Tensor, scale: float = 1.0
    ) -> Prediction:
        self.inputs.append((img0, img1))
        self.scales.append(scale)
        return super().forward(img0, img1, timestep, *features, scale=scale)


class Noisy(Recording):
    """Returns img0 with the same noise in every call: `level` is its standard deviation in 8-bit levels."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, img0: Tensor, *inputs: Any, **options: Any) -> Prediction:
        noise = torch.randn(img0.shape, generator=torch.Generator().manual_seed(1)) * self.level / 255
        return super().forward(img0, *inputs, **options)._replace(image=img0 + noise)


def value(report: Report, metric: str, group: str = "", method: str = "fake") -> float:
    (row,) = [r for r in report["rows"] if (r["group"], r["metric"], r["method"]) == (group, metric, method)]
    return row["value"]


def pictures(seed: int, count: int = 3, size: tuple[int, int] = (32, 48)) -> list[np.ndarray]:
    """Returns random pictures of even values, so that the average of two is whole."""
    values = np.random.default_rng(seed).integers(0, 128, (count, *size, 3), np.uint8)
    return list(values * 2)


def write(files: dict[Path, np.ndarray]) -> None:
    for path, picture in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, picture)


def blend(first: np.ndarray, last: np.ndarray, t: float = 0.5) -> np.ndarray:
    return np.round(first * (1 - t) + last.astype(float) * t)


def ssim_volume(first: np.ndarray, second: np.ndarray) -> float:
    """Returns upstream's ssim_matlab of two images (H,W,C) in 0..1, by SciPy: Gaussian on all axes, border repeated."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def blur(volume: np.ndarray) -> np.ndarray:
        for axis in range(3):
            volume = correlate1d(volume, taps, axis, mode="nearest")
        return volume

    x, y = first.astype(float), second.astype(float)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return float(((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean())


def psnr(made: np.ndarray, truth: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((made - truth.astype(float)) ** 2))


def middlebury(root: Path, size: tuple[int, int], grey: int | None = None) -> dict[str, list[np.ndarray]]:
    scenes = {scene: pictures(i, size=size) for i, scene in enumerate(Middlebury.SCENES)}
    for scene, frames in scenes.items():
        if grey is not None:
            frames[:] = [np.full_like(frame, grey) for frame in frames]
        first, middle, last = frames
        write({root / "other-data" / scene / "frame10.png": first, root / "other-data" / scene / "frame11.png": last})
        write({root / "other-gt-interp" / scene / "frame10i11.png": middle})
    return scenes
