"""Tests that networks run by the CPU kernels give upstream's frames, and those of benchmark/baseline.py."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixtures import GOLDEN, Fixture, network_paths, read_fixture
from torch import Tensor

from benchmark.baseline import load_baseline
from model import RIFE, load_model
from model.IFNet import IFNet
from model.IFNet_HD import IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.image import Padder, to_tensor
from model.inference import kernels, memory, packed
from model.inference.engines import accelerate
from model.inference.kernel_engine import KernelEngine
from model.loading import build_network, detect_version
from model.weights.published import IFNetConfig
from video.reading.reader import open_frames

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no compiler here, or a CPU the kernels are not for")

PATHS = [path for path in network_paths() if path.stem[:2] in ("ri", "v3", "v4") or path.stem == "hd_v3_8"]
CLIPS = Path(__file__).parents[2] / "shared" / "data" / "eval" / "clips"
OWN_FORWARD = {"rife_2r", "v4_0", "v4_0_autoscale", "v4_0_refine", "v4_14_lite"}  # not for the kernels, or not yet


def load(fixture: Fixture) -> RIFE:
    state = {
        ("" if stem == "flownet" else f"{stem}.") + key: torch.from_numpy(value)
        for stem, table in fixture.weights().items()
        for key, value in table.items()
    }
    version = detect_version(state, fixture.name if fixture.name == "rife_2r" else None)
    return RIFE(build_network(version, state).eval(), name=fixture.name)


def pictures(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns a smooth picture and the same moved by (5, 3) px."""
    coarse = torch.rand(1, 3, height // 16 + 3, width // 16 + 3, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(coarse, size=(height + 3, width + 5), mode="bicubic", align_corners=False).clamp(0, 1)
    return whole[:, :, :height, :width], whole[:, :, 3:, 5:]


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
@torch.no_grad()
def test_recorded_frames(path: Path) -> None:
    fixture = read_fixture(path)
    model = load(fixture)
    assert isinstance(model.engine, KernelEngine) == (fixture.name not in OWN_FORWARD)
    compared = 0
    for case in fixture.cases:
        if case.get("tta") or case.get("gt"):
            continue
        inputs = fixture.inputs(case)
        images = [torch.from_numpy(inputs[key]) for key in ("img0", "img1")]
        padder = Padder(images[0].shape[2], images[0].shape[3], case["pad_modulus"])
        img0, img1 = (padder.pad(image) for image in images)
        options: dict[str, Any] = {key: True for key in ("ensemble", "refine") if case.get(key)}
        features0, features1 = (model.engine.frame_features(image) for image in (img0, img1))
        out = model.engine(img0, img1, case["timestep"], features0, features1, scale=case["scale"], **options)
        for name, value in (("frame", out.image), ("flow", out.flow), ("mask", out.mask)):
            if name in case["outputs"]:
                assert fixture.excess(case, name, padder.unpad(value).numpy()) <= 1, f"{case['id']}: {name}"
                compared += 1
    assert compared


@pytest.mark.parametrize("name", ["rife", "rife_m", "v4_25"])
@pytest.mark.parametrize(
    ("height", "width", "limit"), [(128, 256, 2e-5), pytest.param(128, 1280, 5e-5, marks=pytest.mark.slow)]
)
def test_differs_from_the_baseline_by_rounding_only(name: str, height: int, width: int, limit: float) -> None:
    """Upstream's own frame is some 1.5e-5 from that in float64, more along sharp edges: so no padding here."""
    model = load(read_fixture(GOLDEN / f"{name}.json"))
    img0, img1 = pictures(height, width)
    baseline = load_baseline(model)
    for scale in (1.0, 0.5):
        made = model.inference(img0, img1, scale=scale)
        assert made.std() > 0.1
        torch.testing.assert_close(made, baseline.inference(img0, img1, scale=scale), rtol=0, atol=limit)


@pytest.mark.slow
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("name", ["rife_m", "v4_25", "ours"])
def test_differs_from_the_baseline_as_little_as_memory_orders_do(
    name: str, sharp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where float32 rounds coordinates one way or the other, it may be far away: the baseline's convolutions in another
    memory order do as much. From what float64 gives both are equally far.
    """
    model = load_model() if name == "ours" else load(read_fixture(GOLDEN / f"{name}.json"))
    img0, img1 = pictures(480, 640)
    if sharp:  # squares of black and white
        img0, img1 = (F.interpolate(image, scale_factor=1 / 8).gt(0.5).float() for image in (img0, img1))
        img0, img1 = (F.interpolate(image, scale_factor=8.0) for image in (img0, img1))
    baseline, reordered, exact = (load_baseline(model) for _ in range(3))
    made, theirs = (way.inference(img0, img1) for way in (model, baseline))
    reordered.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert 1e-8 < rms(made - theirs) < 1.3 * rms(reordered.inference(img0, img1) - theirs) + 1e-7 < 1e-5
    exact.net.double()
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, dtype=torch.float64))
    truth = exact.inference(img0.double(), img1.double())
    assert truth.dtype == torch.float64
    assert 1e-8 < rms(made - truth) < 1.1 * rms(theirs - truth) + 1e-7 < 2e-5


@pytest.mark.parametrize(
    ("clip", "limit"), [("car-turn.mp4", 2e-5), ("lady-running.mp4", 5e-5), ("05_default_juggle.mp4", 5e-5)]
)
@pytest.mark.slow
def test_real_frames_equal_the_baselines(clip: str, limit: float) -> None:
    """The weights are our own, the sizes 640x360, 854x480 and 1280x720."""
    path = CLIPS / clip
    if not path.exists():
        pytest.skip("the shared clips are not there")
    img0, img1 = (to_tensor(frame.rgb()) for frame in islice(open_frames(path), 4, 6))
    model = load_model()
    made, theirs = (way.inference(img0, img1) for way in (model, load_baseline(model)))
    torch.testing.assert_close(made, theirs, rtol=0, atol=limit)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (131, 97), (16, 300)])
def test_hd_differs_from_its_own_forward_by_rounding_only(size: tuple[int, int]) -> None:
    """The two orders of the images are exchanged in its weights: also with other images in their places."""
    model = load(read_fixture(GOLDEN / "hd_v3_8.json"))
    plain = RIFE(model.net, name="plain", engine=model.net)
    assert isinstance(model.engine, KernelEngine)
    noise = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(2))
    for img0, img1 in (pictures(*size), noise):
        for scale in (1.0, 0.5, 2.0):
            made, wanted = (way.inference(img0, img1, scale=scale) for way in (model, plain))
            torch.testing.assert_close(made, wanted, rtol=0, atol=5e-5)
            made, wanted = (way.flow(img0, img1, scale=scale) for way in (model, plain))
            torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "amx"), [("v4_25", False), ("v4_25", True), ("rife_m", False), ("hd_v3_8", False)])
def test_bfloat16_is_near_float32(name: str, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions alone are in bfloat16; its own forward in that precision is as near."""
    monkeypatch.setattr(kernels, "cpu_flags", lambda: (packed.AMX,) * amx)
    net: Any = load(read_fixture(GOLDEN / f"{name}.json")).net
    img0, img1 = pictures(128, 256)
    timestep, decibels = (0.3, 50) if net.arbitrary_time else (0.5, 46)
    true = RIFE(net, name="float32").inference(img0, img1, timestep=timestep)
    half = RIFE(net.to(torch.bfloat16), name="half")
    assert isinstance(half.engine, KernelEngine)
    for _ in range(2):
        made = half.inference(img0, img1, timestep=timestep)
        assert made.dtype == torch.float32
        assert 1e-6 < (made - true).square().mean().sqrt() < 10 ** (-decibels / 20)
        half.engine = half.net  # and now its own forward


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference is rounding: torch convolves inputs of other heights in other ways (1e-5 on AVX2)."""
    img0, img1 = pictures(100, 130)
    for name in ("rife_m", "v4_25"):
        model = load(read_fixture(GOLDEN / f"{name}.json"))
        whole = model.inference(img0, img1, timestep=0.3)
        monkeypatch.setattr(packed, "STRIP", 1)
        strips = model.inference(img0, img1, timestep=0.3)
        monkeypatch.undo()
        torch.testing.assert_close(strips, whole, rtol=0, atol=2e-5)


def test_calls_without_kernels_run_the_networks_own_forward(tiny_net: IFNet_v4) -> None:
    model = RIFE(tiny_net, name="tiny")
    plain = RIFE(tiny_net, name="plain")
    plain.engine = tiny_net
    img0, img1 = pictures(50, 70)
    times = torch.linspace(0, 1, 70).expand(1, 1, 50, 70)
    for options in ({"timestep": times}, {"scale": 2.0}, {"scale": 4.0}):
        torch.testing.assert_close(
            model.inference(img0, img1, **options), plain.inference(img0, img1, **options), rtol=0, atol=1e-5
        )


def test_batches_and_scales_equal_the_networks_own_forward() -> None:
    model = load(read_fixture(GOLDEN / "rife_m.json"))
    pairs = [pictures(40, 64), pictures(40, 64)[::-1]]
    together = model.inference(*(torch.cat(side) for side in zip(*pairs, strict=True)), timestep=0.3)
    for i, pair in enumerate(pairs):
        torch.testing.assert_close(together[i : i + 1], model.inference(*pair, timestep=0.3), rtol=0, atol=1e-5)


def test_changed_weights_are_packed_again() -> None:
    model = load(read_fixture(GOLDEN / "v4_25.json"))
    img0, img1 = pictures(64, 64)
    before = model.inference(img0, img1)
    net: Any = model.net
    with torch.no_grad():
        net.block4.convblock[3].beta.mul_(2)
    after = model.inference(img0, img1)
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, load_baseline(model).inference(img0, img1), rtol=0, atol=2e-5)


def test_networks_with_kernels_run_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = IFNetConfig((32, 16), (2, 1), encoder="H3", encoder_width=8, encoder_channels=4)
    assert isinstance(accelerate(IFNet_v4(config)), KernelEngine)
    half, two_r = IFNet_v4(config).half(), IFNet(half_stride=True)
    assert accelerate(half) is half
    assert accelerate(two_r) is two_r
    monkeypatch.setattr(kernels, "cpu_flags", lambda: (packed.AMX,))
    for dtype in (torch.float32, torch.bfloat16):
        assert isinstance(accelerate(IFNet_v4(replace(config, act="prelu")).to(dtype)), KernelEngine)
        for network in (IFNet(), IFNet_HDv3()):
            assert isinstance(accelerate(network.to(dtype)), KernelEngine) == (dtype == torch.float32)
    monkeypatch.setattr(kernels, "available", lambda: False)
    net = IFNet_v4(config)
    assert accelerate(net) is net


@pytest.mark.parametrize("name", ["rife", "v4_25", "hd_v3_8"])
@torch.no_grad()
@pytest.mark.slow
def test_memory_computed_without_data_equals_that_with_data(name: str) -> None:
    net = load(read_fixture(GOLDEN / f"{name}.json")).net
    called, height, width = KernelEngine(net), 448, 512
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    with memory.LiveBytes() as live:
        img0, img1 = (torch.rand(1, 3, height, width) for _ in range(2))
        features0, features1 = called.frame_features(img0), called.frame_features(img1)
        called(img0, img1, 0.5, features0, features1)
    # 5 %: without data einsum copies once more while the weights are packed
    assert memory.peak_bytes(called, height, width) == pytest.approx(weights + live.peak, rel=0.05)


@pytest.mark.slow
def test_the_kernels_take_less_memory_than_the_networks_own_forward() -> None:
    """Resident memory of 4.25 at 1280x720, above what it holds when idle: 733 and 192 MB."""
    net = load(read_fixture(GOLDEN / "v4_25.json")).net
    assert 2.5 < memory.bytes_per_pixel(net) / memory.bytes_per_pixel(KernelEngine(net)) < 5
