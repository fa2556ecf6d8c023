"""Tests what of the source's picture an output keeps or names as lost: closed captions, depth, chroma."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import pytest
from clips import make_clip

from video.frame import Frame
from video.hdr import CAPTION_DATA, side_data
from video.pictures.picture import MediaError
from video.reading.reader import Source, open_frames
from video.writing.encoding import Encoding
from video.writing.picture_losses import describe_losses
from video.writing.writer import VideoWriter


def caption_message(number: int) -> bytes:
    """Returns an H.264 message (SEI) with one pair of caption bytes: ATSC A/53 part 4, 6.2.3."""
    content = b"\xb5\0\x31GA94\x03" + bytes((0xC1, 0xFF, 0xFC, 0x80 + number, 0xC2)) + b"\xff"
    unit = b"\x06\x04" + bytes((len(content),)) + content + b"\x80"
    return len(unit).to_bytes(4, "big") + unit


def make_captioned(path: Path) -> Source:
    """Writes six frames of H.264 that have one pair of caption bytes each."""
    with (
        av.open(str(make_clip(path.with_suffix(".plain.mp4"), 6, size=(64, 48), options={"bf": "0"}))) as plain,
        av.open(str(path), "w") as output,
    ):
        target = output.add_stream_from_template(plain.streams.video[0])
        for number, packet in enumerate(packet for packet in plain.demux(video=0) if packet.size):
            captioned: Any = av.Packet(caption_message(number) + bytes(packet))
            captioned.pts, captioned.dts, captioned.time_base = packet.pts, packet.dts, packet.time_base
            captioned.duration, captioned.is_keyframe, captioned.stream = packet.duration, packet.is_keyframe, target
            output.mux(captioned)
    return open_frames(path)


def captions(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [side_data(picture, CAPTION_DATA) for picture in container.decode(video=0)]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.slow
def test_closed_captions_stay_with_the_frames_of_the_source(tmp_path: Path, codec: str) -> None:
    """The test has a process of its own: x265 keeps settings of the process, and may refuse this encoder."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(check_captions, tmp_path, codec).result()


def check_captions(folder: Path, codec: str) -> None:
    source = make_captioned(folder / "a.mp4")
    expected = [bytes((0xFC, 0x80 + number, 0xC2)) for number in range(6)]
    assert captions(folder / "a.mp4") == expected
    path = folder / "b.mkv"
    with VideoWriter(path, source, source.rate * 2, source.time_base / 2, encoding=Encoding(codec)) as writer:
        assert not [note for note in writer.notes if "captions" in note]
        for frame in source:
            writer.write(frame)
            writer.write(Frame(frame.rgb(), frame.time + 1 / source.rate / 2, frame.colour))
    assert captions(path) == [data for pair in expected for data in (pair, b"")]


def test_closed_captions_that_are_lost_are_named(tmp_path: Path) -> None:
    source = make_captioned(tmp_path / "a.mp4")
    assert source.has_captions
    for codec, rate, upright in (("ffv1", F(48), False), ("libx264", F(60), False), ("libx264", F(48), True)):
        notes = describe_losses(source, codec, "yuv420p", rate, upright=upright)
        assert [note for note in notes if "closed captions" in note], (codec, rate, upright)
    assert describe_losses(source, "libx264", "yuv420p", F(48), upright=False) == []


def test_a_stereo_layout_is_kept_by_x264_and_matroska_and_named_elsewhere(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mkv")
    with av.open(str(plain)) as source, av.open(str(tmp_path / "a.mkv"), "w") as output:
        target = output.add_stream_from_template(source.streams.video[0])
        target.metadata["stereo_mode"] = "left_right"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    stereo = open_frames(tmp_path / "a.mkv")
    assert stereo.view_marks == ("stereo layout",)
    for codec, suffix, kept in (("libx264", ".mp4", True), ("ffv1", ".mkv", True), ("mpeg4", ".mp4", False)):
        path = tmp_path / f"{codec}{suffix}"
        with VideoWriter(path, stereo, stereo.rate, stereo.time_base, encoding=Encoding(codec)) as writer:
            for frame in stereo:
                writer.write(frame)
        assert any("stereo layout" in note for note in writer.notes) is not kept
        assert open_frames(path).view_marks == (("stereo layout",) if kept else ())


def test_fewer_bits_and_less_chroma_are_named(tmp_path: Path) -> None:
    source = open_frames(make_clip(tmp_path / "a.mp4"))

    def notes(pix_fmt: str, encoded: str) -> list[str]:
        return describe_losses(replace(source, pix_fmt=pix_fmt), "libvpx-vp9", encoded, source.rate, upright=False)

    assert notes("yuv420p10le", "yuv420p") == ["10 bits become 8: libvpx-vp9 gets yuv420p"]
    assert notes("yuv444p", "yuv420p") == ["colours get fewer pixels: yuv444p becomes yuv420p"]
    for kept in (("yuvj420p", "yuv420p"), ("rgb24", "yuv420p"), ("gray", "yuv420p"), ("yuv420p", "yuv444p")):
        assert notes(*kept) == []


@pytest.mark.parametrize(("codec", "size"), [("libx264", (17000, 16)), ("libvpx-vp9", (70000, 16))])
def test_a_size_above_the_limit_of_an_encoder_is_refused_at_once(tmp_path: Path, codec: str, size: Any) -> None:
    """H.264 holds 16,384 pixels a line, VP9 65,536."""
    source = replace(open_frames(make_clip(tmp_path / "a.mp4")), size=size)
    with pytest.raises(MediaError, match=rf"{codec} in \.mkv with yuv420p at {size[0]}x16 is refused .*another codec"):
        VideoWriter(tmp_path / "b.mkv", source, source.rate, source.time_base, encoding=Encoding(codec), tracks=False)
    assert not (tmp_path / "b.mkv").exists()
