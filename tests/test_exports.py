"""Tests benchmark/exports.py: rows of the table, and networks by their name."""

from pathlib import Path

import pytest
import torch

from benchmark import exports
from benchmark.exports import EXPORT_KINDS, NETWORKS, compare, planes, rows, source_of
from model.IFNet_v4 import IFNet_v4
from model.weights.published import PUBLISHED


@pytest.mark.parametrize(("name", "known"), [("4.15", "4.13-4.15, 4.17-4.19, 4.24"), ("4.26", "4.25, 4.26")])
def test_a_network_has_its_published_configuration(name: str, known: str) -> None:
    with torch.device("meta"):
        net = NETWORKS[name]()
    assert isinstance(net, IFNet_v4)
    assert net.config == PUBLISHED[known]


def test_a_form_is_compared_with_the_network(tiny_weights: Path) -> None:
    record = compare(source_of("4.25", {"4.25": tiny_weights}), EXPORT_KINDS["pkl"])
    assert record == {"largest": 0, "mean": 0}
    assert rows("4.25", {"pkl": record, "comfy": record}) == ["| 4.25 | pkl, comfy | 0.0e+00 | 0.0e+00 |  |"]


def test_a_refusal_is_a_row() -> None:
    source = source_of("paper", {})
    record = compare(source, EXPORT_KINDS["onnx v2"])
    assert record["refused"].startswith("layout v2 is for any timestep")
    (row,) = rows("paper", {"onnx v2": record})
    assert row.startswith("| paper | onnx v2 | refused: layout v2")
    assert row.count("|") == 6


def test_planes_hold_the_coordinates_of_the_pixels() -> None:
    x, y, step_x, step_y = planes(3, 5)[0]
    torch.testing.assert_close(x[0], torch.tensor([-1, -0.5, 0, 0.5, 1]))
    torch.testing.assert_close(y[:, 0], torch.tensor([-1.0, 0, 1]))
    assert (float(step_x[0, 0]), float(step_y[0, 0])) == (0.5, 1.0)


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (source_of("4.22.lite", {}).net.state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exports.main(["--model", "5.0=x"])
    assert "'5.0=x' is not NETWORK=PATH" in capsys.readouterr().err
