"""Tests that exported files give the network's own pictures in other programs, or one line of error."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_ncnn import make_network
from networks import V3_9, build
from torch import Tensor

from benchmark.ncnn_run import runner
from model import RIFE, UserError
from model.export import __main__ as command
from model.export import ncnn
from model.export.forms import Settings, export, published_state, refusal
from model.export.graph import sample
from model.export.metadata import LoadedNetwork, read_source
from model.IFNet_v4 import IFNet_v4
from model.loading import load_network
from model.networks.warp import warp
from model.weights.checkpoint import WeightFile, read_state

SIZES = ((64, 128), (50, 70), (130, 66))  # height and width: multiples of the padding, and others
TOLERANCE = 1e-4


def source_of(net: Any, name: str = "mine, 2026", version: str = "4.25, 4.26") -> LoadedNetwork:
    return LoadedNetwork(net.requires_grad_(False), name, version, WeightFile(Path("flownet.pkl")), "0" * 64)


@pytest.fixture
def default() -> LoadedNetwork:
    return source_of(build("default"))


def random_inputs(size: tuple[int, int], seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, *size, generator=generator), torch.rand(1, 3, *size, generator=generator)


def session(content: bytes) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def expected(net: Any, img0: Tensor, img1: Tensor, timestep: float, scale: float = 1.0) -> Tensor:
    """Returns the picture of the network's own forward, not of the CPU kernels."""
    return RIFE(net, name="own", engine=net).inference(img0, img1, timestep=timestep, scale=scale).clamp(0, 1)


@pytest.mark.parametrize("factor", [1, 4, 8])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_sample_is_warp(factor: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image, flow = (torch.rand(2, c, 16, 24, generator=generator) for c in (3, 2))
    found, wanted = (f(image, 9 * flow - 3, mode, factor=factor) for f in (sample, warp))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["default", "3.9", "RIFE_m", "HD 3.8"])
def test_a_plain_onnx_graph_gives_the_networks_pictures_at_every_size(name: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    net = build(name)
    (content,) = export(source_of(net), "onnx", Settings()).values()
    run = session(content)
    for size in SIZES:
        img0, img1 = random_inputs(size)
        inputs = {"img0": img0.numpy(), "img1": img1.numpy(), "timestep": np.full((1, 1, 1, 1), 0.3, np.float32)}
        used = {i.name for i in run.get_inputs()}
        (made,) = run.run(None, {key: value for key, value in inputs.items() if key in used})
        wanted = expected(net, img0, img1, 0.3 if net.arbitrary_time else 0.5)
        torch.testing.assert_close(torch.from_numpy(made), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("half", [False, True])
def test_layout_v2_takes_frames_of_any_size(default: LoadedNetwork, half: bool) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    (content,) = export(default, "onnx", Settings(layout="v2", half=half)).values()
    run = session(content)
    for size in SIZES:
        img0, img1 = random_inputs(size)
        (made,) = run.run(None, {"input": torch.cat((img0, img1, torch.full((1, 1, *size), 0.3)), 1).numpy()})
        error = (torch.from_numpy(made) - expected(default.net, img0, img1, 0.3)).abs()
        assert error.mean() < (1e-3 if half else 1e-5)
        assert error.max() < (0.2 if half else TOLERANCE)


def planes(height: int, width: int) -> Tensor:
    """Returns the four planes of layout v1: x and y in -1..1, and the size of a pixel in these coordinates."""
    x, y = torch.linspace(-1, 1, width).expand(1, 1, height, width), torch.linspace(-1, 1, height)[:, None]
    steps = torch.full_like(x, 2 / (width - 1)), torch.full_like(x, 2 / (height - 1))
    return torch.cat((x, y.expand_as(x), *steps), 1)


def test_layout_v1_takes_coordinates(default: LoadedNetwork) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    (content,) = export(default, "onnx", Settings(layout="v1")).values()
    run = session(content)
    for size in ((64, 64), (128, 64), (64, 192)):
        img0, img1 = random_inputs(size)
        whole = torch.cat((img0, img1, torch.full((1, 1, *size), 0.3), planes(*size)), 1)
        (made,) = run.run(None, {"input": whole.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(made), expected(default.net, img0, img1, 0.3), rtol=0, atol=TOLERANCE
        )


@pytest.mark.parametrize(("layout", "channels", "size"), [("v1", 11, (128, 192)), ("v2", 7, (130, 66))])
def test_the_size_of_the_output_follows_from_the_input_as_vs_mlrt_needs(
    default: LoadedNetwork, layout: str, channels: int, size: tuple[int, int]
) -> None:
    """vs-mlrt gives sizes to the input, infers shapes, and takes the output's from ONNX Runtime's session."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    (content,) = export(default, "onnx", Settings(layout=layout)).values()
    model = onnx.load_model_from_string(content)
    assert [i.name for i in model.graph.input] == ["input"]
    assert model.opset_import[0].version >= 16
    of_input, of_output = (v[0].type.tensor_type.shape.dim for v in (model.graph.input, model.graph.output))
    assert [d.dim_param or d.dim_value for d in of_output] == [1, 3, "height", "width"]
    for dim, length in zip(of_input, (1, channels, *size), strict=True):
        dim.dim_value = length
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    run = session(model.SerializeToString())
    assert run.get_inputs()[0].shape == [1, channels, *size]
    assert run.get_outputs()[0].shape == [1, 3, *size]
    if layout == "v1":  # its graph computes no sizes: ONNX's own inference is enough
        assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, *size]


def test_a_half_graph_keeps_coordinates_in_single_precision(default: LoadedNetwork) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    (content,) = export(default, "onnx", Settings(half=True)).values()
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    assert {types[n.input[1]] for n in model.graph.node if n.op_type == "GridSample"} == {single}
    assert {types[n.output[0]] for n in model.graph.node if n.op_type == "Conv"} == {half}
    assert len(content) < 0.8 * len(next(iter(export(default, "onnx", Settings()).values())))


def test_metadata_names_weights_padding_and_licence(tiny_weights: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    source = read_source(tiny_weights, name="mine", licence="CC0")
    (content,) = export(source, "onnx", Settings()).values()
    texts = {p.key: p.value for p in onnx.load_model_from_string(content).metadata_props}
    assert texts["name"] == "mine"
    assert texts["padding"] == "multiples of 64, zeros"
    assert texts["licence"] == "CC0"
    assert len(texts["source_sha256"]) == 64
    assert texts["layout"] == "plain"


# The keys of one block and of the encoder of 4.25, which ComfyUI's nodes and vs-rife load strictly.
BLOCK_KEYS = [
    *(f"conv0.{i}.0.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")),
    *(f"convblock.{i}.{leaf}" for i in range(8) for leaf in ("beta", "conv.weight", "conv.bias")),
    "lastconv.0.weight",
    "lastconv.0.bias",
]
KEYS_4_25 = {
    *(f"block{i}.{key}" for i in range(5) for key in BLOCK_KEYS),
    *(f"encode.cnn{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")),
}


def test_pkl_and_comfy_hold_the_published_keys_alone(default: LoadedNetwork) -> None:
    (pkl,) = export(default, "pkl", Settings()).values()
    (comfy,) = export(default, "comfy", Settings()).values()
    states = [torch.load(io.BytesIO(content), weights_only=True) for content in (pkl, comfy)]
    assert set(states[0]) == {f"module.{key}" for key in KEYS_4_25}
    assert set(states[1]) == KEYS_4_25
    for key, value in default.net.state_dict().items():
        assert key == "sharp" or torch.equal(states[1][key], value)


def test_the_teacher_is_left_out() -> None:
    source = source_of(build("RIFE_m"), version="RIFE_m")
    assert any(key.startswith("block_tea.") for key in source.net.state_dict())
    assert not any(key.startswith("block_tea.") for key in published_state(source))


def test_ncnn_files_are_read_back_and_warp_by_the_programs_layer(tmp_path: Path) -> None:
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    net = make_network()
    files = export(source_of(net), "ncnn", Settings())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    read = load_network(tmp_path / "flownet.param")[0]
    for key, value in net.state_dict().items():
        assert torch.equal(read.state_dict()[key], value), key
    for warped in (line.split() for line in files["flownet.param"].decode().splitlines() if line.startswith(ncnn.WARP)):
        assert warped[2:4] == ["2", "1"]  # the programs' layer reads image and flow and fills one output
    lines = [line.split() for line in files["flownet.param"].decode().splitlines()[2:]]
    kinds = {line[0] for line in lines}
    assert ncnn.WARP in kinds
    assert not any(kind.startswith(("pnnx.", "torch.", "Tensor.", "F.")) for kind in kinds)
    assert [line[1] for line in lines if line[0] == "Input"] == list(ncnn.INPUTS)
    assert lines[-1][5 if lines[-1][2] == "1" else 4 + int(lines[-1][2])] == ncnn.OUTPUT
    assert json.loads(files["flownet.json"])["padding"] == "multiples of 64, zeros"


def test_ncnn_itself_gives_the_networks_pictures(tmp_path: Path) -> None:
    """The first input of each rife.Warp is the image, the second the flow: swapped, the pictures would differ."""
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    net = make_network().requires_grad_(False)
    files = export(source_of(net), "ncnn", Settings())
    run = runner(files["flownet.param"].decode(), files["flownet.bin"], str(tmp_path), 0.3)
    for size in ((64, 128), (128, 64)):
        img0, img1 = random_inputs(size)
        torch.testing.assert_close(run(img0, img1), expected(net, img0, img1, 0.3), rtol=0, atol=1e-3)


def test_ncnn_runs_a_network_without_features(tmp_path: Path) -> None:
    """The last part of the split of a block's output is empty there, which ncnn's Slice does not take."""
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    net = IFNet_v4(replace(V3_9, refine=False)).eval().requires_grad_(False)
    files = export(source_of(net), "ncnn", Settings())
    run = runner(files["flownet.param"].decode(), files["flownet.bin"], str(tmp_path), 0.3)
    img0, img1 = random_inputs((64, 128))
    torch.testing.assert_close(run(img0, img1), expected(net, img0, img1, 0.3), rtol=0, atol=1e-3)


def test_ncnn_runs_warps_of_smaller_images(tmp_path: Path) -> None:
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    net = build("RIFE_m").eval().requires_grad_(False)
    files = export(source_of(net), "ncnn", Settings())
    run = runner(files["flownet.param"].decode(), files["flownet.bin"], str(tmp_path), 0.3)
    for size in ((64, 128), (96, 64)):
        img0, img1 = random_inputs(size)
        torch.testing.assert_close(run(img0, img1), expected(net, img0, img1, 0.3), rtol=0, atol=1e-4)


def test_openvino_gives_the_networks_pictures(tmp_path: Path, tiny_net: IFNet_v4) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    source = source_of(tiny_net)
    for suffix, content in export(source, "openvino", Settings()).items():
        (tmp_path / f"a{suffix}").write_bytes(content)
    compiled = openvino.Core().compile_model(tmp_path / "a.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    img0, img1 = random_inputs((50, 70))
    (made,) = compiled([img0.numpy(), img1.numpy(), np.full((1, 1, 1, 1), 0.3, np.float32)]).values()
    torch.testing.assert_close(torch.from_numpy(made), expected(tiny_net, img0, img1, 0.3), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_a_torch_program_gives_the_networks_pictures(tmp_path: Path, tiny_net: IFNet_v4) -> None:
    (content,) = export(source_of(tiny_net), "torch", Settings()).values()
    (tmp_path / "a.pt2").write_bytes(content)
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()
    assert json.loads(extra["metadata.json"])["version"] == "4.25, 4.26"
    for size in ((128, 256), (192, 128)):
        img0, img1 = random_inputs(size)
        with torch.no_grad():
            made = program(img0, img1, torch.full((1, 1, 1, 1), 0.3))
        torch.testing.assert_close(made, expected(tiny_net, img0, img1, 0.3), rtol=0, atol=TOLERANCE)


def test_refusals_name_the_reason() -> None:
    auto = source_of(IFNet_v4(replace(V3_9, auto_scale=True)), version="4.0, 4.1")
    middle, default = source_of(build("paper"), version="RIFE"), source_of(build("default"))
    cases = {
        "fixed steps": (auto, "onnx", Settings()),
        "any timestep, but this network estimates the middle": (middle, "onnx", Settings(layout="v2")),
        "the ncnn programs take": (middle, "ncnn", Settings()),
        "no ensemble": (default, "onnx", Settings(ensemble=True)),
    }
    for words, (source, form, settings) in cases.items():
        assert words in (refusal(source, form, settings) or "")
        with pytest.raises(UserError, match=words):
            export(source, form, settings)
    assert refusal(auto, "pkl", Settings()) is None
    assert refusal(middle, "onnx", Settings()) is None


def test_the_command_writes_weights_with_their_metadata(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([str(tiny_weights), "--to", "pkl", "--name", "Mine 1"]) == 0
    assert command.main([str(tiny_weights), "--to", "comfy", "--name", "Mine 1"]) == 0
    for form in ("pkl", "pth"):  # the files of one do not stand in the way of the other
        assert json.loads((tmp_path / f"rife-mine-1.{form}.json").read_text())["name"] == "Mine 1"
    state = read_state(tmp_path / "rife-mine-1.pkl")
    assert set(state) == KEYS_4_25
    assert command.main([str(tiny_weights), "--to", "pkl", "--name", "Mine 1"]) == 1
    assert capsys.readouterr().err.startswith("model.export: rife-mine-1.pkl: exists already")
    assert command.main([str(tiny_weights), "--to", "comfy", "--fp16"]) == 1
    assert capsys.readouterr().err == "model.export: --fp16: the form comfy has no such setting; leave it out\n"
    assert command.main([str(tiny_weights), "--to", "pkl", "--output", "."]) == 1
    assert capsys.readouterr().err == "model.export: .: is a folder; give the name of a file as the output\n"


def test_outputs_are_checked_before_the_work(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "export", None)  # would fail
    (tmp_path / "file").touch()
    (tmp_path / "weights").mkdir()
    for form, name, words in (
        ("pkl", "weights", "is a folder; give the name of a file"),  # weights.pkl beside it would be a surprise
        ("ncnn", "file", "is a file; give the name of a folder"),
        ("ncnn", "missing/folder", "its folder does not exist"),
        ("torch", "missing/a", "its folder does not exist"),
    ):
        assert command.main([str(tiny_weights), "--to", form, "--output", str(tmp_path / name), "--overwrite"]) == 1
        assert words in capsys.readouterr().err


def test_a_missing_package_is_named(default: LoadedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    for form, package in (("onnx", "onnx"), ("ncnn", "pnnx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=f"python3 -m pip install {package}$"):
            export(default, form, Settings())
