"""Tests flow files, their colours, projected flow and stitching, by networks and scenes with exact flow."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import Clip, make_clip
from conftest import Shift

import inference_img
import inference_video
from commands import network_flags as flags
from data.synthetic import Layer, Motion, exact_flow, render, visibility
from model import RIFE
from model.inference.end_flow import fill_holes, project_middle, splat
from video.pictures.flow import flow_picture, write_flo
from video.pictures.picture import read_picture, write_picture
from video.pictures.stitch import ramp, stitch


def test_flo_bytes_are_middleburys(tmp_path: Path) -> None:
    flow = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH"
    assert struct.unpack("<ii", data[4:12]) == (4, 3)
    assert np.frombuffer(data[12:], "<f4").tolist() == list(range(24))
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)


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


@pytest.mark.parametrize("arbitrary_time", [True, False])
def test_flow_command_writes_both_directions(
    arbitrary_time: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Shift(6, arbitrary_time=arbitrary_time)
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(net, name="shift"))
    first = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    second = np.roll(first, 6, 1)  # everything moves 6 px to the right
    for i, rgb in enumerate((first, second)):
        write_picture(tmp_path / f"{i}.png", rgb)
    images = [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    assert inference_img.main(["--img", *images, "--flow", "--output", str(tmp_path / "out")]) == 0
    assert net.timesteps == [0.5]  # the ends are derived from the middle
    forward, backward = (cv2.readOpticalFlow(str(tmp_path / "out" / f"flow{n}.flo")) for n in ("01", "10"))
    assert forward.shape == (48, 64, 2)
    assert np.allclose(forward, [6, 0], atol=1e-4)
    assert np.allclose(backward, [-6, 0], atol=1e-4)
    assert read_picture(tmp_path / "out" / "flow01.png")[0, 0].tolist()[0] == 255
    for name, inside, outside in (("01", slice(2, 57), slice(58, 64)), ("10", slice(7, 62), slice(0, 6))):
        reliable = read_picture(tmp_path / "out" / f"flow{name}_consistent.png")[2:-2, :, 0]
        assert reliable[:, inside].min() == 255
        assert reliable[:, outside].max() == 0  # these leave the frame
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f"flow{n}{end}" for n in ("01", "10") for end in (".flo", ".png", "_consistent.png")
    )


def moving_layers(size: int = 128) -> list[Layer]:
    """Returns a background that moves 3 px to the right and a disc on it that moves by (8, -4) px and turns."""
    rng = np.random.default_rng(5)
    ground = cv2.resize(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), (2 * size, 2 * size))
    colour = cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (48, 48))
    disc = np.zeros((48, 48), np.uint8)
    cv2.circle(disc, (24, 24), 20, 255, -1)
    thing = np.dstack((colour * (disc[..., None] > 0), disc))
    middle = np.full(2, size / 2)
    return [
        Layer(ground, Motion(np.full(2, float(size)), middle, np.array([3.0, 0.0])), endless=True),
        Layer(thing, Motion(np.full(2, 24.0), middle, np.array([8.0, -4.0]), spin=0.1)),
    ]


def test_the_ends_follow_from_an_exact_middle() -> None:
    """The truth is the flow of the renderer at time 0 and 1; the middle flow is exact too, so only projection errs."""
    layers = moving_layers()
    pictures, owners = zip(*(render(layers, time, 128)[:2] for time in (0.0, 0.5, 1.0)), strict=True)
    middle = torch.from_numpy(exact_flow(layers, owners[1], 0.5, 0.0, 1.0))[None]
    img0, img1 = (torch.from_numpy(pictures[i]).permute(2, 0, 1)[None] / 255 for i in (0, 2))
    ends = project_middle(middle, img0, img1)
    for flow, seen, start, end in (
        (ends.forward, ends.forward_consistent, 0, 2),
        (ends.backward, ends.backward_consistent, 2, 0),
    ):
        truth = exact_flow(layers, owners[start], start / 2, end / 2)
        visible = visibility(owners[start], owners[end], truth)
        error = np.hypot(*(flow[0].numpy() - truth))
        assert error[visible].mean() < 0.05
        assert error.mean() < 0.3  # with what is hidden in the other image
        reliable = seen[0, 0].numpy()
        assert reliable[visible].mean() > 0.95
        assert (error[reliable] > 1).mean() < 0.01
        assert reliable[~visible].mean() < 0.35


def test_splatting_moves_pixels_and_holes_are_filled_from_their_surroundings() -> None:
    values = torch.rand(2, 3, 20, 24)
    flow = torch.tensor([5.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 20, 24)
    moved, known = splat(values, flow, torch.ones(2, 1, 20, 24))
    assert torch.equal(moved[:, :, :18, 5:], values[:, :, 2:, :19])
    assert known[:, :, :18, 5:].min() == 1
    assert known.sum() == 2 * 18 * 19
    filled = fill_holes(moved * 0 + known * 7, known)
    assert torch.allclose(filled, torch.full_like(filled, 7))
    left, right = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    left[..., :2], right[..., :2], right[..., 6:] = 1, 1, 1
    between = fill_holes(torch.arange(8.0).expand(1, 1, 8, 8) * right, right)[0, 0, 4]
    assert (between[2:6] > 0.2).all()
    assert (between[2:6] < 6.8).all()  # between the values of both sides


def test_where_two_points_meet_the_one_of_equal_colour_counts() -> None:
    values = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    flow = torch.tensor([[0.0, -1.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # both arrive at the first pixel
    moved, known = splat(values, flow, torch.tensor([1.0, 3.0]).view(1, 1, 1, 2))
    assert moved.flatten().tolist() == [1.75, 0]
    assert known.flatten().tolist() == [1, 0]


def test_the_ramp_runs_over_the_picture_not_its_padding() -> None:
    plane = ramp(5, 61)
    assert plane.shape == (1, 1, 5, 61)
    assert plane[0, 0, 0, 0] == 0
    assert plane[0, 0, 0, 60] == 1
    assert torch.allclose(plane[0, 0, 2], torch.arange(61) / 60)


def test_stitching_a_pan_is_sharp_everywhere() -> None:
    """The right view is the left one moved by 12 px: at time t the picture has moved by 12 t, known in closed form."""
    rng = np.random.default_rng(2)
    wide = cv2.resize(rng.integers(0, 256, (12, 30, 3), dtype=np.uint8), (160, 48), interpolation=cv2.INTER_CUBIC)
    left, right = wide[:, 20:116], wide[:, 8:104]
    x = np.arange(96, dtype=np.float32)
    source = (20 + x - 12 * x / 95)[None].repeat(48, 0)
    rows = np.arange(48, dtype=np.float32)[:, None].repeat(96, 1)
    truth = cv2.remap(wide, source, rows, cv2.INTER_LINEAR).astype(float)
    made = stitch(left, right, RIFE(Shift(12), name="shift")).astype(float)
    np.testing.assert_array_equal(made[:, 0], left[:, 0])
    np.testing.assert_array_equal(made[:, -1], right[:, -1])
    for part in (slice(0, 16), slice(16, 80), slice(80, 96)):
        assert np.abs(made - truth)[:, part].mean() < 0.5


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
