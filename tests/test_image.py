"""Tests the conversion of pictures to tensors and back: every value, rounding, padding, alpha, float pictures."""

from typing import Any

import numpy as np
import pytest
import torch

from model.errors import UserError
from model.image import BACKDROP, Padder, from_layers, to_layers, to_picture, to_tensor


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_comes_back(dtype: type[Any]) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    picture = values.reshape(-1, 256, 1).repeat(3, 2)
    image = to_tensor(picture)
    assert image.shape == (1, 3, len(values) // 256, 256)
    assert (image.min().item(), image.max().item()) == (0, 1)
    np.testing.assert_array_equal(to_picture(image, dtype), picture)


def test_floats_keep_their_values() -> None:
    picture = np.array([[[-1.5, 0.25, 300.0]]], np.float32)
    np.testing.assert_array_equal(to_picture(to_tensor(picture), np.float32), picture)


def test_rounded_to_nearest_and_clamped() -> None:
    image = torch.tensor([100.4, 100.6, -3.0, 300.0]).view(1, 1, 1, 4) / 255
    assert to_picture(image).ravel().tolist() == [100, 101, 0, 255]
    deep = torch.tensor([1000.4, 1000.6, -1.0, 70000.0]).view(1, 1, 1, 4) / 65535
    assert to_picture(deep, np.uint16).ravel().tolist() == [1000, 1001, 0, 65535]


def test_channels_keep_their_order() -> None:
    picture = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)  # one row, two pixels
    assert (to_tensor(picture)[0, :, 0, 1] * 255).round().tolist() == [40, 50, 60]


@pytest.mark.parametrize(
    ("centred", "padding", "corner"), [(False, (0, 3, 0, 6), (0, 0)), (True, (1, 2, 3, 3), (3, 1))]
)
def test_padding_is_undone(centred: bool, padding: tuple[int, ...], corner: tuple[int, int]) -> None:
    image = torch.rand(2, 3, 10, 13) + 1
    padder = Padder(10, 13, 16, centred=centred)
    padded = padder.pad(image)
    assert padder.padding == padding
    assert padded.shape == (2, 3, 16, 16)
    assert padded[0, 0, corner[0], corner[1]] == image[0, 0, 0, 0]
    assert padded.sum() == pytest.approx(image.sum().item(), rel=1e-5)  # the rest is zeros
    assert torch.equal(padder.unpad(padded), image)


@pytest.mark.parametrize("mode", ["constant", "replicate"])
@pytest.mark.parametrize(
    ("size", "centred"), [((10, 13), False), ((10, 13), True), ((10, 16), False), ((16, 13), False)]
)
def test_pixels_in_memory_order_are_padded_as_they_lie(size: tuple[int, int], centred: bool, mode: str) -> None:
    image = torch.rand(2, 3, *size)
    padder = Padder(*size, 16, mode, centred=centred)
    made = padder.pad(image.contiguous(memory_format=torch.channels_last))
    assert torch.equal(made, padder.pad(image))
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_replicate_repeats_the_border_and_multiples_stay() -> None:
    image = torch.rand(1, 3, 5, 5)
    padded = Padder(5, 5, 8, "replicate").pad(image)
    assert torch.equal(padded[..., 7, 7], image[..., 4, 4])
    assert Padder(5, 5, 5).pad(image) is image


def test_grey_is_shown_as_colour_and_comes_back_grey() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20
    layers = to_layers(picture)
    assert layers.shape == (1, 3, 3, 4)
    np.testing.assert_array_equal(from_layers(layers, 1, np.uint8), picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_comes_back_and_hidden_colours_do_not_count(dtype: type[Any]) -> None:
    limit = np.iinfo(dtype).max
    picture = np.array([[[200, 100, 50, limit], [200, 100, 50, limit // 2], [200, 100, 50, 1], [9, 9, 9, 0]]], dtype)
    layers = to_layers(picture)
    assert layers.shape == (1, 7, 1, 4)
    torch.testing.assert_close(layers[0, :3, 0, 3], torch.full((3,), BACKDROP))
    assert layers[0, 3:, 0, 3].tolist() == [0, 0, 0, 0]
    back = from_layers(layers, 4, dtype)
    np.testing.assert_array_equal(back[:, :3], picture[:, :3])
    assert back[0, 3].tolist() == [0, 0, 0, 0]


def test_no_foreign_colour_at_the_edge_of_transparency() -> None:
    red = np.array([[[255, 0, 0, 255]]], np.uint8)
    hidden_green = np.array([[[0, 255, 0, 0]]], np.uint8)
    halfway = (to_layers(red) + to_layers(hidden_green)) / 2
    assert from_layers(halfway, 4, np.uint8).ravel().tolist() == [255, 0, 0, 128]


def test_light_above_1_is_clipped_for_the_network_and_kept_in_the_result() -> None:
    picture = np.array([[[7.5, -0.5, np.inf], [0.25, 0.5, np.nan]]], np.float32)
    layers = to_layers(picture)
    assert layers[0, :3, 0].tolist() == [[1, 0.25], [0, 0.5], [1, 0]]
    back = from_layers(layers, 3, np.float16)
    assert back.dtype == np.float16
    assert back[0, 0].tolist() == [7.5, -0.5, 65504]
    premultiplied = np.array([[[0.5, 0.25, 0, 0.5]]], np.float32)
    layers = to_layers(premultiplied)
    assert layers[0, :3, 0, 0].tolist() == [0.75, 0.5, 0.25]  # on the backdrop of 0.5
    np.testing.assert_array_equal(from_layers(layers, 4, np.float16), premultiplied)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_that_are_no_numbers_are_refused(dtype: type[Any], bad: float) -> None:
    image = torch.rand(1, 3, 8, 8)
    image[0, 1, 2, 3] = bad
    with pytest.raises(UserError, match="the network computed values that are no numbers"):
        to_picture(image, dtype)
    np.testing.assert_array_equal(to_picture(image, np.float32)[..., 1], image[0, 1].numpy())  # as an EXR may hold
