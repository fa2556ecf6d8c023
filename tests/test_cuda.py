"""Tests that a CUDA device gives the pictures of the CPU, by every engine. Skipped without such a device."""

from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.compare import pair
from model import load_model
from model.image import from_layers, to_layers
from model.inference.tile_engine import tiled
from model.metrics import psnr
from video.frame import Frame
from video.interpolate import Handling, interpolate
from video.timing.output_times import multiply
from video.transitions.scene import TransitionDetector

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
STEPS = [Fraction(k, 4) for k in (1, 2, 3)]


def decibels(made: Tensor, expected: Tensor) -> float:
    """Returns the PSNR of pictures in 0..1, on any devices."""
    return psnr(made.cpu(), expected.cpu()).item()


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 60), (torch.float16, 50), (torch.bfloat16, 40)])
def test_the_pictures_equal_those_of_the_cpu(dtype: torch.dtype, least: float) -> None:
    images = pair((448, 256), "cpu")
    expected = load_model().between(*images, STEPS)
    for made, truth in zip(load_model(device="cuda", dtype=dtype).between(*images, STEPS), expected, strict=True):
        assert made.device.type == "cuda"
        assert decibels(made, truth) > least


def test_half_precision_holds_at_4k() -> None:
    images = pair((3840, 2160), "cuda")
    full, half = (load_model(device="cuda", dtype=d).inference(*images) for d in (torch.float32, torch.float16))
    assert decibels(half, full) > 50


@pytest.mark.parametrize("engine", [None, "graphs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tiles_equal_the_whole_frame(dtype: torch.dtype, engine: str | None) -> None:
    model = load_model(device="cuda", dtype=dtype, engine=engine)
    images = pair((1280, 720), "cuda")
    for scale in (0.5, 1.0):
        whole = model.inference(*images, scale=scale)
        assert decibels(tiled(model, 512).inference(*images, scale=scale), whole) > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graphs_and_batches_change_nothing(dtype: torch.dtype) -> None:
    models = {engine: load_model(device="cuda", dtype=dtype, engine=engine) for engine in (None, "graphs")}
    for size in ((448, 256), (320, 192), (448, 256)):
        images = pair(size, "cuda")
        made: dict[object, Sequence[Tensor]] = {}
        for engine, model in models.items():
            for pixels in (0, 2**20):
                model.batch_pixels = pixels
                made[engine, pixels] = list(model.between(*images, STEPS))
        first = made[None, 0]
        assert decibels(first[0], first[-1]) < 60  # or their order would not show
        for several in made.values():
            assert all(decibels(a, b) > 60 for a, b in zip(several, first, strict=True))


@pytest.mark.parametrize("engine", [None, "graphs", "compile", *["tensorrt"] * bool(find_spec("torch_tensorrt"))])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_loop_returns_the_interpolated_pictures(engine: str | None, dtype: type[np.integer]) -> None:
    """Pictures that cross the bus while others are made: none is read too early, none is another's memory."""
    model = tiled(load_model(device="cuda", engine=engine))
    noise = torch.rand(1, 3, 9, 16, generator=torch.Generator().manual_seed(1))
    big = torch.nn.functional.interpolate(noise, (256, 480), mode="bilinear")[0].permute(1, 2, 0).numpy()
    clip = [(big[:, 2 * i : 448 + 2 * i] * np.iinfo(dtype).max).astype(dtype) for i in range(12)]
    frames = (Frame(picture, Fraction(i, 24)) for i, picture in enumerate(clip))
    out = list(
        interpolate(frames, model, multiply(4), handling=Handling(TransitionDetector(cuts="off", repeats="off")))
    )
    assert len(out) == 45
    for i, (first, second) in enumerate(pairwise(clip)):
        made = model.between(to_layers(first, "cuda"), to_layers(second, "cuda"), STEPS)
        for got, image in zip(out[4 * i + 1 : 4 * i + 4], made, strict=True):
            expected = from_layers(image, 3, dtype)
            assert np.abs(got.rgb().astype(int) - expected.astype(int)).max() <= np.iinfo(dtype).max // 255
