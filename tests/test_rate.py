"""Tests rates, times and totals of files whose headers or time stamps are inexact, against closed forms."""

import struct
from fractions import Fraction as F
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from clips import Clip, make_clip

from video.frame import Frame
from video.reading.clock import Clock, Stamped
from video.reading.rate import exact_time_base, find_rate
from video.reading.reader import Source, open_frames
from video.reading.trim import trim_source, trimmed_frames
from video.timing.output_times import resample
from video.writing.writer import VideoWriter

NTSC = F(60000, 1001)


def trim(path: Path, start: float, length: float) -> None:
    """Shortens the edit list of every track, as phones trim a video: start and length in seconds."""
    with av.open(str(path)) as container:
        bases = [stream.time_base for stream in container.streams]
    data = bytearray(path.read_bytes())
    at = 0
    for base in bases:
        at = data.index(b"elst", at + 1)
        (media,) = struct.unpack_from(">i", data, at + 16)
        struct.pack_into(">Ii", data, at + 12, int(length * 1000), media + round(start / (base or 1)))
    path.write_bytes(data)


def write(source: Source, path: Path) -> Clip:
    """Writes every frame twice, the second half a step later, and reads the result."""
    with VideoWriter(path, source, source.rate * 2, source.time_base / 2) as writer:
        for frame in source:
            writer.write(frame)
            writer.write(Frame(frame.picture, frame.time + 1 / source.rate / 2, frame.colour))
    return Clip(path)


@pytest.mark.parametrize("rate", [NTSC, F(24000, 1001), F(60), F(30000, 1001)])
def test_a_rate_that_matroska_rounds_to_milliseconds_is_exact_again(tmp_path: Path, rate: F) -> None:
    source = open_frames(make_clip(tmp_path / "a.mkv", 40, rate=rate))
    assert source.rate == rate
    assert [frame.time for frame in source] == [i / rate for i in range(40)]
    written = write(source, tmp_path / "b.mp4")
    assert {b - a for a, b in pairwise(written.times)} == {1 / rate / 2}
    assert written.rate == rate * 2


def test_the_rate_of_exact_steps_is_exact(tmp_path: Path) -> None:
    """FFmpeg gives 57/4 frames/s for an APNG with pictures of 70 ms."""
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the APNG")
    first, *others = [image.new("RGB", (16, 16), (40 * i, 0, 0)) for i in range(6)]
    first.save(tmp_path / "a.apng", save_all=True, append_images=others, duration=70)
    source = open_frames(tmp_path / "a.apng")
    assert source.rate == F(100, 7)
    assert [frame.time for frame in source] == [F(7 * i, 100) for i in range(6)]


def test_a_variable_rate_in_milliseconds_stays_variable(tmp_path: Path) -> None:
    times = [F(t, 1000) for t in (0, 33, 50, 117, 150, 160, 201, 234, 300, 333, 350, 401)]
    source = open_frames(make_clip(tmp_path / "a.mkv", len(times), rate=F(30), times=times))
    assert [frame.time for frame in source] == times


def test_exact_times_begin_anew_after_a_pause() -> None:
    """60 frames/s in ms: 0, 17, 33; a pause that is no multiple of a step; then 16 and 17 ms again."""
    stamps = [F(t, 1000) for t in (0, 17, 33, 50, 1008, 1025, 1041, 1058)]
    clock = Clock(F(60), tick=F(1, 1000))
    times = [time for _, time in clock.times([Stamped(None, stamp, None) for stamp in stamps])]  # type: ignore[arg-type]
    assert times == [F(i, 60) for i in range(4)] + [F(1008, 1000) + F(i, 60) for i in range(4)]


def test_a_resampled_grid_starts_at_the_first_frame(tmp_path: Path) -> None:
    """Sound that starts before the picture shifts no frame off the grid."""
    clip = tmp_path / "a.mkv"
    with (
        av.open(str(make_clip(tmp_path / "b.mp4", 20, rate=F(30), audio=["aac"]))) as source,
        av.open(str(clip), "w") as out,
    ):
        targets = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                late = round(F(21, 1000) / packet.time_base) if packet.stream.type == "video" else 0
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
                packet.stream = targets[packet.stream.index]
                out.mux(packet)
    opened = open_frames(clip)
    times = [frame.time for frame in opened]
    assert times[0] == opened.first
    assert (opened.first * 60).denominator > 1  # not on a grid that starts at 0
    steps = [step for pair in pairwise(times) for _, step in resample(F(60), opened.first)(*pair)]
    assert steps == [0, F(1, 2)] * 19


def test_the_total_is_that_of_the_picture_not_of_the_longest_track(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mkv", 12, rate=F(24), audio=["aac"]))
    assert source.count == 12


def test_a_trimmed_file_has_the_frames_that_are_shown_and_is_complete(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 60, rate=F(30), audio=["aac"])
    trim(clip, 0.5, 1.0)
    source = open_frames(clip)
    assert source.count == 30
    assert [frame.time for frame in source] == [F(i, 30) for i in range(30)]
    assert source.errors == []
    for suffix in ("mp4", "mkv"):
        written = write(source, tmp_path / f"b.{suffix}")
        assert 0 <= written.times[0] < F(30, 1000)  # hidden sound is not carried: it would delay the picture by 0.5 s
        with av.open(str(tmp_path / f"b.{suffix}")) as container:
            assert container.duration is not None
            assert container.duration / av.time_base == pytest.approx(1, abs=0.05)


def test_avi_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4", 20, rate=F(30)))
    written = write(source, tmp_path / "b.avi")
    assert (written.rate, len(written.pictures)) == (60, 40)


@pytest.mark.parametrize("rate", [F(24), NTSC, F(25, 2), F(120000, 1001), F(10)])
def test_the_steps_of_a_rate_are_whole_in_its_exact_time_base(rate: F) -> None:
    base = exact_time_base(rate)
    assert (1 / rate / base).denominator == 1
    assert base <= F(1, 10_000)


def test_fields_are_not_taken_for_frames(tmp_path: Path) -> None:
    """The average is that of a time base; FFmpeg's guess is the rate of the fields."""
    path = make_clip(tmp_path / "a.mkv", 12, rate=F(30))
    container = SimpleNamespace(format=SimpleNamespace(name="matroska,webm"))
    stream: Any = SimpleNamespace(
        average_rate=F(1000), guessed_rate=F(60), index=0, time_base=F(1, 1000), container=container
    )
    assert find_rate(path, stream) == pytest.approx(30, rel=0.01)
    stream.guessed_rate = F(30000, 1001)
    assert find_rate(path, stream) == stream.guessed_rate


@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m2v", "mpeg2video")])
def test_a_stream_without_a_container_has_the_rate_of_its_encoder(tmp_path: Path, suffix: str, codec: str) -> None:
    """FFmpeg gives all of them 25 frames/s, and the first two no time stamps."""
    source = open_frames(make_clip(tmp_path / f"a.{suffix}", 12, rate=F(30), codec=codec))
    assert source.rate == 30
    assert [frame.time for frame in source] == pytest.approx([F(i, 30) for i in range(12)], abs=1e-4)
    times = [frame.time for frame in trimmed_frames(trim_source(source, source.first + F(1, 5), None))]
    assert times == pytest.approx([F(i, 30) for i in range(6)], abs=1e-4)


def test_the_total_of_fragments_that_start_late(tmp_path: Path) -> None:
    options = {"movflags": "frag_every_frame+empty_moov+default_base_moof+frag_discont"}
    with (
        av.open(str(make_clip(tmp_path / "a.mp4", 12, rate=F(24)))) as container,
        av.open(str(tmp_path / "b.mp4"), "w", options=options) as output,
    ):
        target = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                late = round(10 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, target
                output.mux(packet)
    assert abs((open_frames(tmp_path / "b.mp4").count or 0) - 12) <= 1


def test_milliseconds_that_were_copied_into_mp4_are_exact_again(tmp_path: Path) -> None:
    """The file is a copy of all packets from Matroska, without encoding."""
    rate = F(24000, 1001)
    with (
        av.open(str(make_clip(tmp_path / "a.mkv", 40, rate=rate))) as container,
        av.open(str(tmp_path / "b.mp4"), "w", options={"video_track_timescale": "16000"}) as output,
    ):
        target = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    source = open_frames(tmp_path / "b.mp4")
    assert (source.rate, source.tick) == (rate, F(1, 1000))
    assert [frame.time - source.first for frame in source] == [i / rate for i in range(40)]
