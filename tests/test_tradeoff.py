"""Tests benchmark/tradeoff.py: scores by hand, which settings are the best, and the whole command."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import Shift
from scored import blend, pictures, psnr, write

from benchmark import compare, tradeoff
from benchmark.common import Sample
from benchmark.compare import parse_setting
from benchmark.measures import METRICS
from model import RIFE


def test_the_score_is_the_mean_psnr() -> None:
    """A still network averages: 40 and 60 give 50, which is 5 levels from one truth and 1 from the other."""
    frames = (np.full((32, 32, 3), 40, np.uint8), np.full((32, 32, 3), 60, np.uint8))
    samples = [Sample("a", frames, {Fraction(1, 2): np.full((32, 32, 3), truth, np.uint8)}) for truth in (55, 51)]
    found = tradeoff.score(RIFE(Shift(0), name="shift"), parse_setting("scale=1"), samples, {"PSNR": METRICS["PSNR"]})
    assert found["PSNR"] == pytest.approx(20 * math.log10(255) - 10 * math.log10(5), abs=1e-4)  # (-20 log10 5 - 0) / 2


def test_a_setting_that_is_worse_in_both_is_not_marked() -> None:
    points = [(30.0, 10.0), (31.0, 20.0), (30.5, 20.0), (29.0, 10.0), (32.0, 40.0), (31.9, 50.0)]
    records = [{"mean": {"PSNR": quality, "LPIPS": -quality}, "median_ms": cost} for quality, cost in points]
    for metric in ("PSNR", "LPIPS"):  # of LPIPS the lower value is better
        assert tradeoff.best(records, metric) == [True, True, False, False, True, False]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that averages: its scores on both sets by hand."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(compare, "load_model", lambda *_, **__: RIFE(Shift(0), name="average"))
    scene, number = pictures(0), pictures(1, size=(32, 32))
    name = tradeoff.MiddleBury_Other.SCENES[0]
    folders = tmp_path / "middlebury", tmp_path / "ucf" / "1"
    files = "other-data/{}/frame10.png", "other-gt-interp/{}/frame10i11.png", "other-data/{}/frame11.png"
    write({folders[0] / file.format(name): picture for file, picture in zip(files, scene, strict=True)})
    files = "frame_00.png", "frame_01_gt.png", "frame_02.png"
    write({folders[1] / file: picture for file, picture in zip(files, number, strict=True)})
    options = ["--middlebury", folders[0], "--ucf101", folders[1].parent, "--limit", "1", "--runs", "1"]
    options += ["--device", "cpu", "--settings", "scale=1", "tta"]
    assert tradeoff.main(list(map(str, options))) == 0
    out = capsys.readouterr().out
    records = json.loads(out.splitlines()[-1])["results"]
    by_hand = [psnr(blend(first, last), truth) for first, truth, last in (scene, number)]
    for record, setting in zip(records, ("scale=1", "tta"), strict=True):
        assert record["setting"] == setting
        assert [record[name]["PSNR"] for name in ("Middlebury", "UCF101")] == pytest.approx(by_hand, abs=1e-4)
        assert record["mean"]["PSNR"] == pytest.approx(sum(by_hand) / 2, abs=1e-4)
    assert sum(record["best"] for record in records) == 1  # the pictures are equal, one of the two is faster
    assert out.splitlines()[0].split()[:3] == ["setting", "Middlebury", "PSNR"]
    assert tradeoff.main(["--middlebury", "nowhere"]) == 1
    assert "download" in capsys.readouterr().err
