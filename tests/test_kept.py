"""Tests which tracks and tags of a source are kept, per container, read back with PyAV and FFmpeg's own tools."""

import json
import shutil
import subprocess
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, make_clip

from video.frame import Frame
from video.reading.reader import open_frames
from video.writing.encoding import Encoding
from video.writing.verify import read_packet_times
from video.writing.writer import VideoWriter

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,600\nHello <i>you</i>\n\n2\n00:00:00,700 --> 00:00:00,900\nthere\n"


def convert(source: Path, target: Path, **options: Any) -> VideoWriter:
    """Writes the frames of a source to another file."""
    opened = open_frames(source)
    with VideoWriter(target, opened, opened.rate, opened.time_base, **options) as writer:
        for frame in opened:
            writer.write(Frame(frame.picture, frame.time, frame.colour))
    return writer


def remux(source: Path, target: Path, tags: dict[str, str], video_tags: dict[str, str], options: Any = None) -> Path:
    """Copies all streams into another file with tags."""
    with av.open(str(source)) as clip, av.open(str(target), "w", options=options or {}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
        out.metadata.update(tags)
        out.streams.video[0].metadata.update(video_tags)
        for packet in clip.demux():
            if packet.size and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return target


def subtitles(path: Path) -> list[tuple[F, F, str]]:
    """Returns start, duration in seconds and text of each subtitle."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            decoded = stream.codec_context.decode2(packet) if packet.size else None
            if decoded is not None and decoded.rects and packet.pts is not None:
                rects: Any = decoded.rects
                text = b"".join(rect.dialogue for rect in rects).decode()
                base = packet.time_base or F(1)
                found.append((round(packet.pts * base, 3), round((packet.duration or 0) * base, 3), text))
    return found


@pytest.mark.parametrize(
    ("ways", "codec"),
    [(["mkv", "mp4"], "mov_text"), (["mkv", "mp4", "mkv"], "srt"), (["mkv", "webm"], "webvtt")],
)
def test_subtitles_are_converted_between_containers(tmp_path: Path, ways: list[str], codec: str) -> None:
    path = make_clip(tmp_path / f"0.{ways[0]}", 24, subtitles=SUBTITLES)
    for i, suffix in enumerate(ways[1:], 1):
        writer = convert(path, tmp_path / f"{i}.{suffix}")
        assert any("converted to" in note for note in writer.notes)
        assert writer.errors == []
        assert read_packet_times(writer.path).undecodable == 0
        path = writer.path
    with av.open(str(path)) as container:
        assert container.streams.subtitles[0].codec_context.name in (codec, "subrip")
    found = [(float(a), float(b), text) for a, b, text in subtitles(path)]
    assert [text.replace("{\\i0}", "") for _, _, text in found] == ["Hello {\\i1}you", "there"]  # italics are kept
    starts = [start for start, _, _ in found]
    assert starts == pytest.approx([0.1, 0.7], abs=0.03)
    assert [length for _, length, _ in found] == pytest.approx([0.5, 0.2], abs=0.002)


@pytest.mark.parametrize(
    ("audio", "suffix", "codecs"),
    [
        ("copy", "mkv", ["mp3"]),
        ("aac", "mkv", ["aac"]),
        ("opus", "mkv", ["opus"]),
        ("flac", "mkv", ["flac"]),
        ("flac", "mp4", ["flac"]),
        ("none", "mkv", []),
        ("aac", "webm", []),  # WebM refuses it: dropped by name
    ],
)
def test_sound_in_the_chosen_codec(tmp_path: Path, audio: str, suffix: str, codecs: list[str]) -> None:
    source = make_clip(tmp_path / "a.mkv", 24, audio=["libmp3lame"])
    writer = convert(source, tmp_path / f"b.{suffix}", encoding=Encoding(audio=audio))
    assert [codec.removesuffix("float") for codec in Clip(writer.path).codecs] == codecs
    if suffix == "webm":
        assert writer.notes == ["audio track 1 (mp3float) dropped: webm does not take it"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_tags_of_phones_are_kept(tmp_path: Path, suffix: str) -> None:
    tags = {
        "com.apple.quicktime.location.ISO6709": "+48.1374+011.5755+519.000/",
        "com.apple.quicktime.make": "Apple",
        "com.android.version": "14",
        "title": "a walk",
        "creation_time": "2026-01-02T03:04:05.000000Z",
    }
    clip = make_clip(tmp_path / "c.mp4", 10)
    source = remux(clip, tmp_path / "a.mov", tags, {}, {"movflags": "use_metadata_tags"})
    kept = {key.lower(): value for key, value in Clip(convert(source, tmp_path / f"b.{suffix}").path).metadata.items()}
    assert {key: kept.get(key.lower()) for key in tags} == tags


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_language_and_title_of_the_picture_are_kept(tmp_path: Path, suffix: str) -> None:
    source = remux(make_clip(tmp_path / "c.mp4", 10), tmp_path / "a.mkv", {}, {"language": "jpn", "title": "main"})
    with av.open(str(convert(source, tmp_path / f"b.{suffix}").path)) as container:
        assert container.streams.video[0].language == "jpn"
        if suffix == "mkv":
            assert container.streams.video[0].metadata["title"] == "main"


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")
def test_a_timecode_is_kept(tmp_path: Path) -> None:
    source = remux(make_clip(tmp_path / "c.mp4", 10, rate=F(25)), tmp_path / "a.mov", {}, {"timecode": "01:02:03:04"})
    writer = convert(source, tmp_path / "b.mov")
    asked = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(writer.path)]
    streams = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["streams"]
    assert {stream["tags"].get("timecode") for stream in streams} == {"01:02:03:04"}
