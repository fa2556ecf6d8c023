"""Tests views of a moving camera, networks of a fixed motion, and errors of a fixed flow, by closed forms."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import Shift
from torch import Tensor, nn

from benchmark import block_flows, methods, pans
from benchmark.pans import MOTION_KINDS, CameraMotion, enlarged, needed_size, view
from model import RIFE
from model.contract import Network, NetworkModule, Prediction
from video.pictures.picture import write_picture

Run = Callable[..., tuple[int, str, str]]
SIZE = (64, 48)


@pytest.fixture
def photo() -> np.ndarray:
    """Returns a smooth picture (H,W,3) with detail in both directions."""
    small = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    return cv2.resize(small, (240, 160), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Calls main with frames of 96x80 and a network that moves everything by 20 px to the right."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(pans, "SIZE", (96, 80))
    monkeypatch.setattr(pans, "EDGE", 16)
    monkeypatch.setattr(block_flows, "SIZE", 64)
    monkeypatch.setattr(block_flows, "PAN_BANDS", ((4, 8), (16, 24)))
    shifts = [CameraMotion("shift", amount) for amount in (10, 20)]
    monkeypatch.setattr(pans, "MOTION_KINDS", {**MOTION_KINDS, "shift": shifts, "turn": MOTION_KINDS["turn"][:1]})
    monkeypatch.setattr(methods, "load_model", lambda path, device: RIFE(Shift(20), name="fake", source=str(path)))

    def call(*options: str) -> tuple[int, str, str]:
        return pans.main(["--device", "cpu", *options]), *capsys.readouterr()

    return call


def test_shifted_views_are_crops_and_move_to_the_right(photo: np.ndarray) -> None:
    first, truth, last = (view(photo, CameraMotion("shift", 10), share, SIZE) for share in (-0.5, 0, 0.5))
    np.testing.assert_array_equal(truth, photo[56:104, 88:152])
    np.testing.assert_array_equal(first, photo[56:104, 93:157])  # what is at x=0 in the first frame ..
    np.testing.assert_array_equal(last, photo[56:104, 83:147])
    np.testing.assert_array_equal(first[:, 0], last[:, 10])  # .. is at x=10 in the last


@pytest.mark.parametrize(("motion", "point"), [
    (CameraMotion("zoom", 1.21), (22, 11)),  # sqrt(1.21) = 1.1 times as far from the centre as in the true frame
    (CameraMotion("turn", 60), (20 * np.cos(np.pi / 6) - 10 * 0.5, 20 * 0.5 + 10 * np.cos(np.pi / 6))),  # by 30
])  # fmt: skip
def test_zooms_and_turns_move_a_point_as_the_formula_does(motion: CameraMotion, point: tuple[float, float]) -> None:
    spot = np.zeros((161, 241, 1), np.uint8)
    spot[79:82, 119:122] = 255  # around the centre (120, 80) of the picture ..
    spot = np.roll(spot, (10, 20), (0, 1))  # .. moved 20 px to the right and 10 down
    size = (121, 101)  # odd, so that a pixel is the centre
    for share, expected in ((0, (20, 10)), (0.5, point)):
        seen = view(spot, motion, share, size).reshape(101, 121).astype(float)
        ys, xs = np.mgrid[:101, :121]
        found = (seen * xs).sum() / seen.sum() - 60, (seen * ys).sum() / seen.sum() - 50
        assert found == pytest.approx(expected, abs=0.1)


def test_first_and_last_view_are_half_the_motion_from_the_true_one() -> None:
    for motions in MOTION_KINDS.values():
        for motion in motions:
            half, other = (np.vstack((motion.matrix(share), (0, 0, 1))) for share in (0.5, -0.5))
            np.testing.assert_allclose(half @ other, np.eye(3), atol=1e-12)


def test_every_view_lies_in_the_needed_size(photo: np.ndarray) -> None:
    motions = [motion for motions in MOTION_KINDS.values() for motion in motions]
    assert needed_size(MOTION_KINDS["shift"], (640, 384)) == (800, 384)
    width, height = needed_size(motions, (640, 384))
    assert (width, height) == (800, 465)  # of the turn: 640 * sin(7.5 degrees) + 384 * cos(7.5 degrees) = 464.2
    larger = enlarged(photo, 400, 200)
    assert larger.shape == (267, 400, 3)
    assert enlarged(photo, 240, 100) is photo


def test_a_network_of_a_fixed_motion_is_best_at_that_motion(run: Run, photo: np.ndarray, tmp_path: Path) -> None:
    write_picture(tmp_path / "photo.png", photo)
    plot, record = tmp_path / "plot.png", tmp_path / "record.json"
    options = ("--plot", str(plot), "--json", str(record), "--kinds", "shift", "turn", "--model", "some/weights.pkl")
    status, out, err = run(str(tmp_path), *options)
    assert status == 0, err
    report = json.loads(out.splitlines()[-1])
    found = {(row["method"], row["group"], row["metric"]): row["value"] for row in report["rows"]}
    fake = "some/weights.pkl (fake)"
    assert found[fake, "shift 20", "PSNR"] is None  # exact: the PSNR is infinite
    assert found[fake, "shift 20", "SSIM"] == pytest.approx(1, abs=1e-5)
    assert found[fake, "shift 10", "PSNR"] < 40
    truth, first = photo[40:120, 72:168][16:-16, 16:-16], photo[40:120, 77:173][16:-16, 16:-16]
    by_hand = 10 * np.log10(255**2 / np.mean((truth.astype(float) - first) ** 2))
    assert found["first frame", "shift 10", "PSNR"] == pytest.approx(by_hand, abs=1e-4)
    assert "PSNR dB by shift (px)" in out
    assert "SSIM by turn (degrees)" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(record.read_text()) == report


class Correction(nn.Module):
    """Adds a constant change to the flow."""

    def forward(self, change: Tensor, flow: Tensor) -> Tensor:
        return flow + change


class Blocks(NetworkModule):
    """Runs two blocks: the first finds no motion, the second that of `Shift(20)`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.block0, self.block1 = nn.Identity(), Correction()

    def forward(self, img0: Tensor, img1: Tensor, timestep: float) -> Prediction:
        flow = self.block0(torch.zeros(len(img0), 4, *img0.shape[2:]))
        flow = self.block1(torch.tensor([-10.0, 0, 10, 0]).view(1, 4, 1, 1), flow)
        return Prediction(img0, flow, img0[:, :1])


def test_errors_after_each_block_in_closed_form(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_flows, "SIZE", 64)
    model = RIFE(Blocks(), name="fake")
    assert block_flows.block_errors(model, photo, -20, 0) == [5, 0]  # |10|, 0, |10|, 0: 5 on average
    assert block_flows.block_errors(model, photo, -20, 8) == [7, 2]
    assert block_flows.block_errors(model, photo, 20, 0) == [5, 10]


def test_content_moves_against_the_camera(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow that `block_errors` takes for the truth is compared with an optical flow by DIS."""
    monkeypatch.setattr(block_flows, "SIZE", 96)
    monkeypatch.setattr(block_flows, "PAN_BANDS", ((4, 20),))
    first, middle = (cv2.cvtColor(block_flows.crop(photo, *at), cv2.COLOR_RGB2GRAY) for at in ((-6, -4), (0, 0)))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(middle, first, None)  # type: ignore[call-overload]
    assert flow[20:-20, 20:-20].mean((0, 1)) == pytest.approx([6, 4], abs=0.2)  # half of a pan by (12, 8)


def test_pans_have_the_lengths_of_their_band() -> None:
    for low, high in block_flows.PAN_BANDS:
        lengths = [np.hypot(*pan) for pan in block_flows.draw_pans((low, high))]
        assert len(lengths) == block_flows.PANS
        assert low - 2 < min(lengths) < max(lengths) < high + 2
        assert all(side % 2 == 0 for pan in block_flows.draw_pans((low, high)) for side in pan)


def test_blocks_are_tabled_by_band(
    run: Run, photo: np.ndarray, tmp_path: Path, tiny_net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "photo.png", photo)
    monkeypatch.setattr(block_flows, "PANS", 2)
    monkeypatch.setattr(methods, "load_model", lambda path, device: RIFE(tiny_net, name="tiny", source="a/b.pkl"))
    status, out, err = run(str(tmp_path / "photo.png"), "--blocks")
    assert status == 0, err
    report = json.loads(out.splitlines()[-1])
    assert [(band["from"], band["to"]) for band in report["bands"]] == [(4, 8), (16, 24)]
    assert [len(band["errors"]["a/b.pkl (tiny)"]) for band in report["bands"]] == [5, 5]
    heads = out.splitlines()[3].split()
    assert heads == ["motion", "in", "px", *(word for i in range(5) for word in ("block", str(i))), "true", "flow"]


def test_wrong_arguments(run: Run, tmp_path: Path) -> None:
    status, out, err = run(str(tmp_path))
    assert (status, out) == (1, "")
    assert "holds no picture" in err
    with pytest.raises(SystemExit):
        run("x.png", "--blocks", "--plot", "x.png")
    status, _, err = run("x.png", "--plot", "plot.gift")
    assert status == 1
    assert "no plot format" in err
