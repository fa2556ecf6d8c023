"""Tests the VapourSynth filter: its frames against the network's own, its durations against fractions."""

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Shift

vs: Any = pytest.importorskip("vapoursynth", reason="vapoursynth is an optional package")

from model import RIFE  # noqa: E402
from vapoursynth_rife import FrameMaker, interpolate_clip, rife  # noqa: E402

WIDTH, HEIGHT, LENGTH = 64, 48, 5


@pytest.fixture
def network() -> RIFE:
    return RIFE(Shift(2), name="shift")


def noise_clip(form: int | None = None, durations: tuple[Fraction, ...] = ()) -> tuple[Any, list[np.ndarray]]:
    """Returns a clip of random frames at 24000/1001 frames/s, and the frames (3,H,W)."""
    blank = vs.core.std.BlankClip(
        width=WIDTH, height=HEIGHT, format=form or vs.RGBS, length=LENGTH, fpsnum=24000, fpsden=1001
    )
    dtype = np.float16 if form == vs.RGBH else np.float32
    frames = [np.random.default_rng(i).random((3, HEIGHT, WIDTH)).astype(dtype) for i in range(LENGTH)]

    def fill(n: int, f: Any) -> Any:
        out = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(out[plane]), frames[n][plane])
        if durations:
            out.props["_DurationNum"], out.props["_DurationDen"] = durations[n].numerator, durations[n].denominator
        return out

    return blank.std.ModifyFrame(clips=blank, selector=fill), frames


def picture(frame: Any) -> np.ndarray:
    return np.stack([np.asarray(frame[plane]) for plane in range(3)])


def duration(frame: Any) -> Fraction:
    return Fraction(frame.props["_DurationNum"], frame.props["_DurationDen"])


def expected(network: RIFE, frames: list[np.ndarray], position: Fraction) -> np.ndarray:
    first = min(int(position), LENGTH - 1)
    if position == first or first == LENGTH - 1:
        return frames[first]
    pair = [torch.from_numpy(frames[i])[None].float() for i in (first, first + 1)]
    return network.inference(*pair, timestep=position - first)[0].numpy()


@pytest.mark.parametrize("factor", [Fraction(2), Fraction(5, 2), Fraction(4, 3)])
def test_frames_equal_those_of_the_network(network: RIFE, factor: Fraction) -> None:
    clip, frames = noise_clip()
    out = interpolate_clip(clip, FrameMaker(network, factor))
    assert out.fps == clip.fps * factor
    for n, frame in enumerate(out.frames()):
        np.testing.assert_allclose(picture(frame), expected(network, frames, n / factor), atol=1e-6)
        assert duration(frame) == Fraction(1001, 24000) / factor


def test_a_film_at_an_odd_rate_is_not_too_long(network: RIFE) -> None:
    """215,000 frames times 19,020 would be more than VapourSynth can count."""
    film = vs.core.std.BlankClip(width=WIDTH, height=HEIGHT, format=vs.RGBS, length=215_000, fpsnum=19001, fpsden=317)
    film = film.std.FrameEval(lambda n, blank=film: blank.std.SetFrameProps(number=n))
    factor = 60 / film.fps
    out = interpolate_clip(film, FrameMaker(network, factor))
    assert out.fps == 60
    assert out.num_frames == math.ceil(film.num_frames * factor)
    for n in (0, 19_019, 19_020, 200_000, out.num_frames - 1):
        assert out.get_frame(n).props["number"] == int(n / factor)


def test_out_of_order_and_by_threads_the_pictures_are_the_same_and_features_are_computed_once(network: RIFE) -> None:
    clip, _ = noise_clip()
    in_order = [picture(f) for f in interpolate_clip(clip, FrameMaker(network, Fraction(3))).frames()]
    net: Any = network.net
    assert net.encoded == LENGTH
    out = interpolate_clip(clip, FrameMaker(network, Fraction(3)))
    order = np.random.default_rng(0).permutation(len(in_order))
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda n: picture(out.get_frame(int(n))), order))
    for n, made in zip(order, pictures, strict=True):
        np.testing.assert_array_equal(made, in_order[n])


def test_half_floats_stay_half_floats(network: RIFE) -> None:
    clip, frames = noise_clip(vs.RGBH)
    out = interpolate_clip(clip, FrameMaker(network, Fraction(2)))
    assert out.format.id == vs.RGBH
    made = picture(out.get_frame(1)).astype(np.float32)
    np.testing.assert_allclose(made, expected(network, frames, Fraction(1, 2)), atol=1e-3)


def test_durations_of_variable_rate_are_divided_exactly(network: RIFE) -> None:
    durations = tuple(Fraction(d, 1000) for d in (33, 100, 41, 42, 50))
    clip, _ = noise_clip(durations=durations)
    out = interpolate_clip(clip, FrameMaker(network, Fraction(3, 2)))
    got = [duration(out.get_frame(n)) for n in range(3)]
    assert got == [durations[0] * 2 / 3, durations[0] / 3 + durations[1] / 3, durations[1] * 2 / 3]
    assert sum(got) == durations[0] + durations[1]


def test_the_frame_before_a_cut_is_held(network: RIFE) -> None:
    parts = [vs.core.std.BlankClip(None, WIDTH, HEIGHT, vs.RGBS, 2, color=[grey] * 3) for grey in (0.2, 0.8)]
    clip = parts[0] + parts[1]
    out = interpolate_clip(clip, FrameMaker(network, Fraction(2), sc=True))
    np.testing.assert_array_equal(picture(out.get_frame(3)), np.float32(0.2))
    marked = clip.std.SetFrameProps(_SceneChangeNext=1)
    out = interpolate_clip(marked, FrameMaker(network, Fraction(2), sc=True, threshold=None))
    np.testing.assert_array_equal(picture(out.get_frame(1)), np.float32(0.2))


@pytest.mark.parametrize(
    ("form", "settings", "words"),
    [
        ("YUV420P8", {}, "matrix_in_s"),
        ("RGB24", {}, r"clip.resize.Bicubic\(format=vs.RGBS\)"),
        ("RGBS", {"factor_num": 0}, "from 1"),
        ("RGBS", {"factor_num": 1.5}, "from 1"),
        ("RGBS", {"factor_num": 10**9}, "too fine"),
        ("RGBS", {"engine": "vulkan"}, "engine 'vulkan' is none of pytorch"),
        ("RGBS", {"factor_num": 1, "factor_den": 2}, "fewer"),
        ("RGBS", {"scale": 0.3}, "scale 0.3"),
        ("RGBS", {"model": "missing"}, "missing"),
    ],
)
def test_impossible_clips_and_settings_are_errors(form: str, settings: dict[str, Any], words: str) -> None:
    clip = vs.core.std.BlankClip(width=WIDTH, height=HEIGHT, format=getattr(vs, form), length=2)
    with pytest.raises(vs.Error, match=words):
        rife(clip, **settings)


@pytest.mark.parametrize(("sizes", "words"), [(((64, 48), (80, 48)), "variable size"), (((8, 48),), "16 or more")])
def test_sizes_that_are_impossible_are_an_error(sizes: tuple[tuple[int, int], ...], words: str) -> None:
    parts = [vs.core.std.BlankClip(width=w, height=h, format=vs.RGBS, length=2) for w, h in sizes]
    with pytest.raises(vs.Error, match=words):
        rife(vs.core.std.Splice(parts, mismatch=True))
