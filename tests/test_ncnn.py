"""ncnn's files, written by ncnn's own converter, hold the weights that went in; damaged ones are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_ncnn import make_network

from model.checkpoint import find_weights, read_weights
from model.errors import WeightsError
from model.loading import load_network

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
    """The half-precision pair, with another graph or other weights."""
    (folder / "flownet.param").write_text(param or (FOLDER / "fp16.param").read_text())
    (folder / "flownet.bin").write_bytes(weights or (FOLDER / "fp16.bin").read_bytes())
    return folder


def refusal(folder: Path) -> str:
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
    assert "the .bin ends after 80000 bytes, but its graph asks for more" in refusal(
        copy(tmp_path, None, weights[:80000])
    )
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
    assert "reads what a later layer makes" in refusal(copy(tmp_path, param, np.zeros(4, "<f4").tobytes()))


@pytest.mark.parametrize("seed", range(3))
def test_scrambled_graphs_are_refused_or_read(seed: int, tmp_path: Path) -> None:
    """Words and numbers exchanged at random end in WeightsError, never in another exception."""
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
