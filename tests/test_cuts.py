"""Tests cuts, which are changes that motion does not explain, and the benchmark that counts those found."""

import json
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Shift

from benchmark import cuts as benchmark
from benchmark import joins
from benchmark.joins import Join, between_bars, mix, photo_pan
from model import RIFE
from video.frame import Frame
from video.interpolate import Report, interpolate
from video.pictures.picture import write_picture
from video.timing.output_times import multiply
from video.transitions.cuts import NOISE_CONTRAST, match, small_luma
from video.transitions.scene import Transition, TransitionDetector


def photo(seed: int, size: tuple[int, int] = (960, 320)) -> np.ndarray:
    """Returns a picture of soft shapes: noise, enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (10, 30, 3), np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def pan(seed: int, count: int, step: int = 6) -> list[np.ndarray]:
    return [np.ascontiguousarray(photo(seed)[:256, step * n : step * n + 448]) for n in range(count)]


def found(pictures: list[np.ndarray], **rules: Any) -> set[int]:
    join = Join("", "", pictures, frozenset())
    return benchmark.found_cuts(join, TransitionDetector(repeats="off", **rules))


@pytest.mark.parametrize("light", [1, 0.15])
def test_a_cut_between_pictures_is_found_also_in_the_dark(light: float) -> None:
    pictures = [mix(p, 0, 1 - light) for p in [*pan(0, 5), *pan(1, 5)]]
    assert found(pictures) == {5}


@pytest.mark.parametrize("kind", list(joins.BARS))
def test_black_bars_hide_no_cut(kind: str) -> None:
    """Bars never change and add contrast; the cut has the mismatch that its pictures have without them."""
    height, width = joins.BARS[kind]
    pictures = [between_bars(p, height, width) for p in [*pan(0, 5), *pan(1, 5)]]
    assert found(pictures) == {5}
    bars = [round(side * (1 - share) / 2) for side, share in ((256, height), (448, width))]
    plain = [p[bars[0] : 256 - bars[0], bars[1] : 448 - bars[1]] for p in pictures[4:6]]
    expected = match(*(small_luma(p) for p in plain)).mismatch
    assert match(*(small_luma(p) for p in pictures[4:6])).mismatch == pytest.approx(expected, rel=0.3)


def test_the_black_ground_of_an_object_that_moves_is_no_bar() -> None:
    """The object stands still, then jumps by its own width in each frame: motion, no cut."""
    pictures = [np.zeros((256, 448, 3), np.uint8) for _ in range(8)]
    for n, picture in enumerate(pictures):
        x = 60 + 32 * max(n - 3, 0)
        picture[110:142, x : x + 32] = photo(5)[:32, :32]
    assert found(pictures) == set()


def test_upstreams_rule_misses_a_cut_in_the_dark() -> None:
    pictures = [mix(p, 0, 0.85) for p in [*pan(0, 5), *pan(1, 5)]]
    assert found(pictures, cuts="upstream") == set()


def test_a_flash_of_one_frame_is_held_on_both_sides() -> None:
    pictures = pan(2, 8)
    pictures[4] = mix(pictures[4], 255, 0.55)
    assert found(pictures) == {4, 5}


def test_a_flash_is_dissolved() -> None:
    """The true frame beside it has half the step and half the flash; a network that moves the light is 10 dB worse."""
    first, second = pan(2, 8)[3:5]
    second = mix(second, 255, 0.55)
    truth = mix(pan(2, 8, 3)[7], 255, 0.275)
    report = Report()
    clip = [Frame(p, F(n, 24)) for n, p in enumerate([first, second])]
    out = list(interpolate(clip, RIFE(Shift(-6), name="pan"), multiply(2), report=report))
    assert (report.flashes, report.cuts, report.made) == (1, 0, 0)
    mean = (first.astype(int) + second) / 2
    assert np.abs(out[1].rgb() - mean).max() <= 1
    assert np.abs(out[1].rgb().astype(int) - truth).mean() < np.abs(first.astype(int) - truth).mean() / 3


@pytest.mark.parametrize("kind", ["fade", "dissolve", "whip pan"])
def test_gradual_changes_and_fast_pans_are_no_cuts(kind: str) -> None:
    shares = [n / 11 for n in range(12)]
    pictures = {
        "fade": [mix(p, 0, s) for p, s in zip(pan(3, 12), shares, strict=True)],
        "dissolve": [mix(p, q, s) for p, q, s in zip(pan(3, 12), pan(4, 12), shares, strict=True)],
        "whip pan": pan(3, 10, 51),
    }
    assert found(pictures[kind]) == set()


def test_the_mismatch_of_pictures_without_motion_is_their_difference_by_contrast() -> None:
    grey = np.full((72, 128), 100, np.uint8)
    assert match(grey, grey + 10).mismatch == pytest.approx(10 / NOISE_CONTRAST)
    board = np.kron(np.indices((9, 16)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 100
    assert match(board, board + 20).mismatch == pytest.approx(20 / (2 * 50 + NOISE_CONTRAST), rel=0.1)
    assert match(board, board + 20).correlation == pytest.approx(1, abs=0.02)
    assert match(small_luma(photo(0)), small_luma(photo(1))).correlation < 0.7


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)])
def test_luma_is_the_same_at_every_depth(dtype: type[Any], unit: float) -> None:
    rgb = (photo(5).astype(np.float64) * unit).astype(dtype)
    luma = small_luma(rgb)
    assert luma.shape == (72, 128)
    assert np.abs(luma.astype(int) - small_luma(photo(5))).max() <= 1


def test_a_rule_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="cuts is one of motion, upstream, off"):
        TransitionDetector(cuts="best")


def test_the_two_scores_of_a_benchmark() -> None:
    join = Join("cut", "", [np.zeros((1, 1, 3), np.uint8)] * 5, frozenset({2, 3}))
    counts = benchmark.score(join, {3, 4})
    assert counts == {"breaks": 2, "found": 1, "others": 2, "alarms": 1}
    assert benchmark.precision_and_recall(counts) == (0.5, 0.5)


def test_the_benchmark_lists_both_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(2):
        write_picture(tmp_path / f"{n}.png", photo(n, (900, 540)))
    monkeypatch.setattr(joins, "read_clip", lambda path, count: pan(int(path.stem), 8))
    files = [str(tmp_path / f"{n}.png") for n in range(2)]
    assert benchmark.main(["--clips", *files, "--photos", *files]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["motion"]["precision"], record["motion"]["recall"]) == (1, 1)
    assert record["motion"]["kinds"]["flash 55 %"] == {"breaks": 4, "found": 4, "others": 10, "alarms": 0}
    assert record["upstream"]["recall"] < 0.6


def test_a_pan_turns_round_at_the_end_of_the_photograph(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", photo(0, (896, 540)))
    pictures = photo_pan(tmp_path / "a.png", 20, 56)
    assert np.array_equal(pictures[4], pictures[12])
    assert np.array_equal(pictures[8 - 3], pictures[8 + 3])


def test_a_cut_is_decided_by_the_pairs_beside_it() -> None:
    detector = TransitionDetector(repeats="off")
    signatures = [detector.signature(p, F(n, 24)) for n, p in enumerate([*pan(0, 3), *pan(1, 3)])]
    assert list(detector.transitions(signatures))[2] is Transition.CUT
    assert list(detector.transitions(signatures[1:5])) == list(detector.transitions(signatures))[1:4]
