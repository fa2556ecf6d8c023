"""Tests half precision: the one of each device, its error at the width of 4K, and the command's --fp16."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import written

from model import devices, load_model
from model.devices import half_precision


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_holds_at_the_width_of_4k(dtype: torch.dtype) -> None:
    """Half precision cannot name pixels beyond 2048: convolutions alone are in it, so the right end is no worse."""
    coarse = torch.rand(1, 3, 8, 485, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    img0, img1 = whole[..., :3840], whole[..., 5:3845]
    true, made = (load_model(dtype=kind).inference(img0, img1) for kind in (torch.float32, dtype))
    error = (made - true).square()
    assert (true - (img0 + img1) / 2).square().mean() > 1e-4
    for part in (error, error[..., -512:]):
        assert 1e-12 < part.mean() < 10 ** (-50 / 10)


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
