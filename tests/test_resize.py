"""Tests videos whose frames change their size: a new output begins at each change, with its part of the sound."""

import json
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, audio_stream, make_clip, picture, write_tone
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE
from video.reading.reader import open_frames
from video.reading.resize import find_spans

RATE = F(25)
SIZES = (64, 48), (48, 32)


def join_sizes(folder: Path, *, sound: bool = False) -> Path:
    """Writes a stream of 25 frames of 64x48, then 25 of 48x32, at 25 frames/s, and a tone of two seconds."""
    path = folder / "two.ts"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=RATE)
        tone = audio_stream(out, "aac") if sound else None
        encoders = [stream.codec_context, av.CodecContext.create("libx264", "w")]
        for encoder, (width, height) in zip(encoders, SIZES, strict=True):
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate, encoder.options = 1 / RATE, RATE, {"bf": "0", "crf": "5"}
        if tone is not None:
            write_tone(out, tone, 2.0, F(0))
        for i, (encoder, size) in enumerate(zip(encoders, SIZES, strict=True)):
            pictures = [av.VideoFrame.from_ndarray(picture(k % 12, size), "rgb24") for k in range(25)]
            for k, frame in enumerate(pictures):
                frame.pts, frame.time_base = 25 * i + k, 1 / RATE
            packets = [packet for frame in [*pictures, None] for packet in encoder.encode(frame)]
            for packet in packets:
                packet.stream = stream
                out.mux(packet)
    return path


@pytest.fixture(autouse=True)
def _known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))


def run(*arguments: object) -> int:
    return inference_video.main([*map(str, arguments), "--device=cpu", "--preset=ultrafast", "--dedup=off"])


def test_spans_have_one_size_each(tmp_path: Path) -> None:
    source = open_frames(join_sizes(tmp_path))
    spans = find_spans(source)
    assert [(s.start, s.end, s.number) for s in spans] == [(0, 1, 1), (1, None, 2)]
    assert [s.apply(source).size for s in spans] == [*SIZES]
    trimmed = find_spans(source, F(1, 2), F(3, 2))
    assert [(s.start, s.end) for s in trimmed] == [(F(1, 2), 1), (1, F(3, 2))]
    late = find_spans(source, F(3, 2))
    assert [(s.start, s.end, s.number, s.apply(source).size) for s in late] == [(F(3, 2), None, 1, SIZES[1])]


def test_a_new_output_begins_at_each_change_of_size(tmp_path: Path) -> None:
    """All frames of the source are in one of the outputs, in their own size and at their time, and so is the sound."""
    source = join_sizes(tmp_path, sound=True)
    report = tmp_path / "r.json"
    assert run("--video", source, "--output", tmp_path / "out.mp4", "--on-resize=split", "--report", report) == 0
    assert not [*tmp_path.glob("*.part.*")]
    for name, size in zip(("out.mp4", "out_2.mp4"), SIZES, strict=True):
        clip = Clip(tmp_path / name)
        assert len(clip.pictures) == 49
        assert {(p.width, p.height) for p in clip.pictures} == {size}
        for k, found in enumerate(clip.pictures[::2]):
            error = found.to_ndarray(format="rgb24") - picture(k % 12, size).astype(float)
            assert np.abs(error).mean() < 4
        assert clip.times[1] - clip.times[0] == F(1, 50)
        assert len(clip.packets["audio 0"]) * 1024 / 48000 == pytest.approx(1, abs=0.06)
    records = json.loads(report.read_text())["files"]
    assert [record["output"]["frames"] for record in records] == [49, 49]
    assert [record["result"] for record in records] == ["done", "done"]


def test_no_change_of_size_makes_one_output(tmp_path: Path) -> None:
    assert run("--video", make_clip(tmp_path / "a.mp4"), "--output", tmp_path / "b.mp4", "--on-resize=split") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_every_output_is_checked_before_the_first_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = join_sizes(tmp_path)
    (tmp_path / "out_2.mp4").write_text("mine")
    assert run("--video", source, "--output", tmp_path / "out.mp4", "--on-resize=split") == 1
    assert "out_2.mp4: exists already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_2.mp4", "two.ts"]


def test_pictures_of_each_size_have_a_folder(tmp_path: Path) -> None:
    assert run("--video", join_sizes(tmp_path), "--output", tmp_path / "p", "--png", "--on-resize=split") == 0
    assert [len([*(tmp_path / name).iterdir()]) for name in ("p", "p_2")] == [49, 49]


def test_a_dry_run_describes_each_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--video", join_sizes(tmp_path), "--on-resize=split", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "two.ts: 64x48" in printed
    assert "two.ts: 48x32" in printed


@pytest.mark.parametrize("flags", [("--mask", "m.png"), ("--decisions", "d"), ("--repair", "3"), ("other.mp4",)])
def test_settings_of_one_output_do_not_go_with_split(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("a.mp4",) if flags == ("other.mp4",) else ("--video", "a.mp4")
    with pytest.raises(SystemExit) as e:
        run(*source, *flags, "--on-resize=split")
    assert e.value.code == 2
    assert "--on-resize" in capsys.readouterr().err
