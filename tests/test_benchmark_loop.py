"""Tests the parts of all benchmark scripts: protocols that change the figure, missing data, wrong arguments."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored import Evaluate, Noisy, Recording, middlebury, pictures, value, write

from benchmark import ATD12K, HD, SNU_FILM, UCF101, X4K1000FPS, Vimeo90K, Xiph, common, measures
from benchmark import MiddleBury_Other as Middlebury
from benchmark.table import Scores, render, summary
from benchmark.test_set import TestSet, triplet
from model.IFNet_v4 import IFNet_v4
from video.pictures.picture import read_picture

SCRIPTS = ("UCF101", "Vimeo90K", "MiddleBury_Other", "HD", "HD_multi_4X", "ATD12K", "SNU_FILM", "Xiph", "X4K1000FPS")
ROOT = Path(__file__).resolve().parents[1]


def test_padding_of_the_protocols_changes_middlebury(tmp_path: Path, evaluate: Evaluate) -> None:
    """4 pixels beyond the right edge: black by upstream's padding, the edge's colour by EMA-VFI's."""
    middlebury(tmp_path, (24, 44), grey=100)
    options = ("--no-baselines", "--limit", "1")
    assert value(evaluate("MiddleBury_Other", Recording(8), tmp_path, *options), "IE") == pytest.approx(50 * 4 / 44)
    report = evaluate("MiddleBury_Other", Recording(8), tmp_path, *options, "--protocol", "ema")
    assert value(report, "IE") == 0


@pytest.mark.parametrize(("level", "cost"), [(255 * 10 ** (-35.6 / 20), 0.020), (2.55, 0.055), (1.434, 0.17)])
def test_rounding_costs_a_twelfth_of_a_squared_level(
    tmp_path: Path, evaluate: Evaluate, level: float, cost: float
) -> None:
    """Rounding adds 1/12 to the mean square: 0.02 dB at 35.6 dB, 0.055 at 40, 0.17 at 45."""
    grey = np.full((256, 256, 3), 128, np.uint8)
    write({tmp_path / "1" / name: grey for name in ("frame_00.png", "frame_01_gt.png", "frame_02.png")})
    rounded, exact = (
        value(evaluate("UCF101", Noisy(level), tmp_path, "--no-baselines", "--protocol", protocol), "PSNR")
        for protocol in ("rife", "ifrnet")
    )
    assert exact - rounded == pytest.approx(10 * np.log10(1 + 1 / 12 / level**2), rel=0.15)
    assert exact - rounded == pytest.approx(cost, rel=0.15)


@pytest.mark.parametrize(
    ("test_set", "protocol", "size", "expected"),
    [
        (HD.SET, "rife", (720, 1280), (0, 0, 24, 24)),
        (HD.SET, "rife", (1080, 1920), (0, 0, 4, 4)),
        (HD.SET, "rife", (544, 1280), (0, 0, 16, 16)),
        (Middlebury.SET, "rife", (380, 420), (0, 220, 0, 100)),
        (Middlebury.SET, "ema", (388, 584), (12, 12, 14, 14)),
        (UCF101.SET, "rife", (256, 256), (0, 0, 0, 0)),
        (Vimeo90K.SET, "rife", (256, 448), (0, 0, 0, 0)),
        (ATD12K.SET, "rife", (540, 960), (0, 0, 2, 2)),
        (SNU_FILM.SET, "ema", (720, 1280), (0, 0, 8, 8)),
        (SNU_FILM.SET, "ifrnet", (720, 1280), (0, 0, 0, 0)),
        (Xiph.SET, "ema", (1080, 2048), (0, 0, 4, 4)),
        (X4K1000FPS.SET, "ema", (2160, 4096), (0, 0, 8, 8)),
    ],
)
def test_padding_at_the_sets_own_sizes(
    test_set: TestSet, protocol: str, size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert test_set.protocols[protocol].padding.amounts(*size) == expected


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data_ends_in_one_message(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    test_set = import_module(f"benchmark.{script}").SET
    assert common.main(test_set, "", ["--baselines-only"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{test_set.name} is not in {test_set.data}/ (no {test_set.needs[0]}" in err
    assert f": download {test_set.download}, and put what it holds into {test_set.data}/, or name" in err
    assert err.endswith("--data DIR\n")
    assert err.count("\n") == 1


def test_a_script_by_itself_from_the_root(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmark/UCF101.py", "--data", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("UCF101.py: UCF101 is not in ")


def test_damaged_data_and_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)
    write({tmp_path / "1" / "frame_00.png": small, tmp_path / "1" / "frame_02.png": large})
    options = ["--baselines-only", "--data", str(tmp_path)]
    assert common.main(UCF101.SET, "", options) == 1
    assert "frame_01_gt.png: cannot be read" in capsys.readouterr().err
    write({tmp_path / "1" / "frame_01_gt.png": small})
    assert common.main(UCF101.SET, "", options) == 1
    assert "frame_02.png: not an 8-bit picture of 16x16" in capsys.readouterr().err
    for wrong, message in (
        (["--limit", "0"], "--limit is 1 or more"),
        (["--batch", "0"], "--batch is 1 or more"),
        (["--save-frames", "x"], "leave out --baselines-only"),
        (["--protocol", "abc"], "invalid choice: 'abc'"),
    ):
        with pytest.raises(SystemExit):
            common.main(UCF101.SET, "", [*options, *wrong])
        assert message in capsys.readouterr().err


def test_exact_predictions_have_no_psnr(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    write({tmp_path / "1" / name: grey for name in ("frame_00.png", "frame_01_gt.png", "frame_02.png")})
    report = evaluate("UCF101", Recording(), tmp_path)
    assert {r["value"] for r in report["rows"] if r["metric"] == "PSNR"} == {None}
    assert value(report, "SSIM") == pytest.approx(1, abs=1e-4)


def test_turned_frames_are_averaged_in(tmp_path: Path, evaluate: Evaluate) -> None:
    """A network that moves everything the wrong way is as wrong turned around, so the average must differ from one."""
    frames = pictures(0)
    write({tmp_path / "1" / n: f for n, f in zip(("frame_00.png", "frame_01_gt.png", "frame_02.png"), frames,
                                                 strict=True)})  # fmt: skip
    one, two = (
        value(evaluate("UCF101", Recording(8), tmp_path, "--no-baselines", *options), "PSNR")
        for options in ((), ("--tta",))
    )
    assert two > one + 0.5


def ucf101(root: Path, sizes: Sequence[tuple[int, int]]) -> None:
    for i, size in enumerate(sizes):
        names = "frame_00.png", "frame_01_gt.png", "frame_02.png"
        write({root / str(i) / name: p for name, p in zip(names, pictures(i, size=size), strict=True)})


def test_no_score_depends_on_the_batch(
    tmp_path: Path, evaluate: Evaluate, tiny_net: IFNet_v4, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five samples, the fourth of another size: batches of 3, 1, 1 against one at a time."""
    monkeypatch.setattr(sys.modules["model.RIFE"], "accelerate", lambda net: net)  # the network itself is called
    ucf101(tmp_path, [(64, 96)] * 3 + [(32, 64)] + [(64, 96)])
    sizes: list[list[int]] = []
    reports = []
    for number in ("1", "3"):
        hook = tiny_net.register_forward_pre_hook(lambda _, inputs: sizes[-1].append(inputs[0].shape[0]))
        sizes.append([])
        file = tmp_path / "out" / f"{number}.json"
        evaluate("UCF101", tiny_net, tmp_path, "--batch", number, "--json", str(file))
        hook.remove()
        reports.append(json.loads(file.read_text()))
    assert sizes == [[1] * 5, [3, 1, 1]]
    one, three = (report["each"] for report in reports)
    assert len(one) == 5 * 4
    for a, b in zip(one, three, strict=True):
        assert (a["method"], a["sample"]) == (b["method"], b["sample"])
        assert (a["PSNR"], a["SSIM"]) == pytest.approx((b["PSNR"], b["SSIM"]), abs=1e-5)
    assert len({row["PSNR"] for row in one}) > 15  # so they are not all alike


def test_batches_on_a_gpu_hold_four_megapixels(tmp_path: Path) -> None:
    ucf101(tmp_path, [(16, 16)])
    sample = triplet("", *(tmp_path / "0" / f"{name}.png" for name in ("frame_00", "frame_01_gt", "frame_02")))
    vimeo = replace(sample, frames=(np.zeros((256, 448, 3), np.uint8),) * 2)
    large = replace(sample, frames=(np.zeros((2160, 4096, 3), np.uint8),) * 2)
    samples = [vimeo] * 40 + [large] * 2 + [replace(vimeo, group="hard")]
    assert [len(batch) for batch in common.batches(samples, None)] == [36, 4, 1, 1, 1]


def test_lpips_without_weights_is_left_out_with_one_line(
    tmp_path: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ucf101(tmp_path, [(16, 16)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    command = ["--baselines-only", "--data", str(tmp_path)]
    assert common.main(UCF101.SET, "", command) == 0
    out, err = capsys.readouterr()
    assert "LPIPS" not in out
    assert "without LPIPS: " in err
    assert "get it by: python3 -m model.download lpips\n" in err
    assert common.main(UCF101.SET, "", [*command, "--lpips"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_the_table_has_a_row_for_each_method_below_the_published_figures() -> None:
    scores = Scores()
    for group, score in (("easy", 40.0), ("hard", math.inf)):
        where = {"group": group, "clip": "", "sample": "1", "timestep": 0.5}
        scores.add("net", where, {"PSNR": score, "LPIPS": 0.25})
        scores.add("average", where, {"PSNR": 30.0, "LPIPS": 0.5})
    published = {("easy", "PSNR"): 41.0}
    report = {"set": "SNU-FILM", "protocol": "rife", "scale": 1.0, "tta": False, "samples": 2, "of": 2}
    assert render(report | summary(scores, ("PSNR", "LPIPS"), published, "net")).splitlines() == [
        "SNU-FILM, protocol rife, flow scale 1: 2 samples",
        "easy",
        "                   PSNR dB     LPIPS",
        "published (RIFE)    41.000",
        "net                 40.000    0.2500",
        "average             30.000    0.5000",
        "hard",
        "          PSNR dB     LPIPS",
        "net           inf    0.2500",
        "average    30.000    0.5000",
    ]


def test_lpips_is_one_more_column(tmp_path: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the metric by the mean difference in red, which is worked out by hand."""
    monkeypatch.setattr(measures, "load_lpips", lambda device: lambda pred, gt: (pred - gt)[:, 0].mean((1, 2)))
    ucf101(tmp_path, [(16, 16)])
    report = evaluate("UCF101", Recording(), tmp_path)
    first, truth = (read_picture(tmp_path / "0" / name) for name in ("frame_00.png", "frame_01_gt.png"))
    expected = (first.astype(float) - truth)[:, :, 0].mean() / 255  # of red, though the network is given BGR
    assert value(report, "LPIPS", method="first frame") == pytest.approx(expected, abs=1e-6)


def test_saved_frames_show_the_worst_samples(tmp_path: Path, evaluate: Evaluate) -> None:
    """Four samples of rising noise, of which three are kept, the noisiest first, each with all its pictures."""
    grey = np.full((32, 48, 3), 100, np.uint8)
    for i, noise in enumerate((2, 8, 4, 16)):
        names = "frame_00.png", "frame_01_gt.png", "frame_02.png"
        truth = grey + np.random.default_rng(i).integers(0, noise, grey.shape, np.uint8)
        write({tmp_path / str(i) / name: p for name, p in zip(names, (grey, truth, grey), strict=True)})
    options = "--save-frames", str(tmp_path / "out"), "--json", str(tmp_path / "results.json")
    evaluate("UCF101", Recording(3), tmp_path, *options)
    report = json.loads((tmp_path / "results.json").read_text())
    assert [case["sample"] for case in report["worst"]] == ["3", "1", "2"]
    case = report["worst"][0]
    assert list(case["pictures"]) == [
        "first frame", "last frame", "truth", "fake", "average", "DIS flow", "motion seen by fake, up to 3.0 px"
    ]  # fmt: skip
    np.testing.assert_array_equal(read_picture(case["pictures"]["truth"]), read_picture(tmp_path / "3/frame_01_gt.png"))
    np.testing.assert_array_equal(read_picture(case["pictures"]["average"]), grey)
    motion = read_picture(list(case["pictures"].values())[-1])
    assert (motion == (255, 0, 0)).all()  # three pixels to the right, everywhere: red in full
    assert case["scores"]["fake"]["PSNR"] == pytest.approx(value_of(report, "3"), abs=1e-5)


def value_of(report: dict[str, Any], sample: str) -> float:
    """Returns the network's PSNR by hand, from the written pictures."""
    (case,) = (c for c in report["worst"] if c["sample"] == sample)
    made, truth = (read_picture(case["pictures"][name]).astype(float) for name in ("fake", "truth"))
    return 10 * float(np.log10(255**2 / np.mean((made - truth) ** 2)))


@pytest.mark.parametrize("script", sorted((ROOT / "benchmark").glob("*.py")), ids=lambda script: script.stem)
def test_scripts_extend_the_path_before_they_import_the_project(script: Path) -> None:
    text = script.read_text()
    packages = "|".join(folder.parent.name for folder in ROOT.glob("*/__init__.py"))
    first = re.search(rf"^(from|import) ({packages})\b", text, re.MULTILINE)
    if first and "__main__" in text:
        assert "\nsys.path.insert(" in text[: first.start()], f"python3 benchmark/{script.name} cannot import the rest"
