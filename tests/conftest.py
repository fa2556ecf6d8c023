"""Defines small networks and pictures that the tests share; nothing is downloaded, nothing needs a GPU."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import inference_img
from benchmark import common
from commands import network_flags as flags
from model import RIFE
from model.contract import Network, NetworkModule, Prediction
from model.IFNet_v4 import IFNet_v4
from model.networks.layers import blend, timestep_plane
from model.networks.warp import warp
from model.signals import ENDING_SIGNALS
from model.weights.published import IFNetConfig
from video.pictures.picture import read_picture, write_picture

TINY = IFNetConfig(
    (16, 16, 8, 8, 8), (16, 8, 4, 2, 1), encoder="H3", encoder_width=8, encoder_channels=4
)  # the graph of 4.25, at widths of no published network

LEFT_OUT = pytest.StashKey[int]()  # number of tests


def pytest_configure() -> None:
    # On tiny networks threads mostly wait for each other: 18 s against 82 s on two busy cores.
    torch.set_num_threads(1)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Counts the tests that the command line leaves out."""
    items[0].config.stash[LEFT_OUT] = items[0].config.stash.get(LEFT_OUT, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the count from a process that runs a share of the tests to the one that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receives the count; every process has read all tests."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints how many slow tests were left out, and how to run them."""
    left_out = config.stash.get(LEFT_OUT, 0)
    if config.option.markexpr == "not slow" and left_out:
        terminalreporter.write_line(f"{left_out} slow tests were left out; all tests: make test-all")


class Shift(NetworkModule):
    """Moves everything by `motion` pixels to the right from img0 to img1: a network with a known result."""

    pad_multiple = 8

    def __init__(self, motion: float = 0, *, arbitrary_time: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.motion = motion
        self.arbitrary_time = arbitrary_time
        self.encoded = 0  # calls of frame_features
        self.timesteps: list[float] = []  # timesteps that forward was given

    def frame_features(self, image: Tensor) -> Tensor:
        self.encoded += 1
        return image[:, :1]

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Tensor,
        features1: Tensor,
        *,
        scale: float = 1.0,
    ) -> Prediction:
        assert torch.equal(features0, img0[:, :1])
        assert torch.equal(features1, img1[:, :1])
        plane = timestep_plane(timestep, img0)
        self.timesteps.append(float(plane.mean()))
        still = torch.zeros_like(plane)
        # content at x lay at x - t*motion in img0 and will lie at x + (1-t)*motion in img1
        flow = torch.cat((-plane * self.motion, still, (1 - plane) * self.motion, still), 1)
        mask = 1 - plane
        image = blend(warp(img0, flow[:, :2]), warp(img1, flow[:, 2:]), mask)
        return Prediction(image, flow, mask)


@pytest.fixture
def shift() -> type[Shift]:
    return Shift


@pytest.fixture(scope="session")
def tiny_net() -> IFNet_v4:
    """Returns a v4 network with random weights, the same every time, whose flows reach a few pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return IFNet_v4(TINY).eval()


@pytest.fixture(scope="session")
def tiny_weights(tiny_net: IFNet_v4, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the weights of `tiny_net`, as the command-line tests load them."""
    folder = tmp_path_factory.mktemp("tiny_weights")
    safetensors.torch.save_file(tiny_net.state_dict(), folder / "flownet.safetensors")
    return folder


MovingSquare = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def moving_square() -> MovingSquare:
    """Makes two pictures (H,W,C): a bright square on a gradient, and the same with the square moved."""

    def make(
        height: int = 48, width: int = 64, channels: int = 3, *, dtype: type = np.uint8, motion: int = 8
    ) -> tuple[np.ndarray, np.ndarray]:
        limit = 1.0 if np.issubdtype(dtype, np.floating) else float(np.iinfo(dtype).max)
        ground = np.linspace(0.1, 0.5, width)[None, :, None] * np.linspace(1, 0.6, channels) * np.ones((height, 1, 1))
        pictures: list[np.ndarray] = []
        for x in (width // 4, width // 4 + motion):
            picture = ground.copy()
            picture[height // 4 : height // 2, x : x + width // 4] = np.linspace(0.9, 0.7, channels)
            pictures.append((picture * limit).astype(dtype))
        return pictures[0], pictures[1]

    return make


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls main on a.png and b.png (or others) in an empty folder -> exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*options: str, img: tuple[str, str] = ("a.png", "b.png")) -> tuple[int, str, str]:
        weights = () if "--model" in options else ("--model", str(tiny_weights))
        status = inference_img.main(["--img", *img, "--device", "cpu", *weights, *options])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def pair(tmp_path: Path, moving_square: MovingSquare) -> tuple[np.ndarray, np.ndarray]:
    """Returns two 8-bit pictures, also written as a.png and b.png."""
    pictures = moving_square()
    for name, picture in zip("ab", pictures, strict=True):
        write_picture(tmp_path / f"{name}.png", picture)
    return pictures


def use(net: Shift, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the script load a network whose answer is known."""
    monkeypatch.setattr(flags, "load_model", lambda *_, **__: RIFE(net, name="shift"))


def written(folder: str = "output") -> list[np.ndarray]:
    """Returns img0, img1, .. as far as they go; asserts that the folder holds nothing else."""
    names = sorted((path.name for path in Path(folder).iterdir()), key=lambda name: int(re.sub(r"\D", "", name)))
    assert names == [f"img{i}{Path(names[0]).suffix}" for i in range(len(names))]
    return [read_picture(Path(folder) / name) for name in names]


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Runs a benchmark on a network, without LPIPS, and returns the record of its last line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(name: str, net: Network, data: Path, *options: str) -> dict[str, Any]:
        monkeypatch.setattr(common, "load_model", lambda *_, **__: RIFE(net, name="fake"))
        test_set = import_module(f"benchmark.{name}").SET
        status = common.main(test_set, "", ["--data", str(data), "--device", "cpu", *options])
        out, err = capsys.readouterr()
        assert status == 0, err
        return json.loads(out.splitlines()[-1])

    return call


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Sets the handlers of a terminal: under nohup, or in the background, the tests inherit ignored signals."""
    usual = dict.fromkeys(ENDING_SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
