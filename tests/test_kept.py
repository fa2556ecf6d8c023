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
from video.reading.trim import trim_source, trimmed_frames
from video.writing.encoding import Encoding
from video.writing.picture_writer import PictureWriter
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


TRACKS = "video track 0 (h264, jpn)", "audio track 1 (aac, deu)"


def tagged_clip(path: Path) -> Path:
    """Writes a clip with tags of the file, and with the languages and titles of picture, sound and subtitles."""
    plain = make_clip(path.with_suffix(".plain.mkv"), 12, audio=["aac"], subtitles=SUBTITLES, options={"bf": "0"})
    tags = {"title": "a film", "make": "Canon", "director": "Doe", "date": "2024-05-06", "timecode": "01:00:00:12"}
    with av.open(str(plain)) as clip, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
        for language, stream in zip(("jpn", "deu", "swe"), streams.values(), strict=True):
            stream.metadata.update({"language": language, "title": f"track {language}"})
        out.metadata.update(tags)
        for packet in clip.demux():
            if packet.size and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


def tags_of(path: Path) -> list[dict[str, str]]:
    """Returns the tags of a file, then those of each stream, with names in lower case."""
    with av.open(str(path)) as container:
        return [{k.lower(): v for k, v in holder.metadata.items()} for holder in (container, *container.streams)]


@pytest.mark.parametrize("ways", [["mkv"], ["mp4"], ["mov"], ["mp4", "mkv"], ["mov", "mp4", "mov"], ["webm", "mp4"]])
def test_languages_and_titles_of_tracks_are_kept(tmp_path: Path, ways: list[str]) -> None:
    path = tagged_clip(tmp_path / "a.mkv")
    for number, suffix in enumerate(ways):
        path = convert(path, tmp_path / f"{number}.{suffix}").path
    found = [(tags.get("language"), tags.get("title") or tags.get("name")) for tags in tags_of(path)[1:4]]
    names = {"deu": "ger", "swe": "sve"} if "mov" in ways else {}  # as QuickTime names them
    assert found == [(names.get(code, code), f"track {code}") for code in ("jpn", "deu", "swe")]


@pytest.mark.parametrize(
    ("suffix", "lost"),
    [
        ("mkv", ""),
        ("mp4", "DIRECTOR, MAKE"),
        ("mov", "DIRECTOR"),
        (
            "avi",
            "DIRECTOR, MAKE, language of audio track 1 (aac, deu), language of video track 0 (h264, jpn)",
        ),
    ],
)
def test_tags_that_a_container_does_not_hold_are_named(tmp_path: Path, suffix: str, lost: str) -> None:
    writer = convert(tagged_clip(tmp_path / "a.mkv"), tmp_path / f"b.{suffix}")
    (line,) = [note for note in writer.notes if note.startswith("tags")] or ["tags dropped: : "]
    assert sorted(line.removeprefix("tags dropped: ").rpartition(": ")[0].split(", ")) == sorted(lost.split(", ")), line
    values = {value for tags in tags_of(writer.path) for value in tags.values()}
    assert {"a film", "2024-05-06"} <= values
    assert not {"major_brand", "compatible_brands"} & tags_of(convert(writer.path, tmp_path / "c.mkv").path)[0].keys()


def test_tracks_and_tags_are_named_where_only_the_picture_is_written(tmp_path: Path) -> None:
    source = open_frames(tagged_clip(tmp_path / "a.mkv"))
    names = "audio track 1 (aac, deu), subtitle track 2 (srt, swe), title, "
    (line,) = PictureWriter(tmp_path / "pictures", source).notes
    assert line.startswith(f"left out of pictures: {names}")
    assert "MAKE" in line
    with VideoWriter(tmp_path / "b.mp4", source, source.rate, source.time_base, tracks=False) as writer:
        assert any(names in note for note in writer.notes)
        for frame in source:
            writer.write(frame)


def test_the_reason_why_attachments_are_dropped_is_true(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(make_clip(tmp_path / "c.mkv", 6))) as clip, av.open(str(source), "w") as out:
        stream = out.add_stream_from_template(clip.streams[0])
        out.add_attachment("a.ttf", "application/x-truetype-font", b"font")
        for packet in clip.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert convert(source, tmp_path / "b.mp4").notes == ["attachment track 1 dropped: mp4 holds no attachments"]
    assert not convert(source, tmp_path / "b.mkv").notes


@pytest.mark.parametrize(
    ("suffix", "factor", "start", "timecode"),
    [
        ("mov", 2, F(0), "01:02:03:08"),
        ("mp4", 1, F(1, 5), "01:02:03:09"),
        ("mkv", 2, F(1, 5), "01:02:03:18"),
        ("avi", 2, F(0), "01:02:03:08"),
        ("mov", 11, F(0), None),
    ],
)
def test_a_timecode_is_that_of_the_first_frame_at_the_new_rate(
    tmp_path: Path, suffix: str, factor: int, start: F, timecode: str | None
) -> None:
    """MP4 and MOV hold one up to 255 frames/s."""
    source = remux(make_clip(tmp_path / "c.mp4", 10, rate=F(25)), tmp_path / "a.mov", {}, {"timecode": "01:02:03:04"})
    opened = trim_source(open_frames(source), start, None)
    with VideoWriter(tmp_path / f"b.{suffix}", opened, opened.rate * factor, opened.time_base) as writer:
        for frame in trimmed_frames(opened):
            writer.write(frame)
    found = [tags["timecode"].replace(":0", ":") for tags in tags_of(writer.path) if "timecode" in tags]
    assert {*found} == ({timecode.replace(":0", ":")} if timecode else set())
    assert any("timecode: mov does not hold" in note for note in writer.notes) == (timecode is None)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")
def test_a_timecode_is_kept(tmp_path: Path) -> None:
    source = remux(make_clip(tmp_path / "c.mp4", 10, rate=F(25)), tmp_path / "a.mov", {}, {"timecode": "01:02:03:04"})
    writer = convert(source, tmp_path / "b.mov")
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(writer.path)]
    streams = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
    assert {stream["tags"].get("timecode") for stream in streams} == {"01:02:03:04"}
