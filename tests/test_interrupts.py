"""Tests signals at every moment of a run: what was made is kept, no name is false, a line names the file."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from commands.interrupts import Interrupts
from model import RIFE
from video.writing.writer import VideoWriter

sys.path.insert(0, str(Path(__file__).parent / "long"))

from kills import count_frames

ROOT = Path(__file__).parents[1]
STOP = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

pytestmark = pytest.mark.usefixtures("usual_handlers")
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "a.mp4", 30, pictures=[picture(i % 9) for i in range(30)], audio=["aac"])


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in an empty folder, with a network whose answer is known -> exit status, stderr."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        status = inference_video.main([str(a) for a in (*arguments, "--static-threshold=1")])
        return status, capfd.readouterr().err

    return run


def signal_at_frame(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, count: int) -> None:
    """Sends a signal while frame `count` is written."""
    write = VideoWriter.write

    def write_and_signal(writer: VideoWriter, frame: inference_video.Frame) -> None:
        if writer.frames == count:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", write_and_signal)


@pytest.mark.parametrize("number", STOP)
def test_a_signal_keeps_a_playable_part(
    tmp_path: Path, clip: Path, command: Command, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at_frame(monkeypatch, number, 11)
    status, err = command("--video", clip, "--output", "b.mp4")
    assert status == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.part.mp4"]
    assert len(Clip(tmp_path / "b.part.mp4").pictures) == 12
    assert "b.part.mp4 is being finished; a third Ctrl-C ends at once" in err
    assert "what was made until then is in b.part.mp4" in err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_before_the_first_frame(
    tmp_path: Path, clip: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at_frame(monkeypatch, signal.SIGINT, 0)
    status, err = command("--video", clip, "--output", "b.mp4")
    assert (status, "interrupted: nothing was written" in err) == (130, True), err

    def load(*_: object, **__: object) -> RIFE:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise AssertionError

    monkeypatch.setattr(flags, "load_model", load)
    status, err = command("--video", clip, "--output", "b.mp4")
    assert (status, err) == (130, "interrupted: nothing was written\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_pictures_that_were_written_are_counted(clip: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write = inference_video.PictureWriter.write

    def write_and_signal(writer: inference_video.PictureWriter, frame: inference_video.Frame) -> None:
        if writer.frames == 4:
            os.kill(os.getpid(), signal.SIGINT)
        write(writer, frame)

    monkeypatch.setattr(inference_video.PictureWriter, "write", write_and_signal)
    status, err = command("--video", clip, "--png", "--output", "out")
    assert (status, "5 pictures were written until then, in out" in err) == (130, True), err
    assert len(list(Path("out").iterdir())) == 5


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_second_signal_while_the_file_is_finished_is_ignored(
    tmp_path: Path, clip: Path, command: Command, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "stop" if interrupted else "finish"
    work = getattr(VideoWriter, name)

    def slow(writer: VideoWriter) -> None:
        for _ in range(1 if interrupted else 2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # until the main thread has handled it
        work(writer)

    monkeypatch.setattr(VideoWriter, name, slow)
    if interrupted:
        signal_at_frame(monkeypatch, signal.SIGINT, 20)
    status, err = command("--video", clip, "--output", "b.mp4")
    assert "is being finished; this is ignored, a third Ctrl-C ends at once" in err
    assert status == (130 if interrupted else 0)
    left = "b.part.mp4" if interrupted else "b.mp4"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", left]
    assert len(Clip(tmp_path / left).pictures) == (21 if interrupted else 59)


def test_a_third_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    with Interrupts() as interrupts:
        interrupts.protect(Path("b.part.mp4"))

        def never() -> None:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)
            assert ended.wait(10)

        interrupts.finish(never)
    assert "ended at once; what is on the disk is in b.part.mp4" in capfd.readouterr().err


def test_signals_that_are_ignored_stay_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_an_error_of_the_network_keeps_a_playable_part(
    tmp_path: Path, clip: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_video, "ended_frames", lambda args, job, models, report: failing_frames(job))

    def failing_frames(job: inference_video.VideoJob) -> Iterator[inference_video.Frame]:
        for i, frame in enumerate(job.source):
            if i == 20:
                raise MemoryError
            yield frame

    status, err = command("--video", clip, "--output", "b.mp4")
    assert status == 1
    assert "out of memory" in err
    assert "what was made until then is in b.part.mp4" in err
    assert len(Clip(tmp_path / "b.part.mp4").pictures) == 20


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limits the size of every file, which a program meets as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_a_full_disk_keeps_a_playable_part(
    tmp_path: Path, clip: Path, command: Command, suffix: str, small_disk: None
) -> None:
    status, err = command("--video", clip, "--output", f"b.{suffix}", "--multi=5")
    assert status == 1
    assert f"b.{suffix}: cannot be written any further (File too large)" in err
    assert f"what was made until then is in b.part.{suffix}" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", f"b.part.{suffix}"]
    assert count_frames(tmp_path / f"b.part.{suffix}") > 20


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.slow
def test_the_file_of_a_killed_process_plays_nearly_to_its_end(tmp_path: Path, suffix: str) -> None:
    """300 frames are given to the encoder, which holds up to 60 of them back; then the process is killed."""
    code = f"""
import os, sys
from fractions import Fraction
from pathlib import Path
sys.path[:0] = ["{ROOT}", "{ROOT / "tests"}"]
from clips import make_clip, picture
from video.frame import Frame
from video.reading.reader import open_frames
from video.writing.writer import VideoWriter
clip = make_clip(Path("a.mp4"), 4, rate=Fraction(30), audio=["ac3"])
source = open_frames(clip)
writer = VideoWriter(Path("b.{suffix}"), source, Fraction(30), Fraction(1, 30))
for i in range(300):
    writer.write(Frame(picture(i % 9), Fraction(i, 30)))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    part = Clip(tmp_path / f"b.part.{suffix}")
    assert len(part.pictures) >= 220
    assert abs(part.times[0]) < 0.03
    assert part.times == sorted(part.times)
    assert not (tmp_path / f"b.{suffix}").exists()
