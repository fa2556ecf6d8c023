"""Tests camera pans with exact flow, folders of triplets in every layout, gaps of clips, and damaged files."""

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from data.clip_cache import cached_clip
from data.clips import Clips, ClipSettings, motion_of
from data.pans import Pans
from data.triplets import Triplets, find_triplets
from dataset import Samples
from model.errors import UserError
from model.networks.warp import warp


def smooth_picture(seed: int, h: int = 160, w: int = 200) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (h // 8, w // 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC))


def test_the_flow_of_a_pan_leads_both_ends_to_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.synthetic.add_effects", lambda rng, frames, times: [np.uint8(f) for f in frames])
    pans = Pans([smooth_picture(1, 240, 320)], 96, (20, 40))
    for seed in range(6):
        made = pans.sample(np.random.default_rng(seed), 0)
        t, flow = float(made["timestep"]), made["flow"]
        away = flow.unflatten(0, (2, 2)).norm(dim=1).mean((1, 2))  # mean lengths to img0 and img1
        assert 5 < float(away.sum()) < 60
        assert float(away[0] / away.sum()) == pytest.approx(t, abs=0.15)
        for i, end in enumerate(("img0", "img1")):
            both = (made["one_sided"][0] == 0) & made["known"][i].bool()
            there = flow[None, 2 * i : 2 * i + 2]
            warped = [warp(made[end][None].float(), k * there)[0] for k in (0.0, 0.9, 1.0, 1.1)]
            errors = [float((image - made["gt"]).abs()[:, both].mean()) for image in warped]
            assert errors[2] == min(errors)
            assert errors[2] < 8  # grey levels, of some 60 that neighbouring patches differ by


def test_pans_mark_what_one_end_alone_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that moves right by 40 px: the right strip of the middle frame is not in img0, the left not in img1."""
    motion = {"travel": np.array([-40.0, 0.0]), "spin": 0.0, "growth": 0.0, "angle": 0.0}
    monkeypatch.setattr("data.pans._draw_motion", lambda *_: motion)
    monkeypatch.setattr("data.pans.OBJECTS_SHARE", 0.0)
    monkeypatch.setattr("data.pans.MIDDLE_SHARE", 1.0)
    monkeypatch.setattr("data.pans.augment", lambda rng, sample: sample)
    made = Pans([smooth_picture(1, 240, 320)], 96, (40, 40)).sample(np.random.default_rng(0), 0)
    assert torch.allclose(made["flow"][:, 50, 50], torch.tensor([20.0, 0, -20, 0]), atol=1e-3)
    columns = made["one_sided"][0, 40]
    assert columns[:19].tolist() == [1] * 19
    assert columns[24:72].tolist() == [0] * 48
    assert columns[77:].tolist() == [2] * 19


def write(path: Path, level: int, size: tuple[int, int] = (40, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


LAYOUTS = {
    "vimeo": ["a/0001/im1.png", "a/0001/im2.png", "a/0001/im3.png"],
    "ucf": ["1/frame_00.png", "1/frame_01_gt.png", "1/frame_02.png"],
    "middlebury": ["Urban/frame10.png", "Urban/frame10i11.png", "Urban/frame11.png"],
    "gt last": ["x/a.jpg", "x/gt.jpg", "x/b.jpg"],
    "beside the files of macOS": ["a/im1.png", "a/im2.png", "a/im3.png", "a/._im1.png", "a/._im2.png"],
    "numbered": ["cat_1.png", "cat_2.png", "cat_3.png", "dog_1.png", "dog_2.png"],
    "side by side": ["first/7.png", "target/7.png", "second/7.png"],
    "three side by side": [f"{folder}/{n}.png" for n in (1, 2, 3) for folder in ("img0", "gt", "img1")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_triplets_are_found_in_any_layout(tmp_path: Path, layout: str) -> None:
    names = LAYOUTS[layout]
    for i, name in enumerate(names):
        write(tmp_path / name, 10 * (i % 3))
    lines: list[str] = []
    found = find_triplets(tmp_path, lines.append)
    assert len(found) == (3 if layout == "three side by side" else 1)
    expected = sorted(names[:3]) if layout == "numbered" else names[:3]
    assert {path.relative_to(tmp_path).as_posix() for path in found[0]} == set(expected)
    assert found[0][1] == tmp_path / names[1]
    assert len(lines) == (layout == "numbered")  # the two pictures of the dog


def test_a_folder_without_triplets_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "one.png", 0)
    with pytest.raises(UserError, match="no triplet of pictures"):
        find_triplets(tmp_path, lambda line: None)


def test_a_damaged_triplet_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        for i in (1, 2, 3):
            write(tmp_path / f"{n}/im{i}.png", 10 * n + i)
    (tmp_path / "1/im2.png").write_bytes(b"no picture")
    data = Samples(Triplets(find_triplets(tmp_path, print), 32), 0)
    assert int(data[(0, 1)]["gt"].float().mean()) == 22
    assert "1/im2.png" in capsys.readouterr().err
    for n in (0, 2):
        (tmp_path / f"{n}/im1.png").write_bytes(b"")
    with pytest.raises(UserError, match="in a row"):
        data[(0, 0)]


MakeClip = Callable[..., Path]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Writes a clip of 24 frames that moves right by `speed` px a frame."""

    def make(name: str, speed: int = 2) -> Path:
        path, wide = tmp_path / "clips" / name, smooth_picture(1, 96, 400)
        path.parent.mkdir(exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.options = {"qmin": "1", "qmax": "1"}
            for n in range(24):
                picture = np.ascontiguousarray(wide[:, speed * n : speed * n + 128])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return make


def test_gaps_set_how_far_frames_are_apart(make_clip: MakeClip, tmp_path: Path) -> None:
    clips = Clips([make_clip("a.mp4")], tmp_path / "cache", 64, ClipSettings(False, gaps=(3, 5)))
    rng, found = np.random.default_rng(0), set()
    for n0 in range(22):
        first, middle, last = clips._frames(rng, n0, 0, 24)
        assert 0 <= first < middle < last < 24
        found.add(last - first)
    assert found == {6, 10}
    assert clips._frames(rng, 0, 0, 6)[2] - 0 == 4  # the longest that a run of six frames allows
    assert clips.sample(rng, 3)["gt"].shape == (3, 64, 64)


def test_clips_that_move_more_are_drawn_more_often(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_clip("slow.mp4", 1), make_clip("fast.mp4", 4)]
    monkeypatch.setattr("data.clips.MOTION_LEVELS", 255.0)
    clips = Clips(files, tmp_path / "cache", 64, ClipSettings(False, by_motion=True))
    slow, fast = (motion_of(frames, 0, 24) for frames, _ in clips.clips)
    assert fast > 1.5 * slow
    assert clips.shares[1] / clips.shares[0] == pytest.approx(fast / slow, rel=1e-3)


def test_damaged_clips_are_skipped(make_clip: MakeClip, tmp_path: Path) -> None:
    good, bad, empty = make_clip("good.mp4"), tmp_path / "clips/bad.mp4", tmp_path / "clips/empty.mp4"
    bad.write_bytes(good.read_bytes()[:200])
    empty.touch()
    lines: list[str] = []
    clips = Clips([bad, empty, good], tmp_path / "cache", 64, report=lines.append)
    assert len(clips.clips) == 1
    assert [line.partition(" ")[0] for line in lines] == ["bad.mp4", "empty.mp4", "good.mp4:"]
    assert lines[-1] == f"good.mp4: {len(clips.clips[0][0])} frames decoded into {tmp_path / 'cache'}"
    assert all("\n" not in line for line in lines)
    with pytest.raises(UserError, match="three frames in a row"):
        Clips([bad], tmp_path / "cache", 64)


def test_a_cut_off_cache_is_made_again_and_other_files_of_a_name_are_other_clips(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    file, cache = make_clip("a.mp4"), tmp_path / "cache"
    frames = np.array(cached_clip(file, cache)[0])
    kept = next(p for p in cache.iterdir() if not p.name.endswith(".runs.npy"))
    kept.write_bytes(kept.read_bytes()[:1000])
    assert np.array_equal(cached_clip(file, cache)[0], frames)
    assert not np.array_equal(cached_clip(make_clip("a.mp4", 8), cache)[0], frames)
