"""Tests that a gap of hours takes no time and no memory: one frame of the gap is planned."""

from fractions import Fraction as F

import numpy as np

from video.devices import InputFrame
from video.frame import Frame
from video.timing.output_times import resample
from video.transitions.retime import plain_pairs
from video.transitions.scene import Transition, TransitionDetector


def test_no_step_of_a_gap_is_planned_beyond_its_start() -> None:
    rgb, detector = np.zeros((16, 16, 3), np.uint8), TransitionDetector()
    frames = [InputFrame(Frame(rgb, time), rgb, detector.signature(rgb, time)) for time in (F(0), F(10**9))]
    frames[1].transition = Transition.GAP
    (pair,) = plain_pairs(frames, resample(F(60)))
    assert pair.steps[0] == (F(0), F(0))
    assert len(pair.steps) == 60 * 60
    assert pair.held
