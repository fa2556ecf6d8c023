"""Tests that benchmark/baseline.py and the fast networks give upstream's recorded frames."""

import pytest
import torch
from fixtures import GOLDEN, read_fixture

from benchmark.baseline import load_baseline
from model import RIFE, UserError
from model.IFNet import IFNet
from model.loading import build_network, detect_version


def fixture_model(name: str) -> RIFE:
    fixture = read_fixture(GOLDEN / f"{name}.json")
    state = {key: torch.from_numpy(value) for key, value in fixture.weights()["flownet"].items()}
    return RIFE(build_network(detect_version(state), state).eval(), name=name)


@pytest.mark.parametrize("name", ["rife", "rife_m", "v4_25"])
def test_baseline_gives_the_recorded_frames(name: str) -> None:
    fixture = read_fixture(GOLDEN / f"{name}.json")
    baseline = load_baseline(fixture_model(name))
    compared = 0
    for case in fixture.cases:
        if case.get("tta") or case.get("gt") or "frame" not in case["outputs"]:
            continue
        img0, img1 = (torch.from_numpy(fixture.inputs(case)[key]) for key in ("img0", "img1"))
        frame = baseline.inference(img0, img1, case["timestep"], case["scale"])
        assert fixture.excess(case, "frame", frame.numpy()) <= 1
        compared += 1
    assert compared


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="not RIFE 2R"):
        load_baseline(RIFE(IFNet(half_stride=True), name="RIFE 2R"))
