"""Tests writers of videos and pictures: exact frames, tracks, formats, errors and unfinished files."""

import errno
import sys
from dataclasses import replace
from fractions import Fraction as F
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make_clip, picture

from model.errors import UserError
from video.frame import Frame
from video.pictures.picture import read_picture
from video.reading.reader import Source, open_frames
from video.safe_file import SafeFile
from video.writing.encoding import Encoding, choose_pix_fmt
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,600\nHello\n\n2\n00:00:00,700 --> 00:00:00,900\nthere\n"


def doubled(source: Source) -> list[Frame]:
    """Yields source frames and, between each two, one made as the network makes them: RGB."""
    frames = list(source)
    out = []
    for a, b in pairwise(frames):
        mean = ((a.rgb().astype(np.float64) + b.rgb()) / 2).round().astype(a.rgb().dtype)
        out += [a, Frame(mean, (a.time + b.time) / 2)]
    return [*out, replace(frames[-1], duration=None)]


def write(source: Source, path: Path, **options: Any) -> tuple[list[Frame], VideoWriter]:
    frames = doubled(source)
    with VideoWriter(path, source, source.rate * 2, source.time_base / 2, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return frames, writer


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_ffv1_gives_source_frames_back_bit_for_bit(tmp_path: Path, pix_fmt: str) -> None:
    clip = make_clip(tmp_path / "a.mkv", pix_fmt=pix_fmt)
    write(open_frames(clip), tmp_path / "b.mkv", encoding=Encoding("ffv1"))
    before, after = Clip(clip), Clip(tmp_path / "b.mkv")
    assert after.pix_fmt == pix_fmt
    assert len(after.pictures) == 11
    for i in range(6):
        assert after.planes(2 * i) == before.planes(i)
        assert after.planes(max(2 * i - 1, 1)) != before.planes(i)


def test_made_frames_have_the_colours_of_their_neighbours(tmp_path: Path) -> None:
    still = [picture(0)] * 4
    for tags in [(1, 1, 1, 1), (6, 1, 6, 6), (1, 2, 1, 1), (9, 1, 9, 16)]:
        clip = make_clip(tmp_path / "a.mkv", 4, pictures=still, pix_fmt="yuv444p", tags=tags)
        write(open_frames(clip), tmp_path / "b.mkv", encoding=Encoding("ffv1"), overwrite=True)
        planes = [p.to_ndarray().astype(int) for p in Clip(tmp_path / "b.mkv").pictures]
        assert np.abs(planes[1] - planes[0]).max() <= 1, tags
        assert abs((planes[1] - planes[0]).mean()) < 0.02, tags  # no brightness flicker


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_tags_rotation_and_aspect_are_kept(tmp_path: Path, suffix: str) -> None:
    tags = (1, 1, 1, 1)
    clip = make_clip(tmp_path / "a.mp4", rotation=90, aspect=F(4, 3), tags=tags)
    write(open_frames(clip), tmp_path / f"b.{suffix}")
    out = Clip(tmp_path / f"b.{suffix}")
    assert (out.tags, out.rotation, out.aspect, out.size) == (tags, 90, F(4, 3), (64, 48))


def test_where_rotation_cannot_be_tagged_the_pictures_are_turned(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", rotation=90, aspect=F(4, 3))
    frames, writer = write(open_frames(clip), tmp_path / "b.webm")
    out = Clip(tmp_path / "b.webm")
    assert (out.size, out.rotation) == ((48, 64), 0)
    assert any("pixel aspect 3/4 cannot be stored" in note for note in writer.notes)
    shown = out.pictures[0].to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown - np.rot90(frames[0].rgb())).mean() < 4


def test_sound_is_copied_packet_for_packet(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 24, audio=["aac", "flac"], chapters=True, subtitles=SUBTITLES)
    write(open_frames(clip), tmp_path / "b.mkv")
    before, after = Clip(clip), Clip(tmp_path / "b.mkv")
    assert after.packets == before.packets
    assert after.kinds == ["audio 0", "audio 1", "subtitle 0", "video 0"]
    assert [c["metadata"]["title"] for c in after.chapters] == ["one"]
    assert after.metadata["title"] == "a clip"


def test_sound_and_picture_stay_together_when_the_source_starts_late(tmp_path: Path) -> None:
    late = [F(10) + F(i, 25) for i in range(25)]
    clip = make_clip(tmp_path / "a.ts", 25, times=late, rate=F(25), audio=["aac"])
    write(open_frames(clip), tmp_path / "b.mp4")
    times = Clip(tmp_path / "b.mp4").times
    assert [t - times[0] for t in times] == [F(i, 50) for i in range(49)]
    assert times[0] < F(1, 20)  # AAC starts one frame, 21 ms, before its first sound


def test_tracks_that_the_container_refuses_are_transcoded_or_dropped_and_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 24, audio=["aac"], subtitles=SUBTITLES)
    _, writer = write(open_frames(clip), tmp_path / "b.webm")
    out = Clip(tmp_path / "b.webm")
    assert out.codecs == ["opus"]
    assert any(n.startswith("audio track") and n.endswith("transcoded to libopus") for n in writer.notes), writer.notes
    assert any(n.startswith("subtitle track") and n.endswith("converted to webvtt") for n in writer.notes), writer.notes
    clip = make_clip(tmp_path / "c.mkv", 24, audio=["libopus"])
    _, writer = write(open_frames(clip), tmp_path / "d.mov")
    assert Clip(tmp_path / "d.mov").codecs == ["aac"]
    assert "transcoded to aac" in writer.notes[0]


def test_variable_times_reach_the_file(tmp_path: Path) -> None:
    times = [F(0), F(1, 30), F(1, 10), F(11, 30), F(12, 30)]
    clip = make_clip(tmp_path / "a.mp4", 5, times=times)
    frames, _ = write(open_frames(clip), tmp_path / "b.mp4")
    assert Clip(tmp_path / "b.mp4").times == [f.time for f in frames]


def test_ntsc_rate_is_exact_in_the_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 10, rate=F(24000, 1001))
    write(open_frames(clip), tmp_path / "b.mp4")
    out = Clip(tmp_path / "b.mp4")
    assert out.rate == F(48000, 1001)
    assert out.times == [i * F(1001, 48000) for i in range(19)]


class UncomputedTimes:
    """Gives decoding times that its encoder has not computed, as x265 at times does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def encode(self, picture: av.VideoFrame | None) -> list[av.Packet]:
        packets: list[av.Packet] = self._stream.encode(picture)
        for packet in packets:
            assert packet.pts is not None
            packet.dts = packet.pts - 2**40
        return packets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.mark.parametrize("count", [1, 2])
def test_very_short_videos_by_x265_have_decoding_times(tmp_path: Path, count: int) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4"))
    with VideoWriter(tmp_path / "b.mp4", source, source.rate, source.time_base, encoding=Encoding("libx265")) as writer:
        writer._muxer.stream = UncomputedTimes(writer._muxer.stream)
        for frame in islice(source, count):
            writer.write(frame)
    with av.open(str(tmp_path / "b.mp4")) as container:
        times = [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.size]
    assert len(times) == count
    assert all(pts == dts for pts, dts in times)


@pytest.mark.parametrize("size", [(65, 63), (64, 63), (65, 48)])
def test_odd_sizes_are_kept_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = make_clip(tmp_path / "a.mkv", size=size, codec="ffv1", pix_fmt="yuv420p")
    _, writer = write(open_frames(clip), tmp_path / "b.mp4")
    out = Clip(tmp_path / "b.mp4")
    assert (out.size, out.pix_fmt) == (size, "yuv444p")
    assert "is odd" in writer.notes[0]


def test_gif_and_webm(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", rate=F(10)))
    frames, _ = write(source, tmp_path / "b.gif")
    out = Clip(tmp_path / "b.gif")
    assert out.times == [F(i, 20) for i in range(11)]
    shown = out.pictures[5].to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown - frames[5].rgb()).mean() < 6
    write(source, tmp_path / "b.webm")
    assert len(Clip(tmp_path / "b.webm").pictures) == 11


@pytest.mark.parametrize(
    ("codec", "wanted", "size", "chosen"),
    [
        ("libx264", "yuvj420p", (64, 48), "yuv420p"),
        ("libx264", "gbrp", (64, 48), "yuv420p"),
        ("libx264", "yuv420p10le", (64, 48), "yuv420p10le"),
        ("libx264", "yuv420p10le", (65, 48), "yuv444p10le"),
        ("libx264", "yuv444p12le", (64, 48), "yuv444p10le"),
        ("prores_ks", "yuv420p", (64, 48), "yuv422p10le"),
        ("ffv1", "yuv420p", (65, 49), "yuv420p"),
        ("ffv1", "ya16be", (64, 48), "gbrap16le"),
    ],
)
def test_pixel_format_nearest_to_the_source(codec: str, wanted: str, size: tuple[int, int], chosen: str) -> None:
    assert choose_pix_fmt(codec, wanted, *size) == chosen


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("b.mp4", Encoding("libx999"), "codec libx999: no such encoder; try libx264"),
        ("b.mp4", Encoding("aac"), "codec aac: encodes audio, not video"),
        (
            "b.webm",
            Encoding("libx264"),
            "libx264 in .webm .* is refused .*; choose another codec, pixel format or container",
        ),
        ("b.xyz", Encoding(), "no container for video .*; use mp4, mkv, mov, webm or gif"),
        ("b.mkv", Encoding("ffv1", crf=10), "crf: ffv1 has no such setting"),
        ("b.mp4", Encoding(options=(("tine", "film"),)), "tine: libx264 has no such setting; leave it out"),
        (
            "b.mp4",
            Encoding(options=(("tune", "flim"),)),
            r"libx264 in .mp4 with yuv420p, tune=flim at 64x48 is refused",
        ),
        ("b.mp4", Encoding(pix_fmt="yuv420p99"), "yuv420p99"),
        ("b.mp4", Encoding("h264_nvenc"), "h264_nvenc .* is refused"),
        ("no/b.mp4", Encoding(), "its folder does not exist"),
    ],
)
def test_refusals_come_before_the_first_frame_and_leave_nothing(
    tmp_path: Path, name: str, encoding: Encoding, message: str
) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4"))
    with pytest.raises(UserError, match=message) as error:
        VideoWriter(tmp_path / name, source, F(48), F(1, 48), encoding=encoding)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_any_setting_of_the_encoder_can_be_given(tmp_path: Path) -> None:
    """x264 writes its settings into the stream; two B-frames at most and a keyframe every fourth frame."""
    source = open_frames(make_clip(tmp_path / "a.mp4", 12))
    options = ("g", "4"), ("x264-params", "ref=5"), ("x264-params", "bframes=2"), ("b", "300k")
    write(source, tmp_path / "b.mkv", encoding=Encoding(options=options))
    data = (tmp_path / "b.mkv").read_bytes()
    settings = data[data.index(b"x264 - core") :].split(b"\0")[0].decode("latin-1")
    for part in ("keyint=4 ", "ref=5 ", "bframes=2 ", "bitrate=300 "):
        assert part in settings
    with av.open(str(tmp_path / "b.mkv")) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    assert len(keys) == 6  # of 23 frames


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4"))
    (tmp_path / "b.mp4").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"b\.mp4: exists already; choose another name for the output, or overwrite it"):
        write(source, tmp_path / "b.mp4")
    assert (tmp_path / "b.mp4").read_bytes() == b"precious"
    write(source, tmp_path / "b.mp4", overwrite=True)
    assert len(Clip(tmp_path / "b.mp4").pictures) == 11
    with pytest.raises(UserError, match=r"is the input .*a\.mp4 itself"):
        write(source, tmp_path / "a.mp4", overwrite=True)


def test_an_error_midway_keeps_a_playable_part_and_the_old_file(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4"))
    (tmp_path / "b.mp4").write_bytes(b"precious")

    def fail() -> None:
        with VideoWriter(tmp_path / "b.mp4", source, F(24), source.time_base, overwrite=True) as writer:
            for frame in source:
                writer.write(frame)
            raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        fail()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "b.part.mp4"]
    assert (tmp_path / "b.mp4").read_bytes() == b"precious"
    assert len(Clip(tmp_path / "b.part.mp4").pictures) == 6


def test_an_interrupt_leaves_a_playable_part_and_no_final_name(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 20, audio=["aac"]))
    writer = VideoWriter(tmp_path / "b.mp4", source, F(24), source.time_base)

    def interrupted() -> None:
        with writer:
            for i, frame in enumerate(source):
                if i == 12:
                    raise KeyboardInterrupt
                writer.write(frame)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "b.mp4").exists()
    assert len(Clip(tmp_path / "b.part.mp4").pictures) == 12
    assert str(tmp_path / "b.part.mp4") in writer.notes[-1]
    kept = (tmp_path / "b.part.mp4").read_bytes()
    with pytest.raises(UserError, match=r"b\.part\.mp4: exists already, left by an interrupted run or in use by one"):
        write(source, tmp_path / "b.mp4")
    assert (tmp_path / "b.part.mp4").read_bytes() == kept
    write(source, tmp_path / "b.mp4", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_two_runs_do_not_write_into_one_file(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 3))
    with VideoWriter(tmp_path / "b.mp4", source, F(24), source.time_base) as writer:
        for i, frame in enumerate(source):
            writer.write(frame)
            if i == 1:
                with pytest.raises(UserError, match="another run writes it now; let that run end"):
                    VideoWriter(tmp_path / "b.mp4", source, F(24), source.time_base)
    assert len(Clip(tmp_path / "b.mp4").pictures) == 3


def test_pictures_are_numbered_upright_and_stale_ones_named(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 3, rotation=90))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "0000007.png").write_bytes(b"old")
    with PictureWriter(folder, source) as writer:
        for frame in source:
            writer.write(frame)
    assert sorted(p.name for p in folder.iterdir()) == ["0000000.png", "0000001.png", "0000002.png", "0000007.png"]
    first = next(iter(source)).rgb()
    assert np.array_equal(read_picture(folder / "0000000.png"), np.rot90(first))
    assert writer.notes[0] == "left out of pictures: title"
    assert writer.notes[1:] == [f"1 pictures of a longer earlier run are still there, from {folder / '0000007.png'} on"]


def test_ten_bit_pictures_are_sixteen_bit_files(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mkv", 2, codec="ffv1", pix_fmt="yuv420p10le"))
    with PictureWriter(tmp_path / "out", source) as writer:
        for frame in source:
            writer.write(frame)
    assert read_picture(tmp_path / "out" / "0000000.png").dtype == np.uint16


def test_a_disk_that_is_full_before_the_first_frame_is_an_error_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left, so that the same command begins anew."""

    def fail(file: SafeFile, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = open_frames(make_clip(tmp_path / "a.mp4", 3))
    monkeypatch.setattr(SafeFile, "write", fail)
    with pytest.raises(UserError, match=r"b\.mkv: cannot be written \(No space left on device\); .* or make room$"):
        write(source, tmp_path / "b.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks on folders")
def test_two_runs_do_not_write_pictures_into_one_folder(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 2))
    with PictureWriter(tmp_path / "made", source), pytest.raises(UserError, match="made: another run writes pictures"):
        PictureWriter(tmp_path / "made", source)
    PictureWriter(tmp_path / "made", source).stop()
