"""Reads the parity fixtures: recorded outputs of upstream's networks, with weights that follow from their names.

A fixture is NAME.json (the state dict's keys and shapes, the cases, the tolerances) and NAME.npz (images and recorded
outputs). No trained weight is involved: `make_tensor` gives each tensor from its name, shape and the fixture's seed.
"""

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
ENCODING_ERROR = 1e-5  # images are recorded as uint16

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of the splitmix64 generator
# Gain of a convolution by the first pattern that is found in "FILE/KEY"; 1 is He's scale, sqrt(2 / fan in).
_GAINS: list[tuple[str, float]] = [
    (r"lastconv(\.0)?\.weight$", 0.3),
    (r"convblock\.\d+\.conv\.weight$", 0.45),
    (r"encode\.(cnn3|6|1)\.weight$", 0.7),
    (r"^flownet/unet\.conv\.weight$", 0.12),
    (r"^unet/conv\.weight$", 0.15),
    (r"^flownet/block\d\.conv1(\.2)?\.weight$", 0.15),
    (r"^flownet/block(\d|_tea)\.conv2\.2\.weight$", 0.7),
]
_MASK_GAIN = 3.5  # mask and feature channels of a tail are this much larger than its flow
_FUSION_MASK_GAIN = 6.0  # the same in the HD fusion net
# Range of the tensors that are no convolution: middle and half width.
_RANGES = {"bias": (0.0, 0.05), "beta": (1.0, 0.2), "running_mean": (0.0, 0.1), "running_var": (1.0, 0.3)}
_PRELU, _NORM = (0.25, 0.1), (1.0, 0.2)

Arrays = dict[str, np.ndarray]


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniform(name: str, count: int, seed: int) -> np.ndarray:
    """Numbers in [-1, 1), a function of name and seed alone, in integer arithmetic that no numpy version changes."""
    with np.errstate(over="ignore"):
        key = np.array([zlib.crc32(name.encode()) | (seed << 32)], np.uint64)
        x = _mix(_mix(key + _GOLDEN) + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def make_tensor(
    name: str, shape: Sequence[int], seed: int, keys: Sequence[str], gains: Sequence[tuple[str, float]] = ()
) -> np.ndarray:
    """Returns the tensor of "FILE/KEY", whose file has these keys, for a fixture of that seed and gains of its own."""
    key = name.split("/", 1)[1]
    stem, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.array(1, np.int64)
    numbers = _uniform(name, int(np.prod(shape)), seed).reshape(shape)
    if leaf in _RANGES or len(shape) == 1:
        normed = f"{stem}.running_mean" in keys
        middle, half = _RANGES.get(leaf) or (_NORM if normed else _PRELU)
        return (middle + half * numbers).astype(np.float32)
    gain = next((g for pattern, g in [*gains, *_GAINS] if re.search(pattern, name)), 1.0)
    # every 4x4 kernel of these networks is a transposed convolution of stride 2
    fan_in = shape[0] * 4 if tuple(shape[2:]) == (4, 4) else shape[1] * shape[2] * shape[3]
    weight = numbers * (gain * np.sqrt(6.0 / fan_in))
    if "lastconv" in name:
        weight[:, 4 if shape[1] == 5 else 16 :] *= _MASK_GAIN
    if name == "unet/conv.weight":
        mask = np.s_[:, 3:] if shape[2] == 4 else np.s_[12:]
        weight[mask] *= _FUSION_MASK_GAIN
    return weight.astype(np.float32)


@dataclass(frozen=True)
class Fixture:
    """Holds one group of networks: its weights, and the outputs that its inputs must give."""

    name: str
    spec: dict[str, Any]
    arrays: Arrays

    @property
    def cases(self) -> list[dict[str, Any]]:
        return self.spec["cases"]

    def weights(self) -> dict[str, Arrays]:
        """Returns {file stem: {key: array}}, keys without prefix; ValueError if they are not those of the recording."""
        states = {
            stem: {
                key: make_tensor(f"{stem}/{key}", s, self.spec["seed"], list(shapes), self.spec.get("gains", ()))
                for key, s in shapes.items()
            }
            for stem, shapes in self.spec["state_dicts"].items()
        }
        for stem, state in states.items():
            checksum = 0
            for array in state.values():
                checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
            if checksum != self.spec["weights_crc32"][stem]:
                raise ValueError(f"{self.name}: the weights of {stem} are not those of the recording")
        return states

    def inputs(self, case: dict[str, Any]) -> Arrays:
        """Returns the images as float32 in 0..1, unless the case takes them raw."""
        own = case.get("inputs")
        teaches = self.spec["family"] == "train" or case.get("gt")
        names = own if own is not None else [n for n in self.spec["inputs"] if n != "gt" or teaches]
        found = {n: self.arrays[f"{case['id']}/in/{n}" if own is not None else f"in/{n}"] for n in names}
        whole = case.get("raw")
        return {n: a.astype(np.float32) / 255 if a.dtype == np.uint8 and not whole else a for n, a in found.items()}

    def excess(self, case: dict[str, Any], name: str, got: np.ndarray) -> float:
        """Returns the largest error of an output in units of what is allowed: at most 1 is right."""
        encoding = self.spec["encoding"].get(name, {})
        want = self.recorded(case, name)
        stride = encoding.get("stride", 1)
        got = np.asarray(got, np.float64)
        if stride > 1:
            got = got[..., ::stride, ::stride]
        if got.size != want.size:
            raise ValueError(f"{name} has shape {got.shape}, recorded is {want.shape}")
        error = np.abs(got.reshape(want.shape) - want)
        limit = case.get("tolerance") or self.spec["tolerance"][name]
        if isinstance(limit, list):  # ["rel", x], or ["rel_to", other output, x]
            other = want if limit[0] == "rel" else self.recorded(case, limit[1])
            return float((error / np.maximum(np.abs(other), 1e-12)).max() / limit[-1])
        # a NaN is an error too: max() hands it on, and it is not at most 1
        return float(error.max() / (limit + (ENCODING_ERROR if encoding.get("divide_by") else 0)))

    def recorded(self, case: dict[str, Any], name: str) -> np.ndarray:
        """Returns an output as upstream gave it, in float64."""
        array = self.arrays[f"{case['id']}/{name}"].astype(np.float64)
        return array / (self.spec["encoding"].get(name, {}).get("divide_by") or 1)


def read_fixture(path: Path) -> Fixture:
    """Reads the fixture of a NAME.json, whose NAME.npz is beside it."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return Fixture(path.stem, json.loads(path.read_text()), dict(arrays))


def network_paths() -> list[Path]:
    """Returns the NAME.json of every recorded network, without the operations and the training steps."""
    return [p for p in sorted(GOLDEN.glob("*.json")) if p.stem != "ops" and not p.stem.startswith("train_")]
