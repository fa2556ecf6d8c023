"""Tests the compiled kernels against float64 and plain PyTorch; and machines that cannot build them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.inference import kernels
from model.inference.packed import Tail, of_sub_pixels
from model.networks.warp import warp

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="no compiler here, or a CPU the kernels are not for")


def noise(*shape: int, seed: int = 0) -> Tensor:
    image = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return image.contiguous(memory_format=torch.channels_last) if image.dim() == 4 else image


@needs_kernels
@pytest.mark.parametrize("size", [(1, 90, 90, 13, 19), (2, 37, 50, 5, 4), (1, 240, 240, 8, 9), (3, 16, 16, 1, 1)])
@pytest.mark.parametrize("residual", ["none", "before", "after"])
def test_winograd_equals_the_convolution(size: tuple[int, ...], residual: str) -> None:
    batch, inputs, outputs, height, width = size
    x, weight = noise(batch, inputs, height, width), noise(outputs, inputs, 3, 3, seed=1) / (9 * inputs) ** 0.5
    bias, slope = noise(outputs, seed=2), noise(outputs, seed=3)
    other = noise(batch, outputs, height, width, seed=4)

    exact = F.conv2d(x.double(), weight.double(), bias.double(), 1, 1)
    exact = exact + other if residual == "before" else exact
    exact = F.prelu(exact, slope.double())
    exact = exact + other if residual == "after" else exact

    unit = kernels.Winograd(weight, bias, slope)
    made = unit(x, None if residual == "none" else other, after=residual == "after")
    torch.testing.assert_close(made.double(), exact, rtol=0, atol=2e-5)
    wider = kernels.empty(torch.empty(batch), outputs + 5, height, width).fill_(7)
    unit(x, None if residual == "none" else other, after=residual == "after", out=wider[:, :outputs])
    assert torch.equal(wider[:, :outputs], made)
    assert (wider[:, outputs:] == 7).all()


@needs_kernels
@pytest.mark.parametrize("size", [(1, 240, 240, 8, 9), (1, 37, 50, 8, 9), (1, 32, 64, 40, 60)])
def test_threads_share_tiles_or_outputs_and_change_nothing(size: tuple[int, ...]) -> None:
    batch, inputs, outputs, height, width = size
    x, weight = noise(batch, inputs, height, width), noise(outputs, inputs, 3, 3, seed=1)
    unit = kernels.Winograd(weight, noise(outputs, seed=2), noise(outputs, seed=3))
    made, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            made.append(unit(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, made[0]) for one in made)


@needs_kernels
@pytest.mark.parametrize("size", [(1, 32, 16, 13, 19), (2, 40, 32, 5, 4), (1, 512, 128, 3, 1)])
def test_winograd_of_sub_pixels_equals_the_transposed_convolution(size: tuple[int, ...]) -> None:
    batch, inputs, outputs, height, width = size
    x, weight = noise(batch, inputs, height, width), noise(inputs, outputs, 4, 4, seed=1) / (4 * inputs) ** 0.5
    bias, slope = noise(outputs, seed=2), noise(outputs, seed=3)
    exact = F.prelu(F.conv_transpose2d(x.double(), weight.double(), bias.double(), 2, 1), slope.double())
    unit = kernels.Winograd(of_sub_pixels(weight).flatten(0, 2), bias.repeat(4), slope.repeat(4), step=2)
    made = unit(x)
    torch.testing.assert_close(made.double(), exact, rtol=0, atol=3e-5)
    wider = kernels.empty(torch.empty(batch), outputs + 5, 2 * height, 2 * width).fill_(7)
    unit(x, out=wider[:, 3 : 3 + outputs])
    assert torch.equal(wider[:, 3 : 3 + outputs], made)
    assert (wider[:, :3] == 7).all()
    assert (wider[:, 3 + outputs :] == 7).all()


@needs_kernels
@pytest.mark.parametrize(("shuffle", "outputs", "used"), [(False, 5, 5), (True, 13, 13), (True, 13, 5)])
@pytest.mark.parametrize("inputs", [16, 40])  # by torch, at least with AVX-512, and by Winograd
def test_a_tail_needs_a_pixel_shuffle(shuffle: bool, outputs: int, used: int, inputs: int) -> None:
    inner = 2 if shuffle else 1
    x, weight = noise(2, inputs, 6, 7), noise(inputs, outputs * inner**2, 4, 4, seed=1) / (4 * inputs) ** 0.5
    bias = noise(outputs * inner**2, seed=2)
    exact = F.pixel_shuffle(F.conv_transpose2d(x.double(), weight.double(), bias.double(), 2, 1), inner)[:, :used]
    tail = Tail(weight, bias, used, shuffle=shuffle)
    made = tail(x)
    size = made.shape[2:]
    pixels = made.permute(0, 2, 3, 1).reshape(2, *size, tail.packed, tail.packed, used)
    whole = pixels.permute(0, 5, 1, 3, 2, 4).reshape(2, used, *(tail.packed * n for n in size))
    torch.testing.assert_close(whole.double(), exact, rtol=0, atol=3e-5)


@needs_kernels
def test_warp_equals_that_of_torch() -> None:
    image = noise(2, 32, 21, 30)
    flow = 8 * noise(2, 2, 21, 30, seed=1)  # far over the border too
    wider = kernels.empty(torch.empty(2), 40, 21, 30).fill_(7)
    kernels.warp(image, flow, wider[:, 4:36])
    torch.testing.assert_close(wider[:, 4:36], warp(image, flow), rtol=0, atol=1e-4)
    assert (wider[:, :4] == 7).all()
    assert (wider[:, 36:] == 7).all()


@needs_kernels
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_are_rounded_as_numpy_rounds(channels: int) -> None:
    values = torch.cat(((torch.arange(512) / 2) / 255, torch.tensor([-1.0, -0.0, 1.001, 9e9, float("inf")])))
    image = values[torch.arange(channels * 22 * 37).reshape(channels, 22, 37) * 29 % len(values)]
    exact = np.rint(image.clamp(0, 1).numpy() * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(kernels.to_bytes(image).numpy(), exact)
    np.testing.assert_array_equal(kernels.to_bytes(image[:, :21, :33]).numpy(), exact[:21, :33])
    np.testing.assert_array_equal(kernels.to_bytes(image.permute(1, 2, 0).contiguous().permute(2, 0, 1)).numpy(), exact)
    assert kernels.to_bytes(torch.full((channels, 1, 1), float("nan"))).sum() == 0


@needs_kernels
def test_a_flow_without_a_value_reads_a_corner_of_the_image() -> None:
    """NaN the first pixel, infinity the last one, minus infinity the first: never memory beyond the image."""
    image, flow = noise(1, 16, 9, 8), torch.full((1, 2, 9, 8), float("nan"))
    flow[:, :, 3:6] = float("inf")
    flow[:, :, 6:] = -float("inf")
    out = kernels.empty(image, 16, 9, 8)
    kernels.warp(image, flow, out)
    corners = image[..., :1, :1], image[..., -1:, -1:], image[..., :1, :1]
    for rows, corner in zip(out.split(3, 2), corners, strict=True):
        assert torch.equal(rows, corner.expand_as(rows))


@needs_kernels
@pytest.mark.parametrize("channels", [3, 8])
def test_training_has_the_gradients_of_float64(channels: int) -> None:
    image = noise(2, channels, 21, 30).contiguous().requires_grad_()
    flow = (8 * noise(2, 2, 21, 30, seed=1)).contiguous().requires_grad_()  # far over the border too
    weight = noise(2, channels, 21, 30, seed=2)
    ys, xs = torch.meshgrid(torch.arange(21.0).double(), torch.arange(30.0).double(), indexing="ij")
    exact_image, exact_flow = image.detach().double().requires_grad_(), flow.detach().double().requires_grad_()
    grid = torch.stack(((xs + exact_flow[:, 0]) * 2 / 29 - 1, (ys + exact_flow[:, 1]) * 2 / 20 - 1), 3)
    exact = F.grid_sample(exact_image, grid, "bilinear", "border", align_corners=True)
    expected = torch.autograd.grad((exact * weight).sum(), (exact_image, exact_flow))

    out = kernels.warp_planes(image, flow)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)
    for made, gradient in zip(torch.autograd.grad((out * weight).sum(), (image, flow)), expected, strict=True):
        torch.testing.assert_close(made.double(), gradient, rtol=0, atol=1e-4)
    (alone,) = torch.autograd.grad((kernels.warp_planes(image.detach(), flow) * weight).sum(), flow)
    torch.testing.assert_close(alone.double(), expected[1], rtol=0, atol=1e-4)


@needs_kernels
def test_no_gradient_where_the_border_is_repeated() -> None:
    image = noise(1, 3, 6, 7).contiguous()
    for x, y in ((-9.0, 0.5), (9.0, 0.5), (0.5, -9.0), (0.5, 9.0), (float("nan"), 0.5)):
        flow = torch.tensor([x, y]).view(1, 2, 1, 1).repeat(1, 1, 6, 7).requires_grad_()
        (moved,) = torch.autograd.grad(kernels.warp_planes(image, flow).sum(), flow)
        assert (moved[:, 0 if abs(x) != 0.5 else 1] == 0).all()
        assert moved.isfinite().all()


@needs_kernels
def test_activate_has_a_slope_for_each_channel() -> None:
    x, slope = noise(2, 10, 3, 4), noise(10, seed=1)
    expected = F.prelu(x, slope)
    out = kernels.activate(x, slope)
    assert out is x
    assert torch.equal(out, expected)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Makes the library be searched anew in the test, and after it."""
    kernels._library.cache_clear()
    yield
    kernels._library.cache_clear()


@needs_kernels
def test_without_a_compiler_there_is_one_warning(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.warns(UserWarning, match=r"the CPU kernels were not built, .* \(install g\+\+ to build them\): "):
        assert not kernels.available()
    assert not kernels.available()
    assert not list(tmp_path.iterdir())


@needs_kernels
def test_on_another_cpu_nothing_is_built(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(kernels, "_load", lambda: pytest.fail("built"))
    assert not kernels.available()


@needs_kernels
@pytest.mark.slow
def test_kernels_work_without_a_writable_cache(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    assert kernels.available()
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.slow
@needs_kernels
def test_two_processes_may_build_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    root = Path(kernels.__file__).parents[2]
    program = "from model.inference import kernels; print(kernels.available())"
    both = [subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"True\n"] * 2
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".so"
