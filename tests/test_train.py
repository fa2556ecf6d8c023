"""Tests training steps: the learning rate, losses, inheriting, teachers."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import RECIPE, batch_of, tiny

from model.contract import Prediction
from model.errors import UserError
from model.IFNet import IFNet
from model.loading import detect_version
from model.networks.warp import warp
from model.training import network
from model.training import step as training
from model.training.distillation import TeacherNetwork
from model.training.loss import distillation_loss, flow_loss, mask_loss
from model.training.network import CoarseBlocks, build_trainable, crop_for, inherit, recipe_for, select_blocks
from model.training.recipe import Recipe, learning_rate
from model.training.step import LossNetworks, losses, training_step, update_average


def test_learning_rate_is_upstreams() -> None:
    def upstream(step: int, total: int, world: int) -> float:
        if step < 2000:
            return 3e-4 * step / 2000 * world / 4
        share = math.cos((step - 2000) / (total - 2000.0) * math.pi) * 0.5 + 0.5
        return ((3e-4 - 3e-6) * share + 3e-6) * world / 4

    for step in (0, 1, 1999, 2000, 5000, 9999):
        for world in (1, 4, 8):
            assert learning_rate(step, 10_000, Recipe(), world) == pytest.approx(upstream(step, 10_000, world))
    assert learning_rate(10_000, 10_000, Recipe(), 4) == pytest.approx(3e-6)


def test_flow_loss_is_the_mean_distance_where_the_flow_is_known() -> None:
    flow, target = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    target[0, :2] = torch.tensor([3.0, 4.0]).view(2, 1, 1)  # 5 px to img0
    target[0, 0, 0, 0] = 1e4  # too long to be trained on
    known = torch.zeros(2, 2, 8, 8)
    known[0, 0, :4] = 1
    assert float(flow_loss(flow, target, known)) == pytest.approx(5 / 2, abs=1e-3)  # nothing is known of the second
    assert float(flow_loss(flow, target, known / 2)) == pytest.approx(5 / 4, abs=1e-3)
    assert float(flow_loss(flow, target, known, half=5.0)) == pytest.approx(5 / 4, abs=1e-3)


def test_flow_loss_averages_over_squares_of_known_pixels() -> None:
    """Errors of +2 and -2 px side by side cancel in squares of 2 px; pixels that are not known do not count."""
    flow, target, known = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.ones(1, 2, 8, 8)
    target[:, 0, :, ::2], target[:, 0, :, 1::2] = 2, -2
    assert float(flow_loss(flow, target, known)) == pytest.approx(1, abs=0.02)  # 2 px to img0, 0 to img1
    assert float(flow_loss(flow, target, known, shrink=2)) == pytest.approx(0, abs=0.02)
    known[..., 1::2] = 0
    assert float(flow_loss(flow, target, known, shrink=2)) == pytest.approx(1, abs=0.02)


def test_psnr_counts_by_its_weight_per_db() -> None:
    net, batch = tiny(), batch_of(2)
    with torch.no_grad():
        out = training.training_prediction(net, batch, "no")
        without, counted = (losses(out, batch, replace(RECIPE, psnr=weight), 0.5) for weight in (0.0, 0.02))
    quality = -10 * torch.log10((out.image - batch["gt"]).square().mean((1, 2, 3)) + 1e-5).mean()
    torch.testing.assert_close(counted.psnr, -quality)
    torch.testing.assert_close(counted.total - without.total, -0.02 * quality, rtol=1e-4, atol=1e-6)


def test_lpips_is_computed_on_a_random_square_of_the_given_size() -> None:
    places: list[tuple[int, ...]] = []

    class Distance(nn.Module):
        def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
            places.append(tuple(gt.shape[2:]))
            return (pred - gt).square().mean((1, 2, 3))

    net, batch, recipe = tiny(), batch_of(2), replace(RECIPE, lpips=3.0, lpips_crop=48)
    out = training.training_prediction(net, batch, "no")
    made = losses(out, batch, recipe, 0.0, LossNetworks(lpips=Distance()))
    without = losses(out, batch, recipe, 0.0)
    assert places == [(48, 48)]
    assert made.lpips.item() > 0
    torch.testing.assert_close(made.total - without.total, 3 * made.lpips, rtol=1e-4, atol=1e-6)


def test_mask_loss_counts_pixels_that_one_end_alone_shows() -> None:
    one_sided = torch.zeros(1, 1, 4, 4)
    one_sided[:, :, 0], one_sided[:, :, 1] = 1, 2
    logits = torch.zeros(1, 1, 4, 4)
    assert float(mask_loss(logits, one_sided)) == pytest.approx(math.log(2))
    logits[:, :, 0], logits[:, :, 1] = 9, -9
    assert float(mask_loss(logits, one_sided)) < 1e-3


def test_distillation_loss_counts_where_the_student_is_worse() -> None:
    gt = torch.zeros(1, 3, 2, 2)
    student = torch.tensor([[0.5, 0.005], [0.0, 0.5]]).expand(1, 3, 2, 2)
    teacher_flow = torch.full((1, 4, 2, 2), 2.0)
    loss = distillation_loss(teacher_flow, gt, [torch.zeros(1, 4, 2, 2)], [student], gt)
    assert float(loss) == pytest.approx(2.0 * 2 / 4)


class Mover(nn.Module):
    """Finds a fixed motion to the right, in px from img0 to img1."""

    pad_multiple, pad_mode = 16, "constant"

    def __init__(self, motion: float, *, arbitrary_time: bool = True) -> None:
        super().__init__()
        self.motion, self.arbitrary_time = motion, arbitrary_time

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Prediction:
        flow = torch.zeros_like(img0[:, :1]).repeat(1, 4, 1, 1)
        flow[:, :1], flow[:, 2:3] = -timestep * self.motion, (1 - timestep) * self.motion
        image = (warp(img0, flow[:, :2]) + warp(img1, flow[:, 2:])) / 2
        return Prediction(image, flow, torch.full_like(flow[:, :1], 0.5))


def moving_batch(motion: int, timestep: float = 0.5) -> dict[str, Tensor]:
    """Returns a batch of one noise picture that moves to the right by `motion` px, an even number."""
    wide = F.interpolate(torch.rand(1, 3, 8, 20, generator=torch.Generator().manual_seed(0)), scale_factor=8)
    img0, gt, img1 = (wide[..., 40 - m : 104 - m] for m in (0, motion // 2, motion))
    nothing = torch.zeros(1, 4, 64, 64)
    fields = {"img0": img0, "gt": gt, "img1": img1, "timestep": torch.full((1, 1, 1, 1), timestep)}
    return fields | {"flow": nothing, "known": nothing[:, :2], "one_sided": nothing[:, :1]}


def test_a_teacher_is_trusted_where_its_frame_is_the_true_one() -> None:
    batch = moving_batch(8)
    inputs = batch["img0"], batch["img1"], batch["timestep"], batch["gt"]
    right, wrong = (TeacherNetwork(Mover(motion))(*inputs) for motion in (8, 0))
    inner = (slice(None), slice(None), slice(8, -8), slice(16, -16))
    assert right.flow.shape == (1, 4, 64, 64)
    assert right.trust[inner].min() > 0.99
    assert wrong.trust[inner].mean() < 0.2
    early = batch["img0"], batch["img1"], torch.full((1, 1, 1, 1), 0.25), batch["gt"]
    assert TeacherNetwork(Mover(8, arbitrary_time=False))(*inputs).trust[inner].min() > 0.99
    assert TeacherNetwork(Mover(8, arbitrary_time=False))(*early).trust.max() == 0


def test_blocks_are_pulled_to_the_flow_of_the_teacher_where_none_is_known() -> None:
    batch, recipe = moving_batch(8), Recipe(distill_flow=1.0, distill_mask=1.0)
    still = torch.zeros(1, 4, 64, 64)
    out = Prediction(batch["gt"], still, still[:, :1], [still, still], [batch["gt"]] * 2, [still[:, :1]] * 2)
    loss_networks = LossNetworks(teacher_network=TeacherNetwork(Mover(8)))
    made = losses(out, batch, recipe, 0.0, loss_networks)
    assert loss_networks.teacher_network is not None
    trust = float(
        loss_networks.teacher_network(*(batch[key] for key in ("img0", "img1", "timestep", "gt"))).trust.mean()
    )
    assert 0.6 < trust < 1  # less at the border
    assert float(made.distill_flow) == pytest.approx(1.8 * 4 * trust, rel=0.02)  # 4 px, two blocks, the first at 0.8
    assert float(made.distill_mask) == pytest.approx(1.8 * math.log(2) * trust, rel=0.02)
    batch["known"] = torch.ones(1, 2, 64, 64)
    assert float(losses(out, batch, recipe, 0.0, loss_networks).distill_flow) == 0


@pytest.mark.slow
def test_a_network_learns_motion_from_a_teacher() -> None:
    """Distilled for 30 steps on one batch, the error of its flow falls to half."""
    net, batch = tiny(), moving_batch(8)
    recipe, loss_networks = Recipe(distill_flow=0.2), LossNetworks(teacher_network=TeacherNetwork(Mover(8)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    made = [training_step(net, batch, optimizer, recipe, rate=2e-3, loss_networks=loss_networks) for _ in range(30)]
    assert float(made[-1].distill_flow) < float(made[0].distill_flow) / 2


def test_a_batch_in_pieces_gives_the_same_step() -> None:
    batch, made = batch_of(4), []
    for accumulate in (1, 2):
        net = tiny()
        recipe = replace(RECIPE, accumulate=accumulate)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        made.append((training_step(net, batch, optimizer, recipe, rate=0.1), net.state_dict()))
    assert torch.allclose(torch.stack(made[0][0]), torch.stack(made[1][0]), rtol=1e-5)
    for key, value in made[0][1].items():
        assert torch.allclose(value, made[1][1][key], atol=1e-6)


def test_half_precision_keeps_flows_in_float32() -> None:
    out = training.training_prediction(tiny(), batch_of(1), "bf16")
    assert out.flow.dtype == out.image.dtype == torch.float32
    assert torch.isfinite(losses(out, batch_of(1), RECIPE, 0.5).total)


def test_average_follows_the_weights() -> None:
    average, net = tiny(0), tiny(1)
    kept, new = (next(n.parameters()).detach().clone() for n in (average, net))
    update_average(average, net, 0.9, step=1000)
    assert torch.allclose(next(average.parameters()), 0.9 * kept + 0.1 * new, atol=1e-6)


def test_an_inheriting_block_computes_what_the_narrower_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a factor of 0 on fresh channels the wider block is the narrower one, given zeros for mask and flow."""
    monkeypatch.setattr(network, "NEW_CHANNELS", 0.0)
    net = tiny()
    for beta in (p for name, p in net.named_parameters() if "beta" in name):
        nn.init.uniform_(beta)
    inherit(net, 1, 0)
    x = torch.rand(1, net.config.inputs[0], 32, 32)
    zeros = x.new_zeros(1, net.config.inputs[1] - net.config.inputs[0] - 4, 32, 32)
    wide = net.get_submodule("block0")([x], None, 1.0)
    narrow = net.get_submodule("block1")([x, zeros], x.new_zeros(1, 4, 32, 32), 1.0)
    for made, expected in zip(wide, narrow, strict=True):
        assert torch.allclose(torch.as_tensor(made), torch.as_tensor(expected), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 0), (1, 2)])
def test_inheriting_needs_a_narrower_later_block(source: int, target: int) -> None:
    with pytest.raises(UserError, match=f"block {target} cannot inherit from block {source}"):
        inherit(tiny(), source, target)
    with pytest.raises(UserError, match="the paper's networks"):
        inherit(IFNet(), 1, 0)


def test_chosen_blocks_alone_are_trained() -> None:
    net, batch = tiny(), batch_of(1)
    select_blocks(net, (0,))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    recipe = replace(RECIPE, flow=1.0)
    training_step(CoarseBlocks(net, 1), batch, torch.optim.SGD(net.parameters()), recipe, rate=1e-2)
    changed = {key.partition(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"block0"}
    with pytest.raises(UserError, match="no block5"):
        select_blocks(net, (5,))
    select_blocks(net, ())
    assert all(p.requires_grad for p in net.parameters())


def test_coarse_blocks_alone_find_the_flow_of_the_whole_network() -> None:
    net, batch = tiny(), batch_of(1)
    images = batch["img0"], batch["img1"], batch["timestep"]
    with torch.no_grad():
        whole = net(*images, gt=batch["gt"])
        alone = CoarseBlocks(net, 2)(*images)
        finer = CoarseBlocks(net, 1, 1.0)(*images)  # the first block at scale 1 in place of 2
        expected = net(*images, gt=batch["gt"], scale=2.0)
    for made, flow in zip(alone.flows, whole.flows, strict=True):
        assert torch.allclose(made, flow, atol=1e-4)
    assert torch.allclose(finer.flows[0], expected.flows[0], atol=1e-4)
    assert not alone.merged
    assert losses(alone, batch, RECIPE, 0.0).l1 == 0


def test_nan_changes_no_weight() -> None:
    net, batch = tiny(), batch_of(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    batch["gt"][0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="loss nan"):
        training_step(net, batch, torch.optim.AdamW(net.parameters()), RECIPE, rate=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_teaching_block_changes_neither_names_nor_inference() -> None:
    net, taught = tiny(), tiny(teacher=True)
    extra = set(taught.state_dict()) - set(net.state_dict())
    assert {key.partition(".")[0] for key in extra} == {"block_tea"}
    taught.load_state_dict(net.state_dict(), strict=False)
    batch = batch_of(1)
    images = batch["img0"], batch["img1"], batch["timestep"]
    with_gt = taught(*images, gt=batch["gt"])
    assert torch.equal(net(*images).image, with_gt.image)
    assert losses(with_gt, batch, RECIPE, 0).teacher > 0
    real = build_trainable("v4.25", teacher=True)
    assert detect_version(real.state_dict()).name == "4.25, 4.26"
    assert (recipe_for(real).flow > 0, crop_for(real)) == (True, 256)
    assert recipe_for(build_trainable("rife_m")).distillation == 0.005
    with pytest.raises(UserError, match="rife_m"):
        build_trainable("v5")


@pytest.mark.parametrize("arch", ["v4.0", "v4.6", "v4.14", "v4.22.lite"])
def test_every_generation_learns(arch: str) -> None:
    net, batch = build_trainable(arch, teacher=True), batch_of(1)
    made = training_step(net, batch, torch.optim.SGD(net.parameters()), recipe_for(net), rate=1e-3)
    values = made._asdict()
    unasked = {"psnr", "lpips", "distill_flow", "distill_mask"}
    assert {name for name, value in values.items() if value == 0} == unasked
    assert all(p.grad is not None for key, p in net.named_parameters() if not key.startswith(("unet", "context")))
