"""Training: the recorded steps of the paper's code, the schedule, losses, resuming, stopping, processes, commands."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import train
from dataset import Samples, Scenes
from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.loading import detect_version, load_network
from model.training import step as training
from model.training.loss import distillation_loss, flow_loss, mask_loss
from model.training.step import Recipe, build, follow, learning_rate, losses, on_device, training_step
from model.weights.published import IFNetConfig
from train import Training, parse, run, write_atomically

ROOT = Path(__file__).resolve().parent.parent
TINY = IFNetConfig((16, 8), (2, 1), encoder="H3", encoder_width=4, encoder_channels=2)
RECIPE = Recipe(peak=1e-3, warmup=2, processes=1, clip=1.0, deep=0.3, flow=0.02, mask=0.02, anneal=0.1, ema=0.9)


def tiny(seed: int = 0, teacher: bool = False) -> IFNet_v4:
    torch.manual_seed(seed)
    return IFNet_v4(TINY, teacher=teacher)


def scenes(seed: int = 1, size: int = 64) -> Samples:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return Samples(Scenes([cv2.resize(noise, (96, 96))], size, length=16), seed)


def batch_of(count: int, data: Samples | None = None) -> dict[str, Tensor]:
    samples = [(data or scenes())[(0, i)] for i in range(count)]
    return on_device({key: torch.stack([s[key] for s in samples]) for key in samples[0]}, torch.device("cpu"))


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


def test_flow_loss_is_the_mean_distance_where_visible() -> None:
    flow, exact = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    exact[0, :2] = torch.tensor([3.0, 4.0]).view(2, 1, 1)  # 5 px to img0
    exact[0, 0, 0, 0] = 1e4  # too long to teach anything
    visible = torch.zeros(2, 2, 8, 8)
    visible[0, 0, :4] = 1
    assert float(flow_loss(flow, exact, visible)) == pytest.approx(5 / 2, abs=1e-3)  # nothing known of the second


def test_psnr_counts_by_its_weight_per_db() -> None:
    net, batch = tiny(), batch_of(2)
    with torch.no_grad():
        out = training.predict(net, batch, "no")
        without, counted = (losses(out, batch, replace(RECIPE, psnr=weight), 0.5) for weight in (0.0, 0.02))
    quality = -10 * torch.log10((out.image - batch["gt"]).square().mean((1, 2, 3)) + 1e-5).mean()
    torch.testing.assert_close(counted.psnr, -quality)
    torch.testing.assert_close(counted.total - without.total, -0.02 * quality, rtol=1e-4, atol=1e-6)


def test_mask_loss_wants_the_end_that_shows_the_pixel() -> None:
    visible, one_sided = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
    visible[:, 0, 0], visible[:, 1, 1] = 1, 1
    one_sided[:, :, :2] = 1
    logits = torch.zeros(1, 1, 4, 4)
    assert float(mask_loss(logits, visible, one_sided)) == pytest.approx(math.log(2))
    logits[:, :, 0], logits[:, :, 1] = 9, -9
    assert float(mask_loss(logits, visible, one_sided)) < 1e-3


def test_distillation_teaches_only_where_the_student_is_worse() -> None:
    gt = torch.zeros(1, 3, 2, 2)
    student = torch.tensor([[0.5, 0.005], [0.0, 0.5]]).expand(1, 3, 2, 2)
    teacher_flow = torch.full((1, 4, 2, 2), 2.0)
    loss = distillation_loss(teacher_flow, gt, [torch.zeros(1, 4, 2, 2)], [student], gt)
    assert float(loss) == pytest.approx(2.0 * 2 / 4)


def test_a_batch_in_pieces_gives_the_same_step() -> None:
    batch, made = batch_of(4), []
    for accumulate in (1, 2):
        net = tiny()
        recipe = train.replace(RECIPE, accumulate=accumulate)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        made.append((training_step(net, batch, optimizer, recipe, rate=0.1), net.state_dict()))
    assert torch.allclose(torch.stack(made[0][0]), torch.stack(made[1][0]), rtol=1e-5)
    for key, value in made[0][1].items():
        assert torch.allclose(value, made[1][1][key], atol=1e-6)


@pytest.mark.parametrize("amp", ["bf16"])
def test_half_precision_keeps_flows_in_float32(amp: str) -> None:
    out = training.predict(tiny(), batch_of(1), amp)
    assert out.flow.dtype == out.image.dtype == torch.float32
    assert torch.isfinite(losses(out, batch_of(1), RECIPE, 0.5).total)


def test_average_follows_the_weights() -> None:
    average, net = tiny(0), tiny(1)
    kept, new = (next(n.parameters()).detach().clone() for n in (average, net))
    follow(average, net, 0.9, step=1000)
    assert torch.allclose(next(average.parameters()), 0.9 * kept + 0.1 * new, atol=1e-6)


def test_a_block_takes_over_what_a_narrower_one_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With silent fresh channels the wider block is the narrower one, for which mask, features and flow are 0."""
    monkeypatch.setattr(training, "NEW_CHANNELS", 0.0)
    net = tiny()
    for beta in (p for name, p in net.named_parameters() if "beta" in name):
        nn.init.uniform_(beta)
    training.inherit(net, 1, 0)
    x = torch.rand(1, net.config.inputs[0], 32, 32)
    zeros = x.new_zeros(1, net.config.inputs[1] - net.config.inputs[0] - 4, 32, 32)
    wide = net.get_submodule("block0")([x], None, 1.0)
    narrow = net.get_submodule("block1")([x, zeros], x.new_zeros(1, 4, 32, 32), 1.0)
    for made, expected in zip(wide, narrow, strict=True):
        assert torch.allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 0), (1, 2)])
def test_inheriting_needs_a_narrower_later_block(source: int, target: int) -> None:
    with pytest.raises(UserError, match=f"--inherit {source}:{target}"):
        training.inherit(tiny(), source, target)


def test_nan_changes_no_weight() -> None:
    net, batch = tiny(), batch_of(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    batch["gt"][0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="loss nan"):
        training_step(net, batch, torch.optim.AdamW(net.parameters()), RECIPE, rate=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def settings(folder: Path, *more: str) -> Any:
    common = ["--batch_size", "2", "--workers", "0", "--log_every", "1", "--save_every", "2", "--val_samples", "2"]
    return parse([*common, "--output", str(folder), *more])


def logged(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss/total" in line}


def start(folder: Path, resume: bool = False, seed: int = 0, optimizer: str = "adamw") -> Training:
    made = Training(tiny(seed), train.replace(RECIPE, optimizer=optimizer), folder, torch.device("cpu"))
    if resume:
        made.resume()
    made.start()
    return made


def test_held_out_clips_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def clips(files: Sequence[Path], *args: Any, **options: Any) -> Any:
        made.append([p.stem for p in files])
        return scenes().source

    monkeypatch.setattr("train.Clips", clips)
    for name in "abcde":
        (tmp_path / f"{name}.mp4").touch()
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    folder = ["--clips", str(tmp_path)]
    train.open_data(parse([*folder, "--held_out", "2"]), 64, guess_flow=False)
    assert made == [["b", "d"], ["a", "c", "e"]]
    made.clear()
    _, held = train.open_data(parse([*folder, "--held_out", "0", "--photos", str(tmp_path)]), 64, guess_flow=False)
    assert made == [["a", "b", "c", "d", "e"]]
    assert isinstance(held.source, Scenes)
    with pytest.raises(UserError, match="--held_out 0 needs"):
        train.open_data(parse([*folder, "--held_out", "0"]), 64, guess_flow=False)
    with pytest.raises(UserError, match="every clip would validate"):
        train.open_data(parse([*folder, "--held_out", "1"]), 64, guess_flow=False)
    for name in "bcde":
        (tmp_path / f"{name}.mp4").unlink()
    with pytest.raises(UserError, match="every clip would validate"):
        train.open_data(parse(folder), 64, guess_flow=False)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_and_resumed_is_as_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    whole = start(tmp_path / "whole", optimizer=optimizer)
    run(whole, settings(tmp_path / "whole", "--steps", "7"), scenes(), scenes(2))

    done = 0

    def killed(*args: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if done == 6:
            raise KeyboardInterrupt
        return training_step(*args, **options)

    monkeypatch.setattr(train, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(
            start(tmp_path / "cut", optimizer=optimizer),
            settings(tmp_path / "cut", "--steps", "7"),
            scenes(),
            scenes(2),
        )
    monkeypatch.undo()
    resumed = start(tmp_path / "cut", resume=True, seed=5, optimizer=optimizer)
    assert resumed.step == 4
    run(resumed, settings(tmp_path / "cut", "--steps", "7"), scenes(), scenes(2))

    one, other = logged(tmp_path / "whole"), logged(tmp_path / "cut")
    assert list(one) == list(other) == list(range(1, 8))
    for step in one:
        assert one[step] | {"seconds": 0} == other[step] | {"seconds": 0}
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key])
    assert whole.best == resumed.best


def test_stop_names_the_step_and_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(net: nn.Module, batch: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        if run_.step == 3:
            batch["gt"] = batch["gt"] * math.inf
        return training_step(net, batch, *args, **options)

    monkeypatch.setattr(train, "training_step", broken)
    run_ = start(tmp_path)
    with pytest.raises(UserError, match=r"step 3: loss nan.*state\.pt \(--resume\)"):
        run(run_, settings(tmp_path, "--steps", "7"), scenes(), scenes(2))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["progress"]["step"] == 2


def test_a_stop_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, {"step": torch.tensor(1)})

    def interrupted(content: Any, part: Path) -> None:
        part.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, {"step": torch.tensor(2)})
    assert torch.load(path, weights_only=True)["step"] == 1


def test_the_board_gets_scalars_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Mock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Mock(SummaryWriter=lambda folder: board))
    run(start(tmp_path), settings(tmp_path, "--steps", "2"), scenes(), scenes(2))
    scalars = {call.args[0] for call in board.add_scalar.call_args_list}
    assert scalars >= {"learning_rate", "loss/l1", "loss/teacher", "loss/distillation", "psnr"}
    pictures = {call.args[0]: call.args[1] for call in board.add_image.call_args_list}
    assert pictures["0/img"].shape == (3, 64, 4 * 64)
    assert pictures["1/mask"].shape == (1, 64, 64)


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    made = Training(tiny(), train.replace(RECIPE, processes=2), folder / "two", torch.device("cpu"))
    made.start()
    run(made, settings(folder / "two", "--steps", "3"), scenes(), scenes(2))
    train.leave_group()


def test_two_processes_are_one_with_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    alone = start(tmp_path / "one")
    run(alone, settings(tmp_path / "one", "--steps", "3", "--batch_size", "4"), scenes(), scenes(2))
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    for step in (1, 2, 3):
        for name in ("loss/total", "loss/l1", "loss/flow", "learning_rate"):
            assert one[step][name] == pytest.approx(two[step][name], rel=2e-4)
    state = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    for key, value in alone.net.state_dict().items():
        assert (value - state["net"][key]).abs().max() < 1e-4  # three steps of up to 1e-3 each
    assert alone.best == pytest.approx(state["progress"]["best"], abs=2e-3)


def test_the_v4_teacher_leaves_names_and_inference_alone() -> None:
    net, taught = tiny(), tiny(teacher=True)
    extra = set(taught.state_dict()) - set(net.state_dict())
    assert {key.partition(".")[0] for key in extra} == {"block_tea"}
    taught.load_state_dict(net.state_dict(), strict=False)
    batch = batch_of(1)
    images = batch["img0"], batch["img1"], batch["timestep"]
    with_gt = taught(*images, gt=batch["gt"])
    assert torch.equal(net(*images).image, with_gt.image)
    assert with_gt.teaching is not None
    assert losses(with_gt, batch, RECIPE, 0).teacher > 0
    real, recipe, crop = build("v4.25", teacher=True)
    assert detect_version(real.state_dict()).name == "4.25, 4.26"
    assert (recipe.flow > 0, crop) == (True, 256)
    with pytest.raises(UserError, match="rife_m"):
        build("v5")
    with pytest.raises(UserError, match="multiple of 64"):
        train.main(["--arch", "v4.25", "--crop", "224"])
    with pytest.raises(UserError, match="nothing to resume"):
        train.main(["--arch", "v4.25", "--resume", "--output", "nowhere"])


@pytest.mark.parametrize("arch", ["v4.0", "v4.6", "v4.14", "v4.22.lite"])
def test_every_generation_learns(arch: str) -> None:
    net, recipe, _ = build(arch, teacher=True)
    batch = batch_of(1)
    made = training_step(net, batch, torch.optim.SGD(net.parameters()), recipe, rate=1e-3)
    assert all(value > 0 for name, value in made._asdict().items() if name != "psnr")
    assert made.psnr == 0  # left out unless asked for
    assert all(p.grad is not None for key, p in net.named_parameters() if not key.startswith(("unet", "context")))


def test_commands(tmp_path: Path) -> None:
    """torchrun on two processes writes what plain python resumes from; the paper's network on a tiny Vimeo90K."""
    for s in range(24):
        folder = tmp_path / "vimeo" / "sequences" / f"{s:04}"
        folder.mkdir(parents=True)
        for n in range(3):
            picture = np.random.default_rng(s).integers(0, 256, (64, 64, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / f"im{n + 1}.png"), picture)
    (tmp_path / "vimeo" / "tri_trainlist.txt").write_text("\n".join(f"{s:04}" for s in range(24)))
    out = tmp_path / "out"
    options = ["--arch", "rife", "--vimeo", str(tmp_path / "vimeo"), "--crop", "64", "--output", str(out)]
    options += ["--batch_size", "1", "--workers", "0", "--val_samples", "1", "--log_every", "1"]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}

    def call(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("-m", "torch.distributed.run", "--nproc_per_node=2", "train.py", *options, "--world_size=2", "--steps", "2")
    assert "3 steps" in call("train.py", *options, "--steps", "3", "--resume")
    assert list(logged(out)) == [1, 2, 3]
    first, name, _ = load_network(out)
    assert name == "RIFE"

    again = tmp_path / "again"  # from given weights, which then must move
    train.main([*options, "--output", str(again), "--steps", "2", "--warmup", "1", "--init", str(out / "flownet.pkl")])
    moved = [(a - b).abs().max() for a, b in zip(first.parameters(), load_network(again)[0].parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3
