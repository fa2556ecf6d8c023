"""Tests inference_img.py as a command: its files, their number and values, and every error message."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import MovingSquare, Run, Shift, use, written

import inference_img
from video.pictures.picture import read_picture, write_picture


@pytest.mark.parametrize(
    ("options", "count"),
    [(["--exp", "2"], 5), (["--exp=0"], 2), (["--count", "2"], 4), (["--count=0"], 2), ([], 17), (["--ratio=0.3"], 3)],
)
def test_exp_and_count_set_the_number_of_pictures(
    run: Run, pair: tuple[np.ndarray, np.ndarray], options: list[str], count: int
) -> None:
    status, out, err = run(*options)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("Loaded v4 (not a published one; widths 16, 16, 8, 8, 8) from ")
    assert re.fullmatch(rf"Wrote output: img0.png .. img{count - 1}.png \({count} pictures\) in \d+\.\d s", lines[-1])
    pictures = written()
    assert len(pictures) == count
    np.testing.assert_array_equal(pictures[0], pair[0])
    np.testing.assert_array_equal(pictures[-1], pair[1])
    assert all(p.shape == pair[0].shape and p.dtype == np.uint8 for p in pictures)


def test_times_are_true(run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    net = Shift(8)
    use(net, monkeypatch)
    run("--count", "4")
    assert net.timesteps == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert net.encoded == 2
    run("--exp", "3", "--output", "three")
    assert net.timesteps[4:] == [i / 8 for i in range(1, 8)]
    moved = written("three")[4][:, 12:56]  # halfway, the square has moved by 4 of its 8 pixels
    expected = pair[0].astype(float)
    np.testing.assert_allclose(moved[12:24, 8:24], expected[12:24, 16:32], atol=1)


def test_ratio_directly_where_the_network_takes_any_time(
    run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Shift()
    use(net, monkeypatch)
    assert run("--ratio", "1/3")[0] == 0
    assert net.timesteps == pytest.approx([1 / 3])
    expected = pair[0] + (pair[1].astype(float) - pair[0]) / 3
    np.testing.assert_allclose(written()[1], expected, atol=0.51)


def test_ratio_by_halving(run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Shift(arbitrary_time=False), monkeypatch)
    for options, reached in (
        (("--ratio", "0.3"), 0.296875),  # 19/64, the first within 0.01
        (("--ratio", "0.3", "--rthreshold", "0.08"), 0.3125),  # 5/16, within 0.04
        (("--ratio", "0.3", "--rmaxcycles", "2"), 0.25),  # the second halving, wherever that is
        (("--ratio", "0.25"), 0.25),
    ):
        _, out, _ = run(*options)
        note = f"{options[1]} of the way becomes {reached:.4g}: this network computes times by halving\n"
        assert (note in out) == (float(options[1]) != reached)
        expected = pair[0] + (pair[1].astype(float) - pair[0]) * reached
        np.testing.assert_allclose(written()[1], expected, atol=1)


def test_ratio_near_an_end_is_that_input(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for ratio, which in (("0.01", 0), ("0.99", 1), ("1", 1)):
        assert run("--ratio", ratio)[0] == 0
        np.testing.assert_array_equal(written()[1], pair[which])
    assert run("--ratio", "0.2", "--rthreshold", "0.4")[0] == 0
    np.testing.assert_array_equal(written()[1], pair[0])


def test_halved_is_upstreams_bisection() -> None:
    threshold = Fraction("0.02")
    assert inference_img.halved(Fraction(1, 2), threshold, 8) == Fraction(1, 2)
    assert inference_img.halved(Fraction("0.9"), threshold, 8) == Fraction(29, 32)
    assert inference_img.halved(Fraction("0.9"), Fraction(0), 3) == Fraction(7, 8)
    assert inference_img.halved(Fraction(1, 3), Fraction(0), 8) == Fraction(85, 256)


def test_count_by_halving_never_repeats_a_picture(
    run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Shift(arbitrary_time=False), monkeypatch)
    _, out, _ = run("--count", "2")
    assert "0.3333 of the way becomes 0.3281: this network computes times by halving\n" in out
    assert "0.6667 of the way becomes 0.6719: this network computes times by halving\n" in out
    expected = pair[0] + (pair[1].astype(float) - pair[0]) * 21 / 64
    np.testing.assert_allclose(written()[1], expected, atol=0.51)
    for name, value in (("a", 0), ("b", 65535)):
        write_picture(f"{name}.png", np.full((16, 16, 1), value, np.uint16))
    run("--count", "60")
    levels = np.array([picture.mean() for picture in written()]) / 65535
    np.testing.assert_allclose(levels, np.arange(62) / 61, atol=1 / (3 * 61))
    assert np.diff(levels).min() > 1 / (3 * 61)


@pytest.mark.parametrize("size", [(16, 16), (31, 45), (50, 33)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_channels_and_size_stay(
    run: Run, moving_square: MovingSquare, dtype: type, channels: int, size: tuple[int, int]
) -> None:
    pair = moving_square(*size, channels, dtype=dtype, motion=2)
    for name, picture in zip("ab", pair, strict=True):
        write_picture(f"{name}.png", picture)
    assert run("--count", "1")[0] == 0
    first, middle, last = written()
    np.testing.assert_array_equal(first, pair[0])
    np.testing.assert_array_equal(last, pair[1])
    assert (middle.shape, middle.dtype) == (pair[0].shape, pair[0].dtype)
    limit = np.iinfo(dtype).max
    assert abs(middle.mean() - pair[0].mean()) < 0.15 * limit


def test_deep_pictures_use_all_their_values(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Shift(), monkeypatch)
    for name, value in (("a", 1000), ("b", 1003)):
        write_picture(f"{name}.png", np.full((16, 16, 3), value, np.uint16))
    run("--count", "2")
    assert [int(p[8, 8, 0]) for p in written()] == [1000, 1001, 1002, 1003]


def test_mixed_pictures_get_the_format_that_holds_both(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Shift(), monkeypatch)
    grey = np.full((16, 16, 1), 100, np.uint8)
    colour = np.full((16, 16, 4), [65535, 0, 25700, 0], np.uint16)
    write_picture("a.png", grey)
    write_picture("b.png", colour)
    assert run("--count", "1")[0] == 0
    first, middle, last = written()
    np.testing.assert_array_equal(first, grey)
    np.testing.assert_array_equal(last, colour)
    assert middle[8, 8].tolist() == [25700, 25700, 25700, 32768]  # half transparent, and no colour of what is hidden


def test_light_is_written_as_half_float(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Shift(), monkeypatch)
    light = [np.full((20, 24, 3), [value, 0.5, -0.25], np.float16) for value in (2, 40)]
    write_picture("a.exr", light[0])
    write_picture("b.exr", light[1])
    status, out, _ = run("--exp", "1", img=("a.exr", "b.exr"))
    assert status == 0
    assert "img0.exr .. img2.exr (3 pictures)" in out
    first, middle, last = written()
    np.testing.assert_array_equal(first, light[0])
    np.testing.assert_array_equal(last, light[1])
    np.testing.assert_array_equal(middle, np.full((20, 24, 3), [21, 0.5, -0.25], np.float32))
    assert b"R\0\1\0\0\0" in Path("output/img1.exr").read_bytes()[:400]  # type 1 is half


def test_exr_through_a_real_network(run: Run, moving_square: MovingSquare) -> None:
    pair = [picture * 100 for picture in moving_square(32, 48, dtype=np.float32, motion=2)]
    for name, picture in zip("ab", pair, strict=True):
        write_picture(f"{name}.exr", picture)
    assert run("--exp", "1", img=("a.exr", "b.exr"))[0] == 0
    first, middle, _ = written()
    np.testing.assert_array_equal(first, pair[0])  # 32-bit values too pass through untouched
    assert abs(middle.mean() - first.mean()) < 0.15 * first.mean()
    assert middle.max() > 50


def test_tta_scale_and_half_precision_change_the_picture(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    middles = []
    for option in ([], ["--tta"], ["--scale", "0.5"], ["--scale=2"]):
        assert run("--count=1", *option)[0] == 0
        middles.append(written()[1].astype(int))
    for other in middles[1:]:
        assert np.abs(other - middles[0]).max() > 0
        assert np.abs(other - middles[0]).mean() < 10
    _, out, _ = run("--count=1", "--fp16")
    assert "float16 on cpu" in out
    assert np.abs(written()[1].astype(int) - middles[0]).max() <= 2


def test_arch_is_handed_on(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    status, _, err = run("--arch", "rife_2r")
    assert status == 1
    assert "architecture rife_2r does not fit these weights; name none: their shapes determine it" in err


def test_output_folder_and_names_with_spaces(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    Path("a.png").rename("ä $(x) 'q'.png")
    assert run("--count=0", "--output", "deep/er dir", img=("ä $(x) 'q'.png", "b.png"))[0] == 0
    assert len(written("deep/er dir")) == 2
    assert not Path("output").exists()


def test_pictures_of_a_longer_run_are_named(
    run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Shift(), monkeypatch)
    assert run("--count=10")[2] == ""
    assert run("--count=10")[2] == ""  # written over
    Path("output/img3.exr").touch()
    Path("output/mine.png").touch()
    _, _, err = run("--count=7")
    assert err == "output: left from an earlier run: img3.exr, img9.png, img10.png, img11.png\n"


def fails(result: tuple[int, str, str], message: str) -> None:
    """Checks a failed run: one line on stderr, exit status 1, no output folder."""
    status, _, err = result
    assert status == 1
    assert re.fullmatch(rf"inference_img\.py: {message}\n", err), err
    assert not Path("output").exists()


def test_errors_are_one_line(run: Run, pair: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    no_file = r"none\.png: cannot be read \(No such file or directory\); check the name and the folder"
    fails(run(img=("a.png", "none.png")), no_file)
    Path("text.png").write_text("no picture")
    fails(run(img=("text.png", "b.png")), r"text\.png: not a picture that can be read; give one of .*")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:200])
    fails(run(img=("a.png", "cut.png")), r"cut\.png: damaged or cut off; copy or export the picture again")
    write_picture("wide.png", np.zeros((48, 80, 3), np.uint8))
    fails(run(img=("a.png", "wide.png")), r"a\.png is 64x48, wide\.png is 80x48; crop or resize one .*")
    write_picture("a.exr", np.zeros((48, 64, 3), np.float32))
    fails(run(img=("a.exr", "b.png")), r"a\.exr holds float32, b\.png uint8; convert one to the kind of the other")
    light = run("--gif", "x.gif", img=("a.exr", "a.exr"))
    fails(light, r"a\.exr: holds floats, which --gif and --mp4 cannot show; convert both to PNG first")
    fails(run("--model", "nowhere"), r"nowhere: no such file or folder of weights; give the folder .*")
    fails(run("--gif", "none/x.gif"), r"none/x\.gif: its folder does not exist; make it or choose another output")
    blocked = run("--output", "a.png/deeper")
    fails(blocked, r"a\.png/deeper: cannot be made a folder \(Not a directory\); choose another --output")
    fails(run("--device", "gpu"), r"device gpu: no such device; available here: .*")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.png", "b.png", "text.png", "cut.png", "wide.png", "a.exr"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "1.5"], "--ratio 1.5 is not between 0 and 1"),
        (["--ratio", "0.5", "--exp", "2"], "--ratio makes one picture: leave out --exp, --count, --gif and --mp4"),
        (["--ratio", "0.5", "--gif", "a.gif"], "--ratio makes one picture"),
        (["--exp", "2", "--count", "3"], "--exp and --count both set the number of pictures: give one of them"),
        (["--exp", "-1"], "--exp is 0 to 13, --count is 0 to 9999"),
        (["--exp", "14"], "--exp is 0 to 13"),
        (["--count", "-1"], "--count is 0 to 9999"),
        (["--rmaxcycles", "0"], "--rmaxcycles 1 to 16"),
        (["--rmaxcycles", "17"], "--rmaxcycles 1 to 16"),
        (["--rthreshold", "-1"], "--rthreshold is 0 or more"),
        (["--fps", "0"], "--fps above 0"),
        (["--fps", "1/0"], "'1/0' is not a number, such as 3, 0.3 or 60000/1001"),
        (["--fps", "fast"], "'fast' is not a number, such as 3, 0.3 or 60000/1001"),
        (["--fps", "60", "--gif", "a.gif"], "--fps 60: a GIF plays at 50 frames a second at most"),
        (["--scale", "3"], "argument --scale: '3' is not one of 0.25, 0.5, 1, 2, 4, auto"),
    ],
)
def test_arguments_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        inference_img.main(["--img", "a.png", "b.png", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        inference_img.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for default in ("(default: 4)", "(default: 0.02)", "(default: 8)", "(default: train_log)", "(default: output)"):
        assert default in text


def test_the_output_is_never_an_input(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    """The default names are those of a folder that an earlier run made: output/img0.png, img1.png .."""
    Path("output").mkdir()
    for name in ("a", "b"):
        Path(f"{name}.png").rename(f"output/img{'ab'.index(name)}.png")
    before = {path.name: path.read_bytes() for path in Path("output").iterdir()}
    names = "output/img0.png", "output/img1.png"
    Path("link.png").symlink_to("output/img0.png")
    for options, img in (
        (["--exp", "1"], names),
        (["--exp", "1"], ("link.png", "output/img1.png")),
        (["--exp", "1", "--output", "./output/../output"], names),
        (["--flow", "--output", "flows"], ("flows/flow01.png", "output/img1.png")),
    ):
        if options[0] == "--flow":
            Path("flows").mkdir()
            Path("output/img0.png").rename("flows/flow01.png")
        status, _, err = run(*options, img=img)
        assert status == 1
        assert re.fullmatch(r"inference_img\.py: .*: is the input .* itself; choose another name for the output\n", err)
    Path("flows/flow01.png").rename("output/img0.png")
    assert {path.name: path.read_bytes() for path in Path("output").iterdir()} == before


def test_a_stitched_picture_never_replaces_a_view(run: Run, pair: tuple[np.ndarray, np.ndarray]) -> None:
    Path("output").mkdir()
    for first, second in (("output/stitched.png", "b.png"), ("b.png", "output/stitched.png")):
        Path("output/stitched.png").write_bytes(Path("a.png").read_bytes())
        assert inference_img.main(["--stitch", first, second, "--device", "cpu"]) == 1
        np.testing.assert_array_equal(read_picture("output/stitched.png"), pair[0])


def test_pictures_that_cannot_fit_into_memory_are_refused_before_the_run(
    run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16384x16384 takes 32 GB at least; here 64x48 meets a machine with 0.3 MB free."""
    monkeypatch.setattr("commands.network_flags.available_bytes", lambda device: 300_000)
    fails(run(), r"64x48 frames take 0\.0 GB of memory on cpu at least, and only 0\.0 GB are free; make the frames .*")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_running_out_of_memory_is_one_line(
    error: Exception, run: Run, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(inference_img, "between", allocate)
    status, _, err = run()
    assert (status, err) == (1, "inference_img.py: out of memory; use smaller pictures, --scale 0.5 or --tile 256\n")
