"""Tests scores against scikit-image, SciPy and closed forms."""

import numpy as np
import pytest
import torch
from scored import ssim_volume
from skimage.color import rgb2yuv
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from model.metrics import interpolation_error, psnr, psnr_y, ssim, ssim_map, ssim_uniform, surroundings


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean = torch.rand(2, 3, 8, 8, generator=generator)
    clean = torch.nn.functional.interpolate(clean, size=(40, 48), mode="bilinear")
    noise = torch.randn(clean.shape, generator=generator) * torch.tensor([0.02, 0.1]).view(2, 1, 1, 1)
    return clean, (clean + noise).clamp(0, 1)


def picture(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def test_psnr_agrees_with_scikit_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    values = psnr(pair[1], pair[0])
    for i in range(2):
        expected = peak_signal_noise_ratio(picture(pair[0][i]), picture(pair[1][i]), data_range=1)
        assert values[i].item() == pytest.approx(expected, abs=1e-5)


def test_psnr_in_closed_form() -> None:
    black = torch.zeros(1, 3, 4, 4)
    assert psnr(black + 0.1, black).item() == pytest.approx(20, abs=1e-5)
    assert psnr(black, black).item() == float("inf")


def test_interpolation_error_is_in_8_bit_levels() -> None:
    black = torch.zeros(2, 3, 4, 4)
    shifted = black.clone()
    shifted[1, :, :2] = 4 / 255
    assert interpolation_error(shifted, black).tolist() == pytest.approx([0, 2])


def test_plain_ssim_agrees_with_scikit_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    similarity = ssim_map(pair[0], pair[1], volume=False)
    for i in range(2):
        _, expected = structural_similarity(
            picture(pair[0][i]),
            picture(pair[1][i]),
            data_range=1,
            channel_axis=2,
            gaussian_weights=True,  # sigma 1.5, 11 taps
            use_sample_covariance=False,
            full=True,
        )
        inner = picture(similarity[i])[5:-5, 5:-5]  # the border is mirrored there, repeated here
        np.testing.assert_allclose(inner, expected[5:-5, 5:-5], atol=2e-4)


def test_ssim_as_a_volume_agrees_with_scipy(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    values = ssim(*pair)
    for i in range(2):
        expected = ssim_volume(picture(pair[0][i]), picture(pair[1][i]))
        assert values[i].item() == pytest.approx(expected, abs=1e-4)


def test_an_image_may_be_given_by_its_surroundings(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = (surroundings(image, volume=False) for image in pair)
    assert torch.equal(ssim_map(first, second), ssim_map(*pair, volume=False))
    assert torch.equal(ssim_map(first, pair[1], volume=False), ssim_map(*pair, volume=False))


def test_ssim_of_flat_images_in_closed_form() -> None:
    # Variances of 0 come out as float32 noise, which is not small beside the constants; hence 0.5 %.
    dark, light = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    assert ssim(dark, dark).item() == pytest.approx(1, abs=1e-5)
    assert ssim(dark, light).item() == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4), rel=5e-3)
    assert ssim(dark * 255 + 100, light * 255 + 100).item() == pytest.approx(
        (2 * 151 * 253 + 6.5025) / (151**2 + 253**2 + 6.5025), rel=5e-3
    )


def test_psnr_of_luma_agrees_with_scikit_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    values = psnr_y(pair[1], pair[0])
    for i in range(2):
        luma = [rgb2yuv(picture(image[i]))[..., 0] for image in pair]
        expected = peak_signal_noise_ratio(*luma, data_range=1)
        assert values[i].item() == pytest.approx(expected, abs=1e-5)


def test_ssim_over_squares_agrees_with_scikit_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    values = ssim_uniform(pair[1], pair[0])
    for i in range(2):
        expected = structural_similarity(picture(pair[0][i]), picture(pair[1][i]), data_range=1, channel_axis=2)
        assert values[i].item() == pytest.approx(expected, abs=1e-5)
