"""Tests losses against closed forms."""

import pytest
import torch

from model.training.loss import EPE, SOBEL, LapLoss, Ternary, gauss_kernel, psnr_loss


def test_lap_loss_ignores_a_constant_and_grows_linearly() -> None:
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    loss = LapLoss()
    assert loss(image, image).item() == 0
    assert loss(image + 0.25, image).item() == pytest.approx(0, abs=1e-5)
    assert loss(image + 2 * noise, image).item() == pytest.approx(2 * loss(image + noise, image).item(), rel=1e-4)


def test_lap_loss_of_a_checkerboard_is_its_amplitude_in_the_first_band() -> None:
    # The binomial kernel removes the highest frequency entirely, so all of it stays in the finest band.
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checks = (((x + y) % 2) * 2 - 1).float().expand(1, 3, 64, 64) * 0.1
    assert LapLoss()(checks, torch.zeros_like(checks)).item() == pytest.approx(0.1, rel=1e-4)
    assert gauss_kernel(3).sum((1, 2, 3)).tolist() == pytest.approx([1, 1, 1])


def test_lap_loss_has_a_gradient() -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    LapLoss()(image, torch.zeros(1, 3, 64, 64)).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_psnr_loss_is_minus_the_mean_psnr_of_the_samples_and_levels_off() -> None:
    gt = torch.full((3, 3, 4, 4), 0.5)
    error = torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)  # 20 dB, 40 dB, and equal, which counts as the limit
    assert psnr_loss(gt + error, gt).item() == pytest.approx(-(20 + 39.586 + 50) / 3, abs=2e-3)


def test_psnr_loss_of_equal_images_has_no_gradient() -> None:
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    psnr_loss(image, image.detach()).backward()
    assert image.grad is not None
    assert image.grad.abs().max() == 0


def test_epe_is_the_distance_of_two_flows_where_the_mask_is() -> None:
    flow = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert EPE()(flow, torch.zeros_like(flow), mask).ravel().tolist() == pytest.approx([5, 0])


def test_census_ignores_brightness_and_measures_structure() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))  # patches that reach over the border see zeros
    assert Ternary()(image + 0.2, image)[inside].abs().max().item() == pytest.approx(0, abs=1e-6)
    assert Ternary()(image.flip(3), image)[inside].mean().item() > 0.01


def test_sobel_of_a_ramp_is_eight_times_its_slope() -> None:
    ramp = (torch.arange(8.0) * 0.1).expand(1, 3, 6, 8)
    out = SOBEL()(ramp, torch.zeros_like(ramp))
    assert out.shape == (3, 1, 6, 8)
    torch.testing.assert_close(out[:, :, 1:-1, 1:-1], torch.full((3, 1, 4, 6), 0.8))
