"""Tests training runs: killed and resumed, stages, parts, several processes, damaged files, a full disk, the log."""

import json
import math
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from training_runs import CPU, RECIPE, TINY, batch_of, logged, scenes, stage, start, tiny

import train
from data.pans import Pans
from data.sample import augment
from dataset import Samples
from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.training import checkpoint
from model.training import run as running
from model.training.checkpoint import check_no_run, read_run_state, write_tensors
from model.training.log import duration
from model.training.recipe import Recipe
from model.training.run import Run, RunSettings
from model.training.stages import Stage, StagePart, stage_batches
from model.training.step import training_step
from video.pictures.picture import read_picture


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the given training step, counted from 1, raise KeyboardInterrupt."""
    done = 0

    def killed(*args: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if done == call:
            raise KeyboardInterrupt
        return training_step(*args, **options)

    monkeypatch.setattr(running, "training_step", killed)


def two_stages() -> list[Stage]:
    """Returns a stage of the first block by flow alone and a stage of all with two parts and several views."""
    noise = scenes().source.textures  # type: ignore[attr-defined]
    pans = Samples(Pans(noise, 64, (2, 8), length=16), 3)
    first = stage(
        3, name="coarse", blocks=(0,), flow_alone=True, parts=[StagePart(pans, 2, views=2)], inherit=((1, 0),)
    )
    parts = [StagePart(scenes(), 2, weight=1.0), StagePart(pans, 1, weight=2.0, views=2)]
    return [replace(first, validation=pans, recipe=replace(RECIPE, flow=1.0)), stage(4, name="all", parts=parts)]


@pytest.mark.parametrize(
    "case", [pytest.param("adamw", marks=pytest.mark.slow), pytest.param("muon", marks=pytest.mark.slow), "stages"]
)
def test_killed_and_resumed_is_as_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    stages = two_stages() if case == "stages" else [stage(recipe=replace(RECIPE, optimizer=case))]
    whole = start(tmp_path / "whole", stages)
    whole.train()
    kill_at(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut", stages).train()
    monkeypatch.undo()
    resumed = start(tmp_path / "cut", stages, seed=5, resume=True)
    assert resumed.steps == (5 if case == "stages" else 4)
    resumed.train()
    one, other = logged(tmp_path / "whole"), logged(tmp_path / "cut")
    assert [line["step"] for line in one] == list(range(1, 8))
    seen = {line["step"]: line for line in other}
    assert one == [seen[step] for step in range(1, 8)]
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key])
    assert whole.best == resumed.best


def test_a_stage_trains_its_blocks_and_the_next_one_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny().state_dict()
    kill_at(4, monkeypatch)
    run = start(tmp_path, two_stages())
    with pytest.raises(KeyboardInterrupt):
        run.train()
    after = run.net.state_dict()
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"block0"}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = next(line for line in lines if "flow_error" in line)
    assert scores["flow_error"] == scores["flow_error/block0"]
    assert 0 < scores["flow_length"] < 8
    monkeypatch.undo()
    start(tmp_path, two_stages(), resume=True).train()
    assert {line["stage"] for line in logged(tmp_path)} == {"coarse", "all"}
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stage")]
    assert printed == 2 * ["stage 1 of 2: coarse", "stage 2 of 2: all"]  # resumed at the end of the first one


def test_batches_are_the_same_from_any_step_on() -> None:
    both = two_stages()[1]

    def first(count: int, step: int) -> list[dict[str, Tensor]]:
        made = stage_batches(both, 7, step=step, rank=0, world=1, workers=0, device=CPU)
        return [next(made) for _ in range(count)]

    whole = first(12, 0)
    for step in (1, 4, 7):
        for a, b in zip(whole[step:], first(12 - step, step), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    sizes = [len(batch["gt"]) for batch in first(60, 0)]
    assert 25 < sizes.count(1) < 55  # two thirds of the batches are of the second part


def test_a_view_of_a_batch_turns_all_its_samples_alike() -> None:
    batch = {key: value for key, value in batch_of(2).items() if key != "img0"}
    batch["img0"] = batch["gt"].clone()
    for seed in range(8):
        whole = augment(np.random.default_rng(seed), batch)
        for i in range(2):
            alone = augment(np.random.default_rng(seed), {key: value[i] for key, value in batch.items()})
            assert all(torch.equal(whole[key][i], alone[key]) for key in alone)


def test_a_stop_names_the_step_and_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(net: nn.Module, batch: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        if run.step == 3:
            batch["gt"] = batch["gt"] * math.inf
        return training_step(net, batch, *args, **options)

    monkeypatch.setattr(running, "training_step", broken)
    run = start(tmp_path)
    with pytest.raises(UserError, match=r"step 3: loss nan.*state\.pt"):
        run.train()
    assert read_run_state(tmp_path / "state.pt")["progress"]["step"] == 2


def test_a_stop_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    write_tensors(path, {"step": torch.tensor(1)})
    for error in (KeyboardInterrupt(), OSError(28, "No space left on device")):

        def interrupted(content: Any, file: Any, error: BaseException = error) -> None:
            file.write(b"half of it")
            raise error

        monkeypatch.setattr(torch, "save", interrupted)
        with pytest.raises((KeyboardInterrupt, UserError), match=r"No space left on device|^$"):
            write_tensors(path, {"step": torch.tensor(2)})
        assert torch.load(path, weights_only=True)["step"] == 1


def test_no_run_is_replaced(tmp_path: Path) -> None:
    check_no_run(tmp_path)
    for name in ("state.pt", "flownet.pkl", "best/flownet.pkl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        with pytest.raises(UserError, match=f"holds a run already.*{path.name}"):
            check_no_run(tmp_path)
        path.unlink()


def damage(path: Path, kind: str) -> None:
    """Damages a state file, or puts another kind of file in its place."""
    content = path.read_bytes()
    match kind:
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            path.write_bytes(content[:200] + bytes(len(content) - 400) + content[-200:])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a state")
        case "code":
            path.write_bytes(pickle.dumps(print))
        case "weights":
            torch.save(tiny().state_dict(), path)


@pytest.mark.parametrize("kind", ["cut off", "flipped", "empty", "text", "code", "weights"])
def test_a_damaged_or_foreign_state_is_one_line(tmp_path: Path, kind: str) -> None:
    start(tmp_path, [stage(2)]).train()
    damage(tmp_path / "state.pt", kind)
    with pytest.raises(UserError, match=r"state\.pt: .*start a new run from the weights in .*flownet\.pkl") as caught:
        start(tmp_path, [stage(2)], resume=True)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    start(tmp_path, [stage(2)]).train()
    with pytest.raises(UserError, match="of a run with the stages"):
        start(tmp_path, two_stages(), resume=True)
    with pytest.raises(UserError, match="with the optimizer adamw"):
        start(tmp_path, [stage(2, recipe=replace(RECIPE, optimizer="muon"))], resume=True)
    wider = IFNet_v4(replace(TINY, channels=(24, 8)))
    with pytest.raises(UserError, match="of another network"):
        Run(wider, [stage(2)], tmp_path, CPU, RunSettings(workers=0)).resume()


def test_a_full_disk_stops_in_one_line(tmp_path: Path) -> None:
    run = start(tmp_path, [stage(2)])
    (tmp_path / "log.jsonl").unlink(missing_ok=True)
    (tmp_path / "log.jsonl").mkdir()  # a log that cannot be written to
    with pytest.raises(UserError, match=r"log\.jsonl: cannot be written"):
        run.train()


def test_a_stop_saves_the_step_that_the_run_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path / "whole", [stage(4)]).train()
    run = start(tmp_path / "cut", [stage(4)], save_every=100)
    run.stop = lambda: run.step == 3
    validated = Mock()
    monkeypatch.setattr(run, "validate", validated)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert not validated.called
    resumed = start(tmp_path / "cut", [stage(4)], seed=5, resume=True)
    assert resumed.step == 3
    resumed.train()
    assert logged(tmp_path / "whole") == logged(tmp_path / "cut")


def test_a_stop_during_a_validation_saves_without_the_rest_of_it(tmp_path: Path) -> None:
    samples = stage(4).validation
    read: list[int] = []

    class Counted:
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: tuple[int, int]) -> Any:
            read.append(index[1])
            return samples[index]

    counted: Any = Counted()
    run = start(tmp_path, [replace(stage(4), validation=counted)], save_every=2)
    run.stop = lambda: len(read) == 1
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert len(samples) > 1
    assert read == [0]
    assert read_run_state(tmp_path / "state.pt")["progress"]["step"] == 2


def test_slow_steps_are_saved_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SAVE_SECONDS", 0)
    kill_at(4, monkeypatch)
    run = start(tmp_path, save_every=100)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert read_run_state(tmp_path / "state.pt")["progress"]["step"] == 3


def test_a_disk_that_is_full_at_the_first_checkpoint_leaves_the_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Any) -> None:
        if path.name == "state.pt" and disk_is_full:
            raise UserError(f"{path}: cannot be written (No space left on device); make room on the disk, then resume")
        write_tensors(path, content)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    disk_is_full = True
    with pytest.raises(UserError, match=r"state\.pt: cannot be written .*No space.* make room.* start the run again$"):
        start(tmp_path, [stage(2)]).train()
    check_no_run(tmp_path)
    disk_is_full = False
    run = start(tmp_path, [stage(2)])
    run.train()
    disk_is_full = True
    with pytest.raises(UserError, match="then resume"):
        run.save(0)
    assert sorted(path.name for path in tmp_path.glob("*.p*")) == ["flownet.pkl", "state.pt"]


def test_the_log_has_a_table_pictures_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path, [stage(4)]).train()
    lines = capsys.readouterr().err.splitlines()
    header = next(line for line in lines if "samples/s" in line)
    assert header.split() == ["step", "left", "samples/s", "rate", "total", "l1", "deep", "flow", "mask"]
    row = next(line for line in lines if line.split()[0] == "1/4").split()
    assert len(row) == len(header.split())
    assert float(row[4]) == pytest.approx(logged(tmp_path)[0]["loss/total"], abs=1e-4)
    assert any(line.startswith("step 2: validation psnr") and line.endswith("saved") for line in lines)
    sheet = read_picture(tmp_path / "pictures" / "0000004.png")
    assert sheet.shape == (2 * 64, 4 * 64, 3)
    sample = scenes(2)[(0, 0)]
    for i, name in enumerate(("img0", "gt", None, "img1")):
        shown = sheet[:64, 64 * i : 64 * i + 64]
        if name:
            assert np.array_equal(shown, sample[name].permute(1, 2, 0).numpy())


def test_training_continues_if_its_output_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Mock()
    closed.write.side_effect = BrokenPipeError
    monkeypatch.setattr(sys, "stderr", closed)
    start(tmp_path, [stage(2)]).train()
    assert (tmp_path / "flownet.pkl").is_file()


def test_durations_are_written_in_hours_minutes_and_seconds() -> None:
    assert [duration(s) for s in (12.4, 200, 7500)] == ["12s", "3m20s", "2h05m"]


def test_the_clock_ends_a_stage() -> None:
    timed = stage(0, hours=0.5)
    assert not timed.finished(10**6, 1799)
    assert timed.finished(1, 1800)
    assert timed.total(100, 180.0) == 1000  # a tenth of the time has made a hundred steps


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Mock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Mock(SummaryWriter=lambda folder: board))
    start(tmp_path, [stage(2)]).train()
    scalars = {call.args[0] for call in board.add_scalar.call_args_list}
    assert scalars >= {"learning_rate", "loss/l1", "loss/teacher", "loss/distillation", "psnr"}
    pictures = {call.args[0]: call.args[1] for call in board.add_image.call_args_list}
    assert pictures["0/img"].shape == (3, 64, 4 * 64)
    assert pictures["1/mask"].shape == (1, 64, 64)


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    start(folder / "two", [stage(3, recipe=replace(RECIPE, processes=2))]).train()
    train.leave_group()


@pytest.mark.slow
def test_two_processes_are_one_with_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    alone = start(tmp_path / "one", [stage(3, 4)])
    alone.train()
    for one, two in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        for name in ("loss/total", "loss/l1", "loss/flow", "learning_rate"):
            assert one[name] == pytest.approx(two[name], rel=2e-4)
    state = read_run_state(tmp_path / "two" / "state.pt")
    for key, value in alone.net.state_dict().items():
        assert (value - state["net"][key]).abs().max() < 1e-4  # three steps of up to 1e-3 each
    assert alone.best == pytest.approx(state["progress"]["best"], abs=2e-3)


def test_a_network_without_training_steps_is_the_best_of_its_stage(tmp_path: Path) -> None:
    """`best` starts anew with every stage: scores of other losses do not compare."""
    run = start(tmp_path, [stage(2, name="a"), stage(2, name="b", recipe=Recipe(peak=0.0, floor=0.0, warmup=0))])
    run.train()
    best = torch.load(tmp_path / "best" / "flownet.pkl", weights_only=True)
    last = run.net.state_dict()
    assert all(torch.equal(value, last[key.removeprefix("module.")]) for key, value in best.items())
