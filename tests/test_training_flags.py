"""Tests the flags of train.py: groups, defaults, one line for wrong values, files of stages, data that is opened."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from training_runs import scenes, tiny

import train
from commands import training_data
from commands.training_data import TrainingData
from commands.training_flags import add_flags, parse, read_stages
from data.pans import Pans
from dataset import Samples, Scenes, Spread
from model.errors import UserError, WeightsError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.loading import TRAIN_LOG, load_network
from model.training.network import build_from, build_trainable
from model.training.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "model" / "training" / "recipes"


def flags(*argv: str) -> argparse.Namespace:
    return parse(argv, "")[1]


def test_every_flag_has_a_group_and_one_sentence_with_its_default() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    shown = [a for a in parser._actions if a.help not in (argparse.SUPPRESS, "show this help message and exit")]
    assert len(shown) > 50
    grouped = [a for group in parser._action_groups[2:] for a in group._group_actions]
    assert {a.dest for a in shown} <= {a.dest for a in grouped}
    for action in shown:
        assert action.help is not None
        if action.dest not in ("resume", "output", "world_size"):
            assert "(default: " in action.help, action.dest
        assert "\n" not in action.help


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Runs train.py's main, which must end before any work; returns the line with the cause."""
    with pytest.raises(SystemExit) as caught:
        train.main(argv)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "usage: train.py [flags]"
    assert len(lines) == 2
    return lines[1]


def test_wrong_values_end_in_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty, photos = tmp_path / "empty", tmp_path / "photos"
    empty.mkdir()
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "weights.pkl").write_bytes(b"damaged")
    here = ["--photos", str(photos)]
    assert "--clips: nowhere: no such folder" in refused(capsys, "--clips", "nowhere")
    assert "--clips: empty: holds no video" in refused(capsys, "--clips", "empty")
    assert "--photos: empty: holds no picture" in refused(capsys, "--photos", "empty")
    assert "empty: no triplet of pictures" in refused(capsys, "--triplets", "empty")
    assert "no training data; give --triplets, --clips, --photos" in refused(capsys)
    assert "unknown network v9" in refused(capsys, *here, "--arch", "v9")
    assert "--crop: 100" in refused(capsys, *here, "--arch", "v4.25", "--crop", "100")
    assert "--batch_size" in refused(capsys, *here, "--batch_size", "0")
    assert "--optimizer" in refused(capsys, *here, "--optimizer", "sgd")
    assert "--amp" in refused(capsys, *here, "--amp", "half")
    assert "--pans: needs --photos" in refused(capsys, "--pans", "1")
    assert "--flow_alone: needs --blocks" in refused(capsys, *here, "--flow_alone")
    assert "--motion" in refused(capsys, *here, "--motion", "9", "3")
    assert "weights.pkl" in refused(capsys, *here, "--init", "weights.pkl")
    assert "nowhere.pkl" in refused(capsys, *here, "--distill", "nowhere.pkl")
    assert "holds no run to resume" in refused(capsys, *here, "--resume")
    assert "holds no state.pt" in refused(capsys, *here, "--resume", "--name", "a")
    assert "--name" in refused(capsys, *here, "--name", "a", "--output", "b")
    assert "weight 0" in refused(capsys, *here, "--mix", "0", "0", "0")
    assert "no spare outputs" in refused(capsys, *here, "--arch", "v4.6", "--sharp")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--hours" in refused(capsys, *here, "--hours", "1")


def test_a_finished_run_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "runs" / "old"
    old.mkdir(parents=True)
    (old / "flownet.pkl").write_bytes(b"precious")
    assert "holds a run already (flownet.pkl)" in refused(capsys, "--name", "old")
    assert "holds a run already (flownet.pkl)" in refused(capsys, "--output", "runs/old")
    assert (old / "flownet.pkl").read_bytes() == b"precious"
    folder, resumed = train.run_folder(flags())
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.as_posix())
    assert not resumed
    monkeypatch.setattr(train, "TRAIN_LOG", old)
    assert "--train_log: runs/old/flownet.pkl: exists already; move it" in refused(capsys, "--train_log").replace(
        f"{tmp_path}/", ""
    )


def test_a_run_is_resumed_by_name_the_newest_by_itself_or_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("ab"):
        state = tmp_path / "runs" / name / "state.pt"
        state.parent.mkdir(parents=True)
        state.touch()
        os.utime(state, (i, i))
    assert train.run_folder(flags("--resume")) == (Path("runs/b"), True)
    assert train.run_folder(flags("--resume", "--name", "a")) == (Path("runs/a"), True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # torchrun has started the processes again
    assert train.run_folder(flags("--name", "a")) == (Path("runs/a"), True)
    assert train.run_folder(flags("--name", "new")) == (Path("runs/new"), False)


@pytest.mark.parametrize(("nodes", "most", "resumes"), [(2, 1, True), (1, 1, False), (2, 0, False)])
def test_on_several_nodes_only_the_failed_one_counts_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, most: int, resumes: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "runs" / "a" / "state.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    for name, value in {"RESTART_COUNT": 0, "MAX_RESTARTS": most}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", str(value))
    monkeypatch.setenv("GROUP_WORLD_SIZE", str(nodes))
    if resumes:
        assert train.run_folder(flags("--name", "a")) == (Path("runs/a"), True)
    else:
        with pytest.raises(UserError, match="holds a run already"):
            train.run_folder(flags("--name", "a"))


STAGES = """
[DEFAULT]
amp = bf16
[first]
blocks = 0
flow_alone = yes
crop = 64
steps = 10
[second]
peak = 2e-4
hours = 1.5
[second / a]
gaps = 2 3
weight = 2
[second / b]
crop = 128  ; larger
"""


def test_stages_take_flags_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "stages.ini"
    file.write_text(STAGES)
    args = flags("--photos", str(tmp_path), "--batch_size", "3", "--steps", "99")
    (first, [one]), (second, [a, b]) = read_stages(file, args)
    assert (first, second) == ("first", "second")
    assert (one.blocks, one.flow_alone, one.crop, one.steps, one.amp) == ([0], True, 64, 10, "bf16")
    assert (one.peak, one.batch_size) == (None, 3)
    assert (a.peak, a.hours, a.gaps, a.weight, a.crop) == (2e-4, 1.5, [2, 3], 2, None)
    assert (b.gaps, b.weight, b.crop, b.steps, b.amp) == ((), 1, 128, 99, "bf16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no stage"),
        ("peak = 1", "cannot be read as a file of stages"),
        ("[a]\npaek = 1", r"\[a\]: paek: cannot be set here; is it peak"),
        ("[a]\noutput = x", r"\[a\]: output: cannot be set here"),
        ("[a]\npeak = fast", r"\[a\]: argument --peak: 'fast' is not a number of 0 or more"),
        ("[a]\nflow_alone = yes", r"\[a\]: argument --flow_alone: needs --blocks"),
        ("[a / b]\ncrop = 64", r"\[a / b\]: there is no \[a\] before it"),
        ("[a]\n[a / b]\npeak = 1", r"\[a / b\]: peak: cannot be set here"),
    ],
)
def test_errors_in_a_file_of_stages_name_the_section(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "stages.ini"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_stages(file, flags())
    assert "\n" not in str(caught.value)


def test_the_recipes_that_ship_can_be_read() -> None:
    files = sorted(RECIPES.glob("*.ini"))
    assert [file.stem for file in files] == ["default"]
    names = [name for name, _ in read_stages(files[0], flags("--photos", str(RECIPES)))]
    assert names[0] == "block 0 at scale 2"
    assert names[-1] == "all blocks"


def test_held_out_clips_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def clips(files: Sequence[Path], *args: Any, **options: Any) -> Any:
        made.append([p.stem for p in files])
        return scenes().source

    monkeypatch.setattr(training_data, "Clips", clips)
    for name in "abcde":
        (tmp_path / f"{name}.mp4").touch()
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))

    def opened(*argv: str) -> Samples:
        args = flags("--clips", str(tmp_path), *argv)
        data = TrainingData(args, print)
        data.training(args, 64, 0, flow=False)
        return data.validation(64, 1)

    opened("--held_out", "2")
    assert made == [["b", "d"], ["a", "c", "e"]]
    made.clear()
    validation = opened("--held_out", "0", "--photos", str(tmp_path))
    assert made == [["a", "b", "c", "d", "e"]]
    assert isinstance(validation.source, Spread)
    assert isinstance(validation.source.source, Scenes)
    assert len(validation) == 200  # of scenes without end
    assert len(opened("--held_out", "0", "--photos", str(tmp_path), "--val_samples", "7")) == 7
    with pytest.raises(UserError, match="with 0 nothing validates"):
        opened("--held_out", "0")
    with pytest.raises(UserError, match="every clip would validate"):
        opened("--held_out", "1")
    for name in "bcde":
        (tmp_path / f"{name}.mp4").unlink()
    with pytest.raises(UserError, match="every clip would validate"):
        opened()


def test_damaged_photos_are_skipped_and_pans_pan_over_the_others(tmp_path: Path) -> None:
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((64, 64, 3), 40 * i, np.uint8))
    (tmp_path / "2.png").write_bytes(b"damaged")
    lines: list[str] = []
    args = flags("--photos", str(tmp_path), "--mix", "0", "0", "0", "--pans", "1", "--held_out", "2")
    data = TrainingData(args, lines.append)
    made = data.training(args, 64, 0, flow=False)
    assert isinstance(made.source, Pans)
    assert [int(photo[0, 0, 0]) for photo in made.source.photos] == [40, 160]
    spread = data.flow_validation(args, 64, 0).source
    assert isinstance(spread, Spread)
    validation = spread.source
    assert isinstance(validation, Pans)
    assert [int(photo[0, 0, 0]) for photo in validation.photos] == [0, 120, 200]
    assert [line.partition(" ")[0] for line in lines] == ["2.png"]


def test_training_starts_from_official_files_as_they_are() -> None:
    official = build_trainable("v4.25", teacher=True).state_dict()
    extras = {"teacher.0.weight": torch.zeros(1), "caltime.0.weight": torch.zeros(2, 2)}
    net, note = build_from({**official, **extras})
    assert isinstance(net, IFNet_v4)
    assert note == "left out of the file: block_tea.*, caltime.*, teacher.*"
    assert all(torch.equal(value, official[key]) for key, value in net.state_dict().items())
    taught, note = build_from({**official, **extras}, teacher=True)
    assert note == "left out of the file: caltime.*, teacher.*"
    assert torch.equal(taught.state_dict()["block_tea.conv0.0.0.bias"], official["block_tea.conv0.0.0.bias"])
    without = {key: value for key, value in official.items() if not key.startswith("block_tea.")}
    fresh, note = build_from(without, teacher=True)
    assert note == "block_tea.* starts from random weights"
    assert fresh.state_dict()["block_tea.conv0.0.0.weight"].abs().max() > 0
    with pytest.raises(WeightsError, match="do not fit this network"):
        build_from(official, "v4.22")


def test_the_architecture_follows_from_the_weights() -> None:
    for name in ("rife", "rife_m"):
        net, note = build_from(build_trainable(name).state_dict())
        assert isinstance(net, IFNet)
        assert (net.timed, note) == (name == "rife_m", "")
    lite, _ = build_from(build_trainable("v4.22.lite").state_dict())
    assert isinstance(lite, IFNet_v4)
    assert lite.config.channels == (192, 128, 64, 32)


@pytest.mark.skipif(not (TRAIN_LOG / "flownet.safetensors").is_file(), reason="the default weights are not there")
def test_the_default_weights_stay_sharp() -> None:
    args = flags("--init", str(TRAIN_LOG / "flownet.safetensors"))
    net = train.open_network(args)
    assert isinstance(net, IFNet_v4)
    assert net.config.sharp
    known = load_network(TRAIN_LOG / "flownet.safetensors")[0].state_dict()
    assert all(torch.equal(value, known[key]) for key, value in net.state_dict().items())


def test_flags_of_a_stage_replace_the_numbers_of_the_network(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    args = flags("--photos", str(tmp_path), "--peak", "7e-4", "--crop", "64", "--steps", "5", "--inherit", "1:0")
    [stage] = train.open_stages(args, tiny())
    assert (stage.recipe.peak, stage.recipe.clip, stage.steps, stage.inherit) == (7e-4, 1.0, 5, ((1, 0),))
    assert Recipe().clip == 0
    args = flags("--photos", str(tmp_path), "--crop", "64", "--blocks", "0", "--flow_alone", "--distill_flow", "0.5")
    [stage] = train.open_stages(args, tiny())
    assert (stage.recipe.flow, stage.recipe.mask, stage.recipe.distill_flow, stage.blocks) == (1.0, 0.0, 0.5, (0,))


@pytest.mark.parametrize(
    ("argv", "rates"),
    [
        ((), (4e-4, 3e-6)),
        (("--init", "w.pkl"), (2e-5, 1.5e-7)),
        (("--init", "w.pkl", "--peak", "1e-4"), (1e-4, 1.5e-7)),
        (("--init", "w.pkl", "--flow_alone", "--blocks", "0"), (4e-4, 3e-6)),
    ],
)
def test_trained_weights_get_lower_learning_rates(
    tmp_path: Path, argv: Sequence[str], rates: tuple[float, ...]
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    [stage] = train.open_stages(flags("--photos", str(tmp_path), "--crop", "64", *argv), tiny())
    assert (stage.recipe.peak, stage.recipe.floor) == pytest.approx(rates)


@pytest.mark.slow
def test_an_unread_message_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "--photos", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"train.py: error: argument --photos: {tmp_path}: holds no picture " + (
        "(.png, .jpg, .jpeg, .webp, .tif, .tiff, .exr, .bmp)"
    )
