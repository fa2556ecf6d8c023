"""Tests samples: reproducible, exact flows, augmentation, the layouts of Vimeo90K and of clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data import synthetic
from data.clip_cache import cached_clip, find_runs
from data.clips import Clips, ClipSettings, pan_over
from data.recode import CODERS, QUANTISERS, recode
from data.sample import TrainingSample, augment, find_one_sided, pack
from data.synthetic import Layer, Motion, Wave, exact_flow, grid, render, scene, visibility
from dataset import BatchSampler, Mixture, Samples, Scenes, Spread, Vimeo
from model.errors import UserError
from model.networks.warp import warp


def smooth_picture(seed: int, h: int = 160, w: int = 200) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (h // 8, w // 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def textures() -> list[np.ndarray]:
    return [smooth_picture(seed) for seed in range(3)]


def bent() -> Motion:
    wave = Wave(np.array([3.0, 2.0]), np.array([2.0, -1.0]), np.array([0.05, 0.07]), np.array([0.3, 1.0]))
    camera = Motion(np.full(2, 48.0), np.full(2, 48.0), np.array([2.0, 1.0]), spin=0.05)
    return Motion(
        np.array([100.0, 80.0]),
        np.array([48.0, 48.0]),
        np.array([6.0, -4.0]),
        angle=0.2,
        spin=0.1,
        zoom=1.1,
        growth=0.1,
        tilt=np.array([1e-3, -5e-4]),
        swing=np.array([3e-4, 2e-4]),
        bend=0.05,
        wave=wave,
        camera=camera,
    )


def test_motion_inverts_itself() -> None:
    points = grid((slice(0, 96), slice(0, 96)))
    for time in (0.0, 0.3, 1.0):
        back = bent().to_canvas(bent().to_texture(points, time), time)
        assert max(np.abs(a - b).max() for a, b in zip(back, points, strict=True)) < 2e-3


def test_a_layer_is_inside_its_box() -> None:
    """Nothing of it is drawn outside, and inside it is what is drawn on the whole canvas."""
    rng = np.random.default_rng(0)
    thing = np.full((30, 50, 4), 255, np.uint8)
    whole = slice(0, 96), slice(0, 96)
    corner = Motion(np.array([25.0, 15.0]), np.array([90.0, 5.0]), np.array([9.0, -9.0]), angle=0.7)
    near = replace(corner, tilt=np.array([0.1, 0.0]), swing=np.zeros(2))  # its left edge is behind the viewer
    gone = replace(corner, place=np.array([-60.0, 48.0]))
    wave = Wave(np.full(2, 12.0), np.zeros(2), np.full(2, 0.05), np.array([0.3, 1.0]))
    centred = replace(bent(), pivot=np.array([25.0, 15.0]), wave=wave)
    motions = [replace(centred, place=rng.uniform(0, 96, 2)) for _ in range(20)]
    for motion in [*motions, corner, near, gone]:
        layer = Layer(thing, motion)
        box = layer.box(0.3, 96)
        drawn, outside = layer.draw(0.3, whole), layer.draw(0.3, whole)
        outside[box] = 0
        assert not outside.any()
        if drawn[box].size:
            assert np.abs(layer.draw(0.3, box).astype(int) - drawn[box]).max() <= 1
            assert (motion is near) == (box == whole)
        else:
            assert motion is gone


def test_exact_flow_brings_the_ends_to_the_middle() -> None:
    background = Layer(np.dstack((smooth_picture(1), np.full((160, 200), 255, np.uint8))), bent(), endless=True)
    disc = np.zeros((40, 40), np.uint8)
    cv2.circle(disc, (20, 20), 15, 255, -1)
    front = np.dstack((smooth_picture(2, 40, 40) * (disc[..., None] > 0), disc))
    thing = Layer(front, Motion(np.full(2, 20.0), np.full(2, 48.0), np.array([20.0, 8.0])))
    layers = [background, thing]
    frames = {time: render(layers, time, 96) for time in (0.0, 0.4, 1.0)}
    middle, owner, pure = frames[0.4]
    assert (owner == 1).sum() > 500
    for end in (0.0, 1.0):
        flow = exact_flow(layers, owner, 0.4, end)
        seen = visibility(owner, frames[end][1], flow)
        image = torch.from_numpy(frames[end][0]).permute(2, 0, 1)[None]
        warped = warp(image, torch.from_numpy(flow)[None])[0].permute(1, 2, 0).numpy()
        error = np.abs(warped - middle).mean(2)
        assert error[seen & pure].mean() < 1.0  # grey levels: two resamplings of a smooth texture
        assert error[~seen].mean() > 5 * error[seen & pure].mean()
        inside = slice(20, 60)
        assert seen[inside, inside].mean() > 0.7


def test_scene_is_a_triplet_with_flow(textures: list[np.ndarray]) -> None:
    made = scene(np.random.default_rng(5), 64, textures)
    assert made["img0"].shape == (3, 64, 64)
    assert made["img0"].dtype == torch.uint8
    assert made["flow"].shape == (4, 64, 64)
    assert made["flow"].isfinite().all()
    assert 0 <= float(made["timestep"]) <= 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_flow_is_in_pixels_of_the_scene(
    textures: list[np.ndarray], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends, moved by the flow, are the middle; also if the scene was drawn at twice the size."""
    monkeypatch.setattr(synthetic, "FINE_SHARE", share)
    errors = []
    for seed in range(12):
        made = scene(np.random.default_rng(seed), 96, textures)
        for i, end in enumerate(("img0", "img1")):
            known, flow = made["known"][i].bool(), made["flow"][None, 2 * i : 2 * i + 2]
            assert known.shape == (96, 96)
            warped = [warp(made[end][None].float(), k * flow)[0] for k in (0.5, 1, 2)]
            errors.append([float((one - made["gt"]).abs().mean(0)[known].mean()) for one in warped if known.any()])
    half, exact, double = np.mean([e for e in errors if e], 0)
    assert exact < 0.5 * min(half, double)


def test_same_samples_from_any_number_of_workers(textures: list[np.ndarray]) -> None:
    data = Samples(Mixture([Scenes(textures, 32), Scenes(textures[:1], 32)], [1, 2], 12), seed=3)

    def first(workers: int) -> list[TrainingSample]:
        batches = iter(DataLoader(data, batch_sampler=BatchSampler(12, 2, seed=7), num_workers=workers))
        return [next(batches) for _ in range(8)]  # more than an epoch

    for alone, with_two in zip(first(0), first(2), strict=True):
        assert all(torch.equal(alone[key], with_two[key]) for key in alone)


def test_a_spread_takes_samples_from_the_whole_source() -> None:
    class Numbers:
        def __len__(self) -> int:
            return 10

        def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
            return {"number": torch.tensor(index)}

    data = Samples(Spread(Numbers(), 4), seed=0)
    assert [int(data[(0, i)]["number"]) for i in range(len(data))] == [0, 2, 5, 7]


def test_order_resumes_and_splits() -> None:
    def first(count: int, **options: Any) -> list[list[tuple[int, int]]]:
        batches = iter(BatchSampler(10, options.pop("batch", 2), seed=1, **options))
        return [next(batches) for _ in range(count)]

    whole = first(12)
    assert first(5, step=7) == whole[7:]
    epoch0 = [key[1] for batch in whole[:5] for key in batch]
    epoch1 = [key[1] for batch in whole[5:10] for key in batch]
    assert sorted(epoch0) == sorted(epoch1) == list(range(10))
    assert epoch0 != epoch1
    halves = zip(first(12, batch=1, world=2), first(12, batch=1, world=2, rank=1), strict=True)
    assert [a + b for a, b in halves] == whole
    with pytest.raises(UserError, match="make the batch smaller"):
        BatchSampler(3, 4, seed=1)


def test_augmentation_moves_flow_with_the_pictures() -> None:
    """img0 is the middle shifted by a flow that differs from place to place; still so after any augmentation."""
    rng = np.random.default_rng(0)
    middle = smooth_picture(4, 64, 64)
    flow = np.zeros((4, 64, 64), np.float32)
    flow[0, :, :32], flow[1], flow[2], flow[3] = 3, 2, -3, -2
    img0, img1 = np.roll(middle, (2, 3), (0, 1)), np.roll(middle, (-2, -3), (0, 1))
    img0[:, 34:] = np.roll(middle, 2, 0)[:, 34:]  # the right half moves down only
    known = np.zeros((2, 64, 64), bool)
    known[:, 8:-8, 8:24] = known[0, 8:-8, 40:56] = known[1, 8:-8, 8:48] = True
    timesteps = set()
    for _ in range(40):
        out = augment(rng, pack([img0, middle, img1], 0.25, flow=flow, known=known, one_sided=find_one_sided(known)))
        timesteps.add(float(out["timestep"]))
        for end, half in (("img0", 0), ("img1", 1)):
            warped = warp(out[end][None].float(), out["flow"][None, 2 * half : 2 * half + 2])[0]
            error = (warped - out["gt"].float()).abs().mean(0)
            assert error[out["known"][half] > 0].max() < 0.1
            alone = out["known"][half].bool() & ~out["known"][1 - half].bool()
            assert torch.equal(out["one_sided"][0] == half + 1, alone)
    assert timesteps == {0.25, 0.75}


@pytest.fixture
def vimeo(tmp_path: Path) -> Path:
    """Makes twenty sequences; picture n of sequence s is grey 10*n, and s in its red channel."""
    for kind, frames in (("tri", 3), ("sep", 7)):
        root = tmp_path / kind
        for s in range(20):
            folder = root / "sequences" / "00001" / f"{s:04}"
            folder.mkdir(parents=True)
            for n in range(frames):
                picture = np.full((36, 40, 3), 10 * n, np.uint8)
                picture[..., 2] = s  # BGR
                cv2.imwrite(str(folder / f"im{n + 1}.png"), picture)
        names = "\n".join(f"00001/{s:04}" for s in range(20)) + "\n\n"
        (root / f"{kind}_trainlist.txt").write_text(names)
        (root / f"{kind}_testlist.txt").write_text(names)
    return tmp_path


def test_vimeo_triplets(vimeo: Path) -> None:
    train, held, test = (Vimeo(vimeo / "tri", split, crop=32) for split in ("train", "validation", "test"))
    assert (len(train), len(held), len(test)) == (19, 1, 20)
    sample = held.sample(np.random.default_rng(0), 0)
    assert sample["gt"].shape == (3, 36, 40)
    assert sample["gt"][0, 0, 0] == 19  # the last of the list, red first
    assert sample["img1"][1, 0, 0] == 20
    assert train.sample(np.random.default_rng(0), 3)["img0"].shape == (3, 32, 32)
    with pytest.raises(UserError, match="tri_trainlist"):
        Vimeo(vimeo)


def test_septuplets_give_any_timestep(vimeo: Path) -> None:
    source = Vimeo(vimeo / "sep", crop=32)
    timesteps = set()
    for index in range(19):
        sample = source.sample(np.random.default_rng(index), index)
        n0, n1, n2 = (float(sample[key][1, 0, 0]) / 10 for key in ("img0", "gt", "img1"))
        assert float(sample["timestep"]) == pytest.approx((n1 - n0) / (n2 - n0))
        timesteps.add(float(sample["timestep"]))
    assert len(timesteps) > 5
    assert not timesteps & {0.0, 1.0}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Returns twenty frames moving right by 2 px, one of them shown twice, a cut after the tenth."""
    path = tmp_path / "clip.mp4"
    scenes = smooth_picture(1, 96, 200), smooth_picture(9, 96, 200)
    numbers = [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, *range(10)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.options = {"qmin": "1", "qmax": "1"}
        for i, n in enumerate(numbers):
            picture = np.ascontiguousarray(scenes[i // 10][:, 2 * n : 2 * n + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_clips_leave_out_repeats_and_cuts(clip: Path, tmp_path: Path) -> None:
    kept, runs = cached_clip(clip, tmp_path / "cache")
    frames = np.array(kept)
    assert frames.shape == (20, 96, 128, 3)
    assert runs.tolist() == [[0, 4], [4, 10], [10, 20]]
    assert np.array_equal(find_runs(frames), runs)
    source = Clips([clip], tmp_path / "cache", 64, ClipSettings(weak=0.3))
    assert len(source) == 2 + 4 + 8
    for index in range(len(source)):
        sample = source.sample(np.random.default_rng(index), index)
        assert sample["gt"].shape == (3, 64, 64)
        assert 0 < float(sample["timestep"]) < 1
    assert sample["known"].float().mean() > 0.5


def test_processes_may_fill_one_cache_at_once(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process writes what it decoded, another does so from start to end."""
    save = np.save
    others: list[tuple[np.ndarray, np.ndarray]] = []

    def slowly(file: Any, array: np.ndarray) -> None:
        monkeypatch.setattr("numpy.save", save)
        kept, found = cached_clip(clip, tmp_path / "cache")
        others.append((np.array(kept), found))
        save(file, array)

    monkeypatch.setattr("numpy.save", slowly)
    frames, runs = cached_clip(clip, tmp_path / "cache")
    for made, other in zip((np.array(frames), runs), others[0], strict=True):
        assert np.array_equal(made, other)
    assert sorted("".join(p.suffixes) for p in (tmp_path / "cache").iterdir()) == [".npy", ".runs.npy"]


@pytest.mark.parametrize("name", CODERS)
def test_coding_keeps_what_matters_and_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame comes back in its place, near what it was, and worse at a lower quality; so often that all happens."""
    monkeypatch.setattr("data.recode.CODERS", (name,))
    wide = smooth_picture(3, 96, 160)
    frames = [np.ascontiguousarray(wide[:, 4 * n : 4 * n + 128]) for n in range(6)]
    error = []
    for quantiser in QUANTISERS:
        monkeypatch.setattr("data.recode.QUANTISERS", (quantiser, quantiser))
        for seed in range(8):
            coded = recode(np.random.default_rng(seed), frames)
            assert [picture.shape for picture in coded] == [(96, 128, 3)] * 6
            differences = np.array([[cv2.absdiff(a, b).mean() for b in frames] for a in coded])
            assert differences.argmin(1).tolist() == [0, 1, 2, 3, 4, 5]
            error.append(differences.diagonal().mean())
    assert 0 < max(error[:8]) < min(error[8:]) < max(error) < 12


def test_weak_clips_are_coded_anew_every_time(clip: Path, tmp_path: Path) -> None:
    sources = [Clips([clip], tmp_path / "cache", 64, ClipSettings(False, weak, 0.5)) for weak in (0.0, 1.0)]
    good, weak = (source.sample(np.random.default_rng(4), 8)["gt"] for source in sources)
    assert torch.equal(weak, sources[1].sample(np.random.default_rng(4), 8)["gt"])
    assert not torch.equal(weak, sources[1].sample(np.random.default_rng(5), 8)["gt"])
    assert weak.shape == good.shape == (3, 64, 64)


def test_a_moving_camera_moves_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    def twelve_right(*_: object) -> Motion:
        return Motion(np.zeros(2), np.zeros(2), np.array([12.0, 0.0]))

    monkeypatch.setattr("data.clips.draw_motion", twelve_right)
    still = [smooth_picture(3, 240, 300)] * 3
    img0, gt, img1 = pan_over(np.random.default_rng(5), still, (0.0, 0.25, 1.0), 64, (2.0, 2.0))
    for moved, by in ((gt, 3), (img1, 12)):
        assert cv2.absdiff(np.ascontiguousarray(moved[:, by:]), np.ascontiguousarray(img0[:, :-by])).max() <= 1
        assert not np.array_equal(moved, img0)


def test_clips_with_added_camera_motion(clip: Path, tmp_path: Path) -> None:
    source = Clips([clip], tmp_path / "cache", 64, ClipSettings(False, moved=1.0))
    plain = Clips([clip], tmp_path / "cache", 64, ClipSettings(False))
    made, again, unmoved = (s.sample(np.random.default_rng(8), 8) for s in (source, source, plain))
    assert made["gt"].shape == (3, 64, 64)
    assert torch.equal(made["gt"], again["gt"])
    assert not torch.equal(made["gt"], unmoved["gt"])
    assert float(made["gt"].float().std()) > 5


def test_guessed_flow_is_the_motion(clip: Path, tmp_path: Path) -> None:
    source = Clips([clip], tmp_path / "cache", 96)
    errors = []
    for index in range(6, 14):  # the second scene
        sample = source.sample(np.random.default_rng(index), index)
        t, seen = float(sample["timestep"]), sample["known"][0].bool()
        ratio = sample["flow"][:2, seen].norm(dim=0).median() / sample["flow"][2:, seen].norm(dim=0).median()
        errors.append(abs(float(ratio) - t / (1 - t)))
    assert np.median(errors) < 0.1
