"""Tests that alpha and RGB are kept through the whole program, and named where they cannot be kept."""

from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from conftest import Shift

from model import RIFE
from video.alpha import has_alpha, without_alpha
from video.frame import Colour
from video.interpolate import interpolate
from video.pictures.picture import MediaError
from video.reading.decoder import Decoder
from video.reading.reader import open_frames
from video.timing.output_times import multiply
from video.writing.encoding import Encoding, choose_pix_fmt
from video.writing.writer import VideoWriter

WIDTH, HEIGHT, MOTION = 64, 48, 8
FAULTS = Path("../shared/data/faults")


def disc(x: float, *, inside: int = 255, outside: int = 0) -> np.ndarray:
    """Returns (H,W,4): two colours and, around x, a disc of alpha `inside` in alpha `outside`."""
    picture = np.full((HEIGHT, WIDTH, 4), (40, 80, 160, outside), np.uint8)
    picture[:, WIDTH // 2 :, :3] = 200, 120, 60
    alpha = np.full((HEIGHT, WIDTH), outside, np.uint8)
    cv2.circle(alpha, (round(x), HEIGHT // 2), 10, inside, -1)
    picture[..., 3] = alpha
    return picture


def make_video(path: Path, codec: str, pix_fmt: str, pictures: list[np.ndarray]) -> Path:
    """Writes RGB or RGBA pictures at 24 frames/s with FFmpeg's own conversion."""
    with av.open(path, "w") as output:
        stream: Any = output.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.options = {"lossless": "1"} if codec == "libvpx-vp9" else {}
        for picture in pictures:
            kind = "rgba" if picture.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, kind)
            output.mux(stream.encode(frame.reformat(format=pix_fmt)))
        output.mux(stream.encode(None))
    return path


def double(source_path: Path, path: Path, encoding: Encoding | None = None) -> VideoWriter:
    """Doubles the rate with a network that moves everything by MOTION, and returns the finished writer."""
    source = open_frames(source_path)
    with VideoWriter(path, source, F(48), F(1, 48), encoding=encoding) as writer:
        for frame in interpolate(source, RIFE(Shift(MOTION), name="shift"), multiply(2)):
            writer.write(frame)
    return writer


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return [stamped.picture for stamped in Decoder(container, container.streams.video[0]).pictures()]


def alpha_of(picture: av.VideoFrame) -> np.ndarray:
    return picture.to_ndarray(format="rgba")[..., 3].astype(int)


SUFFIXES = {"utvideo": ".avi", "png": ".mov"}  # of containers for codecs that Matroska does not take
MOVING = [disc(20 + MOTION * k) for k in range(3)]


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "tolerance"),
    [
        (".mkv", "ffv1", "yuva420p", 0),
        (".mov", "png", "rgba", 0),
        (".mov", "qtrle", "argb", 0),
        (".apng", "apng", "rgba", 0),
        (".mov", "prores_ks", "yuva444p10le", 1),
        (".webm", "libvpx-vp9", "yuva420p", 40),  # lossy
        (".gif", "gif", "pal8", 0),
    ],
)
def test_alpha_moves_with_the_picture(tmp_path: Path, suffix: str, codec: str, pix_fmt: str, tolerance: int) -> None:
    """Every second frame is made; its alpha is the disc half way, and that of the others is the source's."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".gif":
        pytest.importorskip("PIL", reason="Pillow writes the GIF")
        write_gif(path)
    else:
        make_video(path, codec, pix_fmt, MOVING)
    writer = double(path, tmp_path / f"b{suffix}", None if suffix in (".gif", ".webm") else Encoding(codec))
    pictures = decoded(tmp_path / f"b{suffix}")
    assert len(pictures) == 5
    for i, picture in enumerate(pictures):
        expected = disc(20 + MOTION / 2 * i)[..., 3].astype(int)
        assert np.abs(alpha_of(picture) - expected).max() <= tolerance, i
    assert not [note for note in writer.notes if "transparency" in note]


def write_gif(path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(picture) for picture in MOVING]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, disposal=2)


def test_animated_webp_is_written_with_alpha_and_not_read(tmp_path: Path) -> None:
    """Pillow reads what was written; FFmpeg decodes no animated WebP."""
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the WebP")
    double(make_video(tmp_path / "a.mov", "png", "rgba", MOVING), tmp_path / "b.webp")
    with image.open(tmp_path / "b.webp") as picture:
        assert picture.n_frames == 5
        for i in range(5):
            picture.seek(i)
            expected = disc(20 + MOTION / 2 * i)[..., 3]
            assert np.array_equal(np.asarray(picture.convert("RGBA"))[..., 3], expected), i
    with pytest.raises(MediaError, match=r"b\.webp: FFmpeg decodes no animated WebP; convert it to APNG"):
        open_frames(tmp_path / "b.webp")


def test_alpha_that_the_output_cannot_hold_is_named_and_becomes_black(tmp_path: Path) -> None:
    """Source frames and made frames are treated alike: outside the disc all of them are black."""
    make_video(tmp_path / "a.mov", "png", "rgba", MOVING)
    source = open_frames(tmp_path / "a.mov")
    with VideoWriter(tmp_path / "b.mp4", source, F(48), F(1, 48)) as writer:
        assert any("transparency cannot be kept: libx264" in note for note in writer.notes)
        for frame in interpolate(source, RIFE(Shift(MOTION), name="shift"), multiply(2)):
            writer.write(frame)
    for picture in decoded(tmp_path / "b.mp4"):
        assert picture.to_ndarray(format="rgb24")[:8, :8].max() <= 2


def test_an_opaque_animation_is_not_taken_for_a_transparent_one(tmp_path: Path) -> None:
    """FFmpeg's GIF decoder gives every picture an alpha channel."""
    make_video(tmp_path / "a.apng", "apng", "rgba", [disc(20, outside=255)] * 3)
    source = open_frames(tmp_path / "a.apng")
    assert source.pix_fmt == "rgb24"
    assert {frame.rgb().shape[2] for frame in source} == {3}


def test_transparency_that_begins_late_is_found(tmp_path: Path) -> None:
    make_video(tmp_path / "a.apng", "apng", "rgba", [disc(20, outside=255)] * 12 + [disc(20)])
    assert open_frames(tmp_path / "a.apng").pix_fmt == "rgba"


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "encoder", "kept"),
    [
        ("utvideo", "gbrp", "ffv1", "bgr0"),
        ("utvideo", "gbrap", "ffv1", "bgra"),
        ("libx264rgb", "rgb24", "ffv1", "bgr0"),
        ("png", "rgb24", "png", "rgb24"),
        ("ffv1", "gbrp10le", "ffv1", "gbrp10le"),
        ("ffv1", "yuva444p10le", "ffv1", "yuva444p10le"),
        ("ffv1", "gray", "ffv1", "gray"),
    ],
)
def test_frames_of_the_source_are_exact(tmp_path: Path, codec: str, pix_fmt: str, encoder: str, kept: str) -> None:
    """RGB, grey and alpha pass an encoder without loss as they are: every second frame equals the source's."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    pictures = [np.roll(noise, MOTION * k, 1) for k in range(3)]
    first, second = (tmp_path / f"{i}{SUFFIXES.get(name, '.mkv')}" for i, name in enumerate((codec, encoder)))
    make_video(first, codec, pix_fmt, pictures)
    double(first, second, Encoding(encoder))
    before, after = decoded(first), decoded(second)
    assert len(after) == 5
    assert choose_pix_fmt(encoder, before[0].format.name, WIDTH, HEIGHT) == kept
    packed = "rgba64le" if "10" in pix_fmt else "rgba"
    for a, b in zip(before, after[::2], strict=True):
        assert np.array_equal(a.to_ndarray(format=packed), b.to_ndarray(format=packed))


@pytest.mark.parametrize("pix_fmt", ["rgba", "rgba64le", "yuva444p", "yuva420p", "yuva444p10le", "yuva444p16le"])
def test_alpha_of_every_format_comes_back_exactly(pix_fmt: str) -> None:
    rgba = np.full((4, 256, 4), 128, np.uint8)
    rgba[..., 3] = np.arange(256)
    colour = Colour(1, 1, 1, 1, 720).encoded_as(pix_fmt, "yuv444p")
    back = colour.to_rgb(colour.from_rgb(rgba, pix_fmt))
    scale = 257 if back.dtype == np.uint16 else 1
    assert np.abs(back.astype(int) / scale - rgba).max() <= 1 / 2
    assert np.array_equal(np.round(back[..., 3] / scale), rgba[..., 3])


def test_tags_follow_the_pixel_format() -> None:
    """RGB has matrix 0 and full range (ITU-T H.273); what is made YUV from it, a matrix by its height."""
    rgb = Colour(0, 2, 9, 16, 1080)
    assert rgb.encoded_as("yuv420p", "gbrp") == Colour(1, 1, 9, 16, 1080)
    assert Colour(2, 2, 2, 2, 480).encoded_as("yuv420p", "rgb24") == Colour(6, 1, 2, 2, 480)
    assert Colour(9, 1, 9, 16, 2160).encoded_as("gbrp10le", "yuv420p10le") == Colour(0, 2, 9, 16, 2160)
    assert rgb.encoded_as("rgb24", "gbrp") == rgb


def test_formats_with_and_without_alpha() -> None:
    assert [has_alpha(name) for name in ("yuva420p", "rgba", "ya8", "pal8", "yuv420p", "bgr0")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    names = {"yuva420p10le": "yuv420p10le", "rgba64be": "rgb48le", "argb": "rgb24", "ya8": "gray", "ya16be": "gray16be"}
    assert {name: without_alpha(name) for name in names} == names


def test_tags_that_only_the_container_holds_are_kept_with_alpha(tmp_path: Path) -> None:
    """VP9 itself holds matrix and range, WebM also primaries and transfer."""
    with av.open(tmp_path / "a.webm", "w") as output:
        stream: Any = output.add_stream("libvpx-vp9", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva420p"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 16
        for picture in MOVING:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="yuva420p")))
        output.mux(stream.encode(None))
    double(tmp_path / "a.webm", tmp_path / "b.webm")
    for name in ("a.webm", "b.webm"):
        (colour,) = {Colour.of(picture) for picture in decoded(tmp_path / name)}
        assert (colour.primaries, colour.transfer) == (9, 16)


@pytest.mark.skipif(not FAULTS.exists(), reason="needs ../shared/data/faults")
@pytest.mark.parametrize(
    ("name", "pix_fmt"),
    [
        ("moviepy__fe5c__transparent.webm", "yuva420p"),
        ("kivy__291f__image-loading.gif", "bgra"),
        ("format-corpus__84c9__png.mov", "rgba"),
    ],
)
def test_real_files_are_read_with_their_alpha(name: str, pix_fmt: str) -> None:
    source = open_frames(FAULTS / "media" / name)
    assert source.pix_fmt == pix_fmt
    assert next(iter(source)).rgb().shape[2] == 4
