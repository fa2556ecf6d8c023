"""Tests benchmark/repeats.py: which frames are duplicates, and what is counted."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, picture

from benchmark import repeats
from video.frame import Frame


def test_every_fourth_frame_is_shown_twice() -> None:
    pictures = [picture(i) for i in range(7)]
    shown, duplicates = repeats.with_duplicates([Frame(p, Fraction(i, 30)) for i, p in enumerate(pictures)])
    order = [0, 1, 2, 2, 3, 4, 5, 6, 6]
    assert [next(i for i, p in enumerate(pictures) if p is frame.picture) for frame in shown] == order
    assert duplicates == [3, 8]
    assert [frame.time for frame in shown] == [Fraction(i, 24) for i in range(9)]


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "QUALITIES", (23,))
    moving = [picture(2 * i) for i in range(8)]
    moving[5] = moving[4]
    clip = make_clip(tmp_path / "a.mkv", 8, codec="ffv1", pix_fmt="yuv420p", pictures=[np.array(p) for p in moving])
    assert repeats.main([str(clip)]) == 0
    totals = json.loads(capsys.readouterr().out.splitlines()[-1])["totals"]
    assert totals["as it is"] == {"duplicates": 0, "missed": 0, "others": 1}
    assert totals["not coded anew"] == {"duplicates": 2, "missed": 0, "others": 1}
    assert totals["crf 23"]["missed"] == 0
    assert repeats.main([str(tmp_path / "none.mp4")]) == 1
    assert capsys.readouterr().err.endswith("none.mp4: no such file; check the path\n")
