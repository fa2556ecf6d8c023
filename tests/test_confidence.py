"""Tests the difference of the two warped frames, what is shown then, and the file of measures."""

from fractions import Fraction as F
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Shift

from model import RIFE
from model.image import to_tensor
from video.frame import Frame
from video.interpolate import Handling, Report, interpolate
from video.timing.output_times import multiply
from video.transitions.confidence import Fallback, Measure, write_measures
from video.transitions.scene import TransitionDetector

SLOPE = 2  # levels a pixel, from left to right
MOTION = 6  # px, which the network wrongly finds between two equal pictures


def slope() -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to((SLOPE * np.arange(96, dtype=np.uint8))[None, :, None], (32, 96, 3)))


@pytest.mark.parametrize("arbitrary_time", [True, False])
def test_the_last_channel_is_the_difference_of_the_warped_images(arbitrary_time: bool) -> None:
    """Both images are the same slope: moved by t*M and back by (1-t)*M they are SLOPE*M levels apart."""
    model = RIFE(Shift(MOTION, arbitrary_time=arbitrary_time), name="shift")
    image = to_tensor(slope())
    plain = list(model.between(image, image, [0.25, 0.5]))
    made = list(model.between(image, image, [0.25, 0.5], disagreement=True))
    for with_channel, without in zip(made, plain, strict=True):
        assert with_channel.shape == (1, 4, 32, 96)
        torch.testing.assert_close(with_channel[:, :3], without)
    apart = 255 * made[1][0, 3, :, 16:-16]
    assert apart.mean().item() == pytest.approx(SLOPE * MOTION, abs=0.01)


@pytest.mark.parametrize(
    ("rule", "threshold", "expected"), [("hold", 5, 0), ("blend", 5, 1), ("hold", 50, 2), (None, 5, 2)]
)
def test_an_unsure_frame_is_replaced(rule: str | None, threshold: float, expected: int) -> None:
    a, b = slope(), slope() + 30
    report = Report()
    handling = Handling(TransitionDetector(cuts="off"), fallback=Fallback(rule, threshold))
    clip = [Frame(a, F(0)), Frame(b, F(1))]
    out = list(interpolate(clip, RIFE(Shift(MOTION), name="shift"), multiply(2), handling=handling, report=report))
    shown = out[1].rgb()
    kinds = [np.array_equal(shown, a), np.array_equal(shown, a + 15)]
    assert kinds == [expected == 0, expected == 1]
    (measure,) = report.measures
    assert measure.time == 0.5
    assert measure.replaced == (expected < 2)
    assert measure.disagreement > 5


def test_black_bars_do_not_lower_the_measure() -> None:
    """Bars agree always: half of a frame would halve its mean."""
    found = []
    for bars in (0, 16):
        report = Report()
        handling = Handling(TransitionDetector(cuts="off"), fallback=Fallback())
        pictures = [np.pad(slope() + 20, ((bars, bars), (0, 0), (0, 0))) for _ in range(2)]
        clip = [Frame(p, F(n)) for n, p in enumerate(pictures)]
        list(interpolate(clip, RIFE(Shift(MOTION), name="shift"), multiply(2), handling=handling, report=report))
        found.append(report.measures[0].disagreement)
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_measures_as_lines(tmp_path: Path) -> None:
    write_measures(tmp_path / "a.csv", [Measure(0.5, 1.25, False), Measure(1.5, 30, True)])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["time,disagreement,replaced", "0.500000,1.250,0", "1.500000,30.000,1"]
