from fractions import Fraction as F
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import make_clip, picture

from video.frame import Colour, Frame
from video.picture import MediaError, write_picture
from video.reader import open_frames


def test_constant_rate_times_are_exact(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 10, rate=F(24000, 1001)))
    assert (source.size, source.rate, source.count) == ((64, 48), F(24000, 1001), 10)
    assert [f.time for f in source] == [i * F(1001, 24000) for i in range(10)]
    assert source.complaints == []
    assert [f.time for f in source] == [i * F(1001, 24000) for i in range(10)]  # and again


def test_variable_rate_times_are_exact(tmp_path: Path) -> None:
    times = [F(0), F(1, 30), F(1, 10), F(11, 30), F(12, 30)]
    source = open_frames(make_clip(tmp_path / "a.mp4", 5, times=times))
    assert [f.time for f in source] == times


def test_rotation_aspect_and_tags_are_read(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", rotation=90, aspect=F(4, 3), tags=(1, 1, 1, 1))
    source = open_frames(clip)
    assert (source.rotation, source.aspect) == (90, F(4, 3))
    assert source.colour == Colour(1, 1, 1, 1, 48)
    # OpenCV turns what it reads as a player would: the independent answer to which way
    shown = cv2.VideoCapture(str(clip)).read()[1][:, :, ::-1]
    turned = np.rot90(next(iter(source)).rgb(), source.rotation // 90)
    assert np.abs(shown.astype(int) - turned).mean() < 4  # the wrong way: above 20


def test_a_clip_that_starts_late_starts_at_zero(tmp_path: Path) -> None:
    times = [F(10) + F(i, 25) for i in range(5)]
    source = open_frames(make_clip(tmp_path / "a.ts", 5, times=times))
    assert [f.time for f in source] == [F(i, 25) for i in range(5)]


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (5, 2, 5, 6), (9, 1, 9, 16)])
def test_colours_survive_the_matrix_both_ways(tags: tuple[int, int, int, int]) -> None:
    """Patches of known colour, converted by formula to YUV 4:4:4 in each matrix and range, come back within 1 level."""
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[tags[0]]
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.float64)
    r, g, b = rgb[..., 0] / 255, rgb[..., 1] / 255, rgb[..., 2] / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    full = tags[1] == 2
    planes = [y * 255, u * 255 + 128, v * 255 + 128] if full else [y * 219 + 16, u * 224 + 128, v * 224 + 128]
    yuv = np.stack(planes).round().clip(0, 255).astype(np.uint8)
    decoded = av.VideoFrame.from_ndarray(yuv, "yuv444p")
    decoded.colorspace, decoded.color_range = tags[0], tags[1]
    colour = Colour(*tags, height=48)
    back = Frame(decoded, F(0), colour).rgb()
    assert np.abs(back - rgb).max() <= 2
    assert np.abs((back - rgb).mean((0, 1))).max() < 0.2
    again = colour.from_rgb(back, "yuv444p").to_ndarray().astype(int)
    assert np.abs(again - yuv).max() <= 1
    assert np.abs((again - yuv).mean((1, 2))).max() < 0.1  # no shift from frame to frame


def test_an_untagged_clip_is_601_below_720_lines_and_709_from_there() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    low, high = Colour(2, 1, 2, 2, 576), Colour(2, 1, 2, 2, 720)
    assert low.from_rgb(red, "yuv444p").to_ndarray()[0, 0, 0] == round(0.299 * 219 + 16)
    assert high.from_rgb(red, "yuv444p").to_ndarray()[0, 0, 0] == round(0.2126 * 219 + 16)


def test_ten_bits_are_read_as_sixteen(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mkv", 3, codec="ffv1", pix_fmt="yuv444p10le"))
    rgb = next(iter(source)).rgb()
    assert rgb.dtype == np.uint16
    error = rgb.astype(int) - picture(0, depth=16)
    assert np.abs(error).max() < 65536 / 1023 * 8  # the test's own conversion to YUV is swscale's, which is coarse


@pytest.mark.parametrize("limits", [1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv444p10le", "yuv420p10le", "yuv444p12le"])
def test_deep_colours_survive_both_ways(pix_fmt: str, limits: int) -> None:
    smooth = picture(0, depth=16)
    smooth[:, :, :] = smooth[:1, :, :]  # columns only: chroma subsampling loses little
    colour = Colour(9, limits, 9, 16, height=48)
    back = colour.to_rgb(colour.from_rgb(smooth, pix_fmt))
    assert back.dtype == np.uint16
    error = (back.astype(int) - smooth)[:, 24:60]
    assert np.abs(error).max() <= 65535 / 1023 * 2
    assert np.abs(error.mean((0, 1))).max() <= 65535 / 1023 * 0.3


def test_a_folder_in_natural_order_at_its_rate(tmp_path: Path) -> None:
    for i, name in enumerate(["frame_2.png", "frame_10.png", "frame_9.png"]):
        write_picture(tmp_path / name, np.full((8, 8, 3), i, np.uint8))
    source = open_frames(tmp_path, F(25))
    assert [int(f.rgb()[0, 0, 0]) for f in source] == [0, 2, 1]
    assert [f.time for f in source] == [0, F(1, 25), F(2, 25)]
    assert (source.size, source.count, source.is_video) == ((8, 8), 3, False)


def cut_off(clip: Path, fraction: float) -> Path:
    data = clip.read_bytes()
    clip.write_bytes(data[: int(len(data) * fraction)])
    return clip


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_cut_off_in_the_middle_gives_what_is_there_and_says_so(tmp_path: Path, suffix: str) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8) for i in range(40)]
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    clip = make_clip(tmp_path / f"a.{suffix}", 40, size=(96, 96), pictures=noise, container_options=options)
    source = open_frames(cut_off(clip, 0.5))
    count = len(list(source))
    assert 10 < count < 30
    assert any("cut off" in c for c in source.complaints), source.complaints


def test_errors_name_file_cause_and_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "none.mp4"
    text = tmp_path / "text.mp4"
    text.write_text("not a video at all\n" * 100)
    one = make_clip(tmp_path / "one.mp4", 1)
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    indexless = cut_off(make_clip(tmp_path / "indexless.mp4", 30), 0.5)  # its index is at the end
    empty = tmp_path / "empty"
    empty.mkdir()
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    write_picture(lonely / "1.png", np.zeros((8, 8, 3), np.uint8))
    for path, says in [
        (missing, "no such file; check the path"),
        (text, "not a video that FFmpeg can open"),
        (one, "only one frame; interpolation needs two or more"),
        (sound, r"no video stream that can be decoded \(it holds: audio\); give another file"),
        (indexless, "or cut off before its index was written"),
        (empty, "holds no picture; give a folder with any of"),
        (lonely, "1 pictures; interpolation needs two or more"),
    ]:
        with pytest.raises(MediaError, match=says) as error:
            open_frames(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_pictures_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "2.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(MediaError, match=r"2\.png: 9x8, the pictures before it 8x8; bring them to one size"):
        list(open_frames(tmp_path))
