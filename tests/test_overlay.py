"""Tests that logos that stand still while the scene moves are found and kept, and that nothing else is found."""

from fractions import Fraction as F
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Shift
from test_cuts import pan

from model import RIFE, UserError
from video.devices import InputFrame
from video.frame import Frame
from video.interpolate import Handling, interpolate
from video.pictures.picture import write_picture
from video.timing.output_times import multiply
from video.transitions.overlay import STILL_REACH, Overlays, gradient, read_mask, static_pixels
from video.transitions.scene import TransitionDetector
from video.writing.picture_writer import upright

STEP = 12  # px a frame, to the left
PLACE = np.s_[40:80, 300:400]  # around the logo


def logo(rgb: np.ndarray) -> np.ndarray:
    """Returns the picture with a logo."""
    return cv2.putText(rgb.copy(), "Logo", (305, 70), cv2.FONT_HERSHEY_DUPLEX, 1.2, (255, 255, 255), 3, cv2.LINE_AA)


def clip(count: int = 12, step: int = STEP) -> list[np.ndarray]:
    return [logo(p) for p in pan(0, count, step)]


def search(pictures: list[np.ndarray]) -> np.ndarray | None:
    lumas = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    return static_pixels(lumas, [gradient(luma) for luma in lumas])


def made(pictures: list[np.ndarray], number: int, overlays: Overlays | None, dtype: type = np.uint8) -> np.ndarray:
    """Returns the picture made after a frame, by a network that moves all of the scene, the logo too."""
    unit = 257 if dtype == np.uint16 else 1
    frames = [Frame(p.astype(dtype) * dtype(unit), F(n, 24)) for n, p in enumerate(pictures)]
    handling = Handling(TransitionDetector(repeats="off"), overlays=overlays)
    out = list(interpolate(frames, RIFE(Shift(-STEP), name="pan"), multiply(2), handling=handling))
    assert out[2 * number].picture is frames[number].picture
    return out[2 * number + 1].rgb() // unit


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("number", [0, 5, 10])
def test_a_logo_stays_sharp_while_the_scene_moves(number: int, dtype: type) -> None:
    truth = logo(np.ascontiguousarray(pan(0, 24, STEP // 2)[2 * number + 1]))
    errors = [
        np.abs(made(clip(), number, overlays, dtype)[PLACE].astype(int) - truth[PLACE]).mean()
        for overlays in (None, Overlays())
    ]
    assert errors[0] > 20
    assert errors[1] < 4


def test_nothing_is_found_in_a_pan_nor_in_a_scene_that_stands_still() -> None:
    assert search(pan(0, 9, STEP)) is None
    still = pan(0, 1)[0]
    moving_ball = [cv2.circle(still.copy(), (60 + 12 * n, 100), 10, (255, 255, 255), -1) for n in range(9)]
    assert search(moving_ball) is None
    assert search(clip()[:3]) is None  # too few frames


def test_edges_along_the_motion_are_no_overlay() -> None:
    """A table's edge looks the same in every frame of a camera that moves along it."""
    table = [cv2.rectangle(p.copy(), (0, 150), (448, 170), (250, 250, 250), -1) for p in pan(0, 9, STEP)]
    assert search(table) is None


def test_the_mask_covers_the_logo_and_little_else() -> None:
    found = search(clip()[:9])
    assert found is not None
    text = np.abs(logo(np.zeros((256, 448, 3), np.uint8))).max(2) > 0
    assert found[text].mean() > 0.99
    assert found.sum() < 4 * text.sum()


def test_black_bars_beside_the_picture_hide_no_logo() -> None:
    """An upright picture is a third of a wide frame: bars do not count as a scene that stands still."""
    pictures = clip(9, 4)
    alone = search(pictures)
    found = search([np.pad(p, ((0, 0), (448, 448), (0, 0))) for p in pictures])
    assert alone is not None
    assert found is not None
    assert (found[:, 448:-448] != alone).mean() < 0.01


def test_a_search_ends_at_a_cut_and_keeps_order_and_count() -> None:
    pictures = [*clip(), *[255 - p for p in clip()]]
    detector = TransitionDetector(repeats="off")
    frames = [InputFrame(Frame(p, F(n)), p, detector.signature(p, F(n))) for n, p in enumerate(pictures)]
    kinds = detector.transitions([frame.signature for frame in frames])
    for frame, kind in zip(frames[1:], kinds, strict=True):
        frame.transition = kind
    out = list(Overlays().protect(frames))
    assert [f.frame.time for f in out] == [F(n) for n in range(24)]
    alone = list(Overlays().protect(frames[:12]))
    for a, b in zip(out[:12], alone, strict=True):
        assert a.keep is not None
        assert b.keep is not None
        assert np.array_equal(a.keep, b.keep)
    middle = next(f for f in Overlays().protect(frames[6 - STILL_REACH : 6 + STILL_REACH + 1]) if f.frame.time == 6)
    assert np.array_equal(middle.keep, out[6].keep)  # type: ignore[arg-type]


def test_a_mask_keeps_what_is_under_it(tmp_path: Path) -> None:
    mask = np.zeros((256, 448, 3), np.uint8)
    mask[PLACE] = 255
    write_picture(tmp_path / "mask.png", mask)
    overlays = Overlays(search=False, mask=read_mask(tmp_path / "mask.png", (448, 256)))
    pictures = clip()
    wanted = (pictures[4].astype(int) + pictures[5]) / 2
    inside = np.s_[44:76, 304:396]
    assert np.abs(made(pictures, 4, overlays)[inside] - wanted[inside]).max() <= 1
    with pytest.raises(UserError, match="448x256, the video 64x48"):
        read_mask(tmp_path / "mask.png", (64, 48))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_mask_is_turned_as_players_turn_the_video(tmp_path: Path, rotation: int) -> None:
    """A mark at the top right of what is shown covers that place in the frames as they are stored."""
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[4:10, 50:60] = 255
    shown = np.ascontiguousarray(upright(stored, rotation))
    write_picture(tmp_path / "mask.png", shown)
    assert np.array_equal(read_mask(tmp_path / "mask.png", (64, 48), rotation), stored[..., 0] > 0)
    with pytest.raises(UserError, match=f"{shown.shape[1]}x{shown.shape[0]}, the video "):
        read_mask(tmp_path / "mask.png", (64, 64), rotation)
