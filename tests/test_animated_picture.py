"""Animated pictures (GIF, APNG, WebP): plays and durations, read by Pillow."""

from fractions import Fraction as F
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import picture
from conftest import Shift, use
from test_ending import gif_facts, write_gif

import inference_video
from video.frame import Frame
from video.reading.reader import Source
from video.timing.output_times import multiply
from video.writing.animated_picture import FOREVER, GIF, ONCE, count_plays
from video.writing.writer import VideoWriter

Image = pytest.importorskip("PIL.Image", reason="Pillow reads and writes the files")


def write_apng(path: Path, delays: list[int], plays: int) -> Path:
    """Writes moving squares; delays in ms."""
    first, *others = [Image.fromarray(picture(i)) for i in range(len(delays))]
    first.save(path, save_all=True, append_images=others, duration=delays, loop=plays)
    return path


def facts(path: Path) -> tuple[list[F], int]:
    """Returns the durations of the pictures in ms, and the number of plays."""
    with Image.open(path) as file:
        delays = []
        for i in range(file.n_frames):
            file.seek(i)
            file.load()
            delays.append(F(file.info["duration"]).limit_denominator(1000))
        return delays, file.info.get("loop", 0)


def convert(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    """Runs the command with a stub network."""
    use(Shift(0), monkeypatch)
    assert inference_video.main([*map(str, arguments), "--dedup=off", "--cuts=off", "--device=cpu"]) == 0


@pytest.mark.parametrize("suffix", ["gif", "apng", "webp"])
@pytest.mark.parametrize("delays", [[30] * 8, [70] * 5, [100, 60, 60, 300, 60, 1000], [20] * 6 + [500]])
@pytest.mark.parametrize("flags", [(), ("--loop",), ("--target-fps", "30"), ("--multi", "3", "--loop")])
def test_the_total_is_that_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, delays: list[int], flags: tuple[str, ...]
) -> None:
    """Whole hundredths of a second (GIF) and milliseconds (WebP) are rounded, their sum is not.

    Only a last picture that would be shorter than the shortest makes the total longer.
    """
    source = write_apng(tmp_path / "a.apng", delays, 0)
    convert(monkeypatch, "--video", source, "--output", tmp_path / f"b.{suffix}", *flags)
    found, _ = facts(tmp_path / f"b.{suffix}")
    shortest = 20 if suffix == "gif" else 11
    tolerance = shortest if found[-1] < shortest + 1 else 1 if suffix == "webp" else 0.01
    assert sum(found) == pytest.approx(sum(delays), abs=tolerance)
    assert min(found) >= shortest


def test_fast_pictures_are_not_slowed_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No frame is made between pictures of 20 ms, which are the shortest of a GIF; others are doubled."""
    source = write_gif(tmp_path / "a.gif", [2] * 5 + [50, 50], 0)
    convert(monkeypatch, "--video", source, "--output", tmp_path / "b.gif")
    assert gif_facts(tmp_path / "b.gif")[0] == [2] * 5 + [25, 25, 50]
    assert [step for _, step in multiply(4, F(50))(F(0), F(59, 1000))] == [0, F(1, 3), F(2, 3)]  # 1 ms of jitter


@pytest.mark.parametrize("plays", [0, 1, 4])
@pytest.mark.parametrize("suffix", ["apng", "webp", "gif"])
def test_the_number_of_plays_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, plays: int) -> None:
    source = write_apng(tmp_path / "a.apng", [100] * 3, plays)
    assert count_plays(source) == plays
    convert(monkeypatch, "--video", source, "--output", tmp_path / f"b.{suffix}")
    if suffix == "gif":  # it has the number of repeats after the first time, and none for one play
        assert gif_facts(tmp_path / "b.gif")[1] == {0: 0, 1: None, 4: 3}[plays]
        assert count_plays(tmp_path / "b.gif") == plays
    else:
        assert facts(tmp_path / f"b.{suffix}")[1] == plays


def test_other_files_are_played_forever(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    assert [count_plays(tmp_path / name) for name in ("a.mp4", "missing.gif")] == [FOREVER, FOREVER]
    assert GIF.play_options(ONCE) == {"loop": "-1"}


@pytest.mark.parametrize("suffix", ["gif", "apng", "webp"])
def test_a_part_has_the_length_of_its_frames(tmp_path: Path, suffix: str) -> None:
    source = Source(tmp_path / "a", (64, 48), F(10), None, F(1, 10), is_video=False)
    writer = VideoWriter(tmp_path / f"b.{suffix}", source, F(10), F(1, 10))
    for i in range(3):
        writer.write(Frame(np.ascontiguousarray(picture(i)), i / F(10), duration=F(1, 2) if i == 2 else None))
    writer.stop()
    assert facts(writer.part)[0] == [100, 100, 500]
