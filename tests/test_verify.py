"""Tests the checks of finished videos: right ones of every container pass, and each kind of fault is found."""

import struct
from fractions import Fraction as F
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, picture

from video.frame import Frame
from video.reading.reader import open_frames
from video.writing.verify import FrameTimes, find_mismatches, find_sound_starts, read_packet_times
from video.writing.writer import VideoWriter

RATE = F(48)


def write(path: Path, source: Path, count: int = 20, step: F = 1 / RATE) -> FrameTimes:
    """Writes a clip with the sound of a source; returns what was written."""
    frames, times = open_frames(source), FrameTimes()
    with VideoWriter(path, frames, 1 / step, step / 2) as writer:
        for i in range(count):
            frame = Frame(picture(i % 8), i * step)
            writer.write(frame)
            times.add(frame)
    return times


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("source") / "a.mkv", 12, audio=["aac", "libmp3lame"])


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "gif"])
def test_a_written_file_has_no_mismatch(tmp_path: Path, source: Path, suffix: str) -> None:
    path = tmp_path / f"b.{suffix}"
    times = write(path, source)
    found, wrong = find_mismatches(path, times, RATE, find_sound_starts(open_frames(source)))
    assert wrong == []
    assert found is not None
    assert found.frames == 20


def test_a_pause_at_the_start_of_a_file_without_times_of_display_is_no_mismatch(tmp_path: Path, source: Path) -> None:
    """In AVI the decoding times of H.264 with B-frames take the place of those of display."""
    frames, times = open_frames(source), FrameTimes()
    with VideoWriter(tmp_path / "b.avi", frames, RATE, 1 / RATE) as writer:
        for i in range(40):
            frame = Frame(picture(i % 8), (i + min(i, 4)) / RATE)
            writer.write(frame)
            times.add(frame)
    assert find_mismatches(tmp_path / "b.avi", times, RATE)[1] == []


def test_each_fault_is_found(tmp_path: Path, source: Path) -> None:
    times = write(tmp_path / "b.mp4", source)
    sounds = find_sound_starts(open_frames(source))
    assert len(sounds) == 2

    def wrong(times: FrameTimes, sounds: list[F | None] | None = None) -> list[str]:
        return find_mismatches(tmp_path / "b.mp4", times, RATE, sounds or [])[1]

    assert wrong(FrameTimes(21, times.first, times.last)) == ["holds 20 frames, 21 were written"]
    assert wrong(FrameTimes(20, times.first, times.last + F(1, 10)))[0].startswith("its last frame is 0.396 s after")
    late = [None if sound is None else sound + F(1, 5) for sound in sounds]
    assert [line.split(" starts")[0] for line in wrong(times, late)] == ["sound track 0", "sound track 1"]
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    assert "cannot be read back" in wrong(times)[0]


def test_frames_out_of_order_are_counted(tmp_path: Path) -> None:
    """FFV1 in Matroska takes what it is given: two frames at one time, in a file made without the writer."""
    stamps = [F(0), F(1, 24), F(1, 24), F(3, 24)]
    clip = make_clip(tmp_path / "a.mkv", 4, codec="ffv1", times=stamps, pictures=[np.zeros((48, 64, 3), np.uint8)] * 4)
    found = read_packet_times(clip)
    assert (found.frames, found.disordered) == (4, 1)


def test_the_starts_of_sound_are_on_the_clock_of_the_frames(tmp_path: Path) -> None:
    """The sound of a clip whose first frame comes 2 s after the clock's zero begins with that frame."""
    times = [2 + F(i, 24) for i in range(6)]
    frames = open_frames(make_clip(tmp_path / "a.mkv", 6, times=times, audio=["flac"]))
    first = next(iter(frames))
    (start,) = find_sound_starts(frames)
    assert start is not None
    assert abs(start - first.time) < F(1, 500)


def test_sound_before_the_start_of_a_trimmed_video_does_not_count(tmp_path: Path) -> None:
    """A phone trims a video by its edit lists: the packets before the start stay in the file, hidden."""
    clip = make_clip(tmp_path / "a.mp4", 24, audio=["aac"])
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        scales = [1 / F(stream.time_base or 1) for stream in (*container.streams.video, *container.streams.audio)]
    at = 0
    for scale in scales:
        at = data.index(b"elst", at) + 16  # the start of the only edit, in units of the track
        (start,) = struct.unpack_from(">i", data, at)
        struct.pack_into(">i", data, at, start + int(scale / 2))
    clip.write_bytes(data)
    (start_of_sound,) = find_sound_starts(open_frames(clip))
    assert start_of_sound is not None
    assert abs(start_of_sound) < F(1, 20)
