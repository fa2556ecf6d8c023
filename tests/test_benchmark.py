"""Tests every benchmark script on a tiny data set of its layout, against scores computed by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scored import Evaluate, Recording, blend, middlebury, pictures, psnr, ssim_volume, value, write
from skimage.color import rgb2yuv
from skimage.metrics import structural_similarity

from benchmark import SNU_FILM, X4K1000FPS, Xiph, common, hd_clips, yuv
from video.pictures.picture import read_picture


def test_ucf101_and_its_outputs(tmp_path: Path, evaluate: Evaluate) -> None:
    triplets = {name: pictures(i) for i, name in enumerate(("2", "10"))}
    for name, (first, middle, last) in triplets.items():
        write({tmp_path / name / f: p for f, p in (("frame_00.png", first), ("frame_01_gt.png", middle),
                                                   ("frame_02.png", last))})  # fmt: skip
    net = Recording()
    out = tmp_path / "out"
    report = evaluate("UCF101", net, tmp_path, "--json", str(out / "all.json"), "--save-frames", str(out))
    expected = [psnr(blend(a, c), b) for a, b, c in triplets.values()]
    assert value(report, "PSNR") == pytest.approx(np.mean(expected), abs=1e-4)
    assert value(report, "PSNR", method="average") == pytest.approx(np.mean(expected), abs=1e-4)
    repeated = [psnr(a, b) for a, b, _ in triplets.values()]
    assert value(report, "PSNR", method="first frame") == pytest.approx(np.mean(repeated), abs=1e-4)
    row = report["rows"][0]
    assert (row["published"], row["difference"]) == (35.282, pytest.approx(row["value"] - 35.282))
    assert (report["samples"], report["of"]) == (2, 379)
    # the network was given BGR, the picture written is RGB, and folder 2 comes before folder 10
    np.testing.assert_allclose(net.inputs[0][0][0, 0].numpy() * 255, triplets["2"][0][:, :, 2], atol=1e-3)
    np.testing.assert_array_equal(read_picture(out / "2_0.5.png"), blend(triplets["2"][0], triplets["2"][2]))
    each = json.loads((out / "all.json").read_text())["each"]
    assert [(r["sample"], r["method"]) for r in each[:4]] == [
        ("2", method) for method in ("fake", "first frame", "average", "DIS flow")
    ]
    assert each[0]["PSNR"] == pytest.approx(expected[0], abs=1e-4)


def test_vimeo_takes_the_list(tmp_path: Path, evaluate: Evaluate) -> None:
    triplets = {name: pictures(i) for i, name in enumerate(("00001/0389", "00002/0001", "00003/0001"))}
    for name, frames in triplets.items():
        write({tmp_path / "target" / name / f"im{i}.png": p for i, p in enumerate(frames, 1)})
    (tmp_path / "tri_testlist.txt").write_text("00001/0389\n00003/0001\n\n")
    report = evaluate("Vimeo90K", Recording(), tmp_path)
    listed = triplets["00001/0389"], triplets["00003/0001"]
    expected = [psnr(blend(a, c), b) for a, b, c in listed]
    assert value(report, "PSNR") == pytest.approx(np.mean(expected), abs=1e-4)
    similar = [ssim_volume(blend(a, c) / 255, b / 255) for a, b, c in listed]
    assert value(report, "SSIM") == pytest.approx(np.mean(similar), abs=1e-4)
    assert [row["published"] for row in report["rows"] if row["published"]] == [35.615, 0.9779]
    assert evaluate("Vimeo90K", Recording(), tmp_path, "--limit", "1")["samples"] == 1


def test_middlebury_scores_mean_absolute_levels(tmp_path: Path, evaluate: Evaluate) -> None:
    scenes = middlebury(tmp_path, (24, 32))
    net = Recording()
    report = evaluate("MiddleBury_Other", net, tmp_path)
    expected = np.mean([np.abs(blend(a, c) - b).mean() for a, b, c in scenes.values()])
    assert value(report, "IE") == pytest.approx(expected, abs=1e-4)
    assert report["rows"][0]["difference"] == pytest.approx(expected - 1.956, abs=1e-4)
    assert net.inputs[0][0].shape == (1, 3, 480, 640)


def test_atd_pads_two_rows_on_each_side(tmp_path: Path, evaluate: Evaluate) -> None:
    frames = pictures(0, size=(60, 96))
    write({tmp_path / "A_1" / f"frame{i}.png": p for i, p in enumerate(frames, 1)})
    net = Recording()
    report = evaluate("ATD12K", net, tmp_path)
    assert value(report, "PSNR") == pytest.approx(psnr(blend(frames[0], frames[2]), frames[1]), abs=1e-4)
    seen = net.inputs[0][0].flip(1)[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(seen, np.pad(frames[0], ((2, 2), (0, 0), (0, 0)), "edge"), atol=1e-3)


@pytest.fixture
def hd_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Returns the frames as RGB, by name, of small clips of nine frames each, the first a short and easier one."""
    small = {720: (32, 24), 1080: (48, 32), 544: (40, 16)}
    clips = {}
    for i, (name, (_, height)) in enumerate(hd_clips.CLIPS.items()):
        size = small[height]
        monkeypatch.setitem(hd_clips.CLIPS, name, size)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        samples = np.random.default_rng(i).integers(0, 256, size[0] * size[1] * 3 // 2 * 9, np.uint8)
        path.write_bytes((samples if i else samples[: 5 * samples.size // 9] // 4 + 96).tobytes())
        with path.open("rb") as stream:
            clips[name] = [yuv.to_rgb(f) for f in yuv.read_yuv420(stream, *size, chroma="nearest")]
    return clips


def y_psnr(made: np.ndarray, truth: np.ndarray) -> float:
    a, b = (rgb2yuv(picture / 255)[:, :, 0] for picture in (made, truth))
    return -10 * np.log10(np.mean((a - b) ** 2))


def test_hd_takes_fifty_pairs_of_each_of_the_eleven_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [Path(name).parent.name for name in hd_clips.CLIPS]
    assert [folders.count(name) for name in ("HD720p_GT", "HD1080p_GT", "HD544p_GT")] == [3, 4, 4]
    assert all(f"{folder[2:-4]}" == str(height) for folder, (_, height) in zip(folders, hd_clips.CLIPS.values(),
                                                                              strict=True))  # fmt: skip
    monkeypatch.setattr(hd_clips, "CLIPS", {"long.yuv": (4, 2)})
    planes = [bytes([i] * 8 + [128] * 4) for i in range(105)]  # grey, as bright as the frame's number
    (tmp_path / "long.yuv").write_bytes(b"".join(planes))
    for step, count in ((2, 50), (4, 25)):
        found = list(hd_clips.samples_of_clips(tmp_path, step=step))
        assert len(found) == count
        assert (found[0].name, found[-1].name) == ("long 0", f"long {100 - step}")
        brightness = [int(picture.mean().round()) for picture in (found[-1].frames[0], found[-1].frames[1])]
        assert brightness == [100 - step, 100]
        assert [float(t) for t in found[-1].targets] == [i / step for i in range(1, step)]


def test_hd_means_over_each_clip_first(
    tmp_path: Path, hd_data: dict[str, list[np.ndarray]], evaluate: Evaluate
) -> None:
    net = Recording()
    report = evaluate("HD", net, tmp_path)
    means = [
        np.mean([y_psnr(blend(clip[i], clip[i + 2]), clip[i + 1]) for i in range(0, len(clip) - 2, 2)])
        for clip in hd_data.values()
    ]
    assert means[0] > means[1] + 5  # so a mean over all samples would be another number
    assert value(report, "Y-PSNR") == pytest.approx(np.mean(means), abs=0.01)  # halves may round either way
    assert report["rows"][0]["published"] == 32.14
    assert (report["samples"], report["of"]) == (42, 550)
    first = next(iter(hd_data.values()))[0]
    given = net.inputs[0][0][0].permute(1, 2, 0).numpy() * 255  # RGB here; 24x32 centred in 64x64
    np.testing.assert_allclose(given[20:44, 16:48], first, atol=1e-3)


def test_hd_4x_makes_the_quarters_and_groups_by_rows(
    tmp_path: Path, hd_data: dict[str, list[np.ndarray]], evaluate: Evaluate
) -> None:
    net = Recording()
    report = evaluate("HD_multi_4X", net, tmp_path, "--no-baselines")
    for group, names in (("24p", "HD720p"), ("32p", "HD1080p"), ("16p", "HD544p")):
        means = [
            np.mean(
                [y_psnr(blend(c[k], c[k + 4], j / 4), c[k + j]) for k in range(0, len(c) - 4, 4) for j in (1, 2, 3)]
            )
            for name, c in hd_data.items()
            if name.startswith(names)
        ]
        assert value(report, "Y-PSNR", group) == pytest.approx(np.mean(means), abs=0.01)
    assert net.timesteps[:3] == [0.25, 0.5, 0.75]


def test_snu_film_lists_and_scale(tmp_path: Path, evaluate: Evaluate) -> None:
    expected = {}
    for i, degree in enumerate(("easy", "medium", "hard", "extreme")):
        frames = pictures(i)
        names = [f"test/GOPRO_test/clip{i}/{j:06d}.png" for j in (1, 2, 3)]
        write({tmp_path / name: frame for name, frame in zip(names, frames, strict=True)})
        (tmp_path / f"test-{degree}.txt").write_text(" ".join(f"data/SNU-FILM/{name}" for name in names) + "\n")
        expected[degree] = psnr(blend(frames[0], frames[2]), frames[1])
    nets = Recording(), Recording()
    reports = [
        evaluate("SNU_FILM", net, tmp_path, "--protocol", protocol)
        for net, protocol in zip(nets, ("ema", "ifrnet"), strict=True)
    ]
    for degree, psnr_by_hand in expected.items():
        assert value(reports[0], "PSNR", degree) == pytest.approx(psnr_by_hand, abs=1e-4)
    published = [[r["published"] for r in report["rows"] if r["published"]] for report in reports]
    assert published == [[39.80, 35.76, 30.36, 25.27], [40.06, 35.75, 30.10, 24.84]]
    assert [set(net.scales) for net in nets] == [{0.5}, {1.0}]
    evaluate("SNU_FILM", nets[0], tmp_path, "--scale", "2", "--limit", "1")
    assert nets[0].scales[-1] == 2


def test_xiph_reduces_and_crops(tmp_path: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Xiph, "SIZE", (32, 16))
    monkeypatch.setattr(Xiph, "CLIPS", ("Tango",))
    frames = pictures(5, 99, size=(32, 64))
    write({tmp_path / f"{clip}-099.png": frames[0] for clip in ("BoxingPractice", "Crosswalk", "DrivingPOV",
           "FoodMarket", "FoodMarket2", "RitualDance", "SquareAndTimelapse")})  # fmt: skip
    write({tmp_path / f"Tango-{i:03d}.png": frame for i, frame in enumerate(frames, 1)})
    report = evaluate("Xiph", Recording(), tmp_path, "--protocol", "ema", "--no-baselines")
    small = [cv2.resize(f, (32, 16), interpolation=cv2.INTER_AREA) for f in frames]
    middle = [f[8:24, 16:48] for f in frames]
    for group, made in (("2K", small), ("4K", middle)):
        expected = [psnr(blend(made[i - 1], made[i + 1]), made[i]) for i in range(1, 98, 2)]
        assert len(expected) == 49
        assert value(report, "PSNR", group) == pytest.approx(np.mean(expected), abs=0.01)  # halves may round either way
    assert [r["published"] for r in report["rows"] if r["published"]] == [36.19, 0.938, 33.76, 0.894]
    # EMA-VFI measures SSIM as scikit-image does, each channel by itself; upstream's window spans the channels
    for metric, protocol, measure in (
        ("SSIM 7x7", "ema", lambda a, b: structural_similarity(a, b, channel_axis=2, data_range=1)),
        ("SSIM", "rife", ssim_volume),
    ):
        report = evaluate("Xiph", Recording(), tmp_path, "--protocol", protocol, "--no-baselines", "--limit", "49")
        similar = [measure(blend(small[i - 1], small[i + 1]) / 255, small[i] / 255) for i in range(1, 98, 2)]
        assert value(report, metric, "2K") == pytest.approx(np.mean(similar), abs=1e-3)


@pytest.mark.slow
def test_xiph_crops_the_middle_of_4k() -> None:
    rows, columns = np.mgrid[0:2160, 0:4096]
    frame = np.stack((rows // 16, columns // 16, rows * 0), 2).astype(np.uint8)
    np.testing.assert_array_equal(Xiph.reduced(frame, "4K"), frame[540:-540, 1024:-1024])
    assert Xiph.reduced(frame, "2K").shape == (1080, 2048, 3)


def test_snu_film_names_a_broken_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test").mkdir()
    for degree in SNU_FILM.DEGREES:
        (tmp_path / f"test-{degree}.txt").write_text("a.png b.png\n")
    assert common.main(SNU_FILM.SET, "", ["--baselines-only", "--data", str(tmp_path)]) == 1
    assert "test-easy.txt: 'a.png b.png' is not three paths; download the list again" in capsys.readouterr().err


def test_x4k_makes_eighths_at_two_sizes(tmp_path: Path, evaluate: Evaluate) -> None:
    frames = pictures(3, 9, size=(64, 96))
    write({tmp_path / "test/Type1/TEST01" / f"{4 * i:04d}.png": frame for i, frame in enumerate(frames)})
    net = Recording()
    report = evaluate("X4K1000FPS", net, tmp_path, "--protocol", "ema", "--no-baselines")
    expected = [psnr(blend(frames[0], frames[8], i / 8), frames[i]) for i in range(1, 8)]
    assert value(report, "PSNR", "4K") == pytest.approx(np.mean(expected), abs=1e-2)  # halves may round either way
    assert net.timesteps == [i / 8 for i in range(1, 8)] * 2
    assert net.scales == [0.5] * 7 + [0.25] * 7
    assert value(report, "PSNR", "2K") > value(report, "PSNR", "4K")  # area means have less noise


def test_x4k_lists_clips_of_every_type(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    for clip in ("Type2/TEST06", "Type1/TEST01"):
        write({tmp_path / "test" / clip / f"{i:04d}.png": frame for i in range(0, 33, 4)})
    assert [(s.name, s.group) for s in X4K1000FPS.samples(tmp_path)] == [
        (clip, group) for group in ("2K", "4K") for clip in ("TEST01", "TEST06")
    ]
