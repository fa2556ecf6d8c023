"""Tests the interpolation loop: counts, times, repeats, cuts and gaps, threads and pictures in flight."""

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips import make_clip, picture
from conftest import Shift

from model import RIFE
from model.IFNet_v4 import IFNet_v4
from model.image import Padder, send_layers, to_tensor
from video import devices
from video import interpolate as interpolation
from video.frame import Frame
from video.interpolate import Handling, Report, interpolate
from video.prefetch import prefetch
from video.reading.reader import open_frames
from video.timing.output_times import Timing, multiply, resample
from video.transitions.confidence import Fallback
from video.transitions.cuts import Match
from video.transitions.overlay import Overlays
from video.transitions.scene import Comparison, Transition, TransitionDetector, differences, thumbnail

SIZE = (96, 64)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


def frames(pictures: list[np.ndarray], rate: int = 24) -> list[Frame]:
    return [Frame(p, F(i, rate)) for i, p in enumerate(pictures)]


def moving(count: int) -> list[np.ndarray]:
    return [picture(i, SIZE) for i in range(count)]


def model(motion: float = 2) -> RIFE:
    return RIFE(Shift(motion), name="shift")


@pytest.mark.parametrize("multi", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_counts_times_and_originals(count: int, multi: int) -> None:
    source = frames(moving(count))
    out = list(interpolate(source, model(), multiply(multi)))
    assert len(out) == (count - 1) * multi + 1
    assert [f.time for f in out] == [F(k, 24 * multi) for k in range(len(out))]
    for i, frame in enumerate(source):
        assert out[i * multi].picture is frame.picture


def test_the_next_frame_is_requested_before_the_frame_in_flight_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has no work while the loop waits for its last frame, unless it was given more before."""
    events: list[str] = []

    def send(*given: Any) -> Callable[[], np.ndarray]:
        events.append("sent")
        return lambda: events.append("waited") or send_layers(*given)()  # type: ignore[func-returns-value]

    clip = [*moving(4), *(noise(seed) for seed in range(9))]  # and then nothing but cuts
    wanted = list(interpolate(frames(clip), model(), multiply(3)))
    monkeypatch.setattr(devices, "send_layers", send)
    monkeypatch.setattr(interpolation, "_frames_in_flight", lambda models: 1)
    loop = interpolate(frames(clip), model(), multiply(3))
    got = [next(loop) for _ in range(9)]
    assert events == ["sent", *["sent", "waited"] * 5, "waited"]
    got += loop
    assert [f.time for f in got] == [f.time for f in wanted]
    assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(got, wanted, strict=True))


def test_a_frame_between_shows_the_square_between() -> None:
    (_, between, _) = interpolate(frames([picture(0, SIZE), picture(2, SIZE)]), model(4), multiply(2))
    wanted = picture(1, SIZE)
    inside = np.s_[SIZE[1] // 4 : SIZE[1] // 2, 20:40]
    assert np.abs(between.rgb()[inside].astype(int) - wanted[inside]).max() <= 1


def test_features_are_computed_once_a_frame() -> None:
    net = Shift(2)
    list(interpolate(frames(moving(6)), RIFE(net, name="shift"), multiply(4)))
    assert net.encoded == 6
    assert net.timesteps == [0.25, 0.5, 0.75] * 5


def test_a_cut_is_held() -> None:
    a, b, c, d = [*moving(2), noise(1), noise(1)]
    report = Report()
    detector = TransitionDetector(repeats="off")
    out = list(interpolate(frames([a, b, c, d]), model(), multiply(3), handling=Handling(detector), report=report))
    assert [f.picture is b for f in out[3:6]] == [True] * 3
    assert out[6].picture is c
    assert report.cuts == 1
    assert report.made == 4


def test_scene_threshold_zero_never_cuts() -> None:
    report, detector = Report(), TransitionDetector(scene=0, cuts="upstream")
    list(interpolate(frames([noise(1), noise(2)]), model(), multiply(2), handling=Handling(detector), report=report))
    assert (report.cuts, report.made) == (0, 1)


def test_a_repeat_becomes_the_midpoint_of_its_neighbours() -> None:
    a, b = picture(0, SIZE), picture(4, SIZE)
    report = Report()
    out = list(interpolate(frames([a, a.copy(), b]), model(8), multiply(1), report=report))
    assert len(out) == 3
    assert (report.repeats, report.made) == (1, 0)
    inside = np.s_[SIZE[1] // 4 : SIZE[1] // 2, 20:40]
    assert np.abs(out[1].rgb()[inside].astype(int) - picture(2, SIZE)[inside]).max() <= 1
    assert out[2].picture is b


def test_static_threshold_one_leaves_every_source_frame() -> None:
    pictures = [picture(0, SIZE), picture(0, SIZE), picture(4, SIZE)]
    out = list(
        interpolate(frames(pictures), model(8), multiply(1), handling=Handling(TransitionDetector(repeats="off")))
    )
    assert [f.picture is p for f, p in zip(out, pictures, strict=True)] == [True] * 3


def test_a_repeat_before_a_cut_is_not_interpolated_across_it() -> None:
    """Upstream's bug: the midpoint of a and c, a ghost of both, replaced the repeat."""
    a, c = picture(0, SIZE), noise(3)
    report = Report()
    out = list(interpolate(frames([a, a.copy(), c, noise(3)]), model(), multiply(2), report=report))
    assert (report.cuts, report.repeats) == (1, 0)
    for frame in out[:4]:
        assert np.abs(frame.rgb()[8:-8, 8:-8].astype(int) - a[8:-8, 8:-8]).mean() < 1.5
    assert np.array_equal(out[4].rgb(), c)


def test_a_repeat_at_the_end_stays_and_none_is_lost() -> None:
    a, b = picture(0, SIZE), picture(4, SIZE)
    out = list(interpolate(frames([a, b, b.copy()]), model(), multiply(2)))
    assert len(out) == 5
    assert np.array_equal(out[-1].rgb(), b)


def test_sixteen_bit_frames_stay_sixteen_bit() -> None:
    out = list(interpolate(frames([picture(i, SIZE, 16) for i in range(3)]), model(), multiply(2)))
    assert {f.rgb().dtype for f in out} == {np.dtype(np.uint16)}


def test_resampling_gives_the_new_rate_and_the_shared_frames() -> None:
    source = frames(moving(9))
    out = list(interpolate(source, model(), resample(F(60))))
    assert [f.time for f in out] == [F(n, 60) for n in range(21)]
    assert out[5].picture is source[2].picture
    assert out[20].picture is source[8].picture


def test_transitions_by_upstreams_thresholds() -> None:
    detector = TransitionDetector(repeats="upstream", cuts="upstream")
    darker = (noise(0) * 0.7).astype(np.uint8)
    a, b, c, d = (detector.signature(rgb, F(0)) for rgb in (noise(0), noise(0), noise(1), darker))
    assert detector.classify(detector.compare(a, b)) is Transition.REPEAT
    assert detector.classify(detector.compare(a, c)) is Transition.CUT
    assert detector.classify(detector.compare(a, d)) is Transition.MOTION


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (16, 20), (720, 1280), (101, 999)])
def test_a_thumbnail_is_torchs_bilinear_resize_of_the_padded_picture(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    padder = Padder(*size, 64)
    image = padder.pad(to_tensor(rgb))
    wanted = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(thumbnail(rgb, (image.shape[2], image.shape[3])), wanted, rtol=0, atol=1e-5)


def test_an_error_of_the_network_is_raised_here() -> None:
    broken = Shift(2)
    broken.frame_features = lambda image: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(interpolate(frames(moving(30)), RIFE(broken, name="shift"), multiply(2)))
    assert threading.active_count() == before


def test_each_pair_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []

    def count(*pair: object) -> Comparison:
        compared.append(pair)
        return Comparison(0.5, Match(0, 1), 100.0, 100.0, F(1, 24))

    monkeypatch.setattr(TransitionDetector, "compare", count)
    list(interpolate(frames(moving(6)), model(), multiply(3)))
    assert len(compared) == 5


def test_closing_the_loop_stops_the_thread_that_reads() -> None:
    before = threading.active_count()
    loop = interpolate(frames(moving(50)), model(), multiply(2))
    next(loop)
    assert threading.active_count() == before + 1
    loop.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_prefetch_keeps_order_and_raises_the_stage_error() -> None:
    def stage() -> Iterator[int]:
        yield from range(20)
        raise RuntimeError("in the stage")

    reader = prefetch(stage(), depth=3)
    assert [next(reader) for _ in range(20)] == list(range(20))
    with pytest.raises(RuntimeError, match="in the stage"):
        next(reader)


def test_prefetch_is_bounded_and_closing_it_stops_thread_and_stage() -> None:
    produced, closed = [], threading.Event()

    def stage() -> Iterator[int]:
        try:
            for i in range(1000):
                produced.append(i)
                yield i
        finally:
            closed.set()

    before = threading.active_count()
    reader = prefetch(stage(), depth=2)
    assert next(reader) == 0
    time.sleep(0.3)
    assert len(produced) <= 5
    reader.close()
    assert closed.wait(2)
    assert threading.active_count() == before


def coded(pictures: list[np.ndarray], crf: int, tmp_path: Path) -> list[Frame]:
    """Returns the pictures as x264 codes them."""
    options = {"crf": str(crf)}
    return list(
        open_frames(make_clip(tmp_path / "a.mp4", len(pictures), size=SIZE, pictures=pictures, options=options))
    )


def transitions(clip: list[Frame], **rules: Any) -> str:
    """Returns the first letter of each transition."""
    detector = TransitionDetector(**rules)
    found = detector.transitions([detector.signature(frame.rgb(), frame.time) for frame in clip])
    return "".join(transition.value[0] for transition in found)


def ball(place: int, radius: int = 2) -> np.ndarray:
    """Returns a small ball on a smooth ground: much too small for a thumbnail."""
    rgb = picture(0, (320, 192))
    return cv2.circle(rgb, (place, 150), radius, (250, 250, 250), -1)


@pytest.mark.parametrize("crf", [18, 23, 28, 32])
def test_duplicates_are_found_in_coded_video(crf: int, tmp_path: Path) -> None:
    texture = cv2.resize(noise(5)[:16, :35], (140, 64), interpolation=cv2.INTER_CUBIC)
    pan = [np.ascontiguousarray(texture[:, 3 * i : 3 * i + 96]) for i in range(12)]
    twos = [p for p in pan for _ in range(2)]
    assert transitions(coded(twos, crf, tmp_path)) == "rm" * 11 + "r"
    assert transitions(coded(pan, crf, tmp_path)) == "m" * 11


@pytest.mark.parametrize("rule", ["same", "upstream"])
def test_small_motion_is_no_repeat(rule: str) -> None:
    """Upstream's thumbnail of 32x32 pixels hardly shows a ball of 5 px, nor a lamp that blinks for one frame."""
    moving_ball = frames([ball(20 + 12 * i) for i in range(12)])
    blink = frames([ball(48, 0 if i == 4 else 2) for i in range(8)])
    found = transitions(moving_ball, repeats=rule), transitions(blink, repeats=rule)
    expected = ("m" * 11, "rrrmmrr") if rule == "same" else ("r" * 11, "r" * 7)
    assert found == expected


def test_slow_motion_next_to_a_flash_is_no_repeat() -> None:
    texture = cv2.resize(noise(5), (960, 640), interpolation=cv2.INTER_CUBIC)
    slow = [cv2.resize(texture[:, i : 800 + i], SIZE, interpolation=cv2.INTER_AREA) for i in range(8)]
    slow[4] = np.full_like(slow[4], 255)
    assert transitions(frames(slow), cuts="off") == "m" * 7


def test_a_scene_that_stands_still_keeps_its_frames() -> None:
    still = [picture(0, SIZE).copy() for _ in range(5)]
    report = Report()
    out = list(interpolate(frames(still), model(), multiply(1), report=report))
    assert [f.picture is p for f, p in zip(out, still, strict=True)] == [True] * 5
    assert report.repeats == 0


@pytest.mark.parametrize("dedup", ["replace", "retime"])
@pytest.mark.parametrize("milliseconds", [(0, 2000, 2033, 2067), (0, 33, 2000, 2033)])
def test_a_still_of_a_screen_recording_does_not_move(dedup: str, milliseconds: tuple[int, ...]) -> None:
    """Recorders repeat a frame around a still: anew, in the middle of its neighbours, it would move for two seconds."""
    a, b, c = picture(0, SIZE), picture(4, SIZE), picture(8, SIZE)
    report = Report()
    clip = [Frame(p, F(ms, 1000)) for p, ms in zip([a, a.copy(), b, c], milliseconds, strict=True)]
    out = list(interpolate(clip, model(4), multiply(1), handling=Handling(dedup=dedup), report=report))
    assert [f.picture is source.picture for f, source in zip(out, clip, strict=True)] == [True] * 4
    assert report.repeats == 0


def test_the_last_frame_of_a_still_is_kept() -> None:
    """A window that opens in a screen recording is not shown before its time; runs of three are animation."""
    a, b, c = picture(0, SIZE), picture(4, SIZE), picture(8, SIZE)
    for length, repeats in ((3, 1), (4, 0)):
        report = Report()
        pictures = [*[a.copy() for _ in range(length)], b, c]
        out = list(interpolate(frames(pictures), model(4), multiply(1), report=report))
        assert report.repeats == repeats
        assert sum(f.picture is not p for f, p in zip(out, pictures, strict=True)) == repeats


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)])
def test_local_difference_is_the_largest_mean_of_a_block(dtype: type[Any], unit: float) -> None:
    earlier = np.full((30, 41, 3), 100, np.float64)
    later = earlier.copy()
    later[8:10, 12:14] += 40  # a quarter of one block of 4x4
    later[20:28, 20:28] += 3
    first, second = ((rgb * unit).astype(dtype) for rgb in (earlier, later))
    local, mean = differences(first, second)
    assert local == pytest.approx(10, rel=1e-4)
    assert mean == pytest.approx((10 + 4 * 3) / (7 * 10), rel=1e-4)  # of 7x10 whole blocks
    assert differences(first, second[:, 1:]) == (np.inf, np.inf)


def test_motion_by_uneven_steps_is_no_repeat() -> None:
    """A step of 1 px between steps of 2 px differs by half as much; every frame is a new one."""
    texture = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (64, 96, 3)).astype(np.uint8), (0, 0), 3)
    detector = TransitionDetector()
    places = (0, 2, 3, 5, 6, 8)
    seen = [detector.signature(texture[:, x : x + 80], F(i, 24)) for i, x in enumerate(places)]
    assert set(detector.transitions(seen)) == {Transition.MOTION}


@pytest.mark.parametrize(("timing", "between"), [(multiply(3), 2), (resample(F(60)), 1)])
def test_a_gap_is_held_without_frames_in_it(timing: Timing, between: int) -> None:
    """Twenty hours at 60 frames/s would be more than four million."""
    times = [F(0), F(1, 30), 72000 + F(0), 72000 + F(1, 30)]
    source = [Frame(p, t) for p, t in zip(moving(4), times, strict=True)]
    report = Report()
    out = list(interpolate(source, model(), timing, report=report))
    assert len(out) == 4 + 2 * between
    assert report.gaps == 1
    assert [f.time for f in out if f.picture is source[1].picture] == [F(1, 30)]
    assert [f.time for f in out if f.picture is source[2].picture] == [72000]


def check_size(model: RIFE, height: int, width: int) -> None:
    """Runs three frames of noise, which repeat and move, by all rules of the loop."""
    noise = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    clip = [Frame(p, F(n)) for n, p in enumerate([noise, noise, np.roll(noise, 1, 1), 255 - noise])]
    handling = Handling(overlays=Overlays(), fallback=Fallback())
    made = list(interpolate(clip, model, multiply(2), handling=handling))
    assert [frame.rgb().shape for frame in made] == [(height, width, 3)] * 7


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (5, 200), (16, 15), (31, 33), (200, 1)])
def test_frames_of_the_smallest_sizes(tiny_net: IFNet_v4, size: tuple[int, int]) -> None:
    check_size(RIFE(tiny_net, name="tiny"), *size)


@pytest.mark.slow
def test_frames_of_heights_and_widths_up_to_200(tiny_net: IFNet_v4) -> None:
    model = RIFE(tiny_net, name="tiny")
    for side in range(1, 201, 4):
        check_size(model, side, (side * 37) % 200 + 1)
