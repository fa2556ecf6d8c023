"""Tests benchmark/gaps.py: which frames make a triplet, and scores on a clip of a constant motion."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from conftest import Shift
from scored import psnr, write

from benchmark import gaps, methods
from benchmark.triplets import find_obstacles, read_triplets, spread_middles
from model import RIFE


def moving(frames: int, step: int = 4) -> list[np.ndarray]:
    """Yields a wide picture through a window that moves by `step` px a frame: content moves to the left."""
    small = np.random.default_rng(2).integers(0, 256, (4, 8, 3), np.uint8)
    wide = cv2.resize(small, (96 + step * frames, 64), interpolation=cv2.INTER_CUBIC)
    return [wide[:, step * i : step * i + 96] for i in range(frames)]


def shot(folder: Path, pictures: list[np.ndarray]) -> Path:
    write({folder / f"{i:03d}.png": picture for i, picture in enumerate(pictures)})
    return folder


def test_middles_are_spread_and_keep_clear_of_obstacles() -> None:
    free = [False] * 20  # 21 frames
    assert spread_middles(free, 2, 3) == [2, 10, 18]
    assert spread_middles(free, 1, 100) == list(range(1, 20))
    cut = [i == 9 for i in range(20)]  # between frames 9 and 10
    assert spread_middles(cut, 2, 100) == [*range(2, 8), *range(12, 19)]
    assert spread_middles(cut, 6, 100) == []
    assert spread_middles([], 1, 5) == []


def test_cuts_and_repeats_are_obstacles(tmp_path: Path) -> None:
    pictures = moving(6)
    inverted = [255 - picture for picture in pictures]
    clip = shot(tmp_path / "clip", [*pictures[:3], pictures[2], *inverted[3:]])
    assert find_obstacles(clip) == [False, False, True, True, False, False]


def test_triplets_hold_the_frames_of_their_gap(tmp_path: Path) -> None:
    pictures = moving(12)
    clip = shot(tmp_path / "clip", pictures)
    found = [(gap, [frame.index for frame in triplet]) for gap, triplet in read_triplets(clip, {1: [5], 3: [4, 8]})]
    assert found == [(1, [4, 5, 6]), (3, [1, 4, 7]), (3, [5, 8, 11])]
    (_, (first, truth, last)), *_ = read_triplets(clip, {3: [4]})
    for frame, index in ((first, 1), (truth, 4), (last, 7)):
        np.testing.assert_array_equal(frame.picture, pictures[index])
    (_, (first, _, _)), *_ = read_triplets(clip, {3: [4]}, 32)
    assert first.picture.shape == (32, 48, 3)


def test_scores_by_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The network moves everything by 16 px to the left: right at gap 2 of a clip that moves by 4 px a frame."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(methods, "load_model", lambda path, device: RIFE(Shift(-16), name="fake"))
    pictures = moving(10)
    clip = shot(tmp_path / "clip", pictures)
    options = "--gaps", "3", "2", "--count", "1", "--json", str(tmp_path / "all.json"), "--device", "cpu"
    assert gaps.main([str(clip), *options]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out.splitlines()[-1])
    found = {(row["group"], row["method"], row["metric"]): row["value"] for row in report["rows"]}
    assert found["gap 2", "fake", "PSNR"] > found["gap 3", "fake", "PSNR"]
    first_of = {2: psnr(pictures[0], pictures[2]), 3: psnr(pictures[0], pictures[3])}
    for gap, expected in first_of.items():
        assert found[f"gap {gap}", "first frame", "PSNR"] == pytest.approx(expected, abs=1e-4)
    assert out.startswith("gap 2: the middle of 4 frame steps\n")
    assert out.splitlines()[1].split() == ["PSNR", "dB", "SSIM", "seconds"]
    each = json.loads((tmp_path / "all.json").read_text())["each"]
    assert {(row["group"], row["sample"], row["clip"]) for row in each} == {
        ("gap 2", "frame 2", "clip"), ("gap 3", "frame 3", "clip")
    }  # fmt: skip
    assert "without LPIPS" in err


def test_timesteps_follow_the_exact_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Shift()
    monkeypatch.setattr(methods, "load_model", lambda path, device: RIFE(net, name="fake"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    times = [Fraction(t) for t in ("0", "0.4", "0.6", "1", "2")]
    make_clip(tmp_path / "clip.mkv", 5, times=times, codec="ffv1", pictures=moving(5))
    assert gaps.main([str(tmp_path / "clip.mkv"), "--gaps", "2", "--count", "1", "--device", "cpu"]) == 0
    assert net.timesteps == pytest.approx([0.3], abs=2e-3)


def test_a_clip_that_is_too_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = shot(tmp_path / "clip", moving(5))
    assert gaps.main([str(clip), "--gaps", "2", "3"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"gaps.py: {clip}: no triplet of gap 3 without a cut or a repeated frame")
    with pytest.raises(SystemExit):
        gaps.main([str(clip), "--gaps", "0"])
    assert "--gaps and --count are 1 or more" in capsys.readouterr().err
