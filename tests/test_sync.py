"""Tests that all tracks have one clock: a flash, a beep and a chapter coincide in a source that starts late."""

from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from video.frame import Frame
from video.reading.reader import open_frames
from video.writing.encoding import Encoding
from video.writing.writer import VideoWriter

RATE, SAMPLES = 25, 48000
START, EVENT, COUNT = F(36), F(182, 5), 25  # seconds: the first frame, flash and beep; frames


def make_source(path: Path) -> Path:
    """Writes a second of black from START on; at EVENT, 0.4 s later, a white frame, a beep and a chapter begin."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("pcm_s16le", rate=SAMPLES, layout="mono")
        chapter = {"id": 1, "start": round(EVENT * 1000), "end": 37000, "time_base": F(1, 1000), "metadata": {}}
        output.set_chapters([chapter])  # type: ignore[list-item]
        output.start_encoding()
        for i in range(COUNT):
            time = START + F(i, RATE)
            level = 255 if time == EVENT else 16
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
            picture.pts, picture.time_base = round(time * RATE), F(1, RATE)
            output.mux(video.encode(picture))
            moments = np.arange(SAMPLES // RATE)
            wave = np.sin(moments * 2 * np.pi * 1000 / SAMPLES) * (12000 if EVENT <= time < EVENT + F(1, 5) else 0)
            heard = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = SAMPLES, round(time * SAMPLES), F(1, SAMPLES)
            output.mux(sound.encode(heard))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    return path


def flash(path: Path) -> float:
    """Returns the time of the first bright frame, in seconds."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            if picture.to_ndarray(format="gray").mean() > 150 and picture.time is not None:
                return picture.time
    raise AssertionError("no flash")


def beep(path: Path) -> float:
    """Returns the time of the first loud sample, in seconds."""
    with av.open(str(path)) as container:
        for heard in container.decode(audio=0):
            samples = np.abs(heard.to_ndarray().astype(float)).max(axis=0)
            loud = np.flatnonzero(samples > 0.1 * (32768 if heard.format.name.startswith("s16") else 1))
            if len(loud) and heard.time is not None:
                return heard.time + float(loud[0]) / heard.sample_rate / (len(samples) // heard.samples)
    raise AssertionError("no beep")


@pytest.mark.parametrize(("suffix", "audio"), [(".mkv", "copy"), (".webm", "copy"), (".mp4", "aac"), (".mkv", "flac")])
def test_flash_beep_and_chapter_stay_together(tmp_path: Path, suffix: str, audio: str) -> None:
    """Sound is copied into Matroska, and encoded as Opus, AAC and FLAC; 5 ms are less than an eighth of a frame."""
    source = open_frames(make_source(tmp_path / "a.mkv"))
    path = tmp_path / f"b{suffix}"
    with VideoWriter(path, source, source.rate * 2, source.time_base / 2, encoding=Encoding(audio=audio)) as writer:
        for frame in source:
            writer.write(frame)
            writer.write(Frame(frame.picture, frame.time + 1 / source.rate / 2, frame.colour))
    expected = float(EVENT - START)
    assert flash(path) == pytest.approx(expected, abs=0.001)
    assert beep(path) == pytest.approx(expected, abs=0.005)
    with av.open(str(path)) as container:
        chapter: Any = container.chapters()[0]
        assert float(chapter["start"] * chapter["time_base"]) == pytest.approx(expected, abs=0.001)
