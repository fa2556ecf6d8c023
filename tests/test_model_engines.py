"""Tests the engines: every network is traced whole and gives its own picture; refusals are one line."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clips import make_clip
from networks import NETWORKS, V3_9, build

import inference_video
from benchmark.compare import parse_setting
from model import RIFE, UserError
from model.contract import NetworkModule
from model.IFNet_v4 import IFNet_v4
from model.inference.compile_engine import CompileEngine
from model.inference.engines import with_engine
from model.inference.memory import peak_bytes
from model.inference.tile_engine import tiled


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replaces torch.compile, which takes minutes: the program that it finds is run as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_traced_without_graph_breaks(name: str, traced: None) -> None:
    net = build(name)
    images = torch.rand(2, 1, 3, 60, 70, generator=torch.Generator().manual_seed(1))
    made, expected = (
        RIFE(net, name=name, engine=engine).inference(*images) for engine in (with_engine(net, "compile"), net)
    )
    assert expected.std() > 0.01
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "RIFE_m"])
def test_the_blocks_after_the_coarse_ones_trace_whole_too(name: str, traced: None) -> None:
    net = build(name)
    images = torch.rand(2, 1, 3, 128, 256, generator=torch.Generator().manual_seed(1))
    made, expected = (
        tiled(RIFE(net, name=name, engine=engine), 128).inference(*images)
        for engine in (with_engine(net, "compile"), net)
    )
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_program_serves_every_timestep(traced: None) -> None:
    net = build("default")
    programs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal programs
        programs += 1
        return graph

    compiled = CompileEngine(net)
    compiled.compiled = torch.compile(net, backend=count, fullgraph=True, dynamic=False)
    model, plain = RIFE(net, name="default", engine=compiled), RIFE(net, name="default", engine=net)
    images = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for step in (0.25, 0.5, 0.75):
        made = model.inference(*images, timestep=step)
        torch.testing.assert_close(made, plain.inference(*images, timestep=step), rtol=0, atol=1e-5)
    assert programs == 1


@pytest.mark.slow
def test_memory_is_that_of_the_network_itself(traced: None) -> None:
    net = build("default")
    assert peak_bytes(with_engine(net, "compile"), 64, 64) == peak_bytes(net, 64, 64)


@pytest.mark.slow
def test_a_failed_compilation_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such\n  instruction")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    net = build("default")
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(
        UserError, match=r"^the network cannot be compiled here; run it without an engine: .*no such instr"
    ):
        RIFE(net, name="default", engine=with_engine(net, "compile")).inference(image, image)
    torch.compiler.reset()


def test_networks_whose_scales_depend_on_values_are_refused() -> None:
    net = IFNet_v4(replace(V3_9, auto_scale=True))
    with pytest.raises(
        UserError, match=r"^4\.0 and 4\.1 choose their scales by the flow they find: run them without an engine"
    ):
        with_engine(net, "compile")
    with pytest.raises(
        ValueError,
        match="engine 'vulkan' is none of pytorch, graphs, compile, tensorrt, onnxruntime, openvino, openvino-gpu",
    ):
        with_engine(net, "vulkan")


@pytest.mark.parametrize("engine", ["graphs", "tensorrt"])
def test_engines_for_cuda_are_refused_on_a_cpu(
    engine: str, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--video", str(make_clip(tmp_path / "a.mp4")), "--model", str(tiny_weights), "--device", "cpu"]
    assert inference_video.main([*arguments, "--engine", engine]) == 1
    error = f"the engine {engine} is for CUDA devices: run the network without it on cpu"
    assert capsys.readouterr().err == f"inference_video.py: {error}\n"
    with pytest.raises(UserError, match=f"^{error}"):
        parse_setting(f"model={tiny_weights},{engine}").load(torch.device("cpu"))


def test_without_tensorrt_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(NetworkModule):
        def parameters(self, recurse: bool = True) -> Iterator[Any]:
            yield SimpleNamespace(device=torch.device("cuda"))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^the engine tensorrt needs Torch-TensorRT: python3 -m pip install torch-tenso"
    ):
        with_engine(OnGpu(), "tensorrt")
