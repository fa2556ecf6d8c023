"""benchmark/testtime.py: a line a size, and JSON that says the same."""

import json
from pathlib import Path

import pytest

from benchmark import testtime


def test_table_and_json(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(tiny_weights), "--device", "cpu", "--size", "64x48", "33x17", "--runs", "3"]
    assert testtime.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert [(r["width"], r["height"]) for r in report["results"]] == [(64, 48), (33, 17)]
    assert (report["device"], report["dtype"], report["runs"]) == ("cpu", "float32", 3)
    for line, result in zip(lines[-3:-1], report["results"], strict=True):
        assert line.split()[0] == f"{result['width']}x{result['height']}"
        assert line.split()[1] == f"{result['median_ms']:.1f}"
        assert 0 < result["fastest_ms"] <= result["median_ms"] <= result["slowest_ms"]
        assert 50 < result["peak_memory_mib"] < 100_000


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert testtime.main(["--model", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("testtime.py: nowhere: no such file or folder of weights; ")
    for options, message in (
        (["--size", "big"], "'big' is no size like 1280x720"),
        (["--size", "8x8"], "8x8: sizes start at 16x16"),
        (["--runs", "0"], "--runs is 1 or more"),
    ):
        with pytest.raises(SystemExit):
            testtime.main(options)
        assert message in capsys.readouterr().err
