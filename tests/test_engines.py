"""benchmark/engines.py: another engine gives the network's picture, or one line of error."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import Shift

from benchmark import compare, testtime
from benchmark.compare import pair, parse_setting
from benchmark.engines import check_agreement, openvino_inference
from model import RIFE, UserError
from model.IFNet_v4 import IFNet_v4


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_openvino_gives_the_networks_picture(tiny_net: IFNet_v4, scale: float) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = RIFE(tiny_net, name="tiny")
    images = pair((70, 50), "cpu")
    infer = openvino_inference(model, 50, 70, scale)
    for first, second in (images, images[::-1]):  # nothing of one call is left in the next
        torch.testing.assert_close(infer(first, second), model.inference(first, second, scale=scale), rtol=0, atol=1e-5)


def test_openvino_is_one_of_the_settings(tiny_weights: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    settings = [parse_setting(f"model={tiny_weights}{more}") for more in (",openvino", "")]
    theirs, ours = compare.compare(settings, (64, 64), torch.device("cpu"), runs=1)
    assert theirs["gflop"] == ours["gflop"] > 0
    assert theirs["peak_memory_mib"] > 50


def test_settings_that_openvino_cannot_run_end_in_one_line() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    with pytest.raises(UserError, match=r"^OpenVINO cannot run shift, leave the setting openvino out: "):
        openvino_inference(RIFE(Shift(), name="shift"), 64, 64, 1.0)  # its forward needs features


def test_without_openvino_the_error_says_what_to_install(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = ["--compare", f"model={tiny_weights},openvino", "--device", "cpu", "--size", "64x64"]
    assert testtime.main(options) == 1
    remedy = "the setting openvino needs OpenVINO: python3 -m pip install openvino packaging"
    assert capsys.readouterr().err == f"testtime.py: {remedy}\n"


def test_differing_pictures_are_reported() -> None:
    picture = torch.full((1, 3, 4, 4), 0.5)
    check_agreement("other", picture + 9e-5, picture)
    for wrong in (picture + 2e-4, picture * float("nan")):
        with pytest.raises(UserError, match=r"^other and ours are (2\.0e-04|nan) apart, 0\.0001 is allowed"):
            check_agreement("other", wrong, picture)
