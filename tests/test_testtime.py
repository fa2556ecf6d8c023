"""Tests benchmark/testtime.py: figures in closed form, a line for each size and setting, and the same JSON."""

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Shift

from benchmark import compare, device, plots, testtime
from benchmark.compare import parse_setting
from model import RIFE
from model.contract import Prediction
from model.inference import kernels


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the measurement of memory, which takes seconds for a process of its own."""
    monkeypatch.setattr(compare, "fresh_peak", lambda *_: 77.0)


def test_figures_follow_from_the_times(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    """2 GFLOP in a median of 20 ms are 100 GFLOP/s, a fifth of a limit of 500."""
    spec = f"model={tiny_weights}"
    times = {spec: [10.0, 20.0, 30.0], f"{spec},stream": [5.0, 5.0, 6.0]}
    monkeypatch.setattr(compare, "interleaved", lambda *_: times)
    monkeypatch.setattr(compare, "flops", lambda *_: 2_000_000_000)
    monkeypatch.setattr(compare, "convolution_limit", lambda *_: 500.0)
    monkeypatch.setattr(compare, "fresh_peak", lambda *_: 77.0)
    settings = [parse_setting(text) for text in times]
    first, second = compare.compare(settings, (64, 48), torch.device("cpu"), runs=3)
    assert (first["median_ms"], first["fastest_ms"], first["slowest_ms"], first["runs"]) == (20, 10, 30, 3)
    assert (first["gflop"], first["limit_gflop_s"], first["peak_memory_mib"]) == (2, 500, 77)
    assert first["share_of_limit"] == pytest.approx(0.2)
    assert (first["ratio"], second["ratio"]) == (1, 4)  # the median of 10/5, 20/5 and 30/6 is 4
    assert (first["width"], first["height"], first["loop_fps"]) == (64, 48, None)


@pytest.mark.slow
def test_table_and_json(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"model={tiny_weights}"
    options = ["--compare", spec, "--device", "cpu", "--size", "64x48", "33x17", "--runs", "3"]
    assert testtime.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert [(r["width"], r["height"], r["runs"]) for r in report["results"]] == [(64, 48, 3), (33, 17, 3)]
    assert (report["device"], report["runs"]) == ("cpu", 3)
    for line, result in zip(lines[-3:-1], report["results"], strict=True):
        assert line.split()[:3] == [f"{result['width']}x{result['height']}", spec, f"{result['median_ms']:.1f}"]
        assert 0 < result["fastest_ms"] <= result["median_ms"] <= result["slowest_ms"]
        assert 50 < result["peak_memory_mib"] < 100_000


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert testtime.main(["--compare", "model=nowhere"]) == 1
    assert capsys.readouterr().err.startswith("testtime.py: nowhere: no such file or folder of weights; ")
    for options, message in (
        (["--size", "big"], "'big' is not a size of 16x16 or more, such as 1280x720"),
        (["--size", "8x8"], "'8x8' is not a size of 16x16 or more"),
        (["--runs", "0"], "--runs is 1 or more"),
    ):
        with pytest.raises(SystemExit):
            testtime.main(options)
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
def test_a_comparison_counts_what_a_convolution_costs(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"model={tiny_weights}"
    settings = [spec, f"{spec},stream", f"{spec},baseline", f"{spec},scale=0.5"]
    options = ["--compare", *settings, "--size", "128x64", "--runs", "3", "--device", "cpu", "--loop", "3"]
    assert testtime.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    found = dict(zip(settings, report["results"], strict=True))
    assert [r["setting"] for r in report["results"]] == settings
    plain, stream, upstream, _half = found.values()
    assert plain["gflop"] == upstream["gflop"] > stream["gflop"]
    assert [r["loop_fps"] is None for r in found.values()] == [False, False, True, False]


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("way", ["stream", "baseline"])
def test_a_profile_names_the_slow_operators(tiny_weights: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    settings = [f"model={tiny_weights},{way}", f"model={tiny_weights}"]
    options = ["--compare", *settings, "--size", "128x64", "--runs", "2", "--device", "cpu", "--profile"]
    assert testtime.main(options) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    first, second = json.loads(last)["results"]
    assert all(part["ms"] >= 0 for r in (first, second) for part in r["operators"])
    calls = {part["name"]: part["calls"] for part in first["operators"]}
    if way == "baseline":
        assert calls["aten::convolution"] == 4 * 2 + 5 * 11  # two encoders and five blocks
        assert not [name for name in calls if name.startswith("kernels::")]
    elif kernels.available():
        assert calls["kernels::make_map"] == calls["kernels::finish"] == 1
    longest = first["operators"][0]
    assert f"{longest['ms']:.1f}  {longest['calls']:4.0f}  {longest['name']}" in "\n".join(lines)


def test_flops_are_those_of_the_convolutions() -> None:
    class Two(Shift):
        pad_multiple = 1

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, 1, 1)

        def frame_features(self, image: torch.Tensor) -> torch.Tensor:
            self.conv(image)
            return super().frame_features(image)

        def forward(self, *args: Any, **options: Any) -> Prediction:
            image = args[0]
            plane = image[:, :1]
            return Prediction(image, plane.expand(-1, 4, -1, -1), plane)

    each = 2 * 9 * 3 * 8 * 32 * 48
    model = RIFE(Two(), name="two")
    assert compare.flops(parse_setting("scale=1"), model, (48, 32)) == 2 * each
    assert compare.flops(parse_setting("stream"), model, (48, 32)) == each


def test_settings_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    setting = parse_setting("model=a,scale=0.5,fp16,stream,tile=512,tta")
    assert (setting.model, setting.scale, setting.dtype, setting.tile) == (Path("a"), 0.5, "fp16", 512)
    assert setting.stream
    assert setting.tta
    for options, message in (
        (["--compare", "scale=3"], "'scale=3' in 'scale=3' is none of model=DIR"),
        (["--compare", "baseline,fp16"], "baseline runs whole frames, pair by pair in fp32"),
        (["--compare", "tta", "tta"], "one setting is there twice"),
    ):
        with pytest.raises(SystemExit):
            testtime.main(options)
        assert message in capsys.readouterr().err


def test_an_impossible_plot_is_refused_before_the_measurement(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*args: object, **options: object) -> list[dict[str, Any]]:
        raise AssertionError("measured")

    monkeypatch.setattr(testtime, "compare", measured)
    options = ["--device", "cpu", "--compare", "stream", "baseline", "--plot"]
    if find_spec("matplotlib"):
        assert testtime.main([*options, "a.doc"]) == 1
        assert capsys.readouterr().err.startswith("testtime.py: a.doc: no plot format is called '.doc'; use .png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert testtime.main([*options, "a.png"]) == 1
    assert capsys.readouterr().err == "testtime.py: plots need matplotlib: python3 -m pip install matplotlib\n"


def test_a_plot_shows_time_and_memory_of_each_setting_against_pixels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [
        {"setting": name, "width": 64, "height": height, "median_ms": height * speed, "peak_memory_mib": 100.0 + height}
        for name, speed in (("fast", 1.0), ("slow", 3.0))
        for height in (640, 64, 160)
    ]
    figure = plots.cost(records)
    for panel, largest, lowest in zip(figure.axes, (1920, 740), (64, 164), strict=True):
        fast, slow, slope = panel.get_lines()
        assert [line.get_label() for line in (fast, slow)] == ["fast", "slow"]
        assert [*fast.get_xdata()] == [64 * 64, 64 * 160, 64 * 640]
        assert (fast.get_ydata()[0], slow.get_ydata()[-1]) == (lowest, largest)
        rise = dict(zip(slope.get_xdata(), slope.get_ydata(), strict=True))
        assert rise == {64 * height: pytest.approx(largest * height / 640) for height in (640, 64, 160)}
    plots.save(figure, tmp_path / "cost.PNG")
    assert (tmp_path / "cost.PNG").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1


def test_runs_end_after_their_seconds_but_not_before_the_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def call(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])
    cpu = torch.device("cpu")
    for seconds, runs, wanted in ((1000, 5, 5), (20, 5, 2), (3, 5, 2), (35, 5, 3), (3, 1, 1)):
        now[0] = 0.0
        calls = {"quick": partial(call, 1), "slow": partial(call, 9)}
        times = device.interleaved(calls, cpu, runs, lambda: now[0], seconds)
        assert times == {"quick": [1000.0] * wanted, "slow": [9000.0] * wanted}


@pytest.mark.slow
def test_a_process_of_its_own_does_not_inherit_a_peak(tiny_weights: Path) -> None:
    """Linux's ru_maxrss includes the parent process: it would be 1.5 GiB above the network's memory."""
    cpu = torch.device("cpu")
    setting = parse_setting(f"model={tiny_weights}")
    before = compare.fresh_peak(setting, (64, 64), cpu)
    ballast = torch.ones(3 * 2**27)
    assert abs(compare.fresh_peak(setting, (64, 64), cpu) - before) < 300
    assert ballast.sum() > 0
