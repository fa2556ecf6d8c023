"""Tests the sharp blend: exact where nothing moves, and the same by the kernels."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.inference import kernels
from model.inference.kernel_engine import KernelEngine
from model.loading import build_network, detect_version
from model.networks.sharp import nearer, smoothed
from model.networks.warp import warp
from model.training.network import add_gates, build_trainable
from model.weights.published import PUBLISHED

SHARP = replace(PUBLISHED["4.25, 4.26"], sharp=True)


def sharp_net() -> IFNet_v4:
    torch.manual_seed(3)
    net = IFNet_v4(SHARP).eval()
    with torch.no_grad():  # flows and gates of some size
        net.get_parameter("block4.lastconv.0.weight").mul_(3)
    return net


@pytest.mark.parametrize("shift", [(0.5, 0.25), (-3.75, 2.0), (7.0, -11.5)])
def test_bicubic_warp_equals_opencvs(shift: tuple[float, float]) -> None:
    image = np.random.default_rng(1).random((40, 56, 3), np.float32)
    x, y = np.meshgrid(np.arange(56, dtype=np.float32), np.arange(40, dtype=np.float32))
    known = cv2.remap(image, x + shift[0], y + shift[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    flow = torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 40, 56)
    made = warp(torch.from_numpy(image.transpose(2, 0, 1))[None], flow, "bicubic")
    assert np.abs(made[0].permute(1, 2, 0).numpy() - known).max() < 2e-5


def test_smoothed_removes_bands() -> None:
    """All gates open along an axis leave its binomial of seven taps, the fine one alone that of three; OpenCV's."""
    image = np.random.default_rng(4).random((30, 40, 3), np.float32)
    tensor = torch.from_numpy(image.transpose(2, 0, 1))[None]
    three, seven, one = np.array([1, 2, 1]) / 4, np.array([1, 2, 3, 4, 3, 2, 1]) / 16, np.ones(1)
    for gates, across, down in (((1, 1, 0, 0), seven, one), ((0, 0, 1, 1), one, seven), ((0, 0, 1, 0), one, three)):
        known = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REPLICATE)
        logits = 60 * torch.tensor(gates, dtype=torch.float32).view(1, 4, 1, 1).expand(1, 4, 30, 40)
        assert np.abs(smoothed(tensor, logits)[0].permute(1, 2, 0).numpy() - known).max() < 1e-6
        twice_as_strong = 2 * tensor - smoothed(tensor, logits)
        assert torch.allclose(smoothed(tensor, -logits), twice_as_strong, atol=1e-6)
    assert torch.equal(smoothed(tensor, torch.zeros(1, 4, 30, 40)), tensor)
    assert torch.allclose(smoothed(torch.full_like(tensor, 0.3), logits), torch.tensor(0.3))


def test_weights_with_fewer_gates_get_neutral_ones() -> None:
    state = sharp_net().state_dict()
    before = {**state, "sharp": torch.ones(4)}
    grown = add_gates(before, 5)
    rows = slice(4 * (5 + 4), 4 * (5 + 8))
    weight, old = (s["block4.lastconv.0.weight"] for s in (grown, before))
    assert len(grown["sharp"]) == 8
    assert torch.equal(weight[:, : rows.start], old[:, : rows.start])
    assert not weight[:, rows].any()
    assert old[:, rows].any()


def test_neutral_gates_sample_by_cubics_everywhere() -> None:
    plain = IFNet_v4(replace(SHARP, sharp=False)).eval()
    state = add_gates(plain.state_dict(), 5)
    version = detect_version(state)
    net = build_network(version, state).eval()
    assert version.name == detect_version(plain.state_dict()).name
    img0, img1 = torch.rand(2, 1, 3, 128, 128)
    with torch.no_grad():
        out, bilinear = net(img0, img1, 0.5), plain(img0, img1, 0.5)
    places = nearer(out.flow, torch.tensor(0.5))
    w0, w1 = warp(img0, places[:, :2], "bicubic"), warp(img1, places[:, 2:], "bicubic")
    assert torch.allclose(out.image, w1 + out.mask * (w0 - w1), atol=1e-5)
    assert torch.equal(out.flow, bilinear.flow)
    assert not torch.allclose(out.image, bilinear.image, atol=1e-3)


def test_nearer_keeps_whole_and_half_pixels() -> None:
    flow = torch.tensor([-3.0, -2.75, -0.5, 0.0, 0.1, 0.25, 0.5, 7.5, 8.0])
    assert torch.equal(nearer(flow, torch.tensor(0.0)), flow)
    at_most = torch.tensor([-3.0, -2.9375, -0.5, 0.0, 0.004, 0.0625, 0.5, 7.5, 8.0])
    torch.testing.assert_close(nearer(flow, torch.tensor(1.0)), at_most)
    torch.testing.assert_close(nearer(flow, torch.tensor(0.5)), (flow + at_most) / 2)


def test_nearby_samples_of_two_frames_are_sharper() -> None:
    """A scene eight times as fine as the pixels of a camera that moves by fractions of them, flow and blend exact."""
    fine: Any = cv2.GaussianBlur(np.random.default_rng(2).random((512, 640, 3), np.float32), (0, 0), 2)
    for steps in (1, 2, 3):  # eighths of a pixel from one frame to the next
        frames = [fine[:, 8 + k * steps :][:, :600].reshape(64, 8, 75, 8, 3).mean((1, 3)) for k in (-1, 0, 1)]
        img0, gt, img1 = (torch.from_numpy(f.transpose(2, 0, 1))[None] for f in frames)
        errors = []
        for share in (0.0, 0.5, 1.0):
            blended = torch.zeros_like(gt)
            for image, sign in ((img0, -1), (img1, 1)):
                flow = torch.tensor((-sign * steps / 8, 0.0)).view(1, 2, 1, 1).expand(1, 2, 64, 75)
                blended += warp(image, nearer(flow, torch.tensor(share)), "bicubic") / 2
            errors.append(float((blended - gt)[..., 4:-4].square().mean().sqrt()))
        assert errors[2] < errors[1] < 0.97 * errors[0], steps


def test_a_flow_of_whole_pixels_is_not_blurred() -> None:
    image = torch.rand(1, 3, 64, 64)
    for flow, moved in (((0, 0), image), ((2, 0), image[..., [*range(2, 64), 63, 63]])):
        made = warp(image, torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, 64, 64), "bicubic")
        assert torch.allclose(made, moved, atol=1e-4)


@pytest.mark.skipif(not kernels.available(), reason="no compiler, or a CPU without AVX2")
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_kernels_sample_as_the_network(scale: float) -> None:
    net = sharp_net()
    fast = KernelEngine(net)
    img0, img1 = torch.rand(2, 2, 3, 128, 256)
    with torch.inference_mode():
        known = net(img0, img1, 0.3, scale=scale)
        made = fast(img0, img1, 0.3, fast.frame_features(img0), fast.frame_features(img1), scale=scale)
    assert known.flow.abs().max() > 0.5
    assert (known.image - made.image).abs().max() < 2e-4  # noise, the hardest picture
    assert (known.flow - made.flow).abs().max() < 2e-4


def test_networks_without_spare_outputs_are_refused() -> None:
    with pytest.raises(UserError, match="no spare outputs"):
        build_trainable("v4.6", sharp=True)


def test_the_teacher_of_a_sharp_network_has_the_inputs_of_a_plain_one() -> None:
    torch.manual_seed(0)
    plain = IFNet_v4(replace(SHARP, sharp=False), teacher=True).eval()
    net = IFNet_v4(SHARP, teacher=True).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    seen: list[list[torch.Tensor]] = []
    for one in (plain, net):
        one.get_submodule("block_tea").register_forward_pre_hook(lambda _, inputs: seen.append(list(inputs[0])))
        img0, gt, img1 = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            one(img0, img1, 0.5, gt=gt)
    for expected, made in zip(seen[0][2:], seen[1][2:], strict=True):  # all but the two images
        assert torch.equal(made, expected)
