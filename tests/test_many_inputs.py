"""Tests several inputs in one run: folders, lists, failures, files that are done, the table and report.json."""

import json
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, make_clip
from conftest import Shift

import inference_video
from commands import network_flags, record
from commands.batch import find_videos, is_batch
from model import RIFE
from model.errors import UserError
from video.frame import Frame
from video.writing.writer import VideoWriter

CLIPS, BROKEN = 10, (3, 7)


class Run:
    """Runs main() with a network whose answer is known, and counts how often the network is loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.loads = capsys, 0
        self.out = self.err = ""
        monkeypatch.setattr(network_flags, "load_model", self._load)

    def _load(self, *_: Any, **__: Any) -> RIFE:
        self.loads += 1
        return RIFE(Shift(2), name="shift")

    def __call__(self, *arguments: object) -> int:
        status = inference_video.main([*map(str, arguments), "--device=cpu", "--preset=ultrafast"])
        self.out, self.err = self.capsys.readouterr()
        return status


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def test_ten_files_with_two_broken_ones(tmp_path: Path, run: Run) -> None:
    folder, made = tmp_path / "clips", tmp_path / "made"
    folder.mkdir()
    for i in range(CLIPS):
        path = folder / f"clip{i}.mp4"
        if i in BROKEN:
            path.write_bytes(b"no video")
        else:
            make_clip(path, 3, size=(64, 48) if i % 2 else (48, 32))
    (folder / "notes.doc").write_text("not a video")

    assert run(folder, "--output", made) == 1
    names = [f"clip{i}_2X_48fps.mp4" for i in range(CLIPS) if i not in BROKEN]
    assert sorted(p.name for p in made.iterdir()) == [*names, "report.json"]
    assert all(len(Clip(made / name).pictures) == 5 for name in names)
    assert run.loads == 1
    assert len([line for line in run.out.splitlines() if line.startswith("[")]) == CLIPS
    assert f"[1/10] {folder / 'clip0.mp4'}: done, {made / names[0]}: 5 frames, 2 made" in run.out
    for error, i in zip(run.err.splitlines(), BROKEN, strict=True):
        assert error.startswith(f"inference_video.py: {folder / f'clip{i}.mp4'}: not a video")
    assert run.out.splitlines()[-1] == f"10 files: 8 done, 2 failed; details in {made / 'report.json'}"

    report = json.loads((made / "report.json").read_text())
    assert [file["result"] for file in report["files"]] == ["failed" if i in BROKEN else "done" for i in range(CLIPS)]
    assert report["files"][3]["error"].startswith(f"{folder / 'clip3.mp4'}: not a video")
    assert report["files"][0]["output"]["packets"] == report["files"][0]["output"]["frames"] == 5
    assert report["settings"]["multi"] == 2

    for i in BROKEN:
        make_clip(folder / f"clip{i}.mp4", 3)
    assert run(folder, "--output", made) == 0  # the report of before is replaced, because it is one
    assert run.out.splitlines()[-1] == f"10 files: 8 skipped, 2 done; details in {made / 'report.json'}"
    assert f"[1/10] {folder / 'clip0.mp4'}: done already, {made / names[0]} exists" in run.out


def test_a_folder_gives_its_videos_without_results_and_parts(tmp_path: Path) -> None:
    for name in ("b2.mp4", "b10.MKV", "b2_2X_48fps.mp4", "b2_60fps.part.mp4", "at_60fps.mov", ".b.mp4", "b.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [path.name for path in find_videos([tmp_path]) if isinstance(path, Path)] == [
        "at_60fps.mov", "b2.mp4", "b10.MKV",
    ]  # fmt: skip


def test_a_list_is_relative_to_its_folder_and_each_file_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    clips = [tmp_path / "a.mp4", folder / "c.mp4"]
    for clip in clips:
        clip.touch()
    listed = tmp_path / "list.txt"
    listed.write_bytes("\ufeffa.mp4\n\n  more  \nhttps://example.org/b.mp4\nnone.mp4\n".encode())
    found = [*clips, "https://example.org/b.mp4", tmp_path / "none.mp4"]
    assert find_videos([listed, tmp_path / "more" / ".." / "a.mp4"]) == found
    assert [is_batch([*inputs]) for inputs in ([listed], [tmp_path], clips, clips[:1], [])] == [True] * 3 + [False] * 2


def test_empty_folders_and_lists_are_refused_before_the_first_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    for location, message in ((tmp_path, "holds no video"), (empty, "names no file"), (Path("no.txt"), "cannot be")):
        with pytest.raises(UserError, match=message):
            find_videos([location])


def test_two_inputs_with_one_output_are_not_mixed_up(tmp_path: Path, run: Run) -> None:
    clips = [make_clip(tmp_path / "a.mp4", 3), make_clip(tmp_path / "a.mkv", 4)]
    report = tmp_path / "made.json"
    assert run(*clips, "--report", report) == 1
    assert f"its output {tmp_path / 'a_2X_48fps.mp4'} is that of {clips[0]} too; give it in another run" in run.err
    assert len(Clip(tmp_path / "a_2X_48fps.mp4").pictures) == 5
    assert [file["result"] for file in json.loads(report.read_text())["files"]] == ["done", "failed"]


def test_ctrl_c_ends_the_whole_batch(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4", 3) for name in "abc"]
    write = VideoWriter.write

    def interrupted(writer: VideoWriter, frame: Frame) -> None:
        if writer.source.path == clips[1] and writer.frames == 3:
            raise KeyboardInterrupt
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    assert run(*clips, "--output", tmp_path / "made") == 130
    assert f"what was made until then is in {tmp_path / 'made' / 'b_2X_48fps.part.mp4'}" in run.err
    assert run.out.splitlines()[-1].startswith("3 files: 1 done, 1 interrupted, 1 not begun; details in")


def test_one_input_by_position_is_as_by_name(tmp_path: Path, run: Run) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)
    assert run(clip, "--output", tmp_path / "b.mp4", "--report", tmp_path / "b.json") == 0
    assert len(Clip(tmp_path / "b.mp4").pictures) == 5
    assert run.out.startswith("a.mp4, 3 frames in total, 24FPS to 48FPS")
    report = json.loads((tmp_path / "b.json").read_text())
    (file,) = report["files"]
    assert file["counts"] == {"made": 2, "cuts": 0, "flashes": 0, "gaps": 0, "repeats": 0, "again": 0}
    assert file["source"]["bytes"] == clip.stat().st_size
    assert (file["result"], file["mismatches"], file["output"]["rate"]) == ("done", [], 48)
    assert "torch" in report["versions"]


def test_a_report_never_replaces_another_file(tmp_path: Path, run: Run) -> None:
    clip, other = make_clip(tmp_path / "a.mp4", 3), tmp_path / "mine.json"
    other.write_text('{"mine": 1}')
    for arguments in ((clip,), (clip, clip)):
        assert run(*arguments, "--report", other) == 1
        assert f"{other}: exists already" in run.err
    for name in (clip, tmp_path / "a_2X_48fps.mp4", tmp_path / "a_2X_48fps.part.mp4"):
        assert run(clip, "--report", name) == 1
        assert f"{name}: a report is JSON" in run.err
    assert other.read_text() == '{"mine": 1}'


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)

    def fail(path: Path, *_: object) -> None:
        raise UserError(f"{path}: cannot be written (the disk is full)")

    monkeypatch.setattr(record, "write_file", fail)
    for inputs in ((clip,), (clip, make_clip(tmp_path / "b.mp4", 3))):
        assert run(*inputs, "--report", tmp_path / "r.json", "--overwrite") == 1
        assert "r.json: cannot be written (the disk is full)" in run.err
        assert (tmp_path / "a_2X_48fps.mp4").exists()
        assert "details in" not in run.out


@pytest.mark.parametrize("arguments", [["--png"], ["--output", "made.mp4"]])
def test_flags_for_a_single_input_are_refused_for_several(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        inference_video.main([str(tmp_path), *arguments])
    assert "several" in capsys.readouterr().err
