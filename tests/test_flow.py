"""Flow files, their colours, and stitching, on networks and flows whose answer is known."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_img
import inference_video
from commands import network_flags as flags
from model import RIFE
from video.flow import flow_picture, read_flo, write_flo
from video.picture import MediaError, read_picture, write_picture
from video.stitch import ramp, stitch


def test_flo_bytes_are_middleburys(tmp_path: Path) -> None:
    flow = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH"
    assert struct.unpack("<ii", data[4:12]) == (4, 3)
    assert np.frombuffer(data[12:], "<f4").tolist() == list(range(24))
    assert np.array_equal(read_flo(tmp_path / "a.flo"), flow)
    (tmp_path / "b.flo").write_bytes(data[:-1])
    with pytest.raises(MediaError, match=r"b\.flo: cut off"):
        read_flo(tmp_path / "b.flo")


def test_colours_are_the_wheels() -> None:
    """The four corners of Baker et al.'s wheel; still is white, half the length is half the saturation."""
    flow = np.array([[[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [0.5, 0], [2, 0]]], np.float32)
    still, right, left, down, up, half, beyond = flow_picture(flow, largest=1)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right[0] == 255 and right[1:].max() < 20  # noqa: PT018 - red
    assert left[0] < 20 and left[1] > 200 and left[2] > 200  # noqa: PT018 - cyan to blue
    assert down[0] > 150 and down[1] > 200 and down[2] == 0  # noqa: PT018 - yellow to green
    assert up[0] > 80 and up[1] < 60 and up[2] > 200  # noqa: PT018 - blue to magenta
    assert np.abs(half - (255 + right) / 2).max() <= 1
    assert np.abs(beyond - right * 0.75).max() <= 1


def test_flow_command_writes_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(6), name="shift"))
    for i in (0, 3):
        write_picture(tmp_path / f"{i}.png", picture(i))
    images = [str(tmp_path / "0.png"), str(tmp_path / "3.png")]
    assert inference_img.main(["--img", *images, "--flow", "--output", str(tmp_path / "out")]) == 0
    forward, backward = (read_flo(tmp_path / "out" / f"flow{n}.flo") for n in ("01", "10"))
    assert forward.shape == (48, 64, 2)
    assert np.allclose(forward, [6, 0])  # everything moves 6 px to the right
    assert np.allclose(backward, [-6, 0])
    assert read_picture(tmp_path / "out" / "flow01.png")[0, 0].tolist()[0] == 255
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "flow01.flo", "flow01.png", "flow10.flo", "flow10.png"
    ]  # fmt: skip


def test_flow_and_stitch_need_a_network_with_a_timestep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    midpoint = RIFE(Shift(6, arbitrary_time=False), name="RIFE")
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: midpoint)
    image = tmp_path / "0.png"
    write_picture(image, picture(0))
    out = str(tmp_path / "out")
    assert inference_img.main(["--img", str(image), str(image), "--flow", "--output", out]) == 1
    assert "--flow needs a network that takes any timestep; RIFE knows only the middle" in capsys.readouterr().err
    assert inference_img.main(["--stitch", str(image), str(image), "--output", out]) == 1
    assert "--stitch needs a network that takes any timestep" in capsys.readouterr().err


def test_the_ramp_runs_over_the_picture_not_its_padding() -> None:
    plane = ramp(5, 61)
    assert plane.shape == (1, 1, 5, 61)
    assert plane[0, 0, 0, 0] == 0
    assert plane[0, 0, 0, 60] == 1
    assert torch.allclose(plane[0, 0, 2], torch.arange(61) / 60)


def test_stitching_blends_from_the_left_view_to_the_right_one() -> None:
    left, right = np.full((20, 61, 3), 40, np.uint8), np.full((20, 61, 3), 160, np.uint8)
    row = stitch(left, right, RIFE(Shift(0), name="shift"))[10, :, 0].astype(float)
    assert np.abs(row - (40 + 120 * np.arange(61) / 60)).max() <= 0.5


def test_stitch_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(0), name="shift"))
    views = [np.full((48, 64, 3), level, np.uint8) for level in (50, 150)]
    for name, view in zip(("left", "right"), views, strict=True):
        write_picture(tmp_path / f"{name}.png", view)
        make_clip(tmp_path / f"{name}.mp4", 4, pictures=[view] * 4, audio=["aac"] if name == "left" else [])
    images = [str(tmp_path / f"{name}.png") for name in ("left", "right")]
    assert inference_img.main(["--stitch", *images, "--output", str(tmp_path)]) == 0
    stitched = read_picture(tmp_path / "stitched.png")
    assert stitched[0, 0, 0] == 50
    assert stitched[0, 63, 0] == 150
    videos = [str(tmp_path / f"{name}.mp4") for name in ("left", "right")]
    assert inference_video.main(["--stitch", *videos]) == 0
    made = Clip(tmp_path / "left_stitched.mp4")
    assert made.times == Clip(tmp_path / "left.mp4").times
    assert made.packets == Clip(tmp_path / "left.mp4").packets
    shown = made.pictures[2].to_ndarray(format="rgb24")[24, :, 0].astype(float)
    assert np.abs(shown - (50 + 100 * np.arange(64) / 63)).max() < 6
    small = make_clip(tmp_path / "small.mp4", 4, size=(32, 48))
    assert inference_video.main(["--stitch", videos[0], str(small), "--overwrite"]) == 1
    assert "small.mp4 is 32x48 at 24 fps; bring both views to one size and rate" in capsys.readouterr().err
