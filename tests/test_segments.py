"""Tests long work: the same frames for all segments, continuing after every end, shares, locks and joining."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction as F
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from model import RIFE, UserError
from segments import folder, worker
from segments.excerpt import cut_excerpt
from segments.inspect import decoding_delay, inspect_video
from segments.locks import PLAN
from segments.plan import Plan
from segments.scan import Key, Scan, cut_source, scan_source
from video.frame import Frame
from video.reading.reader import open_frames
from video.reading.source_part import SourcePart
from video.writing.writer import VideoWriter

SIZE = (64, 48)
COUNT = 60
LOCKER = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, 2 | 4, 1, 0); print(flush=True); input()"


def story() -> list[np.ndarray]:
    """Returns sixty pictures: motion, a cut at 24, repeats at 31, 32 and 45, and a slow brightening from 50 on."""
    places = [i % 24 for i in range(COUNT)]
    places[31] = places[32] = places[30]
    places[45] = places[44]
    pictures = [picture(place, SIZE) for place in places]
    for i in range(24, COUNT):
        pictures[i] = np.ascontiguousarray(pictures[i][::-1, :, ::-1])
    for i in range(50, COUNT):
        pictures[i] = pictures[49] // 2 + (i - 50)
    return pictures


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a clip with B-frames, few key frames and sound."""
    path = tmp_path_factory.mktemp("source") / "clip.mkv"
    options = {"g": "20", "bf": "3", "crf": "4"}
    return make_clip(path, COUNT, size=SIZE, pictures=story(), options=options, audio=["aac"], chapters=True)


class Run:
    """Runs the command with a network whose answer is known."""

    def __init__(self, capsys: pytest.CaptureFixture[str], clip: Path) -> None:
        self._capsys, self._clip = capsys, clip
        self.out = self.err = ""

    def __call__(self, output: Path, *arguments: object) -> int:
        given = ["--video", self._clip, "--output", output, "--device=cpu", *arguments]
        status = inference_video.main([str(a) for a in given])
        self.out, self.err = self._capsys.readouterr()
        return status


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clip: Path) -> Run:
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    return Run(capsys, clip)


def content(path: Path) -> tuple[list[F], list[bytes]]:
    """Returns the times and the planes of all pictures, with the sound as the last entry."""
    made = Clip(path)
    planes = [made.planes(i) for i in range(len(made.pictures))]
    return made.times, [*planes, b"".join(made.packets.get("audio 0", []))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--target-fps=60"],
        ["--static-threshold=0.99"],
        ["--fps=24"],
        ["--multi=3", "--montage"],
        ["--dedup=retime", "--at-cut=blend"],
        ["--repair=10,33,34"],
        ["--slow=2", "--start=0.3", "--end=2.1"],
    ],
    ids=["double", "rate", "upstream", "slow", "montage", "retime", "repair", "speed"],
)
def test_frames_are_the_same_whatever_the_segments(tmp_path: Path, run: Run, settings: list[str]) -> None:
    assert run(tmp_path / "whole.mkv", "--codec=ffv1", *settings) == 0
    counts = next(line for line in run.out.splitlines() if line.startswith("Wrote")).split(": ")[1]
    for seconds in ("0.5", "0.9"):
        joined = tmp_path / f"{seconds}.mkv"
        assert run(joined, "--codec=ffv1", f"--segments={seconds}", *settings) == 0, run.err
        assert content(joined) == content(tmp_path / "whole.mkv")
        assert counts in run.out
        assert not joined.with_suffix(".rife").exists()


def test_decisions_at_times_of_no_frame_are_counted_over_all_segments(tmp_path: Path, run: Run) -> None:
    """Of the five decisions two are at frames of the clip, one is 9 s too late, two are before its second frame."""
    entries = [{"time": time, "kind": "cut"} for time in (-1, 0.001, 0.5, 1.5, 11.5)]
    (tmp_path / "cuts.json").write_text(json.dumps({"transitions": entries}))
    decisions = f"--decisions={tmp_path / 'cuts.json'}"
    for name, segments in (("whole", []), ("two", ["--segments=1.2"]), ("five", ["--segments=0.5"])):
        assert run(tmp_path / f"{name}.mp4", "--preset=ultrafast", decisions, *segments) == 0
        assert ", 2 cuts held, " in run.out
        assert "\n3 of the given decisions had no effect" in run.out


def test_the_other_tracks_come_once_from_the_source(tmp_path: Path, run: Run, clip: Path) -> None:
    assert run(tmp_path / "a.mkv", "--segments=0.5") == 0
    source, made = Clip(clip), Clip(tmp_path / "a.mkv")
    assert made.packets["audio 0"] == source.packets["audio 0"]
    assert [c["metadata"] for c in made.chapters] == [c["metadata"] for c in source.chapters]
    assert made.metadata["title"] == "a clip"


def stop_at(monkeypatch: pytest.MonkeyPatch, frames: int) -> pytest.MonkeyPatch:
    write = VideoWriter.write
    left = [frames]

    def write_some(writer: VideoWriter, frame: Frame) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise UserError("no space left on this device")
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", write_some)
    return monkeypatch


def test_the_same_command_continues(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path / "whole.mkv", "--segments=0.5", "--codec=ffv1") == 0
    work = tmp_path / "a.rife"
    with monkeypatch.context() as patch:
        stop_at(patch, 60)
        assert run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1") == 1
    assert "2 of 5 segments are finished" in run.err
    kept = {path: path.stat().st_mtime_ns for path in work.glob("0000?.mkv")}
    assert sorted(path.name for path in work.iterdir()) == [
        *("00000.json", "00000.mkv", "00001.json", "00001.mkv", "lock", "plan.json"),
    ]
    with monkeypatch.context() as patch:
        stop_at(patch, 30)
        assert run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1", "--overwrite") == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1") == 0
    assert "3 are finished" in run.out
    assert content(tmp_path / "a.mkv") == content(tmp_path / "whole.mkv")
    assert not work.exists()


@pytest.mark.slow
def test_a_run_that_was_ended_while_it_removed_its_folder_is_complete(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output stays and the same command finds it complete, whatever number of files of the folder was removed."""
    for removed in (0, 5, 10):
        with monkeypatch.context() as patch:
            remove_some(patch, removed)
            run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1", "--overwrite")
        before = (tmp_path / "a.mkv").read_bytes()
        assert len(list((tmp_path / "a.rife").iterdir())) == 12 - removed
        assert run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1") == 0
        assert "a.mkv: was completed by an earlier run" in run.out
        assert (tmp_path / "a.mkv").read_bytes() == before
        assert not (tmp_path / "a.rife").exists()
    assert run(tmp_path / "a.mkv", "--segments=0.5", "--codec=ffv1") == 1
    assert "a.mkv: exists already" in run.err


def remove_some(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ends the run when it has removed a number of files of a folder that is done."""
    remove = folder._remove
    left = [count]

    def remove_or_end(path: Path) -> None:
        if (path.parent / "done.json").exists():
            left[0] -= 1
            if left[0] < 0:
                raise MemoryError
        remove(path)

    monkeypatch.setattr(folder, "_remove", remove_or_end)


def test_a_changed_setting_is_refused_and_named(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 30)
        assert run(tmp_path / "a.mp4", "--segments=0.5", "--crf=20") == 1
    assert run(tmp_path / "a.mp4", "--segments=0.5", "--crf=21") == 1
    assert "a.rife: was begun differently: crf was 20, is 21; restore that, or overwrite it" in run.err
    plan = tmp_path / "a.rife" / "plan.json"
    before = plan.read_text()
    for old, new, message in (
        (json.loads(before)["source"]["size"], "7", "source size was 7, is"),
        (json.loads(before)["versions"]["torch"], "1.0", "torch was 1.0, is"),
        (json.loads(before)["weights"], "0" * 64, "weights was 000000000000, is"),
    ):
        plan.write_text(before.replace(f'"{old}"', f'"{new}"'))
        assert run(tmp_path / "a.mp4", "--segments=0.5", "--crf=20") == 1
        assert message in run.err
    assert run(tmp_path / "a.mp4", "--segments=0.5", "--crf=21", "--overwrite") == 0
    assert len(Clip(tmp_path / "a.mp4").pictures) == 2 * COUNT - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx264", "mp4"),
        ("libx264", "mkv"),
        ("libx265", "mp4"),
        ("libsvtav1", "mkv"),
        ("libvpx-vp9", "webm"),
        ("prores_ks", "mov"),
        ("ffv1", "mkv"),
        ("png", "mov"),
    ],
)
def test_joined_packets_have_exact_and_rising_times(tmp_path: Path, run: Run, codec: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    assert run(path, f"--codec={codec}", "--segments=0.8", "--target-fps=30000/1001") == 0, run.err
    rounding = 0 if suffix in ("mp4", "mov") else F(1, 1000)  # seconds; segments begin between two milliseconds
    with av.open(str(path)) as container:
        packets: list[Any] = [p for p in container.demux(video=0) if p.size]
        pts = [p.pts * p.time_base for p in packets]
        known = [p for p in packets if p.dts is not None]  # Matroska has no decoding times: FFmpeg finds most of them
    assert all(abs(time - F(1001 * i, 30000)) <= rounding for i, time in enumerate(sorted(pts)))
    assert len(pts) == 74
    assert len(known) > 70
    assert all(a.dts < b.dts for a, b in pairwise(known))
    assert all(p.pts >= p.dts for p in known)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.slow
def test_a_source_that_cannot_be_decoded_from_its_key_frames(tmp_path: Path, run: Run, capsys: Any) -> None:
    """With intra refresh, the frames from such a key frame on are whole only after some more: they are made anew."""
    size = (480, 32)  # 30 blocks wide, of which each frame renews one
    pictures = [np.roll(picture(0, size), 5 * i, 1) for i in range(72)]
    options = {"g": "30", "x264-params": "intra-refresh=1"}
    refresh = make_clip(tmp_path / "refresh.mkv", 72, size=size, pictures=pictures, options=options)
    assert len(scan_source(open_frames(refresh)).keys) > 1
    own = Run(capsys, refresh)
    assert own(tmp_path / "whole.mkv", "--codec=ffv1") == 0
    assert own(tmp_path / "a.mkv", "--codec=ffv1", "--segments=0.5") == 0
    assert "segments are made anew: decoding cannot start at every key frame" in own.out
    assert content(tmp_path / "a.mkv") == content(tmp_path / "whole.mkv")


def test_shares_of_several_machines(tmp_path: Path, run: Run) -> None:
    output, report = tmp_path / "a.mkv", tmp_path / "report.json"
    assert run(output, "--codec=ffv1", "--segments=0.5", "--segment=2/3", "--report", report) == 0
    assert "2 segments of this share are finished" in run.out
    (share,) = json.loads(report.read_text())["files"]
    assert (share["result"], share["error"], share["mismatches"]) == ("done", None, [])
    assert share["output"] == {"path": str(tmp_path / "a.rife"), "segments": [1, 4], "frames": 47}
    assert share["counts"]["made"] > 15
    assert share["network"] == ["Loaded shift from memory: 0.00 M parameters, any timestep, float32 on cpu"]
    assert run(output, "--codec=ffv1", "--join") == 1
    assert "a.rife: 3 segments are missing: 0, 2, 3; make them first" in run.err
    for share, line in (("3/3", "1 segment of this share is"), ("1/3", "2 segments of this share are")):
        assert run(output, "--codec=ffv1", f"--segment={share}") == 0
        assert f"{line} finished" in run.out
    assert run(output, "--codec=ffv1", "--join", "--report", report) == 0
    (whole,) = json.loads(report.read_text())["files"]
    assert (whole["result"], whole["output"]["segments"], whole["output"]["packets"]) == ("done", 5, 2 * COUNT - 1)
    assert run(tmp_path / "whole.mkv", "--codec=ffv1") == 0
    assert content(output) == content(tmp_path / "whole.mkv")


def test_a_segment_that_was_cut_off_or_lost_its_record_is_made_again(tmp_path: Path, run: Run) -> None:
    output, folder = tmp_path / "a.mkv", tmp_path / "a.rife"
    assert run(output, "--codec=ffv1", "--segments=0.5", "--segment=1/1") == 0
    for name, kept in (("00001", 0), ("00003", 9000)):
        file = folder / f"{name}.mkv"
        file.write_bytes(file.read_bytes()[:kept])
    (folder / "00002.json").unlink()
    assert run(output, "--codec=ffv1", "--segments=0.5", "--join") == 1
    assert "made again: [1, 2, 3]" in run.err
    assert "3 segments are missing: 1, 2, 3" in run.err
    assert not output.exists()
    assert run(output, "--codec=ffv1", "--segments=0.5") == 0
    assert run(tmp_path / "whole.mkv", "--codec=ffv1") == 0
    assert content(output) == content(tmp_path / "whole.mkv")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_share_that_begins_anew_waits_for_others_and_lets_them_in(tmp_path: Path, run: Run) -> None:
    assert run(tmp_path / "a.mkv", "--segments=0.5", "--segment=1/5") == 0
    file = tmp_path / "a.rife" / "plan.json"
    plan = replace(Plan.read(file), weights="new")
    share = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, 1 | 4, 1, 0); print(flush=True); "
    command = [sys.executable, "-c", share + "time.sleep(float(sys.argv[2]))", str(file.with_name("lock"))]
    with subprocess.Popen([*command, "0.5"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        own = folder.WorkFolder(tmp_path / "a.rife", ".mkv")
        assert own.open(plan, lambda: plan, shared=True, overwrite=True) == Plan.read(file) == plan
    assert not own.is_finished(0)
    assert subprocess.run([*command, "0"], capture_output=True, check=False).returncode == 0
    own.close()


@pytest.mark.parametrize(
    "changed",
    [{"source": []}, {"weights": 3}, {"settings": "x"}, {"parts": [{"begin": "1/0"}]}, {"parts": 5}],
    ids=str,
)
def test_a_damaged_plan_is_refused_and_replaced(tmp_path: Path, run: Run, changed: dict[str, object]) -> None:
    assert run(tmp_path / "a.mkv", "--segments=2", "--segment=1/9") == 0
    file = tmp_path / "a.rife" / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    assert run(tmp_path / "a.mkv", "--segments=2", "--segment=9/9") == 1
    assert "overwrite it" in run.err
    assert "Traceback" not in run.err
    assert run(tmp_path / "a.mkv", "--segments=2", "--segment=9/9", "--overwrite") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
@pytest.mark.slow
def test_a_second_run_is_refused(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 30)
        assert run(tmp_path / "a.mkv", "--segments=0.5") == 1
    other = [sys.executable, "-c", LOCKER, str(tmp_path / "a.rife" / "lock")]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        for arguments in (["--segments=0.5"], ["--segment=1/2"], ["--join"], ["--segments=0.5", "--overwrite"]):
            assert run(tmp_path / "a.mkv", *arguments) == 1
            assert "a.rife: another run works on it now; let that run end" in run.err
        first.communicate(b"\n")
    assert run(tmp_path / "a.mkv", "--segments=0.5") == 0


def test_shares_that_start_at_once_wait_until_one_has_made_the_plan(tmp_path: Path, run: Run) -> None:
    """A process that was killed while it wrote the plan has left a part of it."""
    work = tmp_path / "a.rife"
    work.mkdir()
    (work / "lock").touch()
    (work / "plan.part.json").write_text("{")
    holder = f"{LOCKER.partition('fcntl.lockf')[0]}fcntl.lockf(f, 2, 1, {PLAN}); print(flush=True); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", holder, str(work / "lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert run(tmp_path / "a.mkv", "--segments=1.2", "--segment=1/2") == 0
        assert other.poll() == 0  # the share has waited
    assert sorted(path.name for path in work.iterdir()) == ["00000.json", "00000.mkv", "lock", "plan.json"]


def test_segments_without_a_plan_are_made_anew(tmp_path: Path, run: Run) -> None:
    """As a run leaves them that was killed while it emptied the folder to begin anew."""
    output, settings = tmp_path / "a.mkv", ("--segments=1.2", "--codec=ffv1")
    assert run(output, *settings, "--segment=1/2", "--montage") == 0
    (tmp_path / "a.rife" / "plan.json").unlink()
    assert run(output, *settings) == 0
    assert run(tmp_path / "whole.mkv", "--codec=ffv1") == 0
    assert content(output) == content(tmp_path / "whole.mkv")


def test_folders_of_pictures(tmp_path: Path, run: Run, clip: Path) -> None:
    assert run(tmp_path / "whole", "--png") == 0
    assert run(tmp_path / "joined", "--png", "--segments=0.7") == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(names) == 119
    assert sorted(path.name for path in (tmp_path / "joined").iterdir()) == names
    assert all((tmp_path / "joined" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segments=1", "--codec=gif"], "a.gif: segments cannot be joined in .gif, only in .mp4"),
        (["--join"], "2 segments are missing: 0, 1; make them first"),
    ],
)
def test_impossible_segments_are_refused_before_a_frame_is_computed(
    tmp_path: Path, run: Run, arguments: list[str], message: str
) -> None:
    assert run(tmp_path / ("a.gif" if "gif" in message else "a.mp4"), *arguments, "--segments=1.2") == 1
    assert message in run.err


def test_a_source_that_is_replaced_meanwhile_is_not_mixed_with_the_first(
    tmp_path: Path, run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is longer from the second segment on; when it is as before, the same command continues."""
    source, write = Path(shutil.copy2(clip, tmp_path / "source.mkv")), VideoWriter.write
    settings = (tmp_path / "a.mkv", "--segments=1.2", "--codec=ffv1", "--video", source)

    def replace_source(writer: VideoWriter, frame: Frame) -> None:
        if frame.time > F(3, 2):
            source.write_bytes(clip.read_bytes() + b"more")
        write(writer, frame)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", replace_source)
        assert run(*settings) == 1
    size = clip.stat().st_size
    assert "1 of 2 segments are finished" in run.err
    assert f"{source}: has changed since the work began: " in run.err
    assert f"size was {size}, is {size + 4}; restore it, and continue" in run.err
    source.unlink()
    assert run(*settings) == 1
    shutil.copy2(clip, source)
    assert run(*settings) == 0
    assert "; 1 are finished" in run.out


def test_other_files_in_the_folder_are_never_touched(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.rife").mkdir()
    (tmp_path / "a.rife" / "letter.txt").write_text("dear")
    assert run(tmp_path / "a.mkv", "--segments=1", "--overwrite") == 1
    assert "a.rife: holds other files, as letter.txt; move them" in run.err
    assert (tmp_path / "a.rife" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_a_working_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    (tmp_path / "a.rife").mkdir()
    monkeypatch.setattr(folder.os, "access", lambda path, mode: Path(path).suffix != ".rife")
    assert run(tmp_path / "a.mkv", "--segments=1", *mode) == 1
    assert "a.rife: cannot be written to; choose another output" in run.err


def test_files_that_others_put_into_the_folder_meanwhile_are_kept(tmp_path: Path, run: Run) -> None:
    assert run(tmp_path / "a.mkv", "--segments=1", "--segment=1/9") == 0
    assert run(tmp_path / "a.mkv", "--segments=1", "--preview", tmp_path / "a.rife" / "newest.png") == 0
    assert [path.name for path in (tmp_path / "a.rife").iterdir()] == ["newest.png"]


def test_a_part_of_a_source_is_that_part_of_the_whole(clip: Path) -> None:
    """Decoding starts at a key frame, or at the first frame if there is no key frame at that time."""
    source = open_frames(clip)
    whole = [(frame.time, frame.rgb()) for frame in source]
    scan = scan_source(source)
    assert scan.times == [time for time, _ in whole]
    assert len(scan.keys) > 2
    stamp, time = scan.keys[2].stamp, scan.keys[2].time
    for key in (None, stamp, stamp + F(1, 24)):
        source.part = SourcePart(scan.times[45], scan.times[50], scan.times[43], scan.times[52], key, key and time)
        part = [(frame.time, frame.rgb()) for frame in source]
        assert [time for time, _ in part] == scan.times[43:53]
        assert all(np.array_equal(rgb, whole[43 + i][1]) for i, (_, rgb) in enumerate(part))


def test_boundaries_lie_on_early_key_frames() -> None:
    times = [F(i, 10) for i in range(1000)]
    keys = [Key(F(t), F(t)) for t in (0, 10, 12, 20, 30, 38, 40, 50, 60, 70, 80, 90)]
    parts = cut_source(Scan(times, keys), F(20))
    assert [part.begin for part in parts] == [0, 20, 40, 60, 80]
    few = [Key(F(t), F(t)) for t in (0, 10, 17, 27)]
    assert cut_source(Scan(times, few), F(20))[1].begin == 17  # placed before the usual 10 s
    assert [part.begin for part in cut_source(Scan(times), F(30))] == [0, 30, 60, 90]
    assert [(part.end, part.key) for part in parts][:2] == [(20, None), (40, 12)]
    assert (parts[1].first, parts[1].last, parts[1].number) == (F(188, 10), F(408, 10), 188)


def test_a_source_whose_packets_have_no_times_is_decoded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 20, options={"bf": "3"})
    source = open_frames(clip)
    assert (scan_source(source).decoded, len(scan_source(source).keys)) == (False, 1)
    source.decode_order = True  # as of H.264 with B-frames in AVI
    scan = scan_source(source)
    assert (scan.decoded, len(scan.times), scan.keys) == (True, 20, [])


def test_the_delay_of_decoding() -> None:
    assert decoding_delay([0, 1, 2]) == 0
    assert decoding_delay([0, 4, 2, 1, 3]) == 2
    assert decoding_delay([]) == 0


def test_a_segment_that_does_not_hold_its_frames_is_not_kept(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inspect_video

    def lossy(path: Path) -> object:
        inspection = found(path)
        inspection.times.pop()
        return inspection

    monkeypatch.setattr(worker, "inspect_video", lossy)
    assert run(tmp_path / "a.mkv", "--segments=0.5") == 1
    assert "holds 24 frames of 25, or other times" in run.err or "frames of" in run.err
    assert not list((tmp_path / "a.rife").glob("0*.mkv"))


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_frames(tmp_path: Path, clip: Path, tiny_weights: Path) -> None:
    pytest.importorskip("ray", reason="Ray is optional: pip install ray")
    given = ["--video", clip, "--codec=ffv1", "--model", tiny_weights, "--device=cpu"]
    assert inference_video.main([str(a) for a in (*given, "--output", tmp_path / "whole.mkv")]) == 0
    ray = [*given, "--output", tmp_path / "a.mkv", "--segments=0.9", "--ray=local"]
    assert inference_video.main([str(a) for a in ray]) == 0
    assert content(tmp_path / "a.mkv") == content(tmp_path / "whole.mkv")


def test_an_excerpt_holds_what_a_part_is_made_from(tmp_path: Path, clip: Path) -> None:
    source = open_frames(clip)
    scan = scan_source(source)
    part = cut_source(scan, F(1, 2))[3]
    wanted = [(frame.time, frame.rgb().tobytes()) for frame in replace(source, part=part)]
    excerpt = cut_excerpt(source, part, tmp_path)
    assert len(excerpt.data) < clip.stat().st_size
    (tmp_path / "excerpt.mkv").write_bytes(excerpt.data)
    moved = replace(source, part=part, location=tmp_path / "excerpt.mkv", stream=excerpt.stream)
    assert [(frame.time, frame.rgb().tobytes()) for frame in moved] == wanted
