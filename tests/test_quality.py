"""--quality: half precision by device for fast, turned frames for best, and both commands say why."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import written

from model import load_model
from model.inference import quality
from model.inference.quality import convolution_dtype


@pytest.fixture(params=["", "avx512_bf16", "amx_bf16"])
def bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this CPU is said to have units for bfloat16; without them it computes the same, slowly."""
    monkeypatch.setattr(quality, "cpu_flags", lambda: ["fma", request.param])
    return bool(request.param)


@pytest.mark.parametrize(
    ("device", "quality", "fp16", "wanted"),
    [
        ("cuda", "fast", False, torch.float16),
        ("mps", "fast", False, torch.float32),
        ("cuda", "balanced", False, torch.float32),
        ("cpu", "best", False, torch.float32),
        ("cpu", "best", True, torch.float16),
        ("cpu", "fast", True, torch.float16),
    ],
)
def test_what_convolutions_compute_in(device: str, quality: str, fp16: bool, wanted: torch.dtype) -> None:
    assert convolution_dtype(torch.device(device), quality, fp16) == wanted


def test_fast_is_bfloat16_where_the_cpu_has_units_for_it(bfloat16: bool) -> None:
    assert convolution_dtype(torch.device("cpu"), "fast") == (torch.bfloat16 if bfloat16 else torch.float32)
    assert convolution_dtype(torch.device("cpu"), "balanced") == torch.float32


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


def test_the_command(
    bfloat16: bool, run: Callable[..., tuple[int, str, str]], pair: tuple[np.ndarray, np.ndarray]
) -> None:
    made = {}
    for options in ([], ["--quality=balanced"], ["--quality=fast"], ["--quality=best"], ["--tta"]):
        status, out, err = run("--exp=1", *options)
        assert status == 0, err
        made["".join(options)] = written()[1]
        assert ("Quality fast: half precision on CUDA" in out) == (options == ["--quality=fast"])
        assert ("Quality best: averaged with the turned frames" in out) == (options == ["--quality=best"])
    assert np.array_equal(made[""], made["--quality=balanced"])
    assert np.array_equal(made["--tta"], made["--quality=best"])
    assert not np.array_equal(made[""], made["--quality=best"])
    assert np.array_equal(made[""], made["--quality=fast"]) == (not bfloat16)
    assert np.abs(made[""].astype(int) - made["--quality=fast"]).mean() < 0.5
