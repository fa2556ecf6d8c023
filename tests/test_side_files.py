"""Tests that files beside an output never replace an input, the output or a file of the user."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE
from video.losses import reason
from video.pictures.picture import write_picture


@pytest.mark.parametrize("flag", ["--confidence", "--decisions"])
@pytest.mark.parametrize("name", ["a.mp4", "out.mp4", "out.part.mp4", "notes.txt", "report.json"])
def test_files_beside_the_output_replace_nothing(
    flag: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    monkeypatch.chdir(tmp_path)
    source = make_clip(Path("a.mp4"), 3)
    data = source.read_bytes()
    Path("notes.txt").write_text("mine")
    flags = ["--video=a.mp4", "--output=out.mp4", "--report=report.json", "--device=cpu", "--preset=ultrafast"]
    assert inference_video.main([*flags, f"{flag}={name}"]) == 1
    assert source.read_bytes() == data
    assert Path("notes.txt").read_text() == "mine"
    assert not Path("out.mp4").exists()


def test_measures_of_an_earlier_run_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    monkeypatch.chdir(tmp_path)
    make_clip(Path("a.mp4"), 3)
    for output in ("1.mp4", "2.mp4"):
        flags = ["--video=a.mp4", f"--output={output}", "--confidence=c.csv", "--device=cpu", "--preset=ultrafast"]
        assert inference_video.main(flags) == 0
    assert len(Clip(Path("2.mp4")).pictures) == 5


def test_a_number_without_a_text_is_damaged_data() -> None:
    """The AC-3 decoder returns numbers of its own, for which FFmpeg has no text."""
    assert reason(av.FFmpegError(16976906, "Error number -16976906 occurred")) == "damaged data"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, which fails, in a folder with inputs of every kind -> its line; none of them may change."""
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "a_2X_48fps.mp4"):
        make_clip(Path(name), 3)
    Path("pics").mkdir()
    for i in range(3):
        write_picture(Path("pics") / f"{i}.webp", picture(i))
    Path("speed.txt").write_text("0 1\n1 0.5\n")
    write_picture(Path("mask.png"), picture(0)[..., :1])
    Path("d.json").write_text('{"transitions": []}')
    Path("frames.csv").write_text("1")
    Path("o").mkdir()

    def run(*flags: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert inference_video.main([*flags, "--overwrite", "--device=cpu", "--preset=ultrafast"]) == 1
        assert {path: path.read_bytes() for path in before} == before
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "flags",
    [
        ["--img=pics", "--output=pics/0.webp"],
        ["--img=pics", "--output=pics/new.webp"],
        ["--img=pics", "--output=x.mp4", "--preview=pics/1.png"],
        ["--img=pics", "--output=x.mp4", "--preview=pics/1.png", "--segments=1"],
        ["--video=a.mp4", "--mask=mask.png", "--preview=mask.png"],
        ["--video=a.mp4", "--speed=speed.txt", "--confidence=speed.txt"],
        ["--video=a.mp4", "--repair=frames.csv", "--confidence=frames.csv"],
        ["--video=a.mp4", "--model=mask.png", "--preview=mask.png"],
        ["--video=a.mp4", "--decisions=d.json", "--report=d.json"],
        ["a.mp4", "a_2X_48fps.mp4"],
        ["a.mp4", "a_2X_48fps.mp4", "--segments=1"],
    ],
    ids=" ".join,
)
def test_nothing_that_is_read_is_replaced_even_by_overwrite(run: Callable[..., str], flags: list[str]) -> None:
    assert "is the input" in (line := run(*flags)) or "which are read" in line, line


@pytest.mark.parametrize(
    "flags",
    [
        ["--output=x.mp4", "--report=x.json", "--decisions=x.json"],
        ["--output=x.mp4", "--report=x.json", "--confidence=x.part.json"],
        ["--png", "--output=o", "--preview=o/0000001.png"],
    ],
    ids=" ".join,
)
def test_two_results_of_a_run_never_have_one_name(run: Callable[..., str], flags: list[str]) -> None:
    assert "two results of this run" in run("--video=a.mp4", *flags)


def test_an_input_in_the_working_folder_is_not_removed_with_it(run: Callable[..., str]) -> None:
    Path("x.rife").mkdir()
    Path("a.mp4").rename("x.rife/00000.mp4")
    assert "is in the working folder" in run("--video=x.rife/00000.mp4", "--output=x.mp4", "--segments=1")


@pytest.mark.parametrize("flag", ["speed", "decisions", "repair"])
def test_devices_pipes_and_huge_files_are_no_texts(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of a device never ends: one of /dev/zero took all memory."""
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    clip = make_clip(tmp_path / "a.mp4", 3)
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**32)
    (tmp_path / "deep").write_text("[" * 100_000)
    for file_name in ("/dev/zero", tmp_path / "fifo", tmp_path / "huge", tmp_path / "deep"):
        status = 0
        try:
            status = inference_video.main([f"--video={clip}", f"--{flag}={file_name}", "--device=cpu"])
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else 1
        assert status in (1, 2)
    assert not [*tmp_path.glob("a_2X*")]


@pytest.mark.parametrize("text", ["1/0", "1e999999999", "1e-99_999_999"])
@pytest.mark.parametrize("flag", ["slow", "multi", "blur", "gap", "start", "end", "fps", "target-fps"])
def test_numbers_too_large_for_memory_are_refused(flag: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        inference_video.main(["--video=a.mp4", f"--{flag}={text}"])
    assert end.value.code == 2
    assert f"argument --{flag}" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["cut-threshold", "scene-threshold", "static-threshold", "unsure"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_thresholds_are_finite(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        inference_video.main(["--video=a.mp4", f"--{flag}={value}"])
    assert f"argument --{flag}" in capsys.readouterr().err
