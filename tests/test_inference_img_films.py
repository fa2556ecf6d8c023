"""Tests the GIF and the H.264 video that inference_img.py writes, read by PyAV alone."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import MovingSquare, Run, Shift, use, written

from video.pictures.picture import write_picture
from video.writing import slow_motion


def frames(file: str) -> tuple[list[np.ndarray], list[Fraction]]:
    with av.open(file) as container:
        decoded = [frame for frame in container.decode(video=0) if isinstance(frame, av.VideoFrame)]
        times = [Fraction(frame.pts or 0) * (frame.time_base or 0) for frame in decoded]
        return [frame.to_ndarray(format="rgba") for frame in decoded], times


def test_gif(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    _, out, _ = run("--exp=2", "--gif", "slow.gif", "--fps", "10")
    assert "(5 pictures) and slow.gif in " in out
    shown, times = frames("slow.gif")
    assert times == [Fraction(i, 10) for i in range(5)]
    for rgba, picture in zip(shown, written(), strict=True):
        assert np.abs(rgba[..., :3].astype(int) - picture).mean() < 4
    assert not list(Path().glob("*.part*"))


def test_gif_keeps_full_transparency(run: Run, moving_square: MovingSquare) -> None:
    for name, picture in zip("ab", moving_square(channels=4), strict=True):
        picture[..., 3] = 255
        picture[40:, :, 3] = 0
        write_picture(f"{name}.png", picture)
    assert run("--count=1", "--gif", "slow.gif")[0] == 0
    shown, times = frames("slow.gif")
    assert times == [0, Fraction(4, 100), Fraction(8, 100)]
    assert shown[1][44:, :, 3].max() == 0
    assert shown[1][:36, :, 3].min() == 255


@pytest.mark.parametrize(
    ("size", "matrix", "pix_fmt"),
    [((48, 64), 6, "yuv420p"), ((47, 64), 6, "yuv444p"), ((48, 63), 6, "yuv444p"), ((720, 16), 1, "yuv420p")],
)
def test_mp4(
    run: Run,
    moving_square: MovingSquare,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    matrix: int,
    pix_fmt: str,
) -> None:
    use(Shift(), monkeypatch)
    for name, picture in zip("ab", moving_square(*size, dtype=np.uint16, motion=2), strict=True):
        write_picture(f"{name}.png", picture)
    status, out, _ = run("--count=1", "--mp4", "slow.mp4", "--fps", "60000/1001")
    assert status == 0
    assert "(3 pictures) and slow.mp4 in " in out
    with av.open("slow.mp4") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (stream.average_rate, context.pix_fmt) == (Fraction(60000, 1001), pix_fmt)
        assert (context.colorspace, context.color_range) == (matrix, 1)
    shown, times = frames("slow.mp4")
    assert [float(t) for t in times] == pytest.approx([i * 1001 / 60000 for i in range(3)], abs=1e-4)
    for rgba, picture in zip(shown, written(), strict=True):
        assert np.abs(rgba[..., :3] - picture / 257).mean() < 3.5  # the wrong matrix: above 6


def test_existing_films_are_replaced_only_with_overwrite(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for option, name in (("--gif", "old.gif"), ("--mp4", "old.mp4")):
        Path(name).write_text("mine")
        status, _, err = run("--count=1", option, name)
        message = f"inference_img.py: {name}: exists already; choose another name for the output, or overwrite it\n"
        assert (status, err) == (1, message)
        assert Path(name).read_text() == "mine"
        assert not Path("output").exists()
    assert run("--count=1", "--mp4", "old.mp4", "--overwrite")[0] == 0
    assert len(frames("old.mp4")[0]) == 3


def test_a_film_that_fails_has_no_final_name(
    run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slow_motion.VideoWriter, "write", full)
    status, _, err = run("--count=1", "--mp4", "slow.mp4")
    assert status == 1
    assert err.startswith("inference_img.py: No space left on device; check the names, the folders and")
    assert not Path("slow.mp4").exists()
    assert len(written()) == 3  # the pictures are complete
