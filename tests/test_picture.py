"""Tests that picture files are written and read without loss, and that unusable ones are refused in one line."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.errors import UserError
from video.pictures.jpeg import checked_decoding
from video.pictures.picture import (
    MediaError,
    alike,
    check_alike,
    list_pictures,
    natural_key,
    read_picture,
    write_picture,
)


def noise(channels: int, dtype: str, shape: tuple[int, int] = (9, 13)) -> np.ndarray:
    values = np.random.default_rng(0).random((*shape, channels))
    if dtype in ("float16", "float32"):
        return (values * 20 - 5).astype(dtype)
    return (values * np.iinfo(dtype).max).astype(dtype)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, between: bytes = b"", interlace: int = 0) -> bytes:
    """Builds a PNG: kind 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA; each row begins with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    parts = chunk(b"IHDR", header) + between + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", "uint8"),
        (".png", "uint16"),
        (".tif", "uint8"),
        (".tiff", "uint16"),
        (".tif", "float32"),
        (".exr", "float32"),
        (".exr", "float16"),
        (".PNG", "uint8"),
    ],
)
def test_a_written_picture_is_read_back_equal(tmp_path: Path, suffix: str, dtype: str, channels: int) -> None:
    picture = noise(channels, dtype)
    path = tmp_path / f"Größe 図 'a' $(b){suffix}"
    write_picture(path, picture)
    again = read_picture(path)
    assert again.dtype == ("float32" if dtype == "float16" else dtype)
    assert again.shape == (9, 13, channels)
    np.testing.assert_array_equal(again, picture)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing temporary stays


def test_exr_is_half_float_where_that_is_exact(tmp_path: Path) -> None:
    half, full = noise(3, "float16", (64, 64)), noise(3, "float32", (64, 64))
    write_picture(tmp_path / "half.exr", half)
    write_picture(tmp_path / "full.exr", full)
    # the header lists each channel: name, 0, then the type, 1 for half and 2 for float
    assert b"R\0\1\0\0\0" in (tmp_path / "half.exr").read_bytes()[:400]
    assert b"R\0\2\0\0\0" in (tmp_path / "full.exr").read_bytes()[:400]
    bright = np.full((2, 2, 3), 1e6, np.float32)
    write_picture(tmp_path / "bright.exr", bright)
    np.testing.assert_array_equal(read_picture(tmp_path / "bright.exr"), bright)


def test_colours_are_in_rgb_order(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(1, 1, 8, 2, b"\0" + bytes([200, 100, 50])))
    assert read_picture(tmp_path / "red.png").ravel().tolist() == [200, 100, 50]
    write_picture(tmp_path / "again.png", np.array([[[200, 100, 50]]], np.uint8))
    bgr = cv2.imread(str(tmp_path / "again.png"))
    assert bgr is not None
    assert bgr.ravel().tolist() == [50, 100, 200]


def test_webp_without_loss_and_jpeg_nearly(tmp_path: Path) -> None:
    rgb = cv2.resize(noise(3, "uint8", (4, 5)), (40, 32), interpolation=cv2.INTER_CUBIC)
    write_picture(tmp_path / "a.webp", rgb)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.webp"), rgb)
    write_picture(tmp_path / "a.jpg", rgb)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - rgb).mean() < 3
    write_picture(tmp_path / "grey.jpeg", rgb[:, :, :1])
    assert read_picture(tmp_path / "grey.jpeg").shape == (32, 40, 1)


def test_unusual_pngs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, 8, 4, b"\0" + bytes([10, 20, 30, 40])))  # grey with alpha
    assert read_picture(path).tolist() == [[[10, 10, 10, 20], [30, 30, 30, 40]]]
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
    path.write_bytes(png(2, 1, 8, 3, b"\0\0\1", palette))
    assert read_picture(path).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    path.write_bytes(png(2, 1, 8, 3, b"\0\0\1", palette + chunk(b"tRNS", bytes([0, 128]))))
    assert read_picture(path)[..., 3].tolist() == [[0, 128]]
    path.write_bytes(png(8, 1, 1, 0, b"\0\xa5"))  # one bit a pixel
    assert read_picture(path).ravel().tolist() == [255, 0, 255, 0, 0, 255, 0, 255]


def test_jpeg_is_rotated_by_its_exif_orientation(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255  # the left half is white
    write_picture(path, wide)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0) + bytes(4)  # turn right by 90
    plain = path.read_bytes()
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])
    turned = read_picture(path)
    assert turned.shape == (32, 16, 3)
    assert turned[:12].min() > 200  # left has become the top
    assert turned[20:].max() < 50


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(3, "uint8"))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), noise(3, "uint8"))


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.png: cannot be read \(No such file or directory\); check the name"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(MediaError, match=r"a folder, not a picture; give a picture file"):
        read_picture(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", bytes(500)])
def test_no_picture(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png: not a picture that can be read; give one of \.png, \.jpg"):
        read_picture(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".exr"])
def test_cut_off(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{suffix}"
    write_picture(path, noise(3, "float32" if suffix == ".exr" else "uint8", (60, 70)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediaError, match=r"a\.\w+: damaged or cut off; copy or export the picture again"):
        read_picture(path)
    assert capfd.readouterr().err == ""  # OpenCV and its libraries keep quiet


def test_pictures_that_a_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"a\.jpg: \.jpg cannot hold 3 channels of uint16; use \.png"):
        write_picture(tmp_path / "a.jpg", noise(3, "uint16"))
    with pytest.raises(MediaError, match=r"\.jpg cannot hold 4 channels of uint8"):
        write_picture(tmp_path / "a.jpg", noise(4, "uint8"))
    with pytest.raises(MediaError, match=r"\.png cannot hold 3 channels of float32; .*\.exr for float"):
        write_picture(tmp_path / "a.png", noise(3, "float32"))
    with pytest.raises(MediaError, match=r"no picture format is called '\.gif'; use one of \.png"):
        write_picture(tmp_path / "a.gif", noise(3, "uint8"))
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/a\.png: its folder does not exist; make it or choose another output"):
        write_picture(tmp_path / "none" / "a.png", noise(3, "uint8"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "a.png", noise(1, "uint8"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"No space left on device"):
        write_picture(tmp_path / "a.png", noise(3, "uint8"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), noise(1, "uint8"))


def test_values_that_no_network_takes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((4, 4), np.int16))
    with pytest.raises(MediaError, match=r"a\.tif: holds int16 values; convert it to 8 or 16 bits"):
        read_picture(tmp_path / "a.tif")


def test_a_pair_must_agree() -> None:
    small, wide, light = noise(3, "uint8"), noise(3, "uint8", (9, 20)), noise(3, "float32")
    with pytest.raises(MediaError, match=r"a is 13x9, b is 20x9; crop or resize one to the size of the other"):
        check_alike(small, wide, "a", "b")
    with pytest.raises(MediaError, match=r"a holds uint8, b float32; convert one to the kind of the other"):
        check_alike(small, light, "a", "b")
    check_alike(small, noise(4, "uint16"), "a", "b")


def test_the_picture_with_fewer_channels_is_converted() -> None:
    grey, deep = noise(1, "uint8"), noise(4, "uint16")
    first, second = alike(grey, deep)
    assert second is deep
    assert first.dtype == np.uint16
    np.testing.assert_array_equal(first[..., :3], grey.astype(int).repeat(3, 2) * 257)
    assert (first[..., 3] == 65535).all()
    _, opaque = alike(noise(4, "float32"), noise(3, "float32"))
    assert (opaque[..., 3] == 1).all()


def test_natural_order(tmp_path: Path) -> None:
    names = ["10.png", "9.png", "b.jpg", "B2.PNG", "b10.png", "007.webp", "7.png"]
    expected = ["7.png", "007.webp", "9.png", "10.png", "B2.PNG", "b10.png", "b.jpg"]
    assert sorted(names, key=natural_key) == expected
    for name in [*names, ".hidden.png", "text.txt", "8.part.png"]:
        (tmp_path / name).touch()
    (tmp_path / "11.png").mkdir()
    assert [p.name for p in list_pictures(tmp_path)] == expected


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"holds no picture; give a folder with any of \.png"):
        list_pictures(tmp_path)
    with pytest.raises(MediaError, match=r"none: cannot be read as a folder of pictures \(No such file"):
        list_pictures(tmp_path / "none")


KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16)]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("kind", "depth"), [*KINDS, (6, 8), (6, 16)])
def test_every_kind_of_png_is_read_as_libpng_reads_it(kind: int, depth: int, interlace: int, tmp_path: Path) -> None:
    """Random pixels and filters; the truth is OpenCV's own reading of the file as it was before the checks."""
    rng = np.random.default_rng(kind + depth)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    between = chunk(b"PLTE", rng.bytes(3 << depth)) if kind == 3 else b""
    for width, height in ((1, 1), (3, 2), (13, 9), (5, 17)):
        passes = [(0, 0, 1, 1)]
        if interlace:
            passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        rows = b""
        for x, y, dx, dy in passes:
            columns = len(range(x, width, dx))
            for _ in range(y, height, dy) if columns else ():
                rows += bytes([rng.integers(5)]) + rng.bytes((columns * bits + 7) // 8)
        data = png(width, height, depth, kind, rows, between, interlace)
        (tmp_path / "a.png").write_bytes(data)
        truth = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert truth is not None
        read = read_picture(tmp_path / "a.png")
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[read.shape[2]]
        np.testing.assert_array_equal(read[..., order], truth.reshape(read.shape))


def test_headers_that_claim_more_than_the_file_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """60000x60000 RGB pixels would take 10.8 GB; each file below is shorter than 1 kB."""
    path = tmp_path / "lie.png"
    rows = b"\0" + bytes(15)
    big = np.zeros((16, 16, 3), np.uint8)
    for width, height, kind in ((60000, 60000, 2), (6, 1, 2), (5, 2, 2), (17, 1, 0)):
        path.write_bytes(png(width, height, 8, kind, rows))
        with pytest.raises(MediaError, match=r"lie\.png: damaged or cut off"):
            read_picture(path)
    jpeg = bytearray(cv2.imencode(".jpg", big)[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(jpeg)
    with pytest.raises(MediaError, match=r"lie\.png: damaged or cut off"):
        read_picture(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("valid", [False, True], ids=["damaged checksums", "repaired checksums"])
def test_damaged_pngs_are_refused_without_a_line_of_libpng(
    valid: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    palette = chunk(b"PLTE", bytes(range(48))) + chunk(b"tRNS", bytes(16))
    rows = b"".join(bytes([y % 5]) + np.random.default_rng(y).bytes(20) for y in range(20))
    whole = png(40, 20, 4, 3, rows, palette + chunk(b"iCCP", b"bad") + chunk(b"tEXt", b"no separator"))
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(8, len(whole), 1 + rng.integers(3)):
            damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(repaired(bytes(damaged)) if valid else damaged)
        try:
            assert read_picture(path).shape[2] in (1, 3, 4)
        except MediaError:
            refused += 1
    assert refused > 20
    assert capfd.readouterr().err == ""


def repaired(data: bytes) -> bytes:
    """Returns a PNG with the checksums of its chunks made right, as far as the lengths of the chunks lead."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out + data[at:]


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_special_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(MediaError, match=rf"a\.png: a {kind}, not a picture".replace("fifo", "FIFO")):
        read_picture(path)


def test_a_picture_is_never_written_over_an_input(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(1, "uint8"))
    (tmp_path / "b.png").symlink_to("a.png")
    with pytest.raises(UserError, match=r"b\.png: is the input .*a\.png itself"):
        write_picture(tmp_path / "b.png", noise(3, "uint8"), [tmp_path / "a.png"])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), noise(1, "uint8"))


def test_damaged_jpegs_are_refused_without_a_line_of_libjpeg(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """libjpeg decodes most of these files, with grey or smeared blocks, and prints about it."""
    path = tmp_path / "a.jpg"
    rgb = cv2.resize(noise(3, "uint8", (8, 10)), (160, 128), interpolation=cv2.INTER_CUBIC)
    whole = cv2.imencode(".jpg", rgb)[1].tobytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        start = int(rng.integers(2, len(whole) - 40))
        damaged[start : start + 20] = rng.bytes(20)
        path.write_bytes(damaged)
        try:
            read_picture(path)
            capfd.readouterr()  # where bytes are left over libjpeg warns, and the picture is used
        except MediaError:
            refused += 1
            assert capfd.readouterr().err == ""
    assert refused > 20


def test_jpegs_with_more_after_their_end_are_read(tmp_path: Path) -> None:
    """Phones append a second picture or a video; metadata may be damaged."""
    whole = cv2.imencode(".jpg", noise(3, "uint8", (64, 64)))[1].tobytes()
    truth = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)
    exif = b"\xff\xe1\x00\x10Exif\0\0" + b"\xaa" * 8
    for data in (whole, whole + whole, whole + bytes(100), whole[:2] + exif + whole[2:]):
        (tmp_path / "a.jpg").write_bytes(data)
        np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg")[..., ::-1], truth)


def test_messages_of_libjpeg_mark_damage_and_are_not_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = cv2.imencode(".jpg", noise(3, "uint8"))[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    expected = read_picture(path)
    version = whole.index(b"JFIF") + 5
    readable = {
        "padding": whole[:-2] + bytes(8) + whole[-2:],
        "an unknown version": whole[:version] + b"\x09" + whole[version + 1 :],
    }
    for name, data in readable.items():
        path.write_bytes(data)
        assert np.array_equal(read_picture(path), expected), name
    path.write_bytes(whole[:-2] + bytes(40) + whole[-2:])
    with pytest.raises(MediaError, match=r"a\.jpg: damaged or cut off"):
        read_picture(path)
    with checked_decoding():
        os.write(2, b"a line of another thread\nWarning: unknown JFIF revision number 9.1\n")
    assert capfd.readouterr().err == "a line of another thread\n"
