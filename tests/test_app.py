"""Tests the page: its functions give the results of the commands, user after user, and leave no files."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import app
from commands import network_flags as flags
from commands.page_jobs import video_settings
from model import RIFE
from model.errors import UserError
from video.pictures.picture import read_picture, write_picture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> app.Page:
    """Returns the functions of the page with a network that moves everything 2 pixels a frame."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    (tmp_path / "results").mkdir()
    return app.Page([tmp_path / "model"], "cpu", tmp_path / "results")


def test_an_upload_is_described_and_an_error_is_one_line(page: app.Page, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 12)
    assert page.describe(str(clip)) == ("64x48, 24 frames/s, 0.5 s", 0.5)
    (tmp_path / "text.mp4").write_text("no video")
    assert page.describe(str(tmp_path / "text.mp4"))[0].startswith("not a video that FFmpeg can open")
    assert page.describe(None)[0] == ""


def test_the_preview_begins_at_the_second_that_was_chosen(page: app.Page, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 8, options={"crf": "0"})
    before, made = page.preview(str(clip), str(tmp_path / "model"), 0.125)  # the fourth frame
    assert before.shape == made.shape == (48, 64, 3)
    distances = [float(abs(before.astype(int) - picture(i)).mean()) for i in range(8)]
    assert min(distances) == distances[3], distances
    with pytest.raises(UserError, match="only one frame in the chosen span"):
        page.preview(str(clip), str(tmp_path / "model"), 0.29)


@pytest.mark.parametrize(("factor", "rate", "name", "frames"), [(2, 0, "a_2X.mp4", 11), (2, 60, "a_60fps.mp4", 13)])
def test_the_video_is_that_of_the_command_and_goes_with_its_tab(
    factor: float, rate: float, name: str, frames: int, page: app.Page, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "a.mp4", 6, audio=["aac"])
    *_, (count, total, text, file) = page.interpolate("tab", str(clip), str(tmp_path / "model"), factor, rate)
    assert file is not None
    assert (count, total, file.name) == (frames, frames, name)
    assert text.startswith(f"{frames} frames at ")
    got = Clip(file)
    assert len(got.pictures) == frames
    assert got.packets["audio 0"] == Clip(clip).packets["audio 0"]
    page.forget("tab")
    assert list((tmp_path / "results").iterdir()) == []


def test_a_cancelled_job_ends_and_the_next_one_runs(
    page: app.Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.page_jobs.UPDATE", 0)
    clip = str(make_clip(tmp_path / "a.mp4", 20))
    steps = page.interpolate("tab", clip, str(tmp_path / "model"), 8, 0)
    assert next(steps)[0] == 1
    steps.close()
    assert [path.suffixes for path in (tmp_path / "results").rglob("*.mp4")] in ([], [[".part", ".mp4"]])
    *_, (count, _, _, file) = page.interpolate("tab", clip, str(tmp_path / "model"), 2, 0)
    assert count == 39
    assert file is not None


def test_two_pictures_become_a_gif(page: app.Page, tmp_path: Path) -> None:
    for name, i in (("a", 0), ("b", 1)):
        write_picture(tmp_path / f"{name}.png", picture(i))
    first, second = (str(tmp_path / f"{name}.png") for name in "ab")
    gif = page.interpolate_pair("tab", first, second, str(tmp_path / "model"), 3, "GIF")
    assert gif.name == "a_to_b.gif"
    assert len(Clip(gif).pictures) == 5
    assert list(gif.parent.iterdir()) == [gif]
    write_picture(tmp_path / "c.png", read_picture(tmp_path / "b.png")[:40])
    with pytest.raises(UserError, match=r"c\.png"):
        page.interpolate_pair("tab", first, str(tmp_path / "c.png"), str(tmp_path / "model"), 3, "MP4")


def test_settings_that_the_command_refuses_are_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--multi 5000: must be 1 or more"):
        video_settings("a.mp4", tmp_path / "b.mp4", factor=5000, rate=None)


def test_the_page_is_built(page: app.Page) -> None:
    gradio = pytest.importorskip("gradio", reason="needs the optional package gradio")
    assert "Make video" in str(app.build_page(gradio, page).get_config_file())


@pytest.mark.slow
def test_the_page_is_served_to_this_computer_and_leaves_no_files(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="needs the optional package gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/ (Ctrl-C ends)\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert b"Smoother video" in answer.read()
        assert [path.name[:9] for path in tmp_path.iterdir()] == ["rife-app-"]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    end = time.monotonic() + 5
    while any(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []
