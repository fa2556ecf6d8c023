"""Tests that interlaced and telecined video is detected, refused with a remedy, and converted to whole frames."""

from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from video.pictures.picture import MediaError
from video.reading.container import main_video
from video.reading.decoder import Decoder
from video.reading.interlace import COMB_RATIO, KEEP, Deinterlacing, InterlacedError, ScanType, comb_ratio, detect_scan
from video.reading.reader import Source, open_frames
from video.writing.output import NullFile
from video.writing.track import Track, TrackPlan

WIDTH, HEIGHT = 96, 400  # interlaced formats have 480 lines and more


def moment(time: float) -> np.ndarray:
    """Returns the luma (H,W) of a smooth pattern that moves 240 px a second to the right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (128 + 80 * np.sin((x - 240 * time) / 9) + 20 * np.sin(y / 7)).astype(np.uint8)


def woven(first: float, second: float) -> np.ndarray:
    """Returns a frame whose even lines are of one time and whose odd lines are of another."""
    frame = moment(first)
    frame[1::2] = moment(second)[1::2]
    return frame


def progressive(count: int) -> list[np.ndarray]:
    return [moment(k / 24) for k in range(count)]


def interlaced(count: int) -> list[np.ndarray]:
    return [woven(k / 25, k / 25 + 1 / 50) for k in range(count)]


def telecined(count: int) -> list[np.ndarray]:
    """Returns 5 frames for each 4 of film at 24 frames/s: 2, 3, 2 and 3 fields of each."""
    fields = [film for film in range(count) for _ in range(2 + film % 2)]
    return [woven(a / 24, b / 24) for a, b in zip(fields[::2], fields[1::2], strict=False)]


def write(path: Path, frames: list[np.ndarray], rate: F) -> Path:
    with av.open(path, "w") as output:
        stream: Any = output.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for luma in frames:
            yuv = np.concatenate((luma, np.full((HEIGHT // 2, WIDTH), 128, np.uint8)))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, "yuv420p")))
        output.mux(stream.encode(None))
    return path


def to_array(picture: Any) -> np.ndarray:
    return np.asarray(picture.to_ndarray())


def lumas(source: Source) -> list[np.ndarray]:
    return [to_array(frame.picture)[:HEIGHT].astype(int) for frame in source]


@pytest.mark.parametrize(
    ("frames", "scan"),
    [
        (progressive(30), ScanType.PROGRESSIVE),
        (interlaced(30), ScanType.INTERLACED),
        (telecined(30), ScanType.TELECINED),
        ([moment(0)] * 30, ScanType.PROGRESSIVE),
    ],
)
def test_kind_of_scan(tmp_path: Path, frames: list[np.ndarray], scan: ScanType) -> None:
    """No frame is flagged as interlaced: the combs alone decide."""
    with av.open(write(tmp_path / "a.mkv", frames, F(25))) as container:
        assert detect_scan(container.decode(video=0))[0] is scan


def test_a_progressive_test_pattern_of_few_lines_is_not_interlaced() -> None:
    """FFmpeg's test pattern has edges that idet takes for combs."""
    with av.open("testsrc2=s=320x192:r=60000/1001:d=1", format="lavfi") as container:
        assert detect_scan(container.decode(video=0))[0] is ScanType.PROGRESSIVE


@pytest.mark.parametrize(
    ("frames", "scan"), [(interlaced(30), ScanType.INTERLACED), (telecined(30), ScanType.TELECINED)]
)
def test_few_lines_without_a_flag_are_enough(frames: list[np.ndarray], scan: ScanType) -> None:
    pictures = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:96]), "gray") for frame in frames]
    assert detect_scan(picture.reformat(format="yuv420p") for picture in pictures)[0] is scan


def test_telecined_film_of_fine_texture_is_found_by_its_repeated_fields() -> None:
    """In texture as fine as the lines the combs do not show; no progressive video repeats single fields."""
    texture = cv2.blur(np.random.default_rng(5).integers(20, 235, (96, 320)).astype(np.uint8), (5, 2)).astype(np.uint8)
    film = [np.ascontiguousarray(texture[:, 4 * k : 4 * k + 160]) for k in range(32)]
    fields = [k for k in range(32) for _ in range(2 + k % 2)]
    pictures = []
    for a, b in zip(fields[::2], fields[1::2], strict=True):
        luma = film[a].copy()
        luma[1::2] = film[b][1::2]
        pictures.append(av.VideoFrame.from_ndarray(luma, "gray").reformat(format="yuv420p"))
    assert comb_ratio(pictures) < COMB_RATIO
    assert detect_scan(pictures)[0] is ScanType.TELECINED


def test_fine_texture_that_flickers_is_not_interlaced() -> None:
    """Noise looks combed in every frame, and in every field by itself."""

    def ratio(pictures: list[np.ndarray]) -> float:
        return comb_ratio([av.VideoFrame.from_ndarray(picture, "gray") for picture in pictures])

    noise = np.random.default_rng(3)
    base = noise.integers(60, 200, (480, 160))
    pictures = [np.clip(base + noise.normal(0, 12, base.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    assert ratio(pictures) < 0
    assert ratio(interlaced(8)) > 2 * COMB_RATIO


def test_interlaced_video_is_refused_unless_its_conversion_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", interlaced(30), F(25))
    with pytest.raises(InterlacedError, match=r"a\.mkv: its frames are interlaced"):
        open_frames(path)
    assert np.array_equal(lumas(open_frames(path, deinterlacing=KEEP))[3], interlaced(4)[3])


def test_a_frame_for_each_frame_or_for_each_field(tmp_path: Path) -> None:
    """Every frame shows one moment: the time of its field, to a few levels."""
    path = write(tmp_path / "a.mkv", interlaced(30), F(25))
    for way, step in ((Deinterlacing.FRAME, F(1, 25)), (Deinterlacing.FIELD, F(1, 50))):
        source = open_frames(path, deinterlacing=way)
        assert source.rate == 1 / step
        frames = list(source)
        assert [frame.time for frame in frames] == [k * step for k in range(int(30 / 25 / step))]
        for k, luma in list(enumerate(lumas(source)))[4:-4]:
            assert np.abs(luma - moment(float(k * step))).mean() < 3, (way, k)


def test_inverse_telecine_gives_the_frames_of_the_film(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", telecined(32), F(30))
    source = open_frames(path, deinterlacing=Deinterlacing.FILM)
    assert source.rate == 24
    found = lumas(source)
    assert len(found) == 32
    film = [moment(k / 24).astype(int) for k in range(32)]
    exact = sum(min(np.abs(luma - frame).max() for frame in film) == 0 for luma in found)
    assert exact >= 28


def test_the_picture_moves_and_has_colour(tmp_path: Path) -> None:
    """A grey track, as the alpha plane of an AVIF file, is not the picture, even where FFmpeg rates it best."""
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as output:
        streams: list[Any] = [output.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, (size, pix_fmt) in zip(streams, ((128, "gray"), (64, "yuv420p")), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size, pix_fmt
        for _ in range(3):
            for stream in streams:
                output.mux(stream.encode(av.VideoFrame(stream.width, stream.height, stream.pix_fmt)))
        for stream in streams:
            output.mux(stream.encode(None))
    assert open_frames(path).size == (64, 64)
    assert open_frames(path, number=0).size == (128, 128)
    with pytest.raises(MediaError, match=r"stream 7 is no video that can be decoded; those of video: 0, 1"):
        open_frames(path, number=7)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a video with sound, both encrypted."""
    path, key = tmp_path_factory.mktemp("encrypted") / "a.mp4", "76a6c65c5ea762046bd749a2e632ccbb"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    options["fflags"] = "bitexact"  # or each file has random bytes, for which FFmpeg's parser at times logs an error
    with av.open(str(path), "w", container_options=options) as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("aac", rate=48000, layout="mono")
        for luma in progressive(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(luma[:48, :64], "gray").reformat(format="yuv420p")))
        output.mux(stream.encode(None))
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        heard.sample_rate = 48000
        output.mux(sound.encode(heard))
        output.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("scheme", ["cenc", "cbcs", "cens", "cbc1"])
def test_encrypted_video_is_refused(encrypted: Path, tmp_path: Path, scheme: str) -> None:
    """The four schemes of ISO/IEC 23001-7; the header names the scheme."""
    path = tmp_path / "a.mp4"
    path.write_bytes(encrypted.read_bytes().replace(b"schm\0\0\0\0cenc", b"schm\0\0\0\0" + scheme.encode()))
    with pytest.raises(MediaError, match=r"a\.mp4: its picture is encrypted \(DRM\)"):
        open_frames(path)


def test_encrypted_packets_are_neither_decoded_nor_copied(encrypted: Path) -> None:
    """Such packets occur in streams whose first seconds are not encrypted."""
    with av.open(str(encrypted)) as container, av.open(NullFile(".mp4"), "w", format="mp4") as output:
        decoder = Decoder(container, container.streams.video[0])
        assert list(decoder.pictures()) == []
        assert decoder.errors() == ["4 damaged frames"]
        container.seek(0)
        track = Track(container.streams.audio[0], TrackPlan(1), output, ".mp4")
        assert next(list(track.packets(p)) for p in container.demux(audio=0) if p.size) == []
        assert "encrypted" in str(track.losses)
        track.close()


@pytest.mark.skipif(not Path("../shared/data/faults").exists(), reason="needs ../shared/data/faults")
def test_real_files_with_several_pictures() -> None:
    media = Path("../shared/data/faults/media")
    with av.open(str(media / "libavif__6705__alpha_video.avif")) as container:
        stream = main_video(container)
        assert stream is not None
        assert (stream.index, stream.frames) == (2, 48)
    assert open_frames(media / "mp4ff__caa5__stereo_spatial.mp4").size == (160, 120)
