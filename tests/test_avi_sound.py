"""Tests sound of AVI files whose header has a wrong rate."""

import struct
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import pytest
from clips import make_clip

from video.reading.container import open_container
from video.reading.reader import open_frames
from video.writing.avi_sound import find_wrong_rates
from video.writing.encoding import Encoding
from video.writing.writer import VideoWriter


def make_avi(path: Path, factor: int) -> Path:
    """Writes a clip of 2 s with MP3, and multiplies the rate of the sound in its header."""
    make_clip(path, 48, rate=F(24), audio=["libmp3lame"], options={"bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"auds") + 24  # behind handler, flags, priority, language, first frames and scale
    struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] * factor)
    path.write_bytes(data)
    return path


def sound_end(path: Path) -> float:
    """Returns when the last packet of sound begins, in seconds."""
    with av.open(str(path)) as container:
        packets: Any = container.demux(audio=0)
        return max(float(packet.pts * packet.time_base) for packet in packets if packet.size)


@pytest.mark.parametrize("factor", [1, 100])
@pytest.mark.parametrize(("suffix", "audio"), [("mp4", "copy"), ("mkv", "copy"), ("mp4", "aac")])
def test_sound_lasts_as_long_as_its_packets(tmp_path: Path, factor: int, suffix: str, audio: str) -> None:
    path = make_avi(tmp_path / "a.avi", factor)
    with open_container(path) as opened:
        assert find_wrong_rates(path, opened) == (set() if factor == 1 else {1})
    source = open_frames(path)
    with VideoWriter(tmp_path / f"b.{suffix}", source, F(24), F(1, 24), encoding=Encoding(audio=audio)) as writer:
        for frame in source:
            writer.write(frame)
    assert not writer.errors
    assert sound_end(tmp_path / f"b.{suffix}") == pytest.approx(2, abs=0.06)


def test_files_of_other_formats_have_times(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", audio=["libmp3lame"])
    with open_container(path) as opened:
        assert find_wrong_rates(path, opened) == set()
