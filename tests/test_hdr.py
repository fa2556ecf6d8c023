"""Tests that metadata of HDR video is carried by the encoders that store it, and named where it is lost."""

from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from video.hdr import Hdr
from video.reading.reader import open_frames
from video.writing.encoding import Encoding, quantise
from video.writing.writer import VideoWriter

# BT.2020 primaries and D65, of a display from 0.005 to 1000 cd/m2.
DISPLAY = tuple(map(F, ["0.708", "0.292", "0.170", "0.797", "0.131", "0.046", "0.3127", "0.3290", "0.005", "1000"]))
X265 = (
    "log-level=error:master-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)"
    ":max-cll=900,300"
)


def make_hdr(path: Path) -> Path:
    """Writes three frames of 10 bits in BT.2020 and PQ with x265's own settings."""
    with av.open(path, "w") as output:
        stream: Any = output.add_stream("libx265", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.options = {"x265-params": X265}
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 9, 1, 9, 16
        for level in (20_000, 30_000, 40_000):
            rgb = np.full((64, 64, 3), level, np.uint16)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb48le").reformat(format="yuv420p10le")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx265", "mp4"), ("libsvtav1", "mp4"), ("libx264", "mp4"), ("ffv1", "mkv"), ("libvpx-vp9", "webm")],
)
def test_mastering_display_and_light_level_are_carried(tmp_path: Path, codec: str, suffix: str) -> None:
    source = open_frames(make_hdr(tmp_path / "a.mp4"))
    assert (source.hdr.display, source.hdr.light) == (DISPLAY, (900, 300))
    path = tmp_path / f"b.{suffix}"
    with VideoWriter(path, source, F(24), F(1, 24), encoding=Encoding(codec)) as writer:
        for frame in source:
            writer.write(frame)
    assert not [note for note in writer.notes if "HDR" in note]
    result = open_frames(path).hdr
    assert result.light == (900, 300)
    assert result.display == pytest.approx(DISPLAY, rel=1e-3)


def test_lost_metadata_is_named(tmp_path: Path) -> None:
    source = open_frames(make_hdr(tmp_path / "a.mp4"))
    with VideoWriter(tmp_path / "b.avi", source, F(24), F(1, 24), encoding=Encoding("ffv1")) as writer:
        assert "HDR metadata not carried: mastering display, content light level" in " ".join(writer.notes)
        for frame in source:
            writer.write(frame)
    assert Hdr(dynamic=("HDR10+", "Dolby Vision")).lost("libx265") == "HDR10+, Dolby Vision"
    assert Hdr().lost("ffv1") == ""


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_stream_with_hdr_metadata_is_as_any_other(tmp_path: Path, suffix: str) -> None:
    """Of FFV1 the frames come back exactly, at their rate; metadata without a mastering display are kept alone."""
    source = replace(open_frames(make_hdr(tmp_path / "a.mp4")), hdr=Hdr(light=(900, 300)))
    path = tmp_path / f"b.{suffix}"
    with VideoWriter(path, source, F(24), F(1, 24), encoding=Encoding("ffv1")) as writer:
        for frame in source:
            writer.write(frame)
    result = open_frames(path)
    assert (result.hdr, result.rate, result.colour, result.size) == (source.hdr, 24, source.colour, (64, 64))
    for before, after in zip(source, result, strict=True):
        assert np.array_equal(before.rgb(), after.rgb())


def test_16_bits_become_8_in_a_gif() -> None:
    """White and black are in the palette as 255 and 0."""
    rgb = np.zeros((8, 8, 3), np.uint16)
    rgb[:4] = 65535
    shown = quantise(rgb).to_ndarray(format="rgb24")
    assert (shown[:4].min(), shown[4:].max()) == (255, 0)
