"""Tests what the wrapper passes to the v4 networks: refinement, ensemble, scales, flow, maps of timesteps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import RIFE
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.image import Padder
from model.weights.published import IFNetConfig

PLAIN = {"outputs": 5, "shuffle": False, "residual": False, "replace_mask": False}
OLD = IFNetConfig((8, 8, 8, 8), (8, 4, 2, 1), ensemble=True, refine=True, **PLAIN)  # type: ignore[arg-type]
MIDDLE = IFNetConfig(
    (8, 8, 8, 8), (8, 4, 2, 1), outputs=6, ensemble=True, encoder="H3", encoder_width=8, encoder_channels=4
)
NEW = IFNetConfig((8, 8, 8, 8, 8), (16, 8, 4, 2, 1), encoder="H3", encoder_width=8, encoder_channels=4)
SIZE = (40, 56)
Pair = tuple[Tensor, Tensor]


def make_net(config: IFNetConfig) -> IFNet_v4:
    """Returns a network of small width with random weights, whose flow is a few pixels."""
    torch.manual_seed(0)
    net = IFNet_v4(config).eval()
    for parameter in net.parameters():
        parameter.data.mul_(1.3)
    return net


def make(config: IFNetConfig) -> RIFE:
    """Returns that network in its wrapper."""
    return RIFE(make_net(config), name="tiny")


@pytest.fixture
def pair() -> Pair:
    rng = np.random.default_rng(0)
    img0, img1 = (torch.from_numpy(rng.random((1, 3, *SIZE), np.float32)) for _ in range(2))
    return img0, img1


def test_refinement_is_an_option(pair: Pair) -> None:
    model = make(OLD)
    plain, refined = model.inference(*pair), model.inference(*pair, refine=True)
    assert (plain - refined).abs().max() > 0.01
    padder = Padder(*SIZE, 32)
    net: Any = model.net
    with torch.no_grad():
        expected = net(*map(padder.pad, pair), 0.5, refine=True, ensemble=True).image
    got = next(model.between(*pair, (0.5,), refine=True, ensemble=True))
    assert torch.equal(got, padder.unpad(expected))
    with pytest.raises(ValueError, match=r"these weights hold no refinement: contextnet\.\* and unet\.\* are missing"):
        make_net(NEW)(*pair, refine=True)
    with pytest.raises(ValueError, match=r"RIFE tiny has no option 'refine' \(it has: none\)"):
        make(NEW).inference(*pair, refine=True)
    with pytest.raises(ValueError, match="RIFE paper has no option 'refine'"):
        RIFE(IFNet().eval(), name="paper").inference(*pair, refine=True)


@pytest.mark.parametrize("config", [OLD, MIDDLE], ids=["4.2", "4.13"])
def test_an_ensemble_is_symmetric_in_the_two_frames(config: IFNetConfig, pair: Pair) -> None:
    model = make(config)
    there = model.inference(*pair, timestep=0.3, ensemble=True)
    back = model.inference(*pair[::-1], timestep=0.7, ensemble=True)
    torch.testing.assert_close(there, back, rtol=0, atol=1e-5)
    assert (there - model.inference(*pair, timestep=0.3)).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"this network has no ensemble: only 3.9-4.20 and 4.24 do"):
        make_net(NEW)(*pair, ensemble=True)
    with pytest.raises(ValueError, match=r"RIFE tiny has no option 'ensemble' \(it has: none\)"):
        make(NEW).inference(*pair, ensemble=True)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("config", [OLD, MIDDLE, NEW], ids=["4.2", "4.13", "4.25"])
def test_the_scale_divides_the_scales_of_the_blocks(config: IFNetConfig, scale: float, pair: Pair) -> None:
    """Upstream does the same: the frame is that of a network with divided scales of its blocks, on the same padding."""
    model = make(config)
    padder = Padder(*SIZE, int(config.pad_multiple / min(scale, 1)))
    divided = IFNet_v4(replace(config, scales=tuple(s / scale for s in config.scales))).eval()  # type: ignore[misc]
    divided.load_state_dict(make_net(config).state_dict())
    with torch.no_grad():
        expected = divided.forward(*map(padder.pad, pair), refine=config.refine)
    out = model.inference(*pair, scale=scale, refine=config.refine)
    torch.testing.assert_close(out, padder.unpad(expected.image), rtol=0, atol=2e-5)
    torch.testing.assert_close(model.flow(*pair, scale=scale), padder.unpad(expected.flow), rtol=0, atol=2e-3)  # px


def test_flow_equals_that_of_the_network(pair: Pair) -> None:
    model = make(NEW)
    net: Any = model.net
    padder = Padder(*SIZE, 64)
    for timestep in (0.0, 0.25, 1.0):
        with torch.no_grad():
            expected = net(*map(padder.pad, pair), timestep).flow
        assert torch.allclose(model.flow(*pair, timestep=timestep), padder.unpad(expected), atol=1e-3)  # px
    prepared = [model.prepare(image) for image in pair]
    assert torch.equal(model.flow(*prepared), model.flow(*pair))
    assert not model.flow(*pair).requires_grad


def test_a_map_of_timesteps_is_a_number_for_every_pixel(pair: Pair) -> None:
    model = make(NEW)
    for t in (0.25, 0.5):
        plane = torch.full((1, 1, *SIZE), t)
        by_map, by_number = (model.inference(*pair, timestep=time) for time in (plane, t))
        assert torch.allclose(by_map, by_number, atol=2e-5)
        by_map, by_number = (model.flow(*pair, timestep=time) for time in (plane, t))
        assert torch.allclose(by_map, by_number, atol=1e-3)  # px
    ramp = torch.linspace(0, 1, SIZE[1]).expand(1, 1, *SIZE)
    out = model.inference(*pair, timestep=ramp, tta=True)
    assert out.shape == pair[0].shape
    assert not torch.equal(out, model.inference(*pair, tta=True))


def test_a_batch_may_have_a_timestep_each(pair: Pair) -> None:
    model = make(NEW)
    both = [torch.cat((image, image.flip(3))) for image in pair]
    times = torch.tensor([0.2, 0.7]).view(2, 1, 1, 1)
    out = model.inference(*both, timestep=times)
    for i, t in enumerate((0.2, 0.7)):
        alone = model.inference(both[0][i : i + 1], both[1][i : i + 1], timestep=t)
        torch.testing.assert_close(out[i : i + 1], alone, rtol=0, atol=1e-5)
