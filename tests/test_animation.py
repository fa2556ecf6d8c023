"""Tests the benchmark of animation: frames on twos, threes and mixed, and its measure of --dedup."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip
from conftest import Shift
from test_cuts import pan

from benchmark import animation
from benchmark.animation import exposed, psnr
from model import RIFE


def test_each_drawing_is_shown_as_often_as_in_the_pattern() -> None:
    frames: Any = list("abcdefghij")
    assert "".join(map(str, exposed(frames, (2,)))) == "aacceeggii"
    assert "".join(map(str, exposed(frames, (3,)))) == "aaadddgggj"
    assert "".join(map(str, exposed(frames, (2, 3, 1)))) == "aacccfggii"


def test_psnr_of_a_known_difference() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(grey, grey + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(grey, grey) == 60


def test_retiming_comes_nearer_to_the_truth_than_the_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stub moves by the step of twos: on twos its frames are true, and every repeat is found."""
    pictures = [np.ascontiguousarray(p[:128, :224]) for p in pan(0, 13)]
    make_clip(tmp_path / "a.mkv", 13, size=(224, 128), pictures=pictures, options={"crf": "1"})
    monkeypatch.setattr(animation, "SIZE", (224, 128))
    monkeypatch.setattr(animation, "model_from_flags", lambda *_: RIFE(Shift(-12), name="pan"))
    assert animation.main([str(tmp_path / "a.mkv"), "--device=cpu"]) == 0
    twos = json.loads(capsys.readouterr().out.splitlines()[-1])["patterns"]["twos"]
    assert twos["retime"][0] > twos["off"][0] + 5
    assert twos["retime"][1] == 6
