"""Tests that files of ncnn's own converter are read with the weights converted; damaged files are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_ncnn import make_network
from torch import Tensor, nn

from model.errors import WeightsError
from model.loading import load_network
from model.weights.checkpoint import find_weights, read_weights
from model.weights.ncnn import CONVOLUTIONS, read_convolutions, read_layers

FOLDER = Path(__file__).parent / "golden" / "ncnn"
HALF_STEP = 2.0**-10  # relative step of float16
HALF_TINY = 2.0**-14  # below it the converter writes zero


def test_full_precision_is_exact() -> None:
    state = read_weights(find_weights(FOLDER / "fp32.param"))
    wanted = make_network().state_dict()
    assert state.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(state[key], value), key


def test_half_precision_is_equal_to_its_rounding() -> None:
    state = read_weights(find_weights(FOLDER / "fp16.bin"))
    wanted = make_network().state_dict()
    assert state.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(state[key], value, rtol=HALF_STEP, atol=HALF_TINY)
        if value.dim() < 4 or "beta" in key:  # only the weights of convolutions are stored in half precision
            assert torch.equal(state[key], value)


@torch.inference_mode()
def test_the_network_read_gives_the_same_frames() -> None:
    read, name, _ = load_network(FOLDER / "fp16.param")
    assert name == "v4 (not a published one; widths 8, 8, 4, 4, 4)"
    rng = np.random.default_rng(0)
    img0, img1 = (torch.from_numpy(rng.random((1, 3, 64, 64), np.float32)) for _ in range(2))
    got, wanted = read.eval()(img0, img1, 0.3), make_network()(img0, img1, 0.3)
    torch.testing.assert_close(got.image, wanted.image, rtol=0, atol=0.01)
    torch.testing.assert_close(got.flow, wanted.flow, rtol=0, atol=0.05)


def copy(folder: Path, param: str | None = None, weights: bytes | None = None) -> Path:
    """Writes the half-precision pair to a folder, with another graph or other weights if given; returns the folder."""
    (folder / "flownet.param").write_text(param or (FOLDER / "fp16.param").read_text())
    (folder / "flownet.bin").write_bytes(weights or (FOLDER / "fp16.bin").read_bytes())
    return folder


def refusal(folder: Path) -> str:
    """Returns the error message for an unusable folder; checks that it is one line and names the folder."""
    with pytest.raises(WeightsError) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_folder_by_any_name(tmp_path: Path) -> None:
    assert load_network(copy(tmp_path))[2].name.name == "flownet.param"


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "fp16.param", tmp_path / "flownet.param")
    assert "its .bin is not beside it; ncnn weights are a pair of files" in refusal(tmp_path)


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = (FOLDER / "fp16.bin").read_bytes()
    assert "the .bin ends after 80000 bytes, but its graph needs more" in refusal(copy(tmp_path, None, weights[:80000]))
    assert "the .bin holds 8 bytes more than its graph reads" in refusal(copy(tmp_path, None, weights + bytes(8)))
    other = b"\x38\x4b\x0d\x00" + weights[4:]  # ncnn's tag of int8
    assert "weights stored as 0x000D4B38; only float32 and float16 can be read" in refusal(copy(tmp_path, None, other))


def test_graphs_that_are_none_are_refused(tmp_path: Path) -> None:
    text = (FOLDER / "fp16.param").read_text()
    assert "no ncnn text graph (binary ones are not read)" in refusal(copy(tmp_path, "\x00\x01 binary"))
    assert "the .param is cut off: 100 of 481 layers" in refusal(copy(tmp_path, "\n".join(text.split("\n")[:102])))
    assert "first line '123'" in refusal(copy(tmp_path, "123" + text[7:]))
    assert "is quantized to int8" in refusal(copy(tmp_path, text.replace(" 9=2\n", " 9=2 8=1\n")))


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    param = "7767517\n2 2\nInput in0 0 1 in0\nConvolution conv 1 1 in0 1 0=4 1=3 5=1 6=108\n"
    weights = np.zeros(1 + 108 + 4, "<f4").tobytes()
    assert "a graph of 1 convolutions that fits no known network; its first are (4, 3, 3, 3)" in refusal(
        copy(tmp_path, param, weights)
    )


def test_a_graph_that_runs_in_a_circle_ends(tmp_path: Path) -> None:
    param = "7767517\n2 2\nSplit a 1 1 y x\nPReLU b 1 1 x y 0=4\n"
    assert "reads the result of a later layer" in refusal(copy(tmp_path, param, np.zeros(4, "<f4").tobytes()))


@pytest.mark.parametrize("seed", range(3))
def test_scrambled_graphs_are_refused_or_read(seed: int, tmp_path: Path) -> None:
    """Checks that words exchanged at random raise WeightsError or nothing, never another exception."""
    rng = np.random.default_rng(seed)
    words = (FOLDER / "fp16.param").read_text().split(" ")
    for _ in range(40):
        changed = list(words)
        for i, j in rng.integers(0, len(words), (3, 2)):
            changed[i], changed[j] = changed[j], changed[i]
        copy(tmp_path, " ".join(changed))
        try:
            message = "" if read_weights(find_weights(tmp_path)) else "empty"
        except WeightsError as e:
            message = str(e)
        assert "\n" not in message
        assert message != "empty"


def write_graph(lines: list[str], arrays: list[Tensor]) -> tuple[bytes, bytes]:
    """Returns .param and .bin of a graph with float32 arrays; the weights of convolutions (4-D) follow an empty tag."""
    text = "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""])
    return text.encode(), b"".join(bytes(4 * (a.dim() == 4)) + a.detach().numpy().tobytes() for a in arrays)


@torch.inference_mode()
def test_normalisation_is_folded_into_its_convolution() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4).eval()
    norm.weight.uniform_(0.5, 2)
    norm.bias.uniform_(-1, 1)
    norm.running_mean = torch.rand(4)
    norm.running_var = torch.rand(4) + 0.5
    lines = ["Input in 0 1 a", "Convolution c 1 1 a b 0=4 1=3 4=1 5=0 6=108", "BatchNorm n 1 1 b c 0=4 1=1e-5"]
    arrays = [conv.weight, norm.weight, norm.running_mean, norm.running_var, norm.bias]
    (found,) = read_convolutions(*write_graph(lines, arrays))
    image = torch.rand(1, 3, 8, 8)
    assert found.bias is not None
    got = nn.functional.conv2d(image, torch.from_numpy(found.weight), torch.from_numpy(found.bias), padding=1)
    torch.testing.assert_close(got, norm(conv(image)))


def test_layers_as_other_converters_write_them() -> None:
    """Reads groups, a 1x1 convolution as a fully connected layer, separate and fused slopes, and shared weights."""
    torch.manual_seed(0)
    grouped, bias = torch.rand(4, 2, 3, 3), torch.rand(4)
    connected, slope = torch.rand(6, 4, 1, 1), torch.rand(6)
    pointwise, up = torch.rand(5, 6, 1, 1), torch.rand(7, 5, 4, 4)  # ncnn keeps (out,in,h,w) of transposed ones too
    lines = [
        "Input in 0 1 a",
        "ConvolutionDepthWise c 1 1 a b 0=4 1=3 4=1 5=1 6=72 7=2",
        "InnerProduct d 1 1 b c 0=6 1=0 2=24",
        "PReLU e 1 1 c d 0=6",
        "Convolution f 1 1 d e 0=5 1=1 5=0 6=30 9=2 -23310=1,0.25",
        "Deconvolution g 1 1 e f 0=7 1=4 3=2 4=1 5=0 6=560",
        "ConvolutionDepthWise h 1 1 a g 0=4 1=3 4=1 5=1 6=72 7=2",
    ]
    arrays = [grouped, bias, connected, slope, pointwise, up, grouped, bias]
    found = read_convolutions(*write_graph(lines, arrays))
    assert len(found) == 4  # the last is the first again
    for conv, weight in zip(found, (grouped, connected, pointwise, up.transpose(0, 1)), strict=True):
        assert torch.equal(torch.from_numpy(conv.weight.copy()), weight)
    assert [s.tolist() for conv in found for s in conv.slopes] == [slope.tolist(), [0.25]]
    assert [conv.transposed for conv in found] == [False, False, False, True]


@torch.inference_mode()
def test_folded_betas_give_the_same_network(tmp_path: Path) -> None:
    """Folds the betas as ncnn's optimizer does: multiplied into the convolution, two layers fewer."""
    layers = read_layers((FOLDER / "fp32.param").read_bytes(), (FOLDER / "fp32.bin").read_bytes())
    betas = {layer.tops[0]: layer.arrays[0] for layer in layers if layer.kind == "MemoryData" and "block" in layer.name}
    products = {
        p.bottoms[0]: p for p in layers if p.kind == "BinaryOp" and len(p.bottoms) == 2 and p.bottoms[1] in betas
    }
    assert len(betas) == len(products) == 40
    lines = (FOLDER / "fp32.param").read_text().split("\n")[2:-1]
    kept, arrays = [], bytearray()
    for line, layer in zip(lines, layers, strict=True):
        if layer.tops[0] in betas or layer in products.values():
            continue
        factor = betas[products[layer.tops[0]].bottoms[1]] if layer.tops[0] in products else np.ones(1, np.float32)
        for i, array in enumerate(layer.arrays):
            tag = bytes(4 if layer.kind in CONVOLUTIONS and i == 0 else 0)
            arrays += tag + (array.reshape(factor.size, -1) * factor[:, None]).astype("<f4").tobytes()
        if layer.tops[0] in products:
            line = line.replace(f" {layer.tops[0]} 0=", f" {products[layer.tops[0]].tops[0]} 0=")
        kept.append(line)
    copy(tmp_path, "\n".join(["7767517", f"{len(kept)} {len(kept)}", *kept, ""]), bytes(arrays))
    net = load_network(tmp_path)[0].eval()
    assert {float(p.min()) for name, p in net.named_parameters() if name.endswith("beta")} == {1.0}
    img0, img1 = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(img0, img1, 0.3).image, make_network()(img0, img1, 0.3).image, rtol=0, atol=1e-5)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = (FOLDER / "fp32.bin").read_bytes()
    values = np.frombuffer(weights, "<f4").copy()
    values[-4] = np.nan  # a bias of the last layer
    copy(tmp_path, (FOLDER / "fp32.param").read_text(), values.tobytes())
    assert "block4.lastconv.0.bias holds NaN or infinite values" in refusal(tmp_path)
