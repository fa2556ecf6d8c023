"""Tests several timesteps in one call, as on a GPU: the pictures of single calls; fewer when memory runs out."""

import copy
from fractions import Fraction
from typing import Any

import pytest
import torch
from conftest import Shift
from torch import Tensor

from benchmark.compare import pair
from model import RIFE, load_model
from model.contract import Prediction
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.inference.tile_engine import TileEngine, tiled
from model.weights.published import IFNetConfig

STEPS = [Fraction(k, 6) for k in range(1, 6)]
SIZE = (100, 70)


def together(model: RIFE, count: int) -> RIFE:
    """Returns the model, made to take that many timesteps at once."""
    height, width = (-(-side // model.multiple()) * model.multiple() for side in SIZE[::-1])
    model.batch_pixels = count * height * width
    return model


class Counted(Shift):
    """Moves as Shift does, and records how many pictures each call made."""

    def __init__(self, limit: int = 100) -> None:
        super().__init__(2)
        self.limit = limit
        self.made: list[tuple[int, int]] = []  # pictures, pixels of each

    def forward(self, img0: Tensor, *rest: Any, scale: float = 1.0) -> Prediction:
        if img0.shape[0] > self.limit:
            raise torch.OutOfMemoryError("Out of memory. Tried to allocate 4 GiB")
        self.made.append((img0.shape[0], img0.shape[2] * img0.shape[3]))
        return super().forward(img0, *rest, scale=scale)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["v4", "paper"])
@pytest.mark.parametrize("channels", [3, 7])
def test_a_call_for_several_timesteps_equals_calls_for_one(
    tiny_net: IFNet_v4, kind: str, count: int, channels: int
) -> None:
    torch.manual_seed(0)
    net = tiny_net if kind == "v4" else IFNet(timed=True).eval()
    img0, img1 = (torch.cat((image, image, image), 1)[:, :channels] for image in pair(SIZE, "cpu"))
    one = RIFE(net, name=kind, engine=net)  # the same arithmetic on both sides
    many = together(tiled(RIFE(net, name=kind, engine=net)), count)
    for tta in (False, True) if channels == 3 else (False,):
        expected, got = ([*m.between(img0, img1, STEPS, tta=tta)] for m in (one, many))
        assert len(got) == len(STEPS)
        for a, b in zip(expected, got, strict=True):
            assert a.shape == b.shape == (1, channels, SIZE[1], SIZE[0])
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert (expected[0] - expected[-1]).abs().max() > 1e-3  # or the order would not show


def test_the_limit_of_pixels_gives_the_timesteps_of_a_call() -> None:
    net = Counted()
    list(together(RIFE(net, name="counted"), 3).between(*pair(SIZE, "cpu"), [k / 9 for k in range(1, 9)]))
    assert [count for count, _ in net.made] == [3, 3, 2]
    net.made.clear()
    img0, img1 = (torch.cat((image, image)) for image in pair(SIZE, "cpu"))  # images that are a batch already
    assert [len(made) for made in together(RIFE(net, name="counted"), 3).between(img0, img1, STEPS)] == [2] * 5
    assert [count for count, _ in net.made] == [2] * 5


def test_a_cpu_runs_one_timestep_at_a_time(tiny_net: IFNet_v4) -> None:
    model = load_model()
    assert model.batch_pixels == 0
    assert RIFE(copy.deepcopy(tiny_net).to("meta"), name="elsewhere").batch_pixels > 0


def test_networks_without_fixed_scales_take_one_timestep() -> None:
    """4.0 and 4.1: the large motion of one timestep would change the scales of another."""
    model = together(RIFE(IFNet_v4(IFNetConfig((8, 8, 8), (4, 2, 1), auto_scale=True)), name="4.0"), 4)
    assert model._timesteps_at_once(model.prepare(pair(SIZE, "cpu")[0])) == 1


def test_out_of_memory_halves_the_batch_before_the_tiles() -> None:
    net = Counted(limit=2)
    lines: list[str] = []
    model = together(tiled(RIFE(net, name="counted"), report=lines.append), 5)
    images = pair(SIZE, "cpu")
    for _ in range(2):
        got = list(model.between(*images, STEPS))
        for a, b in zip(RIFE(Shift(2), name="shift").between(*images, STEPS), got, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert [count for count, _ in net.made] == [2, 2, 1] * 2
    assert lines == []
    assert isinstance(model.engine, TileEngine)
    assert model.engine.tile == 0
