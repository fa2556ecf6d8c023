"""Tests properties of the HD networks that hold for all weights; their numbers are in test_parity.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import model.IFNet_HD as HD
from model import RIFE
from model.IFNet_HD import IFNet_HD, IFNet_HDv2, IFNet_HDv3
from model.loading import AnyNetwork

NETWORKS: dict[str, Callable[[], AnyNetwork]] = {
    "1.x": IFNet_HD,
    "2.x": IFNet_HDv2,
    "3.1": lambda: IFNet_HDv2(paired=True),
    "3.8": IFNet_HDv3,
}
Pair = tuple[Tensor, Tensor]
SIZE = (40, 56)  # no multiple of anything


@pytest.fixture(scope="module")
def nets() -> dict[str, RIFE]:
    torch.manual_seed(0)
    return {name: RIFE(build().eval(), name=f"HD {name}") for name, build in NETWORKS.items()}


@pytest.fixture
def pair() -> Pair:
    rng = np.random.default_rng(0)
    img0, img1 = (torch.from_numpy(rng.random((1, 3, *SIZE), np.float32)) for _ in range(2))
    return img0, img1


@pytest.mark.parametrize("name", NETWORKS)
def test_halving_is_nested_midpoints(name: str, nets: dict[str, RIFE], pair: Pair) -> None:
    model = nets[name]
    assert not model.arbitrary_time
    quarter, half, last = model.between(*pair, (0.25, 0.5, 0.75))
    assert half.shape == pair[0].shape
    assert torch.equal(half, model.inference(*pair))
    whole = [torch.nn.functional.pad(image, (0, 64 - 56, 0, 64 - 40)) for image in pair]
    net: Any = model.net
    with torch.no_grad():
        middle = net(*whole).image
        expected = net(whole[0], middle).image, middle, net(middle, whole[1]).image
    for made, image in zip((quarter, half, last), expected, strict=True):
        torch.testing.assert_close(made, image[..., :40, :56], rtol=0, atol=1e-5)
    assert (quarter - half).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"halving reaches k/2\^n only: no such timestep within 0 of 0.3"):
        list(model.between(*pair, (0.3,), tolerance=0))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.25, 2.0, 4.0])
@pytest.mark.parametrize("name", ["3.1", "3.8"])
def test_the_scale_divides_the_scales_of_the_blocks(
    name: str, scale: float, nets: dict[str, RIFE], pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream does the same; scale 0.5 is among the recorded cases."""
    images = [torch.nn.functional.pad(image, (0, 128 - 56, 0, 128 - 40)) for image in pair]
    net = nets[name].net
    with torch.no_grad():
        made = net(*images, scale=scale).image
        plain = net(*images).image
        holder, key = (net, "scales") if name == "3.1" else (HD, "SCALES_OF_3")
        monkeypatch.setattr(holder, key, tuple(s / scale for s in HD.SCALES_OF_3))
        torch.testing.assert_close(made, net(*images).image, rtol=0, atol=1e-6)
    assert (made - plain).abs().max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_flow_of_the_middle_alone(name: str, nets: dict[str, RIFE], pair: Pair) -> None:
    flow = nets[name].flow(*pair)
    assert flow.shape == (1, 4, *SIZE)
    if name == "1.x":  # one flow, used both ways
        assert torch.equal(flow[:, :2], -flow[:, 2:])
    with pytest.raises(ValueError, match=f"RIFE HD {name} estimates only the flow of the middle, not at timestep 0.25"):
        nets[name].flow(*pair, timestep=0.25)
    with pytest.raises(ValueError, match="estimates the middle alone: it takes no map of timesteps"):
        nets[name].inference(*pair, timestep=torch.full((1, 1, *SIZE), 0.5))


def test_3_8_is_symmetric_in_the_two_frames(nets: dict[str, RIFE], pair: Pair) -> None:
    there, back = nets["3.8"].inference(*pair), nets["3.8"].inference(*pair[::-1])
    torch.testing.assert_close(there, back, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_options_are_refused(name: str, nets: dict[str, RIFE], pair: Pair) -> None:
    for option in ("ensemble", "refine"):
        with pytest.raises(ValueError, match=rf"RIFE HD {name} has no option '{option}' \(it has: none\)"):
            nets[name].inference(*pair, **{option: True})  # type: ignore[arg-type]
