"""Detects from keys and shapes alone which network a checkpoint belongs to, and loads it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from model.errors import WeightsError
from model.IFNet import IFNet
from model.IFNet_HD import IFNet_HD, IFNet_HDv2, IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.weights import State
from model.weights.checkpoint import WeightFile, find_weights, read_weights
from model.weights.metadata import read_metadata
from model.weights.published import PUBLISHED, read_config, shape_of

AnyNetwork = IFNet | IFNet_v4 | IFNet_HD | IFNet_HDv2 | IFNet_HDv3
# Prefixes of keys in official files that are for training only (Practical-RIFE 4.x).
TRAINING_ONLY = ("teacher.", "caltime.", "block_tea.")
TRAIN_LOG = Path(__file__).resolve().parents[1] / "train_log"  # folder of the default weights, in every current folder
REMEDY = "download the file again if it should be a published one"
COUNTERS = "num_batches_tracked"
REFINEMENT = ("contextnet.", "unet.")


@dataclass(frozen=True)
class Version:
    """Describes a published network: its name, a function that builds it, and the keys of a file that it ignores."""

    name: str
    build: Callable[[], AnyNetwork]
    ignored: tuple[str, ...] = ()  # key prefixes that inference does not need


# A key that only one generation of the HD networks has, and the generation.
HD_VERSIONS = {
    "block0.res0.fc1.weight": Version("HD 1.x", IFNet_HD),
    "block0.convblock.0.0.weight": Version("HD 2.x", IFNet_HDv2),
    "block0.conv1.2.weight": Version("HD 3.2-3.8", IFNet_HDv3, TRAINING_ONLY + REFINEMENT),
    "block0.convblock0.0.0.weight": Version("HD 3.0, 3.1", partial(IFNet_HDv2, paired=True)),
}


def detect_version(state: State, arch: str | None = None) -> Version:
    """Returns the network that a state dict (keys without `module.`) belongs to.

    `arch="rife_2r"` names the one network whose shapes are also those of another. Raises WeightsError with the
    difference and the nearest known network.
    """
    if "block0.lastconv.weight" in state and "block3.conv0.0.0.weight" not in state:
        return _paper_version(state, arch)
    if arch is not None:
        raise WeightsError(f"architecture {arch} does not fit these weights; name none: their shapes determine it")
    if "block0.lastconv.weight" in state or "block0.lastconv.0.weight" in state:
        return _v4_version(state)
    for mark, version in HD_VERSIONS.items():
        if mark in state:
            return version
    raise WeightsError(f"an unknown network, its keys begin with {_some(state)}; known are {known_names()}")


def known_names() -> str:
    """Returns the names of the networks that can be loaded, in one line."""
    return ", ".join(("RIFE", "RIFE_m", "RIFE 2R", *(v.name for v in HD_VERSIONS.values()), *PUBLISHED))


def _some(keys: Iterable[str]) -> str:
    return ", ".join([key[:80] for key in keys][:3]) or "nothing"


def _paper_version(state: State, arch: str | None) -> Version:
    inputs = shape_of(state, "block0.conv0.0.0.weight")[1]
    if inputs not in (6, 7):
        raise WeightsError(f"block0 takes {inputs} channels; nearest known: the paper's RIFE takes 6, RIFE_m 7")
    timed = inputs == 7
    if arch == "rife_2r" and not timed:
        return Version("RIFE 2R", lambda: IFNet(half_stride=True))
    if arch not in (None, "rife_m" if timed else "rife"):
        raise WeightsError(f"architecture {arch} does not fit these weights, which are {'RIFE_m' if timed else 'RIFE'}")
    return Version("RIFE_m" if timed else "RIFE", lambda: IFNet(timed=timed))


def _v4_version(state: State) -> Version:
    config = read_config(state)
    refine = "unet.conv.weight" in state and not config.shuffle
    config = replace(config, refine=refine)
    plain = replace(config, sharp=False, pad_mode="constant")
    name = next((n for n, known in PUBLISHED.items() if replace(known, refine=refine) == plain), None)
    if name is None:
        name = f"v4 (not a published one; widths {', '.join(map(str, config.channels))})"
    ignored = TRAINING_ONLY if refine else TRAINING_ONLY + REFINEMENT
    return Version(name, lambda: IFNet_v4(config), ignored)


def load_network(path: Path | str, arch: str | None = None) -> tuple[AnyNetwork, str, WeightFile]:
    """Returns the network whose weights are in `path` (a file, folder or zip), its name, and the file.

    The network is in float32 on the CPU. The name is the entry "name" in the metadata of a .safetensors file, such as
    "default, 2026-11", otherwise the published version that the shapes of the weights belong to. Raises WeightsError
    naming the file, the cause and the remedy.
    """
    file = find_weights(path)
    state = read_weights(file)
    try:
        version = detect_version(state, arch)
        net = build_network(version, state)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}" if arch else f"{file}: {e}; {REMEDY}") from e
    return net, read_metadata(file).get("name") or version.name, file


def build_network(version: Version, state: State) -> AnyNetwork:
    """Returns the network of a version with these weights (keys without `module.`). WeightsError if they differ."""
    with torch.device("meta"):
        net = version.build()
    try:
        fill(net, {key: value for key, value in state.items() if not key.startswith(version.ignored)})
    except WeightsError as e:
        raise WeightsError(f"nearest known: {version.name}; {e}") from e
    return net


def fill(net: nn.Module, state: State) -> None:
    """Copies tensors into the network (float32). Raises WeightsError for missing, surplus or misshapen ones.

    The paper's teacher and the counters of batch normalisation may be missing: re-hosted files leave them out, and
    inference does not need them.
    """
    wanted = net.state_dict()
    missing = [k for k in wanted if k not in state and not k.startswith("block_tea.") and not k.endswith(COUNTERS)]
    surplus = [k for k in state if k not in wanted]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or surplus or wrong:
        misfits = [f"{k} is {tuple(state[k].shape)} instead of {tuple(wanted[k].shape)}" for k in wrong]
        parts = [
            f"{len(keys)} {kind} ({_some(keys)})"
            for kind, keys in (("missing", missing), ("unexpected", surplus), ("misshapen", misfits))
            if keys
        ]
        raise WeightsError(f"the tensors do not fit this network: {', '.join(parts)}")
    full = {k: state[k].to(v.dtype) if k in state else torch.zeros_like(v, device="cpu") for k, v in wanted.items()}
    net.load_state_dict(full, assign=True)
