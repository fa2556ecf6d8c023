"""Tests the wrapper around every network, and upstream's Model interface."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Shift

from model import RIFE, UserError, load_model, pick_device
from model.halving import reachable
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.metrics import psnr
from model.RIFE import Model

HALF = Fraction(1, 2)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.interpolate(noise(1, 3, 5, 6, seed=seed), size=(height, width), mode="bilinear")


@pytest.fixture(scope="session")
def paper_net() -> IFNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return IFNet().eval()


@pytest.fixture
def tiny(tiny_net: IFNet_v4) -> RIFE:
    return RIFE(tiny_net, name="tiny")


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (33, 65), (64, 96), (101, 99)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_result_has_the_size_of_the_images(tiny: RIFE, size: tuple[int, int], scale: float) -> None:
    img0, img1 = smooth(*size, seed=0), smooth(*size, seed=1)
    out = tiny.inference(img0, img1, scale=scale)
    assert out.shape == img0.shape
    assert out.dtype == torch.float32
    assert not out.requires_grad
    # blends of warped images stay within the range of what was blended (padding is zero)
    assert out.min() >= -1e-4
    assert out.max() <= max(img0.max(), img1.max()) + 1e-4


def test_a_known_motion_is_interpolated_at_any_time(shift: type[Shift]) -> None:
    model = RIFE(shift(8), name="shift")
    img0 = smooth(24, 64)
    img1 = img0.roll(8, 3)
    for t, pixels in ((0.25, 2), (0.5, 4), (0.875, 7)):
        out = model.inference(img0, img1, timestep=t)
        torch.testing.assert_close(out[..., 16:56], img0.roll(pixels, 3)[..., 16:56], rtol=0, atol=1e-4)


def test_extra_channels_follow_the_flow(shift: type[Shift]) -> None:
    model = RIFE(shift(8), name="shift")
    img0 = smooth(24, 64)
    depth = noise(1, 2, 24, 64, seed=5) * 40 - 20  # any range, and no part in the estimate
    img1, depth1 = img0.roll(8, 3), depth.roll(8, 3)
    out = model.inference(torch.cat((img0, depth), 1), torch.cat((img1, depth1), 1), timestep=0.25)
    assert out.shape == (1, 5, 24, 64)
    torch.testing.assert_close(out[:, 3:, :, 16:56], depth.roll(2, 3)[..., 16:56], rtol=0, atol=1e-3)
    assert torch.equal(out[:, :3], model.inference(img0, img1, timestep=0.25))


def test_extra_channels_follow_a_real_network_as_its_image_does(tiny: RIFE) -> None:
    img0, img1 = smooth(64, 64, seed=0), smooth(64, 64, seed=1)  # no padding: the image's is zeros
    out = tiny.inference(torch.cat((img0, img0[:, :1]), 1), torch.cat((img1, img1[:, :1]), 1), timestep=0.3)
    torch.testing.assert_close(out[:, 3], out[:, 0], rtol=0, atol=1e-5)


def test_opaque_pictures_stay_opaque_up_to_the_edge(tiny: RIFE, tiny_net: IFNet_v4) -> None:
    img0, img1 = (torch.cat((smooth(33, 40, seed=i), torch.ones(1, 1, 33, 40)), 1) for i in (0, 1))
    padded = [torch.nn.functional.pad(image[:, :3], (0, 24, 0, 31)) for image in (img0, img1)]
    flow = tiny_net(*padded).flow[..., :33, :40]
    assert flow[:, 0::2, :, -1].max() > 0.01  # some flow points out of the picture
    alpha = tiny.inference(img0, img1)[:, 3:]
    torch.testing.assert_close(alpha, torch.ones_like(alpha), rtol=0, atol=1e-5)


def test_features_are_computed_once_a_frame(shift: type[Shift]) -> None:
    net = shift()
    model = RIFE(net, name="shift")
    frames = [model.prepare(smooth(16, 16, seed=i)) for i in range(3)]
    for first, second in pairwise(frames):
        list(model.between(first, second, [Fraction(i, 5) for i in range(1, 5)]))
    assert net.encoded == 3
    assert net.timesteps == pytest.approx([0.2, 0.4, 0.6, 0.8] * 2)


def test_prepared_frames_give_the_results_of_images(tiny: RIFE) -> None:
    img0, img1 = smooth(40, 33, seed=0), smooth(40, 33, seed=1)
    prepared = tiny.inference(tiny.prepare(img0), tiny.prepare(img1), timestep=0.3)
    assert torch.equal(prepared, tiny.inference(img0, img1, timestep=0.3))


def test_halving_reaches_every_dyadic_time_and_encodes_each_frame_once(shift: type[Shift]) -> None:
    net = shift(arbitrary_time=False)
    model = RIFE(net, name="midpoint")
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    times = [Fraction(i, 8) for i in range(1, 8)]
    images = list(model.between(black, white, times))
    assert [image.mean().item() for image in images] == [float(t) for t in times]
    assert net.timesteps == [0.5] * 7
    assert net.encoded == 2 + 3  # the inner three of the seven are halved again


def test_halving_runs_only_for_the_timesteps_given(shift: type[Shift]) -> None:
    net = shift(arbitrary_time=False)
    model = RIFE(net, name="midpoint")
    out = model.inference(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), timestep=0.375)
    assert out.mean().item() == 0.375
    assert len(net.timesteps) == 3


def test_halving_gives_exactly_the_nested_midpoints(paper_net: IFNet) -> None:
    model = RIFE(paper_net, name="RIFE")
    img0, img1 = smooth(32, 32, seed=0), smooth(32, 32, seed=1)
    quarter, middle, three_quarters = model.between(img0, img1, [Fraction(i, 4) for i in (1, 2, 3)])
    assert torch.equal(middle, model.inference(img0, img1))
    assert torch.equal(quarter, model.inference(img0, middle))
    assert torch.equal(three_quarters, model.inference(middle, img1))


def test_reachable_takes_the_fewest_halvings_within_tolerance() -> None:
    third = Fraction(1, 3)
    assert reachable(HALF, 0) == HALF
    assert reachable(Fraction(5, 16), 0) == Fraction(5, 16)
    assert reachable(third, Fraction(1, 100)) == Fraction(21, 64)  # off by 1/192; 5/16 and 11/32 by 1/48 and 1/96
    assert reachable(third, Fraction(1, 96)) == Fraction(11, 32)
    assert reachable(third, Fraction(1, 5)) == HALF
    assert reachable(0.001, 0.01) == Fraction(1, 128)  # never 0: that is the input
    with pytest.raises(ValueError, match=r"no such timestep within 0 of 1/3"):
        reachable(third, 0)


def test_between_uses_the_tolerance(shift: type[Shift]) -> None:
    model = RIFE(shift(arbitrary_time=False), name="midpoint")
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    (image,) = model.between(black, white, [Fraction(1, 3)])
    assert image.mean().item() == 21 / 64
    with pytest.raises(ValueError, match="halving reaches"):
        list(model.between(black, white, [Fraction(1, 3)], tolerance=0))


@pytest.mark.parametrize("times", [(0, HALF), (HALF, 1), (0.75, 0.25), (-0.5,), (1.5,)])
def test_timesteps_must_rise_between_0_and_1(tiny: RIFE, times: tuple[float, ...]) -> None:
    image = smooth(16, 16)
    with pytest.raises(ValueError, match="timesteps must rise between 0 and 1"):
        list(tiny.between(image, image, times))


def test_wrong_shapes_scales_and_pairs_are_refused(tiny: RIFE) -> None:
    image = smooth(16, 16)
    with pytest.raises(ValueError, match=r"scale 3 is not one of 0.25, 0.5, 1, 2, 4"):
        tiny.inference(image, image, scale=3)
    with pytest.raises(ValueError, match=r"got \(1, 1, 16, 16\)"):
        tiny.prepare(image[:, :1])
    with pytest.raises(ValueError, match="two images of different shape"):
        tiny.inference(image, smooth(16, 17))
    with pytest.raises(ValueError, match="two images of different shape"):
        tiny.inference(image, torch.cat((image, image[:, :1]), 1))
    with pytest.raises(ValueError, match=r"prepared for scale 0.5 was used at scale 1"):
        tiny.inference(tiny.prepare(image, scale=0.5), image)


def test_a_map_of_timesteps_gives_each_pixel_its_own(tiny: RIFE, shift: type[Shift]) -> None:
    black, white = torch.zeros(1, 3, 16, 24), torch.ones(1, 3, 16, 24)
    times = torch.linspace(0, 1, 24).view(1, 1, 1, 24).expand(1, 1, 16, 24)
    out = RIFE(shift(), name="shift").inference(black, white, timestep=times)
    torch.testing.assert_close(out, times.expand(1, 3, 16, 24))
    img0, img1 = smooth(33, 40, seed=0), smooth(33, 40, seed=1)
    same = tiny.inference(img0, img1, timestep=torch.full((1, 1, 33, 40), 0.3))
    torch.testing.assert_close(same, tiny.inference(img0, img1, timestep=0.3), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="takes no map of timesteps"):
        RIFE(shift(arbitrary_time=False), name="midpoint").inference(black, white, timestep=times)


def test_tta_is_the_mean_with_the_turned_pair(tiny: RIFE) -> None:
    img0, img1 = smooth(128, 64, seed=0), smooth(128, 64, seed=1)  # no padding, which would lie on the other side
    plain = tiny.inference(img0, img1, timestep=0.3)
    turned = tiny.inference(img0.flip(2, 3), img1.flip(2, 3), timestep=0.3).flip(2, 3)
    assert (plain - turned).abs().max() > 1e-3
    both = tiny.inference(img0, img1, timestep=0.3, tta=True)
    torch.testing.assert_close(both, (plain + turned) / 2, rtol=0, atol=1e-5)


def test_tta_carries_extra_channels(shift: type[Shift]) -> None:
    model = RIFE(shift(), name="shift")
    img0, img1 = noise(1, 4, 16, 16, seed=0), noise(1, 4, 16, 16, seed=1)
    out = model.inference(img0, img1, timestep=0.25, tta=True)
    torch.testing.assert_close(out, 0.75 * img0 + 0.25 * img1, rtol=0, atol=1e-5)


def test_a_batch_gives_the_results_of_its_samples(tiny: RIFE) -> None:
    img0, img1 = (torch.cat([smooth(32, 48, seed=s + i) for i in (0, 1)]) for s in (0, 10))
    both = tiny.inference(img0, img1, timestep=0.4)
    for i in range(2):
        alone = tiny.inference(img0[i : i + 1], img1[i : i + 1], timestep=0.4)
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_close(tiny: RIFE, tiny_weights: Path, dtype: torch.dtype, limit: float) -> None:
    half = load_model(tiny_weights, dtype=dtype)
    img0, img1 = smooth(48, 64, seed=0), smooth(48, 64, seed=1)
    out, expected = half.inference(img0, img1, timestep=0.3), tiny.inference(img0, img1, timestep=0.3)
    assert out.dtype == torch.float32
    difference = (out - expected).abs().max().item()
    assert 0 < difference < limit


@pytest.mark.slow
def test_half_precision_holds_at_the_width_of_4k() -> None:
    """float16 names every second pixel beyond the 2048th: coordinates must not be in it."""
    whole = torch.nn.functional.interpolate(noise(1, 3, 16, 482, seed=0), size=(128, 3856), mode="bilinear")
    images = whole[..., 12:-4], whole[..., 4:-12]
    full, half = (load_model(dtype=dtype).inference(*images) for dtype in (torch.float32, torch.float16))
    for part in (slice(0, 1024), slice(-1024, None)):
        assert psnr(full[..., part], whole[..., 8:-8][..., part]) > 35
        assert psnr(half[..., part], full[..., part]) > 50


def test_padding_does_not_darken_the_edge() -> None:
    """The default weights are padded with the repeated edge, published ones with zeros, as upstream does."""
    bright = 0.9 + 0.1 * torch.nn.functional.interpolate(noise(1, 3, 10, 14), size=(108, 158), mode="bilinear")
    img0, between, img1 = (bright[..., i : i + 100, i : i + 150] for i in (0, 4, 8))
    ours, as_upstream = load_model(), load_model()
    net: Any = as_upstream.net
    net.pad_mode = "constant"
    assert (ours.net.pad_mode, as_upstream.net.pad_mode) == ("replicate", "constant")
    for edge in ((..., -1, slice(None)), (..., slice(None), -1)):
        error, upstreams = (
            (between - model.inference(img0, img1))[edge].abs().mean().item() for model in (ours, as_upstream)
        )
        assert error < 0.008 < 0.015 < upstreams


def test_str_describes_the_loaded_network(tiny_weights: Path) -> None:
    model = load_model(tiny_weights)
    file = tiny_weights / "flownet.safetensors"
    start = f"Loaded v4 (not a published one; widths 16, 16, 8, 8, 8) from {file}: 0.11 "
    assert str(model).startswith(start)
    assert str(model).endswith("M parameters, any timestep, float32 on cpu")


def test_an_unavailable_device_is_an_error_that_names_it() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device gpu: no such device; available here: "):
        pick_device("gpu")
    with pytest.raises(
        UserError, match="device cuda:99: not on this machine or not in this build of torch; available here: "
    ):
        pick_device("cuda:99")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees(tiny_weights: Path, tiny: RIFE) -> None:
    img0, img1 = smooth(65, 99, seed=0), smooth(65, 99, seed=1)
    out = load_model(tiny_weights, device="cuda").inference(img0, img1, timestep=0.3, tta=True).cpu()
    torch.testing.assert_close(out, tiny.inference(img0, img1, timestep=0.3, tta=True), rtol=0, atol=2e-3)


def test_model_trains_as_upstream_does() -> None:
    torch.manual_seed(0)
    model = Model()
    img0 = smooth(64, 64)
    imgs, gt = torch.cat((img0, img0.roll(8, 3)), 1), img0.roll(4, 3)
    model.train()
    losses = []
    for _ in range(3):
        pred, info = model.update(imgs, gt, learning_rate=1e-4)
        losses.append((info["loss_l1"] + info["loss_tea"] + 0.01 * info["loss_distill"]).item())
    assert pred.shape == gt.shape
    assert set(info) == {
        "merged_tea", "mask", "mask_tea", "flow", "flow_tea", "loss_l1", "loss_tea", "loss_distill",
    }  # fmt: skip
    assert losses[-1] < 0.9 * losses[0]
    before = [p.clone() for p in model.flownet.parameters()]
    model.update(imgs, gt, learning_rate=1e-4, training=False)
    assert all(torch.equal(a, b) for a, b in zip(before, model.flownet.parameters(), strict=True))


def test_model_writes_and_reads_official_files(tmp_path: Path, paper_net: IFNet) -> None:
    model = Model()
    model.flownet = paper_net
    model.save_model(tmp_path)
    state = torch.load(tmp_path / "flownet.pkl", weights_only=True)
    assert all(key.startswith("module.") for key in state)
    again = Model()
    again.load_model(tmp_path)
    again.eval()
    img0, img1 = smooth(40, 50, seed=0), smooth(40, 50, seed=1)
    expected = RIFE(paper_net, name="RIFE").inference(img0, img1)
    assert torch.equal(again.inference(img0, img1), expected)
    assert not torch.equal(again.inference(img0, img1, TTA=True), expected)
    # upstream's scale_list (8, 4, 2) is its scale 0.5
    small = again.inference(img0, img1, scale=0.5)
    assert torch.equal(again.inference(img0, img1, scale_list=(8, 4, 2)), small)
    assert not torch.equal(small, expected)
    with pytest.raises(ValueError, match="is not a multiple of"):
        again.inference(img0, img1, scale_list=(4, 2, 2))


def test_model_trains_any_timestep() -> None:
    model = Model(arbitrary=True)
    model.eval()
    img0, img1 = smooth(32, 32, seed=0), smooth(32, 32, seed=1)
    early, late = (model.inference(img0, img1, timestep=t) for t in (0.1, 0.9))
    assert early.shape == (1, 3, 32, 32)
    assert not torch.equal(early, late)
