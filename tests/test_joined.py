"""Tests that parts of a joined transport stream follow each other, also if a part has streams of its own."""

from fractions import Fraction as F
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip

from video.reading.reader import open_frames

OTHER_STREAM = {"mpegts_start_pid": "512"}  # the same program, as if a stream were added to it
OTHER_PROGRAM = {**OTHER_STREAM, "mpegts_pmt_start_pid": "2000", "mpegts_service_id": "7"}


def make_part(path: Path, options: dict[str, str], audio: bool = False) -> bytes:
    make_clip(path, 12, container_options=options, audio=["aac"] if audio else [])
    return path.read_bytes()


@pytest.mark.parametrize("options", [{}, OTHER_STREAM, OTHER_PROGRAM])
def test_all_parts_are_read(tmp_path: Path, options: dict[str, str]) -> None:
    first, second = make_part(tmp_path / "a.ts", {}), make_part(tmp_path / "b.ts", options)
    clip = tmp_path / "a: joined.ts"
    clip.write_bytes(first + second)
    source = open_frames(clip)
    frames = list(source)
    expected = [frame.rgb() for name in ("a.ts", "b.ts") for frame in open_frames(tmp_path / name)]
    assert len(frames) == 24
    differences = [int(np.abs(f.rgb().astype(int) - rgb).max()) for f, rgb in zip(frames, expected, strict=True)]
    assert differences == [0] * 24
    assert {b.time - a.time for a, b in pairwise(frames)} == {F(1, 24)}
    assert not source.errors
    assert "the parts follow one after the other" in source.notes[0]


def test_a_third_part_is_read_and_sound_out_of_place_is_named(tmp_path: Path) -> None:
    third = {"mpegts_start_pid": "700", "mpegts_pmt_start_pid": "2001", "mpegts_service_id": "9"}
    parts = [make_part(tmp_path / "a.ts", options, audio=True) for options in ({}, OTHER_PROGRAM, third)]
    clip = tmp_path / "joined.ts"
    clip.write_bytes(b"".join(parts))
    source = open_frames(clip)
    assert len(list(source)) == 36
    assert source.errors == [
        "the sound of 2 joined parts has streams of its own and is missing or out of place; "
        "join the parts with ffmpeg -f concat to keep it"
    ]


def test_a_part_between_two_of_one_stream_is_named(tmp_path: Path) -> None:
    same = make_part(tmp_path / "a.ts", {})
    noise = list(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3)).astype(np.uint8))
    make_clip(tmp_path / "b.ts", 12, container_options=OTHER_PROGRAM, pictures=noise)
    (tmp_path / "joined.ts").write_bytes(same + (tmp_path / "b.ts").read_bytes() + same)
    source = open_frames(tmp_path / "joined.ts")
    assert len(list(source)) == 24
    assert source.errors == ["a part in the middle of the file, which has a video stream of its own, is left out"]


def test_a_stream_beside_the_picture_is_no_part(tmp_path: Path) -> None:
    """Two cameras in one file, of which the second runs on after the first has ended."""
    clip = tmp_path / "two.ts"
    with av.open(str(clip), "w") as out:
        streams: list[Any] = [out.add_stream("mpeg2video", rate=24) for _ in range(2)]
        for stream, side in zip(streams, (64, 48), strict=True):
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for i in range(36):
            for stream in streams[i // 24 :]:
                level = np.full((stream.height, stream.width, 3), 5 * i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(level)))
        for stream in streams:
            out.mux(stream.encode(None))
    source = open_frames(clip)
    with av.open(str(clip)) as container:
        best: Any = container.streams.best("video")
        expected = sum(1 for _ in container.decode(best))
    assert len(list(source)) == expected
