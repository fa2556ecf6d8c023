"""Every published network gives upstream's recorded outputs, loaded from weights in the form upstream publishes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import ALL, SMALL, Fixture, fixture_paths, read_fixture
from parity import load, run_network

from model.checkpoint import DDP_PREFIX
from model.loading import load_network

SMALL_PATHS = list(fixture_paths(SMALL))
ALL_PATHS = [path for path in fixture_paths(ALL) if path.stem != "ops"]
ELSEWHERE = ("yuv420",)  # operations that are not in model/
BESIDE = 'raise SystemExit("the code beside the weights was run")\n'


def compare(fixture: Fixture, run: Any) -> int:
    """Asserts every output of every case; how many there were."""
    compared = 0
    for case in fixture.cases:
        if case.get("op") in ELSEWHERE or case["id"] in ELSEWHERE:
            continue
        outputs = run(case, fixture.inputs(case))
        for name in case["outputs"]:
            excess = fixture.excess(case, name, np.asarray(outputs[name]))
            assert excess <= 1, f"{fixture.name} case {case['id']}: {name} is off by {excess:.1f} times its limit"
            compared += 1
    return compared


def write_official(fixture: Fixture, folder: Path) -> None:
    """The weights as upstream publishes them: pickles of a parallel module, with what else such files hold."""
    for stem, arrays in fixture.weights().items():
        state = {DDP_PREFIX + key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
        if fixture.spec["family"] == "v4":
            state[f"{DDP_PREFIX}teacher.block0.conv0.0.0.weight"] = torch.zeros(2, 3, 3, 3)
            state[f"{DDP_PREFIX}caltime.0.weight"] = torch.zeros(2)
        if fixture.name == "hd_v3_8":  # 3.2 is reported to hold these
            state[f"{DDP_PREFIX}contextnet.conv1.conv1.0.weight"] = torch.zeros(2)
            state[f"{DDP_PREFIX}unet.conv.weight"] = torch.zeros(4, 16, 3, 3)
        old = fixture.spec["family"] == "hd"  # torch wrote no zips before 1.6
        torch.save(state, folder / f"{stem}.pkl", _use_new_zipfile_serialization=not old)
    (folder / "RIFE_HDv3.py").write_text(BESIDE)


@pytest.mark.parametrize("path", SMALL_PATHS, ids=lambda p: p.stem)
def test_small_copies(path: Path) -> None:
    fixture = read_fixture(path)
    run = load(fixture.name, fixture.spec, fixture.weights())
    assert run is not None
    assert compare(fixture, run) > 3


@pytest.mark.skipif(not ALL_PATHS, reason=f"no fixtures in {ALL}; tests/golden holds four groups of them")
@pytest.mark.parametrize("path", ALL_PATHS, ids=lambda p: p.stem)
def test_official_files_give_upstreams_outputs(path: Path, tmp_path: Path) -> None:
    fixture = read_fixture(path)
    write_official(fixture, tmp_path)
    net, _, file = load_network(tmp_path, "rife_2r" if fixture.name == "rife_2r" else None)
    assert str(file) == str(tmp_path / "flownet.pkl")
    assert compare(fixture, lambda case, inputs: run_network(net.eval(), case, inputs)) > 0


def test_a_wrong_network_is_noticed() -> None:
    fixture = read_fixture(SMALL / "v4_25.json")
    weights = fixture.weights()
    weights["flownet"]["block2.convblock.3.beta"] = weights["flownet"]["block2.convblock.3.beta"] * 1.01
    run = load(fixture.name, fixture.spec, weights)
    with pytest.raises(AssertionError, match="times its limit"):
        compare(fixture, run)
