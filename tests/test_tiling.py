"""Tests tiles: their weights sum to one, they give the whole frame, and they are halved if memory runs out."""

from fractions import Fraction
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Shift
from networks import build
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import inference_img
import inference_video
from model import RIFE, UserError, load_model
from model.contract import Prediction
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.image import to_tensor
from model.inference import tile_engine
from model.inference.engines import accelerate
from model.inference.memory import available_bytes, bytes_per_pixel, peak_bytes
from model.inference.tile_engine import TileEngine, describe_tiles, tile_size, tiled
from model.inference.tiles import spans
from model.loading import AnyNetwork, load_network
from model.metrics import psnr
from model.weights.published import PUBLISHED, IFNetConfig
from video.pictures.picture import read_picture
from video.reading.reader import open_frames

SHARED = Path(__file__).parents[2] / "shared" / "data" / "eval"
MIDDLEBURY, FAST_PAN = SHARED / "middlebury_other" / "other-data", SHARED / "clips" / "lady-running.mp4"


@pytest.mark.parametrize("size", [64, 256, 704, 1088, 3840, 7680])
@pytest.mark.parametrize(("tile", "overlap"), [(256, 64), (300, 100), (512, 128), (1024, 128), (256, 500)])
def test_spans_cover_and_their_weights_add_up_to_one(size: int, tile: int, overlap: int) -> None:
    found = spans(size, tile, overlap, 64)
    total = torch.zeros(size)
    for span in found:
        assert span.start % 64 == span.stop % 64 == 0
        assert 0 <= span.start < span.stop <= size
        assert span.stop - span.start == found[0].stop - found[0].start <= max(tile, 64)
        assert span.weights.min() >= 0
        total[span.start : span.stop] += span.weights
    torch.testing.assert_close(total, torch.ones(size), rtol=0, atol=1e-6)
    shared = [a.stop - b.start for a, b in pairwise(found)]
    assert all(px >= min(overlap, tile // 128 * 64) for px in shared)
    for span in found:  # no weight at an edge that is a seam
        assert size == span.stop or span.weights[-1] < 0.01
        assert span.start == 0 or span.weights[0] < 0.01


def pair(height: int, width: int, channels: int = 3, *, motion: int = 2, sigma: float = 4) -> tuple[Tensor, Tensor]:
    """Returns smooth noise, and the same moved to the right by some pixels."""
    noise = np.random.default_rng(0).random((height, width + motion, channels), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    img0, img1 = (to_tensor(smooth[:, x : x + width]) for x in (motion, 0))
    return img0, img1


@pytest.mark.parametrize("arbitrary", [True, False])
def test_tiles_of_a_network_without_a_neighbourhood_give_the_whole_frame(arbitrary: bool) -> None:
    """Everything about the wrapper at once: extra channels, several times, halving, turned frames, flow."""
    img0, img1 = pair(150, 200, 4)
    whole, cut = (RIFE(Shift(2, arbitrary_time=arbitrary), name="shift") for _ in range(2))
    tiles = tiled(cut, 64, overlap=16)
    assert describe_tiles(tiles, 150, 200) == ", in 20 tiles of 64x56"
    steps = [Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)]
    for tta in (False, True):
        expected, got = ([*m.between(img0, img1, steps, tta=tta)] for m in (whole, tiles))
        for a, b in zip(expected, got, strict=True):
            assert a.shape == b.shape == (1, 4, 150, 200)
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.flow(img0, img1), tiles.flow(img0, img1), rtol=0, atol=1e-5)
    if arbitrary:
        ramp = torch.linspace(0, 1, 200).expand(1, 1, 150, 200)
        expected_map, got_map = (m.inference(img0, img1, timestep=ramp) for m in (whole, tiles))
        torch.testing.assert_close(expected_map, got_map, rtol=0, atol=1e-5)


def test_features_are_computed_once_a_frame_and_tile() -> None:
    net = Shift(2)
    tiles = tiled(RIFE(net, name="shift"), 64, overlap=16)
    frames = [tiles.prepare(image) for image in (*pair(128, 128), pair(128, 128)[0])]
    count = TileEngine(net, 64, overlap=16).grid(128, 128).tile_count
    for first, second in pairwise(frames):
        list(tiles.between(first, second, [0.25, 0.5]))
    assert net.encoded == 3 * count > 3


@pytest.mark.parametrize("kind", ["paper", "4.25"])
def test_features_of_tiles_are_those_of_the_frame(kind: str) -> None:
    torch.manual_seed(1)
    net = IFNet() if kind == "paper" else IFNet_v4(PUBLISHED["4.25, 4.26"])
    for engine in (accelerate(net.eval()), net):
        frame = tiled(RIFE(net, name=kind, engine=engine), 256).prepare(pair(300, 420)[0])
        made, known = (tree_leaves(f) for f in (frame.features, engine.frame_features(frame.image)))
        assert len(made) == len(known) > 0
        for a, b in zip(made, known, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_one_tile_equals_the_network_bit_for_bit(tiny_net: IFNet_v4) -> None:
    model = RIFE(tiny_net, name="tiny")
    img0, img1 = pair(100, 130)
    assert torch.equal(tiled(model).inference(img0, img1), model.inference(img0, img1))
    assert describe_tiles(tiled(model, 512), 100, 130) == ""


def test_the_refinement_of_the_paper_network_on_tiles_is_that_of_the_whole_frame() -> None:
    """Blocks that leave the flow at 0 and the mask at 1/2, so that all that differs is the residual of the Unet."""
    torch.manual_seed(0)
    net = IFNet().eval()
    for i in range(3):
        tail = net.get_submodule(f"block{i}.lastconv")
        assert isinstance(tail, nn.ConvTranspose2d)
        nn.init.zeros_(tail.weight)
        nn.init.zeros_(tail.bias)  # type: ignore[arg-type]
    model = RIFE(net, name="paper")
    img0, img1 = pair(256, 384)
    whole = model.inference(img0, img1)
    assert psnr((img0 + img1) / 2, whole) < 40  # the residual is not zero
    assert psnr(tiled(model, 256, overlap=128).inference(img0, img1), whole) > 60


@pytest.mark.skipif(not MIDDLEBURY.is_dir(), reason="no Middlebury pictures here")
@pytest.mark.parametrize("name", ["Urban3", "Grove2"])
def test_seams_are_invisible_with_the_default_weights(name: str) -> None:
    """640x480 in tiles of 384, motion of up to 18 px: the whole frame to better than 50 dB."""
    model = load_model()
    img0, img1 = (to_tensor(read_picture(MIDDLEBURY / name / f"frame1{i}.png")) for i in (0, 1))
    tiles = tiled(model, 384)
    assert describe_tiles(tiles, 480, 640).startswith(", in ")
    assert psnr(tiles.inference(img0, img1), model.inference(img0, img1)) > 50


def default_network() -> AnyNetwork:
    """Returns the default weights, without the kernels."""
    return load_network("train_log")[0].eval()


@pytest.mark.parametrize("own_forward", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_seams_of_small_tiles_are_invisible_in_large_motion(scale: float, own_forward: bool) -> None:
    """48 px from frame to frame. With the coarse blocks on tiles too it is 54 and 58 dB."""
    model = load_model()
    img0, img1 = pair(512, 768, motion=48, sigma=8)
    if own_forward:
        model.engine = default_network()
    made = tiled(model, 256).inference(img0, img1, scale=scale)
    assert psnr(made, model.inference(img0, img1, scale=scale)) > 80


@pytest.mark.slow
@pytest.mark.skipif(not FAST_PAN.exists(), reason="no shared clips here")
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_seams_are_invisible_in_a_fast_pan_in_4k(scale: float) -> None:
    """The pan moves by up to 60 px to either frame."""
    model = load_model()
    pictures = (frame.rgb() for frame in islice(open_frames(FAST_PAN), 4, 6))
    img0, img1 = (to_tensor(cv2.resize(p, (3840, 2160), interpolation=cv2.INTER_CUBIC)) for p in pictures)
    made = tiled(model, 1024).inference(img0, img1, scale=scale)
    assert psnr(made, model.inference(img0, img1, scale=scale)) > 70


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale"),
    [*product(["default", "3.9", "paper", "RIFE_m"], [0.25, 1.0]), ("2R", 0.25), ("default", 4.0)],
)
@torch.no_grad()
def test_coarse_blocks_first_and_the_others_later_give_the_result_of_one_call(name: str, scale: float) -> None:
    """Both the kernels and the network's own forward are run, with options and maps of timesteps."""
    net = build(name)
    images = pair(256, 256)
    calls: list[tuple[float | Tensor, dict[str, bool]]] = [(0.3, {}), (torch.rand(1, 1, 256, 256), {})]
    if name == "3.9":
        calls.append((0.3, {"ensemble": True, "refine": True}))
    engines: tuple[Any, Any] = (net, accelerate(net))
    for engine in engines:
        features = [engine.frame_features(image) for image in images]
        for time, options in calls:
            coarse = engine.estimate_coarse(*images, time, *features, scale=scale, **options)
            made = engine(*images, time, *features, scale=scale, coarse=coarse, **options)
            expected = engine(*images, time, *features, scale=scale, **options)
            assert all(torch.equal(a, b) for a, b in zip(made[:3], expected[:3], strict=True))


@torch.no_grad()
def test_the_network_continues_from_the_coarse_blocks_of_the_kernels() -> None:
    """The outputs of the kernels need a pixel shuffle; the network's own do not."""
    net, images = build("default"), pair(256, 256)
    engine = accelerate(net)
    features = [engine.frame_features(image) for image in images]
    coarse = engine.estimate_coarse(*images, 0.3, *features)
    made, expected = net(*images, 0.3, coarse=coarse), net(*images, 0.3)
    torch.testing.assert_close(made.flow, expected.flow, rtol=0, atol=1e-4)
    torch.testing.assert_close(made.image, expected.image, rtol=0, atol=1e-5)


def test_tiles_overlap_more_without_a_coarse_stage() -> None:
    """HD networks, and 4.0 and 4.1, which choose their scales by the flow that coarse blocks find."""
    chooses = IFNet_v4(IFNetConfig((8, 8, 8, 8), (8, 4, 2, 1), auto_scale=True))
    for net, scale, overlap in (
        (build("default"), 0.5, 128),
        (build("HD 3.8"), 1.0, 384),
        (build("HD 3.8"), 0.5, 512),
        (chooses, 1.0, 384),
    ):
        rows, _ = TileEngine(net, 1024).grid(1024 + 640, 1024, scale)
        assert rows[0].stop - rows[1].start == overlap, net


class Small(Shift):
    """Runs a network on a device that holds no more than `pixels` at once."""

    def __init__(self, pixels: int) -> None:
        super().__init__(2)
        self.pixels = pixels

    def forward(self, img0: Tensor, *rest: Any, scale: float = 1.0) -> Prediction:
        if img0.shape[2] * img0.shape[3] > self.pixels:
            raise torch.OutOfMemoryError("Out of memory. Tried to allocate 4 GiB. GPU 0 has ..")
        return super().forward(img0, *rest, scale=scale)


def test_running_out_of_memory_halves_the_tiles_and_reports_it_once() -> None:
    lines: list[str] = []
    tiles = tiled(RIFE(Small(300 * 300), name="small"), report=lines.append)
    img0, img1 = pair(600, 1000)
    got = list(tiles.between(img0, img1, [0.25, 0.5, 0.75]))
    for a, b in zip(RIFE(Shift(2), name="shift").between(img0, img1, [0.25, 0.5, 0.75]), got, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert lines == ["Out of memory on cpu: the network runs on tiles of 500 px from here on"]
    assert isinstance(tiles.engine, TileEngine)
    assert tiles.engine.tile == 256


def test_the_smallest_tiles_out_of_memory_end_in_one_line() -> None:
    tiles = tiled(RIFE(Small(100), name="small"), report=lambda line: None)
    with pytest.raises(UserError, match=r"^Out of memory; tiles of 2\d\d px are the smallest: use a lower flow scale"):
        tiles.inference(*pair(600, 400))


@pytest.mark.slow
def test_the_tile_size_follows_from_the_free_memory(tiny_net: IFNet_v4, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RIFE(tiny_net, name="tiny")
    plain, each = bytes_per_pixel(tiny_net), bytes_per_pixel(model.engine)
    assert plain == pytest.approx(1.5 * peak_bytes(tiny_net, 2048, 1024) / 2**21, rel=0.05)
    pixels = 2160 * 3840
    for free, expected in (
        ((each + 450) * pixels / 0.8 + 1e6, 0),
        ((each / 9 + 450) * pixels / 0.8, int((pixels / 9) ** 0.5)),
        (1, 256),
        (None, 0),
    ):
        monkeypatch.setattr(tile_engine, "available_bytes", lambda device, free=free: free)
        assert tile_size(model, 2160, 3840) == pytest.approx(expected, abs=1)


def test_free_memory_is_the_least_of_the_system_and_the_containers_limits(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert available_bytes(cpu, tmp_path) is None
    assert available_bytes(torch.device("mps")) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  4000 kB\nMemAvailable:  3000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,memory:/a\n0::/b\n")
    assert available_bytes(cpu, tmp_path) == 3000 * 1024
    new, old = tmp_path / "sys/fs/cgroup/b", tmp_path / "sys/fs/cgroup/memory"  # the old one as seen from within
    for folder, names, limit in (
        (new, ("memory.max", "memory.current"), "max"),
        (old, ("memory.limit_in_bytes", "memory.usage_in_bytes"), "2000000"),
    ):
        folder.mkdir(parents=True)
        for name, text in zip(names, (limit, "500000\n"), strict=True):
            (folder / name).write_text(text)
    assert available_bytes(cpu, tmp_path) == 1_500_000
    (new / "memory.max").write_text("900000\n")
    assert available_bytes(cpu, tmp_path) == 400_000
    (new / "memory.max").write_text("400000\n")
    assert available_bytes(cpu, tmp_path) == 0


def test_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    parser = inference_video.build_parser()
    assert [parser.parse_args(["--tile", t]).tile for t in ("auto", "0", "512")] == [None, 0, 512]
    for script in (inference_video, inference_img):
        with pytest.raises(SystemExit):
            script.build_parser().parse_args(["--img", "a", "b", "--tile", "12"])
        assert "'12' is not auto, 0 or a number of pixels from 256" in capsys.readouterr().err
