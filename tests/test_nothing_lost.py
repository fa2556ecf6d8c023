"""Tests that inputs are never replaced, other tracks never harm the picture, and odd names are files."""

import os
import random
from collections.abc import Callable
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from model import RIFE
from video.pictures.picture import read_picture, write_picture

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in an empty folder, with a network whose answer is known -> exit status, stdout, stderr."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = inference_video.main([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return run


def make_sound(path: Path, codec: str, *, rate: int = 48000, layout: str = "stereo", container: str = "avi") -> Path:
    """Makes a clip of 24 frames, whose second of sound is encoded by `codec`."""
    with av.open(str(path), "w", format=container) as out:
        video: Any = out.add_stream("mjpeg" if container == "avi" else "libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p" if container == "avi" else "yuv420p"
        sound: Any = out.add_stream(codec, rate=rate, layout=layout)
        sound.bit_rate = 128_000
        sound.codec_context.open()
        channels = av.AudioLayout(layout).nb_channels
        tone = (np.sin(np.arange(rate) * 0.05) * 8000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], "s16", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, F(1, rate)
        encoder = sound.codec_context
        resampler = av.AudioResampler(encoder.format, encoder.layout, rate, encoder.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
        for i in range(24):
            image = av.VideoFrame.from_ndarray(picture(i % 8), "rgb24").reformat(format=video.pix_fmt)
            image.pts, image.time_base = i, F(1, 24)
            out.mux(video.encode(image))
        out.mux(video.encode(None))
    return path


def seconds_of_sound(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.parametrize("how", ["default", "same", "link", "through"])
def test_pictures_are_not_written_over_the_folder_they_are_read_from(
    tmp_path: Path, command: Command, how: str
) -> None:
    folder = tmp_path / "vid_out"
    folder.mkdir()
    for i in range(3):
        write_picture(folder / f"{i:07d}.png", picture(i))
    (tmp_path / "link").symlink_to(folder)
    outputs = {"same": "vid_out", "link": "link", "through": "link/../vid_out"}
    status, _, err = command("--img", folder, *(["--output", outputs[how]] if how in outputs else []))
    assert status == 1
    assert "pictures there would replace the input" in err
    assert [np.array_equal(read_picture(folder / f"{i:07d}.png"), picture(i)) for i in range(3)] == [True] * 3


def test_a_source_is_not_replaced_under_any_name(tmp_path: Path, command: Command) -> None:
    clip = make_clip(tmp_path / "z.part.mp4", 3)
    before = clip.read_bytes()
    os.link(clip, tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to(clip)
    for output in ("z.part.mp4", "hard.mp4", "soft.mp4", "z.mp4"):
        status, _, err = command("--video", clip, "--output", output, "--overwrite")
        assert (status, "is the input" in err) == (1, True), err
    other = make_clip(tmp_path / "right.mp4", 3)
    status, _, err = command("--stitch", clip, other, "--output", "right.mp4", "--overwrite")
    assert (status, "is the input" in err) == (1, True), err
    assert clip.read_bytes() == before


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8", "adpcm_ms", "wmav2"])
@pytest.mark.parametrize("ext", ["mp4", "webm"])
def test_sound_without_a_named_layout_is_kept(tmp_path: Path, command: Command, codec: str, ext: str) -> None:
    clip = make_sound(tmp_path / "a.avi", codec, rate=44100)
    status, out, err = command("--video", clip, "--output", f"b.{ext}", "--static-threshold=1")
    assert (status, err.count("inference_video.py")) == (0, 0), err
    assert len(Clip(tmp_path / f"b.{ext}").pictures) == 47
    assert abs(seconds_of_sound(tmp_path / f"b.{ext}") - 1) < 0.1
    assert out.index("transcoded to") < out.index("Wrote")  # printed before the first frame


def test_layouts_and_rates_that_an_encoder_refuses(tmp_path: Path, command: Command) -> None:
    clip = make_sound(tmp_path / "a.mkv", "ac3", layout="5.1(side)", container="matroska")
    assert command("--video", clip, "--output", "b.webm")[0] == 0
    assert abs(seconds_of_sound(tmp_path / "b.webm") - 1) < 0.1
    clip = make_sound(tmp_path / "c.mkv", "pcm_s16le", rate=192000, container="matroska")
    assert command("--video", clip, "--output", "d.mp4")[0] == 0
    assert abs(seconds_of_sound(tmp_path / "d.mp4") - 1) < 0.1


@pytest.mark.parametrize("layout", ["5.1(side)", "5.0(side)", "5.1", "stereo"])
def test_players_know_the_layout_of_encoded_sound(tmp_path: Path, command: Command, layout: str) -> None:
    """AAC has no name for surround channels at the sides, which AC-3 has: decoders would give nameless channels."""
    clip = make_sound(tmp_path / "a.mkv", "ac3", layout=layout, container="matroska")
    assert command("--video", clip, "--audio=aac", "--output", "b.mp4")[0] == 0
    with av.open(str(tmp_path / "b.mp4")) as made:
        assert next(made.decode(audio=0)).layout.name == layout.removesuffix("(side)")


@pytest.mark.parametrize("ext", ["mp4", "webm"])
def test_damaged_packets_of_sound_are_left_out_and_counted(tmp_path: Path, command: Command, ext: str) -> None:
    clip = make_sound(tmp_path / "a.mkv", "ac3", container="matroska")
    data, seed = bytearray(clip.read_bytes()), random.Random(1)
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\x0b\x77"]
    for start in starts[10:14]:
        data[start + 2 : start + 60] = bytes(seed.randrange(256) for _ in range(58))
    clip.write_bytes(data)
    status, _, err = command("--video", clip, "--output", f"b.{ext}", "--static-threshold=1")
    assert len(Clip(tmp_path / f"b.{ext}").pictures) == 47
    assert seconds_of_sound(tmp_path / f"b.{ext}") > 0.75
    assert status == 3, err
    assert "audio track 1 (ac3): 4 damaged packets left out" in err


def test_sound_of_a_transport_stream_is_copied_and_a_broken_first_packet_left_out(
    tmp_path: Path, command: Command
) -> None:
    clip = make_clip(tmp_path / "a.ts", 24, audio=["aac"])
    data = bytearray(clip.read_bytes())
    first = next(i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] & 0xF6 == 0xF0)
    data[first : first + 2] = b"\0\0"
    clip.write_bytes(data)
    status, out, _ = command("--video", clip, "--output", "b.mp4", "--static-threshold=1")
    assert status in (0, 3)
    assert "transcoded" not in out
    assert len(Clip(tmp_path / "b.mp4").pictures) == 47
    assert abs(seconds_of_sound(tmp_path / "b.mp4") - 1) < 0.1


def test_transcoded_sound_starts_with_the_picture_of_a_source_that_starts_late(
    tmp_path: Path, command: Command
) -> None:
    late = [F(100) + F(i, 25) for i in range(25)]
    clip = make_clip(tmp_path / "a.ts", 25, times=late, rate=F(25), audio=["aac"])
    assert command("--video", clip, "--output", "b.webm")[0] == 0
    with av.open(str(tmp_path / "b.webm")) as container:
        start = next(container.decode(audio=0)).time
    assert start is not None
    assert abs(start) < 0.06


def test_tracks_that_a_container_cannot_hold_are_dropped_and_named(tmp_path: Path, command: Command) -> None:
    clip = make_clip(tmp_path / "a.mkv", 4, audio=["aac"], subtitles="1\n00:00:00,000 --> 00:00:00,100\nHello\n")
    status, out, _ = command("--video", clip, "--ext", ".gif")
    assert status == 0
    assert "audio track 1 (aac) dropped: gif does not take it" in out
    assert len(Clip(tmp_path / "a_2X_48fps.gif").pictures) == 7
    status, out, _ = command("--video", clip, "--no-audio", "--output", "b.mkv")
    assert status == 0
    assert Clip(tmp_path / "b.mkv").kinds == ["subtitle 0", "video 0"]
    assert "Will not merge audio because using no-audio flag!" in out


def test_names_are_never_taken_for_protocols(tmp_path: Path, command: Command) -> None:
    plain = make_clip(tmp_path / "a.mp4", 3)
    for name in ("Re:Zero 01.mp4", "file:x.mp4", "あ" * 80 + ".mp4"):
        (tmp_path / name).write_bytes(plain.read_bytes())
        assert command("--video", name)[0] == 0, name
        assert (tmp_path / f"{name.removesuffix('.mp4')}_2X_48fps.mp4").stat().st_size > 0
        assert command("--video", "a.mp4", "--output", f"out {name}")[0] == 0, name
    assert command("--video", "a.mp4", "--output", os.fsdecode(b"\xff\xfe.mp4"))[0] == 0
    assert os.path.exists(b"\xff\xfe.mp4")


def test_outputs_that_are_no_file_are_refused_at_once(tmp_path: Path, command: Command) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)
    (tmp_path / "folder").mkdir()
    for output, message in [
        (".", "is a folder; give --output the name of a file, as in a_2X_48fps.mp4"),
        ("folder", "is a folder; give --output the name of a file, as in folder/a_2X_48fps.mp4"),
        ("new/", "no suffix names its container; give --output a name as new.mp4"),
        ("list.m3u8", "is refused"),
        ("a.xyz", "no container for video"),
    ]:
        status, _, err = command("--video", clip, "--output", output)
        assert (status, message in err) == (1, True), err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "folder"]


def test_rates_beyond_all_sense_are_refused(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)
    for arguments in (["--exp=20"], ["--exp=1000000000"], ["--multi=1025"], ["--target-fps=10001"], ["--fps=1e9"]):
        with pytest.raises(SystemExit):
            command("--video", clip, *arguments)
        assert "at most" in capsys.readouterr().err
    status, _, err = command("--video", clip, "--exp=10")
    assert (status, "24576 frames/s are too many" in err) == (1, True), err


def test_a_name_taken_meanwhile_is_kept_and_so_is_the_result(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)
    finish = inference_video.VideoWriter.finish

    def late(writer: inference_video.VideoWriter) -> None:
        writer.path.write_bytes(b"theirs")
        finish(writer)

    monkeypatch.setattr(inference_video.VideoWriter, "finish", late)
    status, _, err = command("--video", clip, "--output", "b.mp4")
    assert (status, "was made by another program meanwhile" in err) == (1, True), err
    assert (tmp_path / "b.mp4").read_bytes() == b"theirs"
    assert len(Clip(tmp_path / "b.part.mp4").pictures) == 5
