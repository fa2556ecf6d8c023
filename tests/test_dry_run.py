"""Tests dry runs: what is shown, what is refused, that nothing is left; and the check of the free space."""

import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags, space
from commands.space import estimate_bytes, format_bytes, free_bytes
from commands.video_flags import build_parser, check_arguments
from commands.video_job import plan_job
from model import RIFE
from model.errors import UserError
from video.pictures.picture import write_picture
from video.safe_file import SafeFile
from video.writing.writer import VideoWriter


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(2), name="shift"))
    folder = tmp_path.parent / f"{tmp_path.name}_trials"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def run(*arguments: object) -> int:
    return inference_video.main([*map(str, arguments), "--device=cpu", "--preset=ultrafast"])


def test_a_dry_run_shows_the_work_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = make_clip(tmp_path / "a.mp4", 9, audio=["aac"])
    part = tmp_path / "a_4X_96fps.part.mp4"
    part.write_bytes(b"of an interrupted run")
    assert run(clip, "--exp=2", "--dry-run", "--overwrite") == 0
    out = capsys.readouterr().out
    assert f"{clip}: 64x48, 9 frames at 24 frames/s\n" in out
    assert f"  result: {tmp_path / 'a_4X_96fps.mp4'}, 33 frames at 96 frames/s, 24 of them made\n" in out
    assert re.search(r"^  memory: [\d.]+ [MG]B in the trial, ", out, re.MULTILINE)
    assert re.search(r"^  disk: about [\d.]+ kB, [\d.]+ [GT]B free$", out, re.MULTILINE)
    assert re.search(r"^  time: about \d+ s \([\d.e-]+ s for a made frame, [\d.e-]+ s for enc", out, re.MULTILINE)
    assert out.endswith("This was a dry run: nothing was written.\n")
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", part.name}
    assert part.read_bytes() == b"of an interrupted run"
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_dry_run_refuses_what_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, broken = make_clip(tmp_path / "a.mp4", 3), tmp_path / "b.mp4"
    broken.write_bytes(b"no video")
    assert run(clip, "--dry-run", "--ext=webm", "--codec=libx264") == 1
    assert "choose another codec" in capsys.readouterr().err
    (tmp_path / "a_2X_48fps.mp4").write_bytes(b"old")
    assert run(clip, "--dry-run") == 1
    assert "exists already; choose another name for the output, or overwrite it" in capsys.readouterr().err
    assert run(tmp_path, "--dry-run") == 1
    shown = capsys.readouterr()
    assert f"{clip}: done already, {tmp_path / 'a_2X_48fps.mp4'} exists\n" in shown.out
    assert [line.split(": ")[2] for line in shown.err.splitlines()] == [
        "not a video that FFmpeg can open, or cut off before its index was written (Invalid data found when processing "
        "input); check that it plays, or convert it",
    ]
    assert run(clip, broken, "--dry-run", "--overwrite") == 1
    shown = capsys.readouterr()
    assert "5 frames at 48 frames/s" in shown.out
    assert "all 2 inputs: about" in shown.out
    assert "b.mp4: not a video" in shown.err


@pytest.mark.parametrize("mode", [["--dry-run"], []])
def test_a_file_with_the_name_of_the_report_is_refused_by_run_and_dry_run(
    mode: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [make_clip(tmp_path / name, 3) for name in ("a.mp4", "b.mp4")]
    (tmp_path / "report.json").write_text('{"mine": 1}')
    assert run(*clips, "--output", tmp_path, *mode) == 1
    assert f"{tmp_path / 'report.json'}: exists already" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [["--dry-run"], []])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_two_inputs_with_one_output_are_refused_by_run_and_dry_run(
    mode: list[str], overwrite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [make_clip(tmp_path / name, 3) for name in ("a.mp4", "a.mkv")]
    assert run(*clips, "--output", tmp_path, *mode, *overwrite) == 1
    message = f"{clips[1]}: its output {tmp_path / 'a_2X_48fps.mp4'} is that of {clips[0]} too; give it in another run"
    assert message in capsys.readouterr().err


def test_folders_that_a_run_makes_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that does not exist yet is no error; one that cannot be made is, with the reason."""
    clips = [make_clip(tmp_path / name, 3) for name in ("a.mp4", "b.mp4")]
    assert run(*clips, "--dry-run", "--output", tmp_path / "made" / "here") == 0
    assert run(clips[0], "--dry-run", "--png", "--output", tmp_path / "pictures") == 0
    capsys.readouterr()
    for settings in ((*clips,), (clips[0], "--png")):
        assert run(*settings, "--dry-run", "--output", clips[0] / "in_a_file") == 1
        assert f"in_a_file: {clips[0]} is not a folder; choose another" in capsys.readouterr().err
    for flag, name in (("--report", "r.json"), ("--preview", "r.png")):
        assert run(clips[0], "--dry-run", flag, tmp_path / "absent" / name) == 1
        assert "its folder does not exist" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_a_dry_run_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(3):
        write_picture(folder / f"{i}.png", picture(i))
    assert run("--img", folder, "--output", out, "--dry-run") == 0
    assert f"result: {out}, 5 frames at 48 frames/s, 2 of them made" in capsys.readouterr().out
    assert run("--img", folder, "--output", folder, "--dry-run") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("share", "outcome"), [(1.0, "nothing"), (0.9, "warning"), (0.13, "warning"), (0.12, "refused")]
)
def test_free_space_is_compared_with_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], share: float, outcome: str
) -> None:
    parser = build_parser()
    args = parser.parse_args(["--video", str(make_clip(tmp_path / "a.mp4", 5)), "--codec=ffv1", "--ext=mkv"])
    check_arguments(parser, args)
    job = plan_job(args)
    assert estimate_bytes(args, job) == round(0.45 * 64 * 48 * 9)
    monkeypatch.setattr(space, "free_bytes", lambda path: int(0.45 * 64 * 48 * 9 * share) + 1)
    if outcome == "refused":
        with pytest.raises(UserError, match=r"takes about 12 kB, and 1\.5 kB are free; make room"):
            space.check_space(args, job)
    else:
        space.check_space(args, job)
    assert ("it may be too little" in capsys.readouterr().err) == (outcome == "warning")


def test_sizes_as_text(tmp_path: Path) -> None:
    assert [format_bytes(n) for n in (12, 1500, 25e6, 1.25e9, 3e15)] == [
        "12 bytes",
        "1.5 kB",
        "25 MB",
        "1.2 GB",
        "3000 TB",
    ]
    assert free_bytes(tmp_path / "none" / "b.mp4") == pytest.approx(free_bytes(tmp_path), rel=0.2)


def test_a_dry_run_lists_the_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Key frames lie at 0, 1, 1.5, 2.5 and 3.5 s: the one at 1.5 s comes earlier than the usual second."""
    options = {"g": "999", "forced-idr": "1", "sc_threshold": "0"}
    pictures = [picture(i % 9) for i in range(100)]
    clip = make_keyed_clip(tmp_path / "a.mp4", pictures, {0, 24, 36, 60, 84}, options)
    assert run(clip, "--segments=1.2", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    folder = tmp_path / "a_2X_48fps.rife"
    assert f"  segments: 4, kept in {folder} until they are joined, 0 are finished" in lines
    assert "  they begin at (seconds): 0.000 start, 1.500 cut, 2.500 key frame, 3.500 key frame" in lines
    assert run(clip, "--segments=1.2", "--dry-run", "--segment=2/2") == 0
    assert "  they begin at (seconds): 1.500 cut, 3.500 key frame" in capsys.readouterr().out.splitlines()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def make_keyed_clip(path: Path, pictures: list[np.ndarray], keys: set[int], options: dict[str, str]) -> Path:
    """Writes pictures at 24 frames/s with key frames at some numbers."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, shown in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(shown, "rgb24").reformat(format="yuv420p")
            frame.pict_type = av.video.frame.PictureType.I if i in keys else av.video.frame.PictureType.NONE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_dry_run_refuses_segments_that_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = make_clip(tmp_path / "a.mp4", 24, pictures=[picture(i % 9) for i in range(24)])
    folder = tmp_path / "a_2X_48fps.rife"
    assert run(clip, "--segments=0.4", "--segment=1/2") == 0
    assert run(clip, "--segments=0.4", "--dry-run") == 0
    assert "segments: 3, kept in" in (shown := capsys.readouterr().out)
    assert "2 are finished" in shown
    for given, message in (
        (["--crf=20"], f"{folder}: was begun differently: crf was None, is 20"),
        (["--join"], f"{folder}: 1 segment is missing: 1; make them first"),
        (["--loop"], "a loop reaches over segments; make it in one piece"),
        (["--ext=gif"], "segments cannot be joined in .gif, only in .mp4"),
    ):
        assert run(clip, "--segments=0.4", "--dry-run", *given) == 1
        assert message in capsys.readouterr().err
    (folder / "letter.txt").write_text("dear")
    assert run(clip, "--segments=0.4", "--dry-run") == 1
    assert "holds other files, as letter.txt" in capsys.readouterr().err


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("owner", [VideoWriter, SafeFile])
def test_a_signal_ends_a_dry_run(
    owner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, write = make_clip(tmp_path / "a.mp4", 9), owner.write

    def send(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return write(*arguments)

    monkeypatch.setattr(owner, "write", send)
    assert run(clip, "--dry-run") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: nothing was written"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
