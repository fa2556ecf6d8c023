"""Tests train.py as users run it: torchrun, resuming, fine-tuning on triplets, distilling into another network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from training_runs import logged, tiny

import train
from model.loading import load_network

ROOT = Path(__file__).resolve().parent.parent


def make_triplets(folder: Path, count: int) -> None:
    """Writes triplets of noise that moves by 2 px, each as im1.png im2.png im3.png in a folder of its own."""
    for n in range(count):
        wide = np.random.default_rng(n).integers(0, 256, (8, 9, 3)).astype(np.uint8)
        wide = np.asarray(cv2.resize(wide, (72, 64), interpolation=cv2.INTER_CUBIC))
        inside = folder / "sequences" / f"{n:04}"
        inside.mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(inside / f"im{i + 1}.png"), wide[:, 2 * i : 2 * i + 64])
    (folder / "tri_trainlist.txt").write_text("\n".join(f"{n:04}" for n in range(count)))


SMALL = ["--batch_size", "1", "--workers", "0", "--val_samples", "1", "--log_every", "1", "--crop", "64"]


@pytest.mark.slow
def test_torchrun_on_two_processes_writes_what_plain_python_resumes_from(tmp_path: Path) -> None:
    make_triplets(tmp_path / "vimeo", 24)
    out = tmp_path / "out"
    options = ["--arch", "rife", "--vimeo", str(tmp_path / "vimeo"), "--output", str(out), *SMALL]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}

    def call(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("-m", "torch.distributed.run", "--nproc_per_node=2", "train.py", *options, "--world_size=2", "--steps", "2")
    assert "3 steps" in call("train.py", *options, "--steps", "3", "--resume")
    assert [line["step"] for line in logged(out)] == [1, 2, 3]
    first, name, _ = load_network(out)
    assert name == "RIFE"

    again = tmp_path / "again"  # from given weights, which then must move
    start = ["--init", str(out / "flownet.pkl"), "--steps", "2", "--warmup", "1", "--output", str(again)]
    train.main(["--vimeo", str(tmp_path / "vimeo"), *SMALL, *start])
    moved = [(a - b).abs().max() for a, b in zip(first.parameters(), load_network(again)[0].parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of processes that get signals")
@pytest.mark.parametrize(("number", "who"), [(signal.SIGTERM, "all"), (signal.SIGHUP, "all"), (signal.SIGKILL, "one")])
def test_a_signal_to_all_processes_ends_a_run_with_a_checkpoint_and_a_killed_one_in_one_line(
    tmp_path: Path, number: signal.Signals, who: str
) -> None:
    """Batch systems, `timeout` and closed terminals send a signal to the loading processes too."""
    make_triplets(tmp_path / "vimeo", 24)
    out = tmp_path / "out"
    options = ["--vimeo", str(tmp_path / "vimeo"), "--arch", "v4.22.lite", *SMALL, "--workers", "2", "--device", "cpu"]
    run = subprocess.Popen(
        [sys.executable, "train.py", *options, "--output", str(out), "--steps", "100000"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert run.stderr is not None
        for line in run.stderr:
            if line.strip().startswith("2/100000"):  # the loading processes have made two batches
                break
        if who == "all":
            os.killpg(run.pid, number)
        else:
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
            if not children.exists():
                pytest.skip("this system does not list the children of a process")
            os.kill(int(children.read_text().split()[-1]), number)
        _, errors = run.communicate(timeout=120)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == (130 if who == "all" else 1)
    assert "Traceback" not in errors
    assert (out / "state.pt").exists() == (who == "all")
    last = errors.strip().splitlines()[-1]
    assert "continues from it by --resume" in last if who == "all" else "no checkpoint exists yet" in last


@pytest.mark.parametrize("device", ["cpu"])
def test_fine_tuning_distilling_and_train_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "TRAIN_LOG", tmp_path / "train_log")
    monkeypatch.setattr(train, "build_trainable", lambda *_, **__: tiny(1))
    make_triplets(tmp_path / "mine", 4)
    teacher = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(train.build_trainable("v4.22.lite").state_dict(), tmp_path / "student.safetensors")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "TRAIN_LOG", tmp_path / "train_log")
    safetensors.torch.save_file(train.build_trainable("rife_m").state_dict(), teacher)
    common = ["--triplets", "mine", "--steps", "2", "--warmup", "0", "--device", device, *SMALL]
    train.main(["--arch", "v4.22.lite", "--distill", "teacher.safetensors", "--name", "lite", "--train_log", *common])
    out, err = capsys.readouterr()
    assert out.startswith("runs/lite/flownet.pkl: 2 steps, best validation")
    assert "distill_flow" in err
    assert "after a stop the same command with --resume continues" in err  # --name and --output exclude each other
    assert all(line["loss/distill_flow"] > 0 for line in logged(tmp_path / "runs/lite"))
    made = torch.load(tmp_path / "train_log/flownet.pkl", weights_only=True)
    assert load_network(tmp_path / "runs/lite")[1] == "4.22.lite"
    assert all(key.startswith("module.") for key in made)
    settings = json.loads((tmp_path / "runs/lite/log.jsonl").read_text().splitlines()[0])
    assert settings["recipes"]["train"]["distill_flow"] == 0.02
