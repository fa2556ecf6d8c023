"""Tests that the last frame of an MP4 or MOV file is shown, wherever the last fragment begins."""

import struct
from collections.abc import Iterator
from fractions import Fraction as F
from itertools import pairwise
from pathlib import Path

import av
import pytest
from clips import make_clip, picture

from video.frame import Frame
from video.reading.reader import Source, open_frames
from video.safe_file import SafeFile
from video.writing.mp4_duration import correct_duration
from video.writing.writer import VideoWriter

RATE, SOURCE = 96, 40  # frames/s of the output; frames of the source, of which each is written four times


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    pictures = [picture(i % 9) for i in range(SOURCE)]
    return open_frames(make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", SOURCE, pictures=pictures, audio=["aac"]))


def frames(source: Source, count: int) -> Iterator[Frame]:
    """Yields the frames of the source four times each, until there are `count`."""
    shown = [frame for frame in source for _ in range(4)]
    for i in range(count):
        yield Frame(shown[i].picture, F(i, RATE), shown[i].colour)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("count", [2, 48, 49, 50, 97, 145])  # 48 frames are half a second, a fragment
@pytest.mark.parametrize("whole", [True, False])
def test_every_frame_is_shown(tmp_path: Path, source: Source, suffix: str, count: int, whole: bool) -> None:
    writer = VideoWriter(tmp_path / f"out.{suffix}", source, F(RATE), source.time_base / 4)
    for frame in frames(source, count):
        writer.write(frame)
    (writer.finish if whole else writer.stop)()
    with av.open(str(writer.path if whole else writer.part)) as made:
        times = [F(frame.time or 0).limit_denominator(RATE) for frame in made.decode(video=0)]
        length = F(made.streams.video[0].duration or 0) * (made.streams.video[0].time_base or 0)
    assert times[0] == 0
    assert (len(times), length) == (count, F(count, RATE))
    assert {b - a for a, b in pairwise(times)} == {F(1, RATE)}


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def movie(version: int, seconds: F) -> bytes:
    """Returns the headers of a file with sound of 2 s and a picture that starts after 1 s, written by hand."""
    times, number, spare = (bytes(16), ">Q", bytes(8)) if version else (bytes(8), ">I", bytes(4))
    head = bytes([version, 0, 0, 0])

    def num(value: F | int) -> bytes:
        return struct.pack(number, int(value))

    def track(handler: bytes, *edits: tuple[int, int]) -> bytes:
        table = b"".join(num(length) + num(start) + struct.pack(">I", 1 << 16) for length, start in edits)
        length = sum(length for length, _ in edits)
        media = box(b"mdhd", head, times, struct.pack(">I", 90000), num(edits[-1][0] * 90), bytes(4))
        return box(
            b"trak",
            box(b"tkhd", head, times, struct.pack(">II", 1, 0), num(length), spare),
            box(b"edts", box(b"elst", head, struct.pack(">I", len(edits)), table)),
            box(b"mdia", media, box(b"hdlr", bytes(8), handler, bytes(12))),
        )

    own = int(seconds * 1000)
    header = box(b"mvhd", head, times, struct.pack(">I", 1000), num(max(2000, 1000 + own)), bytes(80))
    data = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + b"moov!"  # its size in 64 bits
    return data + box(b"moov", header, track(b"soun", (2000, 0)), track(b"vide", (1000, 0), (own, 0)))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("found", "right"), [(F(1, 2), F(3, 4)), (F(1, 2), F(3, 2)), (F(2), F(2))])
def test_the_durations_of_a_picture_are_set_in_all_headers(tmp_path: Path, version: int, found: F, right: F) -> None:
    with SafeFile(tmp_path / "a.mp4") as file:
        file.write(movie(version, found))
        correct_duration(file, right)
    assert (tmp_path / "a.mp4").read_bytes() == movie(version, right)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(40), box(b"moov"), box(b"moov", box(b"trak")), box(b"free")])
def test_files_without_a_picture_stay_as_they_are(tmp_path: Path, data: bytes) -> None:
    with SafeFile(tmp_path / "a.mp4") as file:
        file.write(data)
        correct_duration(file, F(1))
    assert (tmp_path / "a.mp4").read_bytes() == data
