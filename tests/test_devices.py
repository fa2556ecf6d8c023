"""Tests half precision: the one of each device, its error at the width of 4K, and the command's --fp16."""

from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from clips import picture
from conftest import Shift, written

from model import RIFE, UserError, devices, load_model
from model.devices import half_precision
from video.frame import Frame
from video.interpolate import Handling, Report, interpolate
from video.timing.output_times import multiply
from video.transitions.confidence import Fallback


@pytest.mark.parametrize(
    ("device", "units", "expected"),
    [
        ("cuda", "", torch.float16),
        ("mps", "", torch.float16),
        ("cpu", "", torch.float32),
        ("cpu", "avx512_bf16", torch.bfloat16),
        ("cpu", "amx_bf16", torch.bfloat16),
    ],
)
def test_half_precision_of_each_device(
    monkeypatch: pytest.MonkeyPatch, device: str, units: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: ("fma", units))
    assert half_precision(torch.device(device)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_holds_at_the_width_of_4k(dtype: torch.dtype) -> None:
    """Half precision cannot name pixels beyond 2048: convolutions alone are in it, so the right end is no worse."""
    coarse = torch.rand(1, 3, 8, 485, generator=torch.Generator().manual_seed(0))
    whole = functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    img0, img1 = whole[..., :3840], whole[..., 5:3845]
    true, made = (load_model(dtype=kind).inference(img0, img1) for kind in (torch.float32, dtype))
    error = (made - true).square()
    assert (true - (img0 + img1) / 2).square().mean() > 1e-4
    for part in (error, error[..., -512:]):
        assert 1e-12 < part.mean() < 10 ** (-50 / 10)


class Overflowing(Shift):
    """A network that moves by two pixels, and that overflows in half precision in the second half of the time."""

    def forward(self, img0: torch.Tensor, img1: torch.Tensor, timestep: Any, *features: Any, **options: Any) -> Any:
        made = super().forward(img0, img1, timestep, *features, **options)
        overflows = self.weight.dtype != torch.float32 and float(torch.as_tensor(timestep).mean()) > 0.5
        return made._replace(image=made.image * float("inf")) if overflows else made


@pytest.mark.parametrize("measured", [False, True])
def test_a_frame_that_half_precision_cannot_compute_is_made_again(measured: bool) -> None:
    shown = []
    for dtype in (torch.float32, torch.bfloat16):
        report = Report()
        model = RIFE(Overflowing(2).to(dtype), name="overflows")
        clip = [Frame(picture(n), F(n, 24)) for n in range(3)]
        handling = Handling(fallback=Fallback() if measured else None)
        frames = interpolate(clip, model, multiply(4), handling=handling, report=report)
        shown.append([frame.rgb() for frame in frames])
        assert report.again == (2 if dtype == torch.bfloat16 else 0)
        assert len(report.measures) == (6 if measured else 0)
    assert len(shown[0]) == 9
    for single, half in zip(*shown, strict=True):
        assert np.array_equal(single, half)


def test_weights_that_overflow_in_single_precision_too_are_an_error() -> None:
    class Broken(Shift):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            made = super().forward(*inputs, **options)
            return made._replace(image=made.image * float("nan"))

    clip = [Frame(picture(n), F(n, 24)) for n in range(2)]
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(UserError, match="values that are no numbers"):
            list(interpolate(clip, RIFE(Broken().to(dtype), name="broken"), multiply(2)))


@pytest.mark.parametrize("units", ["", "avx512_bf16"])
def test_the_command(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
    pair: tuple[np.ndarray, np.ndarray],
    units: str,
) -> None:
    """--fp16 changes the frame, by less than half a level on average, only on a CPU that multiplies bfloat16."""
    monkeypatch.setattr(devices, "cpu_flags", lambda: ("fma", units))
    made = []
    for options in ([], ["--fp16"]):
        status, _, err = run("--exp=1", *options)
        assert status == 0, err
        made.append(written()[1].astype(int))
    assert np.array_equal(made[0], made[1]) == (not units)
    assert np.abs(made[0] - made[1]).mean() < 0.5
