"""Tests LPIPS against an independent computation in numpy, its authors' package, and recorded values."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from model import UserError
from model.metrics import ALEXNET, LPIPS, LPIPS_DEVIATION, LPIPS_MEAN, load_lpips, lpips_file


def waves(height: int, width: int, phase: float) -> np.ndarray:
    """Returns (3,H,W) in 0..1, in closed form."""
    y, x = np.mgrid[:height, :width]
    return np.stack([0.5 + 0.5 * np.sin(x / (5 + c) + y / (9 - c) + phase * (1 + c)) for c in range(3)])


def wave_pairs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns two batches (2,3,H,W) that differ by phase in the first pair and by contrast and phase in the second."""
    first = np.stack([waves(height, width, 0), waves(height, width, 1)])
    second = np.stack([waves(height, width, 0.3), waves(height, width, 0) ** 2])
    return torch.tensor(first).float(), torch.tensor(second).float()


@pytest.fixture
def random_lpips() -> LPIPS:
    """Returns the metric with random weights; those of the heads are positive, as the trained ones."""
    net = LPIPS()
    generator = torch.Generator().manual_seed(5)
    for conv in net.convs:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        conv.weight.data = torch.randn(conv.weight.shape, generator=generator) * conv.weight[0].numel() ** -0.5
        conv.bias.data = torch.randn(conv.bias.shape, generator=generator) * 0.1
    for head in net.heads:
        head.data = torch.rand(head.shape, generator=generator)
    return net.requires_grad_(False)


def windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Returns (C,H,W) as its windows (C,H',W',size,size)."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]


def numpy_lpips(first: np.ndarray, second: np.ndarray, net: LPIPS) -> float:
    """Returns the distance of two images (3,H,W) in 0..1 in float64, written from the paper's formula."""
    total = 0.0
    x, y = ((2 * i - 1 - np.reshape(LPIPS_MEAN, (3, 1, 1))) / np.reshape(LPIPS_DEVIATION, (3, 1, 1))
            for i in (first, second))  # fmt: skip
    for i, (_, _, size, stride, padding) in enumerate(ALEXNET):
        conv, head = net.convs[i], net.heads[i].double().numpy().ravel()
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        weight, bias = conv.weight.double().numpy(), conv.bias.double().numpy()
        made = []
        for image in (x, y):
            pooled = windows(image, 3, 2).max((3, 4)) if i in (1, 2) else image
            padded = np.pad(pooled, ((0, 0), (padding, padding), (padding, padding)))
            out = np.einsum("chwij,ocij->ohw", windows(padded, size, stride), weight, optimize=True)
            made.append(np.maximum(out + bias[:, None, None], 0))
        x, y = made
        lengths = [np.sqrt((image**2).sum(0, keepdims=True)) + 1e-10 for image in (x, y)]
        total += float((((x / lengths[0] - y / lengths[1]) ** 2) * head[:, None, None]).sum(0).mean())
    return total


def test_agrees_with_numpy(random_lpips: LPIPS) -> None:
    first, second = wave_pairs(67, 83)
    expected = [
        numpy_lpips(a.double().numpy(), b.double().numpy(), random_lpips) for a, b in zip(first, second, strict=True)
    ]
    assert random_lpips(first, second).tolist() == pytest.approx(expected, rel=1e-4)


def test_equal_images_have_distance_0_and_flat_images_finite_gradients(random_lpips: LPIPS) -> None:
    first, second = wave_pairs(40, 40)
    assert random_lpips(first, first).tolist() == [0, 0]
    for conv in random_lpips.convs:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        conv.bias.data -= 100  # every ReLU is closed: all features are 0
    first.requires_grad_()
    random_lpips(first, second).sum().backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_gradient_points_away_from_the_other_image(random_lpips: LPIPS) -> None:
    first, second = wave_pairs(40, 40)
    first.requires_grad_()
    before = random_lpips(first, second).sum()
    before.backward()
    assert first.grad is not None
    step = 1e-3 * first.grad / first.grad.abs().max()
    with torch.no_grad():
        assert random_lpips(first - step, second).sum() < before < random_lpips(first + step, second).sum()


def test_missing_and_damaged_files_have_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"not in the cache \(.*\); get it by: python3 -m model.download lpips$"):
        load_lpips("cpu")
    lpips_file().parent.mkdir()
    lpips_file().write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"damaged; delete the file and get it by: python3 -m model.download lpips$"):
        load_lpips("cpu")
    safetensors.torch.save_file({"convs.0.weight": torch.zeros(1)}, lpips_file())
    with pytest.raises(UserError, match=r"not the weights of LPIPS"):
        load_lpips("cpu")


@pytest.fixture
def trained() -> LPIPS:
    if not lpips_file().exists():
        pytest.skip("LPIPS's weights are not in the cache (python3 -m model.download lpips)")
    return load_lpips("cpu")


# By the package lpips 0.1.4, LPIPS(net="alex"), normalize=True, with the same arrays in its AlexNet.
RECORDED = {
    (64, 64): [0.0454460, 0.2086031],
    (97, 131): [0.0454438, 0.2513745],
    (35, 40): [0.0327079, 0.1438552],
}


@pytest.mark.parametrize("size", RECORDED)
def test_recorded_values(size: tuple[int, int], trained: LPIPS) -> None:
    assert trained(*wave_pairs(*size)).tolist() == pytest.approx(RECORDED[size], abs=1e-5)


def test_agrees_with_the_authors_package(trained: LPIPS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package takes AlexNet from torchvision, of which a stand-in is enough here."""

    def alexnet(**_: object) -> nn.Module:
        layers: list[nn.Module] = []
        for i, numbers in enumerate(ALEXNET):
            layers += [nn.MaxPool2d(3, 2)] * (i in (1, 2)) + [nn.Conv2d(*numbers), nn.ReLU()]
        net = nn.Module()
        net.features = nn.Sequential(*layers, nn.MaxPool2d(3, 2))
        return net

    models = types.ModuleType("torchvision.models")
    vars(models)["alexnet"] = alexnet
    torchvision = types.ModuleType("torchvision")
    vars(torchvision)["models"] = models
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    lpips = pytest.importorskip("lpips")
    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    theirs = [module for module in package.net.modules() if isinstance(module, nn.Conv2d)]
    for conv, own in zip(theirs, trained.convs, strict=True):
        conv.load_state_dict(own.state_dict())
    images = wave_pairs(64, 96)
    with torch.no_grad():
        expected = package(*images, normalize=True).flatten()
    assert trained(*images).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    for i, head in enumerate(trained.heads):  # the package brings its own
        torch.testing.assert_close(getattr(package, f"lin{i}").model[-1].weight, head.data)
