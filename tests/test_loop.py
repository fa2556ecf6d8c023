"""Tests benchmark/loop.py: shares that sum to one, equal figures in JSON and table, and a slow decoder."""

import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from clips import make_clip, picture
from conftest import Shift

from benchmark import loop
from model import RIFE
from model.contract import Prediction
from video.frame import Frame
from video.interpolate import Report, interpolate
from video.reading.reader import open_frames
from video.timing.output_times import multiply


def test_table_and_json(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "STEP_SECONDS", 0.02)
    clip = make_clip(tmp_path / "a.mp4", 5)
    options = ["--video", str(clip), "--model", str(tiny_weights), "--device", "cpu", "--frames", "4"]
    assert loop.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    steps, waits = report["steps_ms"], report["loop"]
    assert min(steps.values()) > 0
    assert [name for name in steps if name not in loop.AROUND] == [
        "network",
        "to the encoder's format",
        "decoding",
        "encoding",
    ]
    assert report["around_share"] == pytest.approx(sum(steps[name] for name in loop.AROUND) / steps["network"])
    assert waits["idle"] == pytest.approx(waits["waits_for_frames"] + waits["waits_for_encoder"])
    assert 0 <= waits["idle"] <= 1
    for line, (name, value) in zip(lines[3:], steps.items(), strict=False):
        assert line.startswith(name)
        assert f"{value:.2f} ms" in line
    assert loop.main(["--video", str(tmp_path / "none.mp4"), "--model", str(tiny_weights)]) == 1
    assert "none.mp4: no such file" in capsys.readouterr().err


class Busy(Shift):
    """Computes for 30 ms of processor time."""

    def forward(self, *inputs: Any, **options: Any) -> Prediction:
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass
        return super().forward(*inputs, **options)


def test_the_step_of_the_network_is_its_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STEP_SECONDS", 0.02)
    steps = loop.measure_steps(open_frames(make_clip(tmp_path / "a.mp4", 3)), RIFE(Busy(2), name="busy"), 1.0)
    assert 30 <= steps["network"] < 60
    assert max(steps[name] for name in loop.AROUND) < 30


def test_waiting_for_a_slow_decoder_is_counted() -> None:
    def slow() -> Iterator[Frame]:
        for i in range(4):
            time.sleep(0.1)
            yield Frame(picture(i), Fraction(i, 24))

    report = Report()
    list(interpolate(slow(), RIFE(Shift(2), name="shift"), multiply(1), report=report))
    assert report.waited > 0.3
