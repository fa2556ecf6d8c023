"""Tests headers and colour profiles of picture files by another library's writer, and folders of mixed pictures."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Shift, use

import inference_img
from video.pictures.picture import MediaError, read_picture, write_picture
from video.pictures.picture_header import check_sizes, describe_colours, describe_gaps, read_header
from video.reading.reader import open_frames
from video.writing.picture_writer import PictureWriter

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the files with profiles")


def profile(space: bytes = b"RGB ", version: int = 4) -> bytes:
    """Returns an ICC profile as far as this program reads it: a header of 128 bytes with its length."""
    return (b"\0\0\0\x84lcms" + bytes((version, 0, 0, 0)) + b"mntr" + space + b"XYZ ").ljust(132, b"\0")


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: Any) -> Path:
    Image.new(mode, size, 100 if mode == "L" else None).save(path, **options)
    return path


def written_profile(path: Path) -> bytes | None:
    with Image.open(path) as picture:
        return picture.info.get("icc_profile")


def test_alpha_and_depth_are_added_where_some_pictures_have_them(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", np.full((4, 6, 3), 255, np.uint8))
    write_picture(tmp_path / "2.png", np.full((4, 6, 4), 65535, np.uint16))
    write_picture(tmp_path / "3.png", np.full((4, 6, 1), 255, np.uint8))
    source = open_frames(tmp_path)
    frames = [frame.rgb() for frame in source]
    assert source.pix_fmt == "rgba64le"
    assert all(rgb.shape == (4, 6, 4) and rgb.dtype == np.uint16 and rgb.min() == 65535 for rgb in frames)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_another_size_is_found_before_the_first_frame(tmp_path: Path, suffix: str) -> None:
    for i in range(4):
        write_picture(tmp_path / f"{i}.{suffix}", np.zeros((4, 6 + i // 3, 3), np.uint8))
    with pytest.raises(MediaError, match=rf"3\.{suffix}: 7x4, the first 6x4; bring them to one size"):
        open_frames(tmp_path)


def test_missing_numbers_are_named() -> None:
    assert "4 numbers are missing, the first after 3" in describe_gaps([Path(f"{n}.png") for n in (1, 2, 3, 7, 9)])[0]
    assert describe_gaps([Path(f"{n}.png") for n in (10, 20, 30)]) == []
    check_sizes({})


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGBA", {}),
        ("a.png", "L", {}),
        ("a.jpg", "RGB", {}),
        ("a.jpg", "RGB", {"progressive": True}),
        ("a.webp", "RGB", {}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.tif", "RGB", {}),
    ],
)
def test_size_alpha_and_profile_of_every_format(tmp_path: Path, name: str, mode: str, options: dict[str, Any]) -> None:
    for icc in (None, profile()):
        header = read_header(save(tmp_path / name, mode, (37, 21), **options, icc_profile=icc))
        assert header is not None
        assert header.size == (37, 21)
        assert header.has_alpha == (mode == "RGBA")
        assert not header.unfit
        kept = header.colour
        assert (zlib.decompress(kept[kept.index(b"\0\0", 8) + 2 : -4]) if kept else None) == icc


def test_a_picture_that_is_turned_has_the_size_that_it_is_read_with(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", size=(16, 8), exif=exif)
    header = read_header(path)
    assert header is not None
    assert header.size == (8, 16) == read_picture(path).shape[1::-1]


def test_damaged_and_other_files_have_no_header(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        data = save(tmp_path / name, icc_profile=profile()).read_bytes()
        for length in (0, 3, 12, 20, 30):
            (tmp_path / name).write_bytes(data[:length])
            read_header(tmp_path / name)
    assert read_header(save(tmp_path / "a.bmp")) is None


def test_profiles_that_differ_or_do_not_fit_are_named(tmp_path: Path) -> None:
    icc = [profile(), profile(version=2), profile(b"GRAY")]
    paths = [save(tmp_path / f"{i}.png", "L" if i == 2 else "RGB", icc_profile=icc[i]) for i in range(3)]
    headers = {path: header for path in paths if (header := read_header(path)) is not None}
    assert describe_colours(headers) == ["2.png: its colour profile is one for grey or for inks and is not kept"]
    del headers[paths[2]]
    assert "colour profiles differ (0.png, 1.png)" in describe_colours(headers)[0]
    del headers[paths[1]]
    assert describe_colours(headers) == []


def test_pictures_of_a_folder_keep_their_profile(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(2):
        save(tmp_path / "in" / f"{i}.jpg", icc_profile=profile())
    source = open_frames(tmp_path / "in")
    with PictureWriter(tmp_path / "out", source) as writer:
        for frame in source:
            writer.write(frame)
    assert written_profile(tmp_path / "out" / "0000001.png") == profile()


def test_pictures_between_two_keep_their_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    use(Shift(), monkeypatch)
    save(tmp_path / "a.png", icc_profile=profile(), gamma=0.45)
    save(tmp_path / "b.png", icc_profile=profile(version=2))
    assert inference_img.main(["--img", "a.png", "b.png", "--count", "1"]) == 0
    assert "colour profiles differ (a.png, b.png)" in capsys.readouterr().out
    assert written_profile(Path("output/img1.png")) == profile()
