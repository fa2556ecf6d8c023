"""Tests the command as a user runs it: names, counts, flags, sound, and every error in one line."""

import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction as F
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from commands.transition_flags import check_transitions, transition_detector
from commands.video_flags import build_parser
from model import RIFE
from video.pictures.picture import read_picture, write_picture
from video.transitions.scene import TransitionDetector

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "eval"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    """Runs main() with a network whose answer is known (everything moves 2 pixels a frame)."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    return Run(capsys)


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        code = inference_video.main([str(a) for a in arguments])
        self.out, self.err = self.capsys.readouterr()
        return code


def test_the_name_the_count_and_the_first_lines_are_upstreams(tmp_path: Path, run: Run) -> None:
    clip = make_clip(tmp_path / "my clip.mp4", 5, rate=F(24000, 1001), audio=["aac"])
    assert run("--video", clip) == 0
    out = Clip(tmp_path / "my clip_2X_48fps.mp4")
    assert len(out.pictures) == 9
    assert out.packets["audio 0"] == Clip(clip).packets["audio 0"]
    lines = run.out.splitlines()
    assert lines[0] == "my clip.mp4, 5 frames in total, 23.976FPS to 47.952FPS"
    assert (
        lines[-1]
        == f"Wrote {tmp_path / 'my clip_2X_48fps.mp4'}: 9 frames at 47.952 fps, 4 made, 0 cuts held, 0 repeats replaced"
    )


@pytest.mark.parametrize(
    ("flags", "count", "name"),
    [
        (["--exp=0"], 4, "a_1X_24fps.mp4"),
        (["--exp=1"], 7, "a_2X_48fps.mp4"),
        (["--exp=2"], 13, "a_4X_96fps.mp4"),
        (["--multi=3"], 10, "a_3X_72fps.mp4"),
        (["--multi=2", "--exp=1", "--ext=mkv"], 7, "a_2X_48fps.mkv"),
        (["--target-fps=60"], 8, "a_60fps.mp4"),
        (["--exp=1", "--UHD"], 7, "a_2X_48fps.mp4"),
        (["--exp=1", "--scale=0.5", "--skip"], 7, "a_2X_48fps.mp4"),
    ],
)
def test_flags(tmp_path: Path, run: Run, flags: list[str], count: int, name: str) -> None:
    clip = make_clip(tmp_path / "a.mp4", 4)
    assert run("--video", clip, *flags) == 0
    assert len(Clip(tmp_path / name).pictures) == count
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.mp4", name])


def test_odd_rates_are_rounded_in_the_name_as_numpy_does(tmp_path: Path, run: Run) -> None:
    assert run("--video", make_clip(tmp_path / "a.mp4", 3, rate=F(25, 4)), "--exp=1") == 0
    assert (tmp_path / "a_2X_12fps.mp4").exists()  # 12.5, half to even


@pytest.mark.parametrize(("fps", "rate"), [("24", F(24)), ("59.94", F(60000, 1001)), ("60000/1001", F(60000, 1001))])
def test_fps_plays_the_same_frames_slower_without_sound(tmp_path: Path, run: Run, fps: str, rate: F) -> None:
    clip = make_clip(tmp_path / "a.mp4", 6, audio=["aac"])
    assert run("--video", clip, "--exp=2", "--fps", fps, "--output", tmp_path / "b.mp4") == 0
    out = Clip(tmp_path / "b.mp4")
    assert out.times == [i / rate for i in range(21)]
    assert out.packets == {}
    assert "Will not merge audio because using png or fps flag!" in run.out


def test_variable_rate_stays_variable(tmp_path: Path, run: Run) -> None:
    times = [F(0), F(1, 30), F(1, 10), F(11, 30)]
    assert run("--video", make_clip(tmp_path / "a.mp4", 4, times=times), "--output", tmp_path / "b.mp4") == 0
    assert Clip(tmp_path / "b.mp4").times == [F(0), F(1, 60), F(1, 30), F(2, 30), F(1, 10), F(7, 30), F(11, 30)]


@pytest.mark.slow
def test_a_clip_of_300_frames_keeps_its_times(tmp_path: Path, run: Run) -> None:
    rate = F(24000, 1001)
    clip = make_clip(tmp_path / "a.mp4", 300, size=(16, 16), rate=rate, pictures=[picture(0, (16, 16))] * 300)
    assert run("--video", clip, "--static-threshold=1", "--preset=ultrafast") == 0
    out = Clip(tmp_path / "a_2X_48fps.mp4")
    assert len(out.times) == 599
    assert out.times[-1] == 299 / rate
    assert abs(out.duration - Clip(clip).duration) <= 1 / rate


def test_pictures_in_any_names_out_in_numbers(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(["shot 2.png", "shot 10.png", "shot 11.png"]):
        write_picture(folder / name, picture(i))
    monkeypatch.chdir(tmp_path)
    assert run("--img", folder) == 0
    written = sorted((tmp_path / "vid_out").iterdir())
    assert [p.name for p in written] == [f"{i:07d}.png" for i in range(5)]
    for i in range(3):
        assert np.array_equal(read_picture(written[2 * i]), picture(i))
    assert run("--img", folder, "--multi=1") == 0
    assert "2 pictures of a longer earlier run are still there" in run.out
    assert run("--img", folder, "--output", "made.mp4", "--input-fps=12") == 0
    assert Clip(tmp_path / "made.mp4").times == [F(i, 24) for i in range(5)]


def test_png_from_a_video(tmp_path: Path, run: Run) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3, audio=["aac"])
    assert run("--video", clip, "--png", "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert "Will not merge audio" in run.out


def test_montage_is_original_and_result_side_by_side(tmp_path: Path, run: Run) -> None:
    size = (66, 48)
    clip = make_clip(tmp_path / "a.mkv", 3, size=size, codec="ffv1", pix_fmt="yuv444p")
    assert run("--video", clip, "--montage", "--codec=ffv1", "--output", tmp_path / "b.mkv") == 0
    pictures = [p.to_ndarray(format="rgb24").astype(int) for p in Clip(tmp_path / "b.mkv").pictures]
    assert len(pictures) == 5
    assert pictures[0].shape == (48, 66, 3)
    for i, made in enumerate(pictures):
        original = picture(i // 2, size).astype(int)[:, 16 : 16 + 33]
        assert np.abs(made[:, :33] - original).mean() < 1.5
        assert (np.abs(made[:, 33:] - original).mean() < 1.5) == (i % 2 == 0)


def test_originals_are_bit_exact_under_ffv1(tmp_path: Path, run: Run) -> None:
    clip = make_clip(tmp_path / "a.mp4", 5, tags=(1, 1, 1, 1))
    assert run("--video", clip, "--codec=ffv1", "--output", tmp_path / "b.mkv") == 0
    before, after = Clip(clip), Clip(tmp_path / "b.mkv")
    assert [after.planes(2 * i) for i in range(5)] == [before.planes(i) for i in range(5)]
    assert after.tags == before.tags


def test_a_damaged_end_is_reported_and_changes_the_exit_status(tmp_path: Path, run: Run) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8) for i in range(30)]
    clip = make_clip(tmp_path / "a.mp4", 30, size=(96, 96), pictures=noise, container_options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert run("--video", clip, "--output", tmp_path / "b.mp4") == 3
    assert re.search(r"a\.mp4: cut off: \d+ of 30 frames are in the file; what could be decoded was used", run.err)
    assert len(Clip(tmp_path / "b.mp4").pictures) > 20


def error_line(run: Run, *arguments: object) -> str:
    assert run(*arguments) == 1
    lines = [line for line in run.err.splitlines() if line and "frames/s" not in line]  # less the progress
    assert len(lines) == 1, run.err
    assert lines[0].startswith("inference_video.py: ")
    return lines[0].removeprefix("inference_video.py: ")


def test_each_input_error_is_one_line(tmp_path: Path, run: Run) -> None:
    missing, text = tmp_path / "none.mp4", tmp_path / "text.mp4"
    text.write_text("words")
    one, clip = make_clip(tmp_path / "one.mp4", 1), make_clip(tmp_path / "a.mp4")
    exists = tmp_path / "b.mp4"
    exists.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    assert error_line(run, "--video", missing) == f"{missing}: no such file; check the path"
    assert error_line(run, "--video", text).startswith(f"{text}: not a video")
    assert error_line(run, "--video", one).startswith(f"{one}: only one frame")
    assert error_line(run, "--video", clip, "--output", exists).startswith(
        f"{exists}: exists already; choose another name"
    )
    assert error_line(run, "--video", clip, "--codec=nope").startswith("codec nope: no such encoder")
    assert "choose another codec" in error_line(run, "--video", clip, "--ext=webm", "--codec=libx264")
    assert "its folder does not exist" in error_line(run, "--video", clip, "--output", tmp_path / "no" / "b.mp4")
    assert error_line(run, "--video", clip, "--device=cuda:99").startswith("device cuda:99: not on this machine")
    assert sorted(tmp_path.iterdir()) == before
    assert exists.read_bytes() == b"old"


def test_weights_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    unknown, cut = tmp_path / "unknown.pkl", tmp_path / "cut.pkl"
    torch.save({"module.block0.lastconv.0.weight": torch.zeros(1)}, unknown)
    torch.save({"weight": torch.zeros(1000)}, cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    run = Run(capsys)
    assert "no such file or folder of weights" in error_line(run, "--video", clip, "--model", tmp_path / "none")
    assert error_line(run, "--video", clip, "--model", unknown).startswith(f"{unknown}: ")
    assert error_line(run, "--video", clip, "--model", cut).startswith(f"{cut}: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "cut.pkl", "unknown.pkl"]


def test_an_option_the_network_lacks_is_one_line(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, run = make_clip(tmp_path / "a.mp4", 2), Run(capsys)
    for option, message in (("--ensemble", "has no option 'ensemble'"), ("--refine", "has no option 'refine'")):
        assert message in error_line(run, "--video", clip, "--model", tiny_weights, option)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]
    assert run("--video", clip, "--model", tiny_weights, "--tta") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give INPUT, --video FILE or --img DIR"),
        (["--video=a", "--img=b"], "give INPUT, --video FILE or --img DIR"),
        (["--video=a", "--scale=3"], "argument --scale: '3' is not one of 0.25, 0.5, 1, 2, 4, auto"),
        (["--video=a", "--exp=2", "--multi=3"], "--exp 2 means --multi 4, but --multi is 3"),
        (["--video=a", "--multi=0"], "--multi 0: must be 1 or more"),
        (["--video=a", "--exp=-1"], "--exp -1: must be 0 or more"),
        (["--video=a", "--fps=24", "--target-fps=60"], "give one of them"),
        (["--video=a", "--fps=0"], "'0' is not a rate above 0 in frames/s"),
    ],
)
def test_impossible_settings_end_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        inference_video.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_leaves_a_playable_part_and_no_final_file(tmp_path: Path, tiny_weights: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 400, size=(64, 64), pictures=[picture(i % 9, (64, 64)) for i in range(400)])
    command = [sys.executable, str(ROOT / "inference_video.py"), "--video", str(clip), "--model", str(tiny_weights)]
    process = subprocess.Popen(
        [*command, "--multi=16", "--preset=ultrafast"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell has it ignored
    )  # fmt: skip
    assert process.stdout is not None
    while "flow at scale" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(4)  # some frames
    part = tmp_path / "a_16X_384fps.part.mp4"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"what was made until then is in {part}" in err
    assert not (tmp_path / "a_16X_384fps.mp4").exists()
    assert len(Clip(part).pictures) > 1


HARD = sorted((SHARED / "robustness").glob("*")) if SHARED.exists() else []
UNREADABLE = {
    "corrupt_vp9.webm": "not one frame could be decoded",
    "malformed_mp4.mp4": "not a video that FFmpeg can open",
}


@pytest.mark.slow
@pytest.mark.skipif(not HARD, reason="the shared clips are not there")
@pytest.mark.parametrize("clip", HARD, ids=lambda p: p.name)
def test_hard_files(clip: Path, tmp_path: Path, run: Run) -> None:
    """Real phone, TV and web files: the count, rising times, sound to the packet, originals to the bit."""
    out = tmp_path / "out.mkv"
    if clip.name in UNREADABLE:
        assert UNREADABLE[clip.name] in error_line(run, "--video", clip, "--output", out)
        return
    settings = ["--static-threshold=1", "--scene-threshold=0", "--codec=ffv1"]
    assert run("--video", clip, "--output", out, *settings) == 0, run.err
    source, made = Clip(clip), Clip(out)
    assert len(made.pictures) == 2 * len(source.pictures) - 1
    assert all(a < b for a, b in zip(made.times, made.times[1:], strict=False))
    length = source.times[-1] - source.times[0]
    assert abs(made.times[-1] - made.times[0] - length) <= F(1, 1000)  # mkv counts in milliseconds
    assert made.rotation == source.rotation
    assert made.size == source.size
    for name, packets in source.packets.items():
        if name.startswith("subtitle") and made.packets.get(name) != packets:  # mov_text, which Matroska does not take
            assert re.search(r"^subtitle track \d \(mov_text, eng\) converted to subrip", run.out, re.MULTILINE), (
                run.out
            )
        elif not name.startswith(("data", "video")):
            assert made.packets.get(name) == packets, name
    assert made.pix_fmt == source.pix_fmt.replace("yuvj", "yuv")
    for i in range(0, len(source.pictures), 5):
        assert made.planes(2 * i) == source.planes(i)


def test_scale_auto_follows_the_size_and_is_printed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ((1080, 1920), (1440, 2560), (2160, 3840), (3840, 2160), (4320, 7680))
    assert [flags.pick_scale(*size) for size in sizes] == [1, 1, 0.5, 0.5, 0.25]
    clip = make_clip(tmp_path / "a.mp4", 3)
    assert run("--video", clip, "--scale=auto") == 0
    assert "64x48, flow at scale 1, to " in run.out
    monkeypatch.setattr(inference_video, "pick_scale", lambda height, width: {(48, 64): 0.25}[height, width])
    assert run("--video", clip, "--scale=auto", "--overwrite") == 0
    assert "64x48, flow at scale 0.25, to " in run.out
    assert run("--video", clip, "--scale=auto", "--UHD", "--overwrite") == 0
    assert "flow at scale 0.5, to " in run.out


def test_tiles_give_the_same_video(tmp_path: Path, run: Run) -> None:
    """The network of this test uses each pixel alone: tiles change only the line that names them."""
    pictures = [picture(i, (400, 272)) for i in range(3)]
    clip = make_clip(tmp_path / "a.mkv", 3, size=(400, 272), pictures=pictures, codec="ffv1", pix_fmt="yuv444p")
    for name, more in (("b", []), ("c", ["--tile=256"])):
        assert run("--video", clip, "--output", tmp_path / f"{name}.mkv", "--codec=ffv1", *more) == 0
    assert "400x272, flow at scale 1, in 6 tiles of 224x200, to " in run.out
    for i in range(5):
        whole, tiled = (np.frombuffer(Clip(tmp_path / f"{name}.mkv").planes(i), np.uint8) for name in "bc")
        assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.slow
def test_two_devices_make_the_frames_of_one(tmp_path: Path, tiny_weights: Path) -> None:
    """Each device is a process. Without loss: x264 itself does not always write the same bytes for the same frames."""
    clip = make_clip(tmp_path / "a.mp4", 30)
    made = []
    for name, more in (("b", ["--device=cpu"]), ("c", ["--devices=cpu,cpu", "--segments=0.4"])):
        given = ["--video", clip, "--output", tmp_path / f"{name}.mkv", "--codec=ffv1", "--model", tiny_weights, *more]
        assert inference_video.main([str(a) for a in given]) == 0
        with av.open(str(tmp_path / f"{name}.mkv")) as container:
            made.append([(frame.pts, frame.to_ndarray()) for frame in container.decode(video=0)])
    assert len(made[0]) == len(made[1]) == 59
    for (pts, rows), (other_pts, other_rows) in zip(*made, strict=True):
        assert pts == other_pts
        assert np.array_equal(rows, other_rows)


@pytest.mark.parametrize(
    ("given", "detector"),
    [
        ([], TransitionDetector(0.2, 0.996, "same", F(5))),
        (["--static-threshold=0.9"], TransitionDetector(0.2, 0.9, "upstream", F(5))),
        (["--cuts=upstream", "--gap=0.5"], TransitionDetector(0.2, 0.996, "same", F(1, 2), "upstream")),
        (["--dedup=off", "--scene-threshold=0"], TransitionDetector(0, 0.996, "off", F(5), "upstream")),
        (["--dedup=retime", "--cut-threshold=0.5"], TransitionDetector(cuts="motion", mismatch=0.5)),
        (["--repair=3"], TransitionDetector(repeats="off")),
        (["--repair"], TransitionDetector()),
    ],
)
def test_flags_of_the_transitions(given: list[str], detector: TransitionDetector) -> None:
    parser = build_parser("")
    args = parser.parse_args(["--video", "a.mp4", *given])
    check_transitions(parser, args)
    assert transition_detector(args) == detector


def test_frames_that_cannot_be_made_anew_are_counted(tmp_path: Path, run: Run) -> None:
    """The first, the last, and one that does not exist."""
    clip = make_clip(tmp_path / "a.mp4", 6)
    assert run("--video", clip, "--repair=0,2,5,99") == 0
    assert "1 frames repaired" in run.out
    assert "\n3 frames named by --repair are as they were" in run.out


def test_a_gap_at_a_constant_rate_is_held(tmp_path: Path, run: Run) -> None:
    times = [F(0), F(1, 24), 3600 + F(0), 3600 + F(1, 24)]
    clip = make_clip(tmp_path / "a.mp4", 4, times=times)
    assert run("--video", clip, "--output", tmp_path / "b.mp4", "--target-fps=48") == 0
    assert Clip(tmp_path / "b.mp4").times == [F(0), F(1, 48), F(2, 48), 3600 + F(0), 3600 + F(1, 48), 3600 + F(2, 48)]
    assert "1 gaps in time held" in run.out
