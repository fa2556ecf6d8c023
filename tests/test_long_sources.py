"""Tests that long work gives the frames of one piece for every kind of source and every flag that shapes frames."""

import argparse
from collections.abc import Callable
from fractions import Fraction as F
from pathlib import Path

import numpy as np
import pytest
import test_alpha
import test_interlace
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from commands import segment_plan
from commands.resize_flags import SPLIT
from commands.video_flags import build_parser, check_arguments
from commands.video_job import plan_job
from model import RIFE
from video.pictures.picture import write_picture
from video.writing.verify import find_missing_pictures

COUNT = 30
FRAME = F(1, 24)


def plain(folder: Path) -> Path:
    return make_clip(folder / "a.mkv", COUNT, pictures=pictures(), audio=["aac"], options={"g": "9", "bf": "2"})


def pictures(depth: int = 8) -> list[np.ndarray]:
    """Returns moving squares with a repeat and a cut."""
    shown = [picture(i % 20, depth=depth) for i in range(COUNT)]
    shown[9] = shown[8]
    return shown[:20] + [shot[::-1, :, ::-1].copy() for shot in shown[20:]]


def variable(folder: Path) -> Path:
    """Steps of 1/24 and 2/24 s, and once half a second."""
    times = [F(0)]
    for i in range(1, COUNT):
        times.append(times[-1] + (F(1, 2) if i == 17 else FRAME * (1 + (i % 3 == 0))))
    return make_clip(folder / "a.mkv", COUNT, pictures=pictures(), times=times, options={"g": "8"})


def hdr(folder: Path) -> Path:
    """Returns HEVC of 10 bits with the tags of PQ."""
    options = {"x265-params": "log-level=none:keyint=8:bframes=2"}
    return make_clip(
        folder / "a.mkv",
        COUNT,
        pictures=pictures(16),
        codec="libx265",
        pix_fmt="yuv420p10le",
        tags=(9, 1, 9, 16),
        options=options,
    )


def rotated(folder: Path) -> Path:
    return make_clip(folder / "a.mp4", COUNT, pictures=pictures(), rotation=90, options={"g": "8"})


def alpha(folder: Path, suffix: str = ".mkv", codec: str = "ffv1", pix_fmt: str = "yuva420p") -> Path:
    shown = [test_alpha.disc(12 + i % 20 * 2) for i in range(COUNT)]
    return test_alpha.make_video(folder / f"a{suffix}", codec, pix_fmt, shown)


def interlaced(folder: Path) -> Path:
    return test_interlace.write(folder / "a.mkv", test_interlace.interlaced(COUNT), F(25))


def telecined(folder: Path) -> Path:
    return test_interlace.write(folder / "a.mkv", test_interlace.telecined(COUNT), F(30000, 1001))


def folder_of_pictures(folder: Path) -> Path:
    place = folder / "pictures"
    place.mkdir()
    for i, shown in enumerate(pictures()):
        write_picture(place / f"{i}.png", shown)
    return place


Make = Callable[[Path], Path]
CASES: list[tuple[str, Make, list[str]]] = [
    ("deinterlace", interlaced, ["--deinterlace"]),
    ("fields", interlaced, ["--deinterlace=field"]),
    ("telecine", telecined, ["--inverse-telecine"]),
    ("alpha", alpha, []),
    ("alpha webm", lambda folder: alpha(folder, ".webm", "libvpx-vp9"), []),
    ("hdr", hdr, []),
    ("rotated", rotated, []),
    ("variable", variable, []),
    ("variable to a rate", variable, ["--target-fps=30"]),
    ("variable retime", variable, ["--dedup=retime"]),
    ("multi", plain, ["--multi=3"]),
    ("fraction", plain, ["--multi=2.5"]),
    ("rate", plain, ["--target-fps=50", "--match-duration=extrapolate"]),
    ("slow", plain, ["--slow=2"]),
    ("span", plain, ["--start=0.2", "--end=1.1", "--match-duration=hold"]),
    ("pictures", folder_of_pictures, ["--dedup=retime", "--pix-fmt=yuv444p"]),
    ("fallback", plain, ["--fallback=blend", "--unsure=1"]),
    ("overlay", plain, ["--protect-static"]),
]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))


def run(source: Path, output: Path, *arguments: str) -> int:
    kind = "--img" if source.is_dir() else "--video"
    return inference_video.main([kind, str(source), "--output", str(output), "--device=cpu", *arguments])


@pytest.mark.parametrize(("make", "given"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_source_gives_the_frames_of_one_piece(tmp_path: Path, make: Make, given: list[str]) -> None:
    source = make(tmp_path)
    made = []
    for name, segments in (("whole.mkv", "0"), ("joined.mkv", "0.4")):
        assert run(source, tmp_path / name, "--codec=ffv1", f"--segments={segments}", *given) == 0
        clip = Clip(tmp_path / name)
        planes = [clip.planes(i) for i in range(len(clip.times))]
        shape = clip.size, clip.pix_fmt, clip.rotation, clip.tags, clip.aspect, clip.rate, clip.duration
        made.append((clip.times, planes, clip.packets.get("audio 0"), shape))
    assert made[0] == made[1]
    assert len(made[0][0]) > COUNT


def test_lossy_alpha_is_joined_with_the_picture(tmp_path: Path) -> None:
    """WebM keeps alpha beside each packet: it is there in every segment."""
    source = alpha(tmp_path, ".webm", "libvpx-vp9")
    assert run(source, tmp_path / "b.webm", "--segments=0.4") == 0
    shown = [test_alpha.alpha_of(frame) for frame in test_alpha.decoded(tmp_path / "b.webm")]
    assert len(shown) == 2 * COUNT - 1
    assert all(alpha.max() > 100 and alpha.min() < 50 for alpha in shown)


def test_pictures_of_a_folder_are_verified(tmp_path: Path) -> None:
    source = plain(tmp_path)
    for name, segments in (("whole", "0"), ("joined", "0.4")):
        assert run(source, tmp_path / name, "--png", f"--segments={segments}", "--multi=3") == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(names) == 3 * (COUNT - 1) + 1
    assert all((tmp_path / "joined" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)
    assert find_missing_pictures(tmp_path / "joined", len(names)) == []
    (tmp_path / "joined" / names[7]).unlink()
    (tmp_path / "joined" / names[9]).write_bytes(b"")
    lines = find_missing_pictures(tmp_path / "joined", len(names))
    assert lines == [f"2 of {len(names)} pictures are missing or empty, the first is 0000007"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--loop"], "a loop reaches over segments"),
        (["--blur=180", "--target-fps=24"], "the blur of a shutter reaches over segments"),
        (["--ext=gif"], "segments cannot be joined in .gif, only in .mp4, .m4v, .mov, .mkv, .webm"),
        (["--stitch"], "two views are read at once"),
        (["--on-resize=split"], "a file is made for each size of the frames"),
    ],
)
def test_long_work_in_one_piece_is_announced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    reason: str,
) -> None:
    clip = plain(tmp_path)
    monkeypatch.setattr(segment_plan, "estimate_seconds", lambda args, job: 1500.0)
    args = parsed(["--stitch", str(clip), str(clip)] if given == ["--stitch"] else ["--video", str(clip), *given])
    args.span = argparse.Namespace(number=1, apply=lambda source: source) if args.on_resize == SPLIT else None
    assert not segment_plan.is_long_work(args, plan_job(args))
    about = f"about 25 min of work, made in one piece because {reason}: a run that is ended begins anew\n"
    assert capsys.readouterr().out == about
    monkeypatch.setattr(segment_plan, "estimate_seconds", lambda args, job: 500.0)
    assert not segment_plan.is_long_work(args, plan_job(args))
    assert capsys.readouterr().out == ""


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(arguments)
    check_arguments(parser, args)
    return args
