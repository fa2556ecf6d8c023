"""Tests repeats that are left out, frames that are made anew, decisions in a file, and the pictures at a cut."""

import json
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Shift
from test_cuts import mix, pan

from model import RIFE, UserError
from video.frame import Frame
from video.interpolate import Handling, Report, interpolate
from video.timing.output_times import multiply, resample
from video.transitions.decisions import read_decisions, write_decisions
from video.transitions.repair import parse_numbers
from video.transitions.retime import spread
from video.transitions.scene import Transition, TransitionDetector

RATE = 24


def level(value: float) -> np.ndarray:
    """Returns a flat picture whose level is its time."""
    return np.full((16, 16, 3), value, np.uint8)


def frames(pictures: list[np.ndarray]) -> list[Frame]:
    return [Frame(p, F(n, RATE)) for n, p in enumerate(pictures)]


def run(pictures: list[np.ndarray], multi: int = 1, **rules: Any) -> tuple[list[float], Report]:
    """Returns the mean level of each frame of the output, and the report; the network blends by time."""
    report = Report()
    rules.setdefault("detector", TransitionDetector(cuts="off"))
    out = list(
        interpolate(
            frames(pictures), RIFE(Shift(0), name="blend"), multiply(multi), handling=Handling(**rules), report=report
        )
    )
    assert [f.time for f in out] == [F(n, RATE * multi) for n in range((len(pictures) - 1) * multi + 1)]
    return [round(float(f.rgb().mean()), 1) for f in out], report


@pytest.mark.parametrize("multi", [1, 2, 3])
@pytest.mark.parametrize("hold", [(2, 2, 2, 2), (3, 3, 3), (2, 3, 1, 2, 3), (1, 1, 2, 1)])
def test_animation_on_twos_threes_and_mixed_moves_evenly(hold: tuple[int, ...], multi: int) -> None:
    """A drawing stands for the time at which it is first shown: its level is that time, so a straight line is right."""
    starts = np.cumsum([0, *hold])
    pictures = [level(12 * start) for start, count in zip(starts, [*hold, 1], strict=True) for _ in range(count)]
    levels, report = run(pictures, multi, dedup="retime")
    assert np.abs(np.array(levels) - np.arange(len(levels)) * 12 / multi).max() <= 0.5
    assert report.repeats == sum(hold) - len(hold)


def test_a_long_run_stands_still_and_moves_at_its_end() -> None:
    levels, _ = run([level(0)] * 7 + [level(90)], dedup="retime")
    assert levels == [0, 0, 0, 0, 0, 30, 60, 90]


def test_repeats_at_the_end_and_before_a_cut_stay() -> None:
    assert run([level(0), level(40), level(40)], dedup="retime")[0] == [0, 40, 40]
    pictures = [*pan(0, 3), pan(0, 3)[2], *pan(1, 3)]
    shown, report = run(pictures, 2, dedup="retime", detector=TransitionDetector())
    assert report.cuts == 1
    assert shown[6] == shown[7] == round(float(pictures[3].mean()), 1)


def test_dedup_off_keeps_every_frame() -> None:
    assert run([level(0), level(0), level(40)], dedup="off")[0] == [0, 0, 40]
    assert run([level(0), level(0), level(40)], dedup="replace")[0] == [0, 20, 40]


def test_times_of_a_resampled_output_stay() -> None:
    times = [F(0), F(1, 24), F(2, 24)]
    assert spread(times, resample(F(60))) == [(F(n, 60), F(n, 60) * 12) for n in range(5)]


@pytest.mark.parametrize(
    ("rule", "expected"), [("hold", [0, 0, 0, 80]), ("nearest", [0, 0, 80, 80]), ("blend", [0, 27, 53, 80])]
)
def test_at_cut_chooses_the_pictures_of_a_cut(rule: str, expected: list[int]) -> None:
    levels, report = run([level(0), level(80)], 3, at_cut=rule, detector=TransitionDetector())
    assert levels == expected
    assert (report.cuts, report.made) == (1, 0)


def test_repair_makes_the_named_frames_anew() -> None:
    pictures = [level(10 * n) for n in range(8)]
    pictures[2], pictures[4], pictures[5] = level(200), level(0), level(255)
    levels, report = run(
        pictures, repair=True, numbers=frozenset({2, 4, 5}), detector=TransitionDetector(repeats="off", cuts="off")
    )
    assert levels == [0, 10, 20, 30, 40, 50, 60, 70]
    assert report.repeats == 3


def test_repair_finds_damage_and_repeats_and_keeps_cuts() -> None:
    pictures = [*pan(2, 8), *pan(3, 5)]
    truth = [p.copy() for p in pictures]
    pictures[3] = np.random.default_rng(0).integers(0, 256, pictures[0].shape, np.uint8)
    pictures[10] = pictures[9]
    report = Report()
    model = RIFE(Shift(-12), name="pan")
    out = list(interpolate(frames(pictures), model, multiply(1), handling=Handling(repair=True), report=report))
    inside = np.s_[20:-20, 20:-20]
    for frame, true in zip(out, truth, strict=True):
        assert np.abs(frame.rgb()[inside].astype(int) - true[inside]).mean() < 0.5
    assert (report.repeats, report.cuts) == (2, 0)  # at the same rate nothing is held over the cut


def test_damage_before_a_cut_shows_the_frame_before() -> None:
    pictures = [*pan(2, 4), *pan(3, 4)]
    first = pictures[2]
    pictures[3] = mix(pictures[3], 255, 0.9)
    out = list(
        interpolate(
            frames(pictures),
            RIFE(Shift(), name="still"),
            multiply(1),
            handling=Handling(repair=True, numbers=frozenset({3})),
        )
    )
    assert np.array_equal(out[3].rgb(), first)
    assert len(out) == 8


def test_numbers_of_frames() -> None:
    assert parse_numbers("10, 20-22\n30\n") == {10, 20, 21, 22, 30}
    for wrong in ("", "a", "1-b", "0-9999999999"):
        with pytest.raises(ValueError):  # noqa: PT011 - of int, or our own
            parse_numbers(wrong)


def test_decisions_are_written_edited_and_read(tmp_path: Path) -> None:
    pictures = [*pan(0, 3), pan(0, 3)[2], *pan(1, 3)]
    _, report = run(pictures, 2, detector=TransitionDetector(), dedup="retime")
    write_decisions(tmp_path / "a.json", report.transitions)
    entries = json.loads((tmp_path / "a.json").read_text())["transitions"]
    assert [(e["time"], e["kind"]) for e in entries] == [(0.125, "repeat"), (0.166667, "cut")]
    assert 0.22 < entries[1]["score"] < 2
    edited = [entries[0], {"time": 0.21, "kind": "cut"}]  # the time of the next frame, as a player shows it
    (tmp_path / "a.json").write_text(json.dumps({"transitions": edited}))
    given = read_decisions(tmp_path / "a.json")
    _, report = run(pictures, 2, given=given, detector=TransitionDetector(), dedup="retime")
    assert [(d.kind, d.time) for d in report.transitions] == [
        (Transition.REPEAT, F(1, 8)),
        (Transition.CUT, F(5, RATE)),
    ]
    assert (report.cuts, report.repeats) == (1, 1)


def test_a_frame_takes_the_nearest_entry_and_entries_of_no_frame_are_counted(tmp_path: Path) -> None:
    """Frame 2 is at 83.3 ms. Its entries are out of order, 15 ms before and 2 ms after it."""
    entries = [(9, "cut"), (0.0853, "cut"), (0.0683, "repeat"), (0.001, "gap")]
    text = json.dumps({"transitions": [{"time": time, "kind": kind} for time, kind in entries]})
    (tmp_path / "a.json").write_text(text, encoding="utf-8-sig")  # as Windows' editor writes it
    given = read_decisions(tmp_path / "a.json")
    _, report = run([level(20 * n) for n in range(5)], 2, given=given)
    assert [(d.kind, d.time) for d in report.transitions] == [(Transition.CUT, F(2, RATE))]
    assert given.unused == 2  # at 9 s, and at the first frame, which no transition leads to


@pytest.mark.parametrize("rules", [{}, {"cuts": "upstream", "repeats": "upstream"}])
@pytest.mark.parametrize("dedup", ["replace", "retime"])
def test_decisions_that_are_read_back_unchanged_give_the_same_frames(
    rules: dict[str, str], dedup: str, tmp_path: Path
) -> None:
    pictures = [*pan(0, 3), pan(0, 3)[2], pan(0, 4)[3], *pan(1, 3), *pan(1, 4)[2:]]
    detector = TransitionDetector(**rules)  # type: ignore[arg-type]
    first, report = run(pictures, 2, detector=detector, dedup=dedup)
    write_decisions(tmp_path / "a.json", report.transitions)
    again, _ = run(pictures, 2, detector=detector, dedup=dedup, given=read_decisions(tmp_path / "a.json"))
    assert again == first
    (score,) = (d.score for d in report.transitions if d.kind is Transition.CUT)
    assert score is not None
    assert (score < 0.2) == (rules != {})  # similarity, or mismatch


def test_upstreams_rule_leaves_a_frame_whose_entry_was_deleted(tmp_path: Path) -> None:
    """Three equal frames and one that moved: the rule replaces both repeats, the file only the first."""
    pictures = [level(0), level(0), level(0), level(60)]
    detector = TransitionDetector(cuts="off", repeats="upstream")
    (tmp_path / "a.json").write_text(json.dumps({"transitions": [{"time": 0.0417, "kind": "repeat"}]}))
    _, report = run(pictures, detector=detector, given=read_decisions(tmp_path / "a.json"))
    assert report.repeats == 1


def test_damage_is_listed_and_an_entry_that_is_deleted_keeps_its_frame(tmp_path: Path) -> None:
    pictures = pan(2, 6)
    pictures[3] = np.random.default_rng(0).integers(0, 256, pictures[0].shape, np.uint8)
    detector = TransitionDetector(repeats="off")
    first, report = run(pictures, repair=True, detector=detector)
    assert [(d.kind, d.time, d.score) for d in report.transitions] == [(Transition.DAMAGED, F(3, RATE), None)]
    write_decisions(tmp_path / "a.json", report.transitions)
    again, report = run(pictures, repair=True, detector=detector, given=read_decisions(tmp_path / "a.json"))
    assert (again, report.repeats) == (first, 1)
    (tmp_path / "a.json").write_text('{"transitions": []}')
    kept, report = run(pictures, repair=True, detector=detector, given=read_decisions(tmp_path / "a.json"))
    assert (kept[3], report.repeats) == (round(float(pictures[3].mean()), 1), 0)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"transitions": [{"time": 1}]}', '{"transitions": [{"time": 1, "kind": "x"}]}']
)
def test_a_file_that_holds_no_decisions_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: is no list of decisions"):
        read_decisions(tmp_path / "a.json")
