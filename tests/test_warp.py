"""Tests warping against closed forms."""

import pytest
import torch

from model.networks.warp import resize, resize_flow, sample_cubic, warp


def constant(x: float, y: float, height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(batch, 2, height, width)


def numbered(height: int, width: int) -> torch.Tensor:
    return torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)


def test_no_flow_is_the_identity() -> None:
    image = numbered(7, 9)
    torch.testing.assert_close(warp(image, constant(0, 0, 7, 9)), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("x", "y"), [(2, 0), (-3, 0), (0, 1), (0, -2), (3, 2)])
def test_integer_flow_reads_that_many_pixels_away(x: int, y: int) -> None:
    h, w = 8, 11
    image = numbered(h, w)
    rows = (torch.arange(h) + y).clamp(0, h - 1)  # beyond the border the border is repeated
    columns = (torch.arange(w) + x).clamp(0, w - 1)
    expected = image[:, :, rows][..., columns]
    torch.testing.assert_close(warp(image, constant(x, y, h, w)), expected, rtol=0, atol=1e-4)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = numbered(4, 6)
    expected = (image[..., :-1] + image[..., 1:]) / 2
    torch.testing.assert_close(warp(image, constant(0.5, 0, 4, 6))[..., :-1], expected, rtol=0, atol=1e-4)


def test_far_beyond_the_border_is_the_edge() -> None:
    image = numbered(5, 6)
    out = warp(image, constant(1000, -1000, 5, 6))
    torch.testing.assert_close(out, image[:, :, :1, -1:].expand_as(out), rtol=0, atol=1e-4)


def test_each_sample_has_its_own_flow() -> None:
    image = numbered(4, 8).expand(2, 1, 4, 8)
    flow = torch.cat((constant(1, 0, 4, 8), constant(-1, 0, 4, 8)))
    out = warp(image, flow)
    assert out[0, 0, 0, 3] == pytest.approx(4, abs=1e-4)
    assert out[1, 0, 0, 3] == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_addresses_every_pixel_of_a_wide_frame(dtype: torch.dtype) -> None:
    width = 4096  # half precision cannot name odd columns above 2048
    image = (torch.arange(width) % 2).to(dtype).view(1, 1, 1, width).repeat(1, 1, 2, 1)
    out = warp(image, constant(1, 0, 2, width).to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out[..., :-1], image[..., 1:], rtol=0, atol=2e-3)


def test_a_resized_flow_is_measured_in_its_own_pixels() -> None:
    flow = constant(8, -4, 16, 16)
    small = resize_flow(flow, 0.25)
    assert small.shape == (1, 2, 4, 4)
    torch.testing.assert_close(small, constant(2, -1, 4, 4))
    assert resize(flow, 1) is flow


def test_one_pixel_images_do_not_divide_by_zero() -> None:
    assert warp(torch.full((1, 1, 1, 1), 3.0), constant(5, 5, 1, 1)).item() == 3


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_factor_samples_only_what_the_resize_needs(factor: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 48, generator=generator)
    flow = 5 * torch.randn(2, 2, 32, 48, generator=generator)
    made = warp(image, flow, factor=factor)
    torch.testing.assert_close(made, resize(warp(image, flow), 1 / factor), rtol=0, atol=2e-5)
    steep = numbered(32, 48)  # a pixel to the left or right is one more or less
    moved = warp(steep, constant(0.25, 0, 32, 48), factor=factor)
    middles = (torch.arange(48 // factor) + 0.5) * factor - 0.5 + 0.25
    first = middles + 48 * (factor / 2 - 0.5)
    torch.testing.assert_close(moved[0, 0, 0, :-1], first[:-1], rtol=0, atol=1e-3)  # the last may reach the border


@pytest.mark.parametrize("reach", [2.0, 90.0])
def test_cubics_by_gathering_equal_those_of_grid_sample(reach: float) -> None:
    """MPS gets this sampling in place of a mode that it does not have; places far beyond the border are tested too."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 20, 31, generator=generator)
    flow = reach * torch.randn(2, 2, 20, 31, generator=generator)
    x, y = torch.arange(31) + flow[:, 0], torch.arange(20)[:, None] + flow[:, 1]
    torch.testing.assert_close(sample_cubic(image, x, y), warp(image, flow, "bicubic"), rtol=0, atol=1e-4)
    nowhere = torch.full_like(x, float("nan"))
    assert sample_cubic(image, nowhere, nowhere).shape == image.shape  # no pixel outside is read
