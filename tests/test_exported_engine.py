"""Tests that a runtime gives the network's own pictures, and that graphs are kept, or made anew for other weights."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Shift
from networks import build
from torch import Tensor

from model import RIFE, UserError, load_model
from model.contract import Network
from model.inference import engines, exported_engine, graph_cache
from model.inference.engines import with_engine
from model.inference.exported_engine import RUNTIMES, ExportedEngine, _providers, weights_digest
from model.inference.tile_engine import tiled

TOLERANCE = 1e-4


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> str:
    missing = exported_engine.missing_packages(request.param)
    if missing:
        pytest.skip(f"not installed: {missing}")
    return str(request.param)


def images(height: int = 60, width: int = 70) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, height, width, generator=generator), torch.rand(1, 3, height, width, generator=generator)


@pytest.mark.parametrize("name", ["default", "RIFE_m", "HD 3.8"])
def test_a_runtime_gives_the_networks_pictures(name: str, runtime: str, tmp_path: Path) -> None:
    net = build(name)
    engine = RIFE(net, name=name, engine=ExportedEngine(net, runtime, tmp_path))
    plain = RIFE(net, name=name, engine=net)
    for size in ((60, 70), (128, 64)):  # one graph for every size
        times = (0.25, 0.5) if net.arbitrary_time else (0.5,)
        for made, wanted in zip(
            engine.between(*images(*size), times), plain.between(*images(*size), times), strict=True
        ):
            torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)
    assert len(list(tmp_path.glob("*"))) == 1
    assert str(engine).endswith(f"float32 on cpu by {RUNTIMES[runtime][0]}")


def test_flow_and_extra_channels_follow_the_images(runtime: str, tmp_path: Path) -> None:
    net = build("default")
    engine, plain = (RIFE(net, name="a", engine=e) for e in (ExportedEngine(net, runtime, tmp_path), net))
    with_alpha = [torch.cat((image, image[:, :1]), 1) for image in images()]
    torch.testing.assert_close(engine.inference(*with_alpha), plain.inference(*with_alpha), rtol=0, atol=TOLERANCE)


def test_tiles_continue_from_the_coarse_blocks(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    net = build("default")
    engine = RIFE(net, name="a", engine=ExportedEngine(net, "onnxruntime", tmp_path))
    made, wanted = (
        tiled(model, 128).inference(*images(128, 256)) for model in (engine, RIFE(net, name="a", engine=net))
    )
    torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)


def test_a_graph_is_made_once_for_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    net = build("default")
    first = RIFE(net, name="a", engine=ExportedEngine(net, "onnxruntime", tmp_path)).inference(*images())
    with monkeypatch.context() as patch:
        patch.setattr(exported_engine, "trace", None)  # would fail
        again = RIFE(net, name="a", engine=ExportedEngine(net, "onnxruntime", tmp_path)).inference(*images())
    assert torch.equal(first, again)
    digest = weights_digest(net)
    with torch.no_grad():
        next(net.parameters()).add_(1e-3)
    assert weights_digest(net) != digest


def test_a_wrong_graph_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    net = build("default")
    run = exported_engine._OnnxRuntime.run
    monkeypatch.setattr(exported_engine._OnnxRuntime, "run", lambda *a: [x + 0.1 for x in run(*a)])
    with pytest.raises(UserError, match=r"^ONNX Runtime computes another image than PyTorch \(\d"):
        RIFE(net, name="a", engine=ExportedEngine(net, "onnxruntime", tmp_path)).inference(*images())
    assert not list(tmp_path.glob("*"))


def test_a_damaged_graph_is_made_anew(runtime: str, tmp_path: Path) -> None:
    """A changed weight leaves a graph that can be loaded, but gives other pictures."""
    net = build("default")
    wanted = RIFE(net, name="a", engine=ExportedEngine(net, runtime, tmp_path)).inference(*images())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    weights = whole.index(next(net.parameters()).detach().numpy().tobytes())
    changed = whole[:weights] + bytes(400) + whole[weights + 400 :]
    for damaged in (whole[: len(whole) // 2], changed, b""):
        file.write_bytes(damaged)
        made = RIFE(net, name="a", engine=ExportedEngine(net, runtime, tmp_path)).inference(*images())
        assert torch.equal(made, wanted)
        assert file.read_bytes() == whole


def test_a_graph_that_cannot_be_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*names: object) -> None:
        raise PermissionError("another process reads it")

    path = tmp_path / "graphs" / "a.graph"
    graph_cache.write_graph(path, b"graph")
    assert graph_cache.read_graph(path) == b"graph"
    monkeypatch.setattr(graph_cache.os, "replace", fail)
    with pytest.raises(PermissionError):
        graph_cache.write_graph(path, b"another")
    assert list(path.parent.iterdir()) == [path]
    assert graph_cache.read_graph(path) == b"graph"


def test_the_graphs_that_were_used_last_are_kept(tmp_path: Path) -> None:
    """Graph n was used at n + 1 seconds, then graph 0 again. The file of a killed process and another one are older."""
    notes = tmp_path / "notes.txt"
    for path in (notes, tmp_path / "tmpabc.graph.part"):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    for n in range(graph_cache.KEPT_GRAPHS):
        graph_cache.write_graph(tmp_path / f"{n}.graph", b"graph")
        os.utime(tmp_path / f"{n}.graph", (n + 1, n + 1))
    assert graph_cache.read_graph(tmp_path / "0.graph") == b"graph"
    graph_cache.write_graph(tmp_path / "new.graph", b"graph")
    kept = {f"{n}.graph" for n in range(graph_cache.KEPT_GRAPHS) if n != 1}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "new.graph", notes.name}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_the_default_weights_run_at_every_flow_scale(scale: float, runtime: str, tmp_path: Path) -> None:
    """Each graph is compared with PyTorch: on white noise, rounding alone would be enlarged to 0.3 % of the range."""
    model = load_model(device="cpu", engine="pytorch")
    engine = RIFE(model.net, name="a", engine=ExportedEngine(model.net, runtime, tmp_path))
    first, second = (torch.nn.functional.interpolate(image[..., :6, :7], (60, 70)) for image in images())
    made, wanted = (next(m.between(first, second, (0.5,), scale=scale)) for m in (engine, model))
    torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)


def test_a_runtime_that_fails_is_one_line(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*inputs: object) -> None:
        raise RuntimeError("no such\n operation")

    net = build("default")
    kind = exported_engine._OpenVino if runtime == "openvino" else exported_engine._OnnxRuntime
    monkeypatch.setattr(kind, "run", fail)
    with pytest.raises(UserError, match=r"cannot run this network; run it by another engine.*: no such operation$"):
        RIFE(net, name="a", engine=ExportedEngine(net, runtime, tmp_path)).inference(*images())


def test_a_device_that_openvino_does_not_find_is_named(shift: type[Shift]) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    found = openvino.Core().available_devices
    for name in ("gpu", "npu"):
        if not any(device.startswith(name.upper()) for device in found):
            with pytest.raises(UserError, match=f"^OpenVINO finds no {name.upper()} here, but CPU"):
                with_engine(shift(), f"openvino-{name}")


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch, shift: type[Shift]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, (title, packages) in RUNTIMES.items():
        with pytest.raises(UserError, match=f"^the engine {name} needs {title}: python3 -m pip install {packages}$"):
            with_engine(shift(), name)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_half_precision_on_a_processor_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would compute coordinates in it too: pictures differed by 8 % of the range."""
    monkeypatch.setattr(exported_engine, "missing_packages", lambda name: None)
    net: Network = build("default").bfloat16()
    with pytest.raises(UserError, match="leave half precision out"):
        with_engine(net, name)


def test_providers_follow_the_device() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 1)
    assert _providers(["DmlExecutionProvider", "CPUExecutionProvider"], cpu) == [
        "DmlExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert _providers(["AzureExecutionProvider", "CPUExecutionProvider"], cpu) == ["CPUExecutionProvider"]
    found = _providers(["CUDAExecutionProvider", "CPUExecutionProvider"], cuda)
    assert found[0] == ("CUDAExecutionProvider", {"device_id": 1})
    with pytest.raises(UserError, match="installed without CUDA: python3 -m pip install onnxruntime-gpu"):
        _providers(["CPUExecutionProvider"], cuda)


def test_openvino_is_the_default_for_a_video_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_kernels", lambda net: False)
    monkeypatch.setattr(exported_engine, "missing_packages", lambda name: None)
    monkeypatch.setattr(engines, "missing_packages", lambda name: None)
    processor = SimpleNamespace(Core=lambda: SimpleNamespace(available_devices=["CPU"]))
    monkeypatch.setitem(sys.modules, "openvino", processor)
    net = build("default")
    chosen = engines.accelerate(net, many=True)
    assert isinstance(chosen, ExportedEngine)
    assert str(RIFE(net, name="a", engine=chosen)).endswith("float32 on cpu by OpenVINO")
    assert engines.accelerate(net) is net  # compiling takes longer than a single frame
    monkeypatch.setattr(engines, "missing_packages", lambda name: "openvino onnx")
    assert engines.accelerate(net, many=True) is net


def test_pytorch_alone_is_an_engine(tiny_weights: Path) -> None:
    model = load_model(tiny_weights, engine="pytorch")
    assert model.engine is model.net
    assert str(model).endswith("float32 on cpu")
