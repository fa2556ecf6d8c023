"""Files that a run writes beside its output never replace an input, the output or a file of the user."""

from pathlib import Path

import av
import pytest
from clips import Clip, make_clip
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE
from video.losses import reason


@pytest.mark.parametrize("flag", ["--confidence", "--decisions"])
@pytest.mark.parametrize("name", ["a.mp4", "out.mp4", "out.part.mp4", "notes.txt", "report.json"])
def test_what_is_written_beside_the_output_replaces_nothing(
    flag: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    monkeypatch.chdir(tmp_path)
    source = make_clip(Path("a.mp4"), 3)
    data = source.read_bytes()
    Path("notes.txt").write_text("mine")
    flags = ["--video=a.mp4", "--output=out.mp4", "--report=report.json", "--device=cpu", "--preset=ultrafast"]
    assert inference_video.main([*flags, f"{flag}={name}"]) == 1
    assert source.read_bytes() == data
    assert Path("notes.txt").read_text() == "mine"
    assert not Path("out.mp4").exists()


def test_measures_of_an_earlier_run_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_flags, "load_model", lambda *_, **__: RIFE(Shift(0), name="shift"))
    monkeypatch.chdir(tmp_path)
    make_clip(Path("a.mp4"), 3)
    for output in ("1.mp4", "2.mp4"):
        flags = ["--video=a.mp4", f"--output={output}", "--confidence=c.csv", "--device=cpu", "--preset=ultrafast"]
        assert inference_video.main(flags) == 0
    assert len(Clip(Path("2.mp4")).pictures) == 5


def test_a_number_without_a_text_is_damaged_data() -> None:
    """The AC-3 decoder returns numbers of its own, for which FFmpeg has no text."""
    assert reason(av.FFmpegError(16976906, "Error number -16976906 occurred")) == "damaged data"
