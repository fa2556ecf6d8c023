"""Tests faults that users meet in training: wrong numbers and files of stages, folders in use, damaged files."""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from training_runs import RECIPE, scenes, stage, start, tiny

import train
from commands.training_data import split_held_out
from commands.training_flags import parse, read_stages
from data.clip_cache import cached_clip, decode
from data.clips import Clips, ClipSettings
from data.textures import cut_texture
from dataset import Vimeo, read_rgb
from model.errors import UserError
from model.training.checkpoint import check_run_folder, lock_run_folder, read_run_state
from model.training.log import Log, print_line
from model.training.stages import StagePart, check_stage


def flags(*argv: str) -> argparse.Namespace:
    return parse(argv, "")[1]


WRONG = """--workers -1|--seed -1|--held_out -1|--mix -1 1 1|--mix 0 0 nan|--pans nan|--weight 0|--hours inf|--hours -1
--zoom 0 1|--weak 2|--moved -1|--ema 2|--accumulate 0|--processes 0|--warmup -5|--peak nan|--peak -1|--floor inf
--coarsest 3|--coarsest 1e9|--coarsest 128|--lpips_crop 5|--clip nan|--weight_decay -1|--anneal -5|--flow -1
--coarsest -1|--blocks -1|--inherit x|--inherit 1:-1|--crop 32|--steps 99999999999999999999|--motion 1 inf"""


@pytest.mark.parametrize("words", WRONG.replace("\n", "|").split("|"))
def test_a_number_out_of_its_range_is_refused_with_its_flag(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flags(*words.split())
    assert caught.value.code == 2
    assert f"error: argument {words.split()[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", "../a"])
def test_the_name_of_a_run_is_one_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags(f"--name={name}")
    assert "--output takes a path" in capsys.readouterr().err


def stages_of(tmp_path: Path, text: str, *argv: str) -> list[tuple[str, list[argparse.Namespace]]]:
    file = tmp_path / "stages.ini"
    file.write_text(text, "utf-8")
    return read_stages(file, flags(*argv))


def test_no_switches_a_flag_off_and_is_a_value_of_others(tmp_path: Path) -> None:
    text = (
        "\ufeff[DEFAULT]\nexact = 1\n[a]\namp = no\nexact = yes\n[a / x]\nexact = off\n[a / y]\n[b]\nby_motion = no\n"
    )
    (_, [x, y]), (_, [b]) = stages_of(tmp_path, text, "--amp", "bf16", "--by_motion")
    assert (x.amp, x.exact, y.exact) == ("no", False, True)
    assert (b.by_motion, b.exact, b.amp) == (False, True, "bf16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nbatch_size = 4 --name evil", r"\[a\]: batch_size: .* holds another flag"),
        ("[a]\nexact = maybe", r"\[a\]: exact: 'maybe' is neither yes nor no"),
        ("[DEFAULT]\npaek = 3\n[a]", r"\[DEFAULT\]: paek: cannot be set here; is it peak"),
        ("[a]\n[a ]\nsteps = 1", "two stages of this name"),
        ("[ ]\nsteps = 1", "needs a name"),
        ("[a]\npeak", "line 2"),
        ("[a]\nweight = 0\n[a / b]\nweight = 0", "argument --weight|weight: cannot be set here"),
    ],
)
def test_mistakes_in_a_file_of_stages_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        stages_of(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_coarsest_scale_fits_the_crop(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((300, 300, 3), np.uint8))[1].tobytes())
    words = [
        "--photos",
        str(tmp_path),
        "--flow_alone",
        "--blocks",
        "0",
        "--crop",
        "128",
        "--pans",
        "1",
        "--workers",
        "0",
    ]
    words += ["--output", str(tmp_path / "run"), "--mix", "0", "0", "1", "--arch", "v4.22.lite"]
    assert flags("--coarsest", "16").coarsest == 16
    with pytest.raises(UserError, match=r"--coarsest: 64: --crop 128 is no multiple of four times that"):
        train.open_stages(flags(*words, "--coarsest", "64"), train.build_trainable("v4.22.lite"))


def test_a_later_stage_is_checked_before_the_first_one_begins() -> None:
    for wrong, message in (
        (stage(blocks=(7,)), "no block7"),
        (stage(inherit=((0, 9),)), "block 9 cannot inherit"),
        (stage(parts=[StagePart(scenes(), 17)]), "16 samples do not fill one batch of 17"),
    ):
        with pytest.raises(UserError, match=message):
            check_stage(wrong, tiny(), 1)
    with pytest.raises(UserError, match="paper's networks cannot be trained alone"):
        check_stage(stage(flow_alone=True), torch.nn.Conv2d(1, 1, 1), 1)


def hold(folder: Path, ready: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with lock_run_folder(folder):
        ready.set()
        done.wait(60)


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_two_processes_never_train_in_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="another process is training there"), lock_run_folder(tmp_path / "run"):
            pass
    finally:
        done.set()
        other.join(60)
    with lock_run_folder(tmp_path / "run"):  # the lock ends with the process
        pass


def test_a_run_goes_neither_into_a_file_nor_into_its_data(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="is not a folder"):
            check_run_folder(folder)
    with pytest.raises(UserError, match="longer than 255 bytes"):
        check_run_folder(tmp_path / ("x" * 300))
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(UserError, match="is the folder of --photos itself"):
        train.check_not_data(data, flags("--photos", str(data)))
    with pytest.raises(UserError, match="lies in the folder of --triplets"):
        train.check_not_data(data / "runs" / "a", flags("--triplets", str(data)))
    train.check_not_data(data / "runs" / "a", flags("--photos", str(data)))


def test_a_bit_that_flips_anywhere_in_the_state_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """torch does not compare checksums: without them a flipped bit of a weight would train on unnoticed."""
    start(tmp_path, [stage(2)]).train()
    path = tmp_path / "state.pt"
    whole, good = path.read_bytes(), read_run_state(path)
    found = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            state = read_run_state(path)
        except UserError:
            found += 1
        else:
            assert all(torch.equal(value, state["net"][key]) for key, value in good["net"].items())
            assert state["progress"] == good["progress"]
    assert found > 20


def test_a_state_without_its_progress_is_of_another_version(tmp_path: Path) -> None:
    torch.save(dict.fromkeys(("net", "average", "optimizer", "scaler"), 0) | {"progress": {}}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="not the state of a run of this version"):
        read_run_state(tmp_path / "state.pt")


def test_a_resumed_run_names_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the average, training continues from the weights of the network, not from those of the average."""
    first = start(tmp_path, [stage(2)])
    first.train()
    capsys.readouterr()
    resumed = start(tmp_path, [stage(4, recipe=replace(RECIPE, ema=0.0))], resume=True)
    assert "resumed with other settings: [train] ema 0.9 -> 0.0, steps 2 -> 4\n" in capsys.readouterr().err
    assert all(torch.equal(v, resumed.net.state_dict()[k]) for k, v in first.net.state_dict().items())


def test_a_line_cut_off_in_the_log_does_not_change_the_next(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(1, a=2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "los')
    log.write(2, a=3)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in (lines[0], lines[2])] == [{"step": 1, "a": 2}, {"step": 2, "a": 3}]


def test_names_that_cannot_be_printed_end_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(os.fsdecode(b"runs/\xff\n") + ": done", result=True)
    assert capsys.readouterr().out == "runs/??: done\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a\nb"), "a?b"),
        (OSError(28, "No space left on device", "x"), "x: No space left on device; check"),
        (MemoryError(), "out of memory; make --batch_size"),
        (RuntimeError("CUDA out of memory. Tried"), "out of memory; make --batch_size"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_every_end_is_one_line(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    assert train.run(command) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    printed = capsys.readouterr().err
    assert printed.startswith(f"train.py: {line}")
    assert printed.count("\n") == 1


def test_16_bits_are_rounded_and_tiny_pictures_are_textures(tmp_path: Path) -> None:
    deep = np.array([[[0, 128, 129], [256, 65535, 32896]]], np.uint16)  # BGR
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert read_rgb(tmp_path / "deep.png").tolist() == [[[1, 0, 0], [128, 255, 1]]]
    for seed in range(20):
        pixel = np.full((1, 1, 3), 7, np.uint8)
        assert cut_texture(np.random.default_rng(seed), 10, 90, [pixel]).shape == (10, 90, 3)


def write_clip(path: Path, count: int, width: int, height: int) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=24, width=width, height=height, pix_fmt="yuv420p")
        for i in range(count):
            picture = np.random.default_rng(i).integers(0, 256, (height, width, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))


def test_clips_of_one_frame_or_pixel_are_one_line(tmp_path: Path) -> None:
    write_clip(tmp_path / "one.mkv", 1, 64, 48)
    with pytest.raises(UserError, match=r"none of 1 clips .* three frames in a row"):
        Clips([tmp_path / "one.mkv"], tmp_path / "cache", 64, ClipSettings())
    write_clip(tmp_path / "dot.mkv", 2, 1, 1)
    assert decode(tmp_path / "dot.mkv").shape == (2, 2, 2, 3)
    long = tmp_path / f"{'x' * 250}.mkv"
    write_clip(long, 2, 64, 48)
    assert np.array(cached_clip(long, tmp_path / "cache")[0]).shape == (2, 48, 64, 3)


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    write_clip(tmp_path / "a.mkv", 4, 64, 48)
    cached_clip(tmp_path / "a.mkv", tmp_path / "cache")
    yield from [(tmp_path / "a.mkv", tmp_path / "cache")]


@pytest.mark.parametrize("damage", ["empty", "cut off", "header", "bounds"])
def test_a_damaged_cache_is_made_again(cached: tuple[Path, Path], damage: str) -> None:
    clip, cache = cached
    whole = [np.array(array) for array in cached_clip(clip, cache)]
    kept, runs = (next(cache.glob(pattern)) for pattern in ("*[!s].npy", "*.runs.npy"))
    content = kept.read_bytes()
    if damage == "bounds":
        np.save(runs, np.array([[0, 900]]))
    else:
        kept.write_bytes({"empty": b"", "cut off": content[:-9], "header": b"\x93NUMPY" + content[7:]}[damage])
    for again, before in zip(cached_clip(clip, cache), whole, strict=True):
        assert np.array_equal(np.array(again), before)


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_cached_clip_that_another_program_cuts_short_is_one_line(cached: tuple[Path, Path], damage: str) -> None:
    clip, cache = cached
    frames, _ = cached_clip(clip, cache)
    assert np.array_equal(np.array(frames), decode(clip))
    kept = next(cache.glob("*[!s].npy"))
    if damage == "gone":
        kept.unlink()
    else:
        os.truncate(kept, kept.stat().st_size // 2)
        assert frames[0].shape == (48, 64, 3)
    with pytest.raises(UserError, match="start again, it is then made anew"):
        frames[3]
    assert np.array_equal(np.array(cached_clip(clip, cache)[0]), decode(clip))


def test_a_list_of_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tri_trainlist.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"tri_trainlist\.txt: cannot be read"):
        Vimeo(tmp_path)


def test_every_third_item_validates() -> None:
    assert split_held_out(list("abcdefg"), 3) == (list("bcef"), list("adg"))
    assert split_held_out(list("ab"), 0) == (list("ab"), [])
