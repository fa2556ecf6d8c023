"""benchmark/tradeoff.py: a score that can be worked out, which settings are worth choosing, and the whole command."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import Shift

from benchmark import tradeoff
from benchmark.common import Sample
from benchmark.compare import parse_setting
from model import RIFE
from video.picture import write_picture


def test_the_score_is_the_mean_psnr() -> None:
    """A still network averages: 40 and 60 give 50, which is 5 levels from one truth and 1 from the other."""
    frames = (np.full((32, 32, 3), 40, np.uint8), np.full((32, 32, 3), 60, np.uint8))
    samples = [Sample("a", frames, {Fraction(1, 2): np.full((32, 32, 3), truth, np.uint8)}) for truth in (55, 51)]
    found = tradeoff.score(RIFE(Shift(0), name="shift"), parse_setting("scale=1"), iter(samples))
    assert found == pytest.approx(20 * math.log10(255) - 10 * math.log10(5), abs=1e-4)  # (-20 log10 5 - 0) / 2


def test_what_another_beats_in_both_is_not_marked() -> None:
    points = [(30.0, 10.0), (31.0, 20.0), (30.5, 20.0), (29.0, 10.0), (32.0, 40.0), (31.9, 50.0)]
    records = [{"mean_psnr": quality, "median_ms": cost} for quality, cost in points]
    assert tradeoff.best(records) == [True, True, False, False, True, False]


def test_the_command(tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    scene = tradeoff.MiddleBury_Other.SCENES[0]
    files = (f"other-data/{scene}/frame10", f"other-data/{scene}/frame11", f"other-gt-interp/{scene}/frame10i11")
    for name in files:
        file = tmp_path / "middlebury" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(file, rng.integers(0, 256, (32, 48, 3), np.uint8))
    for name in ("frame_00", "frame_01_gt", "frame_02"):
        (tmp_path / "ucf" / "1").mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / "ucf" / "1" / f"{name}.png", rng.integers(0, 256, (32, 32, 3), np.uint8))
    spec = f"model={tiny_weights}"
    options = ["--middlebury", tmp_path / "middlebury", "--ucf101", tmp_path / "ucf", "--limit", "1", "--runs", "1"]
    options += ["--device", "cpu", "--settings", spec, f"{spec},tta"]
    assert tradeoff.main(list(map(str, options))) == 0
    records = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [r["setting"] for r in records] == [spec, f"{spec},tta"]
    assert all(r["mean_psnr"] == pytest.approx((r["middlebury"] + r["ucf101"]) / 2) for r in records)
    assert any(r["best"] for r in records)
    assert tradeoff.main(["--middlebury", "nowhere"]) == 1
    assert "download" in capsys.readouterr().err
