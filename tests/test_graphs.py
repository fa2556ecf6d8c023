"""Tests, without a GPU, what CUDA graphs need: no step of a call depends on a value or uses the host.

Here a call is recorded by torch.fx, as the operators it consists of, and what is replayed are those.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from networks import NETWORKS, build
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model import RIFE
from model.IFNet_v4 import IFNet_v4
from model.inference.graph_engine import MAX_RECORDINGS, GraphEngine, Outputs
from model.inference.memory import peak_bytes
from model.inference.tile_engine import TileEngine, tiled


def record_operators(run: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Outputs, Callable[[], None]]:
    """Records a call by torch.fx, as graph_engine.record does by CUDA: Python runs once, its operators repeatedly."""
    graph = make_fx(run)(*inputs)
    outputs: Outputs = graph(*inputs)

    def replay() -> None:
        for place, value in zip(outputs, graph(*inputs), strict=True):
            place.copy_(value)

    return outputs, replay


def recorded(model: RIFE) -> dict[object, Any]:
    """Returns the recordings of a model's engine."""
    assert isinstance(model.engine, GraphEngine)
    return dict(model.engine.recordings)


def images(seed: int, size: tuple[int, int] = (70, 50)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    img0, img1 = torch.rand(2, 1, 3, size[1], size[0], generator=generator)
    return img0, img1


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_recording_equals_the_network_at_other_values(name: str) -> None:
    net = build(name)
    plain = RIFE(net, name=name, engine=net)
    graphed = RIFE(net, name=name, engine=GraphEngine(net, record_operators))
    times = (0.5, 0.2) if plain.arbitrary_time else (0.5,)
    options: list[dict[str, bool]] = [{}, {"ensemble": True, "refine": True}] if name == "3.9" else [{}]
    for more in options:
        made = []
        for seed in range(3):
            for t in times:
                img0, img1 = images(seed)
                expected = plain.inference(img0, img1, timestep=t, **more)
                made.append(graphed.inference(img0, img1, timestep=t, **more))
                torch.testing.assert_close(made[-1], expected, rtol=0, atol=1e-5)
        assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(made))  # none is another's memory
    assert len(recorded(graphed)) == len(options)


@pytest.mark.slow
def test_several_timesteps_and_maps_are_recorded_too(tiny_net: IFNet_v4) -> None:
    graphed = RIFE(tiny_net, name="tiny", engine=GraphEngine(tiny_net, record_operators))
    plain = RIFE(tiny_net, name="tiny", engine=tiny_net)
    graphed.batch_pixels = 2 * 128 * 64
    for seed in (0, 1):
        got, expected = (list(m.between(*images(seed), [0.2, 0.5, 0.9])) for m in (graphed, plain))
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    ramp = torch.linspace(0, 1, 70).expand(1, 1, 50, 70)
    for time in (ramp, 1 - ramp):
        a, b = (m.inference(*images(0), timestep=time) for m in (graphed, plain))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert len(recorded(graphed)) == 3


def test_a_few_recordings_are_kept(tiny_net: IFNet_v4) -> None:
    sizes_recorded: list[tuple[int, ...]] = []

    def recorder(run: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Outputs, Callable[[], None]]:
        sizes_recorded.append(inputs[0].shape[2:])
        return run(*inputs), lambda: None

    model = RIFE(tiny_net, name="tiny", engine=GraphEngine(tiny_net, recorder))
    sizes = [(64, 64 * k) for k in range(1, MAX_RECORDINGS + 2)]
    for size in [*sizes, sizes[-1], sizes[0]]:
        model.inference(*images(0, size[::-1]))
    assert sizes_recorded == [*sizes, sizes[0]]
    assert len(recorded(model)) == MAX_RECORDINGS


@pytest.mark.slow
def test_running_out_of_memory_drops_the_recordings(tiny_net: IFNet_v4) -> None:
    def recorder(run: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Outputs, Callable[[], None]]:
        if inputs[0].shape[3] > 256:
            raise torch.OutOfMemoryError("Out of memory")
        return record_operators(run, inputs)

    graphed = GraphEngine(tiny_net, recorder)
    tiles = tiled(RIFE(tiny_net, name="tiny", engine=graphed), report=lambda line: None)
    tiles.inference(*images(0))
    assert len(graphed.recordings) == 1
    wide = images(0, (500, 60))
    made = tiles.inference(*wide)
    assert isinstance(tiles.engine, TileEngine)
    assert len(graphed.recordings) == 1  # of the tiles, which have one size
    plain = tiled(RIFE(tiny_net, name="tiny", engine=tiny_net), tiles.engine.tile)
    torch.testing.assert_close(made, plain.inference(*wide), rtol=0, atol=1e-5)


class OnDevice(TorchDispatchMode):
    """Checks that no operator takes or gives a tensor on the host."""

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, out)):
            assert not isinstance(value, Tensor) or value.device.type == "meta", f"{func} touches the host"
        return out


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_no_operator_uses_the_host(name: str) -> None:
    """The meta device stands for any: what is computed on it can neither be read nor mixed with the host's."""
    net = build(name).to("meta")
    graphed = GraphEngine(net, lambda run, inputs: (run(*inputs), lambda: None))
    image = torch.empty(1, 3, 64, 64, device="meta")
    with torch.no_grad(), OnDevice():
        features = graphed.frame_features(image)
        made = graphed(image, image, 0.5, features, features)
        if graphed.has_coarse_stage:
            coarse = graphed.estimate_coarse(image, image, 0.5, features, features)
            continued = graphed(image, image, 0.5, features, features, coarse=coarse)
            assert len(coarse) > 0
            assert continued.flow.shape == made.flow.shape
    assert made.image.shape == (1, 3, 64, 64)
    batch = RIFE(net, name=name, engine=graphed)
    assert len(list(batch.between(image, image, [0.25, 0.5, 0.75]))) == 3


def test_memory_is_that_of_the_network_itself(tiny_net: IFNet_v4) -> None:
    assert peak_bytes(GraphEngine(tiny_net), 64, 64) == peak_bytes(tiny_net, 64, 64)
