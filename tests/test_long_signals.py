"""Tests signals at every step of long work: exit status, one line about what is kept, no process left."""

import argparse
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import long_work, segment_plan
from commands import network_flags as flags
from commands.progress import Progress
from model import RIFE, UserError
from segments import pool
from segments.folder import WorkFolder
from video.frame import Frame
from video.safe_file import SafeFile
from video.writing.writer import VideoWriter

STOP = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
COUNT = 48
ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.usefixtures("usual_handlers"),
    pytest.mark.skipif(sys.platform != "linux", reason="sends signals, and forks"),
]
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [picture(i % 20) for i in range(COUNT)]
    return make_clip(tmp_path_factory.mktemp("source") / "a.mkv", COUNT, pictures=pictures, options={"g": "12"})


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], clip: Path) -> Command:
    """Runs long work into b.mkv with a network whose answer is known -> exit status, stderr. Workers are forks."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, output: str = "b.mkv") -> tuple[int, str]:
        given = ["--video", clip, "--output", output, "--codec=ffv1", "--segments=0.5", *arguments]
        status = inference_video.main([str(a) for a in given])
        return status, capfd.readouterr().err

    return run


def send_at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, call: int = 0) -> list[int]:
    """Sends a signal to this process and its children in the given call of a function; returns the children then."""
    original, calls = getattr(owner, name), [0]
    children: list[int] = []
    this = os.getpid()

    def send(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call + 1 and os.getpid() == this:
            children.extend(child.pid for child in multiprocessing.active_children() if child.pid)
            for process in (*children, this):
                os.kill(process, number)
            time.sleep(0.01)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, send)
    return children


def check_the_rest(command: Command, *arguments: object) -> None:
    """Runs the same command to its end, and compares its frames with those of a run in one piece."""
    assert command(*arguments) == (0, "")
    assert command("--segments=0", output="whole.mkv")[0] == 0
    made, whole = Clip(Path("b.mkv")), Clip(Path("whole.mkv"))
    assert made.times == whole.times
    assert [made.planes(i) for i in range(len(made.times))] == [whole.planes(i) for i in range(len(whole.times))]
    assert sorted(path.name for path in Path().iterdir()) == ["b.mkv", "whole.mkv"]


@pytest.mark.parametrize("number", STOP)
def test_a_signal_in_a_segment(command: Command, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        send_at_call(patch, VideoWriter, "write", number, 60)
        status, err = command()
    assert (status, err) == (130, "2 of 4 segments are finished in b.rife; the same command continues\n")
    assert sorted(path.name for path in Path("b.rife").iterdir()) == [
        *("00000.json", "00000.mkv", "00001.json", "00001.mkv", "lock", "plan.json"),
    ]
    check_the_rest(command)


def test_a_signal_while_a_library_writes_is_not_lost(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV prints what a write raises in place of an Exception, as KeyboardInterrupt, and takes it as written."""
    for call, step in ((0, "trial"), (3, "segment"), (1, "segment"), (0, "join")):
        with monkeypatch.context() as patch:
            if step == "join":
                assert command("--segment=1/1")[0] == 0
            send_at_call(patch, SafeFile, "write", signal.SIGINT, call)
            status, err = command(*(["--join"] if step == "join" else []))
        assert (step, status) == (step, 130)
        assert re.fullmatch(r"(interrupted: nothing was written|\d of 4 segments are finished in b.rife; .*)\n", err)
    check_the_rest(command)


@pytest.mark.parametrize("number", STOP)
@pytest.mark.slow
def test_a_signal_in_a_share_and_in_the_join(command: Command, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        send_at_call(patch, VideoWriter, "write", number, 30)
        status, err = command("--segment=1/2")
    assert (status, err) == (130, "1 of 4 segments are finished in b.rife; the same command continues\n")
    assert [command(f"--segment={share}/2")[0] for share in (1, 2)] == [0, 0]
    with monkeypatch.context() as patch:
        send_at_call(patch, VideoWriter, "copy", number, 30)
        status, err = command("--join")
    assert (status, err) == (130, "4 of 4 segments are finished in b.rife; the same command continues\n")
    assert not [path for path in Path("b.rife").iterdir() if path.stem.startswith("joined")]
    check_the_rest(command, "--join")


@pytest.mark.parametrize("number", STOP)
def test_a_signal_while_the_plan_is_made(command: Command, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        send_at_call(patch, segment_plan, "cut_source", number)
        status, err = command()
    assert (status, err, [*Path().iterdir()]) == (130, "interrupted: nothing was written\n", [])


@pytest.mark.parametrize("number", STOP)
@pytest.mark.slow
def test_a_signal_to_all_processes_of_two_devices(
    command: Command, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminals and batch systems send such signals: workers ignore them, and the first process ends the workers."""
    with monkeypatch.context() as patch:
        patch.setattr(long_work, "work_on_device", write_for_long)
        workers = send_at_call(patch, Progress, "count", number, 1)
        status, err = command("--devices=cpu,cpu:0")
    assert len(workers) == 2
    assert status == 130
    assert err.endswith("of 4 segments are finished in b.rife; the same command continues\n")
    assert err.count("\n") == 1
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not [path.name for path in Path("b.rife").iterdir() if ".new" in path.name]
    check_the_rest(command)


def write_for_long(settings: argparse.Namespace, device: str, channel: pool.Channel) -> None:
    """Begins a segment and counts frames for a minute."""
    index = settings.devices.split(",").index(device)
    WorkFolder(Path("b.rife"), ".mkv").new_file(index).touch()
    channel.begin(index)
    for _ in range(1200):
        channel.count(Frame(picture(0), Fraction(0)))
        time.sleep(0.05)


def die(settings: tuple[Path, int], device: str, channel: pool.Channel) -> None:
    """Begins segment 3 and dies, up to a number of times that a file counts."""
    channel.begin(3)
    file, times = settings
    with file.open("a") as notes:
        notes.write(".")
    if file.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("times", [2, 3])
def test_a_worker_that_dies_is_replaced_up_to_two_times_in_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    folder, notes = WorkFolder(tmp_path, ".mkv"), tmp_path / "notes"
    if times == 2:
        pool.run_workers(die, (notes, times), ["cpu"], folder, lambda *_: None)
    else:
        with pytest.raises(UserError, match=r"died in segment 3 \(exit status -9\) for the 3rd time; finished segm"):
            pool.run_workers(die, (notes, times), ["cpu"], folder, lambda *_: None)
    assert notes.read_text() == "..."
    assert capsys.readouterr().err.count("another worker replaces it") == 2
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_process_of_a_pool_ends_with_a_killed_parent() -> None:
    code = (
        "import multiprocessing, os, time\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from segments.pool import end_with_parent\n"
        "spawn = multiprocessing.get_context('spawn')\n"
        "pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\npool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        run.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_first_process(tmp_path: Path, clip: Path, tiny_weights: Path, number: int) -> None:
    command = [sys.executable, str(ROOT / "inference_video.py"), "--video", str(clip), "--model", str(tiny_weights)]
    command += ["--output=b.mkv", "--codec=ffv1", "--segments=0.5", "--devices=cpu,cpu"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("b.rife/*.new.part.mkv")) and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send_signal(number)
        assert run.wait(30) == (130 if number == signal.SIGTERM else -9)
    assert len(workers) >= 2
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(Clip(tmp_path / "b.mkv").pictures) == 2 * COUNT - 1
