"""Tests the preview: the newest made frame between its neighbours, seldom written, never over another picture."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags, preview
from commands.preview import Preview, check_preview
from model import RIFE
from model.errors import UserError
from video.frame import Frame
from video.pictures.picture import read_picture, write_picture


class Clock:
    """Holds a time in seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def frame(i: int, made: bool = False) -> Frame:
    return Frame(picture(i), Fraction(i), made=made)


def test_a_made_frame_stands_between_its_neighbours(tmp_path: Path) -> None:
    path, clock = tmp_path / "p.png", Clock()
    shown = Preview(path, clock=clock)
    shown.add(frame(0))
    shown.add(frame(1, True))
    assert not path.exists()
    shown.add(frame(2))
    assert np.array_equal(read_picture(path), np.concatenate([picture(i) for i in range(3)], axis=1))
    for seconds, newest in ((4.9, 1), (5.1, 4)):
        clock.now = seconds
        shown.add(frame(3))
        shown.add(frame(4, True))
        shown.add(frame(5))
        assert np.array_equal(read_picture(path)[:, 64:128], picture(newest))
    shown.add(frame(6))
    shown.add(frame(7))  # no made frame in the middle
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_where_writing_is_slow_pictures_come_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture takes 2 s: at most 2 % of the time goes to them."""
    clock, writes = Clock(), list[float]()

    def write(*_: object) -> None:
        writes.append(clock.now)
        clock.now += 2

    monkeypatch.setattr(preview, "write_file", write)
    shown = Preview(tmp_path / "p.png", clock=clock)
    while clock.now < 1000:
        shown.add(frame(0))
        shown.add(frame(1, True))
        clock.now += 1
    assert len(writes) == 10


@pytest.mark.parametrize("kind", ["uint16", "float32", "wide", "alpha"])
def test_pictures_of_every_kind_are_shown_with_8_bits(tmp_path: Path, kind: str) -> None:
    rgb = picture(3, (1300, 40)) if kind == "wide" else picture(3)
    kinds: dict[str, np.ndarray] = {
        "uint16": rgb.astype(np.uint16) * 257,
        "float32": (rgb / 255).astype(np.float32),
        "wide": rgb,
        "alpha": np.dstack((rgb, rgb[..., :1])),
    }
    shown = kinds[kind]
    show = Preview(tmp_path / "p.png")
    for i in range(3):
        show.add(Frame(shown, Fraction(i), made=i == 1))
    made = read_picture(tmp_path / "p.png")
    if kind == "wide":
        assert made.shape == (20, 3 * 640, 3)
    else:
        assert np.array_equal(made[:, :64], rgb)


def test_only_previews_are_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "p.jpg", tmp_path / "q.jpg"
    for i in range(3):
        Preview(path).add(frame(i))
    write_picture(other, picture(0))
    show = Preview(path)
    for i in range(3):
        show.add(frame(i, True))
    check_preview(path, [], overwrite=False)
    with pytest.raises(UserError, match="exists already"):
        check_preview(other, [], overwrite=False)
    check_preview(other, [], overwrite=True)
    with pytest.raises(UserError, match="is the input"):
        check_preview(other, [other], overwrite=True)
    with pytest.raises(UserError, match=r"ends in \.jpg"):
        check_preview(tmp_path / "p.mp4", [], overwrite=False)


def test_a_preview_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    show = Preview(folder / "p.jpg")
    for i in range(9):
        show.add(frame(i, True))
    assert capsys.readouterr().err.count("the run continues without a preview") == 1


def test_the_command_keeps_a_preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(2), name="shift"))
    clip, path = make_clip(tmp_path / "a.mp4", 3), tmp_path / "p.jpg"
    for _ in range(2):
        assert inference_video.main([str(clip), "--preview", str(path), "--device=cpu", "--overwrite"]) == 0
        assert read_picture(path).shape == (48, 3 * 64, 3)
