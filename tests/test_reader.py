"""Tests readers of videos and folders: times, formats, damage, and every error in one line."""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction as F
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import make_clip, picture

from video.error_log import ErrorLog
from video.frame import Colour, Frame, clip_samples
from video.pictures.picture import MediaError, write_picture
from video.reading.container import parse_location, read_packets
from video.reading.reader import open_frames
from video.reading.trim import trim_source, trimmed_frames

FAULTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "faults"


def test_constant_rate_times_are_exact(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 10, rate=F(24000, 1001)))
    assert (source.size, source.rate, source.count) == ((64, 48), F(24000, 1001), 10)
    assert [f.time for f in source] == [i * F(1001, 24000) for i in range(10)]
    assert source.errors == []
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
def test_colours_are_equal_after_both_conversions(tags: tuple[int, int, int, int]) -> None:
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
def test_deep_colours_are_equal_after_both_conversions(pix_fmt: str, limits: int) -> None:
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
def test_a_video_cut_off_in_the_middle_gives_its_frames_and_a_message(tmp_path: Path, suffix: str) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8) for i in range(40)]
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    clip = make_clip(tmp_path / f"a.{suffix}", 40, size=(96, 96), pictures=noise, container_options=options)
    source = open_frames(cut_off(clip, 0.5))
    count = len(list(source))
    assert 10 < count < 30
    assert any("cut off" in c for c in source.errors), source.errors


def test_a_last_frame_long_after_the_others_has_its_time_if_the_header_of_an_flv_file_agrees(tmp_path: Path) -> None:
    times = [F(0), F(1, 25), F(2, 25), F(3, 25), F(20)]
    clip = make_clip(tmp_path / "a.flv", 5, rate=F(25), times=times, codec="flv")
    assert [frame.time for frame in open_frames(clip)] == times
    name = b"\x00\x08duration\x00"
    head, _, rest = clip.read_bytes().partition(name)
    clip.write_bytes(head + name + bytes(8) + rest[8:])  # as a live recording: FFmpeg takes the last stamp for the end
    assert [frame.time for frame in open_frames(clip)] == [*times[:-1], F(4, 25)]


def test_packets_of_mpeg_2_without_a_picture_are_damage(tmp_path: Path) -> None:
    """FFmpeg decodes nothing of them, and logs nothing."""
    clip = make_clip(tmp_path / "a.mkv", 12, codec="mpeg2video")
    content = clip.read_bytes()
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    for packet in packets[4:6]:
        content = content.replace(packet, bytes(len(packet)))
    clip.write_bytes(content)
    source = open_frames(clip)
    assert len(list(source)) == 10
    assert source.errors == ["2 damaged frames"]


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
    for path, message in [
        (missing, "no such file; check the path"),
        (text, "not a video that FFmpeg can open"),
        (one, "only one frame; interpolation needs two or more"),
        (sound, r"no video stream that can be decoded \(it holds: audio\); give another file"),
        (indexless, "or cut off before its index was written"),
        (empty, "holds no picture; give a folder with any of"),
        (lonely, "1 pictures; interpolation needs two or more"),
    ]:
        with pytest.raises(MediaError, match=message) as error:
            open_frames(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_pictures_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "2.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(MediaError, match=r"2\.png: 9x8, the first 8x8; bring them to one size"):
        list(open_frames(tmp_path))


def damage(clip: Path, number: int, offset: int = 0) -> Path:
    """Overwrites two bytes of one video packet, by default those that hold the length of its first unit."""
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place = (packets[number].pos or 0) + offset
    data = bytearray(clip.read_bytes())
    data[place : place + 2] = bytes(255 - value for value in data[place : place + 2])
    clip.write_bytes(data)
    return clip


def test_frames_after_an_undecodable_one_near_the_end_are_read(tmp_path: Path) -> None:
    """With threads they were lost while the decoder was drained, more with every core of the machine."""
    clip = damage(make_clip(tmp_path / "a.mp4", 40), 30)
    source = open_frames(clip)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        wanted = []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                wanted += packet.decode()
    frames = list(source)
    assert [frame.picture.pts for frame in frames] == [picture.pts for picture in wanted]  # type: ignore[union-attr]
    assert len(frames) == 39
    assert "damaged frames" in source.errors[0]


def test_damage_before_the_end_of_a_span_is_counted(tmp_path: Path) -> None:
    """A span ends before the file does: what was lost until there is still reported."""
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(12)]
    clip = damage(make_clip(tmp_path / "a.mp4", 12, pictures=noise, options={"g": "1", "bf": "0"}), 3, 300)
    source = trim_source(open_frames(clip), F(0), F(6, 24))
    assert len(list(trimmed_frames(source))) == 6
    assert source.errors == ["1 damaged frames"]


def test_damage_before_a_span_is_not_counted(tmp_path: Path) -> None:
    """Each output of --on-resize split is such a span: damage is counted in one of them."""
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(12)]
    clip = damage(make_clip(tmp_path / "a.mp4", 12, pictures=noise, options={"g": "1", "bf": "0"}), 3, 300)
    for start, found in (F(3, 24), ["1 damaged frames"]), (F(4, 24), []):
        source = trim_source(open_frames(clip), start, None)
        assert len(list(trimmed_frames(source))) == 12 - start * 24
        assert source.errors == found


def test_damage_that_the_decoder_conceals_is_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(12)]
    clip = damage(make_clip(tmp_path / "a.mp4", 12, pictures=noise, options={"g": "1"}), 5, 300)
    level = av.logging.get_level(), av.logging.get_skip_repeated()
    source = open_frames(clip)
    assert len(list(source)) == 12
    assert source.errors == ["1 damaged frames"]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == level
    assert capfd.readouterr() == ("", "")


def test_logs_of_two_threads_stay_apart() -> None:
    def log_errors(count: int) -> list[str]:
        with ErrorLog() as log:
            for i in range(count):
                av.logging.log(av.logging.ERROR, "test", f"{count} {i}")
        return log.messages

    with ThreadPoolExecutor(2) as pool:
        for count, messages in zip((100, 200), pool.map(log_errors, (100, 200)), strict=True):
            assert messages == [f"{count} {i}" for i in range(count)]
    assert av.logging.get_level() is None


def test_parts_of_a_joined_stream_follow_each_other(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.ts", 30, rate=F(25)).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part)
    source = open_frames(joined)
    assert [frame.time for frame in source] == [F(i, 25) for i in range(60)]
    assert source.shifts == [F(30, 25)]
    assert source.errors == []
    assert "start again, 1 times" in source.notes[0]


def test_b_frames_in_avi_have_the_times_of_their_order(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", 24, options={"bf": "2"})
    source = open_frames(clip)
    assert [frame.time for frame in source] == [F(i, 24) for i in range(24)]


def test_a_gap_does_not_change_the_rate(tmp_path: Path) -> None:
    times = [F(i, 25) for i in range(20)] + [7200 + F(i, 25) for i in range(20)]
    source = open_frames(make_clip(tmp_path / "a.mp4", 40, times=times))
    assert source.rate == 25
    assert [frame.time for frame in source] == times


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    big, small = np.full((64, 96, 3), 100, np.uint8), np.full((32, 48, 3), 200, np.uint8)
    one = make_clip(tmp_path / "1.ts", 25, size=(96, 64), rate=F(25), pictures=[big] * 25)
    later = [F(27 + i, 25) for i in range(25)]
    two = make_clip(tmp_path / "2.ts", 25, size=(48, 32), rate=F(25), pictures=[small] * 25, times=later)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    source = open_frames(joined)
    pictures = [frame.rgb() for frame in source]
    assert {picture.shape for picture in pictures} == {(64, 96, 3)}
    assert [round(float(picture.mean()), -1) for picture in pictures] == [100] * 25 + [200] * 25
    assert source.notes[0] == "25 frames of another size were scaled to 96x64"


def test_a_stream_that_appears_later_is_left_out() -> None:
    """PyAV 18 raises IndexError at the end of such a file, because its list of streams is that of the start."""
    packets = [object(), object()]

    class LaterStream:
        def demux(self, *streams: object) -> Iterator[object]:
            yield from packets
            raise IndexError("list index out of range")

    assert list(read_packets(LaterStream())) == packets  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("lost_16threads_b12.mp4", 39),
        ("lost0_16_d_h264_aac.flv", 39),
        ("gap.mp4", 50),
        ("hang_targetfps_flv_234.flv", 40),
        ("resolution_change_c100x66.ts", 50),
        ("size_change_flv1_0.flv", 38),
        ("tb_index_ts_90.ts", 30),
        ("abort_mkv_10bit_0.mp4", 30),
        ("media/cat_oneSecond_twice.ts", 60),
        ("media/media__a74b__sample-with-large-length.avi", 58),
        ("media/http-streaming__6802__videoMaxOffset.ts", 2),
    ],
)
def test_every_frame_that_one_thread_decodes_is_read(name: str, frames: int) -> None:
    path = FAULTS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    source = open_frames(path)
    got = list(source)
    assert len(got) == frames
    assert all(b.time > a.time >= 0 for a, b in pairwise(got))
    assert max(b.time - a.time for a, b in pairwise(got)) < 1 or name == "gap.mp4"
    assert all((picture.width, picture.height) == source.size for picture in (frame.picture for frame in got))  # type: ignore[union-attr]


def test_samples_above_the_bit_depth_are_clipped() -> None:
    picture = av.VideoFrame(20, 6, "yuv420p10le")
    for value, plane in zip((1023, 1024, 65535), picture.planes, strict=True):
        np.frombuffer(memoryview(plane), np.uint16)[:] = value
    assert clip_samples(picture).to_ndarray().max() == 1023
    np.frombuffer(memoryview(picture.planes[1]), np.uint16)[:] = 5
    np.frombuffer(memoryview(picture.planes[2]), np.uint16)[:] = 6
    assert clip_samples(picture) is picture


@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "http:a.mp4", "%20 ü.mp4", os.fsdecode(b"\xff\xfe.mp4")])
def test_any_name_of_a_file_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.replace(make_clip(tmp_path / "clip.mp4", 4), name)
    assert len(list(open_frames(Path(name)))) == 4


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(MediaError, match="a pipe or a device, which can be read only once"):
            open_frames(path)


def test_a_network_address_is_opened_as_it_is_written(tmp_path: Path) -> None:
    make_clip(tmp_path / "a b.mp4", 4)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *args: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = parse_location(f"http://127.0.0.1:{server.server_port}/a%20b.mp4")
        source = open_frames(address)
        assert len(list(source)) == 4
        server.shutdown()
    assert source.path == Path("a b.mp4")
    assert parse_location("a/b.mp4") == Path("a/b.mp4")


@pytest.mark.parametrize("other", [np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6, 3), np.uint16)])
def test_pictures_of_another_format_are_an_error(other: np.ndarray, tmp_path: Path) -> None:
    for i, array in enumerate((np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 3), np.uint8), other)):
        write_picture(tmp_path / f"{i}.tif", array)  # whose header is not read before
    with pytest.raises(MediaError, match=r"2\.tif: has .*, the pictures before it 3 channels of uint8"):
        list(open_frames(tmp_path))
