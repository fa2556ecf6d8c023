"""What all benchmark scripts share: protocols that change the number, missing data, wrong arguments."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scored import Evaluate, Noisy, Seen, middlebury, pictures, value, write

from benchmark import HD, UCF101, Vimeo90K, common
from benchmark import MiddleBury_Other as Middlebury
from benchmark.common import TestSet

SCRIPTS = ("UCF101", "Vimeo90K", "MiddleBury_Other", "HD", "HD_multi_4X", "ATD12K", "SNU_FILM", "Xiph", "X4K1000FPS")
ROOT = Path(__file__).resolve().parents[1]


def test_padding_of_the_protocols_changes_middlebury(tmp_path: Path, evaluate: Evaluate) -> None:
    """4 pixels beyond the right edge: black by upstream's padding, the edge's colour by EMA-VFI's."""
    middlebury(tmp_path, (24, 44), grey=100)
    options = ("--no-baselines", "--limit", "1")
    assert value(evaluate("MiddleBury_Other", Seen(8), tmp_path, *options), "IE") == pytest.approx(50 * 4 / 44)
    report = evaluate("MiddleBury_Other", Seen(8), tmp_path, *options, "--protocol", "ema")
    assert value(report, "IE") == 0


@pytest.mark.parametrize(("level", "cost"), [(255 * 10 ** (-35.6 / 20), 0.020), (2.55, 0.055), (1.434, 0.17)])
def test_rounding_costs_what_the_twelfth_of_a_level_says(
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
    ("test_set", "size", "expected"),
    [
        (HD.SET, (720, 1280), (0, 0, 24, 24)),
        (HD.SET, (1080, 1920), (0, 0, 4, 4)),
        (HD.SET, (544, 1280), (0, 0, 16, 16)),
        (Middlebury.SET, (380, 420), (0, 220, 0, 100)),
        (UCF101.SET, (256, 256), (0, 0, 0, 0)),
        (Vimeo90K.SET, (256, 448), (0, 0, 0, 0)),
    ],
)
def test_padding_at_the_sets_own_sizes(
    test_set: TestSet, size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert test_set.protocols["rife"].padding.amounts(*size) == expected


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
        (["--save-frames", "x"], "leave out --baselines-only"),
        (["--protocol", "abc"], "invalid choice: 'abc'"),
    ):
        with pytest.raises(SystemExit):
            common.main(UCF101.SET, "", [*options, *wrong])
        assert message in capsys.readouterr().err


def test_exact_predictions_have_no_psnr(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    write({tmp_path / "1" / name: grey for name in ("frame_00.png", "frame_01_gt.png", "frame_02.png")})
    report = evaluate("UCF101", Seen(), tmp_path)
    assert {r["value"] for r in report["rows"] if r["metric"] == "PSNR"} == {None}
    assert value(report, "SSIM") == pytest.approx(1, abs=1e-4)


def test_turned_frames_are_averaged_in(tmp_path: Path, evaluate: Evaluate) -> None:
    """A network that moves everything the wrong way is as wrong turned around, so the average must differ from one."""
    frames = pictures(0)
    write({tmp_path / "1" / n: f for n, f in zip(("frame_00.png", "frame_01_gt.png", "frame_02.png"), frames,
                                                 strict=True)})  # fmt: skip
    one, two = (
        value(evaluate("UCF101", Seen(8), tmp_path, "--no-baselines", *options), "PSNR") for options in ((), ("--tta",))
    )
    assert two > one + 0.5
